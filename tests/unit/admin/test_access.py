"""Who may ask at the admin address: by loopback without a token, with one whoever has it."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from support.clock import FakeClock
from support.http import Answer

from sidecar.admin import access as access_module
from sidecar.admin import server as server_module
from sidecar.admin.access import Access
from sidecar.admin.api import admin_app
from sidecar.admin.bind import bind
from sidecar.admin.server import AdminServer
from sidecar.config.settings import SidecarSettings
from sidecar.model import AdminCounts

TOKEN = "s3cret-token"
BEARER = f"Authorization: Bearer {TOKEN}"
ACT = ("X-Sidecar-Control: 1", "Content-Length: 0")


class Admin:
    """An admin server of which everything may be asked. settings: what it goes by now."""

    def __init__(self) -> None:
        self.settings = SidecarSettings()
        self.environ: dict[str, str] = {}
        self.clock = FakeClock()
        self.counts = AdminCounts()
        self.done: list[str] = []
        self.port = 0
        self.held = 0  # requests that have waited for `go_on`
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def start(self, host: str = "127.0.0.1") -> None:
        async def reload() -> tuple[int, dict[str, Any]]:
            self.done.append("reload")
            return 200, {"result": "unchanged", "changes": []}

        async def page(_request: web.Request, *_: Any) -> web.Response:
            return web.Response(text="page")

        def control(action: str, name: str, address: str | None) -> list[str]:
            self.done.append(action)
            return [address or "a:1", *["b:2"] * 24]

        async def refresh() -> None:
            self.held += 1
            await self.go_on.wait()

        app = admin_app(
            dict,
            control,
            lambda name: {"name": name},
            refresh,
            reload=reload,
            upstream=lambda name: {"name": name},
            config=dict,
            finish=lambda: self.done.append("quit"),
            in_flight=lambda: 3,
            access=Access(lambda: self.settings, self.clock, self.counts, self.environ),
            events=SimpleNamespace(stream=page, history=page),  # type: ignore[arg-type] # what is asked of it
        )
        self.server = AdminServer(app, self.counts)
        sockets = await bind(host, 0, "admin")
        self.port = sockets[0].getsockname()[1]
        await self.server.start(sockets)

    async def ask(
        self,
        path: str,
        *lines: str,
        method: str = "GET",
        host: str = "localhost",
        address: str = "127.0.0.1",
    ) -> Answer:
        reader, writer = await asyncio.open_connection(address, self.port)
        head = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", *lines, "", ""]
        writer.write("\r\n".join(head).encode())
        raw = await reader.read()
        writer.close()
        await writer.wait_closed()
        return Answer(raw)

    def has(self, **settings: Any) -> None:
        self.settings = SidecarSettings(**settings)


async def until(look: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not look():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.001)


@pytest_asyncio.fixture
async def admin() -> AsyncIterator[Admin]:
    made = Admin()
    await made.start()
    yield made
    await made.server.stop()


class TokenFile:
    """The file of a token, as somebody changes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.write(TOKEN + "\n")

    def write(self, text: str) -> None:
        self.path.write_text(text)

    def remove(self) -> None:
        self.path.unlink()


@pytest.fixture
def token(admin: Admin, tmp_path: Path) -> TokenFile:
    """One that is configured."""
    file = TokenFile(tmp_path / "token")
    admin.has(admin_token_file=str(file.path))
    return file


CALLS = [
    ("GET", "/v1/upstreams"),
    ("GET", "/v1/upstreams/api"),
    ("GET", "/v1/explain/api"),
    ("GET", "/v1/config"),
    ("GET", "/v1/history"),
    ("POST", "/v1/upstreams/api/drain"),
    ("POST", "/v1/reload"),
    ("GET", "/upstreams"),
    ("GET", "/explain/api"),
    ("POST", "/upstreams/api/trip"),
    ("POST", "/reload"),
]


