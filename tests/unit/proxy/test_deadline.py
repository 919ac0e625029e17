"""Requests that say how long they may take."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from unit.proxy.harness import Proxy, error_of, ok, request

from sidecar.errors import Reason
from sidecar.model import Outcome

MakeProxy = Callable[..., Proxy]

BUSY = ok(b"busy", status="503 Service Unavailable")


@pytest.fixture
def timed(make_proxy: MakeProxy) -> MakeProxy:
    """An upstream whose requests may say so in X-Timeout; a breaker opens at the first failure."""

    def make(endpoints: int = 1, **policy: Any) -> Proxy:
        return make_proxy(endpoints, **{"deadline_header": b"x-timeout", "breaker_threshold": 1, **policy})

    return make


def within(milliseconds: object, line: str = "GET /", *fields: str, body: bytes = b"") -> bytes:
    return request(line, f"X-Timeout: {milliseconds}", *fields, body=body)


def left(sent: bytes) -> int:
    """What a request tells the endpoint of the time that it has."""
    (value,) = [line[11:] for line in sent.split(b"\r\n") if line.startswith(b"X-Timeout: ")]
    return int(value)


def blameless(proxy: Proxy) -> bool:
    """Whether no endpoint is said to have failed."""
    closed = all(
        state.breaker.state.label == "closed" and not state.breaker.failures for state in proxy.states
    )
    failures = (outcome for outcome in Outcome if outcome.is_failure)
    return closed and not any(state.attempts[outcome] for outcome in failures for state in proxy.states)


# When the time is over


def test_without_an_answer_it_is_504(timed: MakeProxy) -> None:
    proxy = timed()
    client = proxy.client(within(1000))
    endpoint = proxy.accept()
    proxy.pass_time(0.99)
    assert not client.data, "never early"
    proxy.pass_time(0.11)

    assert error_of(client.data) == (504, "request_timeout")
    assert "own header" in json.loads(client.data.partition(b"\r\n\r\n")[2])["message"]
    assert not client.closing
    assert endpoint.closing
    assert proxy.counted == [("GET", "5xx", "request_timeout", 1)]
    assert proxy.cluster.stats.deadlines_exceeded == 1


def test_it_is_nobodys_failure(timed: MakeProxy) -> None:
    """A client with 5 ms must not open the breaker of an endpoint that is perfectly well."""
    proxy = timed()
    for _ in range(10):
        proxy.client(within(5))
        proxy.accept()
        proxy.pass_time(0.1)
    assert blameless(proxy)
    assert proxy.states[0].attempts[Outcome.CANCELLED] == 10
    assert proxy.cluster.stats.deadlines_exceeded == 10


def test_the_endpoints_own_time_out_stays_its_failure(timed: MakeProxy) -> None:
    """What the client says can only shorten it."""
    proxy = timed(timeout=2.0)
    client = proxy.client(within(5000))
    proxy.accept()
    proxy.pass_time(2.2)
    assert error_of(client.data) == (504, "request_timeout")
    assert proxy.states[0].attempts[Outcome.REQUEST_TIMEOUT] == 1
    assert proxy.states[0].breaker.state.label == "open"
    assert proxy.cluster.stats.deadlines_exceeded == 0


def test_an_answer_that_has_begun_is_broken_off(timed: MakeProxy) -> None:
    proxy = timed()
    client = proxy.client(within(1000))
    endpoint = proxy.accept()
    endpoint.feed(ok(b"abc")[:-2])
    proxy.pass_time(0.9)
    endpoint.feed(b"b")  # that it goes on does not make the time longer
    proxy.pass_time(0.2)
    assert client.aborted
    assert client.data == ok(b"abc")[:-1]
    assert endpoint.closing
    assert proxy.counted == [("GET", "2xx", "request_timeout", 1)]
    assert blameless(proxy)


def test_a_stream_that_outlives_the_time_out_is_nobodys_failure(timed: MakeProxy) -> None:
    proxy = timed(timeout=2.0)
    client = proxy.client(within(5000))
    endpoint = proxy.accept()
    endpoint.feed(ok(b"abcd")[:-4])
    for _ in range(3):
        proxy.pass_time(1.5)
        endpoint.feed(b"x")
    proxy.pass_time(0.6)
    assert client.aborted
    assert blameless(proxy)


def test_a_request_body_that_still_comes_does_not_make_it_longer(timed: MakeProxy) -> None:
    proxy = timed()
    client = proxy.client(within(1000, "POST /", "Content-Length: 3", body=b"a"))
    proxy.accept()
    proxy.pass_time(0.9)
    client.feed(b"b")
    proxy.pass_time(0.2)
    assert b" 504 " in client.data
    assert client.eof_written, "the rest of the body has no place any more"
    assert blameless(proxy)


def test_a_client_that_does_not_read_is_let_go(timed: MakeProxy) -> None:
    proxy = timed()
    client = proxy.client(within(1000))
    endpoint = proxy.accept()
    endpoint.feed(ok(b"abc")[:-2])
    client.fill()
    proxy.pass_time(1.1)
    assert client.aborted
    assert blameless(proxy)


@pytest.mark.parametrize("seconds", [0.2495, 0.26], ids=["by rounding", "over"])
def test_the_next_hop_saying_so_first_is_nobodys_failure(timed: MakeProxy, seconds: float) -> None:
    """It was told how long it has, and its sweep may come by before this one's."""
    proxy = timed(endpoints=2, retry_statuses=frozenset((504,)))
    client = proxy.client(within(250))
    endpoint = proxy.accept()
    proxy.clock.advance(seconds)
    answer = ok(b"late", status="504 Gateway Timeout")
    endpoint.feed(answer)
    assert client.data == answer
    assert proxy.connecting == []
    assert blameless(proxy)
    assert sum(state.attempts[Outcome.CANCELLED] for state in proxy.states) == 1


