"""Requests of one listener that go to several upstreams: by host, path, method and header, and by weight."""

from collections import Counter
from random import Random
from typing import Any

import pytest
from unit.proxy.harness import ok, request
from unit.proxy.routed import Routed

from sidecar.cluster import Cluster
from sidecar.errors import Reason
from sidecar.http1.scan import scan_request
from sidecar.model import Endpoint, Snapshot, UpstreamPolicy
from sidecar.model.stats import METHODS
from sidecar.proxy.downstream import MAX_ROUTED
from sidecar.proxy.follow import clients_of, follow_policy
from sidecar.proxy.hedge import HedgedExchange
from sidecar.proxy.router import Route, authority_host


def to(name: str, **fields: Any) -> dict[str, Any]:
    """A route to one upstream."""
    return {"targets": [(name, 1)], **fields}


def fits(raw: bytes, **fields: Any) -> bool:
    head = scan_request(raw, 0, 65536)
    assert head is not None
    return bool(Route(0, (), **fields).fits(head, authority_host(head.field(b"host"))))


@pytest.mark.parametrize(
    ("path", "target", "wanted"),
    [
        (b"/", "/", True),
        (b"/", "/a/b?c", True),
        (b"/v1", "/v1", True),
        (b"/v1", "/v1/", True),
        (b"/v1", "/v1?x=/", True),
        (b"/v1", "/v1/a", True),
        (b"/v1", "/v10", False),
        (b"/v1", "/v1.1", False),
        (b"/v1/", "/v1", True),
        (b"/v1/", "/v1/a", True),
        (b"/v1/", "/v10/", False),
        (b"/v1", "/V1", False),
        # As they are written, whatever others make of them.
        (b"/v1", "//v1", False),
        (b"/v1", "/a/../v1", False),
        (b"/v1", "/v1/../admin", True),
        (b"/v1", "/%761", False),
        (b"/v1", "/v1%2Fa", False),
        (b"/v1", "/?/v1", False),
        (b"/a%2Fb", "/a%2Fb/c", True),
        (b"/a%2Fb", "/a%2fb/c", False),
    ],
)
def test_a_path_is_whole_segments_of_what_came(path: bytes, target: str, wanted: bool) -> None:
    assert fits(request(f"GET {target}"), path=path) is wanted


def test_a_route_for_all_takes_the_server_itself() -> None:
    assert fits(request("OPTIONS *"))
    assert not fits(request("OPTIONS *"), path=b"/v1")


@pytest.mark.parametrize(
    ("host", "said", "wanted"),
    [
        (b"api.example", "api.example", True),
        (b"api.example", "API.Example:8080", True),
        (b"api.example", "api.example.:80", True),
        (b"api.example", "other.example", False),
        (b"api.example", "api.example.evil", False),
        (b"*.example", "api.example:1", True),
        (b"*.example", "a.b.example", True),
        (b"*.example", "example", False),
        (b"*.example", ".example", False),
        (b"*.example", "notexample", False),
        (b"127.0.0.1", "127.0.0.1:80", True),
        (b"", "anything", True),
    ],
)
def test_a_host_is_compared_without_port_and_case(host: bytes, said: str, wanted: bool) -> None:
    raw = f"GET / HTTP/1.1\r\nHost: {said}\r\n\r\n".encode()
    assert fits(raw, host=host) is wanted


def test_a_request_without_a_host_is_for_none_by_name() -> None:
    assert not fits(request(version="1.0"), host=b"api.example")
    assert authority_host(b"[::1]:80") == b"[::1]"


def test_methods_and_headers() -> None:
    get = [METHODS.index("GET")]
    assert fits(request(), methods=get)
    assert not fits(request("POST /", "Content-Length: 0"), methods=get)
    fields = [(b"x-canary", b"yes"), (b"x-user", b"7")]
    assert fits(request("GET /", "X-Canary:  yes ", "X-USER: 7"), fields=fields)
    assert not fits(request("GET /", "X-Canary: yes"), fields=fields)
    assert not fits(request("GET /", "X-Canary: Yes", "x-user: 7"), fields=fields)
    assert not fits(request("GET /", "x-user: 8", "x-user: 7", "x-canary: yes"), fields=fields)


def test_the_first_route_that_fits_is_the_one() -> None:
    proxy = Routed("one two", to("one", path=b"/v1"), to("two"))
    client = proxy.client()
    got = [proxy.served_by(client, request(f"GET {path}"), answer=ok()) for path in ("/v1/a", "/v2", "/v1")]
    assert got == ["one", "two", "one"]
    assert proxy.counts("one") == {("2xx", "none"): 2}
    assert proxy.counts("two") == {("2xx", "none"): 1}
    assert proxy.counts("api") == {}
    assert proxy.cluster.stats.routed == {(0, "one"): 2, (1, "two"): 1}
    proxy.finish()


