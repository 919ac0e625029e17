"""What probes ask, and what they make of the answers; against scripted servers on real sockets."""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.ports import has_ipv6
from support.requirements import lacking

from sidecar.config.settings import HealthSettings, JsonField
from sidecar.health.http_probe import MAX_BODY
from sidecar.health.probes import Finding, examine, probe_of
from sidecar.version import __version__

HTTP = HealthSettings(path="/health?deep=1")
TCP = HealthSettings(kind="tcp")
REDIS = HealthSettings(kind="redis")
LONG = 20.0  # seconds that no test needs

Answer = bytes | Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Reads what comes until it is answered; `heard` is all of it."""

    def __init__(self) -> None:
        self.port = 0
        self.heard = b""
        self.asked = asyncio.Event()
        self.ended = asyncio.Event()


@asynccontextmanager
async def serving(answer: Answer, *, stay: bool = False, host: str = "127.0.0.1") -> AsyncIterator[Server]:
    """One that gives `answer` to the first bytes, and then closes; or stays until the other side has."""
    server = Server()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server.heard += await reader.read(65536)
            server.asked.set()
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                await answer(reader, writer)
            while stay and await reader.read(65536):
                pass
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()
            server.ended.set()

    listener = await asyncio.start_server(serve, host, 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        if server.heard:
            await server.ended.wait()


async def ask(
    settings: HealthSettings,
    port: int,
    *,
    host: str = "127.0.0.1",
    within: float = LONG,
    host_header: str = "endpoint",
    environ: dict[str, str] | None = None,
    resolve: Any = None,
) -> Finding:
    probe = probe_of(settings, host_header, environ or {})
    return await examine(probe, host, port, within, resolve, time.monotonic)


async def told(settings: HealthSettings, answer: Answer, **options: Any) -> str:
    """The error that comes of an answer; empty when there is none."""
    async with serving(answer) as server:
        finding = await ask(settings, server.port, **options)
    assert (finding.ok is True) is (finding.error == "")
    return finding.error


def response(body: bytes = b"", status: int = 200, more: str = "") -> bytes:
    return f"HTTP/1.1 {status} Said\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.fixture
def refused() -> int:
    """A port where nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


# HTTP


@pytest.mark.every_loop
async def test_a_request_and_a_good_answer() -> None:
    async with serving(response(b"fine")) as server:
        finding = await ask(HTTP, server.port)
    assert finding.ok
    assert (finding.error, finding.answered) == ("", True)
    assert 0 < finding.seconds < LONG
    assert server.heard.decode() == (
        "GET /health?deep=1 HTTP/1.1\r\n"
        f"Host: 127.0.0.1:{server.port}\r\n"
        f"User-Agent: sidecar/{__version__} health\r\n"
        "Accept: */*\r\n"
        "Connection: close\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("host_header", "sent"), [("api.example", "api.example"), ("preserve", None), ("endpoint", None)]
)
async def test_host_is_what_requests_carry(host_header: str, sent: str | None) -> None:
    async with serving(response()) as server:
        await ask(HTTP, server.port, host_header=host_header)
    assert f"Host: {sent or f'127.0.0.1:{server.port}'}\r\n" in server.heard.decode()


async def test_an_ipv6_address_stands_in_brackets_in_host() -> None:
    if not has_ipv6():
        lacking("no IPv6 here")
    async with serving(response(), host="::1") as server:
        assert (await ask(HTTP, server.port, host="::1")).ok
    assert f"Host: [::1]:{server.port}\r\n" in server.heard.decode()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (response(status=204), ""),
        (response(status=503), "status 503, not 200-299"),
        (response(status=301, more="Location: http://elsewhere.example/\r\n"), "status 301, not 200-299"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + response(), ""),
        (
            b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            "status 101, which nobody asked for",
        ),
        (b"HTTP/1.1 102 Processing\r\n\r\n" * 11, "status 102, which nobody asked for"),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", ""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n", ""),
        (b"", "closed without an answer"),
        (b"HTTP/1.1 200 OK\r\nConte", "closed before it had answered"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfine", "closed within its answer"),
        (b"SSH-2.0-OpenSSH\r\n", "no valid HTTP: the response does not start with HTTP/1.x"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            "no valid HTTP: a chunk-size line is not hexadecimal digits with extensions",
        ),
    ],
)
async def test_answers(answer: bytes, error: str) -> None:
    assert await told(HTTP, answer) == error


