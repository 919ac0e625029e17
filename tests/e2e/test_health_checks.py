"""Active health checks: endpoints that leave the rotation on their own word, and real Redis servers."""

import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.endpoints import Conversation, ScriptedEndpoint, hang, ok
from support.http import HttpClient
from support.ports import free_port
from support.processes import Process
from support.proxy import Sidecar, clean_environment, configuration
from support.servers import Redis
from support.waiting import wait_until

QUICK = "interval: 0.2, timeout: 1"
ILL = b'HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{"status":"ill"}'
WELL = b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"status":"ok"}'


class Service:
    """An endpoint whose requests always succeed, and whose health page says what the test wants."""

    def __init__(self) -> None:
        self.well = threading.Event()
        self.well.set()
        self.endpoint = ScriptedEndpoint(self.serve)

    def serve(self, conversation: Conversation) -> None:
        while (request := conversation.read_request()) is not None:
            if request.line.startswith("GET /health "):
                conversation.send(WELL if self.well.is_set() else ILL)
            else:
                conversation.send(ok())

    @property
    def served(self) -> int:
        """Requests, without checks."""
        return sum("/health" not in request.line for request in self.endpoint.requests)

    @property
    def checks(self) -> int:
        return sum("/health" in request.line for request in self.endpoint.requests)


def endpoint_of(running: Sidecar, port: int) -> dict[str, Any]:
    found: dict[str, Any] = next(
        one for one in running.upstream("api")["endpoints"] if one["address"] == f"127.0.0.1:{port}"
    )
    return found


def call(listen: int, times: int) -> None:
    with HttpClient(listen) as client:
        for _ in range(times):
            assert client.request().status == 200


def test_an_endpoint_that_says_it_is_ill_leaves_the_rotation_and_comes_back(tmp_path: Path) -> None:
    listen, good, bad = free_port(), Service(), Service()
    policy = f"health_check: {{path: /health, {QUICK}, expect_json: {{status: ok}}}}"
    text = configuration(listen, [good.endpoint.port, bad.endpoint.port], policy=policy)
    with good.endpoint, bad.endpoint, Sidecar(tmp_path, text) as running:
        port = bad.endpoint.port
        wait_until(lambda: (endpoint_of(running, port)["check"] or {}).get("ok"), "a first good check")
        call(listen, 10)
        assert bad.served == 5

        bad.well.clear()
        wait_until(lambda: running.breaker("api", f"127.0.0.1:{port}") == "open", "it to leave")
        before = bad.served
        call(listen, 20)
        assert bad.served == before, "its requests would succeed, but it asked to be left alone"
        shown = endpoint_of(running, port)
        assert shown["check"]["ok"] is False
        assert shown["check"]["error"] == 'status is "ill", not "ok"'
        assert shown["breaker"]["held"] == "checks"
        opening = shown["breaker"]["journal"][-1]
        assert (opening["to"], opening["cause"]) == ("open", "check_failed")

        bad.well.set()
        wait_until(lambda: running.breaker("api", f"127.0.0.1:{port}") == "closed", "it to come back")
        shown = endpoint_of(running, port)
        assert shown["breaker"]["journal"][-1]["cause"] == "check_passed"
        assert shown["check"]["in_a_row"] >= 2, "`rise` of them"
        assert shown["breaker"]["held"] is None
        before = bad.served
        call(listen, 10)
        assert bad.served == before + 5

        counted = running.metrics()
        name = 'sidecar_health_checks_total{{result="{}",upstream="api"}}'
        assert counted[name.format("failure")] >= 3
        assert counted[name.format("success")] > counted[name.format("failure")]
        assert counted["sidecar_health_checks_limit"] == 128
        agents = {one.header("user-agent") for one in bad.endpoint.requests if "/health" in one.line}
        assert [agent.startswith("sidecar/") and agent.endswith(" health") for agent in agents] == [True]
    assert "fails its health checks" in running.process.stderr
    assert "passes its health checks again" in running.process.stderr


def test_one_that_is_ill_from_the_start_gets_no_request(tmp_path: Path) -> None:
    listen, good, bad = free_port(), Service(), Service()
    bad.well.clear()
    policy = "health_check: {path: /health, interval: 30, expect_body: ok}"
    text = configuration(listen, [good.endpoint.port, bad.endpoint.port], policy=policy)
    with good.endpoint, bad.endpoint, Sidecar(tmp_path, text) as running:
        address = f"127.0.0.1:{bad.endpoint.port}"
        wait_until(lambda: running.breaker("api", address) == "open", "the first check to count", 5.0)
        call(listen, 6)
        assert bad.served == 0
        assert bad.checks == 1


