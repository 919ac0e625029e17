"""Unix domain sockets: bound without a moment in which they are open to others, and connected to."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from sidecar.net.unix import MAX_PATH, address_of

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Identity", "bind", "connect", "identity", "remove"]

LOCK_WAITS = (0.001,) * 15  # seconds between tries to have a directory alone: the event loop waits for them

# Of a socket's file: device and inode. None for an abstract name, which has no file.
Identity = tuple[int, int] | None


def connect(path: str) -> socket.socket:
    """A connected socket that does not block. Raises OSError.

    There is nothing to wait for: the kernel connects at once, or the other side's queue is full (EAGAIN), which is as
    good as nobody there.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.connect(address_of(path))
    except BlockingIOError:
        sock.close()
        raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED)) from None
    except BaseException:
        sock.close()
        raise
    return sock


def bind(path: str, mode: int, backlog: int) -> tuple[socket.socket, Identity]:
    """A socket that listens at `path`, and what `remove` knows its file by. Raises OSError.

    A file that somebody listens at (EADDRINUSE), or that is no socket (EEXIST), stays; one that a process has left that
    has died is removed. Nobody can connect before the mode is set: until `listen` everybody is refused.
    """
    with _alone_in("" if path.startswith("@") else os.path.dirname(path)):
        return _bind(path, mode, backlog)


def _bind(path: str, mode: int, backlog: int) -> tuple[socket.socket, Identity]:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made: Identity = None
    try:
        sock.setblocking(False)
        try:
            sock.bind(address_of(path))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or path.startswith("@"):
                raise
            _remove_stale(path, f"{os.path.dirname(path)}/.{os.fstat(sock.fileno()).st_ino}")
            sock.bind(address_of(path))
        if not path.startswith("@"):
            made = _identity(path)
            os.chmod(path, mode)
        sock.listen(backlog)
        _must_be_there(path, made)
    except BaseException:
        sock.close()
        remove(path, made)
        raise
    return sock, made


def remove(path: str, known: Identity) -> None:
    """Remove the file of a socket that `bind` made, unless another has taken its place."""
    if known is not None:
        with suppress(OSError):
            if _identity(path) == known:
                os.unlink(path)


def identity(path: str) -> Identity:
    """What `remove` knows the file at `path` by; None for an abstract name, and where there is none."""
    with suppress(OSError):
        return None if path.startswith("@") else _identity(path)
    return None


@contextmanager
def _alone_in(directory: str) -> Iterator[None]:
    """No other sidecar binds in `directory` meanwhile, if that can be had at once.

    A socket that is bound and does not listen yet looks like a dead process's, and who has bound can only look
    afterwards which file that was.
    """
    descriptor = -1
    try:
        with suppress(OSError):  # it is not there, which `bind` tells, or cannot be read
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            _lock(descriptor)
        yield
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _lock(descriptor: int) -> None:
    """Give up on what somebody keeps for longer than a sidecar does, which takes a fraction of a millisecond."""
    for wait in LOCK_WAITS:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            select.select((), (), (), wait)
        else:
            return


def _identity(path: str) -> Identity:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def _must_be_there(path: str, made: Identity) -> None:
    """Raises OSError where another process took it for a stale one, in the moment before it listened."""
    if made is not None and _identity(path) != made:
        raise _in_use()


def _remove_stale(path: str, aside: str) -> None:
    """Remove a socket's file that nobody listens at. aside: a name that nobody else has. Raises OSError.

    Two may find the same one. So it is moved aside first, which only one of them can, and looked at again there: what
    has come to be listened at meanwhile is put back.
    """
    try:
        before = os.lstat(path)
        if not stat.S_ISSOCK(before.st_mode):
            raise FileExistsError(errno.EEXIST, "a file that is no socket is there")
        _must_be_stale(path)
        os.rename(path, aside)
    except FileNotFoundError:  # the other one has it
        raise _in_use() from None
    try:
        if len(os.fsencode(aside)) <= MAX_PATH:  # else there is no asking
            _must_be_stale(aside)
    except OSError:
        with suppress(OSError):
            os.link(aside, path)
        raise
    finally:
        os.unlink(aside)


def _must_be_stale(path: str) -> None:
    """Raises OSError unless nobody listens at `path`."""
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.setblocking(False)
        probe.connect(path)
    except ConnectionRefusedError:
        return
    except BlockingIOError:  # its queue is full
        pass
    finally:
        probe.close()
    raise _in_use()


def _in_use() -> OSError:
    return OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
