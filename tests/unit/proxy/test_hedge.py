"""A slow endpoint's request is asked of another one too, and whoever answers first, answers."""

import errno
from collections.abc import Callable
from typing import Any

import pytest
from support.transports import MemoryTransport
from unit.proxy.harness import Proxy, chunked, error_of, ok, request

from sidecar.errors import Reason
from sidecar.model import Outcome
from sidecar.proxy import hedge_timer
from sidecar.proxy.hedge_timer import HedgeTimer
from sidecar.resilience import BreakerState

MakeProxy = Callable[..., Proxy]

HEDGED: dict[str, Any] = {"endpoints": 2, "hedge_after": 0.05, "timeout": 5.0}
BUSY = ok(b"busy", status="503 Service Unavailable")


def ring(proxy: Proxy, seconds: float = 0.05) -> None:
    """So much time passes, and the timer rings."""
    proxy.clock.advance(seconds)
    proxy.run_timers()


def slow(proxy: Proxy, asked: bytes | None = None) -> tuple[MemoryTransport, MemoryTransport]:
    """A client, and its request at an endpoint that does not answer in time."""
    client = proxy.client(request() if asked is None else asked)
    first = proxy.accept()
    ring(proxy)
    return client, first


def outcomes(proxy: Proxy) -> list[dict[str, int]]:
    """Of each endpoint's attempts."""
    return [
        {outcome.label: state.attempts[outcome] for outcome in Outcome if state.attempts[outcome]}
        for state in proxy.states
    ]


def test_the_second_one_answers_first(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**HEDGED)
    client, first = slow(proxy)
    assert [attempt.host for attempt in proxy.connecting] == ["10.0.0.2"]
    second = proxy.accept()
    assert second.data == first.data.replace(b"10.0.0.1", b"10.0.0.2")
    second.feed(ok(b"second"))
    assert client.data == ok(b"second")
    assert first.aborted, "what it would still say is for nobody"
    assert outcomes(proxy) == [{"outrun": 1}, {"success": 1}]
    assert proxy.cluster.stats.hedges == [0, 1]
    assert proxy.counted == [("GET", "2xx", "none", 1)]
    assert len(proxy.states[1].pool.idle) == 1


def test_the_first_one_answers_after_all(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**HEDGED)
    client, first = slow(proxy)
    second = proxy.accept()
    first.feed(ok(b"first"))
    assert client.data == ok(b"first")
    assert second.aborted
    assert outcomes(proxy) == [{"success": 1}, {"cancelled": 1}]
    assert proxy.cluster.stats.hedges == [1, 0]
    assert len(proxy.states[0].pool.idle) == 1
    assert proxy.exchange(request(), ok(b"next")) == ok(b"next")


def test_it_answers_while_the_other_is_still_being_connected_to(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**HEDGED)
    client, first = slow(proxy)
    (attempt,) = proxy.connecting
    first.feed(ok())
    assert (client.data, attempt.cancelled) == (ok(), True)
    assert outcomes(proxy) == [{"success": 1}, {"cancelled": 1}]


def test_who_answers_in_time_is_asked_alone(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**HEDGED)
    assert proxy.exchange(request(), ok()) == ok()
    ring(proxy)
    assert proxy.connecting == []
    assert proxy.cluster.stats.hedges == [0, 0]
    assert proxy.loop.timers == [], "nobody is left to ring for"


def test_each_request_has_its_own_time(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**HEDGED)
    client = proxy.client(request())
    endpoint = proxy.accept()
    endpoint.feed(ok())
    proxy.clock.advance(0.03)
    client.feed(request("GET /next"))
    busy = proxy.busy[-1] if proxy.busy else proxy.accept()
    proxy.clock.advance(0.02)
    assert proxy.run_timers() == [pytest.approx(0.05)], "the first one's"
    assert proxy.connecting == []
    proxy.clock.advance(0.03)
    (delay,) = proxy.run_timers()
    assert delay == pytest.approx(0.03)
    assert endpoint.data.count(b"GET /next") == 1, "the second endpoint's request is asked of the first, too"
    busy.feed(ok(b"next"))
    assert client.data == ok() + ok(b"next")


