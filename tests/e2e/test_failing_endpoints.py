"""Endpoints that fail now and then: they leave the rotation, and what they refuse another one serves."""

from collections import Counter
from pathlib import Path

from support.endpoints import Conversation, ScriptedEndpoint, ok, respond
from support.http import HttpClient
from support.ports import free_port
from support.proxy import Sidecar, configuration

FAILED = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


def two_of_three_fail(conversation: Conversation) -> None:
    while conversation.read_request() is not None:
        conversation.send(FAILED if len(conversation.endpoint.requests) % 3 else ok())


def test_an_endpoint_that_fails_now_and_then_leaves_the_rotation(tmp_path: Path) -> None:
    port = free_port()
    good, bad = ScriptedEndpoint(respond(ok())), ScriptedEndpoint(two_of_three_fail)
    policy = "circuit_breaker: {failure_rate: 50%, min_requests: 12, window: 10s, open_for: 60s}"
    with good, bad, Sidecar(tmp_path, configuration(port, [good.port, bad.port], policy=policy)) as sidecar:
        found: Counter[int] = Counter()
        with HttpClient(port) as client:
            for _ in range(60):
                client.send_head("GET", "/")
                found[client.read_response().status] += 1
        assert len(bad.requests) in (12, 13, 14), "the first dozen decides, at a failure"
        assert found[503] in (8, 9, 10)
        _, endpoint = sidecar.upstream("api")["endpoints"]
        assert endpoint["breaker"]["state"] == "open"
        (opening,) = endpoint["breaker"]["journal"]
        assert opening["cause"] == "failure_rate"
        assert opening["window"] == {"good": len(bad.requests) - found[503], "bad": found[503]}
        name = f'sidecar_breaker_transitions_total{{cause="failure_rate",endpoint="127.0.0.1:{bad.port}"'
        assert [value for key, value in sidecar.metrics().items() if key.startswith(name)] == [1.0]


def test_what_one_endpoint_refuses_another_serves(tmp_path: Path) -> None:
    """A status of `retry_on` is not seen by the application while another endpoint has a better answer."""
    port = free_port()
    good, bad = ScriptedEndpoint(respond(ok())), ScriptedEndpoint(respond(FAILED))
    policy = (
        'retry_on: [connect, reset, timeout, "503"], per_try_timeout: 2s, retry_budget: {ratio: 50%, min: 1}'
    )
    with good, bad, Sidecar(tmp_path, configuration(port, [good.port, bad.port], policy=policy)) as sidecar:
        with HttpClient(port) as client:
            for _ in range(20):
                client.send_head("GET", "/")
                assert client.read_response().status == 200
        assert len(bad.requests) == 5, "until its breaker opened"
        assert sidecar.breaker("api", f"127.0.0.1:{bad.port}") == "open"
        name = 'sidecar_retries_total{reason="bad_response",result="succeeded",upstream="api"}'
        assert sidecar.metrics()[name] == 5
