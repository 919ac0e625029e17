"""Several worker processes behind the same ports: as one sidecar to whoever uses it, stops it or asks it."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from support.endpoints import Conversation, ScriptedEndpoint, ok, respond
from support.http import HttpClient, get
from support.load import Load
from support.ports import free_port
from support.processes import Process
from support.proxy import Sidecar, clean_environment, command, configuration
from support.waiting import wait_until

FAST_BREAKER = (
    "circuit_breaker: {consecutive_failures: 3, open_for: 1, max_open_for: 1}, connect_timeout: 0.5"
)


# Another upstream, be it that nobody connects to it.
ANOTHER = "services: {other: {host: 127.0.0.1, port: 1, scheme: tcp}}\n"


def two_workers(listen: int, *endpoints: int, policy: str = "", more: str = "") -> str:
    """One upstream, two workers."""
    return configuration(listen, endpoints, policy=policy, sidecar=f"workers: 2, {more}")


def workers_of(running: Sidecar) -> list[int]:
    """The worker processes, oldest first."""
    listing = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children").read_text()
    return [int(pid) for pid in listing.split()]


def gone(pid: int) -> bool:
    """Whether that process has ended, be it that nobody has reaped it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def clients_of(pid: int, port: int) -> set[int]:
    """The client ports of the connections to 127.0.0.1:`port` that this process has accepted."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(link.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[len("socket:[") : -1])
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "01" and fields[9] in inodes and int(fields[1].partition(":")[2], 16) == port:
            found.add(int(fields[2].partition(":")[2], 16))
    return found


@contextmanager
def one_client_of_each(running: Sidecar, listen: int) -> Iterator[list[HttpClient]]:
    """A connection to each worker, in the order of `workers_of`."""
    pids = workers_of(running)
    with ExitStack() as stack:
        chosen: dict[int, HttpClient] = {}
        for _ in range(200):  # the kernel deals them out by chance
            client = stack.enter_context(HttpClient(listen))
            port = client.socket.getsockname()[1]
            pid = wait_until(
                lambda port=port: next((pid for pid in pids if port in clients_of(pid, listen)), 0),
                "a worker that accepts",
            )
            chosen.setdefault(pid, client)
            if len(chosen) == len(pids):
                yield [chosen[pid] for pid in pids]
                return
        raise AssertionError("one worker takes no connections")


def total(running: Sidecar) -> float:
    """Requests that /metrics knows of."""
    return sum(
        value for name, value in running.metrics().items() if name.startswith("sidecar_requests_total{")
    )


def moves(running: Sidecar, to: str, address: str) -> dict[str, float]:
    """How often which cause has moved that endpoint's breaker there."""
    ending = f',endpoint="{address}",to="{to}",upstream="api"}}'
    found = {}
    for name, value in running.metrics().items():
        if name.startswith('sidecar_breaker_transitions_total{cause="') and name.endswith(ending):
            found[name.split('"')[1]] = value
    return found


def ready(running: Sidecar) -> bool:
    return get(running.metrics_port, "/ready").status == 200


def reloaded(running: Sidecar, result: str = "success") -> bool:
    return running.metrics()[f'sidecar_config_reloads_total{{result="{result}"}}'] == 1


# Serving together


