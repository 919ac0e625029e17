"""How long to wait before a worker that has died is started again."""

from __future__ import annotations

__all__ = ["Backoff"]

FIRST = 0.1  # seconds, when it died again soon after
LONGEST = 10.0  # its share of new connections waits in the queue for no longer than that
STEADY = 10.0  # seconds of life after which a death is the first again: longer than any start takes


class Backoff:
    """Of one worker's place: at once, then 0.1 s doubling to 10 s while it does not live for 10 s."""

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next = 0.0

    def after(self, lived: float) -> float:
        """Seconds to wait when it lived for `lived` seconds."""
        wait = 0.0 if lived >= STEADY else self._next
        self._next = min(LONGEST, max(FIRST, wait * 2.0))
        return wait
