"""How often the same failure is told: at once, and then once a minute with how many there were."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

__all__ = ["MOST", "PAUSE", "FailureLog", "suffix"]

PAUSE = 60.0  # seconds: an endpoint with an expired certificate fails for each request, and for hours
MOST = 256  # kinds of failure of one upstream that are told apart; beyond it the one that was told first is forgotten


class FailureLog:
    """Of one upstream or listener."""

    __slots__ = ("_monotonic", "_told")

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._told: dict[Hashable, tuple[float, int]] = {}  # when it was told, and how many came since

    def due(self, kind: Hashable) -> int | None:
        """A failure of a kind: None where it is not told now, else how many of it have been left out before."""
        now = self._monotonic()
        at, left_out = self._told.get(kind, (float("-inf"), 0))
        if now - at < PAUSE:
            self._told[kind] = (at, left_out + 1)
            return None
        self._told.pop(kind, None)  # to the end
        if len(self._told) >= MOST:
            del self._told[next(iter(self._told))]
        self._told[kind] = (now, 0)
        return left_out


def suffix(left_out: int) -> str:
    """What a line says of those before it."""
    return f" ({left_out} more like it since the last line)" if left_out else ""
