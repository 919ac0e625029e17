"""asyncio's loop, waiting in the reactor's set: everything else that it watches is one more descriptor there."""

import asyncio
import selectors

from libc.math cimport ceil

from sidecar.net.kernel cimport CLOCK_MONOTONIC, clock_gettime, timespec
from sidecar.net.reactor cimport Others, Reactor

__all__ = ["ReactorLoop"]

cdef double MAX_WAIT = 3600.0  # seconds in one epoll_wait, which counts milliseconds in an int


class ReactorLoop(asyncio.SelectorEventLoop):
    """A loop in which a turn that only the data path has something to do in never gets to asyncio's own code.

    The two attributes of BaseEventLoop that tell whether that would have work, `_ready` and `_scheduled`, are as old
    as asyncio.
    """

    def __init__(self):
        super().__init__(_NeverWaiting())
        self.reactor = Reactor(self, self._selector)

    def _run_once(self):
        """Serve the data path until there is something for asyncio; then let it have one turn of its own."""
        cdef Reactor reactor = self.reactor
        cdef Others others = reactor.others
        cdef list scheduled = self._scheduled
        cdef double due, left
        cdef timespec now
        cdef bint served = False
        ready = self._ready
        while not ready and not self._stopping and not others.are_ready:
            if not scheduled:
                reactor.wait(-1)
            else:
                due = scheduled[0]._when
                clock_gettime(CLOCK_MONOTONIC, &now)  # as time.monotonic does
                left = due - (now.tv_sec + now.tv_nsec * 1e-9)
                if left <= 0.0:
                    break
                reactor.wait(<int> ceil(min(left, MAX_WAIT) * 1000.0))
            served = True
        if not served:
            reactor.wait(0)  # asyncio may have something to do in every turn, and the data path is to go on
        others.are_ready = False
        super()._run_once()

    def close(self):
        """Close the loop, and the set that it waits in."""
        if not self.is_running() and not self.is_closed():
            self.reactor.close()
            self.reactor.close_set()
        super().close()

    async def shutdown_default_executor(self, timeout=None):
        """Not waiting for a look-up that no name server answers: its thread ends with the process."""
        executor, self._default_executor = self._default_executor, None
        self._executor_shutdown_called = True
        if executor is not None:
            executor.shutdown(wait=False, cancel_futures=True)


class _NeverWaiting(selectors.EpollSelector):
    """Waiting is the reactor's."""

    def select(self, timeout=None):
        return super().select(0)
