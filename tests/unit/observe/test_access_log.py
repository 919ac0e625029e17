"""The access log: what a line says of how an exchange or a session went, and of which there is one."""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from support.access_log import Logged, lines_of
from support.proxy import ROOT
from unit.proxy.harness import Proxy, chunked, ok, request

from sidecar.observe.access_log import PATH_SIZE

MakeLogged = Callable[..., Any]

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


@pytest.fixture
async def make_logged(tmp_path: Path) -> AsyncIterator[MakeLogged]:
    """Makes `Logged` proxies; settings: of the log, all other keywords are the proxy's."""
    async with AsyncExitStack() as stack:

        async def make(*arguments: Any, settings: dict[str, Any] | None = None, **keywords: Any) -> Logged:
            proxy = Proxy(*arguments, **keywords)
            return await stack.enter_async_context(Logged(proxy, tmp_path / "access.log", **(settings or {})))

        yield make


@pytest.fixture
async def logged(make_logged: MakeLogged) -> Logged:
    """One http upstream with one endpoint."""
    made: Logged = await make_logged()
    return made


def slowly(proxy: Proxy, asked: bytes, *answer: bytes) -> None:
    """A request: 10 ms to connect, 20 to the answer's head, 40 to its end."""
    proxy.client(asked)
    proxy.clock.advance(0.01)
    endpoint = proxy.accept()
    proxy.clock.advance(0.02)
    for piece in answer[:-1]:
        endpoint.feed(piece)
        proxy.clock.advance(0.04)
    endpoint.feed(answer[-1])


async def test_a_request_is_one_line_with_what_became_of_it(logged: Logged) -> None:
    logged.proxy.clock.epoch = 1_800_000_000.25 - logged.proxy.clock.now
    whole = ok(b"x" * 10)
    slowly(
        logged.proxy,
        request("POST /items?secret=1", "Content-Length: 3", body=b"abc"),
        whole[:-4],
        whole[-4:],
    )

    line = await logged.line()
    assert list(line.items()) == [
        ("time", "2027-01-15T08:00:00.250000Z"),
        ("kind", "request"),
        ("upstream", "api"),
        ("endpoint", "10.0.0.1:80"),
        ("method", "POST"),
        ("path", "/items"),
        ("status", 200),
        ("reason", "none"),
        ("attempts", 1),
        ("duration", 0.07),
        ("connect", 0.01),
        ("first_byte", 0.03),
        ("request_bytes", 3),
        ("response_bytes", 10),
        ("trace_id", None),
        ("request_id", None),
    ]
    assert logged.counts.lines_written == 1


async def test_the_time_is_that_of_the_beginning_over_the_turn_of_a_second(logged: Logged) -> None:
    logged.proxy.clock.epoch = 1_800_000_000.0 - logged.proxy.clock.now
    for _ in range(3):
        logged.proxy.exchange(request(), ok())
        logged.proxy.clock.advance(0.5)
    found = [line["time"][17:] for line in await logged.lines()]
    assert found == ["00.000000Z", "00.500000Z", "01.000000Z"]


async def test_a_connection_that_is_used_again_took_no_time(logged: Logged) -> None:
    logged.proxy.exchange(request(), ok())
    logged.proxy.exchange(request(), ok())
    assert [line["connect"] for line in await logged.lines()] == [0.0, None]


async def test_bytes_are_those_of_the_bodies_as_they_came(logged: Logged) -> None:
    body = chunked(b"one", b"two")
    logged.proxy.exchange(
        request("POST /", "Transfer-Encoding: chunked", body=body),
        ok(b"", "Transfer-Encoding: chunked", length=False) + body,
    )
    line = await logged.line()
    assert (line["request_bytes"], line["response_bytes"]) == (len(body), len(body))


