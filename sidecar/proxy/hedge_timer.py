"""When requests are to be asked of a second endpoint: an alarm for exchanges, finer than the sweep."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Protocol

from sidecar.proxy.sweep import NEVER

if TYPE_CHECKING:
    from asyncio import TimerHandle

    from sidecar.proxy.context import ProxyContext

__all__ = ["SLACK", "HedgeTimer", "Ringing"]

SLACK = 0.001  # seconds that a loop's timer may be early: of clocks' resolution and of rounding


LEAST = 1024  # in the heap before it is looked through for those whose requests have ended


class Ringing(Protocol):
    """Who wants to be called."""

    def ring(self, now: float) -> None:
        """It is due, monotonic seconds."""

    def awaits_ring(self) -> bool:
        """Whether it still wants to be; if not, it is not in the heap any more."""


class HedgeTimer:
    """Calls exchanges when they are due: the sweep's pace, a tenth of a second, is too slow for that.

    One timer of the loop for all of them. Each is in the heap once at most, however many requests it has had since.
    Whose request has ended goes when it is due, or when there are as many more again: with a connection for each
    request the heap would hold those of all of `hedge_after`.
    """

    __slots__ = ("_context", "_handle", "_heap", "_number", "_purge_at", "_rings_at", "deadline")

    def __init__(self, context: ProxyContext) -> None:
        self._context = context
        self._heap: list[tuple[float, int, Ringing]] = []
        self._handle: TimerHandle | None = None
        self._rings_at = NEVER
        self._purge_at = LEAST
        self._number = 0  # so that no two exchanges are ever compared
        self.deadline = NEVER

    def add(self, exchange: Ringing, due: float) -> None:
        """`exchange.ring` is called at `due`, monotonic seconds."""
        if len(self._heap) >= self._purge_at:
            self._heap[:] = [
                entry for entry in self._heap if entry[2].awaits_ring()
            ]  # in place: it may be ringing
            heapify(self._heap)
            self._purge_at = max(LEAST, 2 * len(self._heap))
        self._number += 1
        heappush(self._heap, (due, self._number, exchange))
        if due < self._rings_at:
            self._set(due)

    def _set(self, due: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._context.sweep.members.add(self)  # ended with the process, if nothing else ends it
        self._rings_at = due
        self._handle = self._context.loop.call_later(max(0.0, due - self._context.monotonic()), self._ring)

    def _ring(self) -> None:
        self.shut()
        now = self._context.monotonic()
        heap = self._heap
        while heap and heap[0][0] <= now + SLACK:
            heappop(heap)[2].ring(now)
        if heap and heap[0][0] < self._rings_at:
            self._set(heap[0][0])

    # The sweep's callbacks

    def shut(self) -> None:
        """Ring no more, until somebody is added."""
        handle, self._handle = self._handle, None
        self._rings_at = NEVER
        self._context.sweep.members.discard(self)
        if handle is not None:
            handle.cancel()

    expire = shut

    def retire(self, now: float) -> bool:
        """There is nothing to finish that is not somebody else's."""
        return False