@pytest.mark.parametrize(("method", "path"), CALLS)
async def test_every_call_takes_the_token(admin: Admin, token: TokenFile, method: str, path: str) -> None:
    act = ACT if method == "POST" else ()
    answer = await admin.ask(path, *act, method=method)
    assert answer.status == 401
    assert answer.fields["www-authenticate"] == 'Bearer realm="sidecar"'
    assert b"Authorization: Bearer TOKEN" in answer.body
    assert answer.fields["cache-control"] == "no-store"
    assert admin.done == []
    assert (await admin.ask(path, BEARER, *act, method=method)).status == 200


@pytest.mark.parametrize("path", ["/", "/openapi.json", "/assets/page.js"])
async def test_what_shows_nothing_of_it_needs_none(admin: Admin, token: TokenFile, path: str) -> None:
    assert (await admin.ask(path)).status == 200
    assert (await admin.ask(path, host="ops.example")).status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/assets",
        "/assets/../v1/upstreams",
        "/assets/%2e%2e/v1/upstreams",
        "//v1/upstreams",
        "/v1/upstreams/",
    ],
)
async def test_no_spelling_of_a_path_goes_around_it(admin: Admin, token: TokenFile, path: str) -> None:
    assert (await admin.ask(path)).status == 401


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("Authorization: Bearer wrong", True),
        (f"Authorization: Bearer {TOKEN}x", True),
        (f"Authorization: Basic {TOKEN}", False),
        (f"Authorization: {TOKEN}", False),
        ("Authorization: Bearer", False),
        ("Authorization: Bearer \xe9", True),
        (f"X-Authorization: Bearer {TOKEN}", False),
        (f"{BEARER}\r\n{BEARER}", False),
    ],
)
async def test_another_token_is_none(admin: Admin, token: TokenFile, line: str, error: bool) -> None:
    answer = await admin.ask("/v1/upstreams", line)
    assert answer.status == 401
    assert ('error="invalid_token"' in answer.fields["www-authenticate"]) is error
    assert TOKEN.encode() not in answer.body


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer  "])
async def test_the_scheme_is_of_any_case(admin: Admin, token: TokenFile, scheme: str) -> None:
    assert (await admin.ask("/v1/upstreams", f"Authorization: {scheme} {TOKEN}")).status == 200


async def test_nobody_puts_it_into_an_address(admin: Admin, token: TokenFile) -> None:
    assert (await admin.ask(f"/v1/upstreams?access_token={TOKEN}")).status == 401


async def test_with_a_token_it_may_have_a_name(admin: Admin, token: TokenFile) -> None:
    assert (await admin.ask("/v1/upstreams", BEARER, host="sidecar.example")).status == 200
    admin.has()
    assert (await admin.ask("/v1/upstreams", BEARER, host="sidecar.example")).status == 403


async def test_a_token_comes_goes_and_changes_while_it_runs(admin: Admin, token: TokenFile) -> None:
    token.write("another")
    assert (await admin.ask("/v1/upstreams", BEARER)).status == 401
    assert (await admin.ask("/v1/upstreams", "Authorization: Bearer another")).status == 200
    admin.has(admin_token_env="ADMIN_TOKEN")
    admin.environ["ADMIN_TOKEN"] = "third"
    assert (await admin.ask("/v1/upstreams", "Authorization: Bearer third")).status == 200
    admin.has()
    assert (await admin.ask("/v1/upstreams")).status == 200


