"""Deadlines without timers: one coarse pass over everything that is open.

A timer per request costs about a microsecond to set and another to cancel; writing a number into an
attribute costs nothing. So whatever can expire keeps a `deadline` and is looked at ten times a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio

    from sidecar.clock import Clock

__all__ = ["INTERVAL", "NEVER", "Expiring", "Sweep"]

INTERVAL = 0.1  # seconds between passes: a tenth of the shortest default time-out (connect, 1 s)
NEVER = float("inf")


class Expiring(Protocol):
    """Something with a deadline, in monotonic seconds."""

    deadline: float

    def expire(self) -> None:
        """The deadline has passed. Must move the deadline on or leave the sweep."""

    def retire(self, now: float) -> bool:
        """The process would like to end: close if there is nothing to finish; True while there is."""

    def shut(self) -> None:
        """The process ends now: close at once."""


class Sweep:
    """Calls `expire` on every member whose deadline has passed, never early, at most two intervals late.

    soon: monotonic seconds, at or after now: what a deadline is counted from without reading the clock.
    """

    __slots__ = ("_clock", "_handle", "_loop", "members", "soon")

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock) -> None:
        self._loop = loop
        self._clock = clock
        self._handle: asyncio.TimerHandle | None = None
        self.members: set[Expiring] = set()
        self.soon = clock.monotonic() + INTERVAL

    def start(self) -> None:
        """Begin to pass, until `stop`."""
        # The next pass is arranged first: an error in one member must not be the end of all deadlines.
        self._handle = self._loop.call_later(INTERVAL, self.start)
        self.run()

    def stop(self) -> None:
        """Pass no more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def run(self) -> None:
        """One pass."""
        now = self._clock.monotonic()
        self.soon = now + INTERVAL
        for member in [member for member in self.members if member.deadline <= now]:
            # One that expires may end others, or give them more time, that are due in the same pass.
            if member.deadline <= now and member in self.members:
                self._expire(member)

    def _expire(self, member: Expiring) -> None:
        """A mistake in one member must not be the end of the others' deadlines, nor come again in each pass."""
        try:
            member.expire()
        except Exception as error:
            member.deadline = NEVER
            member.shut()
            self._loop.call_exception_handler({"message": "a deadline's callback failed", "exception": error})
