"""The etcd source at members that answer badly, late or not at all."""

import asyncio
import json
import socket
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from support.clock import FakeClock
from support.ports import free_port

from sidecar.config.settings import Address, HealthSettings, RegistrationSettings, RegistrySettings
from sidecar.errors import SourceError
from sidecar.model import Endpoint
from sidecar.registry.sources import etcd_entries, etcd_watch, http
from sidecar.registry.sources.etcd import EtcdSource
from sidecar.registry.sources.etcd_gateway import Gateway, to_base64
from sidecar.registry.sources.source import Surroundings, Wanted

BOUND = 20.0  # seconds for what takes milliseconds
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def reply(answer: object, status: int = 200) -> web.Response:
    """A text as it is, else JSON."""
    return web.Response(text=answer if isinstance(answer, str) else json.dumps(answer), status=status)


class Member:
    """A member as it should be, which has one endpoint in every service, until a test says otherwise.

    asked: (path, message, Authorization) of every question, in order; of a watch a list of messages.
    answers: by path, in place of the usual answer. confirms: whether it confirms a watch. said: lines of a
    watch behind the confirmations; None ends the stream.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.asked: list[tuple[str, Any, str | None]] = []
        self.answers: dict[str, Answer] = {}
        self.confirms: Callable[[int, int], bool] = lambda body, position: True
        self.said: asyncio.Queue[str | None] = asyncio.Queue()
        self.watching = asyncio.Event()
        self.bodies = 0
        self.hung = asyncio.Event()

    @property
    def paths(self) -> list[str]:
        return [path for path, _, _ in self.asked]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.text()
        parts = [json.loads(line) for line in body.splitlines() if line.strip()]
        message = parts if request.path == "/v3/watch" else parts[0]
        self.asked.append((request.path, message, request.headers.get("Authorization")))
        if request.path in self.answers:
            return await self.answers[request.path](request)
        if request.path == "/v3/watch":
            return await self.watch(request, parts)
        if request.path == "/v3/kv/range":
            return reply(self.range(message))
        raise web.HTTPNotFound

    def range(self, message: dict[str, Any]) -> dict[str, Any]:
        kv = {
            "key": to_base64(b64decode(message["key"]).decode() + "1"),
            "value": to_base64(f"10.0.0.1:{self.port}"),
            "create_revision": "5",
            "mod_revision": "5",
        }
        return {"header": {"revision": "7"}, "count": "1"} | (
            {} if "count_only" in message else {"kvs": [kv]}
        )

    async def watch(self, request: web.Request, parts: list[dict[str, Any]]) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        body, self.bodies = self.bodies, self.bodies + 1
        for position, part in enumerate(parts):
            if self.confirms(body, position):
                identity = part["create_request"]["watch_id"]
                await response.write(line({"watch_id": identity, "created": True}))
        self.watching.set()
        while (said := await self.said.get()) is not None:
            await response.write(said.encode())
        return response

    async def hang(self, request: web.Request) -> web.StreamResponse:
        """Say nothing until the client is gone."""
        self.hung.set()
        await asyncio.Event().wait()
        raise AssertionError


def line(result: dict[str, Any]) -> bytes:
    return json.dumps({"result": {"header": {"revision": "8"}} | result}).encode() + b"\n"


def change(identity: int, name: str, value: str, at: int) -> str:
    kv = {"key": to_base64(name), "value": to_base64(value), "mod_revision": str(at), "create_revision": "5"}
    return line({"watch_id": str(identity), "events": [{"kv": kv}]}).decode()


@asynccontextmanager
async def serving(*members: Member) -> AsyncIterator[None]:
    runners = []
    try:
        for member in members:
            app = web.Application()
            app.router.add_post("/{path:.*}", member.handle)
            runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
            await runner.setup()
            runners.append(runner)
            await web.TCPSite(runner, "127.0.0.1", member.port).start()
        yield
    finally:
        for runner in runners:
            await runner.cleanup()


@pytest.fixture
async def member() -> AsyncIterator[Member]:
    one = Member()
    async with serving(one):
        yield one


async def _resolve(host: str, port: int) -> list[Any]:
    raise OSError(f"nobody looks up {host}")


def settings_of(*members: Member, **others: Any) -> RegistrySettings:
    hosts = tuple(Address("127.0.0.1", member.port) for member in members)
    return RegistrySettings("etcd", "etcd", hosts, **others)


def surroundings(environ: dict[str, str] | None = None) -> Surroundings:
    return Surroundings(FakeClock(), environ or {}, _resolve)


def source_of(*members: Member, environ: dict[str, str] | None = None, **others: Any) -> EtcdSource:
    return EtcdSource(settings_of(*members, **others), surroundings(environ))


@asynccontextmanager
async def watching(source: EtcdSource, *services: str) -> AsyncIterator[Any]:
    stream = source.watch([Wanted(name, name) for name in services or ("api",)])
    try:
        async with asyncio.timeout(BOUND):
            yield stream
    finally:
        await stream.aclose()


async def failure(stream: Any) -> str:
    """How it ends, whatever it says before; one line."""
    with pytest.raises(SourceError) as raised:
        await _to_its_end(stream)
    assert "\n" not in str(raised.value)
    return str(raised.value)


async def _to_its_end(stream: Any) -> None:
    async for _ in stream:
        pass


def at(member: Member) -> tuple[Endpoint, ...]:
    """What it says of every service."""
    return (Endpoint("10.0.0.1", member.port),)


# Questions


async def test_each_service_is_listed_and_all_are_watched_in_one_stream(member: Member) -> None:
    async with watching(source_of(member), "api", "redis") as stream:
        assert (await anext(stream)).endpoints == at(member)
        assert (await anext(stream)).upstream == "redis"
        waiting = asyncio.create_task(anext(stream))
        await member.watching.wait()
        member.said.put_nowait(change(2, "/services/redis/1", "10.0.0.9:1", 9))
        assert (await waiting).endpoints == (Endpoint("10.0.0.9", 1),)
    ranges = [message for path, message, _ in member.asked if path == "/v3/kv/range"]
    assert [(b64decode(one["key"]), b64decode(one["range_end"])) for one in ranges] == [
        (b"/services/api/", b"/services/api0"),
        (b"/services/redis/", b"/services/redis0"),
    ]
    assert all("serializable" not in one for one in ranges)
    (creates,) = [message for path, message, _ in member.asked if path == "/v3/watch"]
    assert [one["create_request"]["start_revision"] for one in creates] == ["8", "8"]


async def test_what_is_known_at_once_is_taken_over_with_turns_of_the_loop_between(member: Member) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    names = [f"s{number}" for number in range(20)]
    async with watching(source_of(member), *names) as stream:
        await anext(stream)
        counting = asyncio.create_task(count())
        for _ in names[1:]:
            await anext(stream)
        counting.cancel()
    assert turns >= 18


async def test_two_upstreams_of_one_service_are_one_watch(member: Member) -> None:
    source = source_of(member)
    stream = source.watch([Wanted("a", "api"), Wanted("b", "api")])
    async with asyncio.timeout(BOUND):
        assert [(await anext(stream)).upstream, (await anext(stream)).upstream] == ["a", "b"]
    assert member.paths == ["/v3/kv/range"]
    await stream.aclose()


async def test_no_hosts() -> None:
    async with watching(source_of()) as stream:
        assert await failure(stream) == "etcd: it has no hosts; name those of etcd"


@pytest.mark.every_loop
async def test_the_kernel_probes_a_watch_s_connection(member: Member) -> None:
    async with (
        Gateway(settings_of(member), surroundings()) as gateway,
        gateway.stream(gateway.members[0], "/v3/watch", b"") as response,
    ):
        assert response.connection is not None
        sock = response.connection.transport.get_extra_info("socket")  # type: ignore[union-attr]
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 5
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 5
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 2


# Bad answers


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        ("nonsense", 200, "the answer is no JSON"),
        ("[]", 200, "the answer is no object"),
        ('{"header": {}, "kvs": 5}', 200, "the listing of /services/api/ is none"),
        ('{"error": "etcdserver: no leader", "code": 14}', 503, "/v3/kv/range: etcdserver: no leader"),
        (
            '{"code": 14, "message": "etcdserver: no leader", "details": []}',
            503,
            "range: etcdserver: no leader",
        ),
        ("404 page not found", 404, "status 404: 404 page not found (it takes etcd 3.4 or later"),
        ('{"error": "", "code": 14}', 503, "/v3/kv/range: status 503: "),
        ('{"error": {}, "code": 14}', 500, "/v3/kv/range: status 500"),
        ('{"error": ["x"], "code": "y"}', 500, "/v3/kv/range: status 500"),
        ("<html>\n<p>Bad\nGateway", 502, "/v3/kv/range: status 502: <html> <p>Bad Gateway"),
        ("[" * 4096, 500, "/v3/kv/range: status 500: [[["),
        ("x" * 100000, 404, "/v3/kv/range: status 404: xxx"),
        ("", 301, "/v3/kv/range: status 301"),
    ],
)
async def test_a_listing_that_cannot_be_used(member: Member, answer: str, status: int, words: str) -> None:
    async def bad(request: web.Request) -> web.Response:
        return reply(answer, status)

    member.answers["/v3/kv/range"] = bad
    async with watching(source_of(member)) as stream:
        said = await failure(stream)
    assert words in said
    assert len(said) < 300


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("nonsense\n", "a line of the stream is no JSON"),
        ("[" * 5000 + "\n", "a line of the stream is no JSON"),
        ("[]\n", "the answer is no object"),
        ("{}\n", "a line of the stream has no result"),
        ('{"error": {"grpc_code": 14, "message": "etcdserver:\\n no leader"}}\n', "etcdserver: no leader"),
        ('{"error": {"code": 14, "message": "etcdserver: no leader"}}\n', "etcdserver: no leader"),
        ('{"result": {"canceled": true}}\n', "cancelled: no reason given"),
        ('{"result": {"canceled": true, "cancel_reason": "for\\nfun"}}\n', "cancelled: for fun"),
        ('{"result": {"watch_id": "x"}}\n', "watch_id in an answer is no number"),
        (
            '{"result": {"watch_id": "1", "events": [{"kv": {"mod_revision": []}}]}}\n',
            "mod_revision in an answer",
        ),
        (None, "/v3/watch: the stream has ended"),
        ("x" * 2000, "a line is longer than 1500 bytes"),
    ],
)
async def test_a_watch_that_cannot_be_used(
    member: Member, monkeypatch: pytest.MonkeyPatch, said: str | None, words: str
) -> None:
    if words.startswith("a line is longer"):
        monkeypatch.setattr(http, "MAX_ANSWER", 1500)
    member.said.put_nowait(said)
    async with watching(source_of(member)) as stream:
        assert (await anext(stream)).endpoints == at(member)
        assert words in await failure(stream)


async def test_lines_that_say_nothing_of_ours_are_passed_over(member: Member) -> None:
    member.said.put_nowait(
        '\n{"result": {"watch_id": "-1"}}\n{"result": {"watch_id": "77", "events": [5]}}\n'
    )
    member.said.put_nowait('{"result": {"watch_id": "1"}}\n')
    member.said.put_nowait(change(1, "/services/api/1", "10.0.0.9:1", 9))
    async with watching(source_of(member)) as stream:
        assert (await anext(stream)).endpoints == at(member)
        assert (await anext(stream)).endpoints == (Endpoint("10.0.0.9", 1),)


async def test_those_for_which_there_was_no_room_are_listed_once_there_is(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(etcd_entries, "MAX_ENDPOINTS", 2)
    listings = iter((["1", "2"], ["2", "3"]))  # of three, then of the two that are left

    async def listing(request: web.Request) -> web.Response:
        whole = member.range({"key": json.loads(await request.text())["key"]})
        kvs = [
            whole["kvs"][0]
            | {"key": to_base64(f"/services/api/{port}"), "value": to_base64(f"10.0.0.1:{port}")}
            for port in next(listings)
        ]
        return reply(whole | {"kvs": kvs, "count": "3"})

    member.answers["/v3/kv/range"] = listing
    gone = {"key": to_base64("/services/api/1"), "mod_revision": "9"}
    member.said.put_nowait(line({"watch_id": "1", "events": [{"type": "DELETE", "kv": gone}]}).decode())
    async with watching(source_of(member)) as stream:
        assert [endpoint.port for endpoint in (await anext(stream)).endpoints] == [1, 2]
        assert [endpoint.port for endpoint in (await anext(stream)).endpoints] == [2, 3]


async def test_what_changes_all_the_time_is_told_now_and_then(member: Member) -> None:
    changes = 500
    async with watching(source_of(member)) as stream:
        assert (await anext(stream)).endpoints == at(member)
        member.said.put_nowait(
            "".join(
                change(1, "/services/api/1", f"10.0.0.9:{number}", 8 + number)
                for number in range(1, changes + 1)
            )
        )
        told = [(await anext(stream)).endpoints]
        while told[-1][0].port != changes:
            told.append((await anext(stream)).endpoints)
    assert len(told) < 20, "not a snapshot of each"


async def test_what_was_said_before_a_watch_breaks_is_told(member: Member) -> None:
    async with watching(source_of(member)) as stream:
        assert (await anext(stream)).endpoints == at(member)
        said = [change(1, "/services/api/1", f"10.0.0.9:{port}", 8 + port) for port in (1, 2)]
        member.said.put_nowait(said[0])
        assert (await anext(stream)).endpoints == (Endpoint("10.0.0.9", 1),)
        member.said.put_nowait(f"{said[1]}no JSON\n")  # while what changed before is digested
        assert (await anext(stream)).endpoints == (Endpoint("10.0.0.9", 2),)
        assert "a line of the stream is no JSON" in await failure(stream)


async def test_watches_that_the_gateway_has_lost_are_asked_for_again(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(etcd_watch, "CONFIRMED_WITHIN", 0.05)
    member.confirms = lambda body, position: position < 2
    names = ("a", "b", "c", "d", "e")
    async with watching(source_of(member), *names) as stream:
        for _ in names:
            await anext(stream)
        waiting = asyncio.create_task(anext(stream))
        while member.paths.count("/v3/watch") < 3:
            member.watching.clear()
            await member.watching.wait()
        member.said.put_nowait(change(5, "/services/e/1", "10.0.0.9:1", 9))
        assert (await waiting).endpoints == (Endpoint("10.0.0.9", 1),)
    asked = [
        [one["create_request"]["watch_id"] for one in message]
        for path, message, _ in member.asked
        if path == "/v3/watch"
    ]
    assert asked == [["1", "2", "3", "4", "5"], ["3", "4", "5"], ["5"]]


async def test_a_watch_that_is_never_confirmed_is_an_error(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(etcd_watch, "CONFIRMED_WITHIN", 0.01)
    member.confirms = lambda body, position: False
    async with watching(source_of(member)) as stream:
        assert "/v3/watch: a watch of /services/api/ is not set up" in await failure(stream)
    assert member.bodies == etcd_watch.MAX_FRUITLESS


async def test_requests_for_many_are_several_bodies(member: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etcd_watch, "MAX_REQUESTS", 300)
    names = [f"s{number}" for number in range(7)]
    async with watching(source_of(member), *names) as stream:
        for _ in names:
            await anext(stream)
        member.said.put_nowait(change(7, "/services/s6/1", "10.0.0.9:1", 9))
        assert (await anext(stream)).upstream == "s6"
    sizes = [len(message) for path, message, _ in member.asked if path == "/v3/watch"]
    assert sum(sizes) == 7
    assert max(sizes) == 2


# Members that fail


async def test_the_next_member_is_asked_at_once_and_first_the_next_time() -> None:
    gone, there = Member(), Member()
    async with serving(there):
        source = source_of(gone, there)
        async with watching(source) as stream:
            assert (await anext(stream)).endpoints == at(there)
        async with watching(source) as stream:
            assert (await anext(stream)).endpoints == at(there)
    assert there.paths.count("/v3/kv/range") == 2
    async with serving(gone), watching(source) as stream:
        assert (await anext(stream)).endpoints == at(gone)


async def test_each_member_is_asked_once_until_all_have_failed() -> None:
    members = [Member(), Member(), Member()]

    async def bad(request: web.Request) -> web.Response:
        return reply({"error": "etcdserver: no leader", "code": 14}, 503)

    for member in members[:2]:
        member.answers["/v3/kv/range"] = bad
    async with serving(*members[:2]), watching(source_of(*members)) as stream:
        said = await failure(stream)
    assert [member.paths for member in members] == [["/v3/kv/range"], ["/v3/kv/range"], []]
    assert [f"http://127.0.0.1:{member.port}/v3/kv/range: " in said for member in members] == [True] * 3


async def test_a_refusal_that_all_would_give_is_not_asked_for_again() -> None:
    first, second = Member(), Member()

    async def bad(request: web.Request) -> web.Response:
        return reply({"error": "etcdserver: permission denied", "code": 7}, 403)

    first.answers["/v3/kv/range"] = bad
    async with serving(first, second), watching(source_of(first, second)) as stream:
        assert "permission denied" in await failure(stream)
    assert second.asked == []


async def test_an_answer_that_breaks_off(member: Member) -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"{")
        assert request.transport is not None
        request.transport.abort()
        return response

    member.answers["/v3/kv/range"] = cut
    async with watching(source_of(member)) as stream:
        assert (await failure(stream)).endswith(f":{member.port}/v3/kv/range: the answer has broken off")


async def test_a_member_that_breaks_under_a_watch_is_followed_by_the_next() -> None:
    first, second = Member(), Member()
    async with serving(second), watching(source_of(first, second)) as stream:
        async with serving(first):
            assert (await anext(stream)).endpoints == at(first)
            waiting = asyncio.create_task(anext(stream))
            await first.watching.wait()
        assert (await waiting).endpoints == at(second)


async def test_a_look_makes_good_what_has_failed_before() -> None:
    """Members may break one after the other for ever, as long as each is well for a while."""
    first, second = Member(), Member()
    async with serving(first, second), watching(source_of(first, second, stale_after=0.15)) as stream:
        for member in (first, second, first, second, first):
            while (said := await anext(stream)) is not None:
                assert said.endpoints == at(member)
            member.said.put_nowait(None)


async def test_members_that_break_again_and_again_are_not_asked_for_ever() -> None:
    members = [Member(), Member()]
    for member in members:
        for _ in range(5):
            member.said.put_nowait(None)
    async with serving(*members), watching(source_of(*members)) as stream:
        assert "the stream has ended" in await failure(stream)
    assert [member.bodies for member in members] == [1, 1]


@pytest.mark.parametrize("path", ["/v3/kv/range", "/v3/watch", "/v3/auth/authenticate", ""])
@pytest.mark.parametrize("how", ["cancel", "close"])
async def test_whoever_leaves_leaves_nothing_open(member: Member, path: str, how: str) -> None:
    """In each phase; the fixtures look for tasks and descriptors."""
    member.answers[path] = member.hang
    user = {"username": "u", "password_env": "P"} if "auth" in path else {}
    stream = source_of(member, environ={"P": "secret"}, **user).watch([Wanted("api", "api")])
    async with asyncio.timeout(BOUND) as bound:
        if path in ("/v3/watch", ""):
            assert await anext(stream)
        if how == "cancel" or path not in ("/v3/watch", ""):  # what waits cannot be closed
            waiting = asyncio.create_task(anext(stream))
            await (member.hung if path else member.watching).wait()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        await stream.aclose()
    assert not bound.expired()


async def test_a_look_shows_that_the_member_is_there(member: Member) -> None:
    async with watching(source_of(member, stale_after=0.15)) as stream:
        assert (await anext(stream)).endpoints == at(member)
        for _ in range(3):
            assert await anext(stream) is None
    looks = [message for path, message, _ in member.asked if "count_only" in message]
    assert len(looks) == 3


async def test_a_watch_that_does_not_tell_of_what_is_gone_ends(member: Member) -> None:
    async def emptied(request: web.Request) -> web.Response:
        message = json.loads(await request.text())
        return reply({"header": {"revision": "9"}} if "count_only" in message else member.range(message))

    member.answers["/v3/kv/range"] = emptied
    async with watching(source_of(member, stale_after=0.15)) as stream:
        assert (await anext(stream)).endpoints == at(member)
        assert await anext(stream) is None  # the watch may be late
        assert "it does not tell what becomes of /services/api/" in await failure(stream)


# Users


OVER = ("etcdserver: invalid auth token", 16, 401)


def users(member: Member, *tokens: object, over: tuple[str, int, int] = OVER) -> None:
    """It asks for the first of the tokens, then for the second where that is asked for, and so on."""
    given = iter(tokens)
    valid: list[object] = []

    async def authenticate(request: web.Request) -> web.Response:
        valid.append(next(given))
        return reply({"token": valid[-1]})

    async def guarded(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != tokens[-1]:
            words, code, status = over
            return reply({"error": words, "code": code}, status)
        return reply(member.range(json.loads(await request.text())))

    member.answers |= {"/v3/auth/authenticate": authenticate, "/v3/kv/range": guarded}


@pytest.mark.parametrize(
    "over",
    [
        OVER,
        ("etcdserver: user name is empty", 3, 400),
        ("etcdserver: revision of auth store is old", 3, 400),
    ],
)
async def test_a_token_that_is_over_is_replaced_once(member: Member, over: tuple[str, int, int]) -> None:
    users(member, "old.1", "new.2", over=over)
    source = source_of(member, environ={"P": "secret"}, username="u", password_env="P")
    async with watching(source) as stream:
        assert (await anext(stream)).endpoints == at(member)
    assert member.paths[:4] == ["/v3/auth/authenticate", "/v3/kv/range"] * 2
    assert member.asked[0][1:] == ({"name": "u", "password": "secret"}, None)
    assert [token for path, _, token in member.asked if path == "/v3/kv/range"] == ["old.1", "new.2"]


async def test_tokens_that_are_never_good_are_asked_for_twice(member: Member) -> None:
    users(member, "old.1", "old.2", "never given")
    source = source_of(member, environ={"P": "secret"}, username="u", password_env="P")
    async with watching(source) as stream:
        said = await failure(stream)
    assert "invalid auth token" in said
    assert "secret" not in said
    assert "old" not in said
    assert len(member.asked) == 4


@pytest.mark.parametrize("token", ["", 5, None, "a\r\nX-Evil: b", "\u00e4"])
async def test_a_token_that_is_none(member: Member, token: object) -> None:
    users(member, token)
    source = source_of(member, environ={"P": "secret"}, username="u", password_env="P")
    async with watching(source) as stream:
        assert "the answer has no token" in await failure(stream)


# Announcing


SERVICE = RegistrationSettings("api", "etcd", "10.0.0.1", 8080, "here", HealthSettings())


@pytest.mark.parametrize(
    ("path", "answer", "words"),
    [
        ("/v3/lease/grant", "{}", "a lease that was granted has no ID"),
        ("/v3/lease/grant", "nonsense", "no JSON"),
        ("/v3/kv/range", '{"kvs": [5]}', ""),
        ("/v3/kv/range", '{"kvs": 5}', ""),
        ("/v3/lease/keepalive", '{"error": {"message": "etcdserver: no leader"}}', "no leader"),
        ("/v3/lease/keepalive", '{"result": {"TTL": "soon"}}', "TTL in an answer is no number"),
    ],
)
async def test_announcing_with_bad_answers(member: Member, path: str, answer: str, words: str) -> None:
    def saying(text: str) -> Answer:
        async def say(request: web.Request) -> web.Response:
            return reply(text)

        return say

    usual = {"/v3/lease/grant": '{"ID": "7"}', "/v3/kv/put": "{}", "/v3/lease/keepalive": "{}"}
    member.answers |= {name: saying(text) for name, text in usual.items()}
    source = source_of(member)
    if "keepalive" in path:
        await source.announce(SERVICE)
    member.answers[path] = saying(answer)
    if words:
        with pytest.raises(SourceError, match=words):
            await source.announce(SERVICE)
    else:
        await source.announce(SERVICE)
        assert member.paths[-1] == "/v3/kv/put"
    await source.close()


async def test_a_lease_that_has_just_ended_is_replaced_by_the_next_announcement(member: Member) -> None:
    leases = iter(("7", "8"))

    async def grant(request: web.Request) -> web.Response:
        return reply({"ID": next(leases)})

    async def write(request: web.Request) -> web.Response:
        if json.loads(await request.text())["lease"] == "7":
            return reply({"error": "etcdserver: requested lease not found", "code": 5}, 404)
        return reply({})

    member.answers |= {"/v3/lease/grant": grant, "/v3/kv/put": write}
    source = source_of(member)
    with pytest.raises(SourceError, match="lease not found"):
        await source.announce(SERVICE)
    await source.announce(SERVICE)
    assert member.paths.count("/v3/lease/grant") == 2
    assert "/v3/lease/keepalive" not in member.paths
    await source.close()


async def test_a_withdrawal_that_fails_may_be_tried_again(member: Member) -> None:
    answers = iter([({"error": "etcdserver: no leader", "code": 14}, 503), ({}, 200)])

    async def grant(request: web.Request) -> web.Response:
        return reply({"ID": "7"})

    async def fine(request: web.Request) -> web.Response:
        return reply({})

    async def revoke(request: web.Request) -> web.Response:
        return reply(*next(answers))

    member.answers |= {"/v3/lease/grant": grant, "/v3/kv/put": fine, "/v3/lease/revoke": revoke}
    source = source_of(member)
    await source.announce(SERVICE)
    with pytest.raises(SourceError, match="no leader"):
        await source.withdraw(SERVICE)
    await source.withdraw(SERVICE)
    assert [message for path, message, _ in member.asked if path.endswith("revoke")] == [{"ID": "7"}] * 2
    await source.close()
