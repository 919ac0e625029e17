"""A bearer token that is renewed under traffic, in one process and in several; and a limit that workers share."""

from pathlib import Path

import pytest
from support.endpoints import ScriptedEndpoint, ok, respond
from support.http import HttpClient, get
from support.ports import free_port
from support.proxy import Sidecar, configuration
from support.waiting import wait_until

MANY = 5000  # answers: enough for all that is asked until the token is another one


@pytest.mark.parametrize("workers", [1, 2])
def test_no_request_fails_and_the_new_one_comes(tmp_path: Path, workers: int) -> None:
    port = free_port()
    token = tmp_path / "api.token"
    token.write_text("old")
    with ScriptedEndpoint(respond(*[ok()] * MANY)) as endpoint:
        text = configuration(
            port, [endpoint.port], policy="bearer_token_file: api.token", sidecar=f"workers: {workers}"
        )
        with Sidecar(tmp_path, text) as running:
            clients = [HttpClient(port) for _ in range(4 * workers)]
            (tmp_path / "next").write_text("new")
            (tmp_path / "next").replace(token)

            def all_new() -> bool:
                seen = len(endpoint.requests)
                for client in clients:
                    client.send_head("GET", "/", ())
                    assert client.read_response().status == 200
                fresh = [one.header("authorization") for one in endpoint.requests[seen:]]
                assert set(fresh) <= {"Bearer old", "Bearer new"}
                return set(fresh) == {"Bearer new"}

            wait_until(all_new, "the new token from everybody", 15.0)
            name = 'sidecar_secret_loads_total{result="succeeded",upstream="api"}'
            wait_until(lambda: running.metrics()[name] == 2 * workers, "all loads to be counted")
            for client in clients:
                client.close()
        assert running.process.stderr.count("api: the bearer token is renewed") == workers


def test_workers_have_a_share_each(tmp_path: Path) -> None:
    port = free_port()
    with ScriptedEndpoint(respond(*[ok()] * 40)) as endpoint:
        limit = (
            "rate_limit: {requests: 4, per: 3600, burst: 10},"
            " headers: {request: {add: {X-A: [b, c]}, remove: Accept}}"
        )
        text = configuration(port, [endpoint.port], policy=limit, sidecar="workers: 2")
        with Sidecar(tmp_path, text):
            statuses = [get(port).status for _ in range(40)]
    assert set(statuses) == {200, 429}
    assert statuses.count(200) <= 10, "both together"
    assert len(endpoint.requests) == statuses.count(200)
    assert all(one.headers.count("X-A: b") == one.headers.count("X-A: c") == 1 for one in endpoint.requests)


def test_workers_that_would_have_no_token_are_not_started(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "api.token").write_text("old")
    with ScriptedEndpoint(respond(ok(), ok())) as endpoint:
        text = configuration(
            port, [endpoint.port], policy="bearer_token_file: api.token", sidecar="workers: 2"
        )
        with Sidecar(tmp_path, text) as running:
            assert get(port).status == 200
            running.path.write_text(running.path.read_text().replace("api.token", "none.token"))
            assert "none.token (bearer_token_file)" in running.reload().text
            assert get(port).status == 200
            assert running.metrics()["sidecar_worker_restarts_total"] == 0
