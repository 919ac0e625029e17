"""Addresses of names for the checks that a program asks for, in threads that neither it nor its loop waits for.

A loop's own getaddrinfo runs in threads that `asyncio.run` waits for at its end, and of which a few names that nobody
answers for hold all.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import deque
from contextlib import suppress
from threading import Lock, Thread
from typing import Any

from sidecar.net.names import loopback, with_port

__all__ = ["LookUps"]

# Names that are asked for at the same moment, each by a thread that lasts for as long as there are some to ask for:
# half as many as endpoints (`health.AT_ONCE`).
AT_ONCE = 32


class LookUps:
    """Looks names up, each once at a time however many ask. Threads and their loops may share it."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._at_once = at_once
        self._lock = Lock()  # around all of the following
        self._names: dict[str, _Name] = {}  # that are being asked for or wait for a thread
        self._waiting: deque[_Name] = deque()
        self._threads = 0

    async def resolve(self, host: str, port: int) -> list[Any]:
        """Entries as getaddrinfo gives them, for TCP and `port`. Raises OSError."""
        own = loopback(host, port)
        if own is not None:
            return own
        loop = asyncio.get_running_loop()
        asking = (loop, loop.create_future())
        self._ask(host, asking)
        try:
            found = await asking[1]
        except asyncio.CancelledError:
            self._give_up(host, asking)
            raise
        if isinstance(found, OSError):
            raise found
        return with_port(found, port)

    def _ask(self, host: str, asking: _Asking) -> None:
        with self._lock:
            name = self._names.get(host)
            if name is None:
                name = self._names[host] = _Name(host)
                self._waiting.append(name)
                if self._threads < self._at_once:
                    self._start(name)
            name.asking.append(asking)

    def _start(self, name: _Name) -> None:
        """One more thread. Raises OSError where there is none to be had, and none that would come to `name`."""
        self._threads += 1
        try:
            Thread(target=self._work, name=f"look-up of {name.host}", daemon=True).start()
        except RuntimeError as error:
            self._threads -= 1
            if not self._threads:
                self._waiting.remove(name)
                del self._names[name.host]
                raise OSError(errno.ENOMEM, str(error)) from None

    def _give_up(self, host: str, asking: _Asking) -> None:
        """Nobody waits for that answer any more; for what nobody waits at all no thread is needed."""
        with self._lock:
            name = self._names.get(host)
            if name is None or asking not in name.asking:
                return  # the answer is on its way
            name.asking.remove(asking)
            if not name.asking and name in self._waiting:
                self._waiting.remove(name)
                del self._names[host]

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._threads -= 1
                    return
                name = self._waiting.popleft()
            found = _look_up(name.host)
            with self._lock:
                del self._names[name.host]
            for loop, answer in name.asking:
                with suppress(RuntimeError):  # the loop has ended meanwhile
                    loop.call_soon_threadsafe(_tell, answer, found)


_Asking = tuple[asyncio.AbstractEventLoop, "asyncio.Future[list[Any] | OSError]"]


class _Name:
    """A name, and who asks for it."""

    __slots__ = ("asking", "host")

    def __init__(self, host: str) -> None:
        self.host = host
        self.asking: list[_Asking] = []


def _look_up(host: str) -> list[Any] | OSError:
    try:
        return list(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
    except OSError as error:
        return error
    except UnicodeError as error:  # a name that cannot be encoded cannot be looked up either
        return OSError(str(error))


def _tell(answer: asyncio.Future[list[Any] | OSError], found: list[Any] | OSError) -> None:
    if not answer.done():
        answer.set_result(found)