def test_a_request_is_hedged_once(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**{**HEDGED, "endpoints": 3, "retries": 5})
    slow(proxy)
    proxy.accept()
    ring(proxy, 1.0)
    assert (proxy.connecting, proxy.loop.timers) == ([], [])


def test_one_request_after_another_is_hedged(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**HEDGED)
    client = proxy.client(request())
    for turn in range(1, 4):
        proxy.accept()  # the first endpoint, which never answers
        ring(proxy)
        endpoint = proxy.accept() if proxy.connecting else proxy.upstreams[1]
        endpoint.feed(ok())
        assert client.data == ok() * turn
        client.feed(request())
    assert proxy.cluster.stats.hedges == [0, 3]


def test_large_answers_of_either_pass_whole(make_proxy: MakeProxy) -> None:
    for which in (0, 1):
        proxy = make_proxy(**HEDGED)
        client, first = slow(proxy)
        endpoint = (first, proxy.accept())[which]
        answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"a" * 1000, b"b")
        for start in range(0, len(answer), 100):
            endpoint.feed(answer[start : start + 100])
        assert client.data == answer


def test_progress_of_the_first_is_not_passed_on_beside_the_others(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**HEDGED)
    client, first = slow(proxy)
    second = proxy.accept()
    first.feed(b"HTTP/1.1 102 Processing\r\n\r\n")
    assert client.data == b""
    second.feed(ok())
    assert client.data == ok()


@pytest.mark.parametrize(
    "asked",
    [
        request("POST /", "Content-Length: 0"),
        request("GET /", "Connection: upgrade", "Upgrade: websocket"),
        request("PUT /", f"Content-Length: {70_000}", body=b"x" * 70_000),
    ],
    ids=["not idempotent", "upgrade", "too large to be sent again"],
)
def test_what_is_not_asked_twice(make_proxy: MakeProxy, asked: bytes) -> None:
    proxy = make_proxy(**HEDGED)
    _, first = slow(proxy, asked)
    assert proxy.connecting == []
    first.lose()


def test_a_body_goes_to_both(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**HEDGED)
    client = proxy.client(request("PUT /", "Content-Length: 3", body=b"a"))
    first = proxy.accept()
    assert proxy.loop.timers == [], "it is the client that takes its time"
    client.feed(b"bc")
    ring(proxy)
    second = proxy.accept()
    assert first.data.endswith(b"abc")
    assert second.data.endswith(b"abc")
    second.feed(ok())
    assert client.data == ok()


@pytest.mark.parametrize(
    "policy", [{"retries": 0}, {"retry_ratio": 0.0, "retry_min": 0}, {"max_connections": 1}, {"endpoints": 1}]
)
def test_without_an_attempt_left_or_anybody_to_ask_there_is_no_hedge(
    make_proxy: MakeProxy, policy: dict[str, Any]
) -> None:
    proxy = make_proxy(**{**HEDGED, **policy})
    client, first = slow(proxy)
    assert proxy.connecting == []
    first.feed(ok())
    assert client.data == ok()


def test_an_answer_that_has_begun_is_waited_for(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**HEDGED)
    client = proxy.client(request())
    first = proxy.accept()
    first.feed(ok()[:10])
    ring(proxy)
    assert proxy.connecting == []
    first.feed(ok()[10:])
    assert client.data == ok()


# One of the two fails


@pytest.mark.parametrize("how", ["refused", "reset", "garbage", "connect time-out"])
def test_the_second_one_fails(make_proxy: MakeProxy, how: str) -> None:
    proxy = make_proxy(**HEDGED)
    client, first = slow(proxy)
    if how == "refused":
        proxy.refuse()
    elif how == "connect time-out":
        proxy.pass_time(1.2)
    elif how == "reset":
        proxy.accept().lose(ConnectionResetError())
    else:
        proxy.accept().feed(b"SSH-2.0-OpenSSH\r\n")
    assert (client.data, proxy.connecting) == (b"", [])
    first.feed(ok())
    assert client.data == ok()
    assert outcomes(proxy)[0] == {"success": 1}
    assert proxy.cluster.stats.hedges == [1, 0]


