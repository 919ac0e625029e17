"""Header rules, bearer tokens and rate limits as users get them: a sidecar of a configuration file."""

import socket
from pathlib import Path

from support.endpoints import ScriptedEndpoint, ok, respond
from support.http import HttpClient, get
from support.ports import free_port
from support.proxy import Sidecar, configuration
from support.waiting import wait_until

TOKEN = "t0k3n-nobody-is-told"


def test_headers_are_set_added_and_removed(tmp_path: Path) -> None:
    port = free_port()
    rules = (
        "headers: {request: {set: {X-From: here}, add: {X-Tag: [a, b]}, remove: [Cookie]},"
        " response: {set: {Cache-Control: no-store}, remove: [Server]}}"
    )
    answer = ok(b"x" * 300_000, "Server: secret/1.0\r\nCache-Control: public\r\n")
    with ScriptedEndpoint(respond(ok(extra="Server: a\r\n"), answer)) as endpoint:
        text = configuration(port, [endpoint.port], policy=rules)
        with Sidecar(tmp_path, text), HttpClient(port) as client:
            client.send_head("GET", "/", (("X-From", "app"), ("Cookie", "a=b"), ("Accept", "*/*")))
            short = client.read_response()
            client.send_head("GET", "/long", ())
            long = client.read_response()
    received = endpoint.requests[0]
    names = [line.partition(":")[0] for line in received.headers if not line.startswith("Host")]
    assert names == ["X-From", "Accept", "X-Tag", "X-Tag"]
    assert received.header("x-from") == "here"
    for response in (short, long):
        assert (response.status, response.header("server"), response.header("cache-control")) == (
            200,
            None,
            "no-store",
        )
    assert len(long.body) == 300_000


def test_a_token_goes_with_requests_and_is_told_to_nobody(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "api.token").write_text(TOKEN + "\n")
    with ScriptedEndpoint(respond(ok(), ok())) as endpoint:
        text = configuration(port, [endpoint.port], policy="bearer_token_file: api.token")
        with Sidecar(tmp_path, text) as running:
            assert get(port).status == 200
            shown = get(running.admin, "/v1/config").text + get(running.admin, "/v1/upstreams").text
            metrics = running.metrics()
            assert running.reload().status == 200
            (tmp_path / "api.token").unlink()
            running.path.write_text(running.path.read_text().replace("api.token", "other.token"))
            refused = running.reload()
            assert get(port).status == 200
        logged = running.process.stderr
    assert [one.header("authorization") for one in endpoint.requests] == [f"Bearer {TOKEN}"] * 2
    assert metrics['sidecar_secret_loads_total{result="succeeded",upstream="api"}'] == 1
    assert "api.token" in shown
    assert refused.status >= 400
    assert "other.token (bearer_token_file): no such file or directory" in refused.text
    for told in (shown, refused.text, logged):
        assert TOKEN not in told


def test_without_its_token_a_start_says_so_in_one_line(tmp_path: Path) -> None:
    text = configuration(free_port(), [1], policy="bearer_token_env: API_TOKEN")
    running = Sidecar(tmp_path, text)
    try:
        running.start()
    except AssertionError:
        pass
    else:
        raise AssertionError("it starts")
    assert running.process.stderr.count("\n") == 1
    assert "api: the variable API_TOKEN (bearer_token_env) is not set" in running.process.stderr


def test_too_many_requests_are_429(tmp_path: Path) -> None:
    port = free_port()
    with ScriptedEndpoint(respond(*[ok()] * 10)) as endpoint:
        limit = "rate_limit: {requests: 1, per: 60, burst: 2}"
        with Sidecar(tmp_path, configuration(port, [endpoint.port], policy=limit)) as running:
            answers = [get(port) for _ in range(4)]
            metrics = running.metrics()
            explained = get(running.admin, "/v1/explain/api").json
            running.path.write_text(running.path.read_text().replace("requests: 1,", "requests: 60,"))
            assert "api: rate_limit.requests" in running.reload().text
            wait_until(lambda: get(port).status == 200, "a token of the new rate")
    assert [answer.status for answer in answers] == [200, 200, 429, 429]
    refused = answers[-1]
    assert refused.error == "rate_limited"
    assert 58 <= int(refused.header("retry-after") or 0) <= 60
    labels = 'code_class="4xx",method="GET",reason="rate_limited",upstream="api"'
    assert metrics[f"sidecar_requests_total{{{labels}}}"] == 2
    assert explained["rate_limit"] == {"requests": 1, "per": 60.0, "burst": 2}
    assert len(endpoint.requests) == 3


def test_and_sessions_are_closed(tmp_path: Path) -> None:
    port = free_port()
    with ScriptedEndpoint(respond()) as endpoint:
        limit = "rate_limit: {requests: 1, per: 60}"
        text = configuration(port, [endpoint.port], scheme="tcp", policy=limit)
        with Sidecar(tmp_path, text) as running:
            with socket.create_connection(("127.0.0.1", port), 10) as first:
                endpoint.wait_for(lambda it: it.connections == 1, "the first session")
                with socket.create_connection(("127.0.0.1", port), 10) as second:
                    assert _ended(second)
                first.shutdown(socket.SHUT_WR)
            name = 'sidecar_tcp_sessions_total{close_reason="rate_limited",upstream="api"}'
            wait_until(lambda: running.metrics()[name] == 1, "the session to be counted")
    assert endpoint.connections == 1


def _ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True
