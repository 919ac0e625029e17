"""A reader of server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import aiohttp

__all__ = ["Event", "EventStream"]


@dataclass(frozen=True)
class Event:
    """One event. data: the JSON value of its lines."""

    name: str
    id: str
    data: Any


class EventStream:
    """The events of a response, or of a body. Comments are passed over."""

    def __init__(self, source: aiohttp.ClientResponse | asyncio.StreamReader) -> None:
        self.response: Any = source
        self._content: Any = source.content if isinstance(source, aiohttp.ClientResponse) else source
        self._unread = b""

    async def next(self, seconds: float = 10.0) -> Event:
        """The next one; an error when it does not come within so many seconds, or the stream ends."""
        name, number, data = "message", "", []
        async with asyncio.timeout(seconds):
            while line := await self._line():
                field, _, value = line.partition(": ")
                if field == "event":
                    name = value
                elif field == "id":
                    number = value
                elif field == "data":
                    data.append(value)
        return Event(name, number, json.loads("\n".join(data)))

    async def _line(self) -> str:
        """Without its end; however long it is."""
        while b"\n" not in self._unread:
            more = await self._content.read(65536)
            if not more:
                raise EOFError("the stream has ended")
            self._unread += more
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()