def test_the_seeds_table_works_as_shipped(tmp_path: Path) -> None:
    """A load balancer of a well-known name with the seed's short form."""
    listen, good, bad = free_port(), Service(), Service()
    bad.well.clear()
    text = configuration(listen, [good.endpoint.port, bad.endpoint.port], policy="health_check: /health")
    text = text.replace("  api:", "  ai-stack:").replace(": api}", ": ai-stack}")
    with good.endpoint, bad.endpoint, Sidecar(tmp_path, text) as running:
        address = f"127.0.0.1:{bad.endpoint.port}"
        wait_until(lambda: running.breaker("ai-stack", address) == "open", '{"status":"ok"} to be expected')
        assert running.breaker("ai-stack", f"127.0.0.1:{good.endpoint.port}") == "closed"


def test_a_port_that_accepts_and_one_that_does_not(tmp_path: Path) -> None:
    listen, endpoint, dead = free_port(), ScriptedEndpoint(), free_port()
    text = configuration(
        listen, [endpoint.port, dead], scheme="tcp", policy=f"health_check: {{type: tcp, {QUICK}}}"
    )
    with endpoint, Sidecar(tmp_path, text) as running:
        wait_until(lambda: running.breaker("api", f"127.0.0.1:{dead}") == "open", "the check to fail")
        assert endpoint_of(running, dead)["check"]["error"] == "connection refused"
        wait_until(lambda: (endpoint_of(running, endpoint.port)["check"] or {}).get("ok"), "a good check")
        late = ScriptedEndpoint(port=dead)
        with late:
            wait_until(lambda: running.breaker("api", f"127.0.0.1:{dead}") == "closed", "it to come back")


@pytest.mark.parametrize("kind", ["http", "tcp", "redis"])
def test_checks_leave_no_socket_behind(tmp_path: Path, kind: str) -> None:
    """Also those of an endpoint that never answers, and of one that is not there."""
    with ScriptedEndpoint(hang) as silent:
        text = configuration(
            free_port(),
            [silent.port, free_port()],
            scheme="tcp",
            policy=f"health_check: {{type: {kind}, interval: 0.1, timeout: 0.1}}",
        )
        with Sidecar(tmp_path, text) as running:
            silent.wait_for(lambda endpoint: endpoint.connections > 2, "the first checks")
            before = running.descriptors()
            silent.wait_for(lambda endpoint: endpoint.connections > 20, "many more")
            assert running.descriptors() <= before + 2, "the two that may be going on"


class Secured(Redis):
    """With a password; and of a master, if given one."""

    def __init__(self, directory: Path, password: str, master: int = 0) -> None:
        super().__init__(directory)
        self._password = password
        self._master = master

    def command(self) -> list[str | Path]:
        more: list[str | Path] = ["--requirepass", self._password, "--masterauth", self._password]
        if self._master:
            more += ["--replicaof", f"127.0.0.1 {self._master}"]
        return [*super().command(), *more]


@pytest.mark.server("redis-server")
def test_redis_with_a_password_and_a_role(tmp_path: Path) -> None:
    password = "not-to-be-seen"
    listen = free_port()
    with (
        Secured(tmp_path / "master", password) as master,
        Secured(tmp_path / "replica", password, master.port) as replica,
    ):
        policy = f"health_check: {{password_env: REDIS_SECRET, role: master, {QUICK}}}"
        text = configuration(listen, [master.port, replica.port], scheme="redis", policy=policy)
        with Sidecar(tmp_path, text, environ={"REDIS_SECRET": password}) as running:
            wait_until(lambda: running.breaker("api", f"127.0.0.1:{replica.port}") == "open", "the role")
            assert endpoint_of(running, replica.port)["check"]["error"] == "its role is replica, not master"
            wait_until(lambda: (endpoint_of(running, master.port)["check"] or {}).get("ok"), "a good check")

            master.stop()  # both are ill now
            wait_until(lambda: running.breaker("api", f"127.0.0.1:{master.port}") == "open", "it to leave")
            promote(replica.port, password)
            wait_until(
                lambda: running.breaker("api", f"127.0.0.1:{replica.port}") == "closed", "the new master"
            )
            shown = running.upstream("api")
        assert password not in str(shown)
        assert password not in running.process.stderr


def promote(port: int, password: str) -> None:
    """REPLICAOF NO ONE."""
    client = HttpClient(port)  # a socket is a socket
    with client:
        client.socket.sendall(
            f"*2\r\n$4\r\nAUTH\r\n${len(password)}\r\n{password}\r\n*3\r\n$9\r\nREPLICAOF\r\n$2\r\nNO\r\n$3\r\nONE\r\n".encode()
        )
        answer = b""
        while answer.count(b"\r\n") < 2:
            answer += client.socket.recv(4096)
        assert answer == b"+OK\r\n+OK\r\n"