async def test_a_token_that_cannot_be_read_lets_nobody_in(
    admin: Admin, token: TokenFile, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sidecar.admin")
    token.remove()
    for _ in range(3):
        answer = await admin.ask("/v1/upstreams", BEARER)
        assert (answer.status, b"no such file" in answer.body) == (503, True)
    token.write("")
    assert (await admin.ask("/v1/upstreams", "Authorization: Bearer ")).status == 503
    token.write(TOKEN)
    assert (await admin.ask("/v1/upstreams", BEARER)).status == 200
    assert [message.partition(": ")[0] for message in caplog.messages] == [
        "the admin API lets nobody in",
        "the admin API lets nobody in",
        "the admin API's token can be read again",
    ]
    admin.has(admin_token_env="NOT_SET")
    assert (await admin.ask("/v1/upstreams", BEARER)).status == 503


@pytest.mark.parametrize("kept", ["two words", "two\twords", "trailing ", "two\nlines", " "])
async def test_a_token_that_nobody_could_send_is_told_from_a_wrong_one(
    admin: Admin, token: TokenFile, kept: str
) -> None:
    token.write(kept + "\n")
    sent = " ".join(kept.splitlines()).strip()
    answer = await admin.ask("/v1/upstreams", f"Authorization: Bearer {sent}")
    assert (answer.status, b"holds a space or a control character" in answer.body) == (503, True)


async def test_guesses_are_counted_and_logged_once_a_second(
    admin: Admin, token: TokenFile, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(4):
        await admin.ask("/v1/upstreams", "Authorization: Bearer a-guess")
    assert admin.counts.denied == 4
    (first,) = caplog.messages
    assert first.startswith("refused to 127.0.0.1:")
    assert first.endswith(": GET /v1/upstreams: a wrong token")
    admin.clock.now += access_module.PAUSE
    await admin.ask("/v1/upstreams")
    assert caplog.messages[1].endswith(": no token; left out before it: 3")
    assert "a-guess" not in caplog.text
    assert admin.counts.by_class[4] == 5


@pytest.mark.parametrize(
    ("own", "fine"), [("127.0.0.1", True), ("::1", True), ("fe80::1%eth0", False), ("10.0.0.5", False)]
)
def test_without_a_token_it_is_for_loopback_connections_alone(own: str, fine: bool) -> None:
    """As after a reload that took the token away: the socket stays where it is."""
    transport = Mock()
    transport.get_extra_info = lambda name: (own if name == "sockname" else "10.0.0.9", 9901)
    request = make_mocked_request("GET", "/", {"Host": "10.0.0.5:9901"}, transport=transport)
    if fine:
        Access(SidecarSettings).let_in(request)
        return
    with pytest.raises(web.HTTPForbidden) as raised:
        Access(SidecarSettings).let_in(request)
    assert "set admin_token_file or admin_token_env" in raised.value.reason
    Access(lambda: SidecarSettings(admin_token_env="T"), environ={"T": "x"}).let_in(request)


# Other sites' pages


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "http://localhost",
        "http://localhost:1",
        "http://[",
        "",
        "localhost:PORT",
    ],
)
async def test_a_page_of_another_site_is_refused_whatever_it_sends(admin: Admin, origin: str) -> None:
    origin = origin.replace("PORT", str(admin.port))
    host = f"localhost:{admin.port}"
    answer = await admin.ask("/v1/upstreams/api/trip", f"Origin: {origin}", *ACT, method="POST", host=host)
    assert (answer.status, admin.done) == (403, [])
    assert (await admin.ask("/v1/upstreams", f"Origin: {origin}", host=host)).status == 403


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_its_own_page_may_act(admin: Admin, scheme: str) -> None:
    host = f"localhost:{admin.port}"
    fields = (f"Origin: {scheme}://LOCALHOST:{admin.port}", "Sec-Fetch-Site: same-origin", *ACT)
    answer = await admin.ask("/v1/upstreams/api/trip", *fields, method="POST", host=host)
    assert (answer.status, admin.done) == (200, ["trip"])


@pytest.mark.parametrize(
    ("site", "what", "status"),
    [
        ("cross-site", "image", 403),
        ("same-site", "empty", 403),
        ("cross-site", "iframe", 403),
        ("cross-site", "document", 200),
        ("same-origin", "empty", 200),
        ("none", "document", 200),
    ],
)
async def test_an_image_of_another_site_is_refused_and_a_link_is_not(
    admin: Admin, site: str, what: str, status: int
) -> None:
    fields = (f"Sec-Fetch-Site: {site}", f"Sec-Fetch-Dest: {what}")
    assert (await admin.ask("/v1/upstreams", *fields)).status == status


