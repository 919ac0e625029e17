"""How many attempts of the last seconds went well and badly: counts in buckets, of which the oldest is dropped.

The window is as long as it says, less up to one bucket: the bucket that is being filled is as young as it is. Counting
is an addition, and a new bucket comes with the first count after the last one's end.
"""

from __future__ import annotations

from array import array

__all__ = ["BUCKETS", "SlidingWindow"]

BUCKETS = 10

_BUCKETS = BUCKETS  # as compiled code sees it


class SlidingWindow:
    """The last `seconds` (above 0), in `BUCKETS` buckets. Times are monotonic seconds."""

    __slots__ = ("_at", "_bad", "_buckets", "_end", "_good", "_width", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._width = seconds / _BUCKETS
        self._buckets = array("q", bytes(16 * _BUCKETS))  # good and bad of each
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        for index in range(2 * _BUCKETS):
            self._buckets[index] = 0
        self._good = 0
        self._bad = 0
        self._at = 0  # the bucket that is being filled
        self._end = -1e9  # of it: long ago, so that the first count begins a bucket of its own

    def count(self, good: bool, now: float) -> None:
        """One attempt ended so."""
        if now >= self._end:
            self._turn(now)
        if good:
            self._good += 1
            self._buckets[2 * self._at] += 1
        else:
            self._bad += 1
            self._buckets[2 * self._at + 1] += 1

    def totals(self, now: float) -> tuple[int, int]:
        """(good, bad) of the window that ends now."""
        if now >= self._end:
            self._turn(now)
        return self._good, self._bad

    def _turn(self, now: float) -> None:
        """Go on to the bucket of `now`, dropping those that it takes the place of."""
        steps = int((now - self._end) / self._width) + 1
        if steps >= _BUCKETS:
            self.clear()
            self._end = now + self._width
            return
        for _ in range(steps):
            self._at = (self._at + 1) % _BUCKETS
            self._good -= self._buckets[2 * self._at]
            self._bad -= self._buckets[2 * self._at + 1]
            self._buckets[2 * self._at] = self._buckets[2 * self._at + 1] = 0
        self._end += steps * self._width
