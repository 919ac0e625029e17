"""When the content of a file has changed: for the file source, and for configuration that is read again by itself.

A thread of the watch's own does all that may take its time: it waits for inotify, follows links and reads the file.
What decides is the content. A file that is touched, or written again with the same bytes, has not changed, however
it came to be there: written in place, renamed over, deleted and made anew, or reached by links that now lead
elsewhere, as those of a Kubernetes volume do.
https://kubernetes.io/docs/concepts/configuration/configmap/#mounted-configmaps-are-updated-automatically
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
import os
import stat
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, TypeVar

from sidecar.config.files import PART, open_regular

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from watchfiles._rust_notify import RustNotify

__all__ = ["MAX_DIGESTED", "changes", "digest"]

# Milliseconds between two looks of watchfiles at what inotify has told: of no use to make longer, as closing takes as
# long, and half of it costs a waiting watch twice as much, 0.13 % of a core.
STEP = 100
BURST = 500  # milliseconds after which a directory that never comes to rest is looked at all the same
# Seconds in which nothing of a file moves before it is read: who truncates it writes soon after.
SETTLED = 0.05
# Such waits, until one that is written all the time is read all the same, and one that is missing counts as gone: many
# editors delete a file before they write it.
SETTLING = 20
LOOK = 5.0  # seconds between two looks at a file of which inotify tells nothing, as of one that another host writes
POLL = 1.0  # the same where inotify is not to be had
CLOSING = 1.0  # seconds that closing waits for the thread, which a file server that does not answer may hold for ever
MAX_DIGESTED = 64 * 1024 * 1024  # bytes; what is behind them is told by the file's size and time alone
MAX_LINKS = 40  # on the way to a file, as in Linux (path_resolution(7))
ARMINGS = 10  # attempts to watch the right directories, while links move from one attempt to the next

_log = logging.getLogger("sidecar.config")

_T = TypeVar("_T")
_Signature = tuple[int, int, int, int, int]
_Places = dict[str, tuple[int, int]]  # directories, and which ones they are: device and inode


def digest(path: str) -> bytes:
    """What stands for the content of a file. Raises OSError, also where it is no regular file."""
    return _read(path)[1]


async def changes(path: str, known: bytes | None = None, every: float = LOOK) -> AsyncGenerator[bool, None]:
    """True whenever `path` holds something else than before, False when it has been read and does not.

    known: the digest of what the caller has read already. Without one the first True comes at once.
    every: seconds; one of both comes at least as often, as long as the file can be read.

    True also tells of a file that cannot be read any more, once it has been so for a second: whoever reads it then
    gets the error. Changes while the consumer is busy become one. Where inotify is not to be had, the file is looked at
    once a second, and the log says so. Raises OSError where there is no thread to be had; ends by being closed only,
    within 0.2 s, and leaves nothing open.
    """
    watch = _Watch(path, known, every)
    watch.start()
    try:
        while True:
            yield await watch.word()
    finally:
        await watch.close()


class _Watch:
    """One file's thread, and what it has said that nobody has heard yet."""

    def __init__(self, path: str, known: bytes | None, every: float) -> None:
        self._path = path
        self._every = every
        self._stop = Event()
        self._file = _File(path, known, self._stop)
        self._loop = asyncio.get_running_loop()
        self._said = asyncio.Event()
        self._ended = asyncio.Event()
        self._changed = False
        self._error: Exception | None = None

    def start(self) -> None:
        """Begin to watch. Raises OSError where there is no thread to be had."""
        try:
            Thread(target=self._work, name=f"watch of {self._path}", daemon=True).start()
        except RuntimeError as error:
            self._ended.set()
            raise OSError(errno.EAGAIN, str(error)) from None

    async def word(self) -> bool:
        """The next thing to tell, see `changes`. Raises what the thread ended with."""
        await self._said.wait()
        self._said.clear()
        if self._error is not None:
            raise self._error
        changed, self._changed = self._changed, False
        return changed

    async def close(self) -> None:
        """End the thread, and wait for that."""
        self._stop.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSING):
                await self._ended.wait()

    # In the thread

    def _work(self) -> None:
        error: Exception | None = None
        try:
            if not self._notified():
                self._polling()
        except Exception as unforeseen:  # nobody else would hear of it
            error = unforeseen
        self._call(self._end, error)

    def _notified(self) -> bool:
        """Look whenever inotify tells of something. False where it cannot, True when the watch is over."""
        timeout = round(min(self._every, LOOK) * 1000)
        try:
            while not self._stop.is_set():
                places, notify = _armed(self._path)
                with notify:
                    self._look()
                    # Until the file is reached by another way, or a directory is another. A new one may have the inode
                    # of that before it, of which inotify tells that it has gone.
                    told: object = ()
                    while (
                        not self._stop.is_set() and _places(self._path) == places and not _gone(places, told)
                    ):
                        told = notify.watch(BURST, STEP, timeout, self._stop)
                        self._look()
        except (ImportError, OSError, RuntimeError) as error:  # watchfiles has a RuntimeError of its own
            self._warn(error)
            return False
        return True

    def _warn(self, error: Exception) -> None:
        _log.warning(
            "%s: no word of its changes from inotify (%s): it is looked at every second instead;"
            " fs.inotify.max_user_watches and max_user_instances are the usual limits",
            self._path,
            " ".join(str(error).split()),
        )

    def _polling(self) -> None:
        while not self._stop.is_set():
            self._look()
            self._stop.wait(min(self._every, POLL))

    def _look(self) -> None:
        changed = self._file.look()
        if changed is not None:
            self._call(self._tell, changed)

    def _call(self, function: Callable[[_T], None], argument: _T) -> None:
        with suppress(RuntimeError):  # the loop has ended meanwhile
            self._loop.call_soon_threadsafe(function, argument)

    # In the loop

    def _tell(self, changed: bool) -> None:
        self._changed |= changed
        self._said.set()

    def _end(self, error: Exception | None) -> None:
        self._ended.set()
        if error is not None:
            self._error = error
            self._said.set()


