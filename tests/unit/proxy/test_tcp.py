"""Opaque sessions: joined to one endpoint, both directions on their own, ended as they ended."""

import socket
from collections.abc import Callable
from typing import Any

import pytest
from support.transports import MemoryTransport
from unit.proxy.harness import Proxy

from sidecar.model import Outcome
from sidecar.proxy.session import keep_alive

MakeProxy = Callable[..., Proxy]


@pytest.fixture
def make_tcp(make_proxy: MakeProxy) -> MakeProxy:
    """A tcp upstream without idle time-out, as the configuration's default is."""

    def make(endpoints: int = 1, **policy: Any) -> Proxy:
        return make_proxy(endpoints, **{"scheme": "tcp", "idle_timeout": 0.0, **policy})

    return make


def joined(proxy: Proxy) -> tuple[MemoryTransport, MemoryTransport]:
    """A session whose two sides stand."""
    client = proxy.client()
    return client, proxy.accept()


def test_both_directions_are_relayed_and_counted(make_tcp: MakeProxy) -> None:
    proxy = make_tcp()
    client, endpoint = joined(proxy)
    client.feed(b"PI", b"NG\r\n")
    endpoint.feed(b"+PONG\r\n")

    assert (endpoint.data, client.data) == (b"PING\r\n", b"+PONG\r\n")
    stats = proxy.cluster.stats
    assert (stats.bytes_sent, stats.bytes_received) == (6, 7)
    assert (stats.sessions_active, proxy.states[0].in_flight) == (1, 1)


def test_a_session_takes_an_endpoint_as_long_as_its_connect(make_tcp: MakeProxy) -> None:
    proxy = make_tcp(endpoints=2)
    proxy.client()
    proxy.clock.advance(0.5)
    proxy.refuse()
    proxy.clock.advance(0.25)
    endpoint = proxy.accept()
    proxy.clock.advance(60.0)
    endpoint.feed(b"+PONG\r\n")
    assert [state.attempt_seconds for state in proxy.states] == [0.5, 0.25]
    assert [state.timed_attempts for state in proxy.states] == [1, 1]


def test_sessions_take_turns_at_the_endpoints(make_tcp: MakeProxy) -> None:
    proxy = make_tcp(endpoints=3)
    for _ in range(6):
        proxy.client()
    assert [attempt.host[-1] for attempt in proxy.connecting] == list("123123")


def test_what_is_said_early_is_kept_until_there_is_an_endpoint(make_tcp: MakeProxy) -> None:
    proxy = make_tcp(endpoints=2)
    client = proxy.client(b"early")
    assert not client.reading, "one read's worth is kept"
    proxy.refuse()
    endpoint = proxy.accept()

    assert endpoint.data == b"early"
    assert client.reading
    assert proxy.cluster.stats.bytes_sent == 5
    client.feed(b" late")
    assert endpoint.data == b"early late"


# Connecting


def test_a_failed_connect_goes_on_to_the_next_endpoint_unnoticed(make_tcp: MakeProxy) -> None:
    proxy = make_tcp(endpoints=3, retries=0)
    client = proxy.client(b"hello")
    assert proxy.refuse() == "10.0.0.1"
    proxy.pass_time(1.2)
    assert proxy.connecting[0].host == "10.0.0.3"
    assert proxy.accept().data == b"hello"

    assert not client.closing
    assert proxy.cluster.stats.connects == [1, 1, 1, 0]
    assert [state.breaker.failures for state in proxy.states] == [1, 1, 0]
    assert [state.in_flight for state in proxy.states] == [0, 0, 1]


def test_the_only_endpoint_is_tried_again_while_retries_last(make_tcp: MakeProxy) -> None:
    proxy = make_tcp(retries=2)
    client = proxy.client()
    for _ in range(3):
        assert not client.closing
        proxy.refuse()
    assert client.aborted
    assert proxy.cluster.stats.connects == [0, 3, 0, 0]
    assert proxy.sessions == {"connect_failed": 1}


def test_no_endpoints(make_tcp: MakeProxy) -> None:
    proxy = make_tcp(endpoints=0)
    assert proxy.client().aborted
    assert proxy.sessions == {"no_endpoints": 1}