async def test_an_attempt_that_failed_is_counted_and_the_last_endpoint_named(make_logged: MakeLogged) -> None:
    logged: Logged = await make_logged(2)
    logged.proxy.client(request())
    logged.proxy.refuse()
    logged.proxy.accept().feed(ok())
    line = await logged.line()
    assert (line["endpoint"], line["attempts"], line["reason"]) == ("10.0.0.2:80", 2, "none")


async def test_without_an_endpoint_there_is_none_and_no_first_byte(make_logged: MakeLogged) -> None:
    logged: Logged = await make_logged(0)
    logged.proxy.client(request())
    line = await logged.line()
    assert (line["status"], line["reason"]) == (503, "no_endpoints")
    assert (line["endpoint"], line["attempts"], line["connect"], line["first_byte"]) == (None, 0, None, None)


async def test_a_response_that_breaks_off_keeps_its_status_and_tells_why(logged: Logged) -> None:
    logged.proxy.client(request())
    endpoint = logged.proxy.accept()
    endpoint.feed(ok(b"x" * 10)[:-4])
    endpoint.lose()
    line = await logged.line()
    assert (line["status"], line["reason"]) == (200, "reset_after_headers")
    assert line["response_bytes"] == 6


async def test_what_is_no_request_is_a_line_too(logged: Logged) -> None:
    logged.proxy.refusals = 1
    logged.proxy.client(b"GET / HTTP/1.1\r\nHost: a\r\nBad Name: \xff\r\n\r\n")
    line = await logged.line()
    assert (line["status"], line["reason"]) == (400, "bad_request")
    assert (line["upstream"], line["endpoint"], line["path"]) == ("api", None, None)


async def test_a_line_of_its_own_has_the_same_fields_whatever_happened(logged: Logged) -> None:
    logged.proxy.refusals = 1
    logged.proxy.client(b"nonsense\r\n\r\n")
    logged.proxy.exchange(request(), ok())
    refused, answered = await logged.lines()
    assert list(refused) == list(answered)


# Names


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (f"00-{TRACE}-{PARENT}-01", TRACE),
        (f"00-{TRACE}-{PARENT}-00", TRACE),
        (f"cc-{TRACE}-{PARENT}-01", TRACE),
        (f"cc-{TRACE}-{PARENT}-01-what-comes", TRACE),
        (f"cc-{TRACE}-{PARENT}-01.what", None),
        (f"00-{TRACE}-{PARENT}-01-", None),
        (f"ff-{TRACE}-{PARENT}-01", None),
        (f"00-{TRACE.upper()}-{PARENT}-01", None),
        (f"00-{TRACE[:-1]}-{PARENT}-01", None),
        (f"00-{'0' * 32}-{PARENT}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        ("", None),
    ],
)
async def test_the_trace_is_that_of_a_valid_traceparent(logged: Logged, value: str, read: str | None) -> None:
    logged.proxy.exchange(request("GET /", f"traceparent: {value}"), ok())
    assert (await logged.line())["trace_id"] == read


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("7f3a", "7f3a"),
        ('a"b\\c', 'a"b\\c'),
        ("x" * 128, "x" * 128),
        ("x" * 129, None),
        ("two words", None),
        ("\u00e9", None),
        ("", None),
    ],
)
async def test_the_request_id_is_the_requests_own(logged: Logged, value: str, read: str | None) -> None:
    logged.proxy.exchange(request("GET /", f"X-Request-ID: {value}"), ok())
    assert (await logged.line())["request_id"] == read


async def test_names_that_were_given_here_come_before_those_that_came(logged: Logged) -> None:
    class Trace:
        trace_id = b"f" * 32

    class Names:
        identifies = True
        exchange_over = logged.log.exchange_over

        def __getattr__(self, name: str) -> Any:
            return lambda *_: None

        def identify(self, exchange: Any, head: Any) -> Any:
            exchange.trace, exchange.request_id = Trace(), b"given"
            return head

    logged.proxy.context.recorder = Names()
    logged.proxy.exchange(
        request("GET /", "X-Request-Id: came", f"traceparent: 00-{TRACE}-{PARENT}-01"), ok()
    )
    line = await logged.line()
    assert (line["trace_id"], line["request_id"]) == ("f" * 32, "given")


