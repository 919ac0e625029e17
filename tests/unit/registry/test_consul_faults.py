"""Consul that cannot answer: the next host at once, and one line that says what, where and what to do."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from aiohttp import web
from support.consul import Answer, ConsulAgent
from support.consul_faults import dribble, drop_in_the_middle, headers, refuse, say
from support.consul_source import WEB, asked, error_of, news, source_of
from support.ports import free_port

from sidecar.config.settings import Address, TlsSettings
from sidecar.errors import SourceError
from sidecar.model import Endpoint
from sidecar.registry.sources import consul, consul_agent, http

FIRST = Endpoint("10.0.0.1", 80)
CROWDED = "Your IP is issuing too many concurrent connections, please rate limit your calls"


@pytest.fixture
async def agent() -> AsyncIterator[ConsulAgent]:
    async with ConsulAgent() as made:
        made.add("web", "web-1", "10.0.0.1")
        yield made


# Answers that cannot be used


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (refuse(500, "No cluster leader"), "status 500: No cluster leader"),
        (refuse(500, "rpc error making call:\n\n lost"), "status 500: rpc error making call: lost"),
        (refuse(503, ""), "status 503"),
        (refuse(400, "x" * 10_000), f"status 400: {'x' * 160}"),
        (refuse(404, "404 page not found"), "status 404: 404 page not found; is this Consul's HTTP port?"),
        (
            refuse(429, CROWDED),
            f"status 429: {CROWDED}; raise the agent's `limits.http_max_conns_per_client`, or its rate limits",
        ),
        (headers(X_Consul_KnownLeader="false"), "it knows no leader"),
        (say(b"null"), "the answer is no list"),
        (say(b'{"web": []}'), "the answer is no list"),
    ],
)
async def test_an_answer_that_cannot_be_used_is_told_in_one_line(
    agent: ConsulAgent, answer: Answer, said: str
) -> None:
    agent.always = answer
    assert await error_of(source_of(agent)) == f"{asked(agent)}: {said}"


async def test_a_long_answer_leaves_the_loop_its_turns() -> None:
    turns = 0
    taken: list[Any] = []

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    many = 20 * http.AT_A_TIME
    await http._take_entries(json.dumps([{"Port": number} for number in range(many)]), 0, taken.append)
    counting.cancel()
    assert turns >= 19
    assert [entry["Port"] for entry in taken] == list(range(many))


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[1, 2", b"[1, ]", b"[1 2]", b"[] 3", b"[", b"\xff\xfe[]", b"9" * 5000, b"[" * 100_000],
)
async def test_garbage_is_no_json(agent: ConsulAgent, body: bytes) -> None:
    agent.always = say(body)
    assert "the answer is no JSON" in await error_of(source_of(agent))


async def test_a_connection_that_breaks_in_the_middle_of_an_answer(agent: ConsulAgent) -> None:
    agent.always = drop_in_the_middle
    assert await error_of(source_of(agent)) == f"{asked(agent)}: the answer breaks off"


async def test_an_answer_that_is_not_compressed_as_it_says(agent: ConsulAgent) -> None:
    async def garble(agent: ConsulAgent, request: web.Request) -> web.StreamResponse:
        response = await agent.health(request)
        response.headers["Content-Encoding"] = "gzip"
        return response

    agent.always = garble
    assert await error_of(source_of(agent)) == f"{asked(agent)}: the answer breaks off"


async def test_an_answer_that_is_too_long_is_not_read(
    agent: ConsulAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "MAX_ANSWER", 1000)
    agent.compress = True  # what counts is what comes of it
    for number in range(100):
        agent.add("web", f"web-{number}", "10.0.0.2")
    assert "the answer is longer than 1000 bytes" in await error_of(source_of(agent))


async def test_an_answer_that_never_ends_is_given_up(
    agent: ConsulAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consul, "ANSWER_TIMEOUT", 0.2)
    agent.always = dribble
    assert await error_of(source_of(agent)) == f"{asked(agent)}: no whole answer within 0.2 s"


async def test_a_refusal_that_never_ends_is_read_no_further(agent: ConsulAgent) -> None:
    async def flood(_: ConsulAgent, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=502)
        await response.prepare(request)
        while True:
            await response.write(b"bad gateway " * 1000)

    agent.always = flood
    assert (await error_of(source_of(agent))).startswith(f"{asked(agent)}: status 502: bad gateway bad")


async def test_a_query_that_blocks_for_longer_than_it_was_to_is_given_up(
    agent: ConsulAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consul, "ANSWER_TIMEOUT", 0.3)
    agent.jitter = 16.0  # twice the wait
    async with aclosing(source_of(agent, stale_after=1.0).watch([WEB])) as stream:
        await news(stream)
        with pytest.raises(SourceError, match=r"no whole answer within 1\.15 s$"):
            await news(stream)


async def test_an_error_after_good_answers_ends_the_stream_and_the_next_one_starts_anew(
    agent: ConsulAgent,
) -> None:
    source = source_of(agent)
    async with aclosing(source.watch([WEB])) as stream:
        assert await news(stream) == (FIRST,)
        agent.script.append(refuse(500, "No cluster leader"))
        with pytest.raises(SourceError, match="No cluster leader"):
            await news(stream)
    async with aclosing(source.watch([WEB])) as stream:
        assert await news(stream) == (FIRST,)
    assert [seen.index for seen in agent.seen] == [0, 11, 0]


async def test_a_datacenter_that_nobody_knows(agent: ConsulAgent) -> None:
    said = await error_of(source_of(agent, datacenter="mars"))
    assert said == f"{asked(agent)}: status 500: No path to datacenter; see `datacenter`"


async def test_a_redirect_is_not_followed(agent: ConsulAgent) -> None:
    async def move(_: ConsulAgent, __: web.Request) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": "/v1/health/service/other"})

    agent.always = move
    assert await error_of(source_of(agent)) == f"{asked(agent)}: status 307"
    assert len(agent.seen) == 1


# Hosts


async def test_nobody_who_listens_and_no_such_name() -> None:
    port = free_port()
    said = await error_of(source_of(hosts=(Address("127.0.0.1", port),)))
    assert said == f"GET /v1/health/service/web at 127.0.0.1:{port}: connection refused"

    async def unknown(host: str, port: int) -> list[Any]:
        raise OSError(f"no {host} here")

    source = source_of(hosts=(Address("consul.example", 0),))
    source._agents._surroundings = type(source._agents._surroundings)(source._clock, {}, unknown)
    said = await error_of(source)
    assert said == "GET /v1/health/service/web at consul.example:8500: no consul.example here"


async def test_somebody_who_is_no_http_server_or_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consul_agent, "CONNECT_TIMEOUT", 0.2)
    left = asyncio.Event()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.read(1)
        if first == b"G":
            writer.write(b"220 mail.example ESMTP\r\n\r\n")
        await reader.read()
        writer.close()
        await writer.wait_closed()
        left.set()

    async with await asyncio.start_server(greet, "127.0.0.1", free_port()) as server:
        host, port = server.sockets[0].getsockname()
        source = source_of(hosts=(Address(host, port),))
        where = f"GET /v1/health/service/web at {host}:{port}"
        assert await error_of(source) == f"{where}: the answer is no HTTP that can be read"
        await left.wait()
        left.clear()
        silent = source_of(hosts=(Address(host, port),), tls=TlsSettings(enabled=True))
        assert await error_of(silent) == f"{where}: no connection within 0.2 s"
        await left.wait()


async def test_the_next_host_is_asked_at_once_and_kept(agent: ConsulAgent) -> None:
    async with ConsulAgent() as other:
        other.restore(500)
        other.add("web", "web-1", "10.0.0.1")
        source = source_of(agent, other)
        async with aclosing(source.watch([WEB])) as stream:
            assert await news(stream) == (FIRST,)
            assert other.seen == []
            agent.always = refuse(500, "No cluster leader")
            agent.change("web")
            next_one = asyncio.create_task(news(stream))
            assert await next_one is None
            if not other.seen:  # the change came before the refusal
                assert await news(stream) is None
            assert other.seen[0].index == 0, "an index is the agent's that gave it"
            refused = len(agent.seen)
            waiting = asyncio.create_task(news(stream))
            await other.until(lambda other: other.blocked)
            other.add("web", "web-2", "10.0.0.2")
            assert len(await waiting or ()) == 2
        async with aclosing(source.watch([WEB])) as stream:
            await news(stream)
        assert len(agent.seen) == refused, "the one that answered last comes first"


async def test_each_host_is_asked_once_until_the_stream_raises(agent: ConsulAgent) -> None:
    async with ConsulAgent() as other:
        agent.always = refuse(500, "No cluster leader")
        other.always = refuse(500, "No path")
        said = await error_of(source_of(agent, other))
        assert said == f"{asked(agent)}: status 500: No cluster leader; {asked(other)}: status 500: No path"
        assert (len(agent.seen), len(other.seen)) == (1, 1)


async def test_one_host_that_recovers_is_found_again(agent: ConsulAgent) -> None:
    source = source_of(agent)
    await agent.stop()
    assert "connection refused" in await error_of(source)
    await agent.start()
    async with aclosing(source.watch([WEB])) as stream:
        assert await news(stream) == (FIRST,)