def test_all_open(make_tcp: MakeProxy) -> None:
    proxy = make_tcp(endpoints=2, breaker_threshold=1, panic_all=False)
    proxy.client()
    proxy.refuse()
    proxy.refuse()
    assert proxy.client().aborted
    assert proxy.connecting == []
    assert proxy.sessions == {"connect_failed": 1, "all_open": 1}


def test_a_probe_that_connects_closes_the_breaker(make_tcp: MakeProxy) -> None:
    proxy = make_tcp(breaker_threshold=1, breaker_open_for=10.0, breaker_jitter=0.0, retries=0)
    proxy.client()
    proxy.refuse()
    proxy.clock.advance(10.0)
    proxy.client()
    assert proxy.states[0].breaker.state.label == "half_open"
    proxy.accept()
    assert proxy.states[0].breaker.state.label == "closed"


def test_a_probe_whose_client_goes_gives_its_permission_back(make_tcp: MakeProxy) -> None:
    proxy = make_tcp(breaker_threshold=1, breaker_open_for=10.0, breaker_jitter=0.0, retries=0)
    proxy.client()
    proxy.refuse()
    proxy.clock.advance(10.0)
    proxy.client().lose()
    assert proxy.states[0].attempts[Outcome.CANCELLED] == 1
    proxy.client()
    proxy.accept()
    assert proxy.states[0].breaker.state.label == "closed"


def test_a_probe_goes_before_the_bound(make_tcp: MakeProxy) -> None:
    proxy = make_tcp(
        endpoints=2,
        breaker_threshold=1,
        breaker_open_for=10.0,
        breaker_jitter=0.0,
        max_connections=1,
        max_pending=0,
    )
    proxy.client()
    proxy.refuse()
    proxy.accept()
    proxy.clock.advance(10.0)
    proxy.client()
    assert [attempt.host for attempt in proxy.connecting] == ["10.0.0.1"]
    assert proxy.client().aborted
    assert proxy.sessions == {"overflow": 1}


def test_a_failed_connect_frees_its_room_for_the_next(make_tcp: MakeProxy) -> None:
    proxy = make_tcp(endpoints=2, max_connections=1, max_pending=0)
    proxy.client()
    proxy.refuse()
    assert [attempt.host for attempt in proxy.connecting] == ["10.0.0.2"]


def test_sessions_beyond_the_bound_wait_and_then_overflow(make_tcp: MakeProxy) -> None:
    proxy = make_tcp(max_connections=1, max_pending=1)
    first, endpoint = joined(proxy)
    waiting = proxy.client(b"hello")
    assert proxy.client().aborted
    assert proxy.overflows == {"pending": 1}
    assert proxy.connecting == []

    first.lose()
    endpoint.lose()
    assert proxy.accept().data == b"hello"
    assert not waiting.closing
    assert proxy.sessions == {"overflow": 1, "client_closed": 1}


def test_waiting_too_long_is_overflow(make_tcp: MakeProxy) -> None:
    proxy = make_tcp(max_connections=1, pending_timeout=5.0)
    busy, _ = joined(proxy)
    waiting = proxy.client(b"hello")
    proxy.pass_time(5.0)
    assert not waiting.closing
    proxy.pass_time(0.2)
    assert waiting.aborted
    assert list(proxy.cluster.limit.pending) == []
    assert proxy.overflows == {"pending_timeout": 1}
    assert proxy.sessions == {"overflow": 1}
    assert not busy.closing


@pytest.mark.parametrize("idle_timeout", [0.0, 30.0])
def test_the_wait_ends_with_the_room(make_tcp: MakeProxy, idle_timeout: float) -> None:
    """From then on it is the session's own time-out that counts, if it has one."""
    proxy = make_tcp(max_connections=1, timeout=5.0, pending_timeout=5.0, idle_timeout=idle_timeout)
    first, endpoint = joined(proxy)
    waiting = proxy.client()
    proxy.pass_time(4.0)
    first.lose()
    endpoint.lose()
    proxy.accept()
    proxy.pass_time(25.0)
    assert not waiting.closing
    proxy.pass_time(10.0)
    assert waiting.closing is bool(idle_timeout)


def test_a_client_that_goes_leaves_the_queue(make_tcp: MakeProxy) -> None:
    proxy = make_tcp(max_connections=1)
    joined(proxy)
    proxy.client().lose()
    assert list(proxy.cluster.limit.pending) == []
    assert proxy.sessions == {"client_closed": 1}