@pytest.mark.parametrize("status", ["502 Bad Gateway", "503 Busy", "504 Gateway Timeout"])
def test_any_other_failure_stays_one(timed: MakeProxy, status: str) -> None:
    proxy = timed()
    proxy.client(within(250))
    endpoint = proxy.accept()
    proxy.clock.advance(0.2 if status.startswith("504") else 0.26)
    endpoint.feed(ok(status=status))
    assert proxy.states[0].attempts[Outcome.FAILURE_STATUS] == 1
    assert proxy.states[0].breaker.state.label == "open"


def test_an_answer_in_time_is_an_answer(timed: MakeProxy) -> None:
    proxy = timed()
    client = proxy.client(within(1000))
    endpoint = proxy.accept()
    proxy.clock.advance(0.95)
    endpoint.feed(ok())
    assert client.data == ok()
    client.taken()
    client.feed(request())  # which says nothing, and has the usual time
    proxy.pass_time(20.0)
    assert client.data == b""
    endpoint.feed(ok(b"late"))
    assert client.data == ok(b"late")
    assert proxy.cluster.stats.deadlines_exceeded == 0


def test_an_answer_before_the_sweep_has_looked_is_passed_on(timed: MakeProxy) -> None:
    proxy = timed()
    client = proxy.client(within(50))
    endpoint = proxy.accept()
    proxy.clock.advance(0.08)
    endpoint.feed(ok())
    assert client.data == ok()


def test_what_comes_behind_the_answer_has_its_own_time(timed: MakeProxy) -> None:
    """The rest of the body of a request that was answered early: two seconds, as ever."""
    proxy = timed()
    client = proxy.client(within(1000, "POST /", "Content-Length: 3", body=b"a"))
    endpoint = proxy.accept()
    endpoint.feed(ok())
    proxy.pass_time(1.5)
    assert not client.closing
    client.feed(b"bc")
    assert proxy.cluster.stats.deadlines_exceeded == 0


