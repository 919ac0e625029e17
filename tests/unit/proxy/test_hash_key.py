"""The same key goes to the same endpoint: what of a request is the key."""

import pytest
from unit.proxy.harness import Proxy, ok, request

from sidecar.http1.head import scan_request as careful
from sidecar.http1.scan import scan_request


def host_of(proxy: Proxy, asked: bytes, peer: str = "127.0.0.1") -> str:
    """Which endpoint a request of a new client goes to."""
    client = proxy.client()
    client.extra["peername"] = (peer, 40000)
    client.feed(asked)
    endpoint = proxy.accept() if proxy.connecting else proxy.busy[-1]
    host: str = endpoint.protocol.endpoint.endpoint.host
    endpoint.feed(ok())
    return host


def hosts(hash_on: str, *asked: bytes) -> list[str]:
    proxy = Proxy(endpoints=8, strategy="ring_hash", hash_on=hash_on, chances=(0.1, 0.9, 0.3, 0.6, 0.2, 0.5))
    found = [host_of(proxy, one) for one in asked]
    proxy.finish()
    return found


@pytest.mark.parametrize("hash_on", ["header:X-User", "header:x-user"])
def test_a_header(hash_on: str) -> None:
    asked = [request(f"GET /{number}", f"x-USER: {number % 2}") for number in range(6)]
    one, other, *rest = hosts(hash_on, *asked)
    assert one != other
    assert rest == [one, other, one, other]


def test_a_cookie() -> None:
    asked = [request(f"GET /{n}", f"Cookie: a={n}; session={n % 2}; b={n}") for n in range(6)]
    one, other, *rest = hosts("cookie:session", *asked)
    assert one != other
    assert rest == [one, other, one, other]


def test_the_path_without_its_query() -> None:
    one, other, *rest = hosts("path", *(request(f"GET /p{n % 2}?q={n}") for n in range(6)))
    assert one != other
    assert rest == [one, other, one, other]


def test_the_clients_address_without_its_port() -> None:
    proxy = Proxy(endpoints=8, strategy="ring_hash", hash_on="client")
    found = [host_of(proxy, request(f"GET /{number}"), f"10.0.0.{number % 3}") for number in range(6)]
    assert len(set(found)) > 1
    assert found[:3] == found[3:]
    proxy.finish()


@pytest.mark.parametrize("hash_on", ["header:X-User", "cookie:session"])
def test_a_request_that_has_no_key_goes_anywhere(hash_on: str) -> None:
    assert len(set(hosts(hash_on, *[request("GET /", "Cookie: other=1")] * 6))) > 1


def test_a_session_goes_by_the_clients_address() -> None:
    proxy = Proxy(endpoints=8, scheme="tcp", strategy="ring_hash", hash_on="client", idle_timeout=0.0)
    proxy.client()
    proxy.client()
    one, other = (attempt.host for attempt in proxy.connecting)
    assert one == other
    proxy.finish()


def test_both_scans_find_the_same_field() -> None:
    asked = request("GET /", "A: 1", "b:  two \t", "A: 3", "Connection: keep-alive")
    for scan in (scan_request, careful):
        head = scan(asked)
        assert head is not None
        assert head.field(b"a") == b"1"
        assert head.field(b"b") == b"two"
        assert head.field(b"host") == b"localhost:8080"
        assert head.field(b"get /") is None
        assert head.field(b"c") is None


@pytest.mark.parametrize("strategy", ["peak_ewma", "round_robin"])
def test_how_long_a_client_reads_is_not_the_endpoints_latency(strategy: str) -> None:
    proxy = Proxy(endpoints=1, strategy=strategy)
    proxy.client(request())
    endpoint = proxy.accept()
    proxy.clock.advance(0.25)
    endpoint.feed(ok(b"ab")[:-1])
    proxy.clock.advance(60.0)
    endpoint.feed(b"b")
    assert proxy.states[0].attempt_seconds == 0.25
    assert proxy.states[0].latency == (0.25 if strategy == "peak_ewma" else 0.0)
    proxy.finish()


def test_how_long_an_attempt_took_is_told_from_its_own_beginning() -> None:
    """Not from the exchange's: a retry is not to blame for what was before it."""
    proxy = Proxy(endpoints=2, strategy="peak_ewma")
    proxy.client(request())
    proxy.clock.advance(0.5)
    first = proxy.refuse()
    endpoint = proxy.accept()
    proxy.clock.advance(0.25)
    endpoint.feed(ok())
    latencies = {state.endpoint.host: state.latency for state in proxy.states}
    second = endpoint.protocol.endpoint.endpoint.host
    assert latencies[second] == 0.25
    assert latencies[first] > 5.0
    seconds = {state.endpoint.host: state.attempt_seconds for state in proxy.states}
    assert seconds == {first: 0.5, second: 0.25}
    proxy.finish()
