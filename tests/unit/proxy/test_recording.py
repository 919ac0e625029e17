"""Exchanges and sessions are told one by one, each once, with how they went."""

from collections.abc import Callable
from typing import Any

import pytest
from support.transports import MemoryTransport
from unit.proxy.harness import Proxy, chunked, ok, request

from sidecar.errors import ProtocolError, Reason
from sidecar.model import CloseReason, Outcome
from sidecar.proxy.exchange import Exchange
from sidecar.proxy.follow import follow_policy
from sidecar.proxy.recording import RecordedExchange

MakeProxy = Callable[..., Proxy]


class Told:
    """A recorder that keeps what it hears: `(what happened, the fields that tell how)`."""

    def __init__(self, *, identifies: bool = False) -> None:
        self.identifies = identifies
        self.exchanges: list[dict[str, Any]] = []
        self.sessions: list[dict[str, Any]] = []
        self.refusals: list[tuple[int, int]] = []
        self.attempts: list[tuple[str, str]] = []
        self.sent: list[str] = []

    def identify(self, exchange: RecordedExchange, head: Any) -> Any:
        exchange.trace = []
        return head

    def sending(self, exchange: RecordedExchange, connection: Any) -> None:
        self.sent.append(connection.endpoint.endpoint.host)

    def attempt_over(
        self, exchange: RecordedExchange, endpoint: Any, outcome: Outcome, began: float, now: float
    ) -> None:
        assert began <= now
        self.attempts.append((endpoint.endpoint.host, outcome.label))

    def exchange_over(self, exchange: RecordedExchange, status: int, reason: Reason, now: float) -> None:
        assert exchange.cluster.name == "api"
        self.exchanges.append(
            {
                "target": exchange.head.target,
                "status": status,
                "reason": reason.label,
                "tries": exchange.tries,
                "where": None if exchange.where is None else exchange.where.endpoint.host,
                "duration": round(now - exchange.started, 3),
                "connect": round(exchange.connect_time, 3),
                "first_byte": round(exchange.first_byte - exchange.started, 3) if exchange.first_byte else 0,
                "bytes": (exchange.request_bytes, exchange.response_bytes),
            }
        )

    def refused(self, client: Any, method: int, error: ProtocolError, now: float) -> None:
        self.refusals.append((method, error.status))

    def session_over(self, session: Any, reason: CloseReason, now: float) -> None:
        where = session.where
        self.sessions.append(
            {
                "reason": reason.label,
                "where": None if where is None else where.endpoint.host,
                "duration": round(now - session.started, 3),
                "bytes": (session.sent, session.received),
            }
        )


def recorded(make_proxy: MakeProxy, *, identifies: bool = False, **options: Any) -> tuple[Proxy, Told]:
    proxy = make_proxy(**options)
    told = Told(identifies=identifies)
    proxy.context.recorder = told  # type: ignore[assignment] # a double
    return proxy, told


def only(told: Told) -> dict[str, Any]:
    (one,) = told.exchanges
    return one


def test_nobody_asks_so_that_nothing_is_kept(make_proxy: MakeProxy) -> None:
    proxy = make_proxy()
    client = proxy.client(request())
    assert not isinstance(client.protocol.exchange, RecordedExchange)
    proxy.accept().feed(ok())


def test_a_request_over_a_new_connection_and_one_over_the_same(make_proxy: MakeProxy) -> None:
    proxy, told = recorded(make_proxy)
    client = proxy.client(request("POST /a?b=c", "Content-Length: 3", body=b"abc"))
    proxy.clock.advance(0.010)
    endpoint = proxy.accept()
    proxy.clock.advance(0.020)
    endpoint.feed(ok(b"four"))
    assert only(told) == {
        "target": b"/a?b=c",
        "status": 200,
        "reason": "none",
        "tries": 1,
        "where": "10.0.0.1",
        "duration": 0.030,
        "connect": 0.010,
        "first_byte": 0.030,
        "bytes": (3, 4),
    }
    told.exchanges.clear()
    client.feed(request("GET /again"))
    proxy.clock.advance(0.005)
    endpoint.feed(ok(b""))
    assert only(told)["connect"] == -1.0, "nothing was opened"
    assert (only(told)["first_byte"], only(told)["bytes"], only(told)["tries"]) == (0.005, (0, 0), 1)


def test_an_idle_connection_keeps_no_head(make_proxy: MakeProxy) -> None:
    proxy, _ = recorded(make_proxy)
    client = proxy.client(request("GET /long"))
    assert client.protocol.exchange.head.target == b"/long"
    proxy.accept().feed(ok())
    assert client.protocol.exchange.head.target == b""


@pytest.mark.parametrize("cut", [0, 10])
def test_bodies_are_counted_as_they_went_over_the_wire(make_proxy: MakeProxy, cut: int) -> None:
    proxy, told = recorded(make_proxy)
    body, answer = chunked(b"a" * 100, b"b" * 50), chunked(b"c" * 1000)
    client = proxy.client(request("POST /", "Transfer-Encoding: chunked", body=body[:cut]))
    endpoint = proxy.accept()
    client.feed(body[cut:])
    whole = ok(answer, "Transfer-Encoding: chunked", length=False)
    split = len(whole) - len(answer) + cut
    endpoint.feed(whole[:split])
    proxy.clock.advance(1.0)
    endpoint.feed(whole[split:])
    assert only(told)["bytes"] == (len(body), len(answer))
    assert (only(told)["first_byte"], only(told)["duration"]) == (0, 1.0)


