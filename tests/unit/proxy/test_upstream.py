"""The endpoint's connection: kept while it is clean, closed at the first doubt."""

from collections.abc import Callable

import pytest
from unit.proxy.harness import Proxy, chunked, error_of, ok, request

from sidecar.model import Outcome
from sidecar.proxy.upstream import MAX_INTERIMS

MakeProxy = Callable[..., Proxy]


@pytest.mark.parametrize(
    "answer",
    [
        [ok() + b"x"],
        [ok() + ok(b"smuggled")],
        [ok()[:-1], b"k" + ok(b"smuggled")],
        [ok(chunked(b"abc"), "Transfer-Encoding: chunked", length=False) + b"x"],
        [ok(b"x", status="204 No Content", length=False)],
    ],
    ids=["byte", "response", "late", "chunked", "204"],
)
def test_bytes_behind_a_response_close_the_connection(proxy: Proxy, answer: list[bytes]) -> None:
    """They would answer somebody else's request (response splitting)."""
    client = proxy.client(request() + request("GET /2"))
    endpoint = proxy.accept()
    endpoint.feed(*answer)

    assert endpoint.aborted
    assert b"smuggled" not in client.data
    assert not client.data.endswith(b"x")
    fresh = proxy.accept()
    assert fresh.data.startswith(b"GET /2 ")
    fresh.feed(ok(b"2"))
    assert client.data.endswith(ok(b"2"))
    assert proxy.counted == [("GET", "2xx", "none", 2)]


def test_bytes_nobody_asked_for_close_an_idle_connection(proxy: Proxy) -> None:
    proxy.exchange(request(), ok())
    endpoint = proxy.upstreams[0]
    endpoint.feed(ok(b"unasked"))
    assert endpoint.aborted
    assert proxy.states[0].pool.idle == []
    assert proxy.exchange(request(), ok(b"2")) == ok(b"2")
    assert len(proxy.upstreams) == 2


@pytest.mark.parametrize("how", ["eof", "lost"])
def test_an_idle_connection_that_the_endpoint_closes_leaves_the_pool(proxy: Proxy, how: str) -> None:
    proxy.exchange(request(), ok())
    endpoint = proxy.upstreams[0]
    if how == "eof":
        assert endpoint.feed_eof() is False
    else:
        endpoint.lose()
    assert proxy.states[0].pool.idle == []
    assert proxy.states[0].pool.open == 0
    assert proxy.states[0].breaker.failures == 0
    assert proxy.cluster.stats.reuse_failures == 0, "seen in time"


