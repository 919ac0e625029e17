"""The application's connection: what it may send, when it is answered, and how it ends."""

from collections.abc import Callable

import pytest
from unit.proxy.harness import Proxy, chunked, error_of, ok, request

from sidecar.errors import Reason
from sidecar.proxy.downstream import LINGER_BYTES, LINGER_SECONDS, RETIRE_QUIET
from sidecar.proxy.sweep import INTERVAL

MakeProxy = Callable[..., Proxy]

CLOSING = (b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


# One request after another


def test_pipelined_requests_are_answered_in_order(proxy: Proxy) -> None:
    client = proxy.client(request("GET /1") + request("GET /2") + request("GET /3"))
    endpoint = proxy.accept()
    for number in (b"1", b"2", b"3"):
        assert endpoint.taken().startswith(b"GET /%b " % number), "one at a time"
        endpoint.feed(ok(number))

    assert client.data == ok(b"1") + ok(b"2") + ok(b"3")
    assert proxy.counted == [("GET", "2xx", "none", 3)]
    assert len(proxy.upstreams) == 1


def test_pipelined_bodies_belong_to_their_requests(proxy: Proxy) -> None:
    first = request("POST /1", "Content-Length: 5", body=b"GET /")
    second = request("POST /2", "Transfer-Encoding: chunked", body=chunked(b"POST /"))
    client = proxy.client(first + second + request("GET /3"))
    endpoint = proxy.accept()
    assert endpoint.taken() == first.replace(b"localhost:8080", b"10.0.0.1:80")
    endpoint.feed(ok(b"1"))
    assert endpoint.taken() == second.replace(b"localhost:8080", b"10.0.0.1:80")
    endpoint.feed(ok(b"2"))
    assert endpoint.taken().startswith(b"GET /3 ")
    endpoint.feed(ok(b"3"))
    assert client.data == ok(b"1") + ok(b"2") + ok(b"3")


def test_what_follows_a_body_in_the_same_piece_is_the_next_request(proxy: Proxy) -> None:
    client = proxy.client(request("POST /1", "Content-Length: 5", body=b"ab"))
    endpoint = proxy.accept()
    client.feed(b"cde" + request("GET /2"))
    assert endpoint.taken().endswith(b"abcde")
    endpoint.feed(ok(b"1"))
    assert endpoint.taken().startswith(b"GET /2 ")
    endpoint.feed(ok(b"2"))
    assert client.data == ok(b"1") + ok(b"2")


def test_the_proxys_own_answers_keep_their_place_in_the_pipeline(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(endpoints=0)
    client = proxy.client(request() * 500)
    assert client.data.count(b"x-sidecar-error: no_endpoints\r\n") == 500
    assert not client.closing
    assert proxy.counted == [("GET", "5xx", "no_endpoints", 500)]


def test_a_head_may_come_byte_by_byte(proxy: Proxy) -> None:
    asked = request("GET /a", "X-A: 1")
    client = proxy.client(*(asked[at : at + 1] for at in range(len(asked))))
    endpoint = proxy.accept()
    assert endpoint.data == asked.replace(b"localhost:8080", b"10.0.0.1:80")
    endpoint.feed(ok())
    assert client.data == ok()


@pytest.mark.parametrize("pieces", [[b"\r\n\r\n" + request()], [b"\r", b"\n", b"\r\n" + request()]])
def test_empty_lines_before_a_request_are_ignored(proxy: Proxy, pieces: list[bytes]) -> None:
    """RFC 9112 2.2."""
    client = proxy.client(*pieces)
    proxy.accept().feed(ok())
    assert client.data == ok()


@pytest.mark.parametrize("pieces", [[b"\r\n", b"\r\n"], [b"\r", b"\n"]])
def test_an_empty_line_alone_is_no_request(proxy: Proxy, pieces: list[bytes]) -> None:
    client = proxy.client(*pieces)
    proxy.pass_time(11.0)
    assert not client.data
    assert not client.closing
    proxy.pass_time(50.0)
    assert client.closing


# Keep-alive


def test_a_client_that_says_close_is_closed_after_its_answer(proxy: Proxy) -> None:
    client = proxy.client(request("GET /", "Connection: close"))
    endpoint = proxy.accept()
    assert b"onnection" not in endpoint.data, "the endpoint's connection is another matter"
    endpoint.feed(ok())

    assert client.data == ok().replace(*CLOSING)
    assert client.closing
    assert not client.aborted
    assert proxy.states[0].pool.idle == [endpoint.protocol]


def test_http_1_0_closes_by_default(proxy: Proxy) -> None:
    client = proxy.client(request(version="1.0"))
    proxy.accept().feed(ok())
    assert client.data == ok()
    assert client.closing


def test_http_1_0_keeps_alive_when_asked(proxy: Proxy) -> None:
    asked = request("GET /", "Connection: Keep-Alive", version="1.0")
    client = proxy.client(asked)
    endpoint = proxy.accept()
    endpoint.feed(ok())
    kept = ok().replace(b"\r\n\r\n", b"\r\nConnection: keep-alive\r\n\r\n")
    assert client.taken() == kept
    client.feed(asked)
    endpoint.feed(ok())
    assert client.data == kept
    assert not client.closing


def test_requests_after_a_close_are_not_served(proxy: Proxy) -> None:
    client = proxy.client(request("GET /1", "Connection: close") + request("GET /2"))
    endpoint = proxy.accept()
    endpoint.feed(ok(b"1"))
    assert client.data == ok(b"1").replace(*CLOSING)
    assert client.eof_written
    assert b"/2" not in endpoint.data


def test_a_full_pipeline_behind_a_close_is_read_and_thrown_away(make_proxy: MakeProxy) -> None:
    """Unread input would turn the close into a reset (RFC 9112 9.6)."""
    proxy = make_proxy(max_request_head=200)
    client = proxy.client(request("GET /1", "Connection: close"))
    endpoint = proxy.accept()
    client.feed(request("GET /2") * 10)
    assert not client.reading
    endpoint.feed(ok())
    assert client.eof_written
    assert client.reading
    client.feed(b"x" * 1000)
    assert client.data == ok().replace(*CLOSING)


def test_an_idle_connection_is_closed_after_a_while(proxy: Proxy) -> None:
    client = proxy.client(request())
    proxy.accept().feed(ok())
    proxy.pass_time(59.9)
    assert not client.closing
    proxy.pass_time(0.3)
    assert client.closing
    assert client.data == ok()
    proxy.pass_time(1.0)
    assert not client.aborted, "a close that is going on is left alone for a while"


def test_an_idle_client_that_does_not_take_its_answer_is_cut_off_in_the_end(proxy: Proxy) -> None:
    client = proxy.client(request())
    client.buffered = 5000
    proxy.accept().feed(ok())
    proxy.pass_time(60.2)
    assert client.closing
    proxy.pass_time(59.0)
    assert not client.aborted, "closing flushes what is unsent"
    proxy.pass_time(2.0)
    assert client.aborted


def test_a_connection_that_never_says_anything_is_closed(proxy: Proxy) -> None:
    client = proxy.client()
    proxy.pass_time(60.2)
    assert client.closing
    assert not client.data


# Refusals


REFUSED = [
    (b"\x16\x03\x01\x02\x00\x01", 400, "bad_request"),
    (b"\rGET / HTTP/1.1\r\n\r\n", 400, "bad_request"),
    (b"GET /\r\n\r\n", 400, "bad_request"),
    (request("GET /", "no colon"), 400, "bad_request"),
    (request("GET /").replace(b"Host", b"X-Host"), 400, "bad_request"),
    (request("GET /", "Content-Length: 1", "Content-Length: 2"), 400, "bad_request"),
    (request("POST /", "Content-Length: 1", "Transfer-Encoding: chunked"), 400, "bad_request"),
    (b"GET / HTTP/1.1\nHost: a\n\n", 400, "bad_request"),
    (request("POST /", "Transfer-Encoding: gzip"), 501, "bad_request"),
    (request("CONNECT a:443"), 501, "bad_request"),
    (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, "bad_request"),
    (request("GET /" + "a" * 2000), 414, "too_large"),
    (request("GET /" + "a" * 2000)[:-4], 414, "too_large"),
    (request("GET /", "X-A: " + "a" * 2000), 431, "too_large"),
    (request("GET /", "X-A: " + "a" * 2000)[:-4], 431, "too_large"),
    (request("GET /", *["A: b"] * 300), 431, "too_large"),
]


@pytest.mark.parametrize(("asked", "status", "reason"), REFUSED)
def test_what_is_no_request_is_refused(make_proxy: MakeProxy, asked: bytes, status: int, reason: str) -> None:
    """16: answered, counted, and the connection ends, as what follows cannot be told apart."""
    proxy = make_proxy(max_request_head=65536 if b"A: b" in asked else 1024)
    proxy.refusals = 1
    client = proxy.client(asked)

    assert error_of(client.data) == (status, reason)
    assert b"\r\nConnection: close\r\n" in client.data
    assert client.eof_written
    assert proxy.connecting == []
    assert proxy.counted == [("OTHER", f"{status // 100}xx", reason, 1)]


@pytest.mark.parametrize("body", [b"x\r\n", b"2\r\nabc\r\n"])
@pytest.mark.parametrize("apart", [False, True])
def test_a_body_that_is_none_is_refused_however_it_comes(proxy: Proxy, body: bytes, apart: bool) -> None:
    head = request("POST /", "Transfer-Encoding: chunked")
    proxy.refusals = not apart  # when it comes with its head, nobody is asked for an answer
    client = proxy.client(*([head, body] if apart else [head + body]))
    proxy.loop.turn()

    assert error_of(client.data) == (400, "bad_request")
    assert b"\r\nConnection: close\r\n" in client.data
    assert proxy.connecting == []
    assert proxy.counted == [("POST", "4xx", "bad_request", 1)]


@pytest.mark.parametrize("size", [1, 100])
def test_a_head_that_grows_beyond_its_limit_is_refused_as_it_grows(make_proxy: MakeProxy, size: int) -> None:
    proxy = make_proxy(max_request_head=1024)
    proxy.refusals = 1
    client = proxy.client(b"GET / HTTP/1.1\r\nX-A: ")
    sent = 21
    while not client.data:
        client.feed(b"a" * size)
        sent += size
    assert error_of(client.data) == (431, "too_large")
    assert 1024 < sent <= 1024 + size


def test_a_head_of_exactly_the_limit_passes(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(max_request_head=1024)
    asked = request("GET /", "X-A: " + "a" * (1024 - len(request("GET /", "X-A: "))))
    assert len(asked) == 1024
    client = proxy.client(asked)
    proxy.accept().feed(ok())
    assert client.data == ok()


def test_a_refusal_waits_for_the_answers_before_it(proxy: Proxy) -> None:
    proxy.refusals = 1
    client = proxy.client(request() + b"garbage\r\n\r\n")
    endpoint = proxy.accept()
    assert not client.data
    endpoint.feed(ok())
    assert client.data.startswith(ok())
    assert error_of(client.data[len(ok()) :]) == (400, "bad_request")


def test_a_broken_chunk_in_the_middle_is_400_and_never_a_whole_request(proxy: Proxy) -> None:
    client = proxy.client(request("POST /", "Transfer-Encoding: chunked", body=b"2\r\nab\r\n"))
    endpoint = proxy.accept()
    client.feed(b"zz\r\n")

    assert endpoint.aborted
    assert not endpoint.data.endswith(b"0\r\n\r\n")
    assert error_of(client.data) == (400, "bad_request")
    assert client.eof_written
    assert proxy.counted == [("POST", "4xx", "bad_request", 1)]
    assert proxy.states[0].breaker.failures == 0


def test_too_many_trailers_are_431(proxy: Proxy) -> None:
    client = proxy.client(request("POST /", "Transfer-Encoding: chunked", body=b"0\r\n"))
    proxy.accept()
    client.feed(b"X-A: " + b"a" * 9000 + b"\r\n")
    assert error_of(client.data) == (431, "too_large")


def test_a_broken_chunk_after_the_response_has_begun_breaks_the_connection(proxy: Proxy) -> None:
    client = proxy.client(request("POST /", "Transfer-Encoding: chunked", body=b"2\r\nab\r\n"))
    endpoint = proxy.accept()
    endpoint.feed(ok(b"abcd")[:-2])
    client.feed(b"zz\r\n")
    assert client.aborted
    assert endpoint.aborted
    assert proxy.counted == [("POST", "2xx", "bad_request", 1)]


# Slow clients


def test_a_slow_head_is_408(proxy: Proxy) -> None:
    proxy.refusals = 1
    client = proxy.client(b"GET / HT")
    for _ in range(9):
        proxy.pass_time(1.0)
        client.feed(b"x")  # moving on does not buy time: that would be Slowloris' way
    assert not client.data
    proxy.pass_time(1.2)

    assert error_of(client.data) == (408, "request_timeout")
    assert client.eof_written
    assert proxy.counted == [("OTHER", "4xx", "request_timeout", 1)]


def test_a_slow_body_is_408_and_nobody_elses_fault(proxy: Proxy) -> None:
    client = proxy.client(request("POST /", "Content-Length: 100", body=b"ab"))
    endpoint = proxy.accept()
    proxy.pass_time(29.0)
    client.feed(b"cd")  # a body that moves has time
    proxy.pass_time(29.0)
    assert not client.data
    proxy.pass_time(1.3)

    assert error_of(client.data) == (408, "request_timeout")
    assert b"\r\nConnection: close\r\n" in client.data
    assert endpoint.aborted
    assert client.eof_written
    assert proxy.counted == [("POST", "4xx", "request_timeout", 1)]
    assert proxy.states[0].breaker.failures == 0


# Lingering


def test_a_refused_client_may_finish_what_it_says(proxy: Proxy) -> None:
    """RFC 9112 9.6: an immediate close could destroy the answer on its way."""
    proxy.refusals = 1
    client = proxy.client(b"garbage\r\n\r\n")
    client.feed(request(), b"x" * 1000)
    assert not client.closing
    assert proxy.connecting == []
    assert client.feed_eof() is False


def test_lingering_ends_after_a_while(proxy: Proxy) -> None:
    proxy.refusals = 1
    client = proxy.client(b"garbage\r\n\r\n")
    proxy.pass_time(LINGER_SECONDS)
    assert not client.closing
    proxy.pass_time(0.2)
    assert client.closing


def test_lingering_ends_after_so_many_bytes(proxy: Proxy) -> None:
    proxy.refusals = 1
    client = proxy.client(b"garbage\r\n\r\n")
    client.feed(b"x" * LINGER_BYTES)
    assert not client.closing
    client.feed(b"x")
    assert client.aborted


def test_an_answer_that_is_still_unsent_has_longer(proxy: Proxy) -> None:
    client = proxy.client(request("GET /", "Connection: close"))
    endpoint = proxy.accept()
    client.buffered = 5000
    endpoint.feed(ok())
    assert client.closing
    assert not client.aborted
    proxy.pass_time(LINGER_SECONDS + 1)
    assert not client.aborted, "closing flushes what is unsent"
    proxy.pass_time(60.0)
    assert client.aborted


# Clients that go


@pytest.mark.parametrize("how", ["eof", "lost", "reset"])
@pytest.mark.parametrize("when", ["connecting", "sent", "responding"])
def test_a_client_that_goes_is_499_and_nobodys_fault(proxy: Proxy, how: str, when: str) -> None:
    """10: the upstream connection is closed, the breaker untouched."""
    client = proxy.client(request("POST /", "Content-Length: 3", body=b"abc"))
    attempt = proxy.connecting[0]
    if when != "connecting":
        endpoint = proxy.accept()
    if when == "responding":
        endpoint.feed(ok(b"abcdef")[:-3])
    if how == "eof":
        assert client.feed_eof() is False
    else:
        client.lose(None if how == "lost" else ConnectionResetError())

    assert attempt.cancelled if when == "connecting" else endpoint.aborted
    assert proxy.counted == [("POST", "4xx", "client_gone", 1)]
    assert proxy.states[0].breaker.failures == 0
    assert proxy.states[0].pool.open == 0


def test_a_client_that_goes_takes_its_pipelined_requests_with_it(proxy: Proxy) -> None:
    client = proxy.client(request() + request())
    proxy.accept()
    client.lose()
    assert proxy.counted == [("GET", "4xx", "client_gone", 1)]


def test_a_client_that_goes_between_requests_is_not_counted(proxy: Proxy) -> None:
    client = proxy.client(request())
    proxy.accept().feed(ok())
    assert client.feed_eof() is False
    client.lose()
    other = proxy.client(b"GET / HT")
    other.lose()
    assert proxy.counted == [("GET", "2xx", "none", 1)]


def test_a_client_that_half_closes_within_a_head_has_gone(proxy: Proxy) -> None:
    """Not slow: nobody waits for an answer, so none is counted; what is still unsent gets its time."""
    client = proxy.client(request())
    client.buffered = 5000
    proxy.accept().feed(ok())
    client.feed(b"GET / HT")
    assert client.feed_eof() is False
    proxy.pass_time(11.0)
    assert proxy.counted == [("GET", "2xx", "none", 1)]
    assert client.data == ok()
    proxy.pass_time(61.0)
    assert client.aborted


# Bounds and endings


def test_clients_beyond_the_bound_are_closed_at_once(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(context={"max_clients": 2})
    clients = [proxy.client() for _ in range(3)]
    assert [client.aborted for client in clients] == [False, False, True]
    assert proxy.context.refused == 1
    proxy.settle()
    clients[0].lose()
    assert not proxy.client().aborted, "there is room again"
    assert proxy.context.clients == 2


def test_draining_closes_connections_with_their_next_answer(proxy: Proxy) -> None:
    client = proxy.client(request("GET /1") + request("GET /2"))
    endpoint = proxy.accept()
    proxy.context.draining = True
    endpoint.feed(ok(b"1"))

    assert client.data == ok(b"1").replace(*CLOSING)
    assert client.eof_written
    assert proxy.counted == [("GET", "2xx", "none", 1)]


def test_draining_tells_http_1_0_by_closing(proxy: Proxy) -> None:
    proxy.context.draining = True
    client = proxy.client(request("GET /", "Connection: keep-alive", version="1.0"))
    proxy.accept().feed(ok())
    assert client.data == ok()
    assert client.closing


def test_the_proxys_own_answers_say_close_when_draining(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(endpoints=0)
    proxy.context.draining = True
    client = proxy.client(request())
    assert error_of(client.data) == (503, "no_endpoints")
    assert b"\r\nConnection: close\r\n" in client.data
    assert client.closing


def test_retiring_closes_only_what_is_idle(proxy: Proxy) -> None:
    idle = proxy.client(request())
    endpoint = proxy.accept()
    endpoint.feed(ok())
    begun = proxy.client(b"GET / HT")
    busy = proxy.client(request())
    other = proxy.accept() if proxy.connecting else endpoint
    other.taken()
    now = proxy.clock.monotonic()
    assert all(client.protocol.retire(now) for client in (idle, begun, busy))
    assert not idle.closing, "a request may be on its way"
    quiet = now + RETIRE_QUIET + 2 * INTERVAL
    assert not idle.protocol.retire(quiet)
    assert begun.protocol.retire(quiet)
    assert busy.protocol.retire(quiet)

    assert [idle.closing, begun.closing, busy.closing, other.closing] == [True, False, False, False]
    other.feed(ok())
    assert busy.data == ok()


def test_a_last_answer_that_is_not_taken_yet_keeps_the_process(proxy: Proxy) -> None:
    client = proxy.client(request("GET /", "Connection: close"))
    endpoint = proxy.accept()
    client.buffered = 100
    endpoint.feed(ok())
    assert client.closing
    now = proxy.clock.monotonic() + RETIRE_QUIET + 2 * INTERVAL
    assert client.protocol.retire(now)
    client.buffered = 0
    assert not client.protocol.retire(now)


def test_shutting_ends_everything_and_counts_it(proxy: Proxy) -> None:
    busy = proxy.client(request())
    endpoint = proxy.accept()
    waiting = proxy.client(request())
    attempt = proxy.connecting[0]
    for member in tuple(proxy.context.sweep.members):
        member.shut()
    proxy.settle()

    assert busy.aborted
    assert waiting.aborted
    assert endpoint.aborted
    assert attempt.cancelled
    assert sum(proxy.cluster.stats.requests) == 2
    assert {reason for _, _, reason, _ in proxy.counted} <= {
        Reason.CLIENT_GONE.label,
        Reason.RESET_BEFORE_HEADERS.label,
        Reason.ALL_OPEN.label,
    }
