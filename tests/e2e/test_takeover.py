"""One sidecar takes another's place by its sockets: nobody who calls notices, whatever becomes of the new one."""

import os
import signal
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.endpoints import Conversation, ScriptedEndpoint, ok
from support.http import HttpClient, get
from support.load import Load
from support.ports import free_port
from support.processes import Process
from support.proxy import configuration
from support.takeovers import Callers, Succession
from support.waiting import wait_until


def serving(
    directory: Path, listen: int, *endpoints: int, more: str = "", scheme: str = "http"
) -> Succession:
    """A sidecar that finishes within 4 s when its place is taken."""
    return Succession(
        directory, configuration(listen, endpoints, scheme=scheme, sidecar=f"drain_timeout: 4, {more}")
    )


def ended_well(*processes: Process) -> None:
    for process in processes:
        assert process.wait(20.0) == 0, process.stderr
        assert "Traceback" not in process.stderr, process.stderr


@pytest.mark.parametrize("workers", [1, 2])
def test_five_in_a_row_under_load_lose_no_request(tmp_path: Path, workers: int) -> None:
    listen = free_port()
    gone = []
    with (
        ScriptedEndpoint() as endpoint,
        serving(tmp_path, listen, endpoint.port, more=f"workers: {workers}") as running,
        Load(listen, 4) as kept_alive,
        Callers(listen, 4) as calls,
    ):
        for number in range(5):
            kept_alive.wait_for_more(20)
            calls.wait_for_more(20)
            gone.append(running.take_over(f"successor-{number}"))
            assert get(running.metrics_port, "/ready").status == 200
        kept_alive.wait_for_more(20)
        calls.wait_for_more(20)
        kept_alive.end()
        ended_well(*gone)
    assert kept_alive.errors == calls.errors == []
    assert set(kept_alive.statuses) == {200}
    assert kept_alive.reconnects >= 5, "they were told to come back, by Connection: close"


def test_nobody_is_told_that_it_is_not_ready_nor_refused_at_its_own_addresses(tmp_path: Path) -> None:
    with ScriptedEndpoint() as endpoint, serving(tmp_path, free_port(), endpoint.port) as running:
        after = running.begin("successor")
        seen = set()

        def taken() -> bool:
            seen.add(get(running.metrics_port, "/ready").status)
            seen.add(get(running.admin, "/upstreams").status)
            return not running.process.running

        wait_until(taken, "the end of the old one", 20.0)
        ended_well(running.follow(after))
        assert seen == {200}


def echo(conversation: Conversation) -> None:
    while piece := conversation.socket.recv(4096):
        conversation.socket.sendall(piece)


@pytest.mark.parametrize("workers", [1, 2])
def test_sessions_go_on_until_the_old_ones_drain_time_is_over(tmp_path: Path, workers: int) -> None:
    listen = free_port()
    with (
        ScriptedEndpoint(echo) as endpoint,
        serving(tmp_path, listen, endpoint.port, scheme="tcp", more=f"workers: {workers}") as running,
        socket.create_connection(("127.0.0.1", listen), timeout=10.0) as session,
    ):
        session.sendall(b"before")
        assert session.recv(100) == b"before"
        before = running.take_over("successor")
        session.sendall(b"during")
        assert session.recv(100) == b"during"
        with socket.create_connection(("127.0.0.1", listen), timeout=10.0) as other:
            other.sendall(b"after")
            assert other.recv(100) == b"after"
        assert before.running
        with pytest.raises(ConnectionResetError):  # at the end of the drain time
            session.recv(100)
        ended_well(before)


def test_what_is_in_flight_is_finished_by_the_one_that_has_it(tmp_path: Path) -> None:
    listen = free_port()
    may_answer = tmp_path / "may-answer"

    def slowly(conversation: Conversation) -> None:
        while conversation.read_request() is not None:
            wait_until(may_answer.exists, "leave to answer")
            conversation.send(ok(b"late"))

    with (
        ScriptedEndpoint(slowly) as endpoint,
        serving(tmp_path, listen, endpoint.port) as running,
        HttpClient(listen) as client,
    ):
        client.send_head("GET", "/")
        wait_until(lambda: endpoint.requests, "the request at the endpoint")
        before = running.take_over("successor")
        may_answer.touch()
        answer = client.read_response()
        assert (answer.text, answer.header("connection")) == ("late", "close")
        ended_well(before)