def test_an_idle_connection_grows_old(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(idle_timeout=3.0)
    proxy.exchange(request(), ok())
    endpoint = proxy.upstreams[0]
    proxy.pass_time(3.0)
    assert not endpoint.closing
    proxy.pass_time(0.1)
    assert endpoint.closing
    assert proxy.states[0].pool.open == 0


def test_a_busy_connection_does_not_grow_old(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(idle_timeout=3.0)
    proxy.exchange(request(), ok())
    client = proxy.client(request())
    proxy.pass_time(10.0)
    proxy.upstreams[0].feed(ok(b"late"))
    assert client.data == ok(b"late")


def test_an_endpoint_that_closes_with_its_answer(proxy: Proxy) -> None:
    """The end of the connection behind a whole response is no failure."""
    client = proxy.client(request())
    endpoint = proxy.accept()
    endpoint.feed(ok())
    endpoint.feed_eof()
    endpoint.lose()
    assert client.data == ok()
    assert proxy.states[0].attempts[Outcome.SUCCESS] == 1
    assert proxy.states[0].breaker.failures == 0


def test_an_endpoint_that_speaks_before_it_is_asked_is_not_used(proxy: Proxy) -> None:
    """A banner (SMTP, SSH) that comes with the connection would be taken for the answer."""
    client = proxy.client(request())
    attempt = proxy.connecting[0]
    endpoint = attempt.establish()
    proxy.upstreams.append(endpoint)
    endpoint.feed(b"220 mail ready\r\n")
    attempt.hand_over()
    proxy.settle()

    assert endpoint.data == b""
    proxy.refuse()
    assert error_of(client.data) == (503, "connect_refused")


@pytest.mark.parametrize("piece", [1, 2, 3])
def test_a_head_may_come_in_pieces(proxy: Proxy, piece: int) -> None:
    client = proxy.client(request())
    endpoint = proxy.accept()
    answer = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + ok(b"hello", "X-A: 1")
    endpoint.feed(*(answer[at : at + piece] for at in range(0, len(answer), piece)))
    assert client.data == answer


@pytest.mark.parametrize("size", [1, 100])
def test_a_head_that_grows_beyond_its_limit_ends_the_connection(make_proxy: MakeProxy, size: int) -> None:
    proxy = make_proxy(max_response_head=1024)
    client = proxy.client(request())
    endpoint = proxy.accept()
    endpoint.feed(b"HTTP/1.1 200 OK\r\nX-A: ")
    sent = 22
    while not endpoint.closing:
        endpoint.feed(b"a" * size)
        sent += size
    assert 1024 < sent <= 1024 + size
    assert error_of(client.data) == (502, "bad_response")


def test_interim_responses_do_not_add_up_to_a_head_that_is_too_large(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(max_response_head=1024)
    hint = b"HTTP/1.1 103 Early Hints\r\nX-A: " + b"a" * 500 + b"\r\n\r\n"
    assert proxy.exchange(request(), hint * 5 + ok()) == hint * 5 + ok()


def test_an_endpoint_may_be_slow_to_take_what_nobody_waits_for(proxy: Proxy) -> None:
    """Its buffer fills or empties when the exchange is over already."""
    client = proxy.client(request("POST /", "Content-Length: 6", body=b"ab"))
    endpoint = proxy.accept()
    endpoint.fill()
    endpoint.feed(ok(b"no", status="413 Content Too Large"))
    endpoint.drain()
    endpoint.fill()
    assert client.reading


def test_retiring_leaves_alone_what_is_just_being_opened(proxy: Proxy) -> None:
    """It stands, and its exchange is told in the next turn: closed now, it would look like a refused connect."""
    client = proxy.client(request())
    attempt = proxy.connecting[0]
    endpoint = attempt.establish()
    proxy.upstreams.append(endpoint)
    assert endpoint.protocol.retire(0.0)
    attempt.hand_over()
    endpoint.feed(ok())
    assert client.data == ok()


def test_retiring_closes_idle_connections_only(proxy: Proxy) -> None:
    proxy.exchange(request(), ok())
    idle = proxy.upstreams[0]
    assert not idle.protocol.retire(0.0)
    assert idle.closing
    client = proxy.client(request())
    busy = proxy.accept()
    assert busy.protocol.retire(0.0)
    busy.feed(ok())
    assert client.data == ok()


# Interim responses

PROGRESS = b"HTTP/1.1 102 Processing\r\n\r\n"


def test_interim_responses_have_a_bound(proxy: Proxy) -> None:
    """An endpoint that never comes to the point would keep the client's time-out from ever passing."""
    client = proxy.client(request())
    endpoint = proxy.accept()
    for _ in range(MAX_INTERIMS):
        endpoint.feed(PROGRESS)
    assert client.data == PROGRESS * MAX_INTERIMS
    client.taken()
    endpoint.feed(PROGRESS)
    assert endpoint.aborted
    assert error_of(client.data) == (502, "bad_response")
    assert b"more than 100 interim responses" in client.data
    assert proxy.states[0].attempts[Outcome.BAD_RESPONSE] == 1


def test_interim_responses_in_one_read_have_the_same_bound(proxy: Proxy) -> None:
    whole = PROGRESS * MAX_INTERIMS + ok()
    assert proxy.exchange(request(), whole) == whole
    client = proxy.client(request())
    proxy.busy[-1].feed(PROGRESS + whole)
    assert error_of(client.data.replace(PROGRESS, b"")) == (502, "bad_response")


def test_interim_responses_are_counted_for_each_exchange(proxy: Proxy) -> None:
    for _ in range(3):
        answer = PROGRESS * (MAX_INTERIMS - 1) + ok()
        assert proxy.exchange(request(), answer) == answer
    assert len(proxy.upstreams) == 1, "over one connection"