@pytest.mark.parametrize("how", ["reset", "garbage", "idle race"])
def test_the_first_one_fails(make_proxy: MakeProxy, how: str) -> None:
    proxy = make_proxy(**{**HEDGED, "endpoints": 1})
    if how == "idle race":
        proxy.exchange(request(), ok())
        client = proxy.client(request())
        first = proxy.busy[0]
        proxy.serve_by(2)
        ring(proxy)
    else:
        proxy.serve_by(2)
        client, first = slow(proxy)
    second = proxy.accept()
    if how == "garbage":
        first.feed(b"SSH-2.0-OpenSSH\r\n")
    else:
        first.lose(ConnectionResetError())
    assert client.data == b""
    second.feed(ok())
    assert client.data == ok()
    label = {"reset": "reset", "garbage": "bad_response", "idle race": "idle_race"}[how]
    assert outcomes(proxy)[0][label] == 1
    assert proxy.cluster.stats.hedges == [0, 1]


def test_both_fail(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**HEDGED)
    client, first = slow(proxy)
    second = proxy.accept()
    first.lose(ConnectionResetError())
    second.lose(ConnectionResetError())
    assert error_of(client.data) == (502, "reset_before_headers")
    assert outcomes(proxy) == [{"reset": 1}, {"reset": 1}]


def test_both_fail_the_other_way_round_and_a_retry_is_left(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**{**HEDGED, "endpoints": 3, "retries": 2})
    client, first = slow(proxy)
    proxy.accept().lose(ConnectionResetError())
    first.lose(ConnectionResetError())
    third = proxy.accept()
    assert b"Host: 10.0.0.3" in third.data
    third.feed(ok())
    assert client.data == ok()


@pytest.mark.parametrize("busy", ["first", "second"])
def test_of_two_the_better_answer_counts(make_proxy: MakeProxy, busy: str) -> None:
    """A status of `retry_on` is one that another endpoint may better: the other is at it."""
    proxy = make_proxy(**HEDGED, retry_statuses=frozenset((503,)))
    client, first = slow(proxy)
    second = proxy.accept()
    one, other = (first, second) if busy == "first" else (second, first)
    one.feed(BUSY)
    assert client.data == b""
    other.feed(ok())
    assert client.data == ok()
    assert sorted(outcomes(proxy), key=str) == [{"failure_status": 1}, {"success": 1}]


def test_with_both_busy_the_client_is_told(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**HEDGED, retry_statuses=frozenset((503,)))
    client, first = slow(proxy)
    second = proxy.accept()
    first.feed(BUSY)
    second.feed(BUSY)
    assert client.data == BUSY


def test_an_answer_that_breaks_in_its_first_bytes_is_the_firsts_own(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**HEDGED)
    client, first = slow(proxy)
    proxy.accept()
    first.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n")
    assert client.data.startswith(b"HTTP/1.1 200 OK")
    assert client.aborted
    assert outcomes(proxy) == [{"bad_response": 1}, {"cancelled": 1}]


# Both end


def test_the_client_leaves(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**HEDGED)
    client, first = slow(proxy)
    second = proxy.accept()
    client.lose()
    assert (first.aborted, second.aborted) == (True, True)
    assert outcomes(proxy) == [{"cancelled": 1}, {"cancelled": 1}]
    assert proxy.counted == [("GET", "4xx", "client_gone", 1)]


def test_the_time_out_is_for_both(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**HEDGED, retry_on_timeout=False)
    client, _ = slow(proxy)
    proxy.accept()
    proxy.pass_time(5.3)
    assert error_of(client.data) == (504, "request_timeout")
    assert outcomes(proxy) == [{"request_timeout": 1}, {"request_timeout": 1}]


def test_the_clients_own_deadline_is_for_both(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**HEDGED, deadline_header=b"x-request-timeout-ms")
    client, _ = slow(proxy, request("GET /", "X-Request-Timeout-Ms: 800"))
    second = proxy.accept()
    assert b"X-Request-Timeout-Ms: 750" in second.data
    proxy.pass_time(1.0)
    assert error_of(client.data) == (504, "request_timeout")
    assert outcomes(proxy) == [{"cancelled": 1}, {"cancelled": 1}]


