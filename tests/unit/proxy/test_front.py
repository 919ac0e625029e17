"""What requests pass first: a rate limit, header rules; and their responses on the way back."""

from collections.abc import Callable
from typing import Any

import pytest
from unit.proxy.harness import Proxy, chunked, error_of, ok, request

from sidecar.proxy.front import Front
from sidecar.proxy.header_rules import Edits, FieldRules
from sidecar.resilience import TokenBucket

MakeProxy = Callable[..., Proxy]
Pairs = tuple[tuple[str, str], ...]


@pytest.fixture
def limited(make_proxy: MakeProxy) -> MakeProxy:
    """An upstream that takes one request in 10 s."""

    def make(**policy: Any) -> Proxy:
        proxy = make_proxy(**policy)
        proxy.cluster.front = Front(TokenBucket(1, 10.0, 1, proxy.clock.now))
        return proxy

    return make


@pytest.fixture
def ruled(make_proxy: MakeProxy) -> MakeProxy:
    """An upstream with rules: of its requests, then of its responses."""

    def make(sent: Edits | None = None, answered: Edits | None = None, **policy: Any) -> Proxy:
        proxy = make_proxy(**policy)
        proxy.cluster.front = Front(None, FieldRules(sent or Edits(), answered or Edits()))
        return proxy

    return make


# The limit


def test_too_many_are_429_and_nobodys_failure(limited: MakeProxy) -> None:
    proxy = limited()
    assert proxy.exchange(request(), ok()) == ok()
    proxy.clock.advance(2.5)
    client = proxy.client(request(), request("HEAD /"))

    head, _, rest = client.data.partition(b"\r\n\r\n")
    assert b"\r\nx-sidecar-error: rate_limited\r\nRetry-After: 8\r\n" in head + b"\r\n"
    told, _, second = rest.partition(b"HTTP/1.1")
    assert error_of(head + b"\r\n\r\n" + told) == (429, "rate_limited")
    assert second.endswith(b"\r\n\r\n"), "HEAD has no body"
    assert not client.closing, "the connection is as good as before"
    assert proxy.counted == [
        ("GET", "2xx", "none", 1),
        ("GET", "4xx", "rate_limited", 1),
        ("HEAD", "4xx", "rate_limited", 1),
    ]
    assert proxy.cluster.budget.totals(proxy.clock.now) == (1, 0), "who is turned away pays for no retries"
    assert sum(proxy.states[0].attempts) == 1
    proxy.clock.advance(7.5)
    client.taken()
    client.feed(request())
    proxy.busy[0].feed(ok(b"again"))
    assert client.data == ok(b"again")


def test_a_second_is_the_least_to_wait(make_proxy: MakeProxy) -> None:
    proxy = make_proxy()
    proxy.cluster.front = Front(TokenBucket(100, 1.0, 1, proxy.clock.now))
    proxy.exchange(request(), ok())
    assert b"\r\nRetry-After: 1\r\n" in proxy.client(request()).data


def test_a_body_that_is_under_way_ends_the_connection(limited: MakeProxy) -> None:
    proxy = limited()
    proxy.exchange(request(), ok())
    client = proxy.client(request("POST /", "Content-Length: 10", body=b"12345"))
    assert error_of(client.data) == (429, "rate_limited")
    client.feed(b"67890")
    client.feed(request())
    assert client.data.count(b"HTTP/1.1") == 1, "what comes then is thrown away"


def test_a_request_with_time_is_limited_too(limited: MakeProxy) -> None:
    proxy = limited(deadline_header=b"x-timeout", hedge_after=0.5)
    proxy.exchange(request("GET /", "X-Timeout: 100"), ok())
    assert error_of(proxy.client(request("GET /", "X-Timeout: 100")).data) == (429, "rate_limited")


def test_a_session_too_soon_is_closed_and_counted(limited: MakeProxy) -> None:
    proxy = limited(scheme="tcp")
    proxy.client()
    proxy.accept()
    refused = proxy.client()
    assert refused.closing
    assert proxy.sessions == {"rate_limited": 1}
    assert not proxy.connecting
    proxy.clock.advance(10.0)
    proxy.client()
    assert len(proxy.connecting) == 1


def test_sessions_without_a_limit_pass(ruled: MakeProxy) -> None:
    proxy = ruled(scheme="tcp")
    proxy.client()
    assert len(proxy.connecting) == 1


# Rules


def test_requests_are_edited_and_retries_carry_it(ruled: MakeProxy) -> None:
    rules = Edits((("X-Set", "new"), ("X-Other", "too")), (("X-Add", "1"), ("X-Add", "2")), ("cookie",))
    proxy = ruled(rules, endpoints=2, host_header="preserve")
    client = proxy.client(
        request("GET /", "Cookie: a=b", "x-set: old", "Accept: */*", "X-SET: older", "cookie: c=d")
    )
    expected = request("GET /", "X-Set: new", "Accept: */*", "X-Other: too", "X-Add: 1", "X-Add: 2")
    first = proxy.accept()
    assert first.data == expected
    first.lose()
    assert proxy.accept().taken() == expected
    proxy.busy[0].feed(ok())
    assert client.data == ok()


@pytest.mark.parametrize("fields", [("A: 1", "Cookie: x"), ("Cookie: x", "A: 1"), ()])
def test_host_is_replaced_wherever_it_stands_then(ruled: MakeProxy, fields: tuple[str, ...]) -> None:
    proxy = ruled(Edits(removed=("Cookie",)))
    lines = ["GET / HTTP/1.1", *fields, "Host: localhost", "Cookie: y", "Z: 1", "", ""]
    proxy.client("\r\n".join(lines).encode())
    kept = [line for line in fields if line.startswith("A")]
    assert proxy.accept().data.split(b"\r\n")[1:-2] == [
        *(line.encode() for line in kept),
        b"Host: 10.0.0.1:80",
        b"Z: 1",
    ]


