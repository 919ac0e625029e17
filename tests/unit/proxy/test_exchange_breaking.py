"""Circuit breakers moved by real exchanges: opening, failing fast, probing, closing."""

from collections.abc import Callable

import pytest
from unit.proxy.harness import Proxy, error_of, ok, request

from sidecar.model import Outcome
from sidecar.resilience import BreakerState

MakeProxy = Callable[..., Proxy]

UNAVAILABLE = ok(b"", status="503 Service Unavailable")
BUSY = ok(b"", status="429 Too Many Requests")


def breaker_states(proxy: Proxy) -> list[str]:
    return [state.breaker.state.label for state in proxy.states]


def open_breaker(proxy: Proxy) -> None:
    """Let the first endpoint fail until its breaker opens; the threshold is two."""
    while proxy.states[0].breaker.state is not BreakerState.OPEN:
        client = proxy.client(request())
        endpoint = proxy.accept() if proxy.connecting else proxy.busy[-1]
        endpoint.feed(UNAVAILABLE if b"10.0.0.1" in endpoint.taken() else ok())
        assert client.data


@pytest.fixture
def broken(make_proxy: MakeProxy) -> Proxy:
    """One endpoint whose breaker has just opened, for 10 s."""
    proxy = make_proxy(breaker_threshold=2, breaker_open_for=10.0, breaker_jitter=0.0, retries=0)
    open_breaker(proxy)
    return proxy


@pytest.mark.parametrize("status", ["502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout"])
def test_failing_statuses_open_it_and_are_passed_on(make_proxy: MakeProxy, status: str) -> None:
    """26."""
    proxy = make_proxy(breaker_threshold=2)
    for _ in range(2):
        assert proxy.exchange(request(), ok(b"no", status=status)) == ok(b"no", status=status)
    assert breaker_states(proxy) == ["open"]
    assert proxy.states[0].attempts[Outcome.FAILURE_STATUS] == 2
    assert proxy.counted == [("GET", "5xx", "none", 2)]


@pytest.mark.parametrize("status", ["500 Internal Server Error", "429 Too Many Requests", "404 Not Found"])
def test_other_statuses_do_not_open_it(make_proxy: MakeProxy, status: str) -> None:
    proxy = make_proxy(breaker_threshold=2)
    for _ in range(5):
        proxy.exchange(request(), ok(b"no", status=status))
    assert breaker_states(proxy) == ["closed"]


@pytest.mark.parametrize("how", ["refused", "connect time-out", "reset", "silence", "garbage"])
def test_every_kind_of_failure_opens_it(make_proxy: MakeProxy, how: str) -> None:
    proxy = make_proxy(breaker_threshold=3, retries=0, timeout=5.0)
    for _ in range(3):
        assert breaker_states(proxy) == ["closed"]
        proxy.client(request())
        if how == "refused":
            proxy.refuse()
        elif how == "connect time-out":
            proxy.pass_time(1.2)
        elif how == "reset":
            proxy.accept().lose(ConnectionResetError())
        elif how == "silence":
            proxy.accept()
            proxy.pass_time(5.2)
        else:
            proxy.accept().feed(b"SSH-2.0-OpenSSH\r\n")
    assert breaker_states(proxy) == ["open"]