async def test_no_answer_allows_another_site_anything(admin: Admin, token: TokenFile) -> None:
    asked = (
        "Origin: http://evil.example",
        "Access-Control-Request-Method: POST",
        "Access-Control-Request-Headers: authorization, x-sidecar-control",
    )
    for method, path in (
        ("OPTIONS", "/v1/reload"),
        ("OPTIONS", "/"),
        ("GET", "/"),
        ("GET", "/openapi.json"),
        *CALLS,
    ):
        for lines in ((*asked, BEARER, *ACT), (BEARER, *ACT), ()):
            answer = await admin.ask(path, *lines, method=method)
            assert not [name for name in answer.fields if name.startswith("access-control")]
            assert answer.fields["x-content-type-options"] == "nosniff"


# What changes something


@pytest.mark.parametrize("path", ["/v1/upstreams/api/drain", "/upstreams/api/enable", "/v1/reload"])
async def test_a_read_only_sidecar_does_nothing(admin: Admin, path: str) -> None:
    admin.has(admin_read_only=True)
    answer = await admin.ask(path, *ACT, method="POST")
    assert (answer.status, b"admin_read_only" in answer.body, admin.done) == (403, True, [])
    assert (await admin.ask("/v1/upstreams")).status == 200
    admin.has()
    assert (await admin.ask(path, *ACT, method="POST")).status == 200


async def test_what_is_done_is_logged_with_who_asked(
    admin: Admin, token: TokenFile, caplog: pytest.LogCaptureFixture
) -> None:
    await admin.ask("/v1/upstreams/api/drain?endpoint=a:1", BEARER, *ACT, method="POST")
    await admin.ask("/v1/reload", BEARER, *ACT, method="POST")
    done, reload = caplog.messages
    assert done.startswith("api: drain, asked for by 127.0.0.1:")
    assert done.endswith("b:2 and 5 more")
    assert ": done to a:1, b:2, " in done
    assert reload.startswith("reload, asked for by 127.0.0.1:")
    assert reload.endswith(": unchanged")
    await admin.ask("/v1/upstreams/api/drain?endpint=a:1", BEARER, *ACT, method="POST")
    assert caplog.messages[2].startswith("drain, asked for by 127.0.0.1:")
    assert ": not done: the query may be one endpoint=HOST:PORT" in caplog.messages[2]
    assert TOKEN not in caplog.text


@pytest.mark.parametrize(("method", "path"), [call for call in CALLS if call[0] == "GET"])
async def test_head_is_a_get_without_its_body(admin: Admin, method: str, path: str) -> None:
    got, head = await admin.ask(path), await admin.ask(path, method="HEAD")
    assert (head.status, head.body, head.fields["content-length"]) == (200, b"", str(len(got.body)))


async def test_a_head_too_large_is_refused(admin: Admin) -> None:
    assert (await admin.ask("/v1/upstreams", f"X-Long: {'x' * 9000}")).status == 400
    assert (await admin.ask(f"/v1/upstreams?{'x' * 9000}")).status == 400


@pytest.mark.every_loop
async def test_connections_are_bounded(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_CLIENTS", 2)
    wrong: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: wrong.append(context))
    kept = [await asyncio.open_connection("127.0.0.1", admin.port) for _ in range(2)]
    reader, writer = await asyncio.open_connection("127.0.0.1", admin.port)
    try:
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(5):
                assert await reader.read() == b""
        assert (admin.counts.refused, wrong) == (1, [])
    finally:
        for _, one in (*kept, (reader, writer)):
            one.close()
            await asyncio.gather(one.wait_closed(), return_exceptions=True)


async def test_connections_are_bounded_also_when_they_come_at_once(
    admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "MAX_CLIENTS", 2)
    # Without a turn of the loop in between.
    burst = [socket.create_connection(("127.0.0.1", admin.port), 5) for _ in range(6)]
    streams = [await asyncio.open_connection(sock=one) for one in burst]

    async def is_over(reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""

    async with asyncio.timeout(5):
        await asyncio.gather(*(is_over(reader) for reader, _ in streams[2:]))
    assert admin.counts.refused == 4
    streams[0][1].write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await streams[0][0].readline()).startswith(b"HTTP/1.1 200")
    for _, one in streams:
        one.close()
        await asyncio.gather(one.wait_closed(), return_exceptions=True)