def test_what_never_comes_behind_the_answer_is_no_deadline(timed: MakeProxy) -> None:
    proxy = timed()
    client = proxy.client(within(1000, "POST /", "Content-Length: 3", body=b"a"))
    proxy.accept().feed(ok())
    client.taken()
    proxy.pass_time(2.2)
    assert client.data == b"", "it has its answer"
    assert client.eof_written
    assert proxy.cluster.stats.deadlines_exceeded == 0


def test_a_tunnel_is_bound_by_it_no_more(timed: MakeProxy) -> None:
    proxy = timed()
    client = proxy.client(within(1000, "GET /", "Connection: upgrade", "Upgrade: websocket"))
    endpoint = proxy.accept()
    endpoint.feed(b"HTTP/1.1 101 Up\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
    proxy.pass_time(60.0)
    client.feed(b"hello")
    assert endpoint.data.endswith(b"hello")


# Before there is a connection


def test_connecting_is_cut_short_and_not_blamed(timed: MakeProxy) -> None:
    proxy = timed(endpoints=2, connect_timeout=1.0, retries=3)
    client = proxy.client(within(500))
    proxy.pass_time(0.6)
    assert error_of(client.data) == (504, "request_timeout")
    assert proxy.connecting == []
    assert blameless(proxy)
    assert proxy.cluster.limit.used == 0


def test_a_connect_time_out_of_its_own_is_blamed_as_ever(timed: MakeProxy) -> None:
    proxy = timed(connect_timeout=1.0, retries=0)
    client = proxy.client(within(5000))
    proxy.pass_time(1.2)
    assert error_of(client.data) == (504, "connect_timeout")
    assert proxy.states[0].attempts[Outcome.CONNECT_TIMEOUT] == 1


def test_a_wait_is_cut_short(timed: MakeProxy) -> None:
    proxy = timed(max_connections=1, pending_timeout=10.0)
    proxy.client(request())
    proxy.accept()
    waiting = proxy.client(within(500))
    proxy.pass_time(0.6)
    assert error_of(waiting.data) == (504, "request_timeout")
    assert list(proxy.cluster.limit.pending) == []
    assert proxy.overflows == {}, "no bound was reached"


def test_a_wait_that_is_too_long_anyway_is_overflow(timed: MakeProxy) -> None:
    proxy = timed(max_connections=1, pending_timeout=1.0)
    proxy.client(request())
    proxy.accept()
    waiting = proxy.client(within(5000))
    proxy.pass_time(1.2)
    assert error_of(waiting.data) == (503, "overflow")


def test_a_connection_that_comes_too_late_is_kept_for_others(timed: MakeProxy) -> None:
    proxy = timed()
    client = proxy.client(within(50))
    proxy.clock.advance(0.08)  # the sweep has not come by
    endpoint = proxy.accept()
    assert error_of(client.data) == (504, "request_timeout")
    assert endpoint.data == b"", "nothing is sent that nobody waits for"
    assert proxy.states[0].pool.idle == [endpoint.protocol]
    assert blameless(proxy)
    again = proxy.client(request())
    endpoint.feed(ok())
    assert again.data == ok()


def test_a_connection_that_comes_too_late_goes_to_who_waits(timed: MakeProxy) -> None:
    proxy = timed(max_connections=1)
    first = proxy.client(request())
    late = proxy.client(within(50))
    waiting = proxy.client(request("GET /2"))
    endpoint = proxy.accept()
    proxy.clock.advance(0.08)
    endpoint.taken()
    endpoint.feed(ok())
    assert first.data == ok()
    assert error_of(late.data) == (504, "request_timeout")
    assert endpoint.taken().startswith(b"GET /2 ")
    endpoint.feed(ok(b"2"))
    assert waiting.data == ok(b"2")


def test_room_that_comes_too_late_goes_to_who_waits(timed: MakeProxy) -> None:
    proxy = timed(max_connections=1)
    proxy.client(request())
    late = proxy.client(within(50))
    waiting = proxy.client(request("GET /2"))
    endpoint = proxy.accept()
    proxy.clock.advance(0.08)
    endpoint.feed(ok(b"1", "Connection: close"))
    assert error_of(late.data) == (504, "request_timeout")
    proxy.accept().feed(ok(b"2"))
    assert waiting.data == ok(b"2")


def test_a_connection_to_an_endpoint_that_has_gone_is_not_kept(timed: MakeProxy) -> None:
    proxy = timed()
    client = proxy.client(within(50))
    proxy.serve_by(1, first=2)
    proxy.clock.advance(0.08)
    endpoint = proxy.accept()
    assert error_of(client.data) == (504, "request_timeout")
    assert endpoint.closing


def test_a_probe_that_had_no_time_is_given_back(timed: MakeProxy) -> None:
    proxy = timed(breaker_jitter=0.0, retries=0)
    proxy.client(request())
    proxy.refuse()
    proxy.pass_time(1.1)
    client = proxy.client(within(50))
    (state,) = proxy.states
    assert state.breaker.probing
    proxy.clock.advance(0.08)
    endpoint = proxy.accept()
    assert error_of(client.data) == (504, "request_timeout")
    assert endpoint.closing, "it has proved nothing"
    assert not state.breaker.probing
    assert state.breaker.state.label == "half_open"
    probe = proxy.client(request())
    proxy.accept().feed(ok())
    assert probe.data == ok()
    assert state.breaker.state.label == "closed"


# Trying again


def test_nothing_is_tried_again_without_time(timed: MakeProxy) -> None:
    proxy = timed(endpoints=3, retries=5)
    client = proxy.client(within(50))
    endpoint = proxy.accept()
    proxy.clock.advance(0.08)
    endpoint.lose(ConnectionResetError())
    assert error_of(client.data) == (504, "request_timeout")
    assert proxy.connecting == []
    assert sum(map(sum, proxy.cluster.stats.retries)) == 0
    assert sum(state.attempts[Outcome.RESET] for state in proxy.states) == 1, "that it was reset is true"


def test_a_spent_budget_is_not_the_reason_without_time(timed: MakeProxy) -> None:
    proxy = timed(endpoints=3, retries=5, retry_ratio=0.0, retry_min=0)
    client = proxy.client(within(50))
    endpoint = proxy.accept()
    proxy.clock.advance(0.08)
    endpoint.lose(ConnectionResetError())
    assert error_of(client.data) == (504, "request_timeout")
    assert proxy.cluster.stats.retries_refused == 0


def test_no_other_endpoint_is_dialled_without_time(timed: MakeProxy) -> None:
    proxy = timed(endpoints=3)
    client = proxy.client(within(50))
    proxy.clock.advance(0.08)
    proxy.refuse()
    assert error_of(client.data) == (504, "request_timeout")
    assert proxy.connecting == []


def test_the_idle_race_is_not_run_again_without_time(timed: MakeProxy) -> None:
    proxy = timed()
    proxy.exchange(request("GET /warm"), ok())
    client = proxy.client(within(50))
    proxy.clock.advance(0.08)
    proxy.busy[0].lose()
    assert error_of(client.data) == (504, "request_timeout")
    assert proxy.connecting == []
    assert blameless(proxy)


def test_the_idle_race_is_run_again_with_time(timed: MakeProxy) -> None:
    proxy = timed()
    proxy.exchange(request("GET /warm"), ok())
    client = proxy.client(within(1000))
    proxy.clock.advance(0.25)
    proxy.busy[0].lose()
    endpoint = proxy.accept()
    assert left(endpoint.data) == 750
    endpoint.feed(ok())
    assert client.data == ok()


def test_a_response_passes_when_there_is_no_time_for_a_better_one(timed: MakeProxy) -> None:
    proxy = timed(endpoints=2, retry_statuses=frozenset((503,)))
    client = proxy.client(within(50))
    endpoint = proxy.accept()
    proxy.clock.advance(0.08)
    endpoint.feed(BUSY)
    assert client.data == BUSY


@pytest.mark.parametrize("asked", [within(1000), request()], ids=["time is left", "it has all of it"])
def test_a_response_is_bettered_while_there_is_time(timed: MakeProxy, asked: bytes) -> None:
    proxy = timed(endpoints=2, retry_statuses=frozenset((503,)))
    client = proxy.client(asked)
    proxy.accept().feed(BUSY)
    proxy.accept().feed(ok())
    assert client.data == ok()


def test_an_attempt_is_cut_to_the_time_that_is_left(timed: MakeProxy) -> None:
    proxy = timed(endpoints=2, per_try_timeout=2.0, retries=1)
    client = proxy.client(within(3000))
    proxy.accept()
    proxy.pass_time(2.2)
    second = proxy.accept()
    proxy.pass_time(0.9)
    assert error_of(client.data) == (504, "request_timeout")
    assert second.closing
    outcomes = sorted(
        outcome.label for outcome in Outcome for state in proxy.states if state.attempts[outcome]
    )
    assert outcomes == ["cancelled", "request_timeout"], "the first had all of its own time"
    assert proxy.cluster.stats.retries[Reason.REQUEST_TIMEOUT] == [1, 0]


# What goes on


def test_each_attempt_tells_what_is_left(timed: MakeProxy) -> None:
    proxy = timed(endpoints=2, retries=2)
    asked = request("PUT /", "A: 1", "x-TIMEOUT:\t1000 ", "B: 2", "Content-Length: 2", body=b"hi")
    proxy.client(asked)
    proxy.clock.advance(0.25)
    first = proxy.accept()
    expected = asked.replace(b"localhost:8080", b"10.0.0.1:80")
    assert first.data == expected.replace(b"x-TIMEOUT:\t1000 ", b"x-TIMEOUT: 750")
    proxy.clock.advance(0.25)
    first.lose(ConnectionResetError())
    second = proxy.accept()
    assert b"\r\nx-TIMEOUT: 500\r\n" in second.data
    second.feed(ok())


@pytest.mark.parametrize(
    "fields",
    [(), ("Connection: close",), ("Connection: close, x-other", "X-Other: 1"), ("Max-Forwards: 3",)],
    ids=["usual", "a line left out", "the careful scan's", "rare"],
)
def test_whatever_the_head_is(timed: MakeProxy, fields: tuple[str, ...]) -> None:
    proxy = timed()
    proxy.client(request("GET /a", *fields, "X-Timeout: 1000", "Last: 1"))
    proxy.clock.advance(0.5)
    endpoint = proxy.accept()
    kept = ["Max-Forwards: 3"] if "Max-Forwards: 3" in fields else []
    lines = ["GET /a HTTP/1.1", "Host: 10.0.0.1:80", *kept, "X-Timeout: 500", "Last: 1", "", ""]
    assert endpoint.data == "\r\n".join(lines).encode()
    endpoint.feed(ok())


def test_what_is_left_is_never_nought(timed: MakeProxy) -> None:
    proxy = timed()
    proxy.client(within(1000))
    proxy.clock.advance(0.9999)
    endpoint = proxy.accept()
    assert left(endpoint.data) == 1
    endpoint.feed(ok())


def test_a_request_without_the_header_passes_as_it_is(timed: MakeProxy) -> None:
    proxy = timed()
    proxy.client(request("GET /", "x-timeout-ms: 7"))
    endpoint = proxy.accept()
    assert b"timeout" in endpoint.data
    assert endpoint.data.endswith(b"x-timeout-ms: 7\r\n\r\n")
    proxy.pass_time(20.0)
    endpoint.feed(ok())


def test_without_the_option_the_header_is_any_other(make_proxy: MakeProxy) -> None:
    proxy = make_proxy()
    client = proxy.client(within(50))
    endpoint = proxy.accept()
    assert left(endpoint.data) == 50
    proxy.pass_time(20.0)
    endpoint.feed(ok())
    assert client.data == ok()


# From the first byte


def test_the_time_counts_from_the_first_byte_of_the_head(timed: MakeProxy) -> None:
    proxy = timed()
    asked = within(1000)
    client = proxy.client(asked[:10])
    proxy.clock.advance(0.25)
    client.feed(asked[10:-2])
    proxy.clock.advance(0.25)
    client.feed(asked[-2:])
    endpoint = proxy.accept()
    assert left(endpoint.data) == 500
    proxy.pass_time(0.51)
    assert error_of(client.data) == (504, "request_timeout")


def test_a_head_that_takes_all_of_its_time_is_sent_nowhere(timed: MakeProxy) -> None:
    proxy = timed()
    asked = within(200)
    client = proxy.client(asked[:-1])
    proxy.clock.advance(0.25)
    client.feed(asked[-1:])
    assert error_of(client.data) == (504, "request_timeout")
    assert proxy.connecting == []
    assert proxy.cluster.stats.deadlines_exceeded == 1


def test_an_empty_line_before_the_head_is_not_its_first_byte(timed: MakeProxy) -> None:
    proxy = timed()
    client = proxy.client(b"\r")
    proxy.clock.advance(0.25)
    client.feed(b"\n")
    proxy.clock.advance(0.25)
    client.feed(within(1000))
    endpoint = proxy.accept()
    assert left(endpoint.data) == 1000
    endpoint.feed(ok())


def test_the_next_request_has_its_own_first_byte(timed: MakeProxy) -> None:
    proxy = timed()
    client = proxy.client(within(1000)[:10])
    client.feed(within(1000)[10:])
    endpoint = proxy.accept()
    endpoint.taken()
    endpoint.feed(ok())
    proxy.clock.advance(0.5)
    client.feed(within(1000))
    assert left(endpoint.data) == 1000
    endpoint.feed(ok())


def test_a_pipelined_request_begins_with_its_turn(timed: MakeProxy) -> None:
    proxy = timed()
    client = proxy.client(request() + within(1000))
    endpoint = proxy.accept()
    endpoint.taken()
    proxy.clock.advance(0.5)
    endpoint.feed(ok())
    assert left(endpoint.data) == 1000
    endpoint.feed(ok(b"2"))
    assert client.data == ok() + ok(b"2")


# What it may say


@pytest.mark.parametrize(
    "value",
    ["", "0", "00", "-1", "+5", "1.5", "5s", "5 5", "1e3", "0x10", "soon", "12345678901", "1, 2", "\xb2"],
)
def test_anything_but_a_number_of_milliseconds_is_refused(timed: MakeProxy, value: str) -> None:
    proxy = timed()
    client = proxy.client(within(value))
    assert error_of(client.data) == (400, "bad_request")
    assert "x-timeout is repeated, or not a whole number" in client.data.decode()
    assert proxy.counted == [("GET", "4xx", "bad_request", 1)]
    assert proxy.connecting == []
    assert not client.closing, "the framing was right"
    client.taken()
    client.feed(within(1000))
    proxy.accept().feed(ok())
    assert client.data == ok()


def test_two_of_them_are_refused(timed: MakeProxy) -> None:
    proxy = timed()
    client = proxy.client(request("GET /", "X-Timeout: 100", "x-timeout: 100"))
    assert error_of(client.data) == (400, "bad_request")


@pytest.mark.parametrize("value", ["1", "0250", "2147483647", "9999999999"])
def test_any_number_of_up_to_ten_digits_is_one(timed: MakeProxy, value: str) -> None:
    proxy = timed()
    client = proxy.client(within(value))
    endpoint = proxy.accept()
    assert left(endpoint.data) == int(value)
    endpoint.feed(ok())
    assert client.data == ok()


def test_what_this_proxy_answers_itself_needs_no_time(timed: MakeProxy) -> None:
    proxy = timed()
    client = proxy.client(request("OPTIONS *", "Max-Forwards: 0", "X-Timeout: soon"))
    assert client.data.startswith(b"HTTP/1.1 200 ")


def test_a_limit_that_is_reached_comes_first(timed: MakeProxy) -> None:
    proxy = timed(max_in_flight=1)
    proxy.client(request())
    assert error_of(proxy.client(within("soon")).data) == (503, "overflow")
