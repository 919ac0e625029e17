"""Checks of endpoints over TLS: the same questions, and why nobody was asked."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from support.certificates import Authority

from sidecar.config.doors import ClientTlsSettings
from sidecar.config.settings import (
    EndpointSettings,
    HealthSettings,
    PolicySettings,
    UpstreamKind,
    UpstreamSettings,
)
from sidecar.health.probes import Finding, examine, probe_of
from sidecar.registry.health import ServiceChecks
from sidecar.registry.service import ServiceStatus
from sidecar.tls.client import ClientTls

HTTP, TCP, REDIS = (HealthSettings(kind=kind) for kind in ("http", "tcp", "redis"))
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
every_loop = pytest.mark.every_loop


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@asynccontextmanager
async def serving(context: ssl.SSLContext, answer: bytes = OK) -> AsyncIterator[int]:
    """A server that answers the first bytes of each connection; its port."""
    ended: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        ended.add(task)
        try:
            if await reader.read(65536):
                writer.write(answer)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.transport.abort()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        if ended:
            await asyncio.wait(ended)
        for _ in range(5):  # for transports of failed handshakes to close
            await asyncio.sleep(0)


async def ask(settings: HealthSettings, port: int, **tls: object) -> Finding:
    client = ClientTls("api", ClientTlsSettings(**tls), "http", time.monotonic)  # type: ignore[arg-type]
    client.take(client.load())
    probe = probe_of(settings, "endpoint", {})
    return await examine(probe, "127.0.0.1", port, 20.0, _nobody, time.monotonic, client)


async def _nobody(_host: str, _port: int) -> list[object]:
    raise AssertionError("an address is not looked up")


@every_loop
@pytest.mark.parametrize(("settings", "answer"), [(HTTP, OK), (REDIS, b"+PONG\r\n"), (TCP, b"")])
async def test_well(authority: Authority, settings: HealthSettings, answer: bytes) -> None:
    async with serving(authority.issue("127.0.0.1").server(), answer) as port:
        finding = await ask(settings, port, ca=authority.ca)
    assert (finding.ok, finding.error) == (True, "")


@every_loop
@pytest.mark.parametrize("settings", [HTTP, REDIS, TCP])
async def test_why_it_is_not(authority: Authority, settings: HealthSettings) -> None:
    async with serving(authority.issue("other.example").server()) as port:
        finding = await ask(settings, port, ca=authority.ca)
    assert finding.ok is False
    assert finding.error.startswith(
        "tls_wrong_host: its certificate is not of 127.0.0.1; it is of other.example"
    )


@every_loop
async def test_another_identity(authority: Authority) -> None:
    async with serving(authority.issue("spiffe://example.org/b").server()) as port:
        finding = await ask(HTTP, port, ca=authority.ca, identity=("spiffe://example.org/a",))
    assert finding.ok is False
    assert finding.error.startswith("tls_wrong_host: its certificate is none of tls.identity")


@every_loop
async def test_a_certificate_is_shown_to_a_server_that_wants_one(authority: Authority) -> None:
    mine = authority.issue("me.example", file="mine")
    async with serving(authority.issue("127.0.0.1").server(client_ca=authority.ca)) as port:
        finding = await ask(HTTP, port, ca=authority.ca, cert=mine.cert, key=mine.key)
    assert finding.ok is True


@every_loop
async def test_a_server_that_misses_one_says_so_after_the_handshake(authority: Authority) -> None:
    """As TLS 1.3 has it: the client is done before. asyncio's own server sends no alert."""
    context = authority.issue("127.0.0.1").server(client_ca=authority.ca)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_side=True)
        with suppress(ssl.SSLError):
            while data := await reader.read(65536):
                incoming.write(data)
                with suppress(ssl.SSLWantReadError):
                    tls.do_handshake()
                writer.write(outgoing.read())
        writer.write(outgoing.read())
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    finding = await ask(HTTP, listener.sockets[0].getsockname()[1], ca=authority.ca)
    listener.close()
    assert finding.ok is False
    assert finding.error.startswith("tls_failed: it refused, as servers do that want a certificate")


async def test_a_server_in_the_clear() -> None:
    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    finding = await ask(HTTP, listener.sockets[0].getsockname()[1], verify=False)
    listener.close()
    assert finding.ok is False
    assert finding.error.startswith("tls_failed: it speaks no TLS")


# The Python API


def _upstream(port: int, ca: str) -> UpstreamSettings:
    return UpstreamSettings(
        name="web",
        kind=UpstreamKind.SERVICE,
        scheme="https",
        endpoints=(EndpointSettings("127.0.0.1", port),),
        strategy="round_robin",
        health_endpoint="/",
        listen_port=None,
        skipped=None,
        policy=PolicySettings(tls=ClientTlsSettings(ca=ca)),
        health=HTTP,
    )


async def test_a_program_asks_over_tls_too(authority: Authority) -> None:
    async with serving(authority.issue("127.0.0.1").server()) as port:
        found = await ServiceChecks({}).check(_upstream(port, authority.ca))
    assert (found.status, found.error) == (ServiceStatus.HEALTHY, "")


async def test_a_file_that_is_not_there_says_nothing_of_the_endpoint(tmp_path: Path) -> None:
    found = await ServiceChecks({}).check(_upstream(1, str(tmp_path / "gone.pem")))
    assert found.status is ServiceStatus.UNKNOWN
    assert found.error.endswith(
        "gone.pem (tls.ca): no such file or directory; name a file that is there and readable"
    )
