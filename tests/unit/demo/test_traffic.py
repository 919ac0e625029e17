"""The demo's application, against servers that say what a test wants."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from sidecar.demo import traffic
from sidecar.demo.traffic import HttpCaller, LineCaller, Tally


@contextlib.asynccontextmanager
async def _server(*answers: bytes) -> AsyncIterator[int]:
    """Answers each thing it reads with the next of `answers`; an empty one hangs up; none left: silence."""
    left = list(answers)
    done: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        done.append(writer)
        while await reader.read(4096):
            if left:
                answer = left.pop(0)
                if not answer:
                    break
                writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in done:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


def _http(body: str, status: str = "200 OK", *fields: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields, "", body]
    return "\r\n".join(lines).encode()


async def _call(port: int, times: int = 1) -> Tally:
    tally = Tally()
    caller = HttpCaller("127.0.0.1", port, tally)
    for _ in range(times):
        await caller.call()
    caller.close()
    return tally


def test_a_tally_knows_shares() -> None:
    tally = Tally()
    assert (tally.requests, tally.failed, tally.share("a"), tally.recent_share("a")) == (0, 0, 0.0, 0.0)
    for _ in range(30):
        tally.count_answer("a")
    for _ in range(10):
        tally.count_answer("b")
    tally.failures["503"] += 2
    assert (tally.requests, tally.failed) == (42, 2)
    assert tally.share("a") == 0.75
    assert tally.recent_share("a") == pytest.approx(2 / 3)  # the last thirty


async def test_answers_are_counted_by_who_gave_them() -> None:
    async with _server(_http("api-1\n"), _http("api-2\n"), _http("api-1\n")) as port:
        tally = await _call(port, 3)
    assert tally.answers == {"api-1": 2, "api-2": 1}
    assert tally.failed == 0


async def test_failures_are_counted_by_status_and_the_sidecar_s_reason() -> None:
    own = _http("{}", "503 Service Unavailable", "X-Sidecar-Error: all_open")
    async with _server(own, _http("ill\n", "503 Service Unavailable"), _http("api-1\n")) as port:
        tally = await _call(port, 3)
    assert tally.failures == {"503 all_open": 1, "503": 1}
    assert tally.answers == {"api-1": 1}


async def test_a_connection_that_is_to_be_closed_is_opened_anew() -> None:
    async with _server(_http("api-1\n", "200 OK", "Connection: close"), _http("api-1\n")) as port:
        tally = await _call(port, 2)
    assert tally.answers == {"api-1": 2}


async def test_a_broken_connection_is_a_failure_and_the_next_call_opens_another() -> None:
    async with _server(b"", _http("api-1\n")) as port:
        tally = await _call(port, 2)
    assert tally.failures == {"connection lost": 1}
    assert tally.answers == {"api-1": 1}


async def test_a_refused_connection_is_a_failure() -> None:
    async with _server() as port:
        pass
    assert (await _call(port)).failures == {"connection refused": 1}


async def test_an_answer_that_does_not_come_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "PATIENCE", 0.02)
    async with _server() as port:
        assert (await _call(port)).failures == {"no answer": 1}


async def test_what_is_not_http_is_a_failure() -> None:
    async with _server(_http("x").replace(b"Length: 1", b"Length: one")) as port:
        assert (await _call(port)).failures == {"no valid answer": 1}


async def test_a_machine_without_sockets_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_args: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(asyncio, "open_connection", fail)
    assert (await _call(1)).failures == {"no connection": 1}


async def test_lines_are_counted_when_they_come_back_as_sent() -> None:
    tally = Tally()
    async with _server(b"echo: line 1\n", b"echo: line 2\n", b"echo: nonsense\n", b"echo: line 3\n") as port:
        caller = LineCaller("127.0.0.1", port, tally)
        for _ in range(4):
            await caller.call()
        caller.close()
    assert (tally.lines, tally.lines_failed) == (3, 1)


async def test_it_calls_until_cancelled_and_leaves_nothing_open() -> None:
    tally = Tally()
    enough = asyncio.Event()

    class Caller(HttpCaller):
        async def call(self) -> None:
            await super().call()
            if tally.requests >= 5:
                enough.set()

    async with _server(*[_http("api-1\n")] * 100) as port:
        task = asyncio.create_task(Caller("127.0.0.1", port, tally, interval=0.0).run())
        await enough.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert tally.answers["api-1"] >= 5
    assert tally.failed == 0
