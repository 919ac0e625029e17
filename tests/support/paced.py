"""Requests at a steady rate, whatever becomes of them: an application that does not wait for its own answers.

Load that waits (`load.Load`) asks less of a proxy that is slow, and so hides what it is slow at. Here each request
has a time at which it is due, its latency counts from then, and every one ends in the results exactly once.
"""

import asyncio
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

__all__ = ["PacedLoad", "Result", "failures", "tally"]

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_REASON = re.compile(rb"\r\nx-sidecar-error: *(\S+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one request.

    due: monotonic seconds. seconds: from then to the end of its answer. status: 0 when no head came.
    reason: the proxy's own, empty when the answer is an endpoint's. broken: what ended it before its end, or empty.
    """

    due: float
    seconds: float
    status: int
    reason: str = ""
    broken: str = ""

    @property
    def failed(self) -> bool:
        """Whether the application got no whole answer, or one that says that something failed."""
        return bool(self.broken) or self.status >= 500

    @property
    def ended(self) -> float:
        """When that was, monotonic seconds."""
        return self.due + self.seconds

    def __str__(self) -> str:
        """As a tally names it: `200`, `503 all_open`, `200 ConnectionResetError`."""
        return " ".join(filter(None, (str(self.status), self.reason, self.broken)))


def failures(results: Iterable[Result]) -> list[Result]:
    """Those that failed."""
    return [result for result in results if result.failed]


def tally(results: Iterable[Result]) -> Counter[str]:
    """How many ended how."""
    return Counter(map(str, results))


class Connection:
    """One of the client's, and whether it may carry another request."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.status = 0
        self.reason = ""
        self.keeps = True

    @property
    def usable(self) -> bool:
        """Whether the proxy has not closed it, as far as anybody can know."""
        return self.keeps and not self._reader.at_eof() and not self._writer.is_closing()

    async def exchange(self, request: bytes) -> None:
        """Send it and read the whole answer; its status and reason stay here. OSError or EOFError when it breaks."""
        self.status, self.reason, self.keeps = 0, "", False
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        self.status = int(head[9:12])
        reason = _REASON.search(head)
        self.reason = reason[1].decode() if reason else ""
        length = _LENGTH.search(head)
        await self._reader.readexactly(int(length[1]) if length else 0)
        self.keeps = not _CLOSE.search(head)

    async def close(self) -> None:
        """Close it."""
        self._writer.close()
        with suppress(OSError):  # a reset has been told by the read already
            await self._writer.wait_closed()


class PacedLoad:
    """`rate` GETs a second from `with` until its end, when it waits for the answers that are still to come.

    connections: opened first and kept alive, used in turn; while all are busy a request opens one more.
    patience: seconds for an answer, and to connect. sent: requests so far.
    results: of those that have ended, in the order in which they did.
    """

    def __init__(
        self,
        port: int,
        rate: float = 200.0,
        *,
        connections: int = 20,
        target: str = "/",
        patience: float = 10.0,
    ) -> None:
        self.port = port
        self.rate = rate
        self.connections = connections
        self.patience = patience
        self.sent = 0
        self.results: list[Result] = []
        self._request = f"GET {target} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n".encode()
        self._idle: deque[Connection] = deque()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="paced load")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Send no more, and wait until every request has ended. Fails when one is not accounted for."""
        self._ending.set()
        self._thread.join(2 * self.patience + 5.0)
        assert not self._thread.is_alive(), "requests still wait for answers"
        assert len(self.results) == self.sent, f"{self.sent} sent, {len(self.results)} accounted for"

    def due(self, since: float, until: float = float("inf")) -> list[Result]:
        """The results so far of requests that were due from `since` to `until`, monotonic seconds."""
        return [result for result in self.results.copy() if since <= result.due < until]

    async def _run(self) -> None:
        for _ in range(self.connections):
            self._idle.append(await self._open())
        begin = time.monotonic()
        async with asyncio.TaskGroup() as requests:
            while not self._ending.is_set():
                due = begin + self.sent / self.rate
                await asyncio.sleep(due - time.monotonic())
                self.sent += 1
                requests.create_task(self._ask(due))
        for connection in self._idle:
            await connection.close()

    async def _ask(self, due: float) -> None:
        """One request to its end."""
        connection = None
        broken = ""
        try:
            async with asyncio.timeout(self.patience):
                connection = await self._connection()
                await connection.exchange(self._request)
        except (OSError, EOFError, TimeoutError) as error:
            broken = type(error).__name__
        status, reason = (connection.status, connection.reason) if connection else (0, "")
        self.results.append(Result(due, time.monotonic() - due, status, reason, broken))
        if connection is None:
            return
        if connection.usable and not broken and len(self._idle) < self.connections:
            self._idle.append(connection)
        else:
            await connection.close()

    async def _connection(self) -> Connection:
        """The idle connection that was used longest ago; a new one when there is none that can be used."""
        while self._idle:
            connection = self._idle.popleft()
            if connection.usable:
                return connection
            await connection.close()
        return await self._open()

    async def _open(self) -> Connection:
        return Connection(*await asyncio.open_connection("127.0.0.1", self.port))
