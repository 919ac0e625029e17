"""The two servers that are the process's own: one for whoever runs it, one for whoever scrapes it.

They are apart because they are for different eyes: the admin address tells about every upstream and stays on
the loopback, the metrics address tells numbers and liveness and may face a pod's network.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, cast
from weakref import WeakSet

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_urldispatcher import MatchInfoError

from sidecar.admin.compression import Body
from sidecar.model import AdminCounts

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Sequence

    from aiohttp.typedefs import Middleware

__all__ = ["AdminServer", "Handler", "application", "metrics_app", "nothing"]

# Seconds that `stop` waits for answers under way. They are built in less, so that only a client that does not read can
# take longer, and the process's exit is not to wait for it.
SHUTDOWN_TIMEOUT = 1.0

# Connections to one of the two servers. `host_limits.OWN_DESCRIPTORS` has room for both: whoever opens more, also from
# other machines where there is a token, takes no descriptor from the applications' requests.
MAX_CLIENTS = 64
# Seconds that a connection may take until its first request is there, as `sidecar.head_timeout` by default, and seconds
# that it may be quiet between two, more than a scraper's usual minute and as nginx has it. Else some that say nothing
# would keep everybody else out.
FIRST_REQUEST = 10.0
KEEP_ALIVE = 75.0

_METRICS_INDEX = (
    "sidecar metrics\n\n"
    "/metrics   for Prometheus: text, or OpenMetrics where it is asked for\n"
    "/live      200 while the process runs\n"
    "/ready     200 while it takes work, 503 before it listens and while it drains\n"
)
# What no answer goes without. aiohttp's own tells its and Python's version to whoever scans a pod.
_OF_ALL = {
    "Server": "sidecar",
    "X-Content-Type-Options": "nosniff",  # https://fetch.spec.whatwg.org/#x-content-type-options-header
}
_OF_ERRORS = {
    400: "this is no HTTP/1.1 request, or a line or field of it is longer than 8190 bytes, or there are too many",
    500: "the sidecar has failed at it; its log says how",
}
# Fields of an error that say how to ask instead.
_PASSED = ("Allow", "WWW-Authenticate")

_log = logging.getLogger("sidecar.admin")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class AdminServer:
    """One aiohttp application on the sockets of one address.

    A request's head is bounded by aiohttp: 8190 bytes for the line and for each field, 400 beyond. No body is read.
    counts: where connections are counted that are closed at once, as there are `MAX_CLIENTS`.
    """

    __slots__ = ("_app", "_counts", "_listening", "_open", "_runner")

    def __init__(self, app: web.Application, counts: AdminCounts | None = None) -> None:
        self._app = app
        self._counts = counts or AdminCounts()
        # aiohttp's own knows of one a turn of the loop later: of those that come in a burst it would know none.
        self._open: WeakSet[_Connection] = WeakSet()
        self._runner: web.AppRunner | None = None
        self._listening: list[asyncio.Server] = []

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Accept on `sockets`, which are its own from now on; see `bind`."""
        runner = self._runner = web.AppRunner(
            self._app,
            access_log=None,
            handle_signals=False,
            logger=_log,
            shutdown_timeout=SHUTDOWN_TIMEOUT,
        )
        _log.addFilter(_is_ours)
        await runner.setup()
        loop = asyncio.get_running_loop()
        for one in sockets:
            self._listening.append(await loop.create_server(self._accept, sock=one))

    def _accept(self) -> asyncio.BaseProtocol:
        server = None if self._runner is None else self._runner.server
        if server is None or len(self._open) >= MAX_CLIENTS:
            self._counts.refused += 1
            return _Full()
        accepted = _Connection(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=KEEP_ALIVE,
            access_log=None,  # type: ignore[arg-type] # for none, as `AppRunner` passes it on
            logger=_log,
            auto_decompress=False,  # no body is read, so that none can be a bomb, or broken
        )
        accepted.known = self._open
        self._open.add(accepted)
        return accepted

    def stop_listening(self) -> None:
        """Accept no more; who is there is answered."""
        for one in self._listening:
            one.close()
        self._listening.clear()

    async def stop(self) -> None:
        """Stop listening and close what is open, `SHUTDOWN_TIMEOUT` later at most. Needs no `start`."""
        runner, self._runner = self._runner, None
        self.stop_listening()
        if runner is not None:
            await runner.cleanup()


