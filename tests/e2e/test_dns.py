"""The dns source before a real dnsmasq: records, TTLs, names that are not there, and answers that change."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.dnsmasq import Dnsmasq

from sidecar.clock import Clock
from sidecar.config.settings import Address, RegistrySettings
from sidecar.errors import SourceError
from sidecar.model import Endpoint, Snapshot
from sidecar.registry.sources.dns import DnsSource
from sidecar.registry.sources.source import Surroundings, Wanted

pytestmark = [pytest.mark.server("dnsmasq"), pytest.mark.uvloop]

SERVICE = "_http._tcp.backend.test"
API = Wanted("api", "backend.test", default_port=8080)


async def no_resolve(host: str, port: int) -> list[Any]:
    raise AssertionError(f"{host} is to be asked of dnsmasq alone")


@asynccontextmanager
async def watch(
    server: Dnsmasq, wanted: Wanted = API, **keywords: Any
) -> AsyncIterator[AsyncIterator[Snapshot | None]]:
    settings = RegistrySettings("dns", "dns", (Address("127.0.0.1", server.port),))
    source = DnsSource(settings, Surroundings(Clock(), {}, no_resolve), **keywords)
    async with asyncio.timeout(20), aclosing(source.watch([wanted])) as stream:  # type: ignore[type-var]
        yield stream


async def first(server: Dnsmasq, wanted: Wanted = API) -> tuple[Endpoint, ...]:
    async with watch(server, wanted) as stream:
        snapshot = await anext(stream)
    assert snapshot is not None
    return snapshot.endpoints


async def test_addresses_of_both_families(tmp_path: Path) -> None:
    with Dnsmasq(
        tmp_path,
        "host-record=backend.test,10.0.0.2,2001:db8::2",
        "host-record=backend.test,10.0.0.1",
    ) as server:
        assert await first(server) == (
            Endpoint("10.0.0.1", 8080),
            Endpoint("10.0.0.2", 8080),
            Endpoint("2001:db8::2", 8080),
        )


async def test_a_service_by_priority_and_weight(tmp_path: Path) -> None:
    with Dnsmasq(
        tmp_path,
        f"srv-host={SERVICE},a.test,8001,10,3",
        f"srv-host={SERVICE},b.test,8002,10,6",
        f"srv-host={SERVICE},c.test,8003,20,1",
        "host-record=a.test,10.0.0.1",
        "host-record=b.test,10.0.0.2,2001:db8::2",
        "host-record=c.test,10.0.0.3",
    ) as server:
        assert await first(server, Wanted("api", SERVICE)) == (
            Endpoint("10.0.0.1", 8001, 6),  # the weight of one address: those of b share theirs
            Endpoint("10.0.0.2", 8002, 6),
            Endpoint("2001:db8::2", 8002, 6),
        )


async def test_a_service_that_is_decidedly_not_there(tmp_path: Path) -> None:
    with Dnsmasq(tmp_path, f"srv-host={SERVICE}") as server:  # without a target: dnsmasq's way to write `.`
        assert await first(server, Wanted("api", SERVICE)) == ()


async def test_more_than_a_datagram_holds(tmp_path: Path) -> None:
    server = Dnsmasq(tmp_path)
    server.hosts(*(f"10.1.{n // 250}.{n % 250 + 1} backend.test" for n in range(500)))
    with server:
        assert len(await first(server)) == 500


async def test_no_such_name_and_a_name_that_nobody_may_ask_for(tmp_path: Path) -> None:
    with Dnsmasq(tmp_path) as server:
        assert await first(server, Wanted("api", "nobody.test", default_port=80)) == ()
        with pytest.raises(
            SourceError, match=rf"^a\.elsewhere \(A\): REFUSED from 127\.0\.0\.1:{server.port}$"
        ):
            await first(server, Wanted("api", "a.elsewhere", default_port=80))


async def test_an_answer_that_changes_is_seen_when_its_ttl_is_over(tmp_path: Path) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    server = Dnsmasq(tmp_path, ttl=7)
    server.hosts("10.0.0.1 backend.test")
    with server:
        async with watch(server, sleep=sleep) as stream:
            assert await anext(stream) == Snapshot("api", (Endpoint("10.0.0.1", 8080),), "dns")
            assert await anext(stream) is None
            assert 6.3 <= pauses[0] <= 7.0
            server.hosts("10.0.0.1 backend.test", "10.0.0.2 backend.test")
            changed = (Endpoint("10.0.0.1", 8080), Endpoint("10.0.0.2", 8080))
            assert await anext(stream) == Snapshot("api", changed, "dns")
            server.hosts()
            assert await anext(stream) == Snapshot("api", (), "dns")
            assert 6.3 <= pauses[-1] <= 7.0
            server.hosts("10.0.0.3 backend.test")
            assert await anext(stream) == Snapshot("api", (Endpoint("10.0.0.3", 8080),), "dns")
            assert 1.0 <= pauses[-1] <= 2.0


async def test_a_server_that_dies_is_an_error_at_once_and_one_that_is_back_answers(tmp_path: Path) -> None:
    with Dnsmasq(tmp_path, "host-record=backend.test,10.0.0.1") as server:
        async with watch(server) as stream:
            assert await anext(stream) is not None
            server.kill()
            with pytest.raises(SourceError, match="connection refused"):
                await anext(stream)
        server.start()
        assert await first(server) == (Endpoint("10.0.0.1", 8080),)
