"""A pod acted out by processes: the sidecar first, then the application; and at the end the other way round.

https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.background import Background
from support.consul import ConsulAgent
from support.endpoints import ScriptedEndpoint
from support.front import Front
from support.http import HttpClient, get
from support.ports import free_port
from support.processes import Process
from support.proxy import Sidecar, clean_environment, command, configuration
from support.requirements import lacking
from support.waiting import wait_until

# Calls once; then again and again from its SIGTERM on, for as many seconds as it is told; 0 if all went well.
APPLICATION = """\
import http.client, signal, sys, time
port, seconds = int(sys.argv[1]), float(sys.argv[2])
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(time.monotonic()))
def call():
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/")
    answer = connection.getresponse()
    answer.read()
    connection.close()
    if answer.status != 200:
        sys.exit(f"status {answer.status}")
call()
print("up", flush=True)
while not asked:
    time.sleep(0.01)
while time.monotonic() < asked[0] + seconds:
    call()
    time.sleep(0.1)
call()
print("done", flush=True)
"""

# What a Job's main container does: its work, and as its last act the end of the sidecar.
JOB = """\
import http.client, sys
port, admin = int(sys.argv[1]), int(sys.argv[2])
for at, method, path in ((port, "GET", "/"), (admin, "POST", "/quitquitquit")):
    connection = http.client.HTTPConnection("127.0.0.1", at, timeout=10)
    connection.request(method, path)
    answer = connection.getresponse()
    print(answer.status, answer.read().decode(), flush=True)
    connection.close()