def test_both_take_traffic_and_answer_as_one(tmp_path: Path) -> None:
    listen = free_port()
    with ScriptedEndpoint() as endpoint, Sidecar(tmp_path, two_workers(listen, endpoint.port)) as running:
        with one_client_of_each(running, listen) as clients:
            for client in clients * 5:
                assert client.request().status == 200
            found = running.metrics()
            assert total(running) == 10
            assert found["sidecar_workers"] == found["sidecar_workers_limit"] == 2
            assert found["sidecar_workers_silent"] == found["sidecar_worker_restarts_total"] == 0
            assert found["sidecar_clients"] >= 2
            assert found["sidecar_clients_limit"] == 2 * 16384
            assert found['sidecar_connections_limit{upstream="api"}'] == 2 * 1024
            assert found[f'sidecar_connections_active{{endpoint="{endpoint.address}",upstream="api"}}'] == 2
        view = get(running.admin, "/upstreams").json
        assert view["workers"] == {"configured": 2, "running": 2, "leaving": 0, "silent": 0, "restarts": 0}
        assert view["started_at"] == get(running.admin, "/upstreams").json["started_at"] < view["at"]
        assert running.upstream("api")["requests"]["total"] == 10
        done = subprocess.run(
            [str(part) for part in command("status", "--admin", f"127.0.0.1:{running.admin}")],
            env=clean_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "together: 2 of 2 workers" in done.stdout


def test_a_failing_endpoint_trips_once_for_all_and_closes_for_all(tmp_path: Path) -> None:
    listen, bad = free_port(), free_port()
    policy = FAST_BREAKER + ", retries: 0, outlier: {panic: fail}"
    text = two_workers(listen, bad, free_port(), policy=policy)
    address = f"127.0.0.1:{bad}"
    with Sidecar(tmp_path, text) as running, one_client_of_each(running, listen) as (one, two):
        while "consecutive_failures" not in moves(running, "open", address):
            one.request()
        wait_until(lambda: "shared" in moves(running, "open", address), "the other worker's opens too")
        assert moves(running, "open", address) == {"consecutive_failures": 1, "shared": 1}
        with ScriptedEndpoint(port=bad):
            wait_until(lambda: two.request().status == 200, "the probe of the other worker")
            wait_until(lambda: running.breaker("api", address) == "closed", "all are closed again")
            closed = moves(running, "closed", address)
            assert sum(closed.values()) == 2
            assert closed["shared"] == 1
            assert one.request().status == 200
        journal = next(
            entry for entry in running.upstream("api")["endpoints"] if entry["address"] == address
        )["breaker"]["journal"]
        causes = [entry["cause"] for entry in journal]
        assert (causes[0], causes[-1]) == ("consecutive_failures", "probe_succeeded")
        assert "shared" not in causes


def test_a_silent_worker_is_told_of_and_its_counts_stay(tmp_path: Path) -> None:
    listen = free_port()
    with ScriptedEndpoint() as endpoint, Sidecar(tmp_path, two_workers(listen, endpoint.port)) as running:
        with one_client_of_each(running, listen) as clients:
            for client in clients:
                assert client.request().status == 200
        assert total(running) == 2
        stopped = workers_of(running)[0]
        os.kill(stopped, signal.SIGSTOP)
        assert running.metrics()["sidecar_workers_silent"] == 1
        assert total(running) == 2
        os.kill(stopped, signal.SIGCONT)
        wait_until(lambda: running.metrics()["sidecar_workers_silent"] == 0, "it answers again")


# Dying


def test_a_killed_worker_takes_only_its_own_requests_with_it(tmp_path: Path) -> None:
    listen = free_port()
    with ScriptedEndpoint() as endpoint, Sidecar(tmp_path, two_workers(listen, endpoint.port)) as running:
        with Load(listen, 20) as load:
            load.wait_for_more(200)
            victim = max(workers_of(running), key=lambda pid: len(clients_of(pid, listen)))
            lost = len(clients_of(victim, listen))
            assert lost
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda: running.metrics()["sidecar_worker_restarts_total"] == 1, "a restart")
            wait_until(lambda: ready(running), "two workers again")
            goal = load.answered + 200
            if lost < 20:
                wait_until(lambda: load.answered > goal, "the other worker's clients go on")
        assert len(load.errors) <= lost
        assert set(load.statuses) == {200}
        assert victim not in workers_of(running)
        with one_client_of_each(running, listen) as clients:
            assert [client.request().status for client in clients] == [200, 200]
        assert f"(pid {victim}) was ended by SIGKILL; starting another" in running.process.stderr


def test_connections_in_the_queue_of_a_killed_worker_wait_for_the_next(tmp_path: Path) -> None:
    listen = free_port()
    with ScriptedEndpoint() as endpoint, Sidecar(tmp_path, two_workers(listen, endpoint.port)) as running:
        victim, other = workers_of(running)
        os.kill(victim, signal.SIGSTOP)
        with ExitStack() as stack:
            clients = [stack.enter_context(HttpClient(listen)) for _ in range(40)]
            for client in clients:
                client.send_head("GET", "/")
            accepted = wait_until(lambda: clients_of(other, listen), "what the other worker accepts")
            assert len(accepted) < 40, "none has to wait"
            os.kill(victim, signal.SIGKILL)
            assert {client.read_response().status for client in clients} == {200}


