"""Back-pressure: whoever cannot be written to stops the one who is read from."""

from collections.abc import Callable

import pytest
from support.transports import MemoryTransport
from unit.proxy.harness import Proxy, error_of, ok, request

from sidecar.proxy.relay import PEER_FULL, PIPELINE_FULL, UNSENT, ReadGate

MakeProxy = Callable[..., Proxy]


@pytest.fixture
def gated() -> tuple[MemoryTransport, ReadGate]:
    transport = MemoryTransport()
    return transport, ReadGate(transport)  # type: ignore[arg-type] # a transport by its methods


def test_reading_goes_on_when_the_last_reason_is_over(gated: tuple[MemoryTransport, ReadGate]) -> None:
    transport, gate = gated
    gate.hold(PEER_FULL)
    gate.hold(UNSENT)
    gate.hold(PEER_FULL)
    assert not transport.reading
    gate.release(PEER_FULL)
    assert not transport.reading
    gate.release(PEER_FULL | UNSENT)
    assert transport.reading


def test_the_switch_is_moved_only_when_it_has_to_be(gated: tuple[MemoryTransport, ReadGate]) -> None:
    """uvloop and asyncio count pauses differently from each other; once is right for both."""
    transport, gate = gated
    moves: list[str] = []
    transport.pause_reading = lambda: moves.append("pause")  # type: ignore[method-assign]
    transport.resume_reading = lambda: moves.append("resume")  # type: ignore[method-assign]
    gate.release(PEER_FULL)
    gate.hold(PEER_FULL)
    gate.hold(PIPELINE_FULL)
    gate.release(PEER_FULL)
    gate.release(PIPELINE_FULL)
    gate.release(PIPELINE_FULL)
    assert moves == ["pause", "resume"]


def test_a_closing_transport_is_left_alone(gated: tuple[MemoryTransport, ReadGate]) -> None:
    transport, gate = gated
    transport.close()
    gate.hold(PEER_FULL)
    assert transport.reading
    transport.reading = False
    gate.release(PEER_FULL)
    assert not transport.reading


# Through exchanges


def test_a_slow_client_holds_the_endpoint(proxy: Proxy) -> None:
    client = proxy.client(request())
    endpoint = proxy.accept()
    endpoint.feed(ok(b"abcdef")[:-4])
    client.fill()
    assert not endpoint.reading
    assert client.reading, "it may still send"
    client.drain()
    assert endpoint.reading
    endpoint.feed(b"cdef")
    assert client.data == ok(b"abcdef")


def test_a_client_that_is_full_at_once_holds_the_endpoint(proxy: Proxy) -> None:
    """The write of the head already passes the high-water mark."""
    client = proxy.client(request())
    endpoint = proxy.accept()
    write = client.write

    def write_and_fill(data: bytes) -> None:
        write(data)
        client.fill(len(data))

    client.write = write_and_fill  # type: ignore[method-assign,assignment]
    endpoint.feed(ok(b"abcdef")[:-4])
    assert not endpoint.reading
    client.write = write  # type: ignore[method-assign]
    client.drain()
    assert endpoint.reading
    endpoint.feed(b"cdef")


def test_a_slow_endpoint_holds_the_client(proxy: Proxy) -> None:
    client = proxy.client(request("POST /", "Content-Length: 6", body=b"ab"))
    endpoint = proxy.accept()
    endpoint.fill()
    assert not client.reading
    assert endpoint.reading, "it may answer early"
    endpoint.drain()
    assert client.reading
    client.feed(b"cdef")
    endpoint.feed(ok())
    assert client.data == ok()


def test_an_answer_ends_the_wait_for_a_slow_endpoint(proxy: Proxy) -> None:
    client = proxy.client(request("POST /", "Content-Length: 6", body=b"ab"))
    endpoint = proxy.accept()
    endpoint.fill()
    endpoint.feed(ok(b"no", status="413 Content Too Large"))
    assert client.reading, "what it still sends is short"


def test_an_answer_ends_the_wait_also_when_the_request_was_whole(proxy: Proxy) -> None:
    client = proxy.client(request("POST /", "Content-Length: 2", body=b"ab"))
    endpoint = proxy.accept()
    endpoint.fill()
    assert not client.reading
    endpoint.feed(ok())
    assert client.reading, "for its next request"