def test_clients_beyond_the_process_bound_are_closed_at_once(make_tcp: MakeProxy) -> None:
    proxy = make_tcp(context={"max_clients": 1})
    joined(proxy)
    assert proxy.client().aborted
    assert proxy.context.refused == 1
    assert proxy.connecting == []
    assert proxy.sessions == {"overflow": 1}


@pytest.mark.parametrize("error", [None, ConnectionResetError()])
def test_a_client_that_goes_while_connecting(make_tcp: MakeProxy, error: Exception | None) -> None:
    proxy = make_tcp()
    client = proxy.client(b"hello")
    attempt = proxy.connecting[0]
    client.lose(error)
    assert attempt.cancelled
    assert proxy.states[0].pool.open == 0
    assert proxy.states[0].breaker.failures == 0


# Half-close


def test_the_client_half_closes_first(make_tcp: MakeProxy) -> None:
    proxy = make_tcp()
    client, endpoint = joined(proxy)
    client.feed(b"question")
    assert client.feed_eof()
    assert endpoint.eof_written
    endpoint.feed(b"answer")
    assert client.data == b"answer"
    assert endpoint.feed_eof()

    assert client.closing
    assert endpoint.closing
    assert not client.aborted
    assert not endpoint.aborted
    assert proxy.sessions == {"client_closed": 1}


def test_the_endpoint_half_closes_first(make_tcp: MakeProxy) -> None:
    proxy = make_tcp()
    client, endpoint = joined(proxy)
    assert endpoint.feed_eof()
    assert client.eof_written
    client.feed(b"goodbye")
    assert endpoint.data == b"goodbye"
    assert client.feed_eof()

    assert client.closing
    assert endpoint.closing
    assert not endpoint.aborted
    assert proxy.sessions == {"endpoint_closed": 1}


def test_a_half_close_before_there_is_an_endpoint_is_told_to_it(make_tcp: MakeProxy) -> None:
    """Everything said and the end in one breath, as `printf ... | nc` does."""
    proxy = make_tcp(endpoints=2)
    client = proxy.client()
    client.protocol.data_received(b"all of it")
    assert client.feed_eof()
    proxy.refuse()
    endpoint = proxy.accept()
    assert endpoint.data == b"all of it"
    assert endpoint.eof_written
    endpoint.feed(b"thanks")
    assert client.data == b"thanks"


# Endings


@pytest.mark.parametrize(
    ("who", "error", "reason"),
    [
        ("client", None, "client_closed"),
        ("client", ConnectionResetError(), "client_reset"),
        ("endpoint", None, "endpoint_closed"),
        ("endpoint", ConnectionResetError(), "endpoint_reset"),
    ],
)
def test_an_end_is_passed_on_as_what_it_was(
    make_tcp: MakeProxy, who: str, error: Exception | None, reason: str
) -> None:
    """A clean end flushes what is buffered; a reset is a reset for the other side too."""
    proxy = make_tcp()
    client, endpoint = joined(proxy)
    gone, left = (client, endpoint) if who == "client" else (endpoint, client)
    gone.lose(error)

    assert left.closing
    assert left.aborted is (error is not None)
    assert proxy.sessions == {reason: 1}
    assert proxy.cluster.stats.sessions_active == 0
    assert proxy.states[0].breaker.failures == 0, "what is said cannot be judged from outside"
    proxy.settle()
    assert proxy.sessions == {reason: 1}, "once"


def test_a_side_that_does_not_take_what_is_unsent_does_not_live_for_ever(make_tcp: MakeProxy) -> None:
    proxy = make_tcp()
    client, endpoint = joined(proxy)
    endpoint.lose()
    assert client.closing
    proxy.pass_time(59.0)
    assert not client.aborted
    proxy.pass_time(1.2)
    assert client.aborted
    assert proxy.sessions == {"endpoint_closed": 1}


def test_an_idle_session_ends(make_tcp: MakeProxy) -> None:
    proxy = make_tcp(idle_timeout=10.0)
    client, endpoint = joined(proxy)
    proxy.pass_time(9.0)
    client.feed(b"still here")
    proxy.pass_time(9.0)
    endpoint.feed(b"me too")
    proxy.pass_time(9.9)
    assert not client.closing
    proxy.pass_time(0.3)

    assert client.aborted
    assert endpoint.aborted
    assert proxy.sessions == {"idle_timeout": 1}


