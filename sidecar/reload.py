"""Reading the configuration again: who asks for it, one at a time, and what is told of it.

A signal, a request and a changed file all `ask`. What is asked for while one goes on is the next one, and that one
alone: it reads the file after them all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from sidecar.config.changes import changes, digest
from sidecar.errors import ConfigurationError, SidecarError
from sidecar.model import ReloadCounts
from sidecar.registry.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from sidecar.config.settings import Settings

__all__ = ["Changes", "Follow", "Load", "NotNowError", "Reload", "Reloads", "changes_of"]

# Reads the configuration; raises ConfigurationError.
Load = Callable[[], "Settings"]
# Goes by other settings from now on, and gives a line for each thing that has changed. Raises SidecarError when it
# cannot, and nothing has changed then.
Follow = Callable[["Settings"], Awaitable[list[str]]]
# Something for each time that the configuration's file may have changed, without end.
Changes = Callable[[], "AsyncIterator[object]"]

_log = logging.getLogger("sidecar")


class NotNowError(SidecarError):
    """The sidecar does not reload at all at this moment."""


@dataclass(frozen=True, slots=True)
class Reload:
    """What came of one. result: `reloaded`, `unchanged` or `refused`.

    changes: a line for each thing that has changed. findings: why it was refused, a line each.
    invalid: the configuration itself is what is wrong; else it is what it meets here, such as a port that is taken.
    """

    result: str
    changes: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    invalid: bool = False

    @property
    def answer(self) -> tuple[int, dict[str, Any]]:
        """As an HTTP status and JSON: 200, 422 for a bad configuration, 409 for one that cannot be followed here."""
        if self.result != "refused":
            return 200, {"result": self.result, "changes": list(self.changes)}
        status = 422 if self.invalid else 409
        error = "not reloaded: the configuration before goes on"
        return status, {"error": error, "status": status, "findings": list(self.findings)}


class Watcher(Protocol):
    """Whoever is told of reloads."""

    def reloading(self) -> None:
        """One begins."""

    def reloaded(self, status: str) -> None:
        """It is over, whatever has come of it: `status`."""


class Reloads:
    """Reloads of one sidecar. follow: see `Follow`. load: see `Load`; None where there is nothing to read again."""

    def __init__(self, load: Load | None, follow: Follow, watcher: Watcher | None = None) -> None:
        self.counts = ReloadCounts()
        self._load = load
        self._follow = follow
        self._watcher = watcher
        self._next: asyncio.Future[Reload] | None = None  # asked for, and not begun
        self._task: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()  # both, and one that is being given up
        self._reading = False
        self._closed = False

    def ask(self) -> asyncio.Future[Reload]:
        """Reload as soon as may be; what came of it. Nobody has to wait for that."""
        loop = asyncio.get_running_loop()
        if self._closed:
            over: asyncio.Future[Reload] = loop.create_future()
            over.cancel()
            return over
        if self._next is None:
            self._next = loop.create_future()
        if self._task is None:
            self._task = self._begin(self._run())
        return self._next

    async def result(self) -> Reload:
        """Reload, and wait for what came of it; for whoever has an hour, since others may be before."""
        asked = self.ask()
        await asyncio.wait([asked])
        if asked.cancelled():
            return Reload("refused", (), ("not reloaded: the sidecar is ending",))
        return asked.result()

    async def idle(self) -> None:
        """Wait until none goes on."""
        if self._task is not None:
            await asyncio.wait([self._task])

    def watch(self, changes: Changes | None) -> None:
        """Reload at each of `changes`, and no longer at those of before."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if changes is not None:
            self._watch = self._begin(self._ask_at(changes))

    def stop(self) -> asyncio.Task[None] | None:
        """Begin no other one; the one that goes on, if any. One that only reads is given up."""
        self._closed = True
        self.watch(None)
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if self._task is not None and self._reading:
            self._task.cancel()
        return self._task

    async def close(self) -> None:
        """Begin no other one, and give up one that goes on."""
        task = self.stop()
        if task is not None:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _ask_at(self, changes: Changes) -> None:
        try:
            async for _ in changes():
                self.ask()
        except Exception as error:
            # As of inotify's bounds. The sidecar is as good as before, but for this.
            _log.warning(
                "the configuration is not watched any more, SIGHUP reads it again: %s: %s",
                type(error).__name__,
                error,
            )

    async def _run(self) -> None:
        while self._next is not None:
            asked, self._next = self._next, None
            if self._watcher is not None:
                self._watcher.reloading()
            try:
                found = await self._once()
            except BaseException:
                asked.cancel()
                raise
            if self._watcher is not None:
                self._watcher.reloaded(f"configuration {found.result}")
            if not asked.done():
                asked.set_result(found)
        self._task = None

    async def _once(self) -> Reload:
        try:
            changes = await self._follow(await self._read())
        except ConfigurationError as error:
            return self._refuse(tuple(error.findings), invalid=True)
        except SidecarError as error:
            return self._refuse((str(error),))
        except Exception as error:  # a mistake of this program: the configuration before is no worse for it
            return self._refuse((f"the reload itself failed: {type(error).__name__}: {error}",))
        self.counts.last_success = True
        if not changes:
            self.counts.unchanged += 1
            _log.info("the configuration is unchanged")
            return Reload("unchanged")
        self.counts.success += 1
        for change in changes:
            _log.info("reloaded: %s", change)
        return Reload("reloaded", tuple(changes))

    async def _read(self) -> Settings:
        """Aside: reading a large file takes as long as many requests, and one of a file server's may take for ever."""
        if self._load is None:
            raise NotNowError("there is no configuration to read again; start the sidecar anew")
        self._reading = True
        try:
            return await in_thread("reading of the configuration", self._load)
        except OSError as error:  # there is no thread to be had
            raise NotNowError(f"not reloading: {error.strerror}") from None
        finally:
            self._reading = False

    def _refuse(self, findings: tuple[str, ...], *, invalid: bool = False) -> Reload:
        self.counts.failure += 1
        self.counts.last_success = False
        for finding in findings:
            _log.error("%s", finding)
        _log.error("not reloaded: the configuration before goes on")
        return Reload("refused", (), findings, invalid)


def changes_of(path: str) -> Changes:
    """Something for each time that `path` holds something else than now. Raises OSError when it cannot be read now."""
    known = digest(path)

    async def told() -> AsyncGenerator[None, None]:
        async with aclosing(changes(path, known)) as words:
            async for changed in words:
                if changed:
                    yield

    return told
