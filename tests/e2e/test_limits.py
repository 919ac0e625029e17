"""Bounds and deadlines as users get them: a sidecar of a configuration file, before endpoints that take their time."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.endpoints import Conversation, ScriptedEndpoint, ok
from support.http import HttpClient, get
from support.ports import free_port
from support.proxy import Sidecar, configuration
from support.waiting import wait_until


def waits(conversation: Conversation) -> None:
    """Answers every request once the endpoint is released."""
    while conversation.read_request():
        conversation.endpoint.released.wait(10.0)
        conversation.send(ok(b"done"))


class Setup:
    """Endpoints that wait to be released, a sidecar before them, and clients."""

    def __init__(self, tmp_path: Path, stack: ExitStack, count: int, **text: str) -> None:
        self.stack = stack
        self.port = free_port()
        self.endpoints = [stack.enter_context(ScriptedEndpoint(waits)) for _ in range(count)]
        ports = [endpoint.port for endpoint in self.endpoints]
        self.sidecar = stack.enter_context(Sidecar(tmp_path, configuration(self.port, ports, **text)))
        self.clients: list[HttpClient] = []

    def ask(self, *headers: tuple[str, str]) -> HttpClient:
        """A new client sends a request."""
        client = self.stack.enter_context(HttpClient(self.port))
        client.send_head("GET", "/", headers)
        self.clients.append(client)
        return client

    @property
    def asked(self) -> list[int]:
        """Requests that each endpoint has got."""
        return [len(endpoint.requests) for endpoint in self.endpoints]

    def release(self) -> None:
        for endpoint in self.endpoints:
            endpoint.released.set()

    def series(self, name: str, **labels: str) -> float | None:
        pairs = ",".join(f'{key}="{value}"' for key, value in sorted({**labels, "upstream": "api"}.items()))
        return self.sidecar.metrics().get(f"sidecar_{name}{{{pairs}}}")

    def shown(self) -> dict[str, Any]:
        return self.sidecar.upstream("api")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_each_endpoint_has_its_own_bound(tmp_path: Path, stack: ExitStack) -> None:
    setup = Setup(tmp_path, stack, 2, policy="limits: {connections_per_endpoint: 1, pending: 1}")
    for _ in range(2):
        setup.ask()
    wait_until(lambda: setup.asked == [1, 1], "a request at each endpoint")
    setup.ask()
    wait_until(lambda: setup.series("queue_length") == 1, "the third to wait")
    refused = get(setup.port)

    assert (refused.status, refused.error) == (503, "overflow")
    assert "limits.pending" in refused.json["message"]
    assert setup.series("overflows_total", limit="pending") == 1
    assert setup.series("connections_per_endpoint_limit") == 1
    shown = setup.shown()
    assert shown["overflows"] == {"total": 1, "by_limit": {"pending": 1}}
    limits = shown["limits"]
    assert (limits["connections_per_endpoint"], limits["connections_per_endpoint_used"]) == (1, 1)
    assert (limits["connections_used"], limits["pending_used"], limits["in_flight_used"]) == (2, 1, 3)
    setup.release()
    assert [client.read_response().text for client in setup.clients] == ["done"] * 3
    assert [endpoint.connections for endpoint in setup.endpoints] == [1, 1]


def test_a_wait_is_bounded_and_counted(tmp_path: Path, stack: ExitStack) -> None:
    setup = Setup(tmp_path, stack, 1, policy="limits: {connections: 1, pending_timeout: 200ms}")
    served = setup.ask()
    wait_until(lambda: setup.asked == [1], "the first request")
    refused = setup.ask().read_response()
    assert (refused.status, refused.error) == (503, "overflow")
    assert setup.series("overflows_total", limit="pending_timeout") == 1
    setup.release()
    assert served.read_response().text == "done"


def test_requests_in_flight_are_bounded(tmp_path: Path, stack: ExitStack) -> None:
    setup = Setup(tmp_path, stack, 1, policy="limits: {in_flight: 2}")
    for _ in range(2):
        setup.ask()
    wait_until(lambda: setup.asked == [2], "both requests")
    refused = get(setup.port)
    assert (refused.status, refused.error) == (503, "overflow")
    assert setup.series("overflows_total", limit="in_flight") == 1
    assert setup.series("in_flight_limit") == 2
    setup.release()
    assert [client.read_response().text for client in setup.clients] == ["done", "done"]
    assert get(setup.port).text == "done"


def test_sessions_keep_to_the_same_bounds(tmp_path: Path, stack: ExitStack) -> None:
    policy = "limits: {connections_per_endpoint: 1, pending: 0, in_flight: 2}"
    setup = Setup(tmp_path, stack, 2, scheme="tcp", policy=policy)
    for _ in range(2):
        setup.ask()
    wait_until(lambda: setup.asked == [1, 1], "a session at each endpoint")
    address = ("127.0.0.1", setup.port)
    # Reset at once, which some systems tell as early as the connect.
    with pytest.raises(ConnectionResetError), socket.create_connection(address, timeout=10.0) as third:
        third.recv(1)
    assert setup.series("overflows_total", limit="in_flight") == 1
    assert setup.series("tcp_sessions_total", close_reason="overflow") == 1
    setup.release()
    assert [client.read_response().text for client in setup.clients] == ["done", "done"]


# Deadlines


@pytest.mark.parametrize("workers", ["", "workers: 2"])
def test_a_request_is_ended_by_its_own_deadline(tmp_path: Path, stack: ExitStack, workers: str) -> None:
    setup = Setup(
        tmp_path,
        stack,
        1,
        policy="deadline_header: x-request-timeout-ms, circuit_breaker: {consecutive_failures: 1}",
        sidecar=workers,
    )
    late = setup.ask(("X-Request-Timeout-Ms", "150")).read_response()
    assert (late.status, late.error) == (504, "request_timeout")
    assert 0 < int(setup.endpoints[0].requests[0].header("x-request-timeout-ms") or "") <= 150
    assert setup.sidecar.breaker("api", setup.endpoints[0].address) == "closed"
    wait_until(lambda: setup.series("deadlines_exceeded_total") == 1, "the count")
    assert setup.shown()["deadlines"] == {"header": "x-request-timeout-ms", "exceeded": 1}

    odd = setup.ask(("x-request-timeout-ms", "5s")).read_response()
    assert (odd.status, odd.error) == (400, "bad_request")
    setup.release()
    assert setup.ask(("x-request-timeout-ms", "9000")).read_response().text == "done"


def test_whoever_is_next_knows_what_is_left(tmp_path: Path, stack: ExitStack) -> None:
    """Two sidecars, one behind the other: whichever gives up first, neither takes the next one's endpoint for bad."""
    inner = Setup(tmp_path, stack, 1, policy="deadline_header: x-ms")
    folder = tmp_path / "outer"
    folder.mkdir()
    outer = free_port()
    text = configuration(outer, [inner.port], policy="deadline_header: X-MS")
    running = stack.enter_context(Sidecar(folder, text))
    with HttpClient(outer) as client:
        late = client.request(headers=[("X-Ms", "400")])
        assert (late.status, late.error) == (504, "request_timeout")
        wait_until(lambda: inner.series("requests_in_flight") == 0, "the inner one to end it too")
        assert 0 < int(inner.endpoints[0].requests[0].header("x-ms") or "") <= 400
        inner.release()
        assert client.request(headers=[("X-Ms", "5000")]).text == "done"
    for sidecar in (running, inner.sidecar):
        outcomes = [name for name in sidecar.metrics() if "attempts_total" in name]
        assert not any("request_timeout" in name or "failure_status" in name for name in outcomes)