def test_a_success_starts_the_count_again(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(breaker_threshold=2)
    for answer in (UNAVAILABLE, ok(), UNAVAILABLE, ok()):
        proxy.exchange(request(), answer)
    assert breaker_states(proxy) == ["closed"]


def test_an_open_endpoint_is_skipped_while_others_are_left(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(endpoints=2, breaker_threshold=2, breaker_open_for=100.0)
    open_breaker(proxy)
    before = proxy.states[1].attempts[Outcome.SUCCESS]
    for _ in range(4):
        assert proxy.exchange(request(), ok()) == ok()
    assert proxy.states[1].attempts[Outcome.SUCCESS] == before + 4


def test_all_open_is_503_at_once(broken: Proxy) -> None:
    client = broken.client(request())
    assert error_of(client.data) == (503, "all_open")
    assert not client.closing
    assert broken.connecting == []
    assert broken.counted[-1] == ("GET", "5xx", "all_open", 1)


def test_opening_closes_the_idle_connections(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(breaker_threshold=1)
    clients = [proxy.client(request()) for _ in range(3)]
    endpoints = [proxy.accept() for _ in range(3)]
    endpoints[0].feed(ok())
    endpoints[1].feed(UNAVAILABLE)
    assert [endpoint.closing for endpoint in endpoints] == [True, True, False]
    endpoints[2].feed(ok())
    assert clients[2].data == ok(), "a request that began before goes on"
    assert endpoints[2].closing
    assert breaker_states(proxy) == ["open"], "and its result changes nothing"


def test_failing_while_nobody_is_left_answers_with_the_failure(make_proxy: MakeProxy) -> None:
    """The last failure says more than that every breaker is open now."""
    proxy = make_proxy(breaker_threshold=1, retries=3)
    client = proxy.client(request())
    proxy.refuse()
    assert error_of(client.data) == (503, "connect_refused")


def test_one_probe_closes_it(broken: Proxy) -> None:
    """27."""
    broken.clock.advance(10.0)
    probe = broken.client(request())
    assert breaker_states(broken) == ["half_open"]
    other = broken.client(request())
    assert error_of(other.data) == (503, "all_open"), "one probe at a time"
    broken.accept().feed(ok())

    assert probe.data == ok()
    assert breaker_states(broken) == ["closed"]
    assert broken.exchange(request(), ok()) == ok()


@pytest.mark.parametrize("answer", [UNAVAILABLE, BUSY, b"garbage\r\n"], ids=["503", "429", "garbage"])
def test_a_probe_that_fails_opens_it_again(broken: Proxy, answer: bytes) -> None:
    broken.clock.advance(10.0)
    broken.client(request())
    broken.accept().feed(answer)
    assert breaker_states(broken) == ["open"]
    assert error_of(broken.client(request()).data) == (503, "all_open")


def test_a_probe_that_is_refused_opens_it_again(broken: Proxy) -> None:
    broken.clock.advance(10.0)
    client = broken.client(request())
    broken.refuse()
    assert error_of(client.data) == (503, "connect_refused")
    assert breaker_states(broken) == ["open"]


@pytest.mark.parametrize("when", ["connecting", "sent"])
def test_a_probe_whose_client_goes_gives_its_permission_back(broken: Proxy, when: str) -> None:
    broken.clock.advance(10.0)
    client = broken.client(request())
    if when == "sent":
        broken.accept()
    client.lose()
    assert breaker_states(broken) == ["half_open"]

    again = broken.client(request())
    broken.accept().feed(ok())
    assert again.data == ok()
    assert breaker_states(broken) == ["closed"]


def test_a_probe_goes_before_the_bound(make_proxy: MakeProxy) -> None:
    """Behind requests that other endpoints' connections serve, it would never be sent."""
    proxy = make_proxy(
        endpoints=2,
        breaker_threshold=1,
        breaker_open_for=10.0,
        breaker_jitter=0.0,
        max_connections=1,
        max_pending=0,
    )
    open_breaker(proxy)
    healthy = proxy.client(request())
    endpoint = proxy.accept() if proxy.connecting else proxy.busy[0]
    proxy.clock.advance(10.0)
    probe = proxy.client(request())
    assert [attempt.host for attempt in proxy.connecting] == ["10.0.0.1"]
    assert error_of(proxy.client(request()).data) == (503, "overflow"), "the bound holds for all others"
    proxy.accept().feed(ok())
    assert probe.data == ok()
    assert breaker_states(proxy) == ["closed", "closed"]
    endpoint.feed(ok())
    assert healthy.data == ok()


def test_a_streamed_response_answers_the_probe_with_its_head(broken: Proxy) -> None:
    """A stream may go on for hours; the breaker does not wait for its end."""
    broken.clock.advance(10.0)
    stream = broken.client(request())
    endpoint = broken.accept()
    endpoint.feed(ok(b"abc")[:-1])
    assert breaker_states(broken) == ["closed"]
    stream.lose()
    assert breaker_states(broken) == ["closed"]
    assert endpoint.aborted


def test_a_streamed_failure_answers_the_probe_with_its_head(broken: Proxy) -> None:
    broken.clock.advance(10.0)
    stream = broken.client(request())
    endpoint = broken.accept()
    answer = ok(b"abc", status="503 Service Unavailable")
    endpoint.feed(answer[:-1])
    assert breaker_states(broken) == ["open"]
    endpoint.feed(b"c")
    assert stream.data == answer
    assert len(broken.states[0].breaker.journal) == 3, "opened, probed, opened: once each"


def test_a_stream_that_was_the_probe_once_does_not_answer_for_the_next_one(broken: Proxy) -> None:
    broken.clock.advance(10.0)
    broken.client(request())
    stream = broken.accept()
    stream.feed(ok(b"abc", status="503 Service Unavailable")[:-1])
    assert breaker_states(broken) == ["open"]
    broken.clock.advance(20.0)  # the second opening in a row is twice as long
    second = broken.client(request())
    assert breaker_states(broken) == ["half_open"]
    stream.feed(b"c")
    assert breaker_states(broken) == ["half_open"]
    broken.accept().feed(ok())
    assert second.data == ok()
    assert breaker_states(broken) == ["closed"]


def test_of_two_open_endpoints_the_first_whose_time_is_over_gets_the_probe(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(
        endpoints=2, breaker_threshold=1, breaker_open_for=10.0, breaker_jitter=0.0, panic_all=False
    )
    for _ in range(2):
        proxy.exchange(request(), UNAVAILABLE)
        proxy.clock.advance(2.0)
    assert breaker_states(proxy) == ["open", "open"]
    assert error_of(proxy.client(request()).data) == (503, "all_open")
    proxy.clock.advance(6.5)
    proxy.client(request())
    assert [attempt.host for attempt in proxy.connecting] == ["10.0.0.1"]


def test_an_endpoint_that_comes_back_at_a_full_bound_serves_again(make_proxy: MakeProxy) -> None:
    """Every connection is the other endpoint's by then, and there is always a queue."""
    proxy = make_proxy(
        endpoints=2,
        breaker_threshold=1,
        breaker_open_for=10.0,
        breaker_jitter=0.0,
        max_connections=2,
        max_pending=100,
    )
    proxy.client(request())
    assert proxy.refuse() == "10.0.0.1"
    proxy.accept().feed(ok())
    clients = [proxy.client(request()) for _ in range(6)]
    if proxy.connecting:
        proxy.accept()
    assert breaker_states(proxy) == ["open", "closed"]
    assert (proxy.states[1].pool.open, len(proxy.cluster.limit.pending)) == (2, 4)

    proxy.clock.advance(10.0)
    clients.append(proxy.client(request()))
    assert [attempt.host for attempt in proxy.connecting] == ["10.0.0.1"], "the probe goes before the queue"
    proxy.accept().feed(ok())  # the first answer of all: the others hold the whole bound still
    served = {b"10.0.0.1": 0, b"10.0.0.2": 0}
    for _ in range(20):
        clients += [proxy.client(request()) for _ in range(3)]  # there is always somebody in the queue
        for endpoint in proxy.busy:
            served[next(host for host in served if b"Host: " + host in endpoint.data)] += 1
            endpoint.feed(ok())
        while proxy.connecting:
            proxy.accept()
    assert breaker_states(proxy) == ["closed", "closed"]
    assert min(served.values()) >= 10, served
    assert [state.pool.open for state in proxy.states] == [1, 1]

    while proxy.busy:
        proxy.busy[0].feed(ok())
        while proxy.connecting:
            proxy.accept()
    assert all(client.data == ok() for client in clients)
