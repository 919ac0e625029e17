"""Nobody to ask, no room to ask, and endpoints that go."""

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
    assert proxy.cluster.stats.overflows == 1
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
    proxy = make_proxy(max_connections=1, timeout=5.0)
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
    proxy = make_proxy(max_connections=1, timeout=5.0)
    busy = proxy.client(request())
    endpoint = proxy.accept()
    endpoint.feed(ok(b"ab" + b"x" * 9)[:-9])
    waiting = proxy.client(request())
    for _ in range(3):
        proxy.pass_time(2.0)
        endpoint.feed(b"x")

    assert error_of(waiting.data) == (503, "overflow")
    assert not waiting.closing
    assert proxy.cluster.stats.overflows == 1
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
