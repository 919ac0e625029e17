"""Files that others renew while the sidecar runs: certificates, keys, tokens.

They are looked at again and again rather than watched: what mounts them (a Kubernetes Secret, cert-manager, Vault's
agent) swaps links and directories, or writes over a network, where inotify hears nothing.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sidecar.errors import SidecarError
from sidecar.registry.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["LOOK", "Rotating", "Rotation"]

LOOK = 5.0  # seconds between two looks: far less than any certificate's renewal leaves

_log = logging.getLogger("sidecar")

# Of a file: device, inode, size, time of the last change; of one that is not there, nothing.
_Stamp = tuple[int, int, int, int] | None


class Rotating(Protocol):
    """What is made of files. files: their paths. name: what it is, for the log, such as `api: the client certificate`.

    loads, failures: how often it was made anew, and how often that failed; for the metrics.
    """

    files: tuple[str, ...]
    name: str
    loads: int
    failures: int

    def load(self) -> Any:
        """Make it of the files as they are now; in a thread. Raises SidecarError, and what was before stays."""

    def take(self, made: Any) -> None:
        """Go by what `load` has made from now on; on the event loop."""


class Rotation:
    """Looks at the files of all that is `follow`ed, and loads anew what has changed."""

    def __init__(self, interval: float = LOOK) -> None:
        self._interval = interval
        self._stamps: dict[Rotating, tuple[_Stamp, ...]] = {}
        self._noted: dict[Rotating, tuple[_Stamp, ...]] = {}
        self._failed: dict[Rotating, tuple[tuple[_Stamp, ...], str]] = {}
        self._task: asyncio.Task[None] | None = None

    def note(self, thing: Rotating) -> None:
        """It is about to be loaded by whoever has made it, in a thread: a change from now on is one."""
        self._noted[thing] = _stamps(thing)

    def follow(self, things: Iterable[Rotating]) -> None:
        """Look at these from now on, and at no others. Those that are new have been loaded by whoever made them."""
        noted, self._noted = self._noted, {}
        self._stamps = {
            thing: self._stamps.get(thing) or noted.get(thing) or _stamps(thing)
            for thing in things
            if thing.files
        }
        self._failed = {thing: why for thing, why in self._failed.items() if thing in self._stamps}
        if self._stamps and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        elif not self._stamps:
            self.close()

    def close(self) -> None:
        """Look no more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await self.look()

    async def look(self) -> None:
        """Load what has changed since the last look."""
        with suppress(OSError):  # no thread is to be had: next time
            found = await in_thread("look at renewed files", self._changed)
            for thing, stamps in found:
                if thing in self._stamps:
                    await self._renew(thing, stamps)

    def _changed(self) -> list[tuple[Rotating, tuple[_Stamp, ...]]]:
        known = list(self._stamps.items())
        return [(thing, stamps) for thing, before in known if (stamps := _stamps(thing)) != before]

    async def _renew(self, thing: Rotating, stamps: tuple[_Stamp, ...]) -> None:
        """What fails is tried again at each look: of two files one may not have been written yet."""
        try:
            made = await in_thread("loading of renewed files", thing.load)
        except SidecarError as error:
            if self._failed.get(thing) == (stamps, str(error)):
                return  # as it was at the look before, and told then
            self._failed[thing] = (stamps, str(error))
            thing.failures += 1
            _log.error("%s is not renewed, what was before stays: %s", thing.name, error)
        else:
            if thing not in self._stamps:  # a reload has come in between
                return
            self._stamps[thing] = stamps
            self._failed.pop(thing, None)
            thing.loads += 1
            thing.take(made)
            _log.info("%s is renewed", thing.name)


def _stamps(thing: Rotating) -> tuple[_Stamp, ...]:
    return tuple(_stamp(path) for path in thing.files)


def _stamp(path: str) -> _Stamp:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