def test_what_fits_no_route_is_answered_by_the_listener() -> None:
    proxy = Routed("one", to("one", path=b"/v1"))
    client = proxy.client(request("GET /other"))
    assert client.data.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert b"x-sidecar-error: no_route\r\n" in client.data
    assert b'"upstream": "api"' in client.data
    assert proxy.counts("api") == {("4xx", "no_route"): 1}
    assert not client.closing
    client.taken()
    # A body that has come is passed over, and the next request on the connection is routed.
    client.feed(request("POST /x", "Content-Length: 3", body=b"abc"))
    assert client.taken().startswith(b"HTTP/1.1 404 ")
    assert proxy.served_by(client, request("GET /v1"), answer=ok()) == "one"
    proxy.finish()


def test_what_is_no_request_is_counted_by_the_listener() -> None:
    proxy = Routed("one", to("one"))
    client = proxy.client()
    proxy.served_by(client, request(), answer=ok())
    client.taken()
    client.feed(b"no request\r\n\r\n")
    assert b'"upstream": "api"' in client.data
    assert proxy.counts("api") == {("4xx", "bad_request"): 1}
    proxy.finish()


def test_a_head_is_as_long_as_the_listener_allows() -> None:
    proxy = Routed("one", to("one"), max_request_head=2048, policies={"one": {"max_request_head": 65536}})
    client = proxy.client(request("GET /", f"x: {'y' * 3000}"))
    assert client.data.startswith(b"HTTP/1.1 431 ")
    assert proxy.counts("api") == {("4xx", "too_large"): 1}
    proxy.finish()


@pytest.mark.parametrize(
    ("chance", "wanted"), [(0.0, "one"), (0.94, "one"), (0.951, "two"), (0.999, "two"), (1.0 - 1e-17, "two")]
)
def test_weights_are_shares_of_chance(chance: float, wanted: str) -> None:
    proxy = Routed("one two", {"targets": [("one", 95), ("two", 5)]}, chances=(chance,))
    assert proxy.served_by(proxy.client(), request(), answer=ok()) == wanted
    proxy.finish()


def test_a_canary_gets_its_share() -> None:
    """5 % of 10,000 are 500, give or take 22; six times that is not met by chance in a lifetime."""
    proxy = Routed("one two")
    route = Route(0, [(proxy.others["one"], 95), (proxy.others["two"], 5)])
    chance = Random(20)
    chosen = Counter(route.choose(chance.random).name for _ in range(10_000))
    assert chosen.total() == 10_000
    assert abs(chosen["two"] - 500) < 6 * 22


def test_who_weighs_nothing_gets_nothing() -> None:
    for chance in (0.0, 0.5, 0.999):
        proxy = Routed("no one none", {"targets": [("no", 0), ("one", 3), ("none", 0)]}, chances=(chance,))
        assert proxy.served_by(proxy.client(), request(), answer=ok()) == "one"
        assert proxy.cluster.stats.routed == {(0, "no"): 0, (0, "one"): 1, (0, "none"): 0}
        proxy.finish()
    targets = [(proxy.others["one"], 1), (proxy.others["no"], 1), (proxy.others["none"], 0)]
    assert Route(0, targets).choose(lambda: 1.0).name == "no"  # what rounding could make of a chance


def test_pipelined_requests_are_answered_in_order_by_different_upstreams() -> None:
    proxy = Routed("one two", to("one", path=b"/1"), to("two", path=b"/2"))
    client = proxy.client(b"".join(request(f"GET /{number}") for number in (1, 2, 1, 9, 2)))
    for body in (b"a", b"b", b"c", b"d"):
        endpoint = proxy.accept() if proxy.connecting else proxy.busy[-1]
        endpoint.feed(ok(body))
    bodies = [part[:1] for part in client.data.split(b"\r\n\r\n")[1:]]
    assert bodies == [b"a", b"b", b"c", b"{", b"d"]
    assert proxy.cluster.stats.routed == {(0, "one"): 2, (1, "two"): 2}
    proxy.finish()


