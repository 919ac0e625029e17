"""Lines on their way to a file or to standard output, written by a thread: whoever brings them never waits.

    write ──► queue, bounded in bytes ──► thread ──► write(2)
                  │ full: dropped                       │ fails: dropped
                  └──────────────► counted ◄────────────┘

A disk or a reader that does not keep up costs lines, and nothing else. What has been written ends with a whole line,
also where the disk was full in the middle of one.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import select
import stat
import sys
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import TYPE_CHECKING, Final

from sidecar.config.settings import STDOUT
from sidecar.errors import StartError

if TYPE_CHECKING:
    from sidecar.model.recording import RecordingCounts

__all__ = ["CHUNK", "CLOSE_SECONDS", "PIPE_BUF", "LogFile"]

CHUNK: Final = 65536  # bytes of one write at most: a pipe's whole capacity on Linux (pipe(7))
# What a pipe takes as one piece, so that the lines of several processes do not mix (POSIX, write(); 4096 on Linux).
PIPE_BUF: Final = select.PIPE_BUF
CLOSE_SECONDS: Final = 1.0  # that what is left may take at the end
_LOOK: Final = 100  # milliseconds between two looks whether a reader that does not read is still waited for

_MODE: Final = (
    0o640  # less the umask: paths of requests are nobody's business but the group's that reads logs
)
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK

log = logging.getLogger("sidecar.access_log")


class _Reopen:
    """An entry of the queue: from here on lines go to whoever has the name then."""


_Entry = tuple[bytes, int] | _Reopen | None  # None: the end


class LogFile:
    """place: `stdout`, or a path. buffer: bytes that may wait at once."""

    def __init__(self, place: str, buffer: int, counts: RecordingCounts) -> None:
        self._place = place
        self._buffer = buffer
        self._counts = counts
        self._dropping = Lock()  # both threads count what is dropped; all else is counted by one of them
        self._queue: SimpleQueue[_Entry] = SimpleQueue()
        self._given = 0  # bytes so far, counted by who writes
        self._taken = 0  # and by the thread
        self._reopens = False  # one is in the queue
        self._refused = 0  # lines that there was no room for
        self._ended = asyncio.Event()
        self._closing = False
        self._abandoned = False
        self._thread: Thread | None = None
        # The thread's own from here on.
        self._descriptor = -1
        self._own = False  # a file, opened here: what was written last can be taken back
        self._waits = False  # a write may have to wait
        self._rest = b""  # of a line whose beginning has been written
        self._fault = 0  # errno of the write before, 0 where it went well
        self._lost = 0  # lines since then
        self._told = 0  # of those that there was no room for
        self._poll = select.poll()

    @property
    def waiting(self) -> int:
        """Bytes that have not been written yet."""
        return self._given - self._taken

    def start(self) -> None:
        """Open it. Raises `StartError`."""
        self._adopt(self._open())
        self._loop = asyncio.get_running_loop()
        self._thread = Thread(target=self._run, name="access log", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            self._release()
            self._thread = None
            raise StartError(f"sidecar.access_log: {error}; raise the limit on threads") from None

    def write(self, lines: bytes, count: int) -> None:
        """Have `count` whole lines written, or drop them where there is no room."""
        if self._closing or self.waiting + len(lines) > self._buffer:
            self._refused += count
            self._drop(count)
            return
        self._given += len(lines)
        self._queue.put((lines, count))

    def reopen(self) -> None:
        """From now on lines go to a file that is opened by its name anew; those before go to the one that was open."""
        if self._place != STDOUT and not self._reopens:
            self._reopens = True
            self._queue.put(_Reopen())

    async def close(self) -> None:
        """Write what waits, for `CLOSE_SECONDS` at most; the rest is dropped."""
        if self._closing or self._thread is None:
            return
        self._closing = True
        self._queue.put(None)
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._ended.wait()
        except TimeoutError:
            self._abandon()
            return
        self._thread.join()  # it has nothing left to do

    def _abandon(self) -> None:
        """Leave the thread to itself; it ends as soon as what holds it up lets it."""
        self._abandoned = True
        left = 0
        with suppress(Empty):
            while True:
                entry = self._queue.get_nowait()
                left += entry[1] if isinstance(entry, tuple) else 0
        self._queue.put(None)
        self._drop(left)
        log.warning("%s takes no lines: those that waited for it are dropped", self._named)

    def _drop(self, count: int) -> None:
        with self._dropping:
            self._counts.lines_dropped += count

    @property
    def _named(self) -> str:
        return "standard output" if self._place == STDOUT else self._place

    # Opening

    def _open(self) -> int:
        """The descriptor. Raises `StartError`."""
        if self._place == STDOUT:
            if sys.__stdout__ is None:  # its number may be another file's
                raise StartError("sidecar.access_log: standard output is closed; name a file")
            return 1
        try:
            descriptor = os.open(self._place, _FLAGS, _MODE)
        except OSError as error:
            raise StartError(self._complaint(error)) from None
        if stat.S_ISBLK(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise StartError(f"sidecar.access_log: {self._place} is a block device; name a file")
        return descriptor

    def _complaint(self, error: OSError) -> str:
        advice = "name a file that this user may write to"
        if error.errno == errno.ENXIO:  # what opening a FIFO without its reader gives (fifo(7))
            advice = "start who reads from it first"
        return f"sidecar.access_log: cannot write to {self._place}: {error.strerror}; {advice}"

    def _adopt(self, descriptor: int) -> None:
        """Write to this one from now on."""
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._descriptor = descriptor
        self._own = regular and descriptor != 1
        self._waits = not regular
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def _release(self) -> None:
        if self._descriptor > 2:
            os.close(self._descriptor)

    # The thread

    def _run(self) -> None:
        while (entry := self._queue.get()) is not None:
            if isinstance(entry, _Reopen):
                self._reopen()
            else:
                lines, count = entry
                self._put(lines, count)
                self._taken += len(lines)
                if self._refused > self._told and not self.waiting:
                    self._tell_refused()
        self._release()
        with suppress(RuntimeError):  # the loop has ended, and nobody waits
            self._loop.call_soon_threadsafe(self._ended.set)

    def _reopen(self) -> None:
        self._reopens = False
        try:
            descriptor = self._open()
        except StartError as error:
            log.warning("%s; lines go on to the file that was open", error)
            return
        self._release()
        self._rest = b""
        self._adopt(descriptor)

    def _put(self, lines: bytes, count: int) -> None:
        """Write so many lines, or as many of them as can be."""
        at = 0
        try:
            while self._rest:
                self._rest = self._rest[self._write(self._rest, 0) :]
            while at < len(lines):
                at += self._write(lines, at)
        except OSError as error:
            written = lines.count(b"\n", 0, self._mend(lines, at))
            self._counts.lines_written += written
            self._failed(error, count - written)
        else:
            self._counts.lines_written += count
            if self._fault:
                self._recovered()

    def _write(self, lines: bytes, at: int) -> int:
        """Write from `at` what goes in one piece; how many bytes it took."""
        to = at + CHUNK
        if self._waits:
            self._await_reader()
            if len(lines) - at > PIPE_BUF:
                to = lines.rfind(b"\n", at, at + PIPE_BUF) + 1 or at + PIPE_BUF
        try:
            return os.write(self._descriptor, lines[at:to])
        except BlockingIOError:  # another process was faster
            self._counts.log_errors += 1
            return 0

    def _await_reader(self) -> None:
        """Until a write would not have to wait, or nobody wants it any more, which is a TimeoutError."""
        while not self._poll.poll(_LOOK):
            if self._abandoned:
                raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    def _mend(self, lines: bytes, at: int) -> int:
        """No half line stays where a write has failed at `at`; up to where the lines are, or will be, written."""
        begin = lines.rfind(b"\n", 0, at) + 1
        if begin == at:
            return at
        if not self._own:  # it cannot be taken back, so the rest of it is due
            end = lines.index(b"\n", at) + 1
            self._rest = lines[at:end]
            return end
        with suppress(OSError):
            # Where this process's last write ended; another worker that has written since would lose its line. It has
            # no room either, as a rule, and no more than a moment.
            end = os.lseek(self._descriptor, 0, os.SEEK_CUR)
            if os.fstat(self._descriptor).st_size == end:
                os.ftruncate(self._descriptor, end - (at - begin))
        return begin

    # What is said of it: once for each change, not for each line

    def _failed(self, error: OSError, lost: int) -> None:
        self._drop(lost)
        self._lost += lost
        self._counts.log_errors += 1
        if error.errno != self._fault and not self._abandoned:
            self._fault = error.errno or errno.EIO
            log.warning(
                "cannot write to %s: %s; lines are dropped until that works again",
                self._named,
                error.strerror,
            )

    def _recovered(self) -> None:
        log.warning("%s can be written to again; lines dropped: %d", self._named, self._lost)
        self._fault = 0
        self._lost = 0

    def _tell_refused(self) -> None:
        refused = self._refused
        log.warning(
            "%s has caught up; lines dropped, as more than `sidecar.access_log.buffer` waited for it: %d",
            self._named,
            refused - self._told,
        )
        self._told = refused