class _Connection(web.RequestHandler):
    """One that closes when nothing has been asked `FIRST_REQUEST` after it came, and whose errors are ours.

    known: where it is until it has closed.
    """

    __slots__ = ("__weakref__", "_silent", "known")

    known: WeakSet[_Connection]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._silent = asyncio.get_running_loop().call_later(FIRST_REQUEST, self.force_close)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._silent.cancel()
        self.known.discard(self)
        super().connection_lost(exc)

    def has_asked(self) -> None:
        """Its first request is there."""
        self._silent.cancel()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """As the other errors, where aiohttp answers by itself: its text repeats what was sent."""
        super().handle_error(request, status, exc, message)
        problem = _OF_ERRORS.get(status, "it cannot be answered")
        answer = _error(problem, status, {**_OF_ALL, "Cache-Control": "no-store"})
        answer.force_close()
        return answer


class _Full(asyncio.Protocol):
    """Of a connection that is one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).abort()  # of uvloop's own it is no subclass


async def nothing() -> None:
    """What is shown is always up to date where one process counts."""


def metrics_app(
    scrape: Callable[[str], tuple[str, Iterable[bytes]]],
    is_ready: Callable[[], bool],
    refresh: Callable[[], Awaitable[None]] = nothing,
) -> web.Application:
    """`/metrics`, `/live`, `/ready`.

    scrape: takes an Accept field, or an empty string for none; gives the content type and the exposition bit by bit.
    refresh: awaited before, to bring up to date what it tells.
    is_ready: true from when everything listens until draining begins.
    """

    async def metrics(request: web.Request) -> web.StreamResponse:
        await refresh()
        content_type, parts = scrape(", ".join(request.headers.getall("Accept", ())))
        body = Body(", ".join(request.headers.getall("Accept-Encoding", ())))
        for part in parts:
            body.add(part)
            await asyncio.sleep(0)  # requests come first
        pieces = body.finish()
        fields = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding", **body.fields}
        return await _send(request, pieces, fields)

    async def live(_request: web.Request) -> web.Response:
        return web.Response(text="live\n")

    async def ready(_request: web.Request) -> web.Response:
        return web.Response(text="ready\n") if is_ready() else web.Response(text="not ready\n", status=503)

    async def index(_request: web.Request) -> web.Response:
        return web.Response(text=_METRICS_INDEX)

    app = application("/")
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/live", live)
    app.router.add_get("/ready", ready)
    app.router.add_get("/", index)
    return app


async def _send(request: web.Request, pieces: Sequence[bytes], fields: dict[str, str]) -> web.StreamResponse:
    """Answer with `pieces`, one at a time."""
    response = web.StreamResponse(headers=fields)
    response.content_length = sum(map(len, pieces))
    with suppress(ConnectionError):  # whoever asked has left: its scrape_timeout is over
        await response.prepare(request)
        if request.method != "HEAD":
            for piece in pieces:
                await response.write(piece)
                await asyncio.sleep(0)
        await response.write_eof()
    return response


def _is_ours(record: logging.LogRecord) -> bool:
    """A log filter: aiohttp logs a traceback for each malformed request, which is a port scanner's to cause."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def application(index: str, *middlewares: Middleware) -> web.Application:
    """What both servers have in common: errors are JSON, and no answer tells more than it has to.

    index: the path of what lists the calls, for whoever asks for another one.
    """

    @web.middleware
    async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
        if isinstance(request.protocol, _Connection):
            request.protocol.has_asked()
        try:
            return await handler(request)
        except web.HTTPException as error:
            headers = {name: error.headers[name] for name in _PASSED if name in error.headers}
            problem = error.reason
            if isinstance(error, web.HTTPMethodNotAllowed):
                problem = f"takes {' and '.join(sorted(error.allowed_methods))}, not {error.method[:20]}"
            elif isinstance(error, web.HTTPNotFound) and isinstance(request.match_info, MatchInfoError):
                problem = f"nothing is there; see {index}"
            return _error(problem, error.status, headers)

    app = web.Application(middlewares=[errors_as_json, *middlewares])
    app.on_response_prepare.append(_add_fields)
    return app


def _error(problem: str, status: int, headers: dict[str, str]) -> web.Response:
    return web.json_response({"error": problem, "status": status}, status=status, headers=headers)


async def _add_fields(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_OF_ALL)
    if response.content_type == "application/json":
        response.headers["Cache-Control"] = "no-store"  # RFC 9111 section 5.2.2.5: it is of this moment