# Paths


async def test_a_query_is_written_where_that_is_asked_for(make_logged: MakeLogged) -> None:
    logged: Logged = await make_logged(settings={"query": True})
    logged.proxy.exchange(request("GET /a?b=c?d"), ok())
    assert (await logged.line())["path"] == "/a?b=c?d"


@pytest.mark.parametrize("char", ["x", '"', "\\", "\u00ff"])
async def test_a_long_path_is_cut_so_that_a_line_goes_into_a_pipe_in_one_piece(
    logged: Logged, char: str
) -> None:
    logged.proxy.cluster.name = "n" * 63  # no name is longer
    logged.proxy.exchange(request(f"GET /{char * 9000}", f"x-request-id: {128 * '!'}"), ok())
    (line,) = await logged.lines()
    assert line["path"].endswith("...")
    assert len(line["path"]) > PATH_SIZE // 4
    assert logged.path.stat().st_size < 4096


async def test_a_path_of_the_greatest_size_is_whole(logged: Logged) -> None:
    path = "/" + "x" * (PATH_SIZE - 1)
    logged.proxy.exchange(request(f"GET {path}"), ok())
    assert (await logged.line())["path"] == path


# Which are written


async def test_of_what_went_well_a_share_is_written(make_logged: MakeLogged) -> None:
    logged: Logged = await make_logged(settings={"sample": 0.3}, chances=(0.1, 0.9, 0.29, 0.3, 0.7))
    for number in range(5):
        logged.proxy.exchange(request(f"GET /{number}"), ok())
    assert [line["path"] for line in await logged.lines()] == ["/0", "/2"]


@pytest.mark.parametrize("settings", [{"sample": 0.0}, {"errors_only": True}])
async def test_errors_are_written_whatever_else_is(make_logged: MakeLogged, settings: dict[str, Any]) -> None:
    logged: Logged = await make_logged(2, settings=settings)
    proxy = logged.proxy
    proxy.exchange(request("GET /fine"), ok())
    proxy.exchange(request("GET /not-found"), ok(status="404 Not Found"))
    proxy.exchange(request("GET /broken"), ok(status="500 Oops"))
    proxy.client(request("GET /left")).lose()
    proxy.client(request("POST /reset", "Content-Length: 0"))
    proxy.busy[-1].lose()
    proxy.refusals = 1
    proxy.client(b"nonsense\r\n\r\n")
    found = [(line["path"], line["status"], line["reason"]) for line in await logged.lines()]
    assert found == [
        ("/broken", 500, "none"),
        ("/reset", 502, "reset_before_headers"),
        (None, 400, "bad_request"),
    ]


async def test_a_client_that_has_gone_is_one_of_those_that_went_well(logged: Logged) -> None:
    logged.proxy.client(request()).lose()
    line = await logged.line()
    assert (line["status"], line["reason"]) == (499, "client_gone")


# Sessions


async def test_a_session_is_one_line_with_what_became_of_it(make_logged: MakeLogged) -> None:
    logged: Logged = await make_logged(scheme="tcp")
    logged.proxy.clock.epoch = 1_800_000_000.0 - logged.proxy.clock.now
    client = logged.proxy.client()
    endpoint = logged.proxy.accept()
    client.feed(b"PING\r\n")
    endpoint.feed(b"+PONG\r\n")
    logged.proxy.clock.advance(1.5)
    client.lose()
    line = await logged.line()
    assert list(line.items()) == [
        ("time", "2027-01-15T08:00:00.000000Z"),
        ("kind", "session"),
        ("upstream", "api"),
        ("endpoint", "10.0.0.1:80"),
        ("close_reason", "client_closed"),
        ("duration", 1.5),
        ("sent", 6),
        ("received", 7),
    ]


