"""The two servers that are the process's own: one for whoever runs it, one for whoever scrapes it.

They are apart because they are for different eyes: the admin address tells about every upstream and stays on
the loopback, the metrics address tells numbers and liveness and may face a pod's network.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from sidecar.admin.control import ACTIONS
from sidecar.admin.page import add_page
from sidecar.errors import UnknownUpstreamError

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Sequence

    from aiohttp.typedefs import Middleware

    from sidecar.admin.events import Events

__all__ = ["CONTROL_HEADER", "AdminServer", "admin_app", "metrics_app"]

# Seconds that `stop` waits for answers under way. They are built in less, so that only a client that does not read can
# take longer, and the process's exit is not to wait for it.
SHUTDOWN_TIMEOUT = 1.0

# A state-changing request must carry it: no form and no plain link of a page in a browser can, and a script of another
# origin may not without asking first (CORS preflight), which is never granted here.
CONTROL_HEADER = "X-Sidecar-Control"

_INDEX = (
    "sidecar admin; in a browser this is a page that shows it\n\n"
    "/upstreams      every upstream with its endpoints, breakers and counters (JSON)\n"
    "/explain/NAME   why the next request of one goes where it goes (JSON)\n"
    f"\nWith a field {CONTROL_HEADER}: 1, by POST:\n\n"
    "/reload                 the configuration is read again; what has changed, or why it was refused (JSON)\n"
    "\nand for one endpoint, or without `?endpoint=HOST:PORT` for all of them:\n\n"
    "/upstreams/NAME/trip    out of rotation, until it is reset\n"
    "/upstreams/NAME/reset   back into rotation, whatever opened its breaker\n"
)
_METRICS_INDEX = (
    "sidecar metrics\n\n"
    "/metrics   Prometheus text exposition\n"
    "/live      200 while the process runs\n"
    "/ready     200 while it takes work, 503 before it listens and while it drains\n"
)
_log = logging.getLogger("sidecar.admin")

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class AdminServer:
    """One aiohttp application on the sockets of one address."""

    __slots__ = ("_app", "_runner")

    def __init__(self, app: web.Application) -> None:
        self._app = app
        self._runner: web.AppRunner | None = None

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
        for one in sockets:
            await web.SockSite(runner, one).start()

    async def stop(self) -> None:
        """Stop listening and close what is open, `SHUTDOWN_TIMEOUT` later at most. Needs no `start`."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()


async def _nothing() -> None:
    """What is shown is always up to date where one process counts."""


def metrics_app(
    parts: Callable[[], Iterable[bytes]],
    content_type: str,
    is_ready: Callable[[], bool],
    refresh: Callable[[], Awaitable[None]] = _nothing,
) -> web.Application:
    """`/metrics`, `/live`, `/ready`.

    parts: the exposition bit by bit, of `content_type`. refresh: awaited before, to bring up to date what it tells.
    is_ready: true from when everything listens until draining begins.
    """

    async def metrics(_request: web.Request) -> web.Response:
        await refresh()
        body = bytearray()
        for part in parts():
            body += part
            await asyncio.sleep(0)  # requests come first
        return web.Response(body=bytes(body), headers={"Content-Type": content_type})

    async def live(_request: web.Request) -> web.Response:
        return web.Response(text="live\n")

    async def ready(_request: web.Request) -> web.Response:
        return web.Response(text="ready\n") if is_ready() else web.Response(text="not ready\n", status=503)

    async def index(_request: web.Request) -> web.Response:
        return web.Response(text=_METRICS_INDEX)

    app = _application()
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/live", live)
    app.router.add_get("/ready", ready)
    app.router.add_get("/", index)
    return app