def test_totals_never_go_down_and_are_what_was_sent(tmp_path: Path) -> None:
    listen = free_port()
    with ScriptedEndpoint() as endpoint, Sidecar(tmp_path, two_workers(listen, endpoint.port)) as running:
        seen = [0.0]

        def look() -> float:
            seen.append(total(running))
            assert seen[-1] >= seen[-2], seen
            return seen[-1]

        with one_client_of_each(running, listen) as clients:
            for client in clients * 10:
                client.request()
        assert look() == 20
        os.kill(workers_of(running)[0], signal.SIGKILL)
        wait_until(lambda: look() >= 20 and running.metrics()["sidecar_worker_restarts_total"], "a death")
        wait_until(lambda: look() and ready(running), "a restart")
        with one_client_of_each(running, listen) as clients:
            for client in clients * 10:
                client.request()
        assert look() == 40
        running.path.write_text(ANOTHER + running.path.read_text())  # which takes other workers
        running.send(signal.SIGHUP)
        wait_until(lambda: look() >= 40 and reloaded(running), "a reload")
        wait_until(
            lambda: look() >= 40 and not running.metrics()["sidecar_workers_leaving"], "those before end"
        )
        with one_client_of_each(running, listen) as clients:
            for client in clients * 10:
                client.request()
        assert look() == 60


def test_no_worker_outlives_its_supervisor(tmp_path: Path) -> None:
    listen = free_port()
    with ScriptedEndpoint() as endpoint:
        running = Sidecar(tmp_path, two_workers(listen, endpoint.port))
        running.start()
        try:
            pids = workers_of(running)
            with one_client_of_each(running, listen) as clients:
                os.kill(running.process.pid, signal.SIGKILL)
                assert [client.request().status for client in clients] == [200, 200], "they drain"
            for pid in pids:
                wait_until(lambda pid=pid: gone(pid), f"the end of worker {pid}")
        finally:
            running.process.kill()
        assert "Traceback" not in running.process.stderr


# Ending


@pytest.mark.parametrize("end", ["SIGTERM", "SIGINT", "SIGINT to all"])
def test_requests_in_flight_are_finished(tmp_path: Path, end: str) -> None:
    listen = free_port()

    def held(conversation: Conversation) -> None:
        while conversation.read_request() is not None:
            conversation.endpoint.released.wait()
            conversation.send(ok())

    with ScriptedEndpoint(held) as endpoint, Sidecar(tmp_path, two_workers(listen, endpoint.port)) as running:
        pids = workers_of(running)
        with one_client_of_each(running, listen) as clients:
            for client in clients:
                client.send_head("GET", "/")
            endpoint.wait_for(lambda endpoint: len(endpoint.requests) == 2, "both requests")
            if end == "SIGINT to all":  # as a terminal's Ctrl-C
                os.killpg(running.process.pid, signal.SIGINT)
            else:
                running.send(signal.Signals[end])
            wait_until(lambda: not ready(running), "it drains")
            endpoint.released.set()
            assert [client.read_response().status for client in clients] == [200, 200]
        assert running.process.wait() == 0
        assert all(gone(pid) for pid in pids)


def test_traffic_until_the_end_loses_nothing(tmp_path: Path) -> None:
    listen = free_port()
    with ScriptedEndpoint() as endpoint, Sidecar(tmp_path, two_workers(listen, endpoint.port)) as running:
        with Load(listen, 10) as load:
            load.wait_for_more(100)
            running.send(signal.SIGTERM)
            load.wait_for(lambda load: load.reconnects >= 20, "connections close and come again")
        assert running.process.wait() == 0
        assert not load.errors
        assert load.sent == load.answered


