"""An event loop in a thread of its own, for servers of tests that are not async themselves."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Self, TypeVar

__all__ = ["Background"]

T = TypeVar("T")


class Background:
    """Used as a context manager; what was entered is left at its end."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._end: asyncio.Event
        self._stack: AsyncExitStack
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live()), name="background")

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait(5.0)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10.0)
        assert not self._thread.is_alive(), "the servers do not end"

    async def _live(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        async with AsyncExitStack() as self._stack:
            self._ready.set()
            await self._end.wait()

    def enter(self, context: AbstractAsyncContextManager[T]) -> T:
        """Enter it there, until the end."""
        return self.run(self._stack.enter_async_context(context))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, done there."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(15.0)

    def call(self, do: Callable[[], T]) -> T:
        """The result of `do`, called there."""

        async def called() -> T:
            return do()

        return self.run(called())
