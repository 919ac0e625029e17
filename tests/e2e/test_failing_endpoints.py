"""Endpoints that fail now and then: they leave the rotation, and what they refuse another one serves."""

import contextlib
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from support.endpoints import Conversation, ScriptedEndpoint, hang, ok, respond
from support.http import HttpClient
from support.ports import free_port
from support.proxy import Sidecar, clean_environment, command, configuration
from support.waiting import wait_until

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


def asked(sidecar: Sidecar, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What a command of a user says of the running sidecar."""
    return subprocess.run(
        [str(part) for part in command(*arguments, "--admin", f"127.0.0.1:{sidecar.admin}")],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_an_endpoint_is_taken_out_by_hand_and_put_back(tmp_path: Path, workers: int) -> None:
    port = free_port()
    one, two = ScriptedEndpoint(respond(ok(b"one"))), ScriptedEndpoint(respond(ok(b"two")))
    text = configuration(port, [one.port, two.port], sidecar=f"workers: {workers}")
    with one, two, Sidecar(tmp_path, text) as sidecar:

        def answers() -> set[bytes]:
            found = set()
            for _ in range(6):
                with HttpClient(port) as client:
                    client.send_head("GET", "/")
                    found.add(client.read_response().body)
            return found

        done = asked(sidecar, "trip", "api", f"127.0.0.1:{one.port}")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"api: 127.0.0.1:{one.port} is out of rotation until `sidecar reset`\n"
        wait_until(lambda: answers() == {b"two"}, "no request to go there")
        endpoint, _ = sidecar.upstream("api")["endpoints"]
        assert (endpoint["breaker"]["held"], endpoint["in_rotation"]) == ("hand", False)
        said = asked(sidecar, "explain", "api")
        assert (said.returncode, "tripped by hand; until `sidecar reset`" in said.stdout) == (0, True)
        assert said.stdout.count(f"127.0.0.1:{two.port} (alone in rotation)") == workers
        assert asked(sidecar, "reset", "api").returncode == 0
        wait_until(lambda: answers() == {b"one", b"two"}, "both to serve")
        assert asked(sidecar, "trip", "nobody").returncode == 1
        done = asked(sidecar, "drain", "api", f"127.0.0.1:{two.port}")
        assert (done.returncode, done.stdout) == (
            0,
            f"api: 127.0.0.1:{two.port} is drained until `sidecar enable`\n",
        )
        wait_until(lambda: answers() == {b"one"}, "no request to go there")
        assert [endpoint["drained"] for endpoint in sidecar.upstream("api")["endpoints"]] == [False, True]
        assert "drained by hand; until `sidecar enable`" in asked(sidecar, "explain", "api").stdout
        assert asked(sidecar, "enable", "api").returncode == 0
        wait_until(lambda: answers() == {b"one", b"two"}, "both to serve")


def test_with_too_few_left_all_are_used_again(tmp_path: Path) -> None:
    port = free_port()
    endpoints = [ScriptedEndpoint(respond(FAILED)) for _ in range(3)]
    policy = "circuit_breaker: {consecutive_failures: 1, open_for: 60s}"
    with contextlib.ExitStack() as stack:
        ports = [stack.enter_context(endpoint).port for endpoint in endpoints]
        sidecar = stack.enter_context(Sidecar(tmp_path, configuration(port, ports, policy=policy)))
        client = stack.enter_context(HttpClient(port))
        for _ in range(12):
            client.send_head("GET", "/")
            assert client.read_response().status == 503
        assert sum(len(endpoint.requests) for endpoint in endpoints) == 12, "it is the endpoints that say no"
        assert sidecar.metrics()['sidecar_upstream_panic{upstream="api"}'] == 1
        view = sidecar.upstream("api")
        assert view["panic"]
        assert [one["breaker"]["state"] for one in view["endpoints"]] == ["open"] * 3
        assert all(one["in_rotation"] for one in view["endpoints"])


def test_panic_can_be_to_fail_at_once(tmp_path: Path) -> None:
    port = free_port()
    one, two = ScriptedEndpoint(respond(FAILED)), ScriptedEndpoint(respond(FAILED))
    policy = (
        "circuit_breaker: {consecutive_failures: 1, open_for: 60s}, outlier: {max_ejected: 50%, panic: fail}"
    )
    with (
        one,
        two,
        Sidecar(tmp_path, configuration(port, [one.port, two.port], policy=policy)) as sidecar,
        HttpClient(port) as client,
    ):
        reasons = []
        for _ in range(5):
            client.send_head("GET", "/")
            reasons.append(client.read_response().error)
        assert reasons == [None, None, "all_open", "all_open", "all_open"]
        assert len(one.requests) + len(two.requests) == 2
        assert sidecar.metrics()['sidecar_upstream_panic{upstream="api"}'] == 1


def test_a_breaker_can_only_observe_and_count_what_is_configured(tmp_path: Path) -> None:
    port = free_port()
    broken = ScriptedEndpoint(respond(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"))
    breaker = "consecutive_failures: 2, open_for: 60s, failure_statuses: [5xx], observe_only: true"
    policy = f"circuit_breaker: {{{breaker}}}"
    with (
        broken,
        Sidecar(tmp_path, configuration(port, [broken.port], policy=policy)) as sidecar,
        HttpClient(port) as client,
    ):
        for _ in range(4):
            client.send_head("GET", "/")
            assert client.read_response().status == 500
        assert len(broken.requests) == 4
        assert sidecar.breaker("api", f"127.0.0.1:{broken.port}") == "open"


def test_a_slow_endpoint_is_outrun(tmp_path: Path) -> None:
    """Nobody waits for one that hangs longer than for a second one's answer, and it leaves the rotation."""
    port = free_port()
    good, bad = ScriptedEndpoint(respond(ok())), ScriptedEndpoint(hang)
    policy = "hedge_after: 30ms, circuit_breaker: {consecutive_failures: 5, open_for: 60s}"
    with good, bad, Sidecar(tmp_path, configuration(port, [good.port, bad.port], policy=policy)) as sidecar:
        with HttpClient(port) as client:
            for _ in range(20):
                client.send_head("GET", "/")
                assert client.read_response().status == 200
        assert sidecar.breaker("api", f"127.0.0.1:{bad.port}") == "open"
        found = sidecar.metrics()
        assert found['sidecar_hedges_total{result="won",upstream="api"}'] == 5
        outrun = f'sidecar_attempts_total{{endpoint="127.0.0.1:{bad.port}",outcome="outrun",upstream="api"}}'
        assert found[outrun] == 5
        assert found['sidecar_requests_in_flight{upstream="api"}'] == 0