def test_what_is_hashed_is_what_goes_on(ruled: MakeProxy) -> None:
    proxy = ruled(Edits((("X-User", "one"),)), endpoints=3, strategy="ring_hash", hash_on="header:x-user")
    for user in range(6):
        proxy.client(request("GET /", f"X-User: {user}"))
    assert len({attempt.host for attempt in proxy.connecting}) == 1


def test_a_bearer_token_replaces_the_applications(ruled: MakeProxy) -> None:
    proxy = ruled(Edits(removed=("X-A",)))
    assert isinstance(proxy.cluster.front, Front)
    rules = proxy.cluster.front.rules
    assert isinstance(rules, FieldRules)
    rules.carry(b"first")
    proxy.client(request("GET /", "authorization: Basic bWU6eA==", "X-A: 1"))
    endpoint = proxy.accept()
    assert b"\r\nAuthorization: Bearer first\r\n\r\n" in endpoint.taken()
    endpoint.feed(ok())
    rules.carry(b"second")
    proxy.client(request())
    assert b"\r\nAuthorization: Bearer second\r\n" in endpoint.data
    assert endpoint.data.count(b"uthorization") == 1


def test_responses_are_edited(ruled: MakeProxy) -> None:
    proxy = ruled(answered=Edits((("Cache-Control", "no-store"),), (("X-Via", "here"),), ("Server",)))
    found = proxy.exchange(
        request(), ok(b"1", "Server: nginx", "cache-control: public", "Date: today", "Cache-Control: x")
    )
    assert found == (
        b"HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nDate: today\r\nContent-Length: 1\r\nX-Via: here\r\n\r\n1"
    )


def test_and_those_that_come_in_pieces(ruled: MakeProxy) -> None:
    proxy = ruled(answered=Edits(removed=("Server",)))
    client = proxy.client(request())
    endpoint = proxy.accept()
    endpoint.feed(
        b"HTTP/1.1 200 OK\r\nServer: a\r\nTransfer-Encoding: chunked\r\n\r\n", chunked(b"one", b"two")
    )
    assert client.data == b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"one", b"two")


def test_an_old_clients_response_loses_its_coding_as_well(ruled: MakeProxy) -> None:
    proxy = ruled(answered=Edits(removed=("Server",)))
    client = proxy.client(request(version="1.0"))
    proxy.accept().feed(b"HTTP/1.1 304 Not Modified\r\nServer: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert client.data == b"HTTP/1.1 304 Not Modified\r\n\r\n"


def test_interim_responses_and_the_proxys_own_answers_are_left_alone(ruled: MakeProxy) -> None:
    proxy = ruled(answered=Edits((("X-A", "1"),)))
    client = proxy.client(request())
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
    endpoint = proxy.accept()
    endpoint.feed(hints)
    assert client.taken() == hints
    endpoint.feed(b"garbage\r\n\r\n")
    assert error_of(client.data) == (502, "bad_response")
    assert b"X-A" not in client.data


def test_nor_is_a_switch_of_protocols(ruled: MakeProxy) -> None:
    proxy = ruled(Edits((("X-A", "1"),)), Edits((("X-A", "1"),)))
    client = proxy.client(request("GET /", "Connection: upgrade", "Upgrade: websocket"))
    endpoint = proxy.accept()
    assert b"\r\nX-A: 1\r\n" in endpoint.data, "the request is one like all others"
    switched = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    endpoint.feed(switched)
    assert client.data == switched


def test_rules_that_say_nothing_change_nothing(ruled: MakeProxy) -> None:
    answer = ok(b"1", "X-B:   odd  spelling")
    assert ruled().exchange(request("GET /", "x-a:  1"), answer) == answer


def test_a_response_that_is_tried_again_is_edited_once(ruled: MakeProxy) -> None:
    proxy = ruled(answered=Edits(added=(("X-A", "1"),)), endpoints=2, retry_statuses=frozenset((503,)))
    client = proxy.client(request())
    proxy.accept().feed(ok(status="503 Service Unavailable"))
    proxy.accept().feed(ok())
    assert client.data.count(b"X-A: 1") == 1


# Beside what else changes heads


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        (Edits(removed=("Cookie",)), b"X-Timeout: 1000"),
        (Edits((("X-Timeout", "7"),)), b"X-Timeout: 1000"),
        (Edits(removed=("X-Timeout",)), None),
    ],
)
def test_the_time_that_is_left_is_told_where_its_header_stands(
    ruled: MakeProxy, rules: Edits, told: bytes | None
) -> None:
    proxy = ruled(rules, deadline_header=b"x-timeout")
    proxy.client(request("GET /", "Cookie: a", "X-Timeout: 1000", "Z: 1"))
    lines = proxy.accept().data.split(b"\r\n")
    assert [line for line in lines if line.startswith(b"X-Timeout")] == ([told] if told else [])
    assert b"Z: 1" in lines


@pytest.mark.parametrize("removed", [("A", "B", "X-Timeout"), ("A",)])
def test_and_though_the_rules_go_while_it_waits(ruled: MakeProxy, removed: tuple[str, ...]) -> None:
    proxy = ruled(Edits(removed=removed), deadline_header=b"x-timeout")
    proxy.client(request("GET /", "A: 1", "B: 2", "X-Timeout: 1000", "Z: 1"))
    proxy.cluster.front = None
    lines = proxy.accept().data.split(b"\r\n")
    assert b"Z: 1" in lines
    assert (b"X-Timeout: 1000" in lines) == ("X-Timeout" not in removed)