class _File:
    """What has been seen of a file. known: the digest of its content; empty while it cannot be read."""

    def __init__(self, path: str, known: bytes | None, stop: Event) -> None:
        self._path = path
        self._known = known
        self._stop = stop
        self._seen: _Signature | None = None
        self._sure = False  # that content is as it was, as long as the signature is

    def look(self) -> bool | None:
        """Whether it holds something else than before; None where there is nothing to tell."""
        signature = self._settled()
        if self._stop.is_set():
            return None
        if signature is not None and signature == self._seen and self._sure:
            return False
        try:
            signature, found = _read(self._path)
        except OSError:
            signature, found = None, b""
        # Two writes in one tick of the kernel's clock have one signature: it is sure when it is met again later.
        self._sure = signature is not None and signature == self._seen
        self._seen = signature
        changed = found != self._known
        self._known = found
        return changed if changed or found else None

    def _settled(self) -> _Signature | None:
        """What the file is once it has come to rest, None where it cannot be read; at once where nothing has moved."""
        before = self._seen
        if self._known is None:  # the first look: who asks now wants to know now
            return None
        for _ in range(SETTLING):
            signature = _signature(self._path)
            if signature == before and (signature is not None or not self._known):
                return signature
            before = signature
            if self._stop.wait(SETTLED):
                return None
        return before


def _armed(path: str) -> tuple[_Places, RustNotify]:
    """A watch of the right directories, and which those are. Raises OSError, RuntimeError."""
    from watchfiles._rust_notify import RustNotify  # noqa: PLC0415 - most programs that load settings watch nothing

    for attempt in range(ARMINGS):
        places = _places(path)
        try:
            notify = RustNotify(list(places), False, False, 0, False, False)
        except FileNotFoundError:
            continue  # a directory has gone meanwhile
        if _places(path) == places or attempt == ARMINGS - 1:
            return places, notify
        notify.close()
    raise OSError(errno.ENOENT, f"its directory comes and goes: {os.strerror(errno.ENOENT).lower()}")


def _gone(places: _Places, told: object) -> bool:
    """Whether something has happened to one of the directories themselves. told: as watchfiles does, or a word."""
    return isinstance(told, set) and any(path in places for _, path in told)


def _places(path: str) -> _Places:
    """Directories in which an entry decides what `path` leads to: that of the file, and of each link on the way.

    Where something is missing on the way, the directory that should have it.
    """
    here = Path("/")
    places: _Places = {}
    pending = [part for part in reversed((Path.cwd() / path).parts) if part != "/"]
    links = 0
    while pending:
        part = pending.pop()
        if part == "..":
            here = here.parent
            continue
        entry = here / part
        try:
            linked = stat.S_ISLNK(entry.lstat().st_mode)
            if linked or not pending:
                _add(places, here)
            if linked:
                links += 1
                target = entry.readlink()
                here = Path("/") if target.is_absolute() else here
                pending += [part for part in reversed(target.parts) if part != "/"]
        except OSError:
            _add(places, here)
            break
        if links > MAX_LINKS:
            break
        if not linked:
            here = entry
    return places


def _add(places: _Places, directory: Path) -> None:
    with suppress(OSError):
        found = directory.stat()
        places[str(directory)] = (found.st_dev, found.st_ino)


def _signature(path: str) -> _Signature | None:
    try:
        return _signed(Path(path).stat())
    except OSError:
        return None


def _signed(found: os.stat_result) -> _Signature:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _read(path: str) -> tuple[_Signature, bytes]:
    """What a file is and the digest of what it holds. Raises OSError."""
    content = hashlib.sha256()
    left = MAX_DIGESTED
    with open_regular(path) as (descriptor, found):
        while left > 0 and (part := os.read(descriptor, min(left, PART))):
            content.update(part)
            left -= len(part)
    signature = _signed(found)
    if found.st_size > MAX_DIGESTED:
        content.update(repr(signature).encode())
    return signature, content.digest()
