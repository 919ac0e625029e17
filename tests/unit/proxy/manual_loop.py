"""A loop whose every turn is the test's: timers, tasks, and connections that the test lets succeed or fail."""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from support.transports import MemoryTransport

__all__ = ["Connecting", "ManualLoop"]


class ManualTimer:
    """What `call_later` gave out. cancelled: as named."""

    def __init__(self, delay: float, callback: Callable[[], object]) -> None:
        self.delay = delay
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        """It will not be called."""
        self.cancelled = True


class ManualTask:
    """A coroutine that goes on when the test says; it may wait for nothing but a `Connecting`."""

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._coroutine = coroutine
        self._started = False
        self.waits_for: Connecting | None = None
        self.done = False

    def start(self) -> None:
        """Let it run to where it waits, as a loop's next turn does."""
        if not self._started and not self.done:
            self._started = True
            self._step(lambda: self._coroutine.send(None))

    def go_on(self, result: object) -> None:
        """What it waits for is there."""
        self._step(lambda: self._coroutine.send(result))

    def fail(self, error: BaseException) -> None:
        """What it waits for has failed."""
        self._step(lambda: self._coroutine.throw(error))

    def cancel(self) -> None:
        """The end, at once: a real loop's next turn would bring it."""
        if self.waits_for is not None:
            self.waits_for.cancelled = True
        if not self._started:
            self._coroutine.close()
            self.done = True
        elif not self.done:
            self.fail(asyncio.CancelledError())

    def _step(self, step: Callable[[], Any]) -> None:
        try:
            self.waits_for = step()
            self.waits_for.task = self
        except (StopIteration, asyncio.CancelledError):
            self.done = True


class Connecting:
    """One `create_connection` that has not ended. cancelled: whoever wanted it does not any more.

    error_when_cancelled: what it fails with then, instead of the cancellation.
    """

    def __init__(self, factory: Callable[[], Any], host: str, port: int) -> None:
        self.factory = factory
        self.host = host
        self.port = port
        self.cancelled = False
        self.ended = False
        self.error_when_cancelled: Exception | None = None
        self.task: ManualTask
        self.transport: MemoryTransport | None = None

    def __await__(self) -> Generator["Connecting", object, Any]:
        try:
            return (yield self)
        except asyncio.CancelledError:
            # As asyncio and uvloop do it: a transport that was made already is closed again.
            if self.transport is not None:
                self.transport.close()
            if self.error_when_cancelled is not None:
                raise self.error_when_cancelled from None
            raise
        finally:
            self.ended = True

    def establish(self) -> MemoryTransport:
        """The protocol has its transport; who asked for it hears of it only with `hand_over`, a turn later."""
        self.transport = MemoryTransport(self.factory())
        return self.transport

    def hand_over(self) -> None:
        """The turn after `establish`."""
        assert self.transport is not None
        self.task.go_on((self.transport, self.transport.protocol))

    def refuse(self, error: BaseException | None = None) -> None:
        """Nobody listens there."""
        self.task.fail(error or ConnectionRefusedError(111, "Connection refused"))


class ManualLoop:
    """The methods of a loop that the data path uses. Nothing happens by itself. problems: what was reported."""

    def __init__(self) -> None:
        self.tasks: list[ManualTask] = []
        self.attempts: list[Connecting] = []
        self.timers: list[ManualTimer] = []
        self.soon: list[Callable[[], object]] = []
        self.problems: list[Any] = []

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep it in `problems`."""
        self.problems.append(context["exception"])

    def call_soon(self, callback: Callable[..., object], *arguments: object) -> None:
        """Call it in the next `turn`."""
        self.soon.append(lambda: callback(*arguments))

    def call_later(self, delay: float, callback: Callable[[], object]) -> ManualTimer:
        """Keep it in `timers`."""
        timer = ManualTimer(delay, callback)
        self.timers.append(timer)
        return timer

    def create_task(self, coroutine: Coroutine[Any, Any, None]) -> ManualTask:
        """Keep it in `tasks`; `turn` starts it."""
        task = ManualTask(coroutine)
        self.tasks.append(task)
        return task

    async def create_connection(self, factory: Callable[[], Any], host: str, port: int) -> Any:
        """Keep it in `attempts`, waiting for the test."""
        attempt = Connecting(factory, host, port)
        self.attempts.append(attempt)
        return await attempt

    def turn(self) -> None:
        """Start what was created, and call what was to be called, since the last turn."""
        soon, self.soon = self.soon, []
        for callback in soon:
            callback()
        for task in self.tasks:
            task.start()
        self.tasks = [task for task in self.tasks if not task.done]
