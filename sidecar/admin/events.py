"""What happens, as it happens: server-sent events for the page at `/`, and the history that they begin with.

The format is that of https://html.spec.whatwg.org/multipage/server-sent-events.html. A client is first told `hello`
and `history`, and then each second a `state` with those upstreams that have changed since it was told last. Nothing is
queued for it: one that reads slowly gets the newest state when it has taken what was sent.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from aiohttp import web

from sidecar.admin.views import moment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sidecar.admin.live import LiveView
    from sidecar.observe.history import Sampler

__all__ = ["Events"]

MOST_CLIENTS = 16  # at once: pages that are open, some of them forgotten
# Seconds that a client may leave what is sent to it unread, beyond what aiohttp and the kernel buffer.
PATIENCE = 30.0
QUIET = 5.0  # seconds without anything to say, after which a comment shows that the connection lives
PIECE = 65536  # bytes that are sent without a pause


class _Client:
    """One stream. busy: it is being told something, which may wait for its reading."""

    __slots__ = ("_request", "_unpaused", "busy", "response")

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self.response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        )
        self._unpaused = 0
        self.busy = True

    async def send(self, text: str) -> None:
        """Raises TimeoutError when it does not read, ConnectionError when it has gone."""
        data = text.encode()
        async with asyncio.timeout(PATIENCE):
            await self.response.write(data)
        self._unpaused += len(data)
        if self._unpaused >= PIECE:
            self._unpaused = 0
            await asyncio.sleep(0)  # requests come first

    def cut(self) -> None:
        """Close its connection with whatever it has not taken."""
        if self._request.transport is not None:
            self._request.transport.abort()


class Events:
    """Whoever watches, and what they are told; nothing is looked at while nobody does.

    hello: what a stream begins with, and is told again when it has changed: a JSON value.
    """

    def __init__(self, sampler: Sampler, view: LiveView, hello: Callable[[], dict[str, Any]]) -> None:
        self._sampler = sampler
        self._view = view
        self._hello = hello
        self._clients: set[_Client] = set()
        self._looking: asyncio.Task[None] | None = None
        self._looked = asyncio.Event()
        self._closed = False

    @property
    def clients(self) -> int:
        """How many streams there are; at most `MOST_CLIENTS`."""
        return len(self._clients)

    async def close(self) -> None:
        """End all streams; safe to call at any time and again."""
        self._closed = True
        self._told()
        for client in self._clients:
            if client.busy:
                client.cut()
        looking = self._stop_looking()
        if looking is not None:
            await asyncio.wait([looking])

    # Looking

    def _stop_looking(self) -> asyncio.Task[None] | None:
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()
            self._view.forget()
        return looking

    async def _look(self) -> None:
        with self._sampler.watching():
            count = self._sampler.count
            while True:
                count = await self._sampler.after(count)
                await self._view.look()
                self._told()

    def _told(self) -> None:
        looked, self._looked = self._looked, asyncio.Event()
        looked.set()

    # Telling

    async def history(self, _request: web.Request) -> web.Response:
        """Answer `/v1/history`: `{at, interval, length, points, upstreams: {NAME: {requests, errors, p50, p99}}}`.

        See `Sampler.histories`. at: the moment of the newest point. interval: seconds between two. points: how many
        there have been since the start.
        """
        pieces = []
        for piece in self._history():
            pieces.append(piece)
            await asyncio.sleep(0)  # requests come first
        return web.json_response(text="".join(pieces), headers={"Cache-Control": "no-store"})

    def _history(self) -> Iterator[str]:
        sampler = self._sampler
        head = {
            "at": moment(sampler.at),
            "interval": int(sampler.interval),
            "length": sampler.length,
            "points": sampler.points,
        }
        yield f'{json.dumps(head)[:-1]}, "upstreams": {{'
        comma = ""
        for name, points in sampler.histories():
            yield f"{comma}{json.dumps(name)}:{json.dumps(points, separators=(',', ':'))}"
            comma = ","
        yield "}}"

    async def stream(self, request: web.Request, may_stay: Callable[[], bool]) -> web.StreamResponse:
        """Answer `/v1/events`, until the client goes or the process ends, or it may stay no longer."""
        if self._closed:
            raise web.HTTPServiceUnavailable(reason="the sidecar is ending")
        if len(self._clients) >= MOST_CLIENTS:
            raise web.HTTPServiceUnavailable(
                reason=f"{MOST_CLIENTS} clients read /v1/events already; close a page that nobody looks at"
            )
        client = _Client(request)
        self._clients.add(client)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._look())
        try:
            await client.response.prepare(request)
            await self._tell(client, may_stay)
        except TimeoutError:
            client.cut()
        except ConnectionError:
            pass
        finally:
            self._clients.discard(client)
            if not self._clients:
                self._stop_looking()
        return client.response

    async def _tell(self, client: _Client, may_stay: Callable[[], bool]) -> None:
        hello = self._hello()
        await client.send(_hello_event(hello))
        await client.send("event: history\ndata: ")
        for piece in self._history():
            await client.send(piece)
        await client.send("\n\n")
        seen = 0
        while not self._closed and may_stay():
            known, hello = hello, self._hello()
            if hello != known:
                await client.send(_hello_event(hello))
            looked, number = self._looked, self._view.number
            if self._view.head and number > seen:
                await self._tell_state(client, seen, number)
                seen = number
                continue
            client.busy = False
            quiet = False
            try:
                async with asyncio.timeout(QUIET):
                    await looked.wait()
            except TimeoutError:
                quiet = True
            client.busy = True
            if quiet:
                await client.send(": keep-alive\n\n")

    async def _tell_state(self, client: _Client, seen: int, number: int) -> None:
        """What has changed since the look `seen`; what changes while it is told is told again."""
        head = f'{self._view.head[:-1]}, "points": {self._sampler.points}'
        text = f'event: state\nid: {number}\ndata: {head}, "upstreams": ['
        comma = ""
        for upstream in self._view.since(seen):
            text += comma + upstream
            comma = ", "
            if len(text) >= PIECE // 4:
                await client.send(text)
                text = ""
        await client.send(f"{text}]}}\n\n")


def _hello_event(hello: dict[str, Any]) -> str:
    return f"event: hello\ndata: {json.dumps(hello)}\n\n"
