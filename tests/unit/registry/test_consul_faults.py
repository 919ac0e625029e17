"""Consul that cannot answer: the next host at once, and one line that says what, where and what to do."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from support.authority import Authority
from support.consul import (
    Answer,
    ConsulAgent,
    Token,
    dribble,
    drop_in_the_middle,
    headers,
    news,
    refuse,
    say,
    source_of,
)
from support.ports import free_port

from sidecar.config.settings import Address, TlsSettings
from sidecar.errors import SourceError
from sidecar.model import Endpoint
from sidecar.registry.sources import consul, consul_agent
from sidecar.registry.sources.consul import ConsulSource
from sidecar.registry.sources.source import Wanted

WEB = Wanted("shop", "web")
FIRST = Endpoint("10.0.0.1", 80)
CROWDED = "Your IP is issuing too many concurrent connections, please rate limit your calls"
SECRET = "b1gs35hh-0000-secret"


@pytest.fixture
async def agent() -> AsyncIterator[ConsulAgent]:
    async with ConsulAgent() as made:
        made.add("web", "web-1", "10.0.0.1")
        yield made


async def error_of(source: ConsulSource, wanted: Wanted = WEB) -> str:
    """What the stream raises in place of its first snapshot, which is a line."""
    async with aclosing(source.watch([wanted])) as stream:
        with pytest.raises(SourceError) as caught:
            await news(stream)
        assert caught.value.__cause__ is None
    text = str(caught.value)
    assert "\n" not in text
    return text


def at(agent: ConsulAgent) -> str:
    return f"GET /v1/health/service/web at {agent.host}:{agent.port}"


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
        (say(b"[" * 100_000), "the answer is no JSON of Consul's"),
    ],
)
async def test_an_answer_that_cannot_be_used_is_told_in_one_line(
    agent: ConsulAgent, answer: Answer, said: str
) -> None:
    agent.always = answer
    assert await error_of(source_of(agent)) == f"{at(agent)}: {said}"


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1, 2", b"\xff\xfe[]", b"9" * 5000])
async def test_garbage_is_no_json(agent: ConsulAgent, body: bytes) -> None:
    agent.always = say(body)
    assert "the answer is no JSON" in await error_of(source_of(agent))


async def test_a_connection_that_breaks_in_the_middle_of_an_answer(agent: ConsulAgent) -> None:
    agent.always = drop_in_the_middle
    assert await error_of(source_of(agent)) == f"{at(agent)}: the answer breaks off"


async def test_an_answer_that_never_ends_is_given_up(
    agent: ConsulAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consul, "ANSWER_TIMEOUT", 0.2)
    agent.always = dribble
    assert await error_of(source_of(agent)) == f"{at(agent)}: no whole answer within 0.2 s"


async def test_a_refusal_that_never_ends_is_read_no_further(agent: ConsulAgent) -> None:
    async def flood(_: ConsulAgent, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=502)
        await response.prepare(request)
        while True:
            await response.write(b"bad gateway " * 1000)

    agent.always = flood
    assert (await error_of(source_of(agent))).startswith(f"{at(agent)}: status 502: bad gateway bad")


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
    assert said == f"{at(agent)}: status 500: No path to datacenter; see `datacenter`"


async def test_a_redirect_is_not_followed(agent: ConsulAgent) -> None:
    async def move(_: ConsulAgent, __: web.Request) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": "/v1/health/service/other"})

    agent.always = move
    assert await error_of(source_of(agent)) == f"{at(agent)}: status 307"
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
        assert (await error_of(source)).startswith(f"GET /v1/health/service/web at {host}:{port}: ")
        await left.wait()
        left.clear()
        silent = source_of(hosts=(Address(host, port),), tls=TlsSettings(enabled=True))
        assert await error_of(silent) == (
            f"GET /v1/health/service/web at {host}:{port}: no connection within 0.2 s"
        )
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
        assert said == f"{at(agent)}: status 500: No cluster leader; {at(other)}: status 500: No path"
        assert (len(agent.seen), len(other.seen)) == (1, 1)


async def test_one_host_that_recovers_is_found_again(agent: ConsulAgent) -> None:
    source = source_of(agent)
    await agent.stop()
    assert "connection refused" in await error_of(source)
    await agent.start()
    async with aclosing(source.watch([WEB])) as stream:
        assert await news(stream) == (FIRST,)


# Tokens


async def test_a_token_of_the_environment_goes_in_its_header(agent: ConsulAgent) -> None:
    agent.tokens[SECRET] = Token()
    source = source_of(agent, token_env="TOKEN", environ={"TOKEN": SECRET})
    async with aclosing(source.watch([WEB])) as stream:
        assert await news(stream) == (FIRST,)
    assert agent.seen[0].token == SECRET
    assert SECRET not in agent.seen[0].target


async def test_a_tokens_file_is_read_for_each_request(agent: ConsulAgent, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old\n")
    agent.tokens |= {"old": Token(), "new": Token()}
    async with aclosing(source_of(agent, token_file=str(file)).watch([WEB])) as stream:
        await news(stream)
        file.write_text("new\n")
        del agent.tokens["old"]
        agent.change("web")
        assert await news(stream) is None
    assert [seen.token for seen in agent.seen] == ["old", "new"]


async def test_a_token_that_expires_while_a_query_blocks(agent: ConsulAgent) -> None:
    agent.tokens[SECRET] = Token()
    source = source_of(agent, token_env="TOKEN", environ={"TOKEN": SECRET})
    async with aclosing(source.watch([WEB])) as stream:
        await news(stream)
        waiting = asyncio.create_task(news(stream))
        await agent.until(lambda agent: agent.blocked)
        agent.tokens = {"another": Token()}
        agent.change("web")
        with pytest.raises(SourceError) as caught:
            await waiting
    assert str(caught.value) == (
        f"{at(agent)}: status 403: ACL not found;"
        " give `token_env` or `token_file` a token that may read the service and its nodes"
    )


async def test_what_is_hidden_from_a_token_is_not_gone(
    agent: ConsulAgent, caplog: pytest.LogCaptureFixture
) -> None:
    agent.tokens[SECRET] = Token(frozenset())
    source = source_of(agent, token_env="TOKEN", environ={"TOKEN": SECRET})
    assert await error_of(source) == (
        "service web: all its instances are hidden from the token;"
        " give `token_env` or `token_file` one with service:read and node:read"
    )
    agent.tokens[SECRET] = Token()
    agent.always = headers(X_Consul_Results_Filtered_By_ACLs="true")
    async with aclosing(source.watch([WEB])) as stream:
        assert await news(stream) == (FIRST,)
    assert caplog.messages == [
        "consul: shop: some instances are hidden from the token, which lacks service:read or node:read"
    ]


@pytest.mark.parametrize("status", [403, 500])
async def test_a_token_is_repeated_nowhere(agent: ConsulAgent, status: int) -> None:
    async def echo(_: ConsulAgent, request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=f"bad token {request.headers['X-Consul-Token']}")

    agent.always = echo
    said = await error_of(source_of(agent, token_env="TOKEN", environ={"TOKEN": SECRET}))
    assert "bad token (token)" in said
    assert SECRET not in said


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({}, "the variable TOKEN (token_env) is not set"),
        ({"TOKEN": "two words"}, "the token of TOKEN has a space, a line break or a letter"),
        ({"TOKEN": "a\r\nHost: b"}, "the token of TOKEN has a space, a line break or a letter"),
        ({"TOKEN": "schlüssel"}, "the token of TOKEN has a space, a line break or a letter"),
    ],
)
async def test_a_token_that_cannot_be_sent_is_said_once_for_all_hosts(
    agent: ConsulAgent, environ: dict[str, str], said: str
) -> None:
    text = await error_of(source_of(agent, agent, token_env="TOKEN", environ=environ))
    assert text.startswith(said)
    assert text.count("TOKEN") == 1
    assert "words" not in text
    assert agent.seen == []


# TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def trusting(authority: Authority, **more: Any) -> TlsSettings:
    return TlsSettings(enabled=True, ca=str(authority.ca), **more)


@pytest.mark.server("openssl")
async def test_over_tls_by_the_authority_that_is_named(authority: Authority) -> None:
    async with ConsulAgent(tls=authority.server("here", "127.0.0.1")) as agent:
        agent.add("web", "web-1", "10.0.0.1")
        async with aclosing(source_of(agent, tls=trusting(authority)).watch([WEB])) as stream:
            assert await news(stream) == (FIRST,)
            waiting = asyncio.create_task(news(stream))
            await agent.until(lambda agent: agent.blocked)
            agent.remove("web-1")
            assert await waiting == ()


@pytest.mark.server("openssl")
async def test_a_server_of_another_authority_or_another_name_is_refused(
    authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path, "other")
    async with AsyncExitStack() as stack:
        strange = await stack.enter_async_context(ConsulAgent(tls=other.server("there", "127.0.0.1")))
        named = await stack.enter_async_context(
            ConsulAgent(tls=authority.server("named", "server.dc1.consul"))
        )
        said = await error_of(source_of(strange, tls=trusting(authority)))
        assert re.fullmatch(
            rf"{at(strange)}: its certificate is refused: unable to get local issuer certificate;"
            r" see `tls.ca` and `tls.server_name`",
            said,
        )
        said = await error_of(source_of(named, tls=trusting(authority)))
        assert "its certificate is refused: IP address mismatch" in said
        for tls in (
            trusting(authority, server_name="server.dc1.consul"),
            TlsSettings(enabled=True, verify=False),
        ):
            async with aclosing(source_of(named, tls=tls).watch([WEB])) as stream:
                assert await news(stream) == ()
        said = await error_of(source_of(named, tls=trusting(authority, server_name="server.dc2.consul")))
        assert "Hostname mismatch" in said


@pytest.mark.server("openssl")
async def test_a_server_that_asks_for_a_certificate_gets_it(authority: Authority) -> None:
    cert, key = authority.issue("client")
    async with ConsulAgent(tls=authority.server("strict", "127.0.0.1", clients=True)) as agent:
        tls = trusting(authority, cert=str(cert), key=str(key))
        async with aclosing(source_of(agent, tls=tls).watch([WEB])) as stream:
            assert await news(stream) == ()
        assert (await error_of(source_of(agent, tls=trusting(authority)))).startswith(f"{at(agent)}: ")


@pytest.mark.server("openssl")
async def test_files_of_tls_are_read_again_when_they_have_changed(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    make = consul_agent.tls_context

    def counted(tls: TlsSettings) -> ssl.SSLContext | None:
        made.append(tls)
        return make(tls)

    monkeypatch.setattr(consul_agent, "tls_context", counted)
    ca = tmp_path / "trusted.pem"
    source_files = TlsSettings(enabled=True, ca=str(ca))
    async with ConsulAgent(tls=authority.server("again", "127.0.0.1")) as agent:
        source = source_of(agent, tls=source_files)
        assert await error_of(source) == f"{ca} (tls.ca): no such file or directory"
        ca.write_bytes(Authority(tmp_path, "other").ca.read_bytes())
        assert "its certificate is refused" in await error_of(source)
        ca.write_bytes(authority.ca.read_bytes())
        for _ in range(2):
            async with aclosing(source.watch([WEB])) as stream:
                assert await news(stream) == ()
    assert len(made) == 3


async def test_plain_http_where_tls_is_expected(agent: ConsulAgent) -> None:
    said = await error_of(source_of(agent, tls=TlsSettings(enabled=True)))
    assert said == f"{at(agent)}: TLS fails: wrong version number; is this its HTTPS port?"