def test_idle_time_counts_from_the_last_thing_that_happened(make_tcp: MakeProxy) -> None:
    """Being accepted and being joined are such things."""
    proxy = make_tcp(idle_timeout=2.0, connect_timeout=5.0)
    late, never = proxy.client(), proxy.client()
    proxy.pass_time(1.5)
    proxy.accept()
    proxy.pass_time(1.5)
    assert not late.closing
    assert never.aborted
    proxy.pass_time(1.0)
    assert late.aborted
    assert proxy.sessions == {"idle_timeout": 2}


def test_a_session_has_no_time_out_unless_it_is_set(make_tcp: MakeProxy) -> None:
    proxy = make_tcp()
    client, _ = joined(proxy)
    proxy.pass_time(1e9)
    assert not client.closing


def test_draining_leaves_sessions_alone_until_the_end(make_tcp: MakeProxy) -> None:
    proxy = make_tcp()
    client, endpoint = joined(proxy)
    assert client.protocol.retire(0.0)
    assert not client.closing
    client.protocol.shut()
    assert client.aborted
    assert endpoint.aborted
    assert proxy.sessions == {"draining": 1}


def test_the_end_of_the_process_while_a_side_takes_what_is_unsent(make_tcp: MakeProxy) -> None:
    proxy = make_tcp()
    client, endpoint = joined(proxy)
    endpoint.lose()
    assert client.closing
    assert not client.aborted
    client.protocol.shut()
    assert client.aborted
    assert proxy.sessions == {"endpoint_closed": 1}


def test_the_end_of_the_process_while_connecting(make_tcp: MakeProxy) -> None:
    proxy = make_tcp()
    client = proxy.client()
    attempt = proxy.connecting[0]
    for member in tuple(proxy.context.sweep.members):
        member.shut()
    assert client.aborted
    assert attempt.cancelled
    assert proxy.sessions == {"draining": 1}


# Back-pressure


def test_a_slow_client_holds_the_endpoint(make_tcp: MakeProxy) -> None:
    proxy = make_tcp()
    client, endpoint = joined(proxy)
    client.fill()
    assert not endpoint.reading
    assert client.reading
    client.drain()
    assert endpoint.reading


def test_a_slow_endpoint_holds_the_client(make_tcp: MakeProxy) -> None:
    proxy = make_tcp()
    client, endpoint = joined(proxy)
    endpoint.fill()
    assert not client.reading
    assert endpoint.reading
    endpoint.drain()
    assert client.reading


def test_a_client_that_is_full_before_there_is_an_endpoint(make_tcp: MakeProxy) -> None:
    proxy = make_tcp()
    client = proxy.client()
    client.fill()
    client.drain()
    proxy.accept().feed(b"hello")
    assert client.data == b"hello"


# The endpoint's side at awkward moments


def test_a_banner_that_comes_with_the_connection_is_relayed(make_tcp: MakeProxy) -> None:
    """Before the session has been told that it is joined."""
    proxy = make_tcp()
    client = proxy.client()
    attempt = proxy.connecting[0]
    endpoint = attempt.establish()
    proxy.upstreams.append(endpoint)
    endpoint.feed(b"220 mail ready\r\n")
    attempt.hand_over()
    client.feed(b"EHLO\r\n")

    assert client.data == b"220 mail ready\r\n"
    assert endpoint.data == b"EHLO\r\n"
    assert proxy.cluster.stats.bytes_received == 16


def test_an_endpoint_that_says_all_and_ends_with_the_connection(make_tcp: MakeProxy) -> None:
    """As the daytime service does (RFC 867): the answer is whole, the end is clean."""
    proxy = make_tcp()
    client = proxy.client()
    attempt = proxy.connecting[0]
    endpoint = attempt.establish()
    proxy.upstreams.append(endpoint)
    endpoint.feed(b"Monday\r\n")
    assert endpoint.feed_eof()
    attempt.hand_over()
    assert client.data == b"Monday\r\n"
    assert client.eof_written
    client.feed_eof()
    assert proxy.sessions == {"endpoint_closed": 1}