async def test_expected_statuses() -> None:
    settings = replace(HTTP, expect_status=((200, 299), (301, 301)))
    assert await told(settings, response(status=301)) == ""
    assert await told(settings, response(status=302)) == "status 302, not 200-299, 301"


@pytest.mark.parametrize(
    ("expected", "body", "error"),
    [
        ("all is well", b"<p>all is well</p>", ""),
        ("all is well", b"all is ill", "the body does not hold all is well"),
        ("/fi+ne/", b"we are fiiine", ""),
        ("/^fine$/", b"not fine", "the body does not hold /^fine$/"),
        ("/(?i)<(!doctype\\s+html|html)\\b/", b"<!DOCTYPE html><html>", ""),
        ("/", b"a/b", ""),
        ("\u00e9", "\u00e9".encode(), ""),
        ("x", b"\xff\xfe", "the body does not hold x"),
    ],
)
async def test_expected_bodies(expected: str, body: bytes, error: str) -> None:
    assert await told(replace(HTTP, expect_body=expected), response(body)) == error


async def test_an_expression_is_looked_for_at_the_beginning_and_text_everywhere() -> None:
    """`re` holds the interpreter: what it may take grows with the square of what it looks at."""
    long = response(b" " * (4096 - 4) + b"fine" + b" up")
    assert await told(replace(HTTP, expect_body="/fine/"), long) == ""
    assert await told(replace(HTTP, expect_body="up"), long) == ""
    error = "the first 4096 bytes of the body do not hold /up/"
    assert await told(replace(HTTP, expect_body="/up/"), long) == error


async def test_a_body_in_pieces_is_one() -> None:
    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in (
            b"HTTP/1.1 200 OK\r\nTransfer-Enc",
            b"oding: chunked\r\n\r\n3\r\nfi",
            b"n\r\n1\r\ne\r\n0\r\n\r\n",
        ):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)

    assert await told(replace(HTTP, expect_body="fine"), answer) == ""


@pytest.mark.parametrize(
    ("accepted", "body", "error"),
    [
        (('"ok"',), b'{"status": "ok", "more": [1, 2]}', ""),
        (('"ok"', '"degraded"'), b'{"status": "degraded"}', ""),
        (('"ok"',), b'{"status": "ill"}', 'status is "ill", not "ok"'),
        (('"ok"', "1"), b'{"status": null}', 'status is null, not "ok" or 1'),
        (("true",), b'{"status": true}', ""),
        (("true",), b'{"status": 1}', "status is 1, not true"),
        (("1",), b'{"status": 1.0}', ""),
        (('"1"',), b'{"status": 1}', 'status is 1, not "1"'),
        (('"ok"',), b"{}", "the body has no field status"),
        (('"ok"',), b'["status"]', "the body has no field status"),
        (('"ok"',), b"<html>", "the body is no JSON: <html>"),
        (('"ok"',), b"\x1b[31m\r\n", "the body is no JSON: \\x1b[31m\\r\\n"),
        (('"ok"',), b"[" * 60000, "the body is no JSON: " + "[" * 60 + "\u2026"),
    ],
)
async def test_expected_fields(accepted: tuple[str, ...], body: bytes, error: str) -> None:
    settings = replace(HTTP, expect_json=(JsonField("status", accepted),))
    assert await told(settings, response(body)) == error


async def test_fields_are_reached_with_dots() -> None:
    body = response(b'{"db": {"replicas": [{"up": true}, {"up": false}]}}')
    for name, error in (
        ("db.replicas.0.up", ""),
        ("db.replicas.1.up", "db.replicas.1.up is false, not true"),
        ("db.replicas.2.up", "the body has no field db.replicas.2.up"),
        ("db.up", "the body has no field db.up"),
    ):
        settings = replace(HTTP, expect_json=(JsonField(name, ("true",)),))
        assert await told(settings, body) == error


async def test_every_field_has_to_fit() -> None:
    settings = replace(HTTP, expect_json=(JsonField("a", ("1",)), JsonField("b", ("2",))))
    assert await told(settings, response(b'{"a": 1, "b": 2}')) == ""
    assert await told(settings, response(b'{"a": 1, "b": 3}')) == "b is 3, not 2"