@pytest.mark.server("redis-server")
def test_a_missing_password_is_told_and_takes_nobody_out(tmp_path: Path) -> None:
    with Secured(tmp_path / "redis", "x") as server:
        policy = f"health_check: {{password_env: NOT_SET, {QUICK}}}"
        text = configuration(free_port(), [server.port], scheme="redis", policy=policy)
        with Sidecar(tmp_path, text) as running:
            check = wait_until(lambda: endpoint_of(running, server.port)["check"], "a check")
            assert check["ok"] is None
            assert "NOT_SET" in check["error"]
            assert running.breaker("api", f"127.0.0.1:{server.port}") == "closed"


def test_each_worker_checks_for_itself_and_the_whole_is_shown(tmp_path: Path) -> None:
    listen, good, bad = free_port(), Service(), Service()
    bad.well.clear()
    text = configuration(
        listen,
        [good.endpoint.port, bad.endpoint.port],
        policy=f"health_check: {{path: /health, {QUICK}, expect_json: {{status: ok}}}}",
        sidecar="workers: 2",
    )
    with good.endpoint, bad.endpoint, Sidecar(tmp_path, text) as running:
        port = bad.endpoint.port
        wait_until(lambda: running.breaker("api", f"127.0.0.1:{port}") == "open", "both to know")
        shown = endpoint_of(running, port)
        assert (shown["check"]["ok"], shown["breaker"]["held"]) == (False, "checks")
        assert running.metrics()["sidecar_health_checks_limit"] == 256


@pytest.mark.parametrize("how", ["crash", "reload"])
def test_a_new_worker_sends_no_request_to_what_checks_hold_open(tmp_path: Path, how: str) -> None:
    """Its probe would succeed and bring the endpoint back for all, until checks have found it ill again."""
    listen, good, bad = free_port(), Service(), Service()
    bad.well.clear()
    text = configuration(
        listen,
        [good.endpoint.port, bad.endpoint.port],
        # The first check of a new worker comes within a second, and the open time is over long before.
        policy="circuit_breaker: {open_for: 0.01, max_open_for: 0.01}, "
        "health_check: {path: /health, interval: 30, expect_json: {status: ok}}",
        sidecar="workers: 2",
    )
    with good.endpoint, bad.endpoint, Sidecar(tmp_path, text) as running:
        wait_until(
            lambda: endpoint_of(running, bad.endpoint.port)["breaker"]["held"] == "checks", "it to be held"
        )
        wait_until(lambda: bad.checks == 2, "each worker's own check")
        before, asked, first = bad.served, bad.checks, set(workers_of(running))
        if how == "crash":
            os.kill(min(first), signal.SIGKILL)
        else:
            # Another upstream takes other workers.
            other = "services: {other: {host: 127.0.0.1, port: 1, scheme: tcp}}\n"
            running.path.write_text(other + running.path.read_text())
            running.send(signal.SIGHUP)
        new = 1 if how == "crash" else 2
        wait_until(lambda: call_anew(listen) and bad.checks == asked + new, "the new ones' checks", 20.0)
        assert bad.served == before


def call_anew(listen: int) -> bool:
    """One request over a connection of its own; a worker that dies may have had it."""
    with suppress(OSError, AssertionError), HttpClient(listen) as client:
        client.request()
    return True


def workers_of(running: Sidecar) -> list[int]:
    listing = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children").read_text()
    return [int(pid) for pid in listing.split()]


# Prints what is loaded before the process's own servers are, and ends.
LOADED = """
import os, sys
import sidecar.app
from sidecar.cli import run
async def watched(self, context):
    print(*sys.modules, flush=True)
    os._exit(0)
sidecar.app.App._serve_own = watched
run(["run", "--config", sys.argv[1]])
"""


@pytest.mark.parametrize(("policy", "loaded"), [("", False), ("health_check: /health", True)])
def test_only_what_is_checked_loads_the_checks_and_no_client_library(
    tmp_path: Path, policy: str, loaded: bool
) -> None:
    path = tmp_path / "one.yml"
    text = configuration(free_port(), [free_port()], policy=policy)
    path.write_text(text.replace("ADMIN", str(free_port())).replace("METRICS", str(free_port())))
    process = Process([sys.executable, "-c", LOADED, path], tmp_path, clean_environment(), "loaded")
    process.wait()
    modules = process.stdout.split()
    assert "sidecar.app" in modules, process.stderr
    assert ("sidecar.health.checker" in modules) is loaded
    assert "aiohttp" not in modules