def test_who_waits_in_the_queue_is_served_by_the_new_one(tmp_path: Path) -> None:
    """With one process stopped, whoever connects waits in the kernel; SO_REUSEPORT would lose them."""
    listen = free_port()
    with (
        ScriptedEndpoint() as endpoint,
        serving(tmp_path, listen, endpoint.port) as running,
        ExitStack() as stack,
    ):
        after = running.begin("successor")
        wait_until(lambda: "asks for the sockets" in running.process.stderr, "the question", 20.0)
        os.kill(running.process.pid, signal.SIGSTOP)
        try:
            waiting = [stack.enter_context(HttpClient(listen)) for _ in range(20)]
        finally:
            os.kill(running.process.pid, signal.SIGCONT)
        assert [client.request().status for client in waiting] == [200] * 20
        before = running.follow(after)
        for client in waiting:
            client.close()
        ended_well(before)


def test_other_ports_close_and_open(tmp_path: Path) -> None:
    stays, goes, comes = free_port(), free_port(), free_port()
    with ScriptedEndpoint() as endpoint:
        text = (
            "load_balancers:\n"
            f'  api: {{hosts: ["127.0.0.1:{endpoint.port}"]}}\n'
            f'  other: {{hosts: ["127.0.0.1:{endpoint.port}"]}}\n'
            'sidecar: {bind: [127.0.0.1], admin: "127.0.0.1:ADMIN", metrics: "127.0.0.1:METRICS", drain_timeout: 2, '
        )
        with Succession(tmp_path, text + f"ports: {{{stays}: api, {goes}: other}}}}\n") as running:
            path = tmp_path / "another.yml"
            path.write_text(running.path.read_text().replace(f"{goes}: other", f"{comes}: other"))
            before = running.take_over("successor", path)
            ended_well(before)
            assert get(stays, "/").status == get(comes, "/").status == 200
            with pytest.raises(ConnectionRefusedError):
                get(goes, "/")


def test_nobody_to_take_over_from_is_a_usual_start(tmp_path: Path) -> None:
    listen = free_port()
    with (
        ScriptedEndpoint() as endpoint,
        Succession(tmp_path, configuration(listen, [endpoint.port]), arguments=("--takeover",)) as running,
    ):
        assert get(listen, "/").status == 200
        expected = f"there is no sidecar to take over from at 127.0.0.1:{running.admin}; starting as usual"
        assert expected in running.process.stderr


@pytest.mark.parametrize("workers", [1, 2])
def test_systemd_hears_who_the_service_is_and_of_one_end_alone(tmp_path: Path, workers: int) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, ScriptedEndpoint() as endpoint:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10.0)

        def hear() -> list[str]:
            return manager.recv(4096).decode().splitlines()

        text = configuration(free_port(), [endpoint.port], sidecar=f"drain_timeout: 4, workers: {workers}")
        environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "60000000"}
        with Succession(tmp_path, text, environ=environ) as running:
            assert hear() == ["WATCHDOG=1"]
            assert hear() == ["READY=1", f"STATUS=1 upstream, admin at 127.0.0.1:{running.admin}"]
            running.send(signal.SIGHUP)
            assert hear()[0] == "RELOADING=1"
            assert hear() == ["READY=1", "STATUS=configuration unchanged"]
            del running.environ["WATCHDOG_USEC"]  # systemd tells it to what it starts as the service
            ended_well(running.take_over("successor"))
            assert hear() == ["WATCHDOG=1"]
            assert hear()[2] == f"MAINPID={running.process.pid}"
            running.send(signal.SIGTERM)
            assert hear() == ["STOPPING=1", "STATUS=draining"]
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            hear()


# What fails changes nothing


def refused(running: Succession, name: str, path: Path) -> str:
    process = running.begin(name, path)
    assert process.wait(20.0) == 2, process.stderr
    lines = [line for line in process.stderr.splitlines() if line.startswith("sidecar: ")]
    assert len(lines) == 1, process.stderr
    assert "Traceback" not in process.stderr
    return lines[0]