"""


def wait(running: Sidecar, timeout: float = 20.0) -> "subprocess.CompletedProcess[str]":
    """`sidecar wait`, as a startupProbe runs it."""
    asked = command("wait", "--metrics", f"127.0.0.1:{running.metrics_port}", "--timeout", str(timeout))
    return subprocess.run(
        asked, env=clean_environment(), capture_output=True, text=True, check=False, timeout=60
    )


def application(directory: Path, listen: int, seconds: float) -> Process:
    return Process([sys.executable, "-c", APPLICATION, str(listen), str(seconds)], directory, name="app")


@contextmanager
def up(process: Process) -> Iterator[Process]:
    """It, once it says that it is up."""
    try:
        wait_until(lambda: "up" in process.stdout or not process.running, "the application")
        assert process.running, process.stderr
        yield process
    finally:
        process.kill()


# Up


def test_the_probe_waits_for_a_sidecar_that_is_not_there_yet(tmp_path: Path) -> None:
    running = Sidecar(tmp_path, configuration(free_port(), [1]))
    done = wait(running, 0.3)
    where = f"127.0.0.1:{running.metrics_port}"
    assert done.returncode == 1
    assert done.stderr == f"sidecar: not ready at {where} within 0.3 s: nothing listens there\n"
    probe = Process(command("wait", "--metrics", where), tmp_path, clean_environment(), "probe")
    try:
        with running:
            assert probe.wait() == 0, probe.stderr
            assert wait(running).returncode == 0
    finally:
        probe.kill()


def test_ready_means_that_registries_have_spoken_or_had_their_time(tmp_path: Path) -> None:
    with Background() as background:
        agent = background.enter(ConsulAgent())
        with Front(agent.port) as front, ScriptedEndpoint() as endpoint:
            front.turn("silent")
            background.call(lambda: agent.add("late", "late-1", "127.0.0.1", endpoint.port))
            listen = free_port()
            text = configuration(listen, [endpoint.port], sidecar="registry_wait: 20").replace(
                f"{listen}: api", f"{listen}: late"
            )
            text += (
                f'external_registry: {{type: consul, host: "{front.address}"}}\n'
                "services: {late: {host: 127.0.0.1, port: 1, source: consul}}\n"
            )
            running = Sidecar(tmp_path, text)
            running.process = Process(
                command("run", "--config", running.path), tmp_path, running.environ, "sidecar"
            )
            try:
                wait_until(lambda: not is_refused(running.metrics_port), "the sidecar's metrics", 20.0)
                done = wait(running, 0.3)
                assert done.returncode == 1
                assert done.stderr.endswith(": it says that it is not ready yet\n")
                front.turn("pass")
                assert wait(running).returncode == 0
                assert get(listen, "/").status == 200
                assert running.end() == 0
            finally:
                running.process.kill()


def is_refused(port: int) -> bool:
    try:
        get(port, "/live")
    except OSError:
        return True
    return False


def test_dead_upstreams_make_no_pod_unready(tmp_path: Path) -> None:
    listen = free_port()
    with Sidecar(tmp_path, configuration(listen, [free_port(), free_port()])) as running:
        for _ in range(20):
            assert get(listen, "/").status == 503
        assert get(running.metrics_port, "/ready").status == 200
        assert wait(running).returncode == 0


# Down


@pytest.mark.parametrize("workers", [1, 2])
def test_native_sidecars_are_told_after_the_application_has_ended(tmp_path: Path, workers: int) -> None:
    listen = free_port()
    with (
        ScriptedEndpoint() as endpoint,
        Sidecar(tmp_path, configuration(listen, [endpoint.port], sidecar=f"workers: {workers}")) as running,
    ):
        assert wait(running).returncode == 0
        with up(application(tmp_path, listen, 0.5)) as app:
            app.send(signal.SIGTERM)
            assert app.wait() == 0, app.stderr
        assert running.end(seconds=3.0) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_where_both_are_told_at_once_the_application_is_served_to_its_end(
    tmp_path: Path, workers: int
) -> None:
    """As before Kubernetes 1.29: the application's last calls come after the sidecar's SIGTERM."""
    listen = free_port()
    with (
        ScriptedEndpoint() as endpoint,
        Sidecar(tmp_path, configuration(listen, [endpoint.port], sidecar=f"workers: {workers}")) as running,
        up(application(tmp_path, listen, 1.5)) as app,
    ):
        running.send(signal.SIGTERM)
        wait_until(lambda: "draining" in running.process.stderr, "the drain")
        app.send(signal.SIGTERM)
        assert app.wait() == 0, app.stderr
        assert "done" in app.stdout
        assert running.process.wait(4.0) == 0, running.process.stderr


@pytest.mark.parametrize("workers", [1, 2])
def test_a_job_ends_its_sidecar(tmp_path: Path, workers: int) -> None:
    listen = free_port()
    with (
        ScriptedEndpoint() as endpoint,
        Sidecar(tmp_path, configuration(listen, [endpoint.port], sidecar=f"workers: {workers}")) as running,
    ):
        job = Process([sys.executable, "-c", JOB, str(listen), str(running.admin)], tmp_path, name="job")
        try:
            assert job.wait() == 0, job.stderr
        finally:
            job.kill()
        assert job.stdout.splitlines() == ["200 ok", "", '200 {"result": "ending", "in_flight": 0}']
        assert running.process.wait(4.0) == 0, running.process.stderr


def test_the_command_ends_it_once_what_is_in_flight_is_answered(tmp_path: Path) -> None:
    listen = free_port()
    with (
        ScriptedEndpoint() as endpoint,
        Sidecar(tmp_path, configuration(listen, [endpoint.port])) as running,
        HttpClient(listen) as client,
    ):
        client.send_head("POST", "/", [("Content-Length", "2")])
        client.send(b"x")
        wait_until(lambda: running.metrics()['sidecar_requests_in_flight{upstream="api"}'], "the request")
        asked = command("quit", "--admin", f"127.0.0.1:{running.admin}")
        done = subprocess.run(
            asked, env=clean_environment(), capture_output=True, text=True, check=False, timeout=30
        )
        assert (done.returncode, done.stdout) == (0, "it ends, with 1 in flight to finish\n"), done.stderr
        wait_until(lambda: is_refused(listen), "its port to close")
        client.send(b"y")
        assert client.read_response().status == 200
        assert running.process.wait(4.0) == 0, running.process.stderr


# Process 1


def children(pid: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


@pytest.fixture
def unshare() -> list[str]:
    """What runs a program as process 1 of its own namespace, if that is allowed here."""
    wrapped = ["unshare", "--pid", "--fork", "--kill-child"]
    done = subprocess.run([*wrapped, "true"], capture_output=True, text=True, check=False, timeout=10)
    if done.returncode:
        lacking(f"no namespace of processes may be made here: {done.stderr.strip()}")
    return wrapped


@pytest.mark.server("unshare")
@pytest.mark.parametrize("workers", [1, 2])
def test_process_1_hears_sigterm_and_leaves_nobody_behind(
    tmp_path: Path, unshare: list[str], workers: int
) -> None:
    """The kernel gives process 1 no signal that it has not asked for."""
    listen = free_port()
    with ScriptedEndpoint() as endpoint:
        running = Sidecar(
            tmp_path, configuration(listen, [endpoint.port], sidecar=f"workers: {workers}, drain_timeout: 2")
        )
        outside = Process(
            [*unshare, *command("run", "--config", running.path)], tmp_path, running.environ, "outside"
        )
        try:
            assert wait(running).returncode == 0, outside.stderr
            (first,) = children(outside.pid)
            assert Path(f"/proc/{first}/status").read_text().split("NSpid:")[1].split()[:2][1] == "1"
            known = children(first)
            assert len(known) == (0 if workers == 1 else workers)
            if known:
                os.kill(known[0], signal.SIGKILL)
                wait_until(lambda: not state(known[0]), "the worker to be reaped")
                wait_until(lambda: len(children(first)) == workers, "another worker")
                known = children(first)
            assert get(listen, "/").status == 200
            began = time.monotonic()
            os.kill(first, signal.SIGTERM)
            assert outside.wait(10.0) == 0, outside.stderr
            assert time.monotonic() - began < 5.0
            assert [pid for pid in known if state(pid) not in ("", "Z")] == []
        finally:
            outside.kill()