def admin_app(
    upstreams: Callable[[], dict[str, Any]],
    control: Callable[[str, str, str | None], list[str]],
    explain: Callable[[str], dict[str, Any]],
    refresh: Callable[[], Awaitable[None]] = _nothing,
    reload: Callable[[], Awaitable[tuple[int, dict[str, Any]]]] | None = None,
    events: Events | None = None,
) -> web.Application:
    """`/upstreams`, `/explain`, what is done by hand, and an index at `/`; for whoever asks by address or as localhost.

    upstreams: see `views.upstreams_view`, which may be lazy. refresh: awaited before.
    control: takes an action (`control.ACTIONS`), the name of an upstream and an endpoint's address or None for all;
        gives the addresses it was done to. Raises `UnknownUpstreamError`.
    explain: see `explain.explain_view`; takes the name of an upstream. Raises `UnknownUpstreamError`.
    reload: has the configuration read again; the status and the JSON to answer with.
    events: `/v1/events` and `/v1/history`.
    """

    async def show_upstreams(_request: web.Request) -> web.Response:
        await refresh()
        view = dict(upstreams())
        parts = []
        for one in view.pop("upstreams", ()):
            parts.append(json.dumps(one))
            await asyncio.sleep(0)  # requests come first
        head = json.dumps(view)[:-1] + (", " if view else "")
        text = f'{head}"upstreams": [{", ".join(parts)}]}}'
        return web.json_response(text=text, headers={"Cache-Control": "no-store"})

    async def show_reasons(request: web.Request) -> web.Response:
        await refresh()
        try:
            view = explain(request.match_info["name"])
        except UnknownUpstreamError as error:
            raise web.HTTPNotFound(reason=str(error)) from None
        return web.json_response(view, headers={"Cache-Control": "no-store"})

    async def act(request: web.Request) -> web.Response:
        _require_control(request)
        name, action = request.match_info["name"], request.match_info["action"]
        if [key for key, _ in request.query.items()] not in (
            [],
            ["endpoint"],
        ):  # a slip of the keyboard is not to mean all of them
            raise web.HTTPBadRequest(reason="the query may be one endpoint=HOST:PORT, or nothing for all")
        try:
            done = control(action, name, request.query.get("endpoint"))
        except UnknownUpstreamError as error:
            raise web.HTTPNotFound(reason=str(error)) from None
        return web.json_response({"upstream": name, "action": action, "endpoints": done})

    async def read_again(request: web.Request) -> web.Response:
        _require_control(request)
        assert reload is not None
        status, answer = await reload()
        return web.json_response(answer, status=status)

    app = _application(_refuse_foreign_names)
    app.router.add_get("/upstreams", show_upstreams)
    app.router.add_get("/explain/{name}", show_reasons)
    for root in ("", "/v1"):
        app.router.add_post(f"{root}/upstreams/{{name}}/{{action:{'|'.join(ACTIONS)}}}", act)
    if reload is not None:
        app.router.add_post("/reload", read_again)
    if events is not None:
        app.router.add_get("/v1/events", events.stream, allow_head=False)
        app.router.add_get("/v1/history", events.history)
    add_page(app, _INDEX)
    return app


def _require_control(request: web.Request) -> None:
    if CONTROL_HEADER not in request.headers:
        raise web.HTTPForbidden(reason=f"send {CONTROL_HEADER}: 1 with it; a browser's form cannot")


def _is_ours(record: logging.LogRecord) -> bool:
    """A log filter: aiohttp logs a traceback for each malformed request, which is a port scanner's to cause."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def _application(*middlewares: Middleware) -> web.Application:
    app = web.Application(middlewares=[_errors_as_json, *middlewares])
    app.on_response_prepare.append(_hide_versions)
    return app


async def _hide_versions(_request: web.Request, response: web.StreamResponse) -> None:
    # aiohttp's own tells its and Python's version to whoever scans a pod.
    response.headers["Server"] = "sidecar"


@web.middleware
async def _errors_as_json(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        body = {"error": error.reason, "status": error.status}
        return web.json_response(body, status=error.status, headers=headers)


@web.middleware
async def _refuse_foreign_names(request: web.Request, handler: _Handler) -> web.StreamResponse:
    # A page in a browser may give its own name this machine's address (DNS rebinding) and then reads what the
    # loopback answers. The browser still sends that name as Host, and that is how it is told apart.
    host = request.headers.get("Host")
    if host is not None and not _is_local_name(host):
        raise web.HTTPForbidden(reason="ask for it by IP address or as localhost")
    return await handler(request)


def _is_local_name(host: str) -> bool:
    """Whether a Host field (RFC 9110 section 7.2) holds an IP address or localhost, whatever the port."""
    if host.startswith("["):
        name, _, port = host[1:].partition("]")
        if port and not port.startswith(":"):
            return False
    else:
        name = host.partition(":")[0]
    if name.lower() == "localhost":
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