async def test_sessions_that_failed_are_written_whatever_else_is(make_logged: MakeLogged) -> None:
    logged: Logged = await make_logged(scheme="tcp", settings={"errors_only": True}, retries=0)
    fine = logged.proxy.client()
    logged.proxy.accept()
    fine.lose()
    logged.proxy.client()
    logged.proxy.refuse()
    logged.proxy.cluster.drain(logged.proxy.states, logged.proxy.clock.now)
    logged.proxy.client()
    written = [(line["close_reason"], line["endpoint"]) for line in await logged.lines()]
    assert written == [("connect_failed", "10.0.0.1:80"), ("draining", None)]


async def test_a_request_that_becomes_a_session_is_two_lines(logged: Logged) -> None:
    client = logged.proxy.client(request("GET /chat", "Upgrade: websocket", "Connection: Upgrade"))
    endpoint = logged.proxy.accept()
    logged.proxy.clock.advance(0.25)
    endpoint.feed(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello"
    )
    client.lose()
    asked, session = await logged.lines()
    assert (asked["kind"], asked["path"], asked["status"]) == ("request", "/chat", 101)
    assert (asked["first_byte"], asked["response_bytes"]) == (0.25, 0)
    assert (session["kind"], session["received"], session["endpoint"]) == ("session", 5, "10.0.0.1:80")


# On their way


async def test_a_lone_line_is_not_kept(logged: Logged) -> None:
    logged.proxy.exchange(request(), ok())
    async with asyncio.timeout(5.0):
        while not lines_of(logged.path):  # noqa: ASYNC110 - a thread writes it
            await asyncio.sleep(0.01)


async def test_lines_are_written_in_pieces_that_are_not_large(
    make_logged: MakeLogged, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = []
    real = os.write

    def write(descriptor: int, data: bytes) -> int:
        if data.startswith(b'{"time"'):
            pieces.append(data)
        return real(descriptor, data)

    monkeypatch.setattr("os.write", write)
    logged: Logged = await make_logged()
    for _ in range(1000):
        logged.proxy.exchange(request(f"GET /{'x' * 100}"), ok())
    assert len(await logged.lines()) == 1000
    assert 60_000 < max(map(len, pieces)) <= 65536
    assert all(piece.endswith(b"\n") for piece in pieces)


async def test_what_was_written_before_the_file_is_opened_anew_is_in_the_old_one(logged: Logged) -> None:
    old = logged.path.with_suffix(".1")
    logged.proxy.exchange(request("GET /before"), ok())
    logged.path.rename(old)
    logged.log.reopen()
    logged.proxy.exchange(request("GET /after"), ok())
    assert [line["path"] for line in await logged.lines()] == ["/after"]
    assert [line["path"] for line in lines_of(old)] == ["/before"]


async def test_what_comes_when_it_has_been_closed_is_dropped_and_counted(logged: Logged) -> None:
    await logged.log.close()
    logged.proxy.exchange(request(), ok())
    await logged.log.close()
    assert (logged.counts.lines_written, logged.counts.lines_dropped) == (0, 1)


async def test_the_readme_has_the_fields_and_no_others(make_logged: MakeLogged) -> None:
    readme = (
        (ROOT / "sidecar/observe/README.md").read_text().partition("## The access log")[2].partition("\n#")[0]
    )
    rows = [row.split(" | ") for row in readme.splitlines() if row.startswith("| `")]
    named = [(name, of) for names, of, *_ in rows for name in re.findall(r"`(\w+)`", names)]
    logged: Logged = await make_logged()
    client = logged.proxy.client(request("GET /chat", "Upgrade: websocket", "Connection: Upgrade"))
    logged.proxy.accept().feed(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    )
    client.lose()
    asked, session = await logged.lines()
    assert [name for name, of in named if of != "session"] == list(asked)
    assert sorted(name for name, of in named if of != "request") == sorted(session)
