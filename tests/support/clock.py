"""Time and chance in the hands of a test."""

from collections.abc import Iterable

__all__ = ["FakeClock"]


class FakeClock:
    """The three attributes of `sidecar.clock.Clock`, moved by hand.

    now: monotonic seconds. epoch: wall seconds at monotonic 0. chances: what `uniform` gives, in turn,
    the last one for ever; 0.5 is the middle of every ±jitter, that is none.
    """

    __slots__ = ("_chances", "epoch", "now")

    def __init__(
        self, now: float = 1000.0, epoch: float = 1_700_000_000.0, chances: Iterable[float] = (0.5,)
    ) -> None:
        self.now = now
        self.epoch = epoch
        self._chances = list(chances)

    def monotonic(self) -> float:
        """Seconds; moves only by `advance`."""
        return self.now

    def wall(self) -> float:
        """Seconds since the Unix epoch, in step with `monotonic`."""
        return self.epoch + self.now

    def uniform(self) -> float:
        """The next of the chances."""
        return self._chances.pop(0) if len(self._chances) > 1 else self._chances[0]

    def advance(self, seconds: float) -> float:
        """Let time pass; gives the new monotonic time."""
        if seconds < 0:
            raise ValueError(f"time cannot go back by {-seconds} s")
        self.now += seconds
        return self.now
