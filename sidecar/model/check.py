"""What health checks have found, as it is kept and shown; `health` makes them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CheckCounts", "CheckResult"]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The last check of an endpoint.

    at: when it ended, monotonic seconds. ok: None when it could not be made, which says nothing of the endpoint.
    seconds: it took. error: why it is not ok, empty when it is. in_a_row: how many had the same result, this one
    included.
    """

    at: float
    ok: bool | None
    seconds: float
    error: str
    in_a_row: int


class CheckCounts:
    """running: checks that go on now. limit: as many may at once; 0 where nothing is checked."""

    __slots__ = ("limit", "running")

    def __init__(self) -> None:
        self.running = 0
        self.limit = 0
