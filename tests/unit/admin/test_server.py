"""The admin and metrics servers over real loopback sockets."""

import asyncio
import contextlib
import gzip
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from aiohttp import web
from support.http import Answer

from sidecar.admin import bind as bind_module
from sidecar.admin import server as server_module
from sidecar.admin.api import admin_app
from sidecar.admin.bind import bind
from sidecar.admin.server import AdminServer, metrics_app
from sidecar.errors import UnknownUpstreamError
from sidecar.model import AdminCounts

Start = Callable[..., Awaitable[int]]
TEXT = "text/plain; version=0.0.4; charset=utf-8"


async def _ask(
    port: int,
    path: str,
    *lines: str,
    method: str = "GET",
    version: str = "HTTP/1.1",
    address: str = "127.0.0.1",
) -> Answer:
    reader, writer = await asyncio.open_connection(address, port)
    head = [f"{method} {path} {version}", "Connection: close", *(lines or ("Host: localhost",)), "", ""]
    writer.write("\r\n".join(head).encode())
    raw = await reader.read()
    writer.close()
    await writer.wait_closed()
    return Answer(raw)


async def listen(server: AdminServer, host: str = "127.0.0.1") -> int:
    """Start it on a free port; returns that."""
    sockets = await bind(host, 0, "admin")
    port: int = sockets[0].getsockname()[1]
    await server.start(sockets)
    return port


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts servers that end with the test."""
    servers: list[AdminServer] = []

    async def start(app: web.Application, host: str = "127.0.0.1") -> int:
        server = AdminServer(app)
        servers.append(server)
        return await listen(server, host)

    yield start
    for server in servers:
        await server.stop()


def _nobody(_action: str, name: str, _address: str | None) -> list[str]:
    raise UnknownUpstreamError(f"no upstream is called {name!r}")


def _unexplained(name: str) -> dict[str, Any]:
    raise UnknownUpstreamError(f"no upstream is called {name!r}")


def _metrics(*, ready: bool = True) -> web.Application:
    return metrics_app(lambda _: (TEXT, [b"a 1\n"]), lambda: ready)


async def test_metrics_are_rendered_at_each_scrape(start: Start) -> None:
    scrapes = iter(([b"a 1\n"], [b"a", b" 2\n"]))
    port = await start(metrics_app(lambda _: (TEXT, next(scrapes)), lambda: True))
    answer = await _ask(port, "/metrics")
    assert answer.status == 200
    assert answer.fields["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.body == b"a 1\n"
    assert (await _ask(port, "/metrics")).body == b"a 2\n"


async def test_the_format_is_what_the_scraper_asks_for(start: Start) -> None:
    asked: list[str] = []

    def scrape(accept: str) -> tuple[str, list[bytes]]:
        asked.append(accept)
        return "application/openmetrics-text; version=1.0.0; charset=utf-8", [b"# EOF\n"]

    port = await start(metrics_app(scrape, lambda: True))
    answer = await _ask(port, "/metrics", "Host: x", "Accept: a/b;q=0.5", "Accept: text/plain")
    assert answer.fields["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert answer.fields["vary"] == "Accept, Accept-Encoding"
    assert (await _ask(port, "/metrics")).status == 200
    assert asked == ["a/b;q=0.5, text/plain", ""]


async def test_a_long_scrape_is_compressed_for_who_accepts_it(start: Start) -> None:
    parts = [b"a %d\n" % number for number in range(1000)]
    port = await start(metrics_app(lambda _: (TEXT, parts), lambda: True))
    plain = await _ask(port, "/metrics")
    assert "content-encoding" not in plain.fields
    packed = await _ask(port, "/metrics", "Host: x", "Accept-Encoding: gzip")
    assert packed.fields["content-encoding"] == "gzip"
    assert packed.fields["content-type"] == TEXT
    assert len(packed.body) == int(packed.fields["content-length"]) < len(plain.body) / 2
    assert gzip.decompress(packed.body) == plain.body == b"".join(parts)


async def test_a_scrape_is_sent_in_pieces_and_to_head_not_at_all(start: Start) -> None:
    parts = [b"a" * 300_000, b"b" * 300_000]
    port = await start(metrics_app(lambda _: (TEXT, parts), lambda: True))
    answer = await _ask(port, "/metrics", method="HEAD")
    assert (answer.status, answer.fields["content-length"], answer.body) == (200, "600000", b"")
    answer = await _ask(port, "/metrics")
    assert (answer.fields["content-length"], answer.body) == ("600000", b"".join(parts))


async def test_who_leaves_in_the_middle_of_a_scrape_is_no_error(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    ended = asyncio.Event()
    body = [b"a" * 1_000_000] * 20  # more than sockets take

    async def leave(request: web.Request, response: web.StreamResponse) -> None:
        asyncio.get_running_loop().call_soon(writer.transport.abort)

    @web.middleware
    async def watch(request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            response: web.StreamResponse = await handler(request)
        finally:
            ended.set()
        return response

    app = metrics_app(lambda _: (TEXT, body), lambda: True)
    app.middlewares.append(watch)
    app.on_response_prepare.append(leave)
    _, writer = await asyncio.open_connection("127.0.0.1", await start(app))
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with asyncio.timeout(10.0):
        await ended.wait()
    await asyncio.sleep(0)  # for what is logged of it
    assert not caplog.records


async def test_who_leaves_before_a_scrape_is_there_is_no_error(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    refreshing, ended = asyncio.Event(), asyncio.Event()

    async def refresh() -> None:
        refreshing.set()
        while protocols[0].connected:  # noqa: ASYNC110 - nothing of the server's tells
            await asyncio.sleep(0.001)
        asyncio.get_running_loop().call_soon(ended.set)

    @web.middleware
    async def note(request: web.Request, handler: Any) -> web.StreamResponse:
        protocols.append(request.protocol)
        response: web.StreamResponse = await handler(request)
        return response

    protocols: list[Any] = []
    app = metrics_app(lambda _: (TEXT, [b"a 1\n"]), lambda: True, refresh)
    app.middlewares.append(note)
    _, writer = await asyncio.open_connection("127.0.0.1", await start(app))
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with asyncio.timeout(10.0):
        await refreshing.wait()
        writer.transport.abort()
        await ended.wait()
    for _ in range(10):  # for what is logged of it
        await asyncio.sleep(0)
    assert not caplog.records


async def test_requests_come_before_the_next_part_of_a_scrape(start: Start) -> None:
    turns: list[int] = []

    def parts() -> Iterator[bytes]:
        for number in range(3):
            assert len(turns) == number
            asyncio.get_running_loop().call_soon(turns.append, number)
            yield b"%d\n" % number

    port = await start(metrics_app(lambda _: (TEXT, parts()), lambda: True))
    assert (await _ask(port, "/metrics")).status == 200
    assert turns == [0, 1, 2]


async def test_live_says_so_whatever_the_readiness(start: Start) -> None:
    answer = await _ask(await start(_metrics(ready=False)), "/live")
    assert (answer.status, answer.body) == (200, b"live\n")


@pytest.mark.parametrize(("ready", "status", "body"), [(True, 200, b"ready\n"), (False, 503, b"not ready\n")])
async def test_ready_follows_the_application(start: Start, ready: bool, status: int, body: bytes) -> None:
    answer = await _ask(await start(_metrics(ready=ready)), "/ready")
    assert (answer.status, answer.body) == (status, body)


async def test_upstreams_is_json_of_now(start: Start) -> None:
    view: dict[str, Any] = {"upstreams": []}
    port = await start(admin_app(lambda: view, _nobody, _unexplained))
    assert (await _ask(port, "/upstreams")).json == {"upstreams": []}
    view["draining"] = True
    answer = await _ask(port, "/upstreams")
    assert answer.json == {"upstreams": [], "draining": True}
    assert answer.fields["cache-control"] == "no-store"


async def test_requests_come_before_the_next_upstream_of_a_view(start: Start) -> None:
    turns: list[int] = []

    def upstreams() -> Iterator[dict[str, Any]]:
        for number in range(3):
            assert len(turns) == number
            asyncio.get_running_loop().call_soon(turns.append, number)
            yield {"name": number}

    port = await start(admin_app(lambda: {"a": 1, "upstreams": upstreams()}, _nobody, _unexplained))
    answer = await _ask(port, "/upstreams")
    assert answer.json == {"a": 1, "upstreams": [{"name": 0}, {"name": 1}, {"name": 2}]}
    assert turns == [0, 1, 2]


async def test_the_index_names_every_path(start: Start) -> None:
    app = admin_app(dict, _nobody, _unexplained)
    answer = await _ask(await start(app), "/")
    assert answer.fields["content-type"].startswith("text/plain")
    assert b"/upstreams" in answer.body
    metrics = await _ask(await start(_metrics()), "/")
    for path in (b"/metrics", b"/live", b"/ready"):
        assert path in metrics.body


@pytest.mark.parametrize(
    ("app", "index"),
    [(admin_app(dict, _nobody, _unexplained), "/openapi.json"), (_metrics(), "/")],
    ids=["admin", "metrics"],
)
async def test_unknown_paths_and_methods_are_json_errors(
    start: Start, app: web.Application, index: str
) -> None:
    port = await start(app)
    answer = await _ask(port, "/favicon.ico")
    assert answer.status == 404
    assert answer.json == {"error": f"nothing is there; see {index}", "status": 404}
    answer = await _ask(port, "/", method="POST")
    assert answer.status == 405
    assert answer.json == {"error": "takes GET and HEAD, not POST", "status": 405}
    assert answer.fields["allow"] == "GET,HEAD"


async def test_the_admin_and_metrics_paths_do_not_mix(start: Start) -> None:
    assert (await _ask(await start(admin_app(dict, _nobody, _unexplained)), "/metrics")).status == 404
    assert (await _ask(await start(_metrics()), "/upstreams")).status == 404


async def test_versions_are_nobodys_business(start: Start) -> None:
    port = await start(_metrics())
    for path in ("/metrics", "/nothing", "/no path"):
        assert (await _ask(port, path)).fields["server"] == "sidecar"


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:9901", "127.0.0.1", "127.0.0.1:9901", "[::1]:9901", "[::1]", "10.0.0.5:1"],
)
async def test_admin_answers_to_addresses_and_localhost(start: Start, host: str) -> None:
    assert (
        await _ask(await start(admin_app(dict, _nobody, _unexplained)), "/upstreams", f"Host: {host}")
    ).status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:9901", "localhost.evil.example", "127.0.0.1.evil.example", "[evil]", ""],
)
@pytest.mark.parametrize("path", ["/upstreams", "/"])
async def test_admin_refuses_other_names(start: Start, host: str, path: str) -> None:
    answer = await _ask(
        await start(admin_app(lambda: {"secret": 1}, _nobody, _unexplained)), path, f"Host: {host}"
    )
    assert answer.status == 403
    assert answer.json == {"error": "ask for it by IP address or as localhost", "status": 403}


async def test_a_request_without_a_host_comes_from_no_browser(start: Start) -> None:
    port = await start(admin_app(dict, _nobody, _unexplained))
    assert (await _ask(port, "/upstreams", "X-Other: 1", version="HTTP/1.0")).status == 200


async def test_garbage_is_refused_and_not_worth_a_traceback(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    port = await start(_metrics())
    for method in ("GET GET", "\x16\x03\x01"):
        assert (await _ask(port, "/metrics", method=method)).status == 400
    assert (await _ask(port, "/metrics", "X-No-Host: 1")).status == 400
    assert caplog.records == []


async def test_an_error_repeats_nothing_of_what_was_sent(start: Start) -> None:
    answer = await _ask(await start(_metrics()), "/metrics", "Authorization : Bearer s3cret")
    assert (answer.status, answer.json["status"]) == (400, 400)
    assert b"s3cret" not in answer.body
    assert answer.fields["cache-control"] == "no-store"
    assert answer.fields["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br"])
async def test_a_body_is_not_decoded_however_it_is_coded(
    start: Start, caplog: pytest.LogCaptureFixture, coding: str
) -> None:
    port = await start(_metrics())
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"GET /live HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: {coding}\r\nContent-Length: 5\r\n"
    async with asyncio.timeout(5):
        for last in ("", "Connection: close\r\n"):
            writer.write(f"{head}{last}\r\nwrong".encode())
        assert (await reader.read()).count(b"HTTP/1.1 200") == 2
    writer.close()
    await writer.wait_closed()
    assert caplog.records == []


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux alone closes such connections")
async def test_who_reads_nothing_is_closed_also_when_all_has_been_written(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(bind_module, "UNREAD", 0.1)
    counts = AdminCounts()
    monkeypatch.setattr(server_module, "MAX_CLIENTS", 2)
    body = [b"a" * 1_000_000] * 20  # more than sockets take
    server = AdminServer(metrics_app(lambda _: (TEXT, body), lambda: True), counts)
    port = await listen(server)
    kept = []
    for last in ("", "Connection: close\r\n"):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(f"GET /metrics HTTP/1.1\r\nHost: localhost\r\n{last}\r\n".encode())
        kept.append((reader, writer))
    for reader, _ in kept:
        await reader.readuntil(b"\r\n")
    async with asyncio.timeout(10):
        status = 0
        while status != 200:
            with contextlib.suppress(ConnectionError, IndexError):
                status = (await _ask(port, "/live")).status
    assert counts.refused > 0, "they had all places"
    for _, writer in kept:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)
    await server.stop()
    assert caplog.records == []


async def test_an_error_of_ours_is_logged_and_answered(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    port = await start(admin_app(lambda: {}["no such key"], _nobody, _unexplained))
    assert (await _ask(port, "/upstreams")).status == 500
    (record,) = caplog.records
    assert record.name == "sidecar.admin"
    assert record.exc_info
    assert record.exc_info[0] is KeyError


async def test_it_listens_on_ipv6(start: Start) -> None:
    port = await start(_metrics(), "::1")
    assert (await _ask(port, "/live", address="::1")).status == 200


async def test_stop_closes_the_port_and_may_be_called_again() -> None:
    server = AdminServer(_metrics())
    await server.stop()
    port = await listen(server)
    await server.stop()
    await server.stop()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_stop_does_not_wait_for_a_client_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "SHUTDOWN_TIMEOUT", 0.05)
    asked = asyncio.Event()

    def large() -> dict[str, Any]:
        asked.set()
        return {"more than the sockets' buffers take": "x" * 32 * 1024 * 1024}

    server = AdminServer(admin_app(large, _nobody, _unexplained))
    port = await listen(server)
    _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.write(b"GET /upstreams HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with asyncio.timeout(5):
        await asked.wait()
        await server.stop()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def test_stop_does_not_wait_for_a_silent_client() -> None:
    server = AdminServer(_metrics())
    port = await listen(server)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(5):
        await server.stop()
        assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


# Actions


BY_HAND = ("Host: localhost", "X-Sidecar-Control: 1", "Content-Length: 0")


async def test_an_action_is_done_to_one_endpoint_or_to_all(start: Start) -> None:
    asked: list[tuple[str, str, str | None]] = []

    def control(action: str, name: str, address: str | None) -> list[str]:
        asked.append((action, name, address))
        return ["10.0.0.1:80"]

    port = await start(admin_app(dict, control, _unexplained))
    answer = await _ask(port, "/upstreams/my-api/trip?endpoint=10.0.0.1:80", *BY_HAND, method="POST")
    assert (answer.status, answer.json) == (
        200,
        {"upstream": "my-api", "action": "trip", "endpoints": ["10.0.0.1:80"]},
    )
    assert (await _ask(port, "/upstreams/my-api/reset", *BY_HAND, method="POST")).status == 200
    assert asked == [("trip", "my-api", "10.0.0.1:80"), ("reset", "my-api", None)]


@pytest.mark.parametrize("name", ["nobody", "no%0abody", "%C3%A9"])
async def test_an_action_on_nobody_says_so(start: Start, name: str) -> None:
    answer = await _ask(
        await start(admin_app(dict, _nobody, _unexplained)),
        f"/upstreams/{name}/trip",
        *BY_HAND,
        method="POST",
    )
    assert answer.status == 404
    assert answer.json["error"].startswith("no upstream is called '")


async def test_no_page_in_a_browser_can_act(start: Start) -> None:
    """A form sends no field of its own choosing, a script of another origin has to ask first, and a link is a GET."""
    done: list[str] = []

    def control(action: str, _name: str, _address: str | None) -> list[str]:
        done.append(action)
        return []

    port = await start(admin_app(dict, control, _unexplained))
    path = "/upstreams/api/trip"
    form = ("Host: localhost", "Content-Type: application/x-www-form-urlencoded", "Content-Length: 0")
    answer = await _ask(port, path, *form, method="POST")
    assert (answer.status, "X-Sidecar-Control" in answer.json["error"]) == (403, True)
    assert (await _ask(port, path, *BY_HAND)).status == 405
    asking = ("Host: localhost", "Origin: http://evil.example", "Access-Control-Request-Method: POST")
    answer = await _ask(port, path, *asking, method="OPTIONS")
    assert answer.status == 403
    assert not any(name.startswith("access-control") for name in answer.fields)
    asking = ("Host: localhost", "Access-Control-Request-Method: POST")
    assert (await _ask(port, path, *asking, method="OPTIONS")).status == 405
    rebound = ("Host: evil.example", *BY_HAND[1:])
    assert (await _ask(port, path, *rebound, method="POST")).status == 403
    assert (await _ask(port, "/upstreams/api/explode", *BY_HAND, method="POST")).status == 404
    assert done == []


async def test_reasons_are_given_by_name(start: Start) -> None:
    def explain(name: str) -> dict[str, Any]:
        return {"name": name} if name == "my api" else _unexplained(name)

    port = await start(admin_app(dict, _nobody, explain))
    answer = await _ask(port, "/explain/my%20api")
    assert (answer.status, answer.json) == (200, {"name": "my api"})
    assert answer.fields["cache-control"] == "no-store"
    answer = await _ask(port, "/explain/nobody")
    assert (answer.status, answer.json["error"]) == (404, "no upstream is called 'nobody'")


@pytest.mark.parametrize("query", ["endpont=a:1", "endpoint=a:1&endpoint=b:2", "x"])
async def test_a_slip_in_the_query_does_not_mean_all(start: Start, query: str) -> None:
    done: list[str] = []

    def control(action: str, _name: str, _address: str | None) -> list[str]:
        done.append(action)
        return []

    port = await start(admin_app(dict, control, _unexplained))
    answer = await _ask(port, f"/upstreams/api/trip?{query}", *BY_HAND, method="POST")
    assert (answer.status, done) == (400, [])
    assert "endpoint=HOST:PORT" in answer.json["error"]


# Reloads


async def test_a_reload_is_answered_with_what_came_of_it(start: Start) -> None:
    answers = [
        (200, {"result": "reloaded", "changes": ["api: timeout"]}),
        (422, {"error": "not reloaded", "status": 422, "findings": ["a.yml:1: wrong"]}),
    ]

    async def reload() -> tuple[int, dict[str, Any]]:
        return answers[len(asked)]

    asked: list[Answer] = []
    port = await start(admin_app(dict, _nobody, _unexplained, reload=reload))
    for status, document in answers:
        answer = await _ask(port, "/reload", *BY_HAND, method="POST")
        asked.append(answer)
        assert (answer.status, answer.json) == (status, document)


async def test_a_reload_is_nothing_for_a_page_in_a_browser(start: Start) -> None:
    async def reload() -> tuple[int, dict[str, Any]]:
        raise AssertionError("it was not asked by hand")

    port = await start(admin_app(dict, _nobody, _unexplained, reload=reload))
    answer = await _ask(port, "/reload", "Host: localhost", "Content-Length: 0", method="POST")
    assert (answer.status, "X-Sidecar-Control" in answer.json["error"]) == (403, True)
    assert (await _ask(port, "/reload", *BY_HAND)).status == 405
    assert (await _ask(port, "/reload", "Host: evil.example", *BY_HAND[1:], method="POST")).status == 403


async def test_who_is_there_is_answered_when_nobody_else_is_let_in() -> None:
    server = AdminServer(_metrics())
    port = await listen(server)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with asyncio.timeout(5):
        assert b"200 OK" in await reader.readuntil(b"live\n")
        server.stop_listening()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in await reader.readuntil(b"live\n")
    await server.stop()
    writer.close()
