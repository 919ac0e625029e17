"""The admin API: what is shown, and what may be done by hand; `openapi` describes it.

Its calls are under `/v1`. Those that were there before it had a version are there without it too, the same ones.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from aiohttp import web

from sidecar.admin.access import ASSETS, CONTROL_HEADER, Access, peer_of
from sidecar.admin.control import ACTIONS, some_of
from sidecar.admin.openapi import description
from sidecar.admin.page import add_page
from sidecar.admin.server import Handler, application, nothing
from sidecar.admin.written import written
from sidecar.config.settings import SidecarSettings
from sidecar.errors import UnknownUpstreamError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from sidecar.admin.events import Events

__all__ = ["admin_app", "paths"]

_INDEX = (
    "sidecar admin; in a browser this is a page that shows it\n\n"
    "/v1/upstreams        every upstream with its endpoints, breakers and counters (JSON)\n"
    "/v1/upstreams/NAME   one of them\n"
    "/v1/explain/NAME     why the next request of one goes where it goes\n"
    "/v1/config           the configuration as it is followed\n"
    "/openapi.json        all calls, and what they answer\n"
    f"\nWith a field {CONTROL_HEADER}: 1, by POST:\n\n"
    "/v1/reload           the configuration is read again; what has changed, or why it was refused\n"
    "\nand for one endpoint, or without `?endpoint=HOST:PORT` for all of them:\n\n"
    "/v1/upstreams/NAME/drain    nothing new is sent there, until it is enabled\n"
    "/v1/upstreams/NAME/enable   sent to again\n"
    "/v1/upstreams/NAME/trip     out of rotation, until it is reset\n"
    "/v1/upstreams/NAME/reset    back into rotation, whatever opened its breaker\n"
    "\nBy POST, without that field, at a loopback address:\n\n"
    "/quitquitquit        what is in flight is finished, nothing more accepted, and the process ends\n"
)

_log = logging.getLogger("sidecar.admin")


def admin_app(
    upstreams: Callable[[], dict[str, Any]],
    control: Callable[[str, str, str | None], list[str]],
    explain: Callable[[str], dict[str, Any]],
    refresh: Callable[[], Awaitable[None]] = nothing,
    reload: Callable[[], Awaitable[tuple[int, dict[str, Any]]]] | None = None,
    *,
    events: Events | None = None,
    upstream: Callable[[str], Mapping[str, Any]] | None = None,
    config: Callable[[], Mapping[str, Any]] | None = None,
    access: Access | None = None,
    finish: Callable[[], None] | None = None,
    in_flight: Callable[[], int] = int,
) -> web.Application:
    """The application of the admin address.

    upstreams, upstream: see `views.upstreams_view`, which may be lazy; all of them, and the one of a name. refresh:
        awaited before.
    control: takes an action (`control.ACTIONS`), the name of an upstream and an endpoint's address or None for all;
        gives the addresses it was done to. Raises `UnknownUpstreamError`, as do the others that take a name.
    explain: see `explain.explain_view`; takes the name of an upstream.
    reload: has the configuration read again; the status and the JSON to answer with.
    config: see `effective.config_view`.
    access: who may ask; without it anybody by loopback.
    events: `/v1/events` and `/v1/history`.
    finish: has the process end. in_flight: what it has to finish before.
    """
    access = access or Access(SidecarSettings)

    async def show_upstreams(_request: web.Request) -> web.Response:
        await refresh()
        return _json(await written(upstreams()))

    async def show_upstream(request: web.Request) -> web.Response:
        assert upstream is not None
        await refresh()
        return _json(await written(_known(upstream, request)))

    async def show_reasons(request: web.Request) -> web.Response:
        await refresh()
        return _json(await written(_known(explain, request)))

    async def show_config(_request: web.Request) -> web.Response:
        assert config is not None
        return _json(await written(config()))

    async def act(request: web.Request) -> web.Response:
        access.may_change(request)
        name, action = request.match_info["name"], request.match_info["action"]
        if [key for key, _ in request.query.items()] not in ([], ["endpoint"]):
            # A slip of the keyboard is not to mean all of them.
            problem = "the query may be one endpoint=HOST:PORT, or nothing for all"
            _log.warning("%s, asked for by %s: not done: %s", action, peer_of(request), problem)
            raise web.HTTPBadRequest(reason=problem)
        try:
            done = control(action, name, request.query.get("endpoint"))
        except UnknownUpstreamError as error:
            _log.warning("%s, asked for by %s: not done: %s", action, peer_of(request), error)
            raise web.HTTPNotFound(reason=str(error)) from None
        shown = some_of(done) or "nobody"
        _log.warning("%s: %s, asked for by %s: done to %s", name, action, peer_of(request), shown)
        return web.json_response({"upstream": name, "action": action, "endpoints": done})

    async def read_again(request: web.Request) -> web.Response:
        access.may_change(request)
        assert reload is not None
        status, answer = await reload()
        result = answer.get("result", "refused")
        _log.warning("reload, asked for by %s: %s", peer_of(request), result)
        return web.json_response(answer, status=status)

    async def end(request: web.Request) -> web.StreamResponse:
        access.may_quit(request)
        await refresh()
        assert finish is not None
        _log.warning("the end, asked for by %s", peer_of(request))
        response = web.json_response({"result": "ending", "in_flight": in_flight()})
        response.force_close()
        with suppress(ConnectionError):  # whoever has left has asked for it all the same
            await response.prepare(request)
            await response.write_eof()  # before anything closes
        finish()
        return response

    async def watch(request: web.Request) -> web.StreamResponse:
        assert events is not None
        return await events.stream(request, partial(access.lets_stay, request))

    async def describe(_request: web.Request) -> web.Response:
        return web.json_response(description(paths(app), token=access.has_token))

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        access.let_in(request)
        return await handler(request)

    async def count(_request: web.Request, response: web.StreamResponse) -> None:
        access.counts.by_class[min(response.status // 100, 5)] += 1

    app = application("/openapi.json", guarded)
    app.on_response_prepare.append(count)
    router = app.router
    for version in ("/v1", ""):
        router.add_get(f"{version}/upstreams", show_upstreams)
        router.add_get(f"{version}/explain/{{name}}", show_reasons)
        router.add_post(f"{version}/upstreams/{{name}}/{{action:{'|'.join(ACTIONS)}}}", act)
        if reload is not None:
            router.add_post(f"{version}/reload", read_again)
    if upstream is not None:
        router.add_get("/v1/upstreams/{name}", show_upstream)
    if config is not None:
        router.add_get("/v1/config", show_config)
    if finish is not None:
        router.add_post("/quitquitquit", end)
    router.add_get("/openapi.json", describe)
    if events is not None:
        router.add_get("/v1/events", watch, allow_head=False)
        router.add_get("/v1/history", events.history)
    add_page(app, _INDEX)
    return app


def _known(
    show: Callable[[str], Mapping[str, Any]],
    request: web.Request,
) -> Mapping[str, Any]:
    try:
        return show(request.match_info["name"])
    except UnknownUpstreamError as error:
        raise web.HTTPNotFound(reason=str(error)) from None


def _json(text: str) -> web.Response:
    return web.json_response(text=text)


def paths(app: web.Application) -> set[tuple[str, str]]:
    """(method, path) of each route, as OpenAPI writes paths: without what a part of it has to look like.

    The files of the page are one path, whatever they are called.
    """
    found = set()
    for route in app.router.routes():
        if route.resource is not None and route.method != "HEAD":
            path = route.resource.canonical
            found.add((route.method, f"{ASSETS}{{name}}" if path.startswith(ASSETS) else path))
    return found
