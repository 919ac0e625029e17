"""The demo's application: it calls localhost over plain sockets and counts what comes back."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import Counter, deque

__all__ = ["HttpCaller", "LineCaller", "Tally"]

HTTP_INTERVAL = 0.05  # seconds between requests: twenty a second show a third each within a second
LINE_INTERVAL = 0.5  # seconds between lines: a TCP session that is used now and then
RECENT = 30  # good answers: one and a half seconds of them
PATIENCE = 5.0  # seconds for an answer: more than the demo's breakers and time-outs ever take


class Tally:
    """What the application has seen.

    answers: good answers by the endpoint that gave them. failures: by what was seen instead: a status, with
    the sidecar's reason when it was the sidecar that answered, or what happened to the connection.
    lines: echoed; lines_failed: not.
    """

    __slots__ = ("_recent", "answers", "failures", "lines", "lines_failed")

    def __init__(self) -> None:
        self.answers: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.lines = 0
        self.lines_failed = 0
        self._recent: deque[str] = deque(maxlen=RECENT)

    @property
    def requests(self) -> int:
        """HTTP requests, however they ended."""
        return self.answers.total() + self.failures.total()

    @property
    def failed(self) -> int:
        """Of these, without a good answer."""
        return self.failures.total()

    def share(self, endpoint: str) -> float:
        """The endpoint's part of the good answers, 0 to 1."""
        return self.answers[endpoint] / max(1, self.answers.total())

    def recent_share(self, endpoint: str) -> float:
        """The endpoint's part of the last good answers, 0 to 1: who answers now."""
        return self._recent.count(endpoint) / max(1, len(self._recent))

    def count_answer(self, endpoint: str) -> None:
        """A good answer."""
        self.answers[endpoint] += 1
        self._recent.append(endpoint)


class _Caller(ABC):
    """One connection that is opened when it is needed and dropped when it has failed."""

    def __init__(self, host: str, port: int, tally: Tally, interval: float) -> None:
        self._host = host
        self._port = port
        self._interval = interval
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.tally = tally

    async def run(self) -> None:
        """Call, pause, call, until cancelled."""
        try:
            while True:
                await self.call()
                await asyncio.sleep(self._interval)
        finally:
            self.close()

    async def call(self) -> None:
        """One exchange; whatever comes of it is counted, nothing is raised."""
        try:
            async with asyncio.timeout(PATIENCE):
                if self._streams is None:
                    self._streams = await asyncio.open_connection(self._host, self._port)
                await self._exchange(*self._streams)
        except (OSError, EOFError, ValueError) as error:
            self.close()
            self._count_failure(_name(error))

    def close(self) -> None:
        """Drop the connection; the next call opens another."""
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].close()

    @abstractmethod
    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Ask, read the answer, count it. Raises OSError, EOFError or ValueError when it is none."""

    @abstractmethod
    def _count_failure(self, name: str) -> None:
        """Count one failure, called `name`."""


class HttpCaller(_Caller):
    """GET / again and again over a kept-alive connection."""

    def __init__(self, host: str, port: int, tally: Tally, interval: float = HTTP_INTERVAL) -> None:
        super().__init__(host, port, tally, interval)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost:%d\r\n\r\n" % self._port)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = head[0].split()[1]
        fields = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])
        }
        body = (await reader.readexactly(int(fields.get("content-length", "0")))).decode("latin-1")
        if fields.get("connection", "").lower() == "close":
            self.close()
        if status == "200":
            self.tally.count_answer(body.strip())
        else:
            self._count_failure(f"{status} {fields.get('x-sidecar-error', '')}".strip())

    def _count_failure(self, name: str) -> None:
        self.tally.failures[name] += 1


class LineCaller(_Caller):
    """A numbered line again and again over one TCP session, each expected back."""

    def __init__(self, host: str, port: int, tally: Tally, interval: float = LINE_INTERVAL) -> None:
        super().__init__(host, port, tally, interval)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = b"line %d\n" % (self.tally.lines + 1)
        writer.write(line)
        if await reader.readuntil(b"\n") != b"echo: " + line:
            raise ValueError("another line came back")
        self.tally.lines += 1

    def _count_failure(self, name: str) -> None:
        self.tally.lines_failed += 1


def _name(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, (ConnectionError, EOFError)):
        return "connection lost"
    return "no valid answer" if isinstance(error, ValueError) else "no connection"
