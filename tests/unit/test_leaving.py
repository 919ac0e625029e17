"""Upstreams that are not configured any more, until nothing of them is in flight."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.transports import MemoryTransport
from unit.proxy.harness import Proxy, ok, request

from sidecar.cluster import Cluster
from sidecar.leaving import Leaving


class Bench:
    """A data path of which the upstream leaves. gone: those that have."""

    def __init__(self, scheme: str = "http") -> None:
        self.proxy = Proxy(scheme=scheme, idle_timeout=3.0 if scheme == "http" else 0.0)
        self.gone: list[Cluster] = []
        self.leaving = Leaving(self.proxy.context, self.gone.append)

    def leave(self, within: float = 10.0, quiet: float = 0.0) -> None:
        self.leaving.add(self.proxy.cluster, within, quiet)

    def idle_client(self) -> MemoryTransport:
        """One that has had an answer, some time ago."""
        client = self.proxy.client(request())
        endpoint = self.proxy.accept() if self.proxy.connecting else self.proxy.busy[-1]
        endpoint.feed(ok())
        self.proxy.clock.advance(1.0)
        return client

    def pass_time(self, seconds: float = 0.3) -> None:
        self.proxy.pass_time(seconds)

    @property
    def has_gone(self) -> bool:
        return self.gone == [self.proxy.cluster] and list(self.leaving) == []


Make = Callable[..., Bench]


@pytest.fixture
def bench() -> Iterator[Make]:
    made: list[Bench] = []

    def make(scheme: str = "http") -> Bench:
        made.append(Bench(scheme))
        return made[-1]

    yield make
    for one in made:
        one.proxy.finish()


def test_one_that_nobody_uses_goes_at_once_with_its_connections(bench: Make) -> None:
    one = bench()
    client = one.idle_client()
    one.proxy.clients.clear()
    client.lose()
    assert len(one.proxy.states[0].pool.idle) == 1
    one.leave()
    assert list(one.leaving) == [one.proxy.cluster]
    one.pass_time(0.0)
    assert one.has_gone
    assert one.proxy.cluster.endpoints == {}
    assert one.proxy.upstreams[0].closing
    assert one.leaving.deadline == float("inf")
    assert one.leaving not in one.proxy.context.sweep.members


def test_quiet_clients_are_closed_and_busy_ones_served_to_an_end(bench: Make) -> None:
    one = bench()
    quiet = one.idle_client()
    busy = one.proxy.client(request())
    endpoint = one.proxy.busy[-1]
    one.leave()
    one.pass_time()
    assert (quiet.closing, busy.closing, one.has_gone) == (True, False, False)
    endpoint.feed(ok())
    assert b"\r\nConnection: close\r\n" in busy.data
    one.pass_time()
    assert one.has_gone


def test_who_may_still_ask_is_answered_where_quiet_ones_are_left_alone(bench: Make) -> None:
    one = bench()
    client, other = one.idle_client(), one.idle_client()
    one.leave(within=10.0, quiet=7.0)
    one.pass_time(5.0)
    assert not client.closing
    client.feed(request())
    one.proxy.accept().feed(ok())
    assert b"\r\nConnection: close\r\n" in client.data
    one.proxy.settle()
    one.pass_time(1.0)
    assert (other.closing, one.has_gone) == (False, False)
    one.pass_time(1.5)
    assert (other.closing, one.has_gone) == (True, True)


def test_a_session_goes_on_until_its_time_is_over(bench: Make) -> None:
    one = bench("redis")
    client = one.proxy.client(b"PING")
    endpoint = one.proxy.accept()
    one.leave(within=10.0)
    one.pass_time(9.0)
    endpoint.feed(b"+PONG")
    assert (client.data, one.has_gone) == (b"+PONG", False)
    one.pass_time(1.5)
    assert (client.aborted, one.has_gone) == (True, True)
    assert one.proxy.sessions == {"draining": 1}


def test_a_session_that_ends_lets_it_go(bench: Make) -> None:
    one = bench("redis")
    client = one.proxy.client(b"PING")
    one.proxy.accept()
    one.leave()
    one.pass_time()
    assert not one.has_gone
    client.closing = True
    one.proxy.settle()
    one.pass_time()
    assert one.has_gone


def test_the_process_ends_meanwhile(bench: Make) -> None:
    one = bench()
    busy = one.proxy.client(request())
    one.proxy.accept()
    one.leave()
    assert not one.leaving.retire(one.proxy.clock.now), "what is in flight is asked by itself"
    one.leaving.shut()
    assert one.has_gone
    member: Any = busy.protocol
    member.shut()


def test_others_are_not_touched(bench: Make) -> None:
    one = bench()
    client = one.idle_client()
    duck: Any = one.proxy.clock
    other = Cluster("other", "http", one.proxy.cluster.policy, duck)
    one.leaving.add(other, 10.0)
    one.pass_time()
    assert one.gone == [other]
    assert not client.closing
