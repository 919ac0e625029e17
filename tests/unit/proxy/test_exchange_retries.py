"""Another attempt: at another endpoint, over another connection, or none where it could do harm."""

from collections.abc import Callable

import pytest
from unit.proxy.harness import Proxy, chunked, error_of, ok, request

from sidecar.errors import Reason
from sidecar.model import Outcome
from sidecar.proxy.exchange import REPLAY_BYTES

MakeProxy = Callable[..., Proxy]

POST = request("POST /", "Content-Length: 3", body=b"abc")
PUT = request("PUT /", "Content-Length: 3", body=b"abc")


def warm(proxy: Proxy) -> None:
    """Leave an idle connection in the pool."""
    proxy.exchange(request("GET /warm"), ok())
    proxy.upstreams[-1].taken()


# Connecting (7)


def test_a_refused_connect_moves_to_another_endpoint(make_proxy: MakeProxy) -> None:
    """Whatever the method and however few the retries: no byte was sent."""
    proxy = make_proxy(endpoints=3, retries=0)
    client = proxy.client(POST)
    assert [proxy.refuse(), proxy.refuse()] == ["10.0.0.1", "10.0.0.2"]
    assert proxy.connecting[0].host == "10.0.0.3"
    endpoint = proxy.accept()
    assert endpoint.data.startswith(b"POST / HTTP/1.1\r\nHost: 10.0.0.3:80\r\n")
    endpoint.feed(ok())

    assert client.data == ok()
    assert proxy.counted == [("POST", "2xx", "none", 1)]
    assert proxy.cluster.stats.connects == [1, 2, 0, 0]
    assert proxy.cluster.stats.retries[Reason.CONNECT_REFUSED] == [1, 1]
    assert [state.breaker.failures for state in proxy.states] == [1, 1, 0]