def test_a_third_signal_ends_it_at_once(tmp_path: Path) -> None:
    listen = free_port()
    with (
        ScriptedEndpoint(Conversation.hang) as endpoint,
        Sidecar(tmp_path, two_workers(listen, endpoint.port)) as running,
        one_client_of_each(running, listen) as (one, _),
    ):
        one.send_head("GET", "/")
        endpoint.wait_for(lambda endpoint: endpoint.connections == 1, "the request")
        for stage in ("draining", "finishing", "ending at once"):
            running.send(signal.SIGTERM)
            wait_until(lambda stage=stage: stage in running.process.stderr, stage)
        assert running.process.wait() == 0


def test_a_worker_that_does_not_end_is_ended(tmp_path: Path) -> None:
    listen = free_port()
    text = two_workers(listen, free_port(), more="drain_timeout: 0.2")
    with Sidecar(tmp_path, text) as running:
        stuck = workers_of(running)[0]
        os.kill(stuck, signal.SIGSTOP)
        assert running.end() == 0
        assert gone(stuck)
        assert "1 of the workers do not end by themselves: killed" in running.process.stderr


# Reading the configuration again


@pytest.mark.parametrize("replaced", [False, True])
def test_a_reload_under_traffic_loses_nothing_and_changes_the_endpoints(
    tmp_path: Path, replaced: bool
) -> None:
    listen = free_port()
    with (
        ScriptedEndpoint(respond(ok(b"one\n"))) as one,
        ScriptedEndpoint(respond(ok(b"two\n"))) as two,
        Sidecar(tmp_path, two_workers(listen, one.port)) as running,
    ):
        before = workers_of(running)
        with Load(listen, 20) as load:
            load.wait_for_more(200)
            text = running.path.read_text()
            if replaced:
                text = ANOTHER + text
            running.path.write_text(text.replace(str(one.port), str(two.port)))
            running.send(signal.SIGHUP)
            load.wait_for(lambda load: load.bodies["two"] > 200, "answers of the new endpoint")
            for pid in before if replaced else ():
                wait_until(lambda pid=pid: gone(pid), f"the end of worker {pid}")
        assert replaced or workers_of(running) == before
        assert replaced or not load.reconnects
        assert not load.errors
        assert load.sent == load.answered
        assert set(load.bodies) == {"one", "two"}
        assert set(load.statuses) == {200}
        assert total(running) == load.sent
        assert [entry["address"] for entry in running.upstream("api")["endpoints"]] == [two.address]
        assert ready(running)
        assert "reloaded" in running.process.stderr


def test_a_bad_file_changes_nothing(tmp_path: Path) -> None:
    listen = free_port()
    with ScriptedEndpoint() as endpoint, Sidecar(tmp_path, two_workers(listen, endpoint.port)) as running:
        before = workers_of(running)
        running.path.write_text("load_balancers: {api: {hots: []}}\n")
        running.send(signal.SIGHUP)
        wait_until(lambda: reloaded(running, "failure"), "a refusal")
        assert running.metrics()["sidecar_config_last_reload_success"] == 0
        assert workers_of(running) == before
        assert get(listen).status == 200
        assert "did you mean `hosts`" in running.process.stderr
        assert "not reloaded" in running.process.stderr


def test_a_reload_opens_and_closes_ports_and_says_what_stays(tmp_path: Path) -> None:
    listen, other, taken = free_port(), free_port(), free_port()
    with ScriptedEndpoint() as endpoint, Sidecar(tmp_path, two_workers(listen, endpoint.port)) as running:
        text = running.path.read_text()
        with socket.create_server(("127.0.0.1", taken)):
            running.path.write_text(text.replace(f"{{{listen}: api}}", f"{{{taken}: api}}"))
            running.send(signal.SIGHUP)
            wait_until(lambda: reloaded(running, "failure"), "a refusal")
        assert f"cannot listen on 127.0.0.1:{taken} for api: address already in use" in running.process.stderr
        assert get(listen).status == 200
        changed = text.replace(f"{{{listen}: api}}", f"{{{other}: api}}").replace("workers: 2", "workers: 3")
        running.path.write_text(changed.replace(f"127.0.0.1:{running.admin}", f"127.0.0.1:{free_port()}"))
        running.send(signal.SIGHUP)
        wait_until(lambda: reloaded(running), "a reload")
        assert get(other).status == 200
        wait_until(lambda: not running.metrics()["sidecar_workers_leaving"], "those before end")
        with pytest.raises(ConnectionRefusedError):
            get(listen)
        assert "sidecar.workers stays 2" in running.process.stderr
        assert f"sidecar.admin stays 127.0.0.1:{running.admin}" in running.process.stderr