# Breakers


def test_an_endpoint_that_hangs_is_found_out(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**HEDGED, breaker_threshold=3, breaker_open_for=10.0)
    for _ in range(8):
        client = proxy.client(request())
        if proxy.connecting and proxy.connecting[0].host == "10.0.0.1":
            proxy.accept()
            ring(proxy)
        other = [one for one in proxy.busy if one.protocol.endpoint is proxy.states[1]]
        endpoint = proxy.accept() if proxy.connecting else other[0]
        endpoint.feed(ok())
        assert client.data == ok(), "and nobody notices"
    assert proxy.states[0].breaker.state is BreakerState.OPEN
    assert proxy.states[0].attempts[Outcome.OUTRUN] == 3


# The timer


def test_one_timer_for_all(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**{**HEDGED, "endpoints": 4})
    for _ in range(3):
        proxy.client(request())
        proxy.accept()
        proxy.clock.advance(0.01)
    assert len(proxy.loop.timers) == 1
    proxy.clock.advance(0.02)
    proxy.run_timers()
    assert len(proxy.connecting) == 1
    (timer,) = proxy.loop.timers
    assert timer.delay == pytest.approx(0.01)


def test_one_that_is_due_sooner_moves_the_timer(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**HEDGED)
    timer = HedgeTimer(proxy.context)
    heard: list[str] = []

    class Heard:
        def __init__(self, name: str) -> None:
            self.name = name

        def ring(self, now: float) -> None:
            heard.append(self.name)

        def awaits_ring(self) -> bool:
            return True

    late: Any = Heard("late")
    soon: Any = Heard("soon")
    timer.add(late, proxy.clock.now + 2.0)
    timer.add(soon, proxy.clock.now + 1.0)
    assert [(one.delay, one.cancelled) for one in proxy.loop.timers] == [(2.0, True), (1.0, False)]
    proxy.clock.advance(1.0)
    proxy.run_timers()
    assert heard == ["soon"]
    timer.shut()
    assert proxy.run_timers() == [], "the later one's is cancelled"
    assert heard == ["soon"]


def test_the_timer_ends_with_the_process(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**HEDGED)
    client = proxy.client(request())
    endpoint = proxy.accept()
    (timer,) = [member for member in proxy.context.sweep.members if isinstance(member, HedgeTimer)]
    assert not timer.retire(proxy.clock.now)
    timer.shut()
    assert proxy.run_timers() == []
    endpoint.feed(ok())
    assert client.data == ok()


# What a second look found


def test_a_quick_failure_is_not_an_answer_while_the_other_one_may_come(make_proxy: MakeProxy) -> None:
    """Else one broken endpoint would spoil the more, the more is hedged."""
    proxy = make_proxy(**HEDGED)
    client, first = slow(proxy)
    proxy.accept().feed(BUSY)
    assert client.data == b""
    first.feed(ok(b"first"))
    assert client.data == ok(b"first")
    assert outcomes(proxy) == [{"success": 1}, {"failure_status": 1}]
    assert proxy.cluster.stats.hedges == [1, 0]


def test_the_last_of_two_failures_is_passed_on(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**HEDGED)
    client, first = slow(proxy)
    second = proxy.accept()
    first.feed(BUSY)
    second.feed(BUSY)
    assert client.data == BUSY
    assert proxy.cluster.stats.hedges == [0, 1], "it was the one to answer"


def test_with_no_time_left_a_failure_is_the_answer(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**HEDGED, deadline_header=b"x-timeout", breaker_threshold=1)
    client, first = slow(proxy, request("GET /", "X-Timeout: 200"))
    second = proxy.accept()
    proxy.clock.advance(0.1499)
    late = ok(b"", status="504 Gateway Timeout")
    second.feed(late)
    assert client.data == late
    assert first.aborted
    assert outcomes(proxy) == [{"outrun": 1}, {"cancelled": 1}], (
        "a 504 when the time is over is nobody's failure"
    )


