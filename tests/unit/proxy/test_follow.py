"""Open connections and another configuration: what they are told, and when it holds."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from support.transports import MemoryTransport
from unit.proxy.harness import Proxy, error_of, ok, request

from sidecar.cluster import Cluster
from sidecar.model import Outcome, UpstreamPolicy
from sidecar.proxy.deadline import TimedExchange
from sidecar.proxy.exchange import BODY_GRACE, Exchange
from sidecar.proxy.follow import clients_of, follow_policy, follow_times
from sidecar.proxy.hedge import HedgedExchange

MakeProxy = Callable[..., Proxy]


def change(proxy: Proxy, **policy: Any) -> None:
    """Another policy, as a reload brings it."""
    proxy.cluster.reconfigure(replace(proxy.cluster.policy, **policy))
    follow_policy(proxy.context, [proxy.cluster])


def kind_of(client: MemoryTransport) -> type[Exchange]:
    """Of the client's exchanges; the harness counts in a class that it derives."""
    protocol: Any = client.protocol
    return type(protocol.exchange)


def ask(proxy: Proxy, client: MemoryTransport) -> None:
    """One more request over the client's connection, answered."""
    before = len(client.data)
    client.feed(request())
    endpoint = proxy.accept() if proxy.connecting else proxy.busy[-1]
    endpoint.feed(ok())
    assert client.data[before:] == ok()
    proxy.begun += 1  # by an exchange that does not count for the harness


def test_a_quiet_connection_has_the_kind_of_exchange_that_is_asked_for_at_its_next_request(
    make_proxy: MakeProxy,
) -> None:
    proxy = make_proxy(endpoints=2)
    client = proxy.client()
    for policy, kind in (
        ({"hedge_after": 0.05}, HedgedExchange),
        ({"hedge_after": 0.0, "deadline_header": b"x-time"}, TimedExchange),
        ({"deadline_header": b""}, Exchange),
    ):
        change(proxy, **policy)
        ask(proxy, client)
        assert kind_of(client) is kind
    proxy.loop.turn()