def test_a_connect_that_takes_too_long_moves_to_another_endpoint(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(endpoints=2, retries=0)
    client = proxy.client(POST)
    proxy.pass_time(1.2)
    assert [attempt.host for attempt in proxy.connecting] == ["10.0.0.2"]
    proxy.accept().feed(ok())

    assert client.data == ok()
    assert proxy.cluster.stats.retries[Reason.CONNECT_TIMEOUT] == [0, 1]


def test_the_only_endpoint_is_tried_again_while_retries_last(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(retries=2)
    client = proxy.client(POST)
    assert [proxy.refuse() for _ in range(3)] == ["10.0.0.1"] * 3

    assert error_of(client.data) == (503, "connect_refused")
    assert not client.closing
    assert proxy.counted == [("POST", "5xx", "connect_refused", 1)]
    assert proxy.cluster.stats.retries[Reason.CONNECT_REFUSED] == [2, 0]
    assert proxy.states[0].attempts[Outcome.CONNECT_REFUSED] == 3


def test_a_tried_endpoint_is_not_picked_again_while_an_untried_one_is_left(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(endpoints=3, retries=1)
    clients = [proxy.client(request()) for _ in range(3)]
    hosts = [proxy.refuse() for _ in range(9)]
    assert sorted(hosts) == ["10.0.0.1"] * 3 + ["10.0.0.2"] * 3 + ["10.0.0.3"] * 3
    for _ in range(3):
        proxy.refuse()
    assert [error_of(client.data) for client in clients] == [(503, "connect_refused")] * 3


def test_a_refused_connect_frees_its_room_for_the_next_attempt(make_proxy: MakeProxy) -> None:
    """The bound on connections does not count a connection that never was."""
    proxy = make_proxy(endpoints=2, max_connections=1, max_pending=0)
    client = proxy.client(request())
    proxy.refuse()
    assert [attempt.host for attempt in proxy.connecting] == ["10.0.0.2"]
    proxy.accept().feed(ok())
    assert client.data == ok()


def test_a_failed_connect_is_forgotten_by_the_next_request(make_proxy: MakeProxy) -> None:
    """What ends that one must not give room back for the connect of the one before."""
    proxy = make_proxy(retries=0)
    client = proxy.client(request())
    proxy.refuse()
    warm(proxy)
    client.feed(request("GET /2"))
    assert proxy.upstreams[0].data.startswith(b"GET /2 ")
    client.lose()
    assert proxy.states[0].pool.open == 0
    assert proxy.cluster.limit.used == 0


def test_a_client_is_held_while_its_body_has_nowhere_to_go(proxy: Proxy) -> None:
    client = proxy.client(request("POST /", "Content-Length: 200000", body=b"x" * 1000))
    client.feed(b"x" * (REPLAY_BYTES - 1001))
    assert client.reading
    client.feed(b"x")
    assert not client.reading
    endpoint = proxy.accept()
    assert client.reading
    assert endpoint.data.count(b"x") == REPLAY_BYTES
    client.feed(b"x" * (200000 - REPLAY_BYTES))
    endpoint.feed(ok())
    assert client.data == ok()


# The idle race (6)


def test_an_idempotent_request_that_raced_is_sent_again_on_a_fresh_connection(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(endpoints=2, retries=0)
    warm(proxy)
    warm(proxy)
    client = proxy.client(PUT)
    proxy.busy[0].lose()
    assert [attempt.host for attempt in proxy.connecting] == ["10.0.0.1"], "fresh, at the same endpoint"
    fresh = proxy.accept()
    assert fresh.data == PUT.replace(b"localhost:8080", b"10.0.0.1:80")
    fresh.feed(ok())

    assert client.data == ok()
    assert proxy.cluster.stats.reuse_failures == 1
    assert proxy.states[0].attempts[Outcome.IDLE_RACE] == 1
    assert proxy.states[0].breaker.failures == 0
    assert proxy.cluster.stats.retries[Reason.RESET_BEFORE_HEADERS] == [0, 1]


def test_the_race_is_excused_once(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(retries=0)
    warm(proxy)
    client = proxy.client(request())
    proxy.busy[0].lose(ConnectionResetError())
    proxy.accept().lose()

    assert error_of(client.data) == (502, "reset_before_headers")
    assert proxy.cluster.stats.reuse_failures == 1
    assert proxy.states[0].breaker.failures == 1


def test_the_race_is_excused_once_on_a_reused_connection_too(make_proxy: MakeProxy) -> None:
    """The fresh one went to who had waited longer; what is handed on when that one is done may race as well."""
    proxy = make_proxy(max_connections=1, retries=0)
    warm(proxy)
    client = proxy.client(request("GET /raced"))
    waiting = proxy.client(request("GET /waiting"))
    proxy.upstreams[0].lose()
    fresh = proxy.accept()
    assert fresh.taken().startswith(b"GET /waiting ")
    fresh.feed(ok())
    assert waiting.data == ok()
    assert fresh.data.startswith(b"GET /raced ")
    fresh.lose()

    assert error_of(client.data) == (502, "reset_before_headers")
    assert proxy.cluster.stats.reuse_failures == 2
    assert proxy.connecting == []


def test_a_client_that_goes_while_its_retry_waits(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(max_connections=1)
    warm(proxy)
    client = proxy.client(request())
    waiting = proxy.client(request())
    proxy.upstreams[0].lose()
    client.lose()
    proxy.accept().feed(ok())
    assert waiting.data == ok()
    assert proxy.states[0].attempts[Outcome.CANCELLED] == 0, "it was at no endpoint"


def test_a_post_that_raced_is_not_sent_twice(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(endpoints=1, retries=5)
    warm(proxy)
    client = proxy.client(POST)
    proxy.busy[0].lose()

    assert error_of(client.data) == (502, "reset_before_headers")
    assert proxy.connecting == []
    assert proxy.cluster.stats.reuse_failures == 1
    assert proxy.states[0].breaker.failures == 0


def test_no_race_once_the_endpoint_has_said_something(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(retries=0)
    warm(proxy)
    client = proxy.client(request())
    proxy.busy[0].feed(b"HTTP/1.1 2")
    proxy.busy[0].lose()
    assert error_of(client.data) == (502, "reset_before_headers")
    assert proxy.cluster.stats.reuse_failures == 0
    assert proxy.states[0].breaker.failures == 1


def test_a_race_at_an_endpoint_that_has_gone_meanwhile(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(endpoints=1)
    warm(proxy)
    client = proxy.client(request())
    proxy.serve_by(1, first=2)
    proxy.busy[0].lose()
    assert [attempt.host for attempt in proxy.connecting] == ["10.0.0.2"]
    proxy.accept().feed(ok())
    assert client.data == ok()


def test_a_retry_that_raced_did_not_succeed(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(endpoints=2, retries=0)
    warm(proxy)
    warm(proxy)
    idle = proxy.upstreams[1]
    proxy.upstreams[0].lose()
    client = proxy.client(request())  # the first endpoint has no connection left, the second one has
    assert proxy.refuse() == "10.0.0.1"
    idle.lose()
    proxy.accept().feed(ok())

    assert client.data == ok()
    assert proxy.cluster.stats.retries[Reason.CONNECT_REFUSED] == [1, 0]
    assert proxy.cluster.stats.retries[Reason.RESET_BEFORE_HEADERS] == [0, 1]


def test_a_race_frees_its_room_for_the_fresh_connection(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(max_connections=1, max_pending=0)
    warm(proxy)
    client = proxy.client(request())
    proxy.busy[0].lose()
    proxy.accept().feed(ok())
    assert client.data == ok()


# Resets


@pytest.mark.parametrize("error", [None, ConnectionResetError()], ids=["closed", "reset"])
def test_a_reset_before_the_response_is_retried_elsewhere(
    make_proxy: MakeProxy, error: Exception | None
) -> None:
    proxy = make_proxy(endpoints=2, retries=1)
    client = proxy.client(PUT)
    proxy.accept().lose(error)
    second = proxy.accept()
    assert second.data == PUT.replace(b"localhost:8080", b"10.0.0.2:80")
    second.feed(ok())

    assert client.data == ok()
    assert proxy.cluster.stats.retries[Reason.RESET_BEFORE_HEADERS] == [0, 1]
    assert proxy.states[0].attempts[Outcome.RESET] == 1
    assert [state.breaker.failures for state in proxy.states] == [1, 0]


def test_resets_are_retried_as_often_as_retries_say(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(retries=2)
    client = proxy.client(PUT)
    for _ in range(3):
        assert not client.data
        proxy.accept().lose()
    assert error_of(client.data) == (502, "reset_before_headers")
    assert proxy.states[0].attempts[Outcome.RESET] == 3
    assert proxy.cluster.stats.retries[Reason.RESET_BEFORE_HEADERS] == [2, 0]


def test_a_reset_is_retried_elsewhere_even_when_it_is_the_same_ones_turn(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(endpoints=2)
    proxy.client(request("GET /1"))
    proxy.client(request("GET /2"))
    first = proxy.accept()
    proxy.accept()
    first.lose()
    assert [attempt.host for attempt in proxy.connecting] == ["10.0.0.2"]


@pytest.mark.parametrize(("asked", "retries"), [(POST, 1), (PUT, 0)], ids=["POST", "no retries"])
def test_a_reset_before_the_response_that_may_not_be_retried_is_502(
    make_proxy: MakeProxy, asked: bytes, retries: int
) -> None:
    proxy = make_proxy(endpoints=2, retries=retries)
    client = proxy.client(asked)
    proxy.accept().lose()

    assert error_of(client.data) == (502, "reset_before_headers")
    assert not client.closing
    assert proxy.connecting == []


@pytest.mark.parametrize(("size", "again"), [(REPLAY_BYTES, True), (REPLAY_BYTES + 1, False)])
def test_a_body_is_kept_for_a_replay_up_to_its_bound(make_proxy: MakeProxy, size: int, again: bool) -> None:
    proxy = make_proxy(endpoints=2)
    asked = request("PUT /", f"Content-Length: {size + 5}")
    client = proxy.client(asked)
    first = proxy.accept()
    client.feed(b"x" * 1000, b"x" * (size - 1000))
    first.lose()

    if again:
        second = proxy.accept()
        assert second.taken().endswith(b"\r\n\r\n" + b"x" * size)
        client.feed(b"yyyyy")  # what was still to come goes to the endpoint that has the rest
        assert second.data == b"yyyyy"
        second.feed(ok())
        assert client.data == ok()
    else:
        assert error_of(client.data) == (502, "reset_before_headers")
        assert client.eof_written


@pytest.mark.parametrize("more", [2, REPLAY_BYTES])
def test_a_body_that_goes_on_between_two_attempts_reaches_the_second(
    make_proxy: MakeProxy, more: int
) -> None:
    proxy = make_proxy(endpoints=2)
    client = proxy.client(request("PUT /", f"Content-Length: {more + 4}", body=b"ab"))
    proxy.accept().lose()
    client.feed(b"c" * more)
    second = proxy.accept()
    client.feed(b"ef")
    assert second.data.endswith(b"\r\n\r\nab" + b"c" * more + b"ef")
    second.feed(ok())
    assert client.data == ok()


def test_a_body_larger_than_the_bound_at_once_is_not_kept(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(endpoints=2)
    size = REPLAY_BYTES + 1
    client = proxy.client(request("PUT /", f"Content-Length: {size}", body=b"x" * size))
    proxy.accept().lose()
    assert error_of(client.data) == (502, "reset_before_headers")


def test_a_large_body_passes_whole(proxy: Proxy) -> None:
    """Beyond what is kept for a replay nothing is kept at all."""
    pieces = [b"%d" % number * 20_000 for number in range(10)]
    client = proxy.client(request("PUT /", "Content-Length: 200000"))
    endpoint = proxy.accept()
    client.feed(*pieces)
    endpoint.feed(ok())
    assert endpoint.data.partition(b"\r\n\r\n")[2] == b"".join(pieces)
    assert client.data == ok()


def test_a_retry_is_read_for_again_when_the_failed_endpoint_was_slow(make_proxy: MakeProxy) -> None:
    """Reading was held for the first endpoint's sake; the second has room."""
    proxy = make_proxy(endpoints=2)
    client = proxy.client(request("PUT /", "Content-Length: 6", body=b"abc"))
    first = proxy.accept()
    first.fill()
    assert not client.reading
    first.lose(ConnectionResetError())
    second = proxy.accept()
    client.feed(b"def")
    assert second.data.endswith(b"abcdef")
    second.feed(ok())
    assert client.data == ok()


@pytest.mark.parametrize(
    "begun",
    [
        ok(b"abcdef")[:-2],
        ok(chunked(b"abc"), "Transfer-Encoding: chunked", length=False)[:-5],
        ok(b"", "Transfer-Encoding: chunked", length=False),
    ],
    ids=["length", "chunked", "head only"],
)
@pytest.mark.parametrize("error", [None, ConnectionResetError()], ids=["closed", "reset"])
def test_a_reset_within_the_response_breaks_the_clients_connection(
    make_proxy: MakeProxy, begun: bytes, error: Exception | None
) -> None:
    """Never a fake clean end, and no second answer behind the first one's beginning."""
    proxy = make_proxy(endpoints=2)
    client = proxy.client(request() + request("GET /next"))
    endpoint = proxy.accept()
    endpoint.feed(begun)
    endpoint.lose(error)

    assert client.aborted
    assert client.data == begun
    assert proxy.counted == [("GET", "2xx", "reset_after_headers", 1)]
    assert proxy.states[0].attempts[Outcome.RESET] == 1
    assert proxy.states[0].breaker.failures == 1
    assert proxy.connecting == []


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_reset_within_a_body_that_lasts_until_close_is_not_its_end(proxy: Proxy, version: str) -> None:
    client = proxy.client(request(version=version))
    endpoint = proxy.accept()
    endpoint.feed(ok(b"abc", length=False))
    endpoint.lose(ConnectionResetError())

    assert client.aborted
    assert not client.data.endswith(b"0\r\n\r\n")
    assert proxy.counted == [("GET", "2xx", "reset_after_headers", 1)]
