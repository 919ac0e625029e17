"""What another attempt is made for, how long one may take, and how many of them there may be."""

from collections.abc import Callable
from typing import Any

import pytest
from unit.proxy.harness import Proxy, chunked, error_of, ok, request

from sidecar.errors import Reason
from sidecar.model import Outcome

MakeProxy = Callable[..., Proxy]

BUSY = ok(b"busy", status="503 Service Unavailable")
STATUSES: dict[str, Any] = {"endpoints": 2, "retry_statuses": frozenset((502, 503))}
PUT = request("PUT /", "Content-Length: 3", body=b"abc")


def hosts(proxy: Proxy) -> list[str]:
    return [attempt.host for attempt in proxy.connecting]


# Statuses


def test_a_status_of_the_list_is_tried_elsewhere_and_seen_by_nobody(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**STATUSES)
    client = proxy.client(PUT)
    first = proxy.accept()
    first.feed(BUSY)
    assert client.data == b""
    second = proxy.accept()
    assert second.data == first.data.replace(b"10.0.0.1", b"10.0.0.2")
    second.feed(ok())

    assert client.data == ok()
    assert proxy.counted == [("PUT", "2xx", "none", 1)]
    assert proxy.cluster.stats.retries[Reason.BAD_RESPONSE] == [0, 1]
    assert [state.attempts[Outcome.FAILURE_STATUS] for state in proxy.states] == [1, 0]
    assert [state.breaker.failures for state in proxy.states] == [1, 0]
    assert len(proxy.states[0].pool.idle) == 1, "the response was whole: the connection is kept"


@pytest.mark.parametrize(
    "answer",
    [
        BUSY[:-1],
        ok(b"", status="503 Busy", length=False),
        ok(b"busy", "Connection: close", status="503 Busy"),
        b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"busy"),
    ],
    ids=["not whole", "until close", "close", "chunked"],
)
def test_a_connection_with_a_rest_to_come_is_not_kept(make_proxy: MakeProxy, answer: bytes) -> None:
    proxy = make_proxy(**STATUSES)
    client = proxy.client(request())
    first = proxy.accept()
    first.feed(answer)
    assert first.closing
    proxy.accept().feed(ok())
    assert client.data == ok()


def test_the_last_one_passes(make_proxy: MakeProxy) -> None:
    """There is nobody else, or `retries` are spent: the application gets what the endpoint said."""
    proxy = make_proxy(**STATUSES, retries=5)
    client = proxy.client(request())
    proxy.accept().feed(BUSY)
    proxy.accept().feed(BUSY)
    assert client.data == BUSY
    assert proxy.counted == [("GET", "5xx", "none", 1)]

    proxy = make_proxy(**{**STATUSES, "endpoints": 5}, retries=1)
    client = proxy.client(request())
    proxy.accept().feed(BUSY)
    proxy.accept().feed(BUSY)
    assert client.data == BUSY


@pytest.mark.parametrize(
    ("asked", "policy", "status"),
    [
        (request("POST /", "Content-Length: 3", body=b"abc"), {}, "503 Busy"),
        (request(), {}, "500 Oops"),
        (request(), {"retries": 0}, "503 Busy"),
        (request(), {"retry_statuses": frozenset()}, "503 Busy"),
    ],
    ids=["not idempotent", "not of the list", "no retries", "no list"],
)
def test_all_else_passes_at_once(
    make_proxy: MakeProxy, asked: bytes, policy: dict[str, Any], status: str
) -> None:
    proxy = make_proxy(**{**STATUSES, **policy})
    client = proxy.client(asked)
    answer = ok(b"x", status=status)
    proxy.accept().feed(answer)
    assert client.data == answer
    assert not proxy.connecting


def test_a_body_that_is_not_kept_is_not_sent_twice(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**STATUSES)
    client = proxy.client(request("PUT /", "Content-Length: 100000", body=b"x" * 100000))
    proxy.accept().feed(BUSY)
    assert client.data == BUSY


# Time-outs


