"""Exchanges under any sequence of what clients, endpoints, time and somebody's hand do: each ends once, all told.

What is checked is the harness's `finish`: nothing is open, booked, waiting or uncounted once everybody has left.
"""

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from unit.proxy.harness import Proxy, ok, request
from unit.proxy.test_recording import Told

from sidecar.http1.state import State

BUSY = ok(b"", status="503 Service Unavailable")
ASKED = (
    request(),
    request("POST /", "Content-Length: 2", body=b"ab"),
    request("PUT /", "Content-Length: 4", body=b"ab"),
    request("GET /", "X-Timeout: 300"),
    request() + request("GET /pipelined"),
)
ANSWERS = (
    ok(),
    ok(),
    BUSY,
    ok(b"12345")[:-2],
    b"HTTP/1.1 102 Processing\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    b"SSH-2.0-OpenSSH\r\n",
)

number = st.integers(0, 5)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, len(ASKED) - 1)),
        st.tuples(st.just("ask again"), number),
        st.tuples(st.just("more body"), number),
        st.tuples(st.just("leave"), number),
        st.tuples(st.sampled_from(("accept", "accept", "refuse")), number),
        st.tuples(st.just("answer"), st.tuples(number, st.integers(0, len(ANSWERS) - 1))),
        st.tuples(st.just("reset"), number),
        st.tuples(st.just("pass"), st.sampled_from((0.04, 0.06, 0.3, 1.2, 6.0))),
        st.tuples(st.sampled_from(("trip", "restore", "drain", "enable")), number),
        st.tuples(st.just("serve by"), st.integers(0, 3)),
    ),
    max_size=40,
)
policies = st.fixed_dictionaries(
    {
        "endpoints": st.integers(1, 3),
        "hedge_after": st.sampled_from((0.0, 0.05, 0.05)),
        "deadline_header": st.sampled_from((b"", b"x-timeout")),
        "retries": st.integers(0, 3),
        "retry_on_timeout": st.booleans(),
        "retry_statuses": st.sampled_from((frozenset(), frozenset((503,)))),
        "per_try_timeout": st.sampled_from((0.0, 0.2)),
        "backoff_base": st.sampled_from((0.0, 0.1)),
        "breaker_threshold": st.sampled_from((1, 100)),
        "panic_all": st.booleans(),
        "max_connections": st.sampled_from((1, 2, 100)),
        "max_connections_per_endpoint": st.sampled_from((0, 1)),
        "max_pending": st.sampled_from((0, 1, 100)),
        "max_in_flight": st.sampled_from((0, 0, 2)),
    }
)


def one_of(things: list[Any], which: int) -> Any:
    return things[which % len(things)] if things else None


def step(proxy: Proxy, what: str, value: Any) -> None:
    """One thing happens, if there is somebody whom it can happen to."""
    clients = [client for client in proxy.clients if not client.closing]
    busy = [endpoint for endpoint in proxy.busy if not endpoint.closing]
    connecting = proxy.connecting
    if what == "ask":
        proxy.client(ASKED[value])
    elif what in ("ask again", "more body", "leave") and clients:
        client = one_of(clients, value)
        coming = client.protocol.exchange.state in (State.SENDING, State.EARLY, State.DRAINING)
        if what == "leave":
            client.lose()
        elif coming is (what == "more body"):  # else it would be taken for a head, or for a body
            client.feed(request("GET /again") if what == "ask again" else b"cd")
    elif what == "accept" and connecting:
        proxy.accept()
    elif what == "refuse" and connecting:
        proxy.refuse()
    elif what == "answer" and busy:
        one_of(busy, value[0]).feed(ANSWERS[value[1]])
    elif what == "reset" and busy:
        one_of(busy, value).lose(ConnectionResetError())
    elif what == "pass":
        proxy.pass_time(value)
        proxy.run_timers()
    elif what in ("trip", "restore", "drain", "enable") and proxy.states:
        act = getattr(proxy.cluster, "reset" if what == "restore" else what)
        act([one_of(proxy.states, value)], proxy.clock.now)
    elif what == "serve by":
        proxy.serve_by(value)
    proxy.settle()


@settings(max_examples=600, deadline=None, derandomize=True)
@given(policies, steps, st.sampled_from((None, None, False, True)))
def test_every_exchange_ends_once(
    policy: dict[str, Any], story: list[tuple[str, Any]], identifies: bool | None
) -> None:
    """And is told of once where somebody asks for that: identifies, with each of its attempts."""
    proxy = Proxy(timeout=5.0, **policy)
    told = None if identifies is None else Told(identifies=identifies)
    proxy.context.recorder = told  # type: ignore[assignment] # a double
    for what, value in story:
        step(proxy, what, value)
    proxy.finish()
    hedged = sum(proxy.cluster.stats.hedges)
    assert hedged == 0 or policy["hedge_after"]
    if told is not None:
        assert (len(told.exchanges), len(told.refusals)) == (proxy.begun, proxy.refusals)
        by_reason: Counter[str] = Counter()
        for _, _, reason, count in proxy.counted:
            by_reason[reason] += count
        assert Counter(one["reason"] for one in told.exchanges) == by_reason
        tries = sum(one["tries"] for one in told.exchanges)
        assert tries == sum(proxy.cluster.stats.attempts)
        assert len(told.attempts) == (tries if identifies else 0)