def test_a_connection_keeps_some_exchanges_and_no_more() -> None:
    names = [f"u{number}" for number in range(MAX_ROUTED + 2)]
    proxy = Routed(" ".join(names), *(to(name, path=f"/{name}".encode()) for name in names))
    client = proxy.client()
    connection: Any = client.protocol
    seen: Counter[int] = Counter()
    for _ in range(2):
        for name in names[:MAX_ROUTED]:
            proxy.served_by(client, request(f"GET /{name}"), answer=ok())
            seen.update(map(id, connection._routed))
    assert len(seen) == len(connection._routed) == MAX_ROUTED
    proxy.served_by(client, request(f"GET /{names[-1]}"), answer=ok())
    assert [exchange.cluster.name for exchange in connection._routed] == [*names[1:MAX_ROUTED], names[-1]]
    assert connection.cluster is connection.home
    proxy.finish()


def test_many_that_are_answered_at_once_do_not_end_who_is_still_at_work() -> None:
    """Nobody is left to serve: each is answered from within the one before, and exchanges are let go meanwhile."""
    names = [f"u{number}" for number in range(MAX_ROUTED * 3)]
    proxy = Routed(" ".join(names), *(to(name, path=f"/{name}".encode()) for name in names))
    for name in names[1:]:
        proxy.others[name].apply(Snapshot(name, (), "static"))
    client = proxy.client(b"".join(request(f"GET /{name}") for name in [*names, *names[1:]]))
    proxy.accept().feed(ok())
    assert client.data.count(b"HTTP/1.1 503 ") == 2 * (len(names) - 1)
    assert all(proxy.counts(name) == {("5xx", "no_endpoints"): 2} for name in names[1:])
    proxy.finish()


def test_an_exchange_is_of_the_kind_that_its_upstream_asks_for_now() -> None:
    proxy = Routed("one", to("one"))
    client = proxy.client()
    connection: Any = client.protocol
    proxy.served_by(client, request(), answer=ok())
    client.feed(request())
    proxy.others["one"].reconfigure(UpstreamPolicy(hedge_after=1.0))
    follow_policy(proxy.context, [proxy.others["one"], proxy.cluster])
    assert not connection.outdated  # it is home's that counts there
    proxy.busy[-1].feed(ok())
    client.feed(request())
    assert isinstance(connection.exchange, HedgedExchange)
    assert len(connection._routed) == 1
    proxy.busy[-1].feed(ok())
    proxy.finish()


def test_an_exchange_of_another_kind_outdates_nothing_of_home() -> None:
    proxy = Routed("one", to("one"), policies={"one": {"hedge_after": 1.0}})
    client = proxy.client(request())
    connection: Any = client.protocol
    assert isinstance(connection.exchange, HedgedExchange)
    follow_policy(proxy.context, [proxy.cluster])
    assert not connection.outdated
    proxy.accept().feed(ok())
    proxy.finish()


def test_home_renews_its_own_exchange() -> None:
    proxy = Routed("one", to("one", path=b"/v1"))
    client = proxy.client()
    connection: Any = client.protocol
    proxy.served_by(client, request("GET /v1"), answer=ok())
    proxy.cluster.reconfigure(UpstreamPolicy(hedge_after=1.0))
    follow_policy(proxy.context, [proxy.cluster])
    assert connection.outdated
    client.feed(request("GET /none"))
    assert isinstance(connection.exchange, HedgedExchange)
    assert not connection.outdated
    proxy.finish()


def test_routes_change_between_two_requests_of_a_connection() -> None:
    proxy = Routed("one two", to("one"))
    client = proxy.client()
    assert proxy.served_by(client, request(), answer=ok()) == "one"
    client.feed(request())  # under way while they change
    proxy.route(to("two"))
    assert proxy.busy[-1].protocol.exchange.cluster.name == "one"
    proxy.busy[-1].feed(ok())
    assert proxy.served_by(client, request(), answer=ok()) == "two"
    assert proxy.cluster.stats.routed == {(0, "two"): 1}
    proxy.route(to("two"), to("one"))
    assert proxy.cluster.stats.routed == {(0, "two"): 1, (1, "one"): 0}
    proxy.finish()


# Upstreams and routers that leave


def test_a_router_that_leaves_closes_the_connections_of_its_clients() -> None:
    proxy = Routed("one", to("one"))
    client = proxy.client(request())
    proxy.cluster.leaving = True
    connection: Any = client.protocol
    assert clients_of(proxy.context, [proxy.cluster]) == {proxy.cluster: [connection]}
    proxy.accept().feed(ok())
    assert b"Connection: close\r\n" in client.data
    assert client.closing
    proxy.finish()