def test_a_connection_that_has_unsent_bytes_is_not_used_again(proxy: Proxy) -> None:
    proxy.client(request())
    endpoint = proxy.accept()
    endpoint.fill()
    endpoint.feed(ok())
    assert endpoint.closing
    assert proxy.states[0].pool.idle == []


def test_a_held_endpoint_is_read_again_by_the_next_exchange(proxy: Proxy) -> None:
    client = proxy.client(request())
    endpoint = proxy.accept()
    endpoint.feed(ok(b"abc")[:-1])
    client.fill()
    assert not endpoint.reading
    endpoint.protocol.data_received(b"c")  # it was on its way already
    assert endpoint.reading
    assert proxy.exchange(request(), ok(b"other")) == ok(b"other")


def test_a_client_that_is_slow_to_take_its_answer_holds_nobody_elses(proxy: Proxy) -> None:
    """The connection that answered it is free again, and may carry another client's exchange."""
    slow = proxy.client(request())
    endpoint = proxy.accept()
    endpoint.feed(ok())
    other = proxy.client(request())
    slow.fill()
    assert endpoint.reading
    endpoint.feed(ok(b"other"))
    assert other.data == ok(b"other")


def test_nothing_is_answered_to_who_does_not_read(proxy: Proxy) -> None:
    """The next pipelined exchange begins when the client has read the answers before it."""
    client = proxy.client(request("GET /1") + request("GET /2") + request("GET /3"))
    endpoint = proxy.accept()
    endpoint.taken()
    client.fill()
    endpoint.protocol.data_received(ok(b"1"))
    assert endpoint.data == b"", "the second request waits"
    client.drain()
    assert endpoint.taken().startswith(b"GET /2 ")
    endpoint.feed(ok(b"2"))
    endpoint.feed(ok(b"3"))
    assert client.data == ok(b"1") + ok(b"2") + ok(b"3")


def test_requests_that_come_while_the_client_does_not_read_wait(proxy: Proxy) -> None:
    client = proxy.client(request("GET /1"))
    endpoint = proxy.accept()
    endpoint.taken()
    client.fill()
    endpoint.protocol.data_received(ok(b"1"))
    second = request("GET /2")
    client.feed(second[:9], second[9:])
    assert endpoint.data == b""
    client.drain()
    assert endpoint.taken().startswith(b"GET /2 ")
    endpoint.feed(ok(b"2"))
    assert client.data == ok(b"1") + ok(b"2")


def test_half_a_request_that_came_while_the_client_did_not_read(proxy: Proxy) -> None:
    client = proxy.client(request("GET /1"))
    endpoint = proxy.accept()
    endpoint.taken()
    client.fill()
    endpoint.protocol.data_received(ok(b"1"))
    second = request("GET /2")
    client.feed(second[:9])
    client.drain()
    client.feed(second[9:])
    assert endpoint.taken().startswith(b"GET /2 ")
    endpoint.feed(ok(b"2"))