def test_what_the_proxy_answers_itself_has_no_bytes_of_an_endpoint(make_proxy: MakeProxy) -> None:
    proxy, told = recorded(make_proxy, endpoints=2, retries=1)
    proxy.client(request())
    proxy.clock.advance(0.5)
    proxy.refuse()
    proxy.refuse()
    proxy.refuse()
    one = only(told)
    assert (one["status"], one["reason"], one["tries"]) == (503, "connect_refused", 3)
    assert (one["first_byte"], one["bytes"], one["connect"]) == (0, (0, 0), -1.0)


def test_a_response_that_breaks_off(make_proxy: MakeProxy) -> None:
    proxy, told = recorded(make_proxy)
    proxy.client(request())
    endpoint = proxy.accept()
    endpoint.feed(ok(b"x" * 100)[:-40])
    endpoint.lose(ConnectionResetError())
    assert (only(told)["status"], only(told)["reason"], only(told)["bytes"]) == (
        200,
        "reset_after_headers",
        (0, 60),
    )


def test_a_client_that_leaves(make_proxy: MakeProxy) -> None:
    proxy, told = recorded(make_proxy)
    client = proxy.client(request())
    proxy.accept()
    client.lose()
    assert (only(told)["status"], only(told)["reason"], only(told)["tries"]) == (499, "client_gone", 1)


def test_each_attempt_is_told_to_who_traces(make_proxy: MakeProxy) -> None:
    proxy, told = recorded(make_proxy, identifies=True, endpoints=3, retry_statuses=frozenset({503}))
    proxy.client(request())
    assert proxy.refuse() == "10.0.0.1"
    proxy.accept().feed(ok(b"busy", status="503 Service Unavailable"))
    proxy.accept().feed(ok())
    assert told.sent == ["10.0.0.2", "10.0.0.3"]
    assert [host for host, _ in told.attempts] == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    assert [outcome for _, outcome in told.attempts] == ["connect_refused", "failure_status", "success"]
    assert (only(told)["tries"], only(told)["where"], only(told)["bytes"]) == (3, "10.0.0.3", (0, 2))


def test_both_attempts_of_a_hedged_request(make_proxy: MakeProxy) -> None:
    proxy, told = recorded(make_proxy, identifies=True, endpoints=2, hedge_after=0.05)
    proxy.client(request())
    proxy.accept()
    proxy.clock.advance(0.05)
    proxy.run_timers()
    proxy.accept().feed(ok())
    assert told.attempts == [("10.0.0.1", "outrun"), ("10.0.0.2", "success")]
    assert (only(told)["tries"], only(told)["where"]) == (2, "10.0.0.2")


def test_what_is_no_request(make_proxy: MakeProxy) -> None:
    proxy, told = recorded(make_proxy)
    proxy.refusals = 1
    proxy.client(b"nonsense\r\n\r\n")
    assert (told.refusals, told.exchanges) == ([(9, 400)], [])


def test_it_begins_and_ends_with_the_next_request(make_proxy: MakeProxy) -> None:
    proxy = make_proxy()
    client = proxy.client(request("GET /first"))
    endpoint = proxy.accept()
    told = Told()
    proxy.context.recorder = told  # type: ignore[assignment] # a double
    follow_policy(proxy.context, [proxy.cluster])
    endpoint.feed(ok())
    proxy.begun += 1  # the harness counts those of the kind that it knows
    client.feed(request("GET /second"))
    proxy.context.recorder = None
    endpoint.feed(ok())
    assert told.exchanges == [], "nobody asks any more"
    follow_policy(proxy.context, [proxy.cluster])
    proxy.begun += 1
    client.feed(request("GET /third"))
    endpoint.feed(ok())
    assert type(client.protocol.exchange) is Exchange
    proxy.loop.turn()


def session(proxy: Proxy) -> tuple[MemoryTransport, MemoryTransport]:
    client = proxy.client(b"early")
    return client, proxy.accept()


def test_a_session(make_proxy: MakeProxy) -> None:
    proxy, told = recorded(make_proxy, scheme="tcp")
    client, endpoint = session(proxy)
    client.feed(b"more")
    endpoint.feed(b"answer")
    proxy.clock.advance(2.0)
    client.lose()
    assert told.sessions == [
        {"reason": "client_closed", "where": "10.0.0.1", "duration": 2.0, "bytes": (9, 6)}
    ]


def test_a_session_without_an_endpoint(make_proxy: MakeProxy) -> None:
    proxy, told = recorded(make_proxy, scheme="tcp", endpoints=0)
    proxy.client(b"hello")
    assert told.sessions == [{"reason": "no_endpoints", "where": None, "duration": 0.0, "bytes": (0, 0)}]


def test_a_session_whose_endpoints_are_all_drained(make_proxy: MakeProxy) -> None:
    proxy, told = recorded(make_proxy, scheme="tcp")
    proxy.cluster.drain(proxy.states, proxy.clock.now)
    proxy.client(b"hello")
    assert (told.sessions[0]["reason"], proxy.sessions) == ("draining", {"draining": 1})


def test_a_request_that_becomes_a_tunnel_is_told_of_twice(make_proxy: MakeProxy) -> None:
    proxy, told = recorded(make_proxy)
    client = proxy.client(request("GET /chat", "Connection: upgrade", "Upgrade: websocket"))
    endpoint = proxy.accept()
    endpoint.feed(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhi")
    assert (only(told)["status"], only(told)["bytes"]) == (101, (0, 0))
    client.feed(b"hello")
    client.lose()
    assert [one["bytes"] for one in told.sessions] == [(5, 2)]
