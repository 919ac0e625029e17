"""Nobody to ask, no room to ask, and endpoints that go."""

import json
from collections.abc import Callable

from unit.proxy.harness import Proxy, error_of, ok, request

MakeProxy = Callable[..., Proxy]


def warm(proxy: Proxy) -> None:
    """Leave an idle connection in the pool."""
    proxy.exchange(request("GET /warm"), ok())
    proxy.upstreams[-1].taken()


# Nobody to ask, no room


def test_no_endpoints(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(endpoints=0)
    client = proxy.client(request("HEAD /"))
    head = client.data
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"\r\nx-sidecar-error: no_endpoints\r\n" in head
    assert head.endswith(b"\r\n\r\n"), "a HEAD's answer has no body"
    assert not client.closing
    assert proxy.counted == [("HEAD", "5xx", "no_endpoints", 1)]


def test_more_than_the_bounds_hold_is_503_overflow(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(max_connections=1, max_pending=1)
    served, waiting, refused = (proxy.client(request()) for _ in range(3))

    assert error_of(refused.data) == (503, "overflow")
    assert proxy.overflows == {"pending": 1}
    assert len(proxy.connecting) == 1
    endpoint = proxy.accept()
    endpoint.taken()
    endpoint.feed(ok(b"1"))
    assert endpoint.data.startswith(b"GET / "), "the connection goes from hand to hand"
    endpoint.feed(ok(b"2"))
    assert (served.data, waiting.data) == (ok(b"1"), ok(b"2"))
    assert proxy.states[0].pool.idle == [endpoint.protocol]


def test_a_place_in_the_queue_is_kept_in_order(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(max_connections=1)
    clients = [proxy.client(request(f"GET /{number}")) for number in range(4)]
    endpoint = proxy.accept()
    for number, client in enumerate(clients):
        assert endpoint.taken().startswith(b"GET /%d " % number)
        endpoint.feed(ok(b"%d" % number))
        assert client.data == ok(b"%d" % number)


def test_who_waits_gets_the_room_of_a_connection_that_ends(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(max_connections=1)
    proxy.client(request())
    waiting = proxy.client(request("GET /2"))
    proxy.accept().feed(ok(b"1", "Connection: close"))
    proxy.accept().feed(ok(b"2"))
    assert waiting.data == ok(b"2")


def test_who_waits_gets_the_room_of_a_connect_that_failed(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(max_connections=1, retries=0)
    failed = proxy.client(request())
    waiting = proxy.client(request("GET /2"))
    proxy.refuse()
    assert error_of(failed.data) == (503, "connect_refused")
    proxy.accept().feed(ok(b"2"))
    assert waiting.data == ok(b"2")


def test_waiting_too_long_is_overflow(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(max_connections=1, timeout=5.0, pending_timeout=5.0)
    proxy.client(request())
    proxy.accept()
    proxy.pass_time(2.0)
    waiting = proxy.client(request())
    proxy.pass_time(3.2)  # the first exchange's time-out frees the connection: the second gets that room
    assert len(proxy.connecting) == 1
    third = proxy.client(request())
    proxy.accept()
    proxy.busy[0].feed(ok(b"x" * 9)[:-1])
    proxy.pass_time(4.0)
    proxy.busy[0].feed(b"x")
    assert waiting.data.endswith(b"x" * 9)
    assert proxy.busy
    assert not third.data
    proxy.pass_time(5.2)
    assert third.data


def test_waiting_too_long_while_the_connection_stays_busy_is_overflow(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(max_connections=1, timeout=5.0, pending_timeout=5.0)
    busy = proxy.client(request())
    endpoint = proxy.accept()
    endpoint.feed(ok(b"ab" + b"x" * 9)[:-9])
    waiting = proxy.client(request())
    for _ in range(3):
        proxy.pass_time(2.0)
        endpoint.feed(b"x")

    assert error_of(waiting.data) == (503, "overflow")
    assert not waiting.closing
    assert proxy.overflows == {"pending_timeout": 1}
    assert list(proxy.cluster.limit.pending) == []
    assert not busy.closing


def test_a_client_that_goes_leaves_the_queue(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(max_connections=1)
    proxy.client(request())
    waiting = proxy.client(request())
    waiting.lose()
    assert list(proxy.cluster.limit.pending) == []
    endpoint = proxy.accept()
    endpoint.feed(ok())
    assert proxy.states[0].pool.idle == [endpoint.protocol]
    assert proxy.counted == [("GET", "2xx", "none", 1), ("GET", "4xx", "client_gone", 1)]


def test_an_idle_connection_elsewhere_makes_room(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(endpoints=2, max_connections=1)
    warm(proxy)
    client = proxy.client(request())
    assert proxy.upstreams[0].closing
    proxy.accept().feed(ok())
    assert client.data == ok()


# Endpoints that go (8)


def test_a_busy_connection_of_an_endpoint_that_has_gone_finishes_and_is_closed(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(endpoints=1)
    warm(proxy)
    idle = proxy.upstreams[0]
    busy_client = proxy.client(request())
    other_client = proxy.client(request())
    other = proxy.accept()
    other.feed(ok())
    proxy.serve_by(1, first=2)

    assert other.closing, "idle ones are closed"
    assert not idle.closing
    idle.feed(ok(b"last"))
    assert busy_client.data == ok(b"last")
    assert other_client.data == ok()
    assert idle.closing


# Which limit it was


def message_of(data: bytes) -> str:
    told: str = json.loads(data.partition(b"\r\n\r\n")[2])["message"]
    return told


def test_a_wait_has_its_own_bound(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(max_connections=1, pending_timeout=2.0)
    proxy.client(request())
    waiting = proxy.client(request())
    proxy.accept()
    proxy.pass_time(2.0)
    assert not waiting.data, "never early"
    proxy.pass_time(0.2)
    assert error_of(waiting.data) == (503, "overflow")
    assert "pending_timeout" in message_of(waiting.data)
    assert proxy.overflows == {"pending_timeout": 1}
    assert not waiting.closing


def test_each_wait_begins_anew(make_proxy: MakeProxy) -> None:
    """Who has been woken, and has to wait again after a connect that failed, waits as long again."""
    proxy = make_proxy(max_connections=1, pending_timeout=2.0, retries=1)
    proxy.client(request("GET /1"))
    first = proxy.accept()
    again = proxy.client(request("GET /2"))
    proxy.pass_time(1.0)
    proxy.client(request("GET /3"))
    first.feed(ok(b"1", "Connection: close"))
    proxy.refuse()  # the second's connect; its room goes to the third, who was there before it came back
    third = proxy.accept()
    proxy.pass_time(1.5)
    assert not again.data
    third.feed(ok(b"3"))
    third.feed(ok(b"2"))
    assert again.data == ok(b"2")


def test_nobody_waits_longer_than_the_time_out(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(max_connections=1, pending_timeout=60.0, timeout=3.0)
    proxy.client(request())
    endpoint = proxy.accept()
    endpoint.feed(ok(b"x" * 9)[:-9])
    waiting = proxy.client(request())
    proxy.pass_time(2.0)
    endpoint.feed(b"x")
    proxy.pass_time(1.2)
    assert error_of(waiting.data) == (503, "overflow")


def test_what_was_waited_for_has_all_of_the_time_out(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(max_connections=1, pending_timeout=2.0, timeout=30.0)
    proxy.client(request())
    endpoint = proxy.accept()
    waiting = proxy.client(request())
    proxy.pass_time(1.5)
    endpoint.feed(ok())
    endpoint.taken()
    proxy.pass_time(20.0)
    endpoint.feed(ok(b"late"))
    assert waiting.data == ok(b"late")


def test_without_a_queue_it_is_the_connections(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(max_connections=1, max_pending=0)
    proxy.client(request())
    refused = proxy.client(request())
    assert error_of(refused.data) == (503, "overflow")
    assert "limits.connections " in message_of(refused.data)
    assert proxy.overflows == {"connections": 1}


# Requests in flight


def test_more_in_flight_than_may_be_is_overflow_at_once(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(max_connections=1, max_in_flight=2)
    first, waiting, refused = (proxy.client(request()) for _ in range(3))
    assert error_of(refused.data) == (503, "overflow"), "the one that waits counts"
    assert "limits.in_flight" in message_of(refused.data)
    assert proxy.overflows == {"in_flight": 1}
    assert not refused.closing

    endpoint = proxy.accept()
    endpoint.feed(ok(b"1"))
    refused.taken()
    refused.feed(request())
    assert refused.data == b"", "there is room again"
    endpoint.feed(ok(b"2"))
    endpoint.feed(ok(b"3"))
    assert (first.data, waiting.data, refused.data) == (ok(b"1"), ok(b"2"), ok(b"3"))
    assert proxy.cluster.stats.in_flight == 0


def test_a_refused_request_with_a_body_to_come(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(max_in_flight=1)
    proxy.client(request())
    refused = proxy.client(request("POST /", "Content-Length: 100000", body=b"x"))
    assert b"503" in refused.data
    assert b"Connection: close" in refused.data
    assert len(proxy.connecting) == 1


def test_a_tunnel_is_in_flight(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(max_in_flight=1)
    client = proxy.client(request("GET /", "Connection: upgrade", "Upgrade: websocket"))
    proxy.accept().feed(b"HTTP/1.1 101 Up\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert error_of(proxy.client(request()).data) == (503, "overflow")
    client.lose()
    proxy.settle()
    assert proxy.client(request()).data == b""


def test_what_the_proxy_answers_itself_needs_no_room(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(max_in_flight=1)
    proxy.client(request())
    assert b" 503 " in proxy.client(request("OPTIONS *", "Max-Forwards: 1")).data
    assert proxy.overflows == {"in_flight": 1}


# An endpoint's own bound


def test_an_endpoint_that_has_all_it_may_is_passed_over(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(endpoints=3, max_connections_per_endpoint=1, retries=0)
    for _ in range(3):
        proxy.client(request())
    assert sorted(attempt.host for attempt in proxy.connecting) == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    busy = [proxy.accept() for _ in range(3)]
    last = next(one for one in busy if one.protocol.endpoint.endpoint.host == "10.0.0.3")
    last.feed(ok())
    for _ in range(2):  # wherever the turn is, there is one idle connection, and no room elsewhere
        client = proxy.client(request())
        last.feed(ok(b"again"))
        assert client.data == ok(b"again")
    assert proxy.connecting == []
    assert proxy.overflows == {}
    stats = proxy.cluster.stats
    assert not any(failed + succeeded for failed, succeeded in stats.retries), "nobody calls that a retry"
    assert [state.breaker.failures for state in proxy.states] == [0, 0, 0]
    assert [sum(state.attempts) for state in proxy.states] == [0, 0, 3]


def test_at_every_endpoints_bound_requests_wait_for_any_of_them(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(endpoints=2, max_connections_per_endpoint=1)
    clients = [proxy.client(request(f"GET /{number}")) for number in range(4)]
    first, second = proxy.accept(), proxy.accept()
    assert proxy.connecting == []
    assert len(proxy.cluster.limit.pending) == 2
    second.taken()
    second.feed(ok(b"1"))
    assert second.data.startswith(b"GET /2 ")
    first.feed(ok(b"0", "Connection: close"))
    proxy.accept().feed(ok(b"3"))
    second.feed(ok(b"2"))
    assert [client.data[-1:] for client in clients] == [b"0", b"1", b"2", b"3"]


def test_at_every_endpoints_bound_without_a_queue(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(endpoints=2, max_connections_per_endpoint=1, max_pending=0)
    refused = [proxy.client(request()) for _ in range(3)][-1]
    assert error_of(refused.data) == (503, "overflow")
    assert "connections_per_endpoint" in message_of(refused.data)
    assert proxy.overflows == {"connections_per_endpoint": 1}


def test_who_waits_goes_to_an_endpoint_that_comes(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(max_connections_per_endpoint=1)
    proxy.client(request())
    proxy.accept()
    waiting = proxy.client(request())
    proxy.serve_by(2)
    assert [attempt.host for attempt in proxy.connecting] == ["10.0.0.2"]
    proxy.accept().feed(ok())
    assert waiting.data == ok()


def test_who_waits_hears_that_the_breaker_has_opened(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(max_connections_per_endpoint=2, breaker_threshold=1, retries=0)
    for _ in range(2):
        proxy.client(request())
    one, _ = proxy.accept(), proxy.accept()
    waiting = proxy.client(request())
    one.feed(ok(status="503 Busy"))
    assert error_of(waiting.data) == (503, "all_open")


def test_who_is_woken_in_vain_waits_no_longer_for_it(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(max_connections_per_endpoint=1, pending_timeout=2.0)
    proxy.client(request())
    proxy.accept()
    waiting = proxy.client(request())
    proxy.pass_time(1.5)
    pending = proxy.cluster.limit.pending
    pending.popleft().proceed(None)  # nobody does that: there is no room
    assert len(pending) == 1
    proxy.pass_time(0.7)
    assert error_of(waiting.data) == (503, "overflow")


def test_to_try_a_refusing_endpoint_again_is_a_retry_while_the_other_has_no_room(
    make_proxy: MakeProxy,
) -> None:
    """Moving on costs nobody anything because each is asked once; this would go on until the other has room."""
    proxy = make_proxy(endpoints=2, max_connections_per_endpoint=1, retries=2)
    proxy.client(request("GET /stays"))
    proxy.accept()
    client = proxy.client(request("GET /moves"))
    refused = [proxy.refuse() for _ in range(3)]
    assert len(set(refused)) == 1
    assert proxy.connecting == []
    assert error_of(client.data) == (503, "connect_refused")


def test_a_status_is_not_bettered_where_there_is_no_room(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(endpoints=2, max_connections_per_endpoint=1, retry_statuses=frozenset((503,)))
    proxy.client(request("GET /stays"))
    proxy.accept()
    client = proxy.client(request("GET /moves"))
    answer = ok(b"busy", status="503 Busy")
    proxy.accept().feed(answer)
    assert client.data == answer


def test_a_retry_goes_on_to_where_there_is_room(make_proxy: MakeProxy) -> None:
    """One that was tried is better than none: only its connection was refused."""
    proxy = make_proxy(endpoints=2, max_connections_per_endpoint=1, retries=3)
    proxy.client(request("GET /stays"))
    stays = proxy.accept()
    client = proxy.client(request("GET /moves"))
    refused = proxy.refuse()
    assert [attempt.host for attempt in proxy.connecting] == [refused]
    assert refused != stays.protocol.endpoint.endpoint.host
    proxy.accept().feed(ok())
    assert client.data == ok()