def test_workers_keep_what_they_have_where_the_listeners_stay(tmp_path: Path) -> None:
    listen, bad = free_port(), free_port()
    policy = "circuit_breaker: {consecutive_failures: 1, open_for: 60, max_open_for: 60}, retries: 0, idle_timeout: 60"
    text = two_workers(listen, bad, policy=policy)
    with Sidecar(tmp_path, text) as running, one_client_of_each(running, listen) as (one, two):
        assert one.request().status >= 500
        wait_until(
            lambda: "shared" in moves(running, "open", f"127.0.0.1:{bad}"), "the other worker's opens too"
        )
        before = workers_of(running)
        with ScriptedEndpoint() as endpoint:
            hosts = f'"127.0.0.1:{bad}", "127.0.0.1:{endpoint.port}"'
            text = running.path.read_text().replace(f'"127.0.0.1:{bad}"', hosts)
            running.path.write_text(text)
            answer = running.reload()
            assert (answer.status, answer.json) == (
                200,
                {"result": "reloaded", "changes": ["api: endpoints"]},
            )
            assert [client.request().status for client in (one, two) * 3] == [200] * 6
            running.path.write_text(text.replace("retries: 0", "retries: 5"))
            assert running.reload().json["changes"] == ["api: retries"]
            assert [client.request().status for client in (one, two) * 3] == [200] * 6
            assert endpoint.connections == 2, "one of each worker"
            assert running.reload().json == {"result": "unchanged", "changes": []}
        assert running.breaker("api", f"127.0.0.1:{bad}") == "open"
        assert workers_of(running) == before
        assert running.metrics()["sidecar_worker_restarts_total"] == 0


def test_many_reloads_in_place_are_noticed_by_nobody(tmp_path: Path) -> None:
    listen = free_port()
    with (
        ScriptedEndpoint() as one,
        ScriptedEndpoint() as two,
        Sidecar(tmp_path, two_workers(listen, one.port)) as running,
    ):
        before = workers_of(running)
        texts = [
            running.path.read_text(),
            running.path.read_text()
            .replace(str(one.port), str(two.port))
            .replace("workers", "zone: a, workers"),
        ]
        with Load(listen, 8) as load:
            for turn in range(1, 31):
                running.path.write_text(texts[turn % 2])
                assert running.reload().json["changes"] == ["api: endpoints", "sidecar.zone"]
            load.wait_for_more(100)
        assert not load.errors
        assert (set(load.statuses), load.reconnects) == ({200}, 0)
        assert workers_of(running) == before
        assert total(running) == load.sent


# Starting wrongly


def test_a_taken_port_is_refused_also_when_another_would_share_it(tmp_path: Path) -> None:
    listen = free_port()
    text = two_workers(listen, free_port())
    (tmp_path / "second").mkdir()
    with Sidecar(tmp_path, text):
        path = tmp_path / "second" / "sidecar.yml"
        path.write_text(text.replace("ADMIN", str(free_port())).replace("METRICS", str(free_port())))
        second = Process(command("run", "--config", path), tmp_path / "second", clean_environment())
        assert second.wait() == 2
        assert second.stderr == (
            f"sidecar: cannot listen on 127.0.0.1:{listen} for api: address already in use; "
            "stop what listens there, or give the upstream another port under sidecar.ports\n"
        )


@pytest.mark.parametrize("argument", ["", "0", "99", "x"])
def test_a_worker_is_nothing_to_start_by_hand(tmp_path: Path, argument: str) -> None:
    started = Process(command("worker", *([argument] if argument else [])), tmp_path, clean_environment())
    assert started.wait() == 2
    assert len(started.stderr.splitlines()) == 1
    assert started.stderr.startswith("sidecar: `sidecar worker` is what `sidecar run` starts")