async def test_a_body_without_end_is_read_up_to_a_bound() -> None:
    sent = 0

    async def pour(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nfine")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536

    async with serving(pour) as server:
        assert (await ask(replace(HTTP, expect_body="fine"), server.port)).ok
        await server.ended.wait()
    assert sent < 1024 * MAX_BODY, "what the kernel's buffers hold, and no more"
    assert await told(replace(HTTP, expect_json=(JsonField("a", ("1",)),)), pour) == (
        f"the body is too long for an answer ({MAX_BODY} bytes and more)"
    )


async def test_a_body_that_is_longer_than_what_is_read_is_not_taken_for_whole() -> None:
    """Also where its end has come with the bytes that are one too many."""
    settings = replace(HTTP, expect_json=(JsonField("a", ("1",)),))
    document = b'{"a": 1}'
    assert await told(settings, response(document.ljust(MAX_BODY))) == ""
    error = f"the body is too long for an answer ({MAX_BODY} bytes and more)"
    assert await told(settings, response(document.ljust(MAX_BODY + 1))) == error


# What is no answer


async def test_nobody_listens(refused: int) -> None:
    for settings in (HTTP, TCP, REDIS):
        finding = await ask(settings, refused)
        assert (finding.ok, finding.error, finding.answered) == (False, "connection refused", False)


@pytest.mark.parametrize("settings", [HTTP, REDIS], ids=["http", "redis"])
@pytest.mark.every_loop
async def test_silence_is_bounded_and_leaves_no_socket(settings: HealthSettings) -> None:
    async with serving(b"", stay=True) as server:
        finding = await ask(settings, server.port, within=0.05)
        assert (finding.ok, finding.error) == (False, "no answer within 0.05 s")
        assert finding.answered is False
        await server.ended.wait()  # it has seen the end of the connection


@pytest.mark.every_loop
async def test_one_that_is_cancelled_leaves_no_socket() -> None:
    async with serving(b"", stay=True) as server:
        task = asyncio.create_task(ask(HTTP, server.port))
        await server.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.ended.wait()


async def test_a_socket_that_becomes_no_stream_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[socket.socket] = []

    async def fail(*, sock: socket.socket) -> None:
        given.append(sock)
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(asyncio, "open_connection", fail)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert (await ask(HTTP, listener.getsockname()[1])).ok is None
    assert [sock.fileno() for sock in given] == [-1]


async def test_a_reset_is_told() -> None:
    async def reset(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")

    assert await told(HTTP, reset) == "connection reset by peer"


async def test_names_are_asked_of_who_knows_them() -> None:
    asked: list[tuple[str, int]] = []

    async def resolve(host: str, port: int) -> list[Any]:
        asked.append((host, port))
        if host == "lost.example":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    async with serving(response()) as server:
        assert (await ask(HTTP, server.port, host="api.example", resolve=resolve)).ok
        assert f"Host: api.example:{server.port}\r\n".encode() in server.heard
    lost = await ask(HTTP, 80, host="lost.example", resolve=resolve)
    assert (lost.ok, lost.error) == (False, "name or service not known")
    assert asked == [("api.example", server.port), ("lost.example", 80)]


async def test_a_look_up_that_takes_too_long_says_nothing_of_the_endpoint() -> None:
    async def resolve(host: str, port: int) -> list[Any]:
        await asyncio.Event().wait()
        return []

    finding = await ask(HTTP, 80, host="api.example", within=0.02, resolve=resolve)
    assert (finding.ok, finding.answered) == (None, False)
    assert finding.error == "the name api.example has not been looked up within 0.02 s"


async def test_silence_behind_a_name_is_the_endpoints() -> None:
    async def resolve(host: str, port: int) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    async with serving(b"", stay=True) as server:
        finding = await ask(HTTP, server.port, host="api.example", within=0.05, resolve=resolve)
        assert (finding.ok, finding.error) == (False, "no answer within 0.05 s")
        await server.ended.wait()


@pytest.mark.parametrize(
    ("number", "ok"),
    [
        (socket.EAI_AGAIN, None),
        (socket.EAI_MEMORY, None),
        (socket.EAI_NONAME, False),
        (socket.EAI_FAIL, False),
    ],
)
async def test_a_name_server_that_is_not_there_yet_says_nothing_of_the_endpoint(
    number: int, ok: bool | None
) -> None:
    """A first bad check counts at once: at the start of a machine it would take all names out."""

    async def resolve(host: str, port: int) -> list[Any]:
        raise socket.gaierror(number, "Whatever it says")

    finding = await ask(HTTP, 80, host="api.example", resolve=resolve)
    assert (finding.ok, finding.answered) == (ok, False)
    assert finding.error.endswith("whatever it says")


async def test_a_connection_to_a_name_wants_no_resolver_once_its_addresses_are_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """uvloop's `sock_connect` asks one: four names that nobody answers for would let every check of all time out."""

    def asked(*_: object) -> None:
        raise AssertionError("asked a resolver")

    async def resolve(host: str, port: int) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", asked)
    async with serving(response()) as server:
        assert (await ask(HTTP, server.port, host="api.example", resolve=resolve)).ok
        assert (await ask(HTTP, server.port)).ok


async def test_our_own_shortage_says_nothing_of_the_endpoint() -> None:
    async def resolve(host: str, port: int) -> list[Any]:
        raise OSError(24, "Too many open files")

    finding = await ask(TCP, 80, host="a.example", resolve=resolve)
    assert (finding.ok, finding.error, finding.answered) == (None, "too many open files", False)


async def test_a_time_out_of_the_system_is_told_as_such() -> None:
    async def resolve(host: str, port: int) -> list[Any]:
        raise TimeoutError(110, "whatever")

    assert (await ask(TCP, 80, host="a.example", resolve=resolve)).error == "connection timed out"


async def test_an_error_without_words_has_its_name() -> None:
    async def resolve(host: str, port: int) -> list[Any]:
        raise ConnectionError

    assert (await ask(TCP, 80, host="a.example", resolve=resolve)).error == "connectionerror"


# TCP


@pytest.mark.every_loop
async def test_a_connection_is_all_that_tcp_asks_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        finding = await ask(TCP, listener.getsockname()[1])
        assert (finding.ok, finding.error) == (True, "")
        peer, _ = listener.accept()
        with peer:
            assert peer.recv(1) == b"", "closed at once, without a word"


# Redis


def commands(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


@pytest.mark.every_loop
async def test_ping_expects_pong() -> None:
    async with serving(b"+PONG\r\n") as server:
        assert (await ask(REDIS, server.port)).ok
    assert server.heard == commands(b"PING")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"+PANG\r\n", "PING is answered PANG"),
        (
            b"-NOAUTH Authentication required.\r\n",
            "PING is answered NOAUTH Authentication required; set password_env or password_file",
        ),
        (b"-LOADING Redis is loading\x1b\r\n", "PING is answered LOADING Redis is loading\\x1b"),
        (b"\r\n", "PING is answered nothing"),
        (b"+PO", "closed before it had answered"),
        (b"", "closed before it had answered"),
        (b"x" * 200_000, "no Redis: a line without end"),
    ],
)
async def test_other_answers_to_ping(answer: bytes, error: str) -> None:
    assert await told(REDIS, answer) == error


