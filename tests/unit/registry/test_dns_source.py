"""The dns source before a scripted name server: what it asks, what it makes of the answers, and when it asks again."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import pytest
from support.clock import FakeClock
from support.dns import NameServer, Query
from support.ports import free_port, has_ipv6

from sidecar.config.settings import Address, RegistrySettings
from sidecar.errors import SourceError
from sidecar.model import Endpoint, Snapshot
from sidecar.registry.dns import answer, client
from sidecar.registry.sources import dns as dns_source
from sidecar.registry.sources.dns import DnsSource
from sidecar.registry.sources.source import Surroundings, Wanted

API = Wanted("api", "backend.example", default_port=8080)
SERVICE = Wanted("api", "_http._tcp.backend.example")
SHORT = 0.4  # seconds that a silent server is waited for; what answers in the same test has them too
LONG = 20.0  # that no test needs


async def no_resolve(host: str, port: int) -> list[Any]:
    raise AssertionError(f"{host} is to be asked of the scripted server alone")


class Asking:
    """A source before scripted servers. pauses: how long it would have waited before each further round."""

    def __init__(self, *servers: NameServer | int, stale_after: float = 60.0, **keywords: Any) -> None:
        self.pauses: list[float] = []
        self.clock = FakeClock(chances=(0.0,))
        hosts = tuple(
            Address("127.0.0.1", one) if isinstance(one, int) else Address(one.host, one.port)
            for one in servers
        )
        surroundings = Surroundings(self.clock, {}, no_resolve)  # type: ignore[arg-type]
        self.source = DnsSource(
            RegistrySettings("dns", "dns", hosts, stale_after=stale_after),
            surroundings,
            sleep=self.sleep,
            **{"timeout": LONG, **keywords},
        )

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)

    @asynccontextmanager
    async def watch(self, wanted: Wanted = API) -> AsyncIterator[AsyncIterator[Snapshot | None]]:
        async with aclosing(self.source.watch([wanted])) as stream, asyncio.timeout(20):  # type: ignore[type-var]
            yield stream

    async def first(self, wanted: Wanted = API) -> tuple[Endpoint, ...]:
        async with self.watch(wanted) as stream:
            snapshot = await anext(stream)
        assert snapshot is not None
        assert (snapshot.upstream, snapshot.source) == (wanted.upstream, "dns")
        return snapshot.endpoints

    async def error(self, wanted: Wanted = API) -> str:
        with pytest.raises(SourceError) as caught:
            await self.first(wanted)
        assert "\n" not in str(caught.value)
        return str(caught.value)


def endpoints(*addresses: str, port: int = 8080) -> tuple[Endpoint, ...]:
    return tuple(Endpoint(address, port) for address in addresses)


def silence(query: Query) -> list[bytes]:
    return []


@pytest.fixture
async def server() -> AsyncIterator[NameServer]:
    async with NameServer() as made:
        yield made


@pytest.fixture
async def other() -> AsyncIterator[NameServer]:
    async with NameServer() as made:
        yield made


# Addresses


async def test_both_families_are_asked_for_and_sorted(server: NameServer) -> None:
    server.says("backend.example", "A", *(f"backend.example 5 A {ip}" for ip in ("10.0.0.10", "10.0.0.9")))
    server.says("backend.example", "AAAA", "backend.example 5 AAAA 2001:db8::1")
    assert await Asking(server).first() == endpoints("10.0.0.9", "10.0.0.10", "2001:db8::1")
    assert sorted(server.asked) == ["udp A backend.example", "udp AAAA backend.example"]


async def test_the_same_set_in_another_order_is_no_change_and_another_set_is(server: NameServer) -> None:
    a, b, c = (f"backend.example 5 A 10.0.0.{n}" for n in (1, 2, 3))
    server.says("backend.example", "A", a, b)
    asking = Asking(server)
    async with asking.watch() as stream:
        assert await anext(stream) == Snapshot("api", endpoints("10.0.0.1", "10.0.0.2"), "dns")
        server.says("backend.example", "A", b, a)
        assert await anext(stream) is None
        assert await anext(stream) is None
        server.says("backend.example", "A", b, c)
        assert await anext(stream) == Snapshot("api", endpoints("10.0.0.2", "10.0.0.3"), "dns")
    assert asking.pauses == [5.0, 5.0, 5.0]


@pytest.mark.parametrize(
    ("ttl", "pause"), [(0, 1.0), (1, 1.0), (7, 7.0), (300, 30.0), (2**31 - 1, 30.0), (2**31, 1.0)]
)
async def test_the_ttl_within_its_bounds_is_the_pause(server: NameServer, ttl: int, pause: float) -> None:
    server.says("backend.example", "A", f"backend.example {ttl} A 10.0.0.1")
    asking = Asking(server)
    async with asking.watch() as stream:
        await anext(stream)
        await anext(stream)
    assert asking.pauses == [pause]


async def test_the_ttl_of_the_family_that_ends_first_is_the_pause(server: NameServer) -> None:
    server.says("backend.example", "A", "backend.example 9 A 10.0.0.1")
    server.says("backend.example", "AAAA", "backend.example 4 AAAA ::2")
    asking = Asking(server)
    async with asking.watch() as stream:
        await anext(stream)
        await anext(stream)
    assert asking.pauses == [4.0]


async def test_the_pause_is_made_shorter_by_chance_alone(server: NameServer) -> None:
    server.says("backend.example", "A", "backend.example 10 A 10.0.0.1")
    asking = Asking(server)
    asking.clock._chances = [0.5]
    async with asking.watch() as stream:
        await anext(stream)
        await anext(stream)
    assert asking.pauses == [9.5]


async def test_there_are_two_signs_of_life_before_it_counts_as_stale(server: NameServer) -> None:
    server.says("backend.example", "A", "backend.example 300 A 10.0.0.1")
    asking = Asking(server, stale_after=8.0)
    async with asking.watch() as stream:
        await anext(stream)
        await anext(stream)
    assert asking.pauses == [4.0]


async def test_hosts_of_the_configuration_are_resolved_with_what_belongs_to_them(server: NameServer) -> None:
    server.says("a.example", "A", "a.example 9 A 10.0.0.2", "a.example 9 A 10.0.0.1")
    server.says("b.example", "A", "b.example 4 A 10.0.0.2", "b.example 4 A 10.0.0.3")
    server.says("gone.example", "A", rcode="NXDOMAIN")
    hosts = (
        Endpoint("a.example", 80, 2, "north"),
        Endpoint("b.example", 80),
        Endpoint("gone.example", 80),
        Endpoint("10.0.0.9", 81),
        Endpoint("LocalHost", 82),
    )
    asking = Asking(server)
    async with asking.watch(Wanted("api", "", endpoints=hosts)) as stream:
        snapshot = await anext(stream)
        await anext(stream)
    assert snapshot is not None
    assert snapshot.endpoints == (
        Endpoint("10.0.0.1", 80, 2, "north"),
        Endpoint("10.0.0.2", 80, 2, "north"),  # the first host that has it
        Endpoint("10.0.0.3", 80),
        Endpoint("10.0.0.9", 81),
        Endpoint("127.0.0.1", 82),
        Endpoint("::1", 82),
    )
    assert asking.pauses == [4.0]


async def test_one_host_that_fails_fails_its_upstream(server: NameServer) -> None:
    server.says("a.example", "A", "a.example 9 A 10.0.0.2")
    server.says("b.example", "A", rcode="SERVFAIL")
    hosts = (Endpoint("a.example", 80), Endpoint("b.example", 80))
    assert "b.example (A): SERVFAIL" in await Asking(server).error(Wanted("api", "", endpoints=hosts))


async def test_addresses_that_serve_nobody_are_left_out_and_told_once(
    server: NameServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.says(
        "backend.example", "A", *(f"backend.example 1 A {ip}" for ip in ("0.0.0.0", "224.0.0.1", "10.0.0.1"))
    )
    asking = Asking(server)
    async with asking.watch() as stream:
        snapshot = await anext(stream)
        assert await anext(stream) is None
    assert snapshot is not None
    assert snapshot.endpoints == endpoints("10.0.0.1")
    assert [record.getMessage() for record in caplog.records] == [
        "dns: api: backend.example has the address 0.0.0.0, which serves nobody; left out",
        "dns: api: backend.example has the address 224.0.0.1, which serves nobody; left out",
    ]


async def test_endpoints_are_bounded(
    server: NameServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dns_source, "MAX_ENDPOINTS", 2)
    server.says("backend.example", "A", *(f"backend.example 1 A 10.0.0.{n}" for n in (3, 1, 2)))
    assert await Asking(server).first() == endpoints("10.0.0.1", "10.0.0.2")
    assert "only 2 of 3 endpoints are used" in caplog.text


@pytest.mark.skipif(not has_ipv6(), reason="no ::1 here")
async def test_a_name_server_may_have_an_ipv6_address() -> None:
    async with NameServer("::1") as server:
        server.does(
            "backend.example",
            "A",
            lambda query: [truncated(query) if query.over == "udp" else query.wire(MANY[0])],
        )
        assert await Asking(server).first() == endpoints("10.0.0.1")
        server.says("backend.example", "A", rcode="SERVFAIL")
        assert f"SERVFAIL from [::1]:{server.port}" in await Asking(server).error()


# Names that are not there


@pytest.mark.parametrize("rcode", ["NXDOMAIN", "NOERROR"])
async def test_no_such_name_and_no_addresses_are_empty_and_asked_for_less_and_less(
    server: NameServer, rcode: str
) -> None:
    for kind in ("A", "AAAA"):
        server.says("backend.example", kind, rcode=rcode)
    asking = Asking(server)
    asking.clock._chances = [1.0]
    async with asking.watch() as stream:
        assert await anext(stream) == Snapshot("api", (), "dns")
        for _ in range(6):
            assert await anext(stream) is None
        assert asking.pauses == [2.0, 3.0, 5.0, 9.0, 17.0, 30.0]
        asking.clock._chances = [0.0]
        await anext(stream)
        assert asking.pauses[-1] == 1.0
        server.says("backend.example", "A", "backend.example 5 A 10.0.0.1")
        assert await anext(stream) == Snapshot("api", endpoints("10.0.0.1"), "dns")
        server.says("backend.example", "A", rcode=rcode)
        assert await anext(stream) == Snapshot("api", (), "dns")
        asking.clock._chances = [1.0]
        await anext(stream)
        assert asking.pauses[-1] == 2.0


async def test_a_name_that_is_not_there_is_not_there_however_aaaa_fails(server: NameServer) -> None:
    server.says("backend.example", "A", rcode="NXDOMAIN")
    server.says("backend.example", "AAAA", rcode="SERVFAIL")
    assert await Asking(server).first() == ()


# Servers that fail


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED", "FORMERR", "NOTIMP", "BADVERS"])
async def test_a_refusal_names_the_name_the_server_and_the_reason(server: NameServer, rcode: str) -> None:
    server.says("backend.example", "A", rcode=rcode)
    assert await Asking(server).error() == f"backend.example (A): {rcode} from 127.0.0.1:{server.port}"
    assert server.asked.count("udp A backend.example") == (2 if rcode in ("FORMERR", "NOTIMP") else 1)


async def test_a_server_without_edns_is_asked_without(server: NameServer) -> None:
    def old(query: Query) -> list[bytes]:
        if query.message.edns >= 0:
            return [query.message.id.to_bytes(2, "big") + b"\x81\x81" + bytes(8)]  # FORMERR, and no question
        return [query.wire("backend.example 5 A 10.0.0.1")]

    server.does("backend.example", "A", old)
    assert await Asking(server).first() == endpoints("10.0.0.1")


async def test_a_silent_server_is_asked_twice_and_no_longer_waited_for(server: NameServer) -> None:
    server.does("backend.example", "A", silence)
    error = await Asking(server, timeout=SHORT).error()
    assert error == f"backend.example (A): no answer within 0.4 s from 127.0.0.1:{server.port}"
    assert server.asked.count("udp A backend.example") == 2
    assert server.asked.count("udp AAAA backend.example") == 1


async def test_nobody_there_is_known_at_once() -> None:
    port = free_port()
    async with asyncio.timeout(5):  # and not after two tries
        error = await Asking(port).error()
    assert error == f"backend.example (A): no answer (connection refused) from 127.0.0.1:{port}"


async def test_nobody_there_is_known_at_once_of_one_question_too() -> None:
    async with asyncio.timeout(5):
        error = await Asking(free_port()).error(SERVICE)
    assert f"{SERVICE.service} (SRV): no answer (connection refused)" in error


async def test_the_second_server_answers_for_the_first_that_keeps_silent(
    server: NameServer, other: NameServer
) -> None:
    server.does("backend.example", "A", silence)
    server.does("backend.example", "AAAA", silence)
    other.says("backend.example", "A", "backend.example 5 A 10.0.0.1")
    asking = Asking(server, other, timeout=SHORT)
    async with asking.watch() as stream:
        assert await anext(stream) == Snapshot("api", endpoints("10.0.0.1"), "dns")
        server.asked.clear()
        assert await anext(stream) is None
        assert server.asked == []  # left alone for a while
        asking.clock.advance(31.0)
        assert await anext(stream) is None
        assert server.asked


async def test_the_second_server_answers_for_the_first_that_refuses(
    server: NameServer, other: NameServer
) -> None:
    server.says("backend.example", "A", rcode="SERVFAIL")
    server.says("backend.example", "AAAA", "backend.example 5 AAAA ::2")
    other.says("backend.example", "A", "backend.example 5 A 10.0.0.1")
    assert await Asking(server, other).first() == endpoints("10.0.0.1", "::2")
    assert other.asked == ["udp A backend.example"]


async def test_an_attempt_ends_after_its_seconds(server: NameServer, other: NameServer) -> None:
    asking = Asking(server, other, timeout=SHORT)

    def slow(query: Query) -> list[bytes]:
        asking.clock.advance(11.0)
        return []

    server.does("backend.example", "A", slow)
    error = await asking.error()
    assert other.asked == []
    assert error == f"backend.example (A): no answer within 0.4 s from 127.0.0.1:{server.port}"


async def test_aaaa_that_fails_takes_nothing_away(
    server: NameServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "sidecar.registry")
    server.says("backend.example", "A", "backend.example 5 A 10.0.0.1")
    server.says("backend.example", "AAAA", "backend.example 5 AAAA ::2")
    async with Asking(server, timeout=SHORT).watch() as stream:
        assert await anext(stream) == Snapshot("api", endpoints("10.0.0.1", "::2"), "dns")
        server.says("backend.example", "AAAA", rcode="SERVFAIL")
        assert await anext(stream) is None
        server.does("backend.example", "AAAA", silence)
        assert await anext(stream) is None
        server.says("backend.example", "AAAA")
        assert await anext(stream) == Snapshot("api", endpoints("10.0.0.1"), "dns")
    assert [record.getMessage() for record in caplog.records if record.name == "sidecar.registry"] == [
        f"backend.example (AAAA): SERVFAIL from 127.0.0.1:{server.port}; its A records are used"
    ]


async def test_aaaa_that_fails_from_the_start_leaves_a(server: NameServer) -> None:
    server.says("backend.example", "A", "backend.example 5 A 10.0.0.1")
    server.does("backend.example", "AAAA", silence)
    assert await Asking(server, timeout=SHORT).first() == endpoints("10.0.0.1")


async def test_aaaa_that_fails_is_tried_once_more_and_no_longer_waited_for(
    server: NameServer, other: NameServer
) -> None:
    for one in (server, other):
        one.says("backend.example", "A", "backend.example 5 A 10.0.0.1")
        one.does("backend.example", "AAAA", silence)
    assert await Asking(server, other, timeout=SHORT).first() == endpoints("10.0.0.1")
    assert [one.asked.count("udp AAAA backend.example") for one in (server, other)] == [1, 1]


async def test_aaaa_that_fails_and_no_a_is_a_failure(server: NameServer) -> None:
    server.says("backend.example", "AAAA", rcode="REFUSED")
    assert "backend.example (AAAA): REFUSED" in await Asking(server).error()


# Messages that are not what they should be


def respond_not(wire: bytes) -> bytes:
    return wire[:2] + bytes((wire[2] & 0x7F,)) + wire[3:]


EVIL = f"{SERVICE.service} 5 SRV 0 0 6666 a.example."


@pytest.mark.parametrize(
    "spoof",
    [
        lambda query: bytes((query.wire(EVIL)[0] ^ 1,)) + query.wire(EVIL)[1:],
        lambda query: respond_not(query.wire(EVIL)),
        lambda query: query.wire(EVIL).replace(b"backend", b"backenb"),
        lambda query: query.wire(EVIL).replace(
            b"\x00\x21\x00\x01", b"\x00\x10\x00\x01", 1
        ),  # as if TXT were asked
        lambda query: query.wire()[:2] + b"\x81\x80" + bytes(8),  # nothing, of no question
        lambda query: query.wire()[:2] + b"\x81\x83" + bytes(8),
        lambda query: query.wire()[:2],
        lambda query: query.wire()[:11],
        lambda query: b"",
    ],
)
async def test_what_answers_another_question_is_no_answer(server: NameServer, spoof: Any) -> None:
    right = (f"{SERVICE.service} 5 SRV 0 0 80 a.example.",)
    server.says("a.example", "A", "a.example 5 A 10.0.0.1")
    server.does(SERVICE.service, "SRV", lambda query: [spoof(query), query.wire(*right), query.wire(EVIL)])
    assert await Asking(server).first(SERVICE) == endpoints("10.0.0.1", port=80)


async def test_of_two_answers_the_first_holds(server: NameServer) -> None:
    server.does("backend.example", "AAAA", silence)  # so that it goes on listening
    server.does(
        "backend.example", "A", lambda query: [query.wire(f"backend.example 5 A 10.0.0.{n}") for n in (1, 2)]
    )
    assert await Asking(server, timeout=SHORT).first() == endpoints("10.0.0.1")


async def test_a_flood_of_such_ends_with_the_answer(server: NameServer) -> None:
    flood = [b"garbage"] * 100
    server.does("backend.example", "A", lambda query: [*flood, query.wire("backend.example 5 A 10.0.0.1")])
    assert await Asking(server).first() == endpoints("10.0.0.1")


async def test_nothing_but_such_is_told(server: NameServer) -> None:
    server.does("backend.example", "A", lambda query: [b"garbage", b"and more"])
    error = await Asking(server, timeout=SHORT).error()
    assert "no answer within 0.4 s, but 2 messages that answer nothing from 127.0.0.1" in error


async def test_an_answer_that_cannot_be_read_is_a_failure(server: NameServer) -> None:
    server.does("backend.example", "A", lambda query: [query.wire("backend.example 5 A 10.0.0.1")[:-3]])
    assert "an answer that cannot be read" in await Asking(server).error()


async def test_a_question_in_other_case_is_the_same(server: NameServer) -> None:
    server.does(
        "backend.example",
        "A",
        lambda query: [query.wire("backend.example 5 A 10.0.0.1").replace(b"backend", b"bAcKeNd")],
    )
    assert await Asking(server).first() == endpoints("10.0.0.1")


# TCP


def truncated(query: Query) -> bytes:
    made = query.response()
    made.flags |= dns.flags.TC
    return made.to_wire()


MANY = [f"backend.example 5 A 10.0.{n // 250}.{n % 250 + 1}" for n in range(600)]


async def test_what_is_truncated_is_asked_for_over_tcp(server: NameServer) -> None:
    server.does(
        "backend.example", "A", lambda query: [truncated(query) if query.over == "udp" else query.wire(*MANY)]
    )
    found = await Asking(server).first()
    assert len(found) == 600
    assert server.asked.count("tcp A backend.example") == 1


async def test_a_large_answer_is_read_aside(server: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []
    real = answer._read

    def read(*arguments: Any) -> Any:
        threads.append(threading.current_thread())
        return real(*arguments)

    monkeypatch.setattr(answer, "_read", read)
    server.does(
        "backend.example", "A", lambda query: [truncated(query) if query.over == "udp" else query.wire(*MANY)]
    )
    assert len(await Asking(server).first()) == 600
    aside = [thread for thread in threads if thread is not threading.main_thread()]
    assert [thread.name for thread in aside] == ["reading of backend.example (A)"]
    assert len(threads) == 2  # the other is of AAAA, which has none


async def test_a_server_without_tcp_cannot_say_more(server: NameServer) -> None:
    server.does("backend.example", "A", lambda query: [truncated(query)])
    await server.close_tcp()
    error = await Asking(server).error()
    assert "backend.example (A): no answer over TCP (connection refused)" in error


@pytest.mark.parametrize(
    ("over_tcp", "words"),
    [
        (lambda query: [truncated(query)], "an answer over TCP that cannot be used"),
        (lambda query: [b"garbage"], "an answer over TCP that cannot be used"),
        (lambda query: [b"no" + query.wire(MANY[0])[2:]], "an answer over TCP that cannot be used"),
        (lambda query: [query.wire(*MANY)[:100]], "an answer that cannot be read"),
        (lambda query: [b""], "an answer over TCP that breaks off"),
        (silence, "no answer over TCP within 0.4 s"),
        (lambda query: [query.wire(rcode="SERVFAIL")], "SERVFAIL"),
    ],
)
async def test_what_fails_over_tcp_is_a_failure(server: NameServer, over_tcp: Any, words: str) -> None:
    server.does(
        "backend.example", "A", lambda query: [truncated(query)] if query.over == "udp" else over_tcp(query)
    )
    assert f"backend.example (A): {words}" in await Asking(server, timeout=SHORT).error()


# Chains


async def test_the_least_ttl_of_the_chain_holds(server: NameServer) -> None:
    chain = ["backend.example 20 CNAME b.example", "b.example 3 CNAME c.example", "c.example 9 A 10.0.0.1"]
    server.says("backend.example", "A", *chain)
    server.says("backend.example", "AAAA", *chain[:2])
    server.says("c.example", "AAAA")
    asking = Asking(server)
    async with asking.watch() as stream:
        assert await anext(stream) == Snapshot("api", endpoints("10.0.0.1"), "dns")
        await anext(stream)
    assert asking.pauses == [3.0]


async def test_a_chain_that_leaves_the_answer_is_followed(server: NameServer) -> None:
    for kind in ("A", "AAAA"):
        server.says("backend.example", kind, "backend.example 20 CNAME b.example")
        server.says("b.example", kind, "b.example 2 CNAME c.example")
    server.says("c.example", "A", "c.example 9 A 10.0.0.1")
    asking = Asking(server)
    async with asking.watch() as stream:
        assert await anext(stream) == Snapshot("api", endpoints("10.0.0.1"), "dns")
        await anext(stream)
    assert asking.pauses == [2.0]


async def test_a_chain_whose_end_is_known_to_have_nothing_is_not_followed(server: NameServer) -> None:
    zone = ("example 60 SOA ns.example. admin.example. 1 60 60 60 60",)
    for kind in ("A", "AAAA"):
        server.says("backend.example", kind, "backend.example 20 CNAME b.example", authority=zone)
    assert await Asking(server).first() == ()
    assert len(server.asked) == 2


async def test_a_chain_that_goes_in_a_circle_is_a_failure(server: NameServer) -> None:
    circle = ["backend.example 20 CNAME b.example", "b.example 20 CNAME backend.example"]
    server.says("backend.example", "A", *circle)
    assert "backend.example (A): its CNAMEs go in a circle" in await Asking(server).error()
    server.says("backend.example", "A", circle[0])
    server.says("b.example", "A", circle[1])
    assert "the chain of CNAMEs that leads there does not end" in await Asking(server).error()
    assert len(server.asked) < 30
    server.says("b.example", "A", rcode="SERVFAIL")
    assert "b.example (A): SERVFAIL" in await Asking(server).error()


# Services


async def test_the_lowest_priority_is_used_with_addresses_that_came_along_or_are_asked_for(
    server: NameServer,
) -> None:
    server.says(
        SERVICE.service,
        "SRV",
        f"{SERVICE.service} 20 SRV 1 5 8001 A.Example.",
        f"{SERVICE.service} 20 SRV 1 0 8002 b.example.",
        f"{SERVICE.service} 20 SRV 2 9 8003 c.example.",
        beside=("a.example 8 A 10.0.0.1",),
    )
    server.says("b.example", "A", "b.example 6 A 10.0.0.2")
    asking = Asking(server)
    async with asking.watch(SERVICE) as stream:
        snapshot = await anext(stream)
        assert await anext(stream) is None
    assert snapshot == Snapshot("api", (Endpoint("10.0.0.1", 8001, 5), Endpoint("10.0.0.2", 8002, 1)), "dns")
    assert set(server.asked) == {f"udp SRV {SERVICE.service}", "udp A b.example", "udp AAAA b.example"}
    assert asking.pauses == [6.0]


async def test_the_next_priority_serves_where_no_target_of_the_lowest_has_an_address(
    server: NameServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.says(
        "backend.example",
        "SRV",
        "backend.example 20 SRV 1 5 8001 gone.example.",
        "backend.example 20 SRV 1 5 8001 no\\032name.example.",
        "backend.example 20 SRV 2 9 8003 c.example.",
    )
    server.says("gone.example", "A", rcode="NXDOMAIN")
    server.says("c.example", "A", "c.example 30 A 10.0.0.3")
    asking = Asking(server)
    async with asking.watch(Wanted("api", "backend.example", port="srv")) as stream:
        assert await anext(stream) == Snapshot("api", (Endpoint("10.0.0.3", 8003, 9),), "dns")
        assert await anext(stream) is None
    assert [record.getMessage() for record in caplog.records] == [
        "dns: api: the target gone.example of backend.example (SRV) has no address; left out",
        "dns: api: the target no\\032name.example of backend.example (SRV) has no address; left out",
    ]
    assert not any("name.example" in asked for asked in server.asked)


@pytest.mark.parametrize(
    "lines", [(), (f"{SERVICE.service} 20 SRV 0 0 0 .",), (f"{SERVICE.service} 20 SRV 0 0 80 gone.example.",)]
)
async def test_a_service_that_is_nowhere_is_empty(
    server: NameServer, lines: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    server.says(SERVICE.service, "SRV", *lines)
    assert await Asking(server).first(SERVICE) == ()
    assert len(caplog.records) == sum("gone" in line for line in lines)  # `.` is no mistake


async def test_a_target_that_fails_fails_the_service(server: NameServer) -> None:
    lines = (f"{SERVICE.service} 20 SRV 0 0 80 a.example.", f"{SERVICE.service} 20 SRV 0 0 80 b.example.")
    server.says(SERVICE.service, "SRV", *lines)
    server.says("a.example", "A", "a.example 30 A 10.0.0.3")
    server.says("b.example", "A", rcode="SERVFAIL")
    assert "b.example (A): SERVFAIL" in await Asking(server).error(SERVICE)


@pytest.mark.parametrize(
    ("records", "weights"),
    [
        ({1: (0, 1), 2: (0, 1)}, [1, 1]),
        ({1: (10, 1), 2: (20, 1)}, [10, 20]),
        ({1: (256, 1), 2: (0, 1)}, [256, 1]),
        ({1: (65535, 1), 2: (32768, 1), 3: (1, 1)}, [256, 128, 1]),
        ({1: (100, 2), 2: (300, 1)}, [43, 43, 256]),  # two addresses share 100
        ({1: (7, 2), 2: (3, 2)}, [7, 7, 3, 3]),
    ],
)
async def test_weights_keep_their_proportions(
    server: NameServer, records: dict[int, tuple[int, int]], weights: list[int]
) -> None:
    server.says(
        SERVICE.service,
        "SRV",
        *(f"{SERVICE.service} 20 SRV 0 {weight} 80 t{n}.example." for n, (weight, _) in records.items()),
        beside=tuple(
            f"t{n}.example 20 A 10.0.{n}.{k}" for n, (_, k_max) in records.items() for k in range(k_max)
        ),
    )
    found = await Asking(server).first(SERVICE)
    assert [endpoint.weight for endpoint in found] == weights


async def test_a_target_without_a_port_is_left_out(
    server: NameServer, caplog: pytest.LogCaptureFixture
) -> None:
    lines = (f"{SERVICE.service} 20 SRV 0 0 0 a.example.", f"{SERVICE.service} 20 SRV 0 0 80 b.example.")
    beside = ("a.example 20 A 10.0.0.1", "b.example 20 A 10.0.0.2")
    server.says(SERVICE.service, "SRV", *lines, beside=beside)
    assert await Asking(server).first(SERVICE) == (Endpoint("10.0.0.2", 80),)
    assert "the target a.example (SRV) has port 0; left out" in caplog.text


async def test_a_target_with_no_address_but_unusable_ones_is_left_out(server: NameServer) -> None:
    lines = (f"{SERVICE.service} 20 SRV 0 0 80 a.example.", f"{SERVICE.service} 20 SRV 0 0 80 b.example.")
    unusable = ("0.0.0.0", "224.0.0.1", "239.9.9.9"), ("::", "ff02::1", "::ffff:0.0.0.0", "::ffff:224.0.0.1")
    beside = [f"a.example 20 A {ip}" for ip in unusable[0]] + [
        f"a.example 20 AAAA {ip}" for ip in unusable[1]
    ]
    server.says(SERVICE.service, "SRV", *lines, beside=(*beside, "b.example 20 AAAA ::2"))
    assert await Asking(server).first(SERVICE) == (Endpoint("::2", 80),)


async def test_what_was_told_is_remembered_within_bounds(
    server: NameServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dns_source, "MAX_TOLD", 2)
    server.says("backend.example", "A", *(f"backend.example 1 A 224.0.0.{n}" for n in range(3)))
    asking = Asking(server)
    async with asking.watch() as stream:
        await anext(stream)
    assert len(asking.source._told) == 1


# What is asked


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Wanted("api", ""), "api: there is no name to ask for"),
        (
            Wanted("api", "", port="srv", endpoints=endpoints("a.example")),
            "api: `port: srv` asks for SRV records",
        ),
        (Wanted("api", "backend.example"), "api: DNS tells no port of backend.example"),
        (Wanted("api", "backend.example", port="http"), "api: port `http` is neither"),
        (Wanted("api", "bäckend.example", default_port=1), "api: service `bäckend.example` is no host"),
    ],
)
async def test_what_cannot_be_asked_says_what_to_write(
    server: NameServer, wanted: Wanted, words: str
) -> None:
    assert (await Asking(server).error(wanted)).startswith(words)
    assert server.asked == []


async def test_the_port_that_is_configured_goes_first(server: NameServer) -> None:
    server.says("backend.example", "A", "backend.example 5 A 10.0.0.1")
    wanted = Wanted("api", "backend.example", port="9", default_port=8080)
    assert await Asking(server).first(wanted) == endpoints("10.0.0.1", port=9)


async def test_addresses_alone_are_nobody_elses_business(server: NameServer) -> None:
    asking = Asking(server)
    async with asking.watch(Wanted("api", "", endpoints=endpoints("10.0.0.1"))) as stream:
        assert await anext(stream) == Snapshot("api", endpoints("10.0.0.1"), "dns")
        assert await anext(stream) is None
    assert asking.pauses == [30.0]
    assert server.asked == []


async def test_each_upstream_is_a_stream(server: NameServer) -> None:
    assert Asking(server).source.streams([API, SERVICE]) == [(API,), (SERVICE,)]


async def searching(tmp_path: Path, server: NameServer, monkeypatch: pytest.MonkeyPatch, text: str) -> Asking:
    monkeypatch.setattr("sidecar.registry.dns.directions.PORT", server.port)
    file = tmp_path / "resolv.conf"
    file.write_text(f"nameserver 127.0.0.1\n{text}\n")
    return Asking(resolv_conf=file)


async def test_short_names_go_through_the_search_list(
    server: NameServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking = await searching(tmp_path, server, monkeypatch, "search one.example two.example\noptions ndots:2")
    server.says("backend.one.example", "A", rcode="NXDOMAIN")
    server.says("backend.two.example", "A", "backend.two.example 5 A 10.0.0.2")
    server.says("a.b.c", "A", "a.b.c 5 A 10.0.0.3")
    server.says("backend", "A", "backend 5 A 10.0.0.4")
    assert await asking.first(Wanted("api", "backend", default_port=80)) == endpoints("10.0.0.2", port=80)
    assert [one for one in server.asked if " A " in one] == [
        "udp A backend.one.example",
        "udp A backend.two.example",
    ]
    server.asked.clear()
    assert await asking.first(Wanted("api", "a.b.c", default_port=80)) == endpoints("10.0.0.3", port=80)
    assert await asking.first(Wanted("api", "backend.", default_port=80)) == endpoints("10.0.0.4", port=80)
    assert [one for one in server.asked if " A " in one] == ["udp A a.b.c", "udp A backend"]
    server.says("backend.two.example", "A", rcode="NXDOMAIN")
    assert await asking.first(Wanted("api", "backend", default_port=80)) == endpoints("10.0.0.4", port=80)


async def test_a_domain_that_makes_a_name_too_long_is_passed_over(
    server: NameServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = ".".join(["d" * 49] * 5)  # 249 characters
    asking = await searching(tmp_path, server, monkeypatch, f"search {long} two.example")
    server.says("backend.two.example", "A", "backend.two.example 5 A 10.0.0.2")
    assert await asking.first(Wanted("api", "backend", default_port=80)) == endpoints("10.0.0.2", port=80)


async def test_a_search_domain_that_fails_is_not_passed_over(
    server: NameServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking = await searching(tmp_path, server, monkeypatch, "search one.example two.example")
    server.says("backend.one.example", "A", rcode="SERVFAIL")
    server.says("backend.two.example", "A", "backend.two.example 5 A 10.0.0.2")
    assert "backend.one.example (A): SERVFAIL" in await asking.error(
        Wanted("api", "backend", default_port=80)
    )


# The loops, and the end


@pytest.mark.every_loop
async def test_every_loop_asks_over_both(server: NameServer) -> None:
    server.says("backend.example", "AAAA", "backend.example 5 AAAA ::2")
    server.does(
        "backend.example", "A", lambda query: [truncated(query) if query.over == "udp" else query.wire(*MANY)]
    )
    async with Asking(server).watch() as stream:
        snapshot = await anext(stream)
        assert snapshot is not None
        assert len(snapshot.endpoints) == 601
        assert await anext(stream) is None


@pytest.mark.every_loop
@pytest.mark.parametrize("over", ["udp", "tcp"])
async def test_cancelled_it_leaves_nothing_open(server: NameServer, over: str) -> None:
    asked = asyncio.Event()

    def told(query: Query) -> list[bytes]:
        if query.over == over:
            asked.set()
            return []
        return [truncated(query)]

    for kind in ("A", "AAAA"):
        server.does("backend.example", kind, told)
    async with AsyncExitStack() as stack:
        stream = await stack.enter_async_context(Asking(server).watch())
        task = asyncio.ensure_future(anext(stream))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_sockets_are_bounded(server: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    one_try, running, most = client._try, 0, 0

    async def counted(*arguments: Any) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await one_try(*arguments)
        running -= 1

    monkeypatch.setattr(client, "AT_ONCE", 3)
    monkeypatch.setattr(client, "_try", counted)
    names = [f"h{n}.example" for n in range(20)]
    for n, name in enumerate(names):
        server.says(name, "A", f"{name} 5 A 10.0.0.{n}")
    assert len(await Asking(server).first(Wanted("api", "", endpoints=endpoints(*names)))) == 20
    assert most == 3


async def test_a_reply_that_is_the_same_is_read_once(
    server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.says("backend.example", "A", "backend.example 5 A 10.0.0.1")
    async with Asking(server).watch() as stream:
        await anext(stream)
        monkeypatch.setattr("sidecar.registry.dns.answer._read", None)
        assert await anext(stream) is None
