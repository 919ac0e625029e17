"""Who Consul lets in, and who is taken for Consul: tokens and TLS."""

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
from support.consul import ConsulAgent, Token
from support.consul_faults import headers
from support.consul_source import WEB, asked, error_of, news, source_of

from sidecar.config.settings import TlsSettings
from sidecar.errors import SourceError
from sidecar.model import Endpoint
from sidecar.registry.sources import consul_agent
from sidecar.registry.sources.http import tls_context

FIRST = Endpoint("10.0.0.1", 80)
SECRET = "b1gs35hh-0000-secret"


@pytest.fixture
async def agent() -> AsyncIterator[ConsulAgent]:
    async with ConsulAgent() as made:
        made.add("web", "web-1", "10.0.0.1")
        yield made


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
        f"{asked(agent)}: status 403: ACL not found;"
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
def test_who_names_an_authority_loads_no_other(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_: ssl.SSLContext, purpose: object) -> None:
        raise AssertionError("those of the whole world are not asked for")

    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", load)
    context = tls_context(trusting(authority))
    assert context is not None
    assert len(context.get_ca_certs()) == 1
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


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
            rf"{asked(strange)}: its certificate is refused: unable to get local issuer certificate;"
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
        assert (await error_of(source_of(agent, tls=trusting(authority)))).startswith(f"{asked(agent)}: ")


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
    assert said == f"{asked(agent)}: TLS fails: wrong version number; is this its HTTPS port?"