def test_both_connections_of_a_session_are_watched_by_the_kernel(
    make_tcp: MakeProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched: list[object] = []
    monkeypatch.setattr("sidecar.proxy.session.keep_alive", watched.append)
    assert list(joined(make_tcp())) == watched


def test_a_vanished_peer_is_found_out_by_the_kernel() -> None:
    with socket.socket() as sock:
        keep_alive(MemoryTransport(socket=sock))  # type: ignore[arg-type] # a transport by its methods
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
    keep_alive(MemoryTransport())  # type: ignore[arg-type] # one without a socket is left as it is


# Time-outs of sessions in which one side is not read from


def test_a_half_closed_session_without_progress_ends(make_tcp: MakeProxy) -> None:
    """A side that has said all may vanish unnoticed; as HAProxy's `timeout client-fin`."""
    proxy = make_tcp(timeout=5.0)
    client, endpoint = joined(proxy)
    proxy.pass_time(1e6)
    client.feed_eof()
    proxy.pass_time(5.0)
    assert not client.closing, "never early"
    proxy.pass_time(0.2)
    assert client.aborted
    assert endpoint.aborted
    assert proxy.sessions == {"idle_timeout": 1}


def test_a_session_that_the_endpoint_half_closed_ends_too(make_tcp: MakeProxy) -> None:
    proxy = make_tcp(timeout=5.0)
    client, endpoint = joined(proxy)
    endpoint.feed_eof()
    proxy.pass_time(5.0)
    assert not client.closing
    proxy.pass_time(0.2)
    assert client.aborted
    assert endpoint.aborted


def test_a_half_closed_session_goes_on_while_something_is_said(make_tcp: MakeProxy) -> None:
    proxy = make_tcp(timeout=5.0)
    client, endpoint = joined(proxy)
    client.feed_eof()
    for _ in range(10):
        proxy.pass_time(4.0)
        endpoint.feed(b"more")
    assert not client.closing
    assert client.data == b"more" * 10


def test_a_half_close_that_was_told_late_bounds_the_session_too(make_tcp: MakeProxy) -> None:
    """The application ended its side before there was an endpoint."""
    proxy = make_tcp(timeout=5.0)
    client = proxy.client()
    client.feed_eof()
    proxy.accept()
    proxy.pass_time(5.0)
    assert not client.closing
    proxy.pass_time(0.2)
    assert client.aborted


@pytest.mark.parametrize("slow", ["client", "endpoint"])
def test_a_side_that_takes_nothing_ends_the_session(make_tcp: MakeProxy, slow: str) -> None:
    """The other side is not read from meanwhile: it could have gone long ago."""
    proxy = make_tcp(timeout=5.0)
    client, endpoint = joined(proxy)
    (client if slow == "client" else endpoint).fill(100_000)
    proxy.pass_time(5.2)
    assert not client.closing, "the first look finds out how much is unsent"
    proxy.pass_time(5.0)
    assert not client.closing
    proxy.pass_time(0.2)
    assert client.aborted
    assert endpoint.aborted
    assert proxy.sessions == {"idle_timeout": 1}


@pytest.mark.parametrize("slow", ["client", "endpoint"])
def test_a_side_that_takes_a_little_now_and_then_does_not(make_tcp: MakeProxy, slow: str) -> None:
    proxy = make_tcp(timeout=5.0)
    client, endpoint = joined(proxy)
    side = client if slow == "client" else endpoint
    side.fill(100_000)
    for _ in range(10):
        proxy.pass_time(5.2)
        assert not client.closing
        side.buffered -= 1
    proxy.pass_time(5.2)
    proxy.pass_time(5.2)
    assert client.aborted


@pytest.mark.parametrize("slow", ["client", "endpoint"])
def test_a_session_that_has_caught_up_has_no_deadline_again(make_tcp: MakeProxy, slow: str) -> None:
    proxy = make_tcp(timeout=5.0)
    client, endpoint = joined(proxy)
    side = client if slow == "client" else endpoint
    side.fill()
    proxy.pass_time(4.0)
    side.drain()
    proxy.pass_time(1e6)
    assert not client.closing


def test_the_shorter_of_both_time_outs_counts_while_half_closed(make_tcp: MakeProxy) -> None:
    proxy = make_tcp(timeout=50.0, idle_timeout=5.0)
    client, _ = joined(proxy)
    client.feed_eof()
    proxy.pass_time(5.2)
    assert client.aborted


def test_a_banner_that_comes_early_leaves_a_quiet_session_without_deadline(make_tcp: MakeProxy) -> None:
    """MySQL, SMTP and SSH speak first: their sessions may be quiet afterwards like any other."""
    proxy = make_tcp(timeout=5.0)
    client = proxy.client()
    attempt = proxy.connecting[0]
    endpoint = attempt.establish()
    proxy.upstreams.append(endpoint)
    endpoint.feed(b"220 mail ready\r\n")
    assert not endpoint.reading, "one read's worth is kept"
    attempt.hand_over()
    assert endpoint.reading
    proxy.pass_time(1e6)
    assert not client.closing
    assert client.data == b"220 mail ready\r\n"


# An endpoint's side that is not the session's


def test_a_connection_that_was_given_up_says_nothing_to_the_session(make_tcp: MakeProxy) -> None:
    """It was opened in the moment in which its time was over; the session is another endpoint's now."""
    proxy = make_tcp(endpoints=2, connect_timeout=1.0)
    client = proxy.client(b"hello")
    late = proxy.connecting[0].establish()
    proxy.upstreams.append(late)
    late.feed(b"early, and too late")
    proxy.pass_time(1.2)
    endpoint = proxy.accept()
    late.closing = False  # as if the loop had not come to it yet
    late.reading = True
    late.feed(b"late")
    late.fill()
    assert client.reading, "nobody waits for the one that was given up"
    endpoint.fill()
    late.drain()
    assert not client.reading, "the one that is joined is full"
    endpoint.drain()
    assert late.feed_eof()
    assert not client.eof_written
    late.lose(ConnectionResetError())

    assert (client.data, late.data) == (b"", b"")
    assert not client.closing
    endpoint.feed(b"welcome")
    assert client.data == b"welcome"
    assert proxy.sessions == {}
    assert proxy.cluster.stats.bytes_received == 7


def test_everything_that_was_said_before_the_joining_is_passed_on_in_order(make_tcp: MakeProxy) -> None:
    """Both sides have said all before the session heard of the connection."""
    proxy = make_tcp()
    client = proxy.client()
    client.protocol.data_received(b"question")
    client.feed_eof()
    attempt = proxy.connecting[0]
    endpoint = attempt.establish()
    proxy.upstreams.append(endpoint)
    endpoint.protocol.data_received(b"half an ")
    endpoint.protocol.data_received(b"answer")
    endpoint.feed_eof()
    assert client.data == b""
    assert not client.eof_written
    attempt.hand_over()

    assert (endpoint.data, client.data) == (b"question", b"half an answer")
    assert endpoint.eof_written
    assert client.closing
    assert endpoint.closing
    assert not client.aborted
    assert proxy.sessions == {"client_closed": 1}


# Sessions of an endpoint that leaves


@pytest.mark.parametrize("how", ["tripped", "opened", "gone"])
def test_sessions_can_end_with_their_endpoints_place_in_the_rotation(make_tcp: MakeProxy, how: str) -> None:
    proxy = make_tcp(endpoints=2, close_on_unhealthy=True, breaker_threshold=1)
    one, two = proxy.client(), proxy.client()
    for _ in range(2):
        proxy.accept()
    state = proxy.states[0]
    if how == "tripped":
        proxy.cluster.trip([state], proxy.clock.now)
    elif how == "opened":
        proxy.cluster.report(state, Outcome.CONNECT_REFUSED, proxy.clock.now, state.breaker.permit)
    else:
        proxy.serve_by(1, first=2)
    assert (one.aborted, two.aborted) == (True, False)
    assert proxy.upstreams[0].aborted
    assert proxy.sessions == {"endpoint_unhealthy": 1}
    assert not state.sessions


@pytest.mark.parametrize("gone", [False, True])
def test_a_session_on_its_way_to_a_drained_endpoint_goes_with_it(make_tcp: MakeProxy, gone: bool) -> None:
    proxy = make_tcp(endpoints=2, close_on_unhealthy=True)
    client = proxy.client()
    proxy.cluster.drain([proxy.states[0]], proxy.clock.now)
    if gone:
        proxy.serve_by(1, first=2)
    proxy.accept()
    assert client.aborted is gone


def test_as_a_rule_sessions_outlive_it(make_tcp: MakeProxy) -> None:
    proxy = make_tcp(endpoints=2)
    client = proxy.client()
    proxy.accept()
    proxy.cluster.trip([proxy.states[0]], proxy.clock.now)
    client.feed(b"still here")
    assert proxy.upstreams[0].data == b"still here"


def test_a_session_that_ended_is_not_ended_again(make_tcp: MakeProxy) -> None:
    proxy = make_tcp(endpoints=2, close_on_unhealthy=True)
    client = proxy.client()
    proxy.accept()
    client.lose()
    assert not proxy.states[0].sessions
    proxy.cluster.trip([proxy.states[0]], proxy.clock.now)
    assert proxy.sessions == {"client_closed": 1}


def test_room_that_ending_sessions_make_goes_to_those_that_wait(make_tcp: MakeProxy) -> None:
    proxy = make_tcp(endpoints=2, close_on_unhealthy=True, max_connections=2, max_pending=1)
    for _ in range(3):
        proxy.client()
    for _ in range(2):
        proxy.accept()
    assert len(proxy.cluster.limit.pending) == 1
    proxy.cluster.trip([proxy.states[0]], proxy.clock.now)
    assert [attempt.host for attempt in proxy.connecting] == ["10.0.0.2"]


# Limits


def test_a_session_waits_no_longer_than_the_time_out(make_tcp: MakeProxy) -> None:
    proxy = make_tcp(max_connections=1, timeout=2.0, pending_timeout=60.0)
    joined(proxy)
    waiting = proxy.client()
    proxy.pass_time(2.2)
    assert waiting.aborted
    assert proxy.overflows == {"pending_timeout": 1}


def test_sessions_at_once_are_bounded(make_tcp: MakeProxy) -> None:
    proxy = make_tcp(max_in_flight=1)
    first, _ = joined(proxy)
    assert proxy.client().aborted
    assert proxy.overflows == {"in_flight": 1}
    assert proxy.sessions == {"overflow": 1}
    first.lose()
    joined(proxy)
    assert proxy.overflows == {"in_flight": 1}


def test_a_session_that_waits_is_one_of_them(make_tcp: MakeProxy) -> None:
    proxy = make_tcp(max_connections=1, max_in_flight=2)
    joined(proxy)
    waiting = proxy.client()
    assert proxy.client().aborted
    assert not waiting.closing
    assert proxy.overflows == {"in_flight": 1}


def test_sessions_go_to_an_endpoint_with_room(make_tcp: MakeProxy) -> None:
    proxy = make_tcp(endpoints=2, max_connections_per_endpoint=1, max_pending=0)
    proxy.client()
    proxy.client()
    assert sorted(attempt.host for attempt in proxy.connecting) == ["10.0.0.1", "10.0.0.2"]
    proxy.accept()
    endpoint = proxy.accept()
    assert proxy.client().aborted
    assert proxy.overflows == {"connections_per_endpoint": 1}
    proxy.clients[1].lose()
    endpoint.lose()
    for _ in range(2):  # wherever the turn is
        assert len(proxy.connecting) == 0
        client, endpoint = joined(proxy)
        assert endpoint.protocol._session._endpoint is proxy.states[1]
        client.lose()
        endpoint.lose()


def test_a_session_at_every_endpoints_bound_waits_for_room(make_tcp: MakeProxy) -> None:
    proxy = make_tcp(endpoints=2, max_connections_per_endpoint=1)
    first, endpoint = joined(proxy)
    joined(proxy)
    proxy.client(b"hello")
    assert proxy.connecting == []
    first.lose()
    endpoint.lose()
    assert proxy.accept().data == b"hello"


def test_a_session_that_is_woken_in_vain_waits_no_longer_for_it(make_tcp: MakeProxy) -> None:
    proxy = make_tcp(max_connections_per_endpoint=1, pending_timeout=2.0)
    joined(proxy)
    waiting = proxy.client()
    proxy.pass_time(1.5)
    pending = proxy.cluster.limit.pending
    pending.popleft().proceed(None)  # nobody does that: there is no room
    assert len(pending) == 1
    proxy.pass_time(0.7)
    assert waiting.aborted
    assert proxy.overflows == {"pending_timeout": 1}


def test_each_wait_begins_anew(make_tcp: MakeProxy) -> None:
    """Who has been woken, and has to wait again after a connect that failed, waits as long again."""
    proxy = make_tcp(max_connections=1, pending_timeout=2.0, retries=1)
    first, endpoint = joined(proxy)
    again = proxy.client(b"again")
    proxy.pass_time(1.0)
    third = proxy.client(b"third")
    first.lose()
    endpoint.lose()
    proxy.refuse()
    endpoint = proxy.accept()
    assert endpoint.data == b"third"
    proxy.pass_time(1.5)
    assert not again.closing
    third.lose()
    endpoint.lose()
    assert proxy.accept().data == b"again"


# Waiting before an endpoint is asked again


def test_a_session_asks_the_same_endpoint_again_after_a_while(make_tcp: MakeProxy) -> None:
    proxy = make_tcp(retries=2, backoff_base=0.1, backoff_max=0.3, chances=(1.0,))
    client = proxy.client(b"hello")
    for delay in (0.1, 0.2):
        proxy.refuse()
        assert proxy.connecting == []
        assert proxy.run_timers() == [delay]
    assert proxy.accept().data == b"hello"
    assert not client.closing


def test_a_session_asks_another_one_at_once(make_tcp: MakeProxy) -> None:
    proxy = make_tcp(endpoints=2, backoff_base=0.1)
    proxy.client()
    assert (proxy.refuse(), proxy.refuse()) == ("10.0.0.1", "10.0.0.2")
    assert len(proxy.run_timers()) == 1


def test_who_leaves_meanwhile_is_not_tried_for(make_tcp: MakeProxy) -> None:
    proxy = make_tcp(backoff_base=0.1)
    client = proxy.client()
    proxy.refuse()
    client.lose()
    assert proxy.run_timers() == []
    assert proxy.sessions == {"client_closed": 1}


def test_to_try_a_refusing_endpoint_again_is_a_retry_while_the_other_has_no_room(make_tcp: MakeProxy) -> None:
    proxy = make_tcp(endpoints=2, max_connections_per_endpoint=1, retries=1)
    joined(proxy)
    client = proxy.client()
    assert proxy.refuse() == proxy.refuse()
    assert proxy.connecting == []
    assert client.aborted
    assert proxy.sessions == {"connect_failed": 1}


# What a second look found


@pytest.mark.parametrize("how", ["tripped", "gone"])
def test_a_session_whose_endpoint_leaves_while_it_is_connected_to_ends_at_once(
    make_tcp: MakeProxy, how: str
) -> None:
    proxy = make_tcp(endpoints=2, close_on_unhealthy=True)
    client = proxy.client()
    attempt = proxy.connecting[0]
    transport = attempt.establish()
    proxy.upstreams.append(transport)
    if how == "tripped":
        proxy.cluster.trip([proxy.states[0]], proxy.clock.now)
    else:
        proxy.serve_by(1, first=2)
    attempt.hand_over()
    assert (client.aborted, transport.aborted) == (True, True)
    assert proxy.sessions == {"endpoint_unhealthy": 1}


def test_a_session_that_probes_is_not_ended_by_that(make_tcp: MakeProxy) -> None:
    proxy = make_tcp(
        close_on_unhealthy=True, breaker_threshold=1, breaker_open_for=1.0, breaker_jitter=0.0, retries=0
    )
    proxy.client()
    proxy.refuse()
    proxy.clock.advance(2.0)
    client = proxy.client(b"hello")
    assert proxy.accept().data == b"hello"
    assert not client.closing
    assert proxy.states[0].sessions


def test_a_wait_for_longer_than_a_session_may_idle_is_no_overflow(make_tcp: MakeProxy) -> None:
    proxy = make_tcp(idle_timeout=1.0, backoff_base=5.0, backoff_max=5.0, chances=(1.0,))
    client = proxy.client()
    proxy.refuse()
    proxy.pass_time(1.3)
    assert client.aborted
    assert proxy.sessions == {"connect_failed": 1}
    assert proxy.overflows == {}


def test_a_session_beside_a_probe_tells_nothing(make_tcp: MakeProxy) -> None:
    proxy = make_tcp(endpoints=2, breaker_threshold=1, breaker_open_for=1.0, breaker_jitter=0.0, retries=0)
    for _ in range(2):
        proxy.client()
        proxy.refuse()
    proxy.clock.advance(2.0)
    clients = [proxy.client() for _ in range(4)]  # two probes, and two that are none
    assert [state.breaker.probing for state in proxy.states] == [True, True]
    for client in clients[2:]:
        client.lose()
    assert [state.breaker.probing for state in proxy.states] == [True, True]
