"""Many well-behaved clients at once: keep-alive, one request after the other, reconnecting when told to close."""

import asyncio
import re
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from support.waiting import wait_until

__all__ = ["Load"]

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)


class Load:
    """Clients in a thread of their own, from `with` until its end, when each finishes the request it has begun.

    requests: how many each client makes; 0 is until the end. No client sends before all are connected.
    sent, answered, reconnects: counts over all clients; an answer counts when its whole body has come.
    bodies, statuses: of the answers. errors: what went wrong; a client that met an error stops.
    """

    def __init__(self, port: int, clients: int, *, target: str = "/", requests: int = 0) -> None:
        self.port = port
        self.clients = clients
        self.requests = requests
        self.connected = 0
        self.sent = 0
        self.answered = 0
        self.reconnects = 0
        self.bodies: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.errors: list[str] = []
        self._request = f"GET {target} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n".encode()
        self._ending = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Let every client finish its request, and wait for that."""
        self._ending = True
        self._thread.join(30.0)
        assert not self._thread.is_alive(), "clients still wait for answers"

    def wait_for(self, condition: Callable[[Self], object], what: str, seconds: float = 30.0) -> None:
        """Wait until `condition` of this load is true; an error of a client fails the test at once."""

        def look() -> bool:
            assert not self.errors, self.errors[:5]
            return bool(condition(self))

        wait_until(look, f"load: {what}", seconds)

    def wait_for_more(self, answers: int) -> None:
        """Wait until so many more answers have come."""
        goal = self.answered + answers
        self.wait_for(lambda load: load.answered >= goal, f"{answers} more answers")

    async def _run(self) -> None:
        self._all_connected = asyncio.Event()
        await asyncio.gather(*(self._client() for _ in range(self.clients)))

    async def _client(self) -> None:
        made = 0
        try:
            while not self._ending and not (self.requests and made >= self.requests):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                self.connected += 1
                if self.connected == self.clients:
                    self._all_connected.set()
                try:
                    await self._all_connected.wait()
                    made += await self._use(reader, writer, made)
                finally:
                    writer.close()
                    with suppress(OSError):  # a reset has been told by the read already
                        await writer.wait_closed()
        except (OSError, EOFError, TimeoutError) as error:
            self.errors.append(f"{type(error).__name__}: {error}")

    async def _use(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, before: int) -> int:
        """Requests on one connection until it shall close; how many."""
        made = 0
        while not self._ending and not (self.requests and before + made >= self.requests):
            writer.write(self._request)
            self.sent += 1
            async with asyncio.timeout(20.0):
                head = await reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(head)
                body = await reader.readexactly(int(length[1]) if length else 0)
            made += 1
            self.answered += 1
            self.statuses[int(head[9:12])] += 1
            self.bodies[body.decode().strip()] += 1
            if _CLOSE.search(head):
                self.reconnects += 1
                break
        return made