def test_the_proxys_own_answers_stop_too_when_nobody_reads(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(endpoints=0)
    client = proxy.client()
    write = client.write

    def write_and_fill(data: bytes) -> None:
        write(data)
        client.fill(len(data))

    client.write = write_and_fill  # type: ignore[method-assign,assignment]
    client.feed(request() * 3)
    for answered in (1, 2, 3):
        assert client.data.count(b"no_endpoints\r\n") == answered
        client.drain()
    assert proxy.counted == [("GET", "5xx", "no_endpoints", 3)]


def test_the_pipeline_is_bounded(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(max_request_head=1000)
    client = proxy.client(request("GET /0"))
    endpoint = proxy.accept()
    piece = request("GET /1", "X-A: " + "a" * 300)
    sent = 0
    while client.reading:
        client.feed(piece)
        sent += 1
    assert 1000 <= sent * len(piece) < 1000 + len(piece)

    for number in range(sent + 1):
        endpoint.feed(ok(b"%d" % number))
        assert client.reading or number < sent - 2
    assert client.data == b"".join(ok(b"%d" % number) for number in range(sent + 1))


def test_the_pipeline_is_bounded_while_the_client_does_not_read(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(max_request_head=200)
    client = proxy.client(request())
    endpoint = proxy.accept()
    client.fill()
    endpoint.protocol.data_received(ok())
    sent = 0
    while client.reading:
        client.feed(request())
        sent += 1
    assert 200 <= sent * len(request()) < 200 + len(request())
    client.drain()
    for _ in range(sent):
        endpoint.feed(ok())
    assert client.data == ok() * (sent + 1)


def test_a_pipeline_that_is_still_full_stays_held(make_proxy: MakeProxy) -> None:
    """One read may bring more than the bound; reading goes on once there is less than that left."""
    proxy = make_proxy(max_request_head=200)
    piece = request("GET /1")
    client = proxy.client(piece)
    endpoint = proxy.accept()
    client.feed(piece * 10)
    left = 10 * len(piece)
    while left:
        endpoint.feed(ok())
        left -= len(piece)
        assert client.reading is (left < 200)
    endpoint.feed(ok())
    assert client.data == ok() * 11


# Slow readers and time


def test_a_client_that_stops_reading_is_gone_and_nobodys_fault(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(timeout=5.0)
    client = proxy.client(request())
    endpoint = proxy.accept()
    endpoint.feed(ok(b"abc")[:-1])
    client.fill(50_000)
    proxy.pass_time(5.2)
    assert not client.closing, "what is unsent may have shrunk since it was written"
    proxy.pass_time(5.2)

    assert client.aborted
    assert endpoint.aborted
    assert [reason for _, _, reason, _ in proxy.counted] == ["client_gone"]
    assert proxy.states[0].breaker.failures == 0


def test_a_client_that_reads_slowly_has_time(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(timeout=5.0)
    client = proxy.client(request())
    endpoint = proxy.accept()
    endpoint.feed(ok(b"abc")[:-1])
    client.fill(50_000)
    for left in range(40_000, 0, -10_000):
        proxy.pass_time(5.2)
        client.buffered = left
    assert not client.closing
    client.drain()
    endpoint.feed(b"c")
    assert client.data == ok(b"abc")
    assert proxy.counted == [("GET", "2xx", "none", 1)]


def test_an_endpoint_that_reads_slowly_has_time(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(timeout=5.0)
    client = proxy.client(request("POST /", "Content-Length: 9", body=b"ab"))
    endpoint = proxy.accept()
    endpoint.fill(50_000)
    for left in range(40_000, 0, -10_000):
        proxy.pass_time(5.2)
        endpoint.buffered = left
    assert not client.data
    endpoint.drain()
    client.feed(b"cdefghi")
    endpoint.feed(ok())
    assert client.data == ok()


def test_an_endpoint_that_stops_reading_has_failed(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(timeout=5.0)
    client = proxy.client(request("POST /", "Content-Length: 9", body=b"ab"))
    endpoint = proxy.accept()
    endpoint.fill(50_000)
    proxy.pass_time(5.2)
    proxy.pass_time(5.2)

    assert error_of(client.data) == (504, "request_timeout")
    assert endpoint.aborted
    assert proxy.states[0].breaker.failures == 1


def test_a_client_that_stops_reading_before_the_response_counts_as_499(make_proxy: MakeProxy) -> None:
    """Interim responses alone may fill it; no status of the final one is known then."""
    proxy = make_proxy(timeout=5.0)
    client = proxy.client(request())
    proxy.accept().feed(b"HTTP/1.1 103 Early Hints\r\n\r\n")
    client.fill()
    proxy.pass_time(5.2)
    proxy.pass_time(5.2)
    assert client.aborted
    assert proxy.counted == [("GET", "4xx", "client_gone", 1)]


def test_a_quiet_client_that_never_reads_its_answers_is_closed(proxy: Proxy) -> None:
    client = proxy.client(request() + request())
    endpoint = proxy.accept()
    client.fill()
    endpoint.protocol.data_received(ok())
    proxy.pass_time(60.2)
    assert client.aborted


def test_a_full_client_holds_the_connection_of_the_next_attempt_too(proxy: Proxy) -> None:
    """An interim response of the first attempt may have filled it."""
    client = proxy.client(request())
    first = proxy.accept()
    first.feed(b"HTTP/1.1 103 Early Hints\r\n\r\n")
    client.fill()
    assert not first.reading
    first.lose(ConnectionResetError())
    second = proxy.accept()
    assert not second.reading
    client.drain()
    assert second.reading
    second.feed(ok())