def test_an_upstream_that_leaves_takes_no_idle_client_of_the_router_along() -> None:
    proxy = Routed("one two", to("one"))
    one = proxy.others["one"]
    client = proxy.client()
    proxy.served_by(client, request(), answer=ok())
    assert clients_of(proxy.context, [one]) == {}
    client.taken()
    client.feed(request())
    assert clients_of(proxy.context, [one]) == {one: [client.protocol]}
    proxy.route(to("two"))
    one.leaving = True
    proxy.busy[-1].feed(ok())
    assert b"Connection: close" not in client.taken()
    assert not client.closing
    assert proxy.served_by(client, request(), answer=ok()) == "two"
    proxy.finish()


def test_quiet_clients_are_retired_and_busy_ones_are_not() -> None:
    proxy = Routed("one", to("one"))
    client = proxy.client(request())
    connection: Any = client.protocol
    assert connection.retire(proxy.clock.monotonic() + 9.0)
    proxy.accept().feed(ok())
    assert not connection.retire(proxy.clock.monotonic() + 9.0)
    assert client.closing
    proxy.finish()


# What else an exchange can do, it can when it was routed


def test_a_client_that_leaves_in_the_middle() -> None:
    proxy = Routed("one", to("one"))
    client = proxy.client(request())
    proxy.accept()
    client.lose()
    assert proxy.counts("one") == {("4xx", "client_gone"): 1}
    proxy.finish()


def test_an_upgrade_is_a_session_of_the_upstream() -> None:
    proxy = Routed("one", to("one"))
    client = proxy.client(request("GET /", "Connection: upgrade", "Upgrade: chat"))
    endpoint = proxy.accept()
    endpoint.feed(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\nhello")
    assert client.data.endswith(b"hello")
    assert proxy.others["one"].stats.sessions_active == 1
    assert proxy.cluster.stats.sessions_active == 0
    client.feed(b"there")
    assert endpoint.data.endswith(b"there")
    proxy.finish()


def test_expect_is_asked_of_the_upstream() -> None:
    proxy = Routed("one", to("one"))
    client = proxy.client(request("POST /", "Expect: 100-continue", "Content-Length: 2"))
    endpoint = proxy.accept()
    assert endpoint.taken().endswith(b"\r\n\r\n")
    endpoint.feed(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert client.taken() == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.feed(b"hi")
    endpoint.feed(ok())
    assert client.data.startswith(b"HTTP/1.1 200 ")
    proxy.finish()


def test_a_failed_attempt_is_tried_again_at_the_same_upstream() -> None:
    proxy = Routed("one two", {"targets": [("one", 1), ("two", 1)]}, chances=(0.0, 0.9))
    client = proxy.client(request())
    proxy.accept().lose()
    again = proxy.accept()
    assert again.protocol.endpoint.endpoint.host == "10.0.1.1"
    again.feed(ok())
    assert client.data.startswith(b"HTTP/1.1 200 ")
    assert proxy.others["one"].stats.retries[Reason.RESET_BEFORE_HEADERS] == [0, 1]
    proxy.finish()


def test_a_deadline_header_is_the_upstreams_own() -> None:
    proxy = Routed("one", to("one"), policies={"one": {"deadline_header": b"x-timeout-ms"}})
    client = proxy.client(request("GET /", "x-timeout-ms: 500"))
    assert b"x-timeout-ms: 500\r\n" in proxy.accept().data
    proxy.pass_time(0.8)
    assert client.data.startswith(b"HTTP/1.1 504 ")
    assert proxy.others["one"].stats.deadlines_exceeded == 1
    proxy.finish()


def test_a_slow_endpoint_is_hedged() -> None:
    proxy = Routed("one", to("one"), policies={"one": {"hedge_after": 0.5, "retries": 1}})
    one = proxy.others["one"]
    two_endpoints(one)
    client = proxy.client(request())
    first = proxy.accept()
    proxy.clock.advance(0.6)
    proxy.run_timers()
    second = proxy.accept()
    second.feed(ok(b"second"))
    assert client.data.endswith(b"second")
    assert first.closing
    assert one.stats.hedges == [0, 1]
    proxy.finish()


def two_endpoints(cluster: Cluster) -> None:
    cluster.apply(
        Snapshot(cluster.name, tuple(Endpoint(f"10.0.1.{number}", 80) for number in (1, 9)), "static")
    )


def test_a_key_is_hashed_by_the_upstreams_own_policy() -> None:
    proxy = Routed("one", to("one"), policies={"one": {"strategy": "ring_hash", "hash_on": "path"}})
    two_endpoints(proxy.others["one"])
    places = set()
    for _ in range(3):
        client = proxy.client(request("GET /same"))
        endpoint = proxy.accept() if proxy.connecting else proxy.busy[-1]
        places.add(endpoint.protocol.endpoint.endpoint.host)
        endpoint.feed(ok())
        client.lose()
    assert len(places) == 1
    proxy.finish()