def test_a_request_that_goes_on_ends_as_it_began_and_the_next_is_hedged(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(endpoints=2)
    client = proxy.client(request())
    first = proxy.accept()
    change(proxy, hedge_after=0.05)
    assert not issubclass(kind_of(client), HedgedExchange)
    first.feed(ok())
    client.feed(request())
    proxy.begun += 1
    proxy.accept()
    proxy.clock.advance(0.05)
    proxy.run_timers()
    first.feed(ok(b"second"))
    assert client.data == ok() + ok(b"second")
    assert proxy.cluster.stats.hedges == [0, 1]


def test_pipelined_requests_change_their_kind_between_two(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(endpoints=2)
    client = proxy.client(request() * 3)
    endpoint = proxy.accept()
    change(proxy, hedge_after=5.0)
    endpoint.feed(ok(b"1"))
    assert kind_of(client) is HedgedExchange
    proxy.accept().feed(ok(b"2"))
    proxy.busy[-1].feed(ok(b"3"))
    assert client.data == ok(b"1") + ok(b"2") + ok(b"3")
    proxy.begun += 2
    proxy.loop.turn()


def test_a_request_that_waits_to_be_hedged_is_not_once_that_is_off(make_proxy: MakeProxy) -> None:
    """Its exchange is still of that kind, be it for its whole connection's life."""
    proxy = make_proxy(endpoints=2, hedge_after=0.05)
    client = proxy.client(request("POST /", "Content-Length: 2"))
    proxy.cluster.reconfigure(replace(proxy.cluster.policy, hedge_after=0.0))
    endpoint = proxy.accept()
    client.feed(b"ab")
    assert proxy.run_timers() == []
    endpoint.feed(ok())
    client.feed(request())
    assert proxy.run_timers() == []
    proxy.accept().feed(ok())
    assert client.data == ok() * 2


def test_a_response_head_is_bounded_by_what_holds_when_its_request_goes_out(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(max_response_head=1024, retries=0)
    client = proxy.client()
    long = ok(b"ok", "X-Long: " + "x" * 2000)
    ask_again = request()
    client.feed(ask_again)
    endpoint = proxy.accept()
    endpoint.feed(ok())
    change(proxy, max_response_head=4096)
    client.feed(ask_again)
    proxy.begun += 1
    endpoint.feed(long)
    assert client.data == ok() + long
    assert len(proxy.upstreams) == 1, "over the same connection"
    proxy.loop.turn()


def test_a_session_may_end_with_its_endpoint_from_then_on(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(scheme="redis", breaker_threshold=1)
    client = proxy.client()
    proxy.accept()
    connecting = proxy.client()
    change(proxy, close_on_unhealthy=True)
    assert len(proxy.states[0].sessions) == 1, "the other one has no endpoint yet"
    proxy.cluster.report(proxy.states[0], Outcome.RESET, proxy.clock.now, 0)
    assert client.aborted
    assert not connecting.aborted
    proxy.settle()


def test_a_session_whose_endpoint_has_left_already_ends(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(scheme="redis", breaker_threshold=1)
    client = proxy.client()
    proxy.accept()
    proxy.cluster.report(proxy.states[0], Outcome.RESET, proxy.clock.now, 0)
    assert not client.aborted
    change(proxy, close_on_unhealthy=True)
    assert client.aborted


def test_responses_of_an_upstream_that_leaves_close_their_connections(make_proxy: MakeProxy) -> None:
    proxy = make_proxy()
    client = proxy.client(request())
    proxy.cluster.leaving = True
    proxy.accept().feed(ok())
    assert b"\r\nConnection: close\r\n" in client.data
    assert client.closing


# Times


@pytest.mark.parametrize(("idle", "closed"), [(10.0, True), (600.0, False)])
def test_a_quiet_connection_has_another_time(make_proxy: MakeProxy, idle: float, closed: bool) -> None:
    proxy = make_proxy()
    client = proxy.client(request())
    proxy.accept().feed(ok())
    follow_times(proxy.context, head=5.0, idle=idle, body_rate=0)
    assert (proxy.context.head_timeout, proxy.context.idle_timeout) == (5.0, idle)
    proxy.pass_time(60.5)
    assert client.closing is closed
    member: Any = client.protocol
    if not closed:
        assert not member.retire(proxy.clock.now), "quiet for long enough"


def test_a_shorter_time_does_not_make_it_look_busy(make_proxy: MakeProxy) -> None:
    proxy = make_proxy()
    client = proxy.client(request())
    proxy.accept().feed(ok())
    follow_times(proxy.context, head=10.0, idle=5.0, body_rate=0)
    proxy.pass_time(1.0)
    member: Any = client.protocol
    assert not member.retire(proxy.clock.now)


def test_a_body_is_no_longer_held_to_a_pace_that_is_off(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(context={"min_body_rate": 1000}, timeout=60.0)
    client = proxy.client(request("POST /", "Content-Length: 10"), b"a")
    endpoint = proxy.accept()
    follow_times(proxy.context, head=10.0, idle=60.0, body_rate=0)
    proxy.pass_time(BODY_GRACE + 10.0)
    assert not client.closing
    client.feed(b"bcdefghij")
    endpoint.feed(ok())
    assert client.data == ok()


def test_a_body_under_way_is_held_to_a_new_pace(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(timeout=60.0)
    client = proxy.client(request("POST /", "Content-Length: 10"), b"a")
    proxy.accept()
    quiet = proxy.client()
    follow_times(proxy.context, head=10.0, idle=60.0, body_rate=1000)
    proxy.pass_time(BODY_GRACE - 0.1)
    assert not client.closing
    proxy.pass_time(0.4)
    assert error_of(client.data) == (408, "request_timeout")
    assert not quiet.closing


def test_times_that_are_the_same_tell_nobody_anything(make_proxy: MakeProxy) -> None:
    proxy = make_proxy()
    client = proxy.client()
    member: Any = client.protocol
    before = member.deadline
    follow_times(proxy.context, head=1.0, idle=60.0, body_rate=0)
    assert member.deadline == before


# Who they are


def test_clients_of_some_upstreams(make_proxy: MakeProxy) -> None:
    proxy = make_proxy()
    duck: Any = proxy.clock
    other = Cluster("other", "http", UpstreamPolicy(), duck)
    clients = [proxy.client(), proxy.client(request())]
    proxy.accept()
    assert clients_of(proxy.context, [other]) == {}
    found = clients_of(proxy.context, [other, proxy.cluster])
    assert set(found) == {proxy.cluster}
    assert {id(one) for one in found[proxy.cluster]} == {id(client.protocol) for client in clients}
