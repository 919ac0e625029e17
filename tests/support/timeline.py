"""Time that passes when a test says so, for code that sleeps."""

import asyncio
from heapq import heappop, heappush
from itertools import count

from support.clock import FakeClock

__all__ = ["Timeline", "turns"]


async def turns(number: int = 12) -> None:
    """Some turns of the loop, in which everything that can happen without time passing has happened."""
    for _ in range(number):
        await asyncio.sleep(0)


class Timeline:
    """A clock and the `sleep` that goes by it. slept: how long each sleep was to be."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.slept: list[float] = []
        self._due: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = count()

    async def sleep(self, seconds: float) -> None:
        """Until so much time has been let pass."""
        self.slept.append(seconds)
        awake = asyncio.get_running_loop().create_future()
        heappush(self._due, (self.clock.now + seconds, next(self._numbers), awake))
        await awake

    async def advance(self, seconds: float) -> None:
        """Let time pass, and all that is due in it happen in its order."""
        until = self.clock.now + seconds
        await turns()
        while self._due and self._due[0][0] <= until:
            due, _, awake = heappop(self._due)
            self.clock.advance(max(0.0, due - self.clock.now))
            if not awake.done():
                awake.set_result(None)
            await turns()
        self.clock.advance(max(0.0, until - self.clock.now))