def test_an_attempt_that_takes_too_long_is_made_elsewhere(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(endpoints=2, per_try_timeout=2.0)
    client = proxy.client(PUT)
    first = proxy.accept()
    proxy.pass_time(1.9)
    assert not first.closing
    proxy.pass_time(0.3)
    assert first.closing
    proxy.accept().feed(ok())

    assert client.data == ok()
    assert proxy.cluster.stats.retries[Reason.REQUEST_TIMEOUT] == [0, 1]
    assert proxy.states[0].attempts[Outcome.REQUEST_TIMEOUT] == 1


def test_the_only_endpoint_is_tried_again_after_a_time_out(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(per_try_timeout=2.0, retries=1)
    client = proxy.client(request())
    proxy.accept()
    proxy.pass_time(2.2)
    proxy.accept()
    proxy.pass_time(2.2)
    assert error_of(client.data) == (504, "request_timeout")
    assert proxy.counted == [("GET", "5xx", "request_timeout", 1)]


def test_a_post_is_not_made_twice_but_ends_in_time(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(endpoints=2, per_try_timeout=2.0)
    client = proxy.client(request("POST /", "Content-Length: 3", body=b"abc"))
    proxy.accept()
    proxy.pass_time(2.2)
    assert error_of(client.data) == (504, "request_timeout")


def test_the_time_of_an_attempt_begins_with_the_requests_end(make_proxy: MakeProxy) -> None:
    """A client that sends slowly is not the endpoint's fault."""
    proxy = make_proxy(endpoints=2, per_try_timeout=2.0)
    client = proxy.client(request("PUT /", "Content-Length: 3", body=b"a"))
    first = proxy.accept()
    proxy.pass_time(5.0)
    assert not first.closing
    client.feed(b"bc")
    proxy.pass_time(1.9)
    assert not first.closing
    proxy.pass_time(0.3)
    assert first.closing
    proxy.accept().feed(ok())
    assert client.data == ok()


def test_once_the_answer_has_begun_its_time_is_the_time_outs(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(endpoints=2, per_try_timeout=2.0, timeout=10.0)
    client = proxy.client(request())
    first = proxy.accept()
    first.feed(ok(b"ab")[:-1])
    proxy.pass_time(9.0)
    assert not first.closing
    first.feed(b"b")
    assert client.data == ok(b"ab")


def test_the_time_out_itself_is_tried_again_where_it_is_asked_for(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(endpoints=2, timeout=5.0, retry_on_timeout=True)
    client = proxy.client(request())
    proxy.accept()
    proxy.pass_time(5.2)
    proxy.accept().feed(ok())
    assert client.data == ok()

    proxy = make_proxy(endpoints=2, timeout=5.0)
    client = proxy.client(request())
    proxy.accept()
    proxy.pass_time(5.2)
    assert error_of(client.data) == (504, "request_timeout")


# What is not to be tried again


def test_without_connect_a_refused_one_is_the_end(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(endpoints=2, retry_on_connect=False)
    client = proxy.client(request())
    proxy.refuse()
    assert error_of(client.data) == (503, "connect_refused")


def test_without_reset_a_broken_one_is_the_end(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(endpoints=2, retry_on_reset=False)
    client = proxy.client(request())
    proxy.accept().lose(ConnectionResetError())
    assert error_of(client.data) == (502, "reset_before_headers")


def test_without_reset_the_idle_race_is_still_nobodys_fault(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(endpoints=1, retry_on_reset=False, retry_ratio=0.0, retry_min=0)
    proxy.exchange(request("GET /warm"), ok())
    client = proxy.client(request())
    proxy.upstreams[0].lose()
    proxy.accept().feed(ok())
    assert client.data == ok()


# The budget


def reset_all(proxy: Proxy, count: int) -> list[Any]:
    """So many clients whose first attempt is reset before an answer."""
    clients = [proxy.client(request(f"GET /{number}")) for number in range(count)]
    first = [proxy.accept() for _ in range(count)]
    for endpoint in first:
        endpoint.lose(ConnectionResetError())
    return clients


def refused(clients: list[Any]) -> int:
    return sum(client.data != b"" and error_of(client.data) == (503, "retry_budget") for client in clients)


def test_an_endpoint_that_dies_under_load_is_not_noticed(make_proxy: MakeProxy) -> None:
    """Its requests are reset in one moment, and all tried again in one."""
    proxy = make_proxy(endpoints=2, breaker_threshold=100, breaker_failure_rate=0.0)
    clients = reset_all(proxy, 10)
    assert proxy.cluster.stats.retries_active == 10
    for _ in range(10):
        proxy.accept().feed(ok())
    assert proxy.cluster.stats.retries_active == 0
    assert all(client.data == ok() for client in clients)


def test_retries_are_a_share_of_the_requests(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(
        endpoints=2, breaker_threshold=100, breaker_failure_rate=0.0, retry_ratio=0.5, retry_min=0
    )
    for _ in range(4):
        proxy.client(request("GET /waits"))
        proxy.accept()
    clients = reset_all(proxy, 10)
    assert proxy.cluster.stats.retries_active == 7, "half of 14"
    assert refused(clients) == proxy.cluster.stats.retries_refused == 3


def test_without_a_budget_nothing_is_tried_again_but_refused_connects(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(endpoints=2, retry_ratio=0.0, retry_min=0)
    client = proxy.client(request())
    proxy.accept().lose(ConnectionResetError())
    assert error_of(client.data) == (503, "retry_budget")
    client = proxy.client(request())
    proxy.refuse()
    proxy.accept().feed(ok())
    assert client.data == ok()


def test_a_status_passes_when_the_budget_is_spent(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**STATUSES, retry_ratio=0.0, retry_min=0)
    client = proxy.client(request())
    proxy.accept().feed(BUSY)
    assert client.data == BUSY
    assert proxy.cluster.stats.retries_refused == 1


def test_a_retry_that_waits_for_a_connection_and_is_abandoned_gives_its_place_back(
    make_proxy: MakeProxy,
) -> None:
    proxy = make_proxy(endpoints=1, max_connections=1)
    client = proxy.client(request())
    endpoint = proxy.accept()
    waiting = proxy.client(request("GET /waits"))
    endpoint.lose(ConnectionResetError())
    assert proxy.cluster.stats.retries_active == 1
    client.lose()
    assert proxy.cluster.stats.retries_active == 0
    proxy.accept().feed(ok())
    assert waiting.data == ok()


# Waiting before an endpoint is asked again

WAITING: dict[str, Any] = {"endpoints": 1, "backoff_base": 0.1, "backoff_max": 0.3, "retries": 3}


def test_the_same_endpoint_is_asked_again_after_a_while(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**WAITING, chances=(0.5, 1.0, 1.0), breaker_threshold=100)
    client = proxy.client(request())
    delays = []
    for _ in range(3):
        proxy.refuse()
        assert proxy.connecting == []
        assert proxy.cluster.stats.retries_active == 1
        delays += proxy.run_timers()
    assert delays == [0.05, 0.2, 0.3]
    proxy.accept().feed(ok())
    assert client.data == ok()
    assert proxy.cluster.stats.retries[Reason.CONNECT_REFUSED] == [2, 1]


def test_another_endpoint_is_asked_at_once(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**{**WAITING, "endpoints": 2})
    proxy.client(request())
    proxy.refuse()
    assert hosts(proxy) == ["10.0.0.2"]
    proxy.accept().lose(ConnectionResetError())
    assert proxy.connecting == []
    assert proxy.run_timers() == [0.05]
    assert len(proxy.connecting) == 1


def test_a_client_that_leaves_meanwhile_is_not_tried_for(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**WAITING)
    client = proxy.client(request())
    proxy.refuse()
    client.lose()
    assert proxy.run_timers() == []
    assert proxy.counted == [("GET", "4xx", "client_gone", 1)]
    assert proxy.cluster.stats.retries_active == 0


def test_the_time_out_ends_the_wait_with_what_it_waits_after(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**WAITING, timeout=0.05)
    client = proxy.client(request())
    proxy.refuse()
    proxy.pass_time(0.3)
    assert error_of(client.data) == (503, "connect_refused")
    assert proxy.run_timers() == []


def test_a_body_that_comes_meanwhile_is_sent_with_the_next_attempt(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**WAITING)
    client = proxy.client(request("PUT /", "Content-Length: 3", body=b"a"))
    proxy.refuse()
    client.feed(b"bc")
    proxy.run_timers()
    endpoint = proxy.accept()
    assert endpoint.data.endswith(b"\r\n\r\nabc")
    endpoint.feed(ok())
    assert client.data == ok()


def test_an_upstream_that_is_emptied_meanwhile_answers_with_the_failure(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**WAITING)
    client = proxy.client(request())
    proxy.refuse()
    proxy.serve_by(0)
    proxy.run_timers()
    assert error_of(client.data) == (503, "connect_refused")


# What must not be


def test_a_body_that_is_not_kept_is_not_sent_again_after_a_time_out(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(endpoints=2, per_try_timeout=1.0)
    client = proxy.client(request("PUT /", "Content-Length: 70000", body=b"x" * 70_000))
    proxy.accept()
    proxy.pass_time(1.3)
    assert error_of(client.data) == (504, "request_timeout")
    assert proxy.connecting == []


def test_a_connection_that_has_half_of_a_request_is_not_kept(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**STATUSES)
    client = proxy.client(request("PUT /", "Content-Length: 6", body=b"abc"))
    first = proxy.accept()
    first.feed(BUSY)
    assert first.closing
    client.feed(b"def")
    second = proxy.accept()
    assert second.data.endswith(b"abcdef")
    second.feed(ok())
    assert client.data == ok()


@pytest.mark.parametrize("why", ["full", "out of rotation"])
def test_nor_one_of_a_slow_or_an_ejected_endpoint(make_proxy: MakeProxy, why: str) -> None:
    proxy = make_proxy(**STATUSES, breaker_threshold=1 if why == "out of rotation" else 5)
    proxy.client(PUT)
    first = proxy.accept()
    if why == "full":
        first.protocol.pause_writing()
    first.feed(BUSY)
    assert first.closing
    proxy.accept().feed(ok())


def test_a_retry_that_waits_takes_no_connection_to_where_it_has_been(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**STATUSES, max_connections=2, breaker_threshold=100)
    tried = proxy.client(request("GET /tried"))
    bad = proxy.accept()
    held = proxy.client(request("GET /held"))
    good = proxy.accept()
    other = proxy.client(request("GET /other"))
    assert len(proxy.cluster.limit.pending) == 1
    bad.feed(BUSY)  # the retry queues behind the other, which gets this connection
    assert bad.data.count(b"GET /other") == 1
    bad.feed(ok(b"other"))
    assert other.data == ok(b"other")
    assert bad.data.count(b"GET /tried") == 1, "not again"
    good.feed(ok(b"held"))
    for endpoint in (good, *proxy.busy):
        if endpoint.data.count(b"GET /tried") and endpoint is not bad and not endpoint.closing:
            endpoint.feed(ok(b"tried"))
            break
    else:
        proxy.accept().feed(ok(b"tried"))
    assert (held.data, tried.data) == (ok(b"held"), ok(b"tried"))


@pytest.mark.parametrize("room", [0, 10])
def test_a_probe_at_a_full_bound_in_panic_is_sent_and_comes_back(make_proxy: MakeProxy, room: int) -> None:
    proxy = make_proxy(
        endpoints=2,
        breaker_threshold=1,
        breaker_open_for=10.0,
        breaker_jitter=0.0,
        retries=0,
        max_connections=1,
        max_pending=room,
        timeout=100.0,
    )
    for _ in range(2):
        proxy.client(request())
        proxy.refuse()
    assert proxy.cluster.panic
    proxy.client(request("GET /holds"))
    holder = proxy.accept()
    proxy.clock.advance(15.0)
    client = proxy.client(request("GET /probe"))
    endpoint = proxy.accept()
    assert endpoint.data.startswith(b"GET /probe")
    endpoint.feed(ok())
    assert client.data == ok()
    assert not proxy.cluster.panic
    holder.feed(ok())


def test_who_leaves_beside_a_probe_does_not_give_it_back(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(endpoints=2, breaker_threshold=1, breaker_open_for=10.0, breaker_jitter=0.0, retries=0)
    for _ in range(2):
        proxy.client(request())
        proxy.refuse()
    proxy.clock.advance(15.0)
    clients = [proxy.client(request()) for _ in range(4)]  # two probes, and two that are none
    assert [state.breaker.probing for state in proxy.states] == [True, True]
    for client in clients[2:]:
        client.lose()
    assert [state.breaker.probing for state in proxy.states] == [True, True]
    for client in clients[:2]:
        client.lose()
    assert [state.breaker.probing for state in proxy.states] == [False, False]


def test_the_time_out_begins_anew_with_a_wait(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**{**WAITING, "timeout": 1.0, "connect_timeout": 9.0})
    client = proxy.client(request())
    proxy.pass_time(0.9)
    proxy.refuse()
    proxy.pass_time(0.5)
    assert client.data == b""
    proxy.run_timers()
    proxy.accept().feed(ok())
    assert client.data == ok()