def in_turn(*answers: bytes) -> Answer:
    """The first answer to what has come already, one more to each further piece."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answers[0])
        for one in answers[1:]:
            asked.append(await reader.read(65536))
            writer.write(one)
        await reader.read()

    asked: list[bytes] = []
    answer.asked = asked  # type: ignore[attr-defined] # a function has room for it
    return answer


@pytest.mark.parametrize(
    ("username", "sent"),
    [("", (b"AUTH", b"s3cret")), ("sidecar", (b"AUTH", b"sidecar", b"s3cret"))],
)
async def test_auth_goes_first(username: str, sent: tuple[bytes, ...]) -> None:
    answer = in_turn(b"+OK\r\n", b"+PONG\r\n")
    async with serving(answer) as server:
        settings = replace(REDIS, username=username, password_env="SECRET")
        finding = await ask(settings, server.port, environ={"SECRET": "s3cret"})
    assert finding.ok, finding
    assert server.heard == commands(*sent)
    assert answer.asked == [commands(b"PING")]  # type: ignore[union-attr] # see `answering`


async def test_a_wrong_password_is_told_without_it() -> None:
    settings = replace(REDIS, password_env="SECRET")
    error = await told(
        settings, b"-WRONGPASS invalid username-password pair\r\n", environ={"SECRET": "s3cret"}
    )
    assert error == "AUTH is answered WRONGPASS"


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (b"-ERR unknown command 'AUTH', with args beginning with: 's3cret' ", "AUTH is answered ERR"),
        (b"+s3cret", "AUTH is answered something else"),
        (b"-s3cret is wrong", "AUTH is answered something else"),
        (b"$6", "AUTH is answered something else"),
    ],
)
async def test_a_reply_that_repeats_the_password_is_not_told(reply: bytes, error: str) -> None:
    """Redis does where AUTH was renamed: findings go to the log, to `/upstreams` and to who asks for them."""
    settings = replace(REDIS, password_env="SECRET")
    assert await told(settings, reply + b"\r\n", environ={"SECRET": "s3cret"}) == error


async def test_a_secret_of_a_file_is_read_anew(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    settings = replace(REDIS, password_file=str(file))
    for secret in ("first", "second"):
        file.write_text(secret + "\n")
        async with serving(in_turn(b"+OK\r\n", b"+PONG\r\n")) as server:
            assert (await ask(settings, server.port)).ok
        assert server.heard == commands(b"AUTH", secret.encode())


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (None, "FILE (password_file): no such file or directory"),
        ("", "FILE (password_file) is empty or longer than 4096 bytes"),
        ("x" * 5000, "FILE (password_file) is empty or longer than 4096 bytes"),
    ],
)
async def test_a_secret_that_is_not_there_says_nothing_of_the_endpoint(
    tmp_path: Path, content: str | None, error: str
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_text(content)
    finding = await ask(replace(REDIS, password_file=str(file)), 1)
    assert (finding.ok, finding.answered) == (None, False)
    assert finding.error == error.replace("FILE", str(file))


@pytest.mark.timeout(5)  # reading a pipe that nobody writes to never ends
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
async def test_a_secret_that_is_no_file_holds_up_nothing(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "secret")
    finding = await ask(replace(REDIS, password_file=str(tmp_path / "secret")), 1)
    assert (finding.ok, finding.error) == (None, f"{tmp_path / 'secret'} (password_file) is no regular file")


async def test_a_secret_behind_a_link_is_followed_and_keeps_its_blanks(tmp_path: Path) -> None:
    """Kubernetes' secrets are links to links; a blank may belong to a password, the file's last line end does not."""
    (tmp_path / "secret").write_bytes(b" two words \t\r\n")
    (tmp_path / "link").symlink_to("secret")
    async with serving(in_turn(b"+OK\r\n", b"+PONG\r\n")) as server:
        assert (await ask(replace(REDIS, password_file=str(tmp_path / "link")), server.port)).ok
    assert server.heard == commands(b"AUTH", b" two words \t")


async def test_a_variable_that_is_not_set() -> None:
    finding = await ask(replace(REDIS, password_env="SECRET"), 1)
    assert (finding.ok, finding.error) == (None, "the variable SECRET (password_env) is not set")


@pytest.mark.parametrize(
    ("wanted", "reply", "error"),
    [
        ("master", b"*3\r\n$6\r\nmaster\r\n:3129659\r\n*0\r\n", ""),
        ("replica", b"*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n", ""),
        ("master", b"*5\r\n$5\r\nslave\r\n", "its role is replica, not master"),
        ("replica", b"*2\r\n$8\r\nsentinel\r\n", "its role is sentinel, not replica"),
        ("replica", b"+what\r\n", "its role is what, not replica"),
        ("master", b"-NOPERM no permissions\r\n", "ROLE is answered NOPERM no permissions"),
    ],
)
async def test_roles(wanted: str, reply: bytes, error: str) -> None:
    answer = in_turn(b"+PONG\r\n", reply)
    assert await told(replace(REDIS, role=wanted), answer) == error


@pytest.mark.parametrize(
    ("settings", "question"),
    [
        (HTTP, "GET /health?deep=1"),
        (TCP, "connect"),
        (REDIS, "PING"),
        (replace(REDIS, role="master"), "PING, role master"),
    ],
)
def test_what_is_asked_in_words(settings: HealthSettings, question: str) -> None:
    assert probe_of(settings, "endpoint").question == question