def test_another_number_of_workers_and_a_port_that_is_taken_are_refused(tmp_path: Path) -> None:
    listen = free_port()
    with (
        ScriptedEndpoint() as endpoint,
        serving(tmp_path, listen, endpoint.port) as running,
        Callers(listen, 2) as calls,
        socket.create_server(("127.0.0.1", 0)) as taken,
    ):
        path = tmp_path / "another.yml"
        path.write_text(running.path.read_text().replace("drain_timeout: 4", "workers: 2"))
        said = refused(running, "other-workers", path)
        assert "it has sidecar.workers: 1, and the new one 2; give it the same number" in said
        port = taken.getsockname()[1]
        more = f"services: {{other: {{host: 127.0.0.1, port: 1, scheme: tcp}}}}\n{running.path.read_text()}"
        path.write_text(more.replace(f"{listen}: api", f"{listen}: api, {port}: other"))
        assert f"cannot listen on 127.0.0.1:{port} for other" in refused(running, "taken-port", path)
        calls.wait_for_more(20)
        ended_well(running.take_over("successor"))
    assert calls.errors == []


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("moment", ["asks for the sockets", "its registry is asked"])
def test_a_new_one_that_is_killed_leaves_the_old_one_serving(
    tmp_path: Path, workers: int, moment: str
) -> None:
    """Its registry does not answer, so that it is not ready for five seconds."""
    listen = free_port()
    with (
        ScriptedEndpoint() as endpoint,
        serving(tmp_path, listen, endpoint.port, more=f"workers: {workers}") as running,
        socket.create_server(("127.0.0.1", 0)) as silent,
        Callers(listen, 2) as calls,
    ):
        path = tmp_path / "another.yml"
        path.write_text(
            running.path.read_text()
            + f'external_registry: {{type: consul, host: "127.0.0.1:{silent.getsockname()[1]}"}}\n'
            + "services: {late: {host: 127.0.0.1, port: 1, source: consul}}\n"
        )
        after = running.begin("successor", path)
        wait_until(lambda: "asks for the sockets" in running.process.stderr, "the question", 20.0)
        if moment != "asks for the sockets":
            silent.settimeout(10.0)
            silent.accept()[0].close()  # it has come as far as asking its registry
        answer = running.reload()
        assert (answer.status, answer.json["findings"]) == (
            409,
            ["not reloading: another process is taking over"],
        )
        assert "another process is taking over just now" in refused(running, "second", running.path)
        after.kill()
        wait_until(lambda: "has ended before it was ready" in running.process.stderr, "the old one's word")
        assert running.reload().status == 200
        calls.wait_for_more(20)
        assert get(running.metrics_port, "/ready").status == 200
        ended_well(running.take_over("next"))
        calls.wait_for_more(20)
    assert calls.errors == []


@pytest.mark.parametrize("workers", [1, 2])
def test_one_that_is_killed_when_it_has_all_but_the_last_word_has_taken_nobodys_connection(
    tmp_path: Path, workers: int
) -> None:
    """The old one is stopped just then, so that it cannot hear that the new one is ready."""
    listen = free_port()
    with (
        ScriptedEndpoint() as endpoint,
        serving(tmp_path, listen, endpoint.port, more=f"workers: {workers}") as running,
        socket.create_server(("127.0.0.1", 0)) as silent,
        ExitStack() as stack,
    ):
        path = tmp_path / "another.yml"
        path.write_text(
            running.path.read_text().replace("drain_timeout: 4", "drain_timeout: 4, registry_wait: 1")
            + f'external_registry: {{type: consul, host: "127.0.0.1:{silent.getsockname()[1]}"}}\n'
            + "services: {late: {host: 127.0.0.1, port: 1, source: consul}}\n"
        )
        after = running.begin("successor", path)
        silent.settimeout(20.0)
        silent.accept()[0].close()
        os.kill(running.process.pid, signal.SIGSTOP)
        try:
            waiting = [stack.enter_context(HttpClient(listen)) for _ in range(20)]
            wait_until(lambda: "is asked to leave" in after.stderr, "its word", 20.0)
            after.kill()
        finally:
            os.kill(running.process.pid, signal.SIGCONT)
        assert [client.request().status for client in waiting] == [200] * 20
        assert get(running.metrics_port, "/ready").status == 200
        wait_until(lambda: "has ended before it was ready" in running.process.stderr, "the old one's word")


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_to_a_new_one_that_is_not_ready_ends_it_alone(tmp_path: Path, workers: int) -> None:
    listen = free_port()
    with (
        ScriptedEndpoint() as endpoint,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        serving(tmp_path, listen, endpoint.port, more=f"workers: {workers}") as running,
        socket.create_server(("127.0.0.1", 0)) as silent,
    ):
        manager.bind(str(tmp_path / "notify"))
        running.environ["NOTIFY_SOCKET"] = manager.getsockname()
        path = tmp_path / "another.yml"
        path.write_text(
            running.path.read_text()
            + f'external_registry: {{type: consul, host: "127.0.0.1:{silent.getsockname()[1]}"}}\n'
            + "services: {late: {host: 127.0.0.1, port: 1, source: consul}}\n"
        )
        after = running.begin("successor", path)
        silent.settimeout(20.0)
        silent.accept()[0].close()
        after.send(signal.SIGTERM)
        assert after.wait(10.0) == 0, after.stderr
        # Beside the old one it would answer for it, and that it is not ready.
        assert "metrics: http" not in after.stderr
        assert running.process.running
        assert get(listen, "/").status == 200
        assert get(running.metrics_port, "/ready").status == 200
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):  # the service does not end
            manager.recv(4096)