def test_with_no_time_left_any_failure_is(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**HEDGED, deadline_header=b"x-timeout")
    client, _ = slow(proxy, request("GET /", "X-Timeout: 200"))
    second = proxy.accept()
    proxy.clock.advance(0.1499)
    second.feed(BUSY)
    assert client.data == BUSY


def test_one_that_is_saved_and_then_fails_was_not_won(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**HEDGED)
    client, first = slow(proxy)
    proxy.accept()
    first.lose(ConnectionResetError())
    proxy.pass_time(5.3)
    assert error_of(client.data) == (504, "request_timeout")
    assert proxy.cluster.stats.hedges == [1, 0]


def test_a_rivals_idle_race_is_counted(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**{**HEDGED, "endpoints": 1})
    proxy.exchange(request(), ok())
    proxy.client(request())
    first = proxy.busy[0]
    proxy.serve_by(2)
    ring(proxy)
    second = proxy.accept()
    first.lose()
    assert proxy.cluster.stats.reuse_failures == 1
    second.feed(ok())


def test_the_first_ones_own_time_goes_on(make_proxy: MakeProxy) -> None:
    """While the second is being connected to, too: nothing that a hedge does may make an attempt last longer."""
    proxy = make_proxy(**HEDGED, per_try_timeout=0.3, connect_timeout=4.0)
    _, first = slow(proxy)
    (attempt,) = proxy.connecting
    proxy.pass_time(0.2)
    assert not first.closing
    proxy.pass_time(0.3)
    assert first.closing
    assert not attempt.cancelled, "the second one goes on"
    assert outcomes(proxy)[0] == {"request_timeout": 1}
    proxy.accept().feed(ok())


def test_a_retry_that_is_under_way_when_the_timer_rings_is_hedged_from_there(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**{**HEDGED, "endpoints": 3, "retries": 3})
    client = proxy.client(request())
    first = proxy.accept()
    proxy.clock.advance(0.04)
    first.lose(ConnectionResetError())
    ring(proxy, 0.02)
    proxy.accept()
    assert proxy.connecting == []
    ring(proxy)
    proxy.accept().feed(ok())
    assert client.data == ok()
    assert proxy.cluster.stats.retries_active == 0


def test_a_retry_that_is_hedged_is_told_of_once(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**{**HEDGED, "endpoints": 3, "retries": 3})
    client = proxy.client(request())
    proxy.accept().lose(ConnectionResetError())
    again = proxy.accept()
    ring(proxy)
    proxy.accept()
    assert proxy.cluster.stats.retries_active == 1
    again.feed(ok())
    assert client.data == ok()
    assert proxy.cluster.stats.retries_active == 0
    assert proxy.cluster.stats.retries[Reason.RESET_BEFORE_HEADERS] == [0, 1]


def test_a_client_that_does_not_read_holds_the_winner_too(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**HEDGED)
    client, first = slow(proxy)
    second = proxy.accept()
    second.feed(b"HTTP/1.1 103 Early Hints\r\n\r\n")
    client.protocol.pause_writing()
    first.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
    assert first.protocol.gate.reasons
    client.protocol.resume_writing()
    assert not first.protocol.gate.reasons
    first.feed(b"x" * 100)


def test_what_moved_the_breaker_before_makes_no_difference(make_proxy: MakeProxy) -> None:
    """An attempt brings the permit that it began with, whichever object it is of."""
    proxy = make_proxy(**HEDGED, breaker_threshold=1, breaker_open_for=1.0)
    proxy.cluster.trip([proxy.states[0]], proxy.clock.now)
    proxy.cluster.reset([proxy.states[0]], proxy.clock.now)
    _, first = slow(proxy)
    proxy.accept().feed(ok())
    assert first.aborted
    assert proxy.states[0].breaker.state is BreakerState.OPEN


def test_an_endpoint_that_still_takes_the_request_is_waited_for(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**HEDGED)
    client = proxy.client(request())
    first = proxy.accept()
    first.protocol.pause_writing()
    ring(proxy)
    assert proxy.connecting == []
    first.protocol.resume_writing()
    first.feed(ok())
    assert client.data == ok()