async def test_a_connection_that_says_nothing_is_closed_and_one_that_asks_is_not(
    admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "FIRST_REQUEST", 0.05)
    silent, slow, kept = [await asyncio.open_connection("127.0.0.1", admin.port) for _ in range(3)]
    slow[1].write(b"GET / HTTP/1.1\r\nHost: loc")
    kept[1].write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with asyncio.timeout(5):
        assert (await kept[0].readline()).startswith(b"HTTP/1.1 200")
        assert (await silent[0].read(), await slow[0].read()) == (b"", b"")
    kept[1].write(b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    async with asyncio.timeout(5):
        assert b"HTTP/1.1 404" in await kept[0].read()
    for _, one in (silent, slow, kept):
        one.close()
        await asyncio.gather(one.wait_closed(), return_exceptions=True)


# The end


async def test_a_plain_post_by_loopback_ends_it(admin: Admin) -> None:
    answer = await admin.ask("/quitquitquit", "Content-Length: 0", method="POST")
    assert (answer.status, answer.json) == (200, {"result": "ending", "in_flight": 3})
    assert admin.done == ["quit"]
    assert (await admin.ask("/quitquitquit")).status == 405


@pytest.mark.parametrize(
    ("line", "host"),
    [
        ("Origin: https://example.com", "localhost"),
        ("Origin: null", "localhost"),
        ("Sec-Fetch-Site: cross-site", "localhost"),
        # A form that is sent in a page's place, by a browser that leaves the Origin out.
        ("Sec-Fetch-Site: cross-site\r\nSec-Fetch-Dest: document", "localhost"),
        ("Accept: */*", "rebound.example"),
    ],
)
async def test_no_page_of_another_site_ends_it(admin: Admin, line: str, host: str) -> None:
    answer = await admin.ask("/quitquitquit", line, "Content-Length: 0", method="POST", host=host)
    assert (answer.status, admin.done) == (403, [])


async def test_with_a_token_it_ends_for_who_has_it_at_a_loopback_address(admin: Admin) -> None:
    admin.environ["TOKEN"] = TOKEN
    admin.has(admin_token_env="TOKEN")
    assert (await admin.ask("/quitquitquit", "Content-Length: 0", method="POST")).status == 401
    assert admin.done == []
    assert (await admin.ask("/quitquitquit", "Content-Length: 0", BEARER, method="POST")).status == 200
    assert admin.done == ["quit"]


async def test_from_elsewhere_nobody_ends_it(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    admin.environ["TOKEN"] = TOKEN
    admin.has(admin_token_env="TOKEN")
    monkeypatch.setattr(access_module, "_came_by_loopback", lambda _request: False)
    answer = await admin.ask("/quitquitquit", "Content-Length: 0", BEARER, method="POST")
    assert (answer.status, admin.done) == (403, [])
    assert answer.json["error"] == "only who asks at a loopback address may end it"


async def test_who_has_left_meanwhile_ends_it_all_the_same(
    admin: Admin, caplog: pytest.LogCaptureFixture
) -> None:
    admin.go_on.clear()
    _, writer = await asyncio.open_connection("127.0.0.1", admin.port)
    writer.write(b"POST /quitquitquit HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
    await until(lambda: admin.held)
    writer.close()
    await writer.wait_closed()
    await until(lambda: not admin.server._open)
    admin.go_on.set()
    await until(lambda: admin.done)
    assert admin.done == ["quit"]
    assert [record for record in caplog.records if record.exc_info] == []


@pytest.mark.parametrize(
    ("remote", "local"), [("127.0.0.1", True), ("::1", True), ("192.0.2.1", False), (None, False)]
)
def test_leaving_is_no_way_in(remote: str | None, local: bool) -> None:
    left = SimpleNamespace(transport=None, remote=remote)
    assert access_module._came_by_loopback(left) is local  # type: ignore[arg-type] # what is asked of it


async def test_what_is_only_to_be_looked_at_is_not_ended(admin: Admin) -> None:
    admin.has(admin_read_only=True)
    answer = await admin.ask("/quitquitquit", "Content-Length: 0", method="POST")
    assert (answer.status, admin.done) == (403, [])
    assert "admin_read_only" in answer.json["error"]