def test_a_request_that_is_still_coming_when_an_earlier_ones_timer_rings(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**HEDGED)
    client = proxy.client(request())
    proxy.accept().feed(ok())
    client.feed(request("PUT /", "Content-Length: 3", body=b"a"))
    second = proxy.busy[0] if proxy.busy else proxy.accept()
    ring(proxy, 0.2)
    assert (proxy.connecting, len(proxy.busy)) == ([], 1)
    client.feed(b"bc")
    ring(proxy)
    assert proxy.cluster.stats.hedges == [0, 0]
    assert sum(b"PUT /" in endpoint.data for endpoint in proxy.upstreams) == 2
    second.feed(ok())


def test_a_full_upstream_is_not_hedged_even_where_a_connection_is_idle(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**HEDGED, max_connections=2)
    proxy.exchange(request(), ok())
    proxy.client(request())
    busy = proxy.accept() if proxy.connecting else proxy.busy[0]
    ring(proxy)
    assert len(proxy.busy) == 1
    busy.feed(ok())


def test_after_the_second_has_failed_the_first_has_its_whole_time(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**HEDGED)
    client, first = slow(proxy)
    proxy.pass_time(0.5)
    proxy.refuse()
    proxy.pass_time(4.7)
    assert client.data == b""
    first.feed(ok())
    assert client.data == ok()


def test_a_second_one_that_no_descriptor_is_left_for_is_no_loss(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**HEDGED)
    client, first = slow(proxy)
    proxy.connecting[0].refuse(OSError(errno.EMFILE, "Too many open files"))
    assert (client.data, sum(proxy.cluster.stats.overflows)) == (b"", 0)
    first.feed(ok())
    assert client.data == ok()


def test_a_second_ones_idle_race_leaves_the_first_alone(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**HEDGED)
    proxy.exchange(request(), ok())
    client = proxy.client(request())
    first = proxy.accept()
    ring(proxy)
    (second,) = [endpoint for endpoint in proxy.busy if endpoint is not first]
    second.lose()
    assert (client.data, proxy.connecting) == (b"", [])
    first.feed(ok())
    assert client.data == ok()


def test_clients_that_have_left_do_not_fill_the_heap(
    make_proxy: MakeProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection for each request is usual with some clients, and `hedge_after` may be long."""
    monkeypatch.setattr(hedge_timer, "LEAST", 8)
    proxy = make_proxy(**{**HEDGED, "hedge_after": 3.0})
    idle = proxy.client(request())
    endpoint = proxy.accept()
    endpoint.feed(ok())
    waiting = proxy.client(request("GET /waits"))
    slow_one = proxy.accept() if proxy.connecting else proxy.busy[0]
    (timer,) = proxy.context.hedge_timers.values()
    for _ in range(100):
        client = proxy.client(request())
        (proxy.accept() if proxy.connecting else next(one for one in proxy.busy if one is not slow_one)).feed(
            ok()
        )
        client.lose()
        assert len(timer._heap) <= 8
    timer._purge_at = 0
    idle.feed(request("GET /again"))
    again = next(one for one in proxy.busy if one is not slow_one)
    assert len(timer._heap) == 2, "the one that waits, and this one"
    again.feed(ok(b"again"))
    assert idle.data == ok() + ok(b"again")
    ring(proxy, 3.0)
    assert waiting.data == b""
    assert sum(b"GET /waits" in one.data for one in proxy.upstreams) == 2, "it is hedged all the same"
    slow_one.feed(ok())


def test_those_that_wait_are_not_looked_through_with_every_one_that_comes(
    make_proxy: MakeProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hedge_timer, "LEAST", 2)
    proxy = make_proxy(**HEDGED)
    timer = HedgeTimer(proxy.context)
    asked: list[int] = []

    class Waiting:
        def ring(self, now: float) -> None:
            raise AssertionError("nobody is due")

        def awaits_ring(self) -> bool:
            asked.append(1)
            return True

    for _ in range(20):
        one: Any = Waiting()
        timer.add(one, proxy.clock.now + 1.0)
    assert len(asked) == 2 + 4 + 8 + 16
    timer.shut()
