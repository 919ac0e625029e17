"""Reading the configuration again while it serves: what differs changes, and nobody notices anything else."""

import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.endpoints import Conversation, ScriptedEndpoint, ok, respond
from support.http import HttpClient, get
from support.load import Load
from support.paced import PacedLoad, failures
from support.ports import free_port
from support.proxy import Sidecar, clean_environment, command
from support.volumes import ConfigMapVolume
from support.waiting import settled, wait_until

MIB = 1024 * 1024
TIMES = 100
BREAKS_AT_ONCE = "circuit_breaker: {consecutive_failures: 1, open_for: 300, max_open_for: 300}"


def balancers(*lines: str, ports: dict[int, str], more: str = "") -> str:
    """A configuration of these load balancers, which is read again when asked for. lines: `NAME: {...}`."""
    more = more or "watch: false"
    listed = ", ".join(f"{port}: {name}" for port, name in ports.items())
    return (
        "load_balancers:\n"
        + "".join(f"  {line}\n" for line in lines)
        + f'sidecar: {{bind: [127.0.0.1], ports: {{{listed}}}, admin: "127.0.0.1:ADMIN", '
        + f'metrics: "127.0.0.1:METRICS", {more}}}\n'
    )


def one(name: str, *endpoints: int, policy: str = "") -> str:
    """One load balancer before local endpoints."""
    hosts = ", ".join(f'"127.0.0.1:{port}"' for port in endpoints)
    return f"{name}: {{hosts: [{hosts}], {policy}}}"


def written(running: Sidecar, text: str) -> None:
    """The file is `text` from now on."""
    running.path.write_text(
        text.replace("ADMIN", str(running.admin)).replace("METRICS", str(running.metrics_port))
    )


def reloads(running: Sidecar, result: str) -> float:
    return running.metrics()[f'sidecar_config_reloads_total{{result="{result}"}}']


def opened(running: Sidecar, upstream: str) -> float:
    """Connections opened to its endpoints so far."""
    labels = f'{{result="established",upstream="{upstream}"}}'
    return running.metrics()[f"sidecar_connections_opened_total{labels}"]


def is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except ConnectionRefusedError:
        return True
    return False


def hup(running: Sidecar) -> None:
    """SIGHUP, and the reload that it asks for."""
    before = sum(reloads(running, result) for result in ("success", "failure", "unchanged"))
    running.send(signal.SIGHUP)
    wait_until(
        lambda: sum(reloads(running, result) for result in ("success", "failure", "unchanged")) > before,
        "a reload",
    )


def post(running: Sidecar) -> None:
    assert running.reload().status == 200


def test_a_hundred_reloads_under_load_are_noticed_by_nobody(tmp_path: Path) -> None:
    """Two configurations in turn: one upstream's policy, another's endpoints, a third one that comes and goes."""
    tuned, moved, other, still = (free_port() for _ in range(4))
    with (
        ScriptedEndpoint() as first,
        ScriptedEndpoint() as second,
        ScriptedEndpoint(respond(ok(b"still\n"))) as untouched,
        ExitStack() as stack,
    ):
        dead = free_port()
        kept = one("still", untouched.port, dead, policy=f"{BREAKS_AT_ONCE}, idle_timeout: 60")
        texts = [
            balancers(
                one("tuned", first.port, policy="timeout: 10, strategy: round_robin"),
                one("moved", first.port),
                kept,
                ports={tuned: "tuned", moved: "moved", still: "still"},
            ),
            balancers(
                one(
                    "tuned",
                    first.port,
                    policy="timeout: 20, strategy: least_request, limits: {connections: 64}, deadline_header: x-t",
                ),
                one("moved", second.port),
                one("other", second.port),
                kept,
                ports={tuned: "tuned", moved: "moved", other: "other", still: "still"},
            ),
        ]
        running = stack.enter_context(Sidecar(tmp_path, texts[0]))
        quiet = stack.enter_context(HttpClient(still))
        for _ in range(4):
            assert quiet.request().text == "still\n"
        assert running.breaker("still", f"127.0.0.1:{dead}") == "open"
        sent, connections = 4, opened(running, "still")
        with Load(tuned, 4) as one_load, Load(moved, 4) as other_load:
            one_load.wait_for_more(100)
            began, baseline = time.monotonic(), (0, 0)
            for turn in range(1, TIMES + 1):
                written(running, texts[turn % 2])
                answer = running.reload()
                assert answer.status == 200, answer.text
                assert answer.json["result"] == "reloaded"
                assert ("other: added" if turn % 2 else "other: removed") in answer.json["changes"]
                if turn % 2:
                    assert get(other).status == 200
                else:
                    assert is_refused(other)
                if turn % 10 == 0:
                    assert quiet.request().text == "still\n"
                    sent += 1
                if turn == TIMES // 2:
                    baseline = (running.memory(), running.descriptors())
            assert time.monotonic() - began < 60.0
            one_load.wait_for_more(100)
            other_load.wait_for_more(100)
            grown = running.memory() - baseline[0]
        for load in (one_load, other_load):
            assert not load.errors
            assert load.sent == load.answered
            assert set(load.statuses) == {200}
            assert load.reconnects == 0
        assert reloads(running, "success") == TIMES
        assert reloads(running, "failure") == 0
        # What was not touched
        assert running.breaker("still", f"127.0.0.1:{dead}") == "open"
        assert opened(running, "still") == connections
        assert running.upstream("still")["requests"]["total"] == sent
        assert untouched.connections == 1
        # What is left behind
        wait_until(
            lambda: "other" not in {entry["name"] for entry in views(running)}, "the end of the last one"
        )
        assert running.upstream("tuned")["requests"]["total"] == one_load.sent, (
            "counts go on over all reloads"
        )
        settled(running.descriptors, "descriptors after the load")
        assert running.descriptors() <= baseline[1]
        assert grown < 4 * MIB, f"{grown / MIB:.1f} MiB more after {TIMES // 2} reloads"


def views(running: Sidecar) -> list[dict[str, object]]:
    found: list[dict[str, object]] = get(running.admin, "/upstreams").json["upstreams"]
    return found


@pytest.mark.parametrize("ask", [hup, post])
def test_a_bad_file_changes_nothing_and_is_told_of(tmp_path: Path, ask: Callable[[Sidecar], None]) -> None:
    listen = free_port()
    with ScriptedEndpoint() as endpoint:
        text = balancers(one("api", endpoint.port), ports={listen: "api"})
        with Sidecar(tmp_path, text) as running, HttpClient(listen) as client:
            assert client.request().status == 200
            assert running.metrics()["sidecar_config_last_reload_success"] == 1
            written(running, "load_balancers: {api: {hots: []}}\nsidecar: {bnd: 1}\n")
            if ask is hup:
                hup(running)
            else:
                answer = running.reload()
                assert answer.status == 422
                assert len(answer.json["findings"]) >= 2
                assert "did you mean `hosts`" in answer.text
            assert running.metrics()["sidecar_config_last_reload_success"] == 0
            assert reloads(running, "failure") == 1
            assert "did you mean `hosts`" in running.process.stderr
            assert "not reloaded: the configuration before goes on" in running.process.stderr
            assert client.request().status == 200
            written(running, text)
            ask(running)
            assert running.metrics()["sidecar_config_last_reload_success"] == 1
            assert reloads(running, "unchanged") == 1
            assert client.request().status == 200
            assert endpoint.connections == 1


def test_a_port_that_is_taken_changes_nothing_at_all(tmp_path: Path) -> None:
    listen, other, taken = (free_port() for _ in range(3))
    with ScriptedEndpoint() as endpoint:
        text = balancers(one("api", endpoint.port), ports={listen: "api"})
        with Sidecar(tmp_path, text) as running:
            with socket.create_server(("127.0.0.1", taken)):
                written(
                    running,
                    balancers(
                        one("api", endpoint.port, policy="timeout: 7"),
                        one("new", endpoint.port),
                        one("bad", endpoint.port),
                        ports={listen: "api", other: "new", taken: "bad"},
                    ),
                )
                answer = running.reload()
            assert answer.status == 409
            (finding,) = answer.json["findings"]
            assert finding.startswith(f"cannot listen on 127.0.0.1:{taken} for bad: address already in use")
            assert is_refused(other)
            assert [entry["name"] for entry in views(running)] == ["api"]
            assert get(listen).status == 200


def test_a_request_in_flight_of_an_upstream_that_goes_is_finished(tmp_path: Path) -> None:
    going, staying = free_port(), free_port()

    def held(conversation: Conversation) -> None:
        while conversation.read_request() is not None:
            conversation.endpoint.released.wait()
            conversation.send(ok())

    with ScriptedEndpoint(held) as slow, ScriptedEndpoint() as endpoint:
        lines = one("going", slow.port), one("staying", endpoint.port)
        text = balancers(*lines, ports={going: "going", staying: "staying"})
        with Sidecar(tmp_path, text) as running, HttpClient(going) as client, HttpClient(going) as quiet:
            client.send_head("GET", "/")
            slow.wait_for(lambda slow: slow.requests, "the request")
            written(running, balancers(lines[1], ports={staying: "staying"}))
            assert running.reload().json["changes"] == ["going: removed"]
            assert is_refused(going)
            assert quiet.read_end() == b"", "nothing was asked there"
            seen = [(entry["name"], entry["leaving"]) for entry in views(running)]
            assert seen == [("staying", False), ("going", True)]
            slow.released.set()
            response = client.read_response()
            assert (response.status, response.header("connection")) == (200, "close")
            wait_until(lambda: [entry["name"] for entry in views(running)] == ["staying"], "its end")
            assert 'upstream="going"' not in get(running.metrics_port, "/metrics").text


def test_a_session_of_an_upstream_that_goes_has_the_drain_time(tmp_path: Path) -> None:
    listen = free_port()

    def echo(conversation: Conversation) -> None:
        while data := conversation.socket.recv(100):
            conversation.send(data)

    with ScriptedEndpoint(echo) as endpoint:
        text = balancers(
            one("api", endpoint.port, policy="scheme: tcp"),
            ports={listen: "api"},
            more="drain_timeout: 1.5, watch: false",
        )
        with (
            Sidecar(tmp_path, text) as running,
            socket.create_connection(("127.0.0.1", listen), 10.0) as client,
        ):
            client.sendall(b"one")
            assert client.recv(100) == b"one"
            written(
                running,
                balancers(one("web", endpoint.port), ports={}, more="drain_timeout: 1.5, watch: false"),
            )
            assert set(running.reload().json["changes"]) == {"api: removed", "web: added"}
            client.sendall(b"two")
            assert client.recv(100) == b"two"
            with pytest.raises(ConnectionResetError):
                client.recv(100)
            wait_until(lambda: [entry["name"] for entry in views(running)] == ["web"], "its end")


def test_a_port_moves(tmp_path: Path) -> None:
    listen, elsewhere = free_port(), free_port()
    with (
        ScriptedEndpoint() as endpoint,
        Sidecar(tmp_path, balancers(one("api", endpoint.port), ports={listen: "api"})) as running,
        HttpClient(listen) as client,
    ):
        assert client.request().status == 200
        written(running, balancers(one("api", endpoint.port), ports={elsewhere: "api"}))
        assert running.reload().json["changes"] == ["api: listen_port"]
        assert client.request().status == 200, "who is connected stays so"
        assert get(elsewhere).status == 200
        assert is_refused(listen)
        assert running.upstream("api")["requests"]["total"] == 3
        assert endpoint.connections == 1


def test_another_scheme_takes_the_port_over_without_a_refused_connect(tmp_path: Path) -> None:
    listen = free_port()
    with ScriptedEndpoint() as endpoint:
        texts = [
            balancers(one("api", endpoint.port, policy=f"scheme: {scheme}"), ports={listen: "api"})
            for scheme in ("http", "tcp")
        ]
        with Sidecar(tmp_path, texts[0]) as running, HttpClient(listen) as client:
            assert client.request().status == 200
            with Load(listen, 1) as load:
                for turn in range(1, 11):
                    written(running, texts[turn % 2])
                    assert running.reload().json["changes"] == ["api: scheme"]
                    # A request passes as bytes too, on a connection of its own each time.
                    assert [get(listen).status for _ in range(10)] == [200] * 10
                assert client.request().header("connection") == "close", (
                    "who is connected is served to an end"
                )
                load.wait_for_more(10)
            assert not load.errors
            assert set(load.statuses) == {200}


def test_what_a_running_sidecar_cannot_change_is_told_of(tmp_path: Path) -> None:
    listen = free_port()
    with ScriptedEndpoint() as endpoint:
        text = balancers(one("api", endpoint.port), ports={listen: "api"})
        with Sidecar(tmp_path, text) as running:
            changed = balancers(
                one("api", endpoint.port),
                ports={listen: "api"},
                more="workers: 2, idle_timeout: 7, watch: false",
            )
            written(running, changed.replace("127.0.0.1:METRICS", "127.0.0.1:1234"))
            assert running.reload().json["changes"] == ["sidecar.idle_timeout"]
            assert "sidecar.workers stays 1; 2 needs a restart" in running.process.stderr
            assert f"sidecar.metrics stays 127.0.0.1:{running.metrics_port}; " in running.process.stderr


def test_the_command_says_what_has_changed(tmp_path: Path) -> None:
    def reload(running: Sidecar) -> tuple[int, str, str]:
        done = subprocess.run(
            [str(part) for part in command("reload", "--admin", f"127.0.0.1:{running.admin}")],
            env=clean_environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        return done.returncode, done.stdout, done.stderr

    listen = free_port()
    with ScriptedEndpoint() as endpoint:
        text = balancers(one("api", endpoint.port), ports={listen: "api"})
        with Sidecar(tmp_path, text) as running:
            assert reload(running) == (0, "unchanged\n", "")
            written(running, balancers(one("api", endpoint.port, policy="retries: 3"), ports={listen: "api"}))
            assert reload(running) == (0, "api: retries\nreloaded\n", "")
            running.path.write_text("load_balancers: 7\n")
            code, output, errors = reload(running)
            assert (code, output) == (1, "")
            assert errors.endswith("sidecar: not reloaded: the configuration before goes on\n")
            assert len(errors.splitlines()) == 2


def test_a_mounted_configuration_is_read_where_its_link_leads_now(tmp_path: Path) -> None:
    """As Kubernetes updates a ConfigMap: a link to a directory is replaced by one to another."""
    listen = free_port()
    with ScriptedEndpoint() as endpoint:
        running = Sidecar(tmp_path, balancers(one("api", endpoint.port), ports={listen: "api"}))
        text = running.path.read_text()
        for version, policy in (("v1", ""), ("v2", "retries: 7")):
            (tmp_path / version).mkdir()
            changed = text.replace(
                f'"127.0.0.1:{endpoint.port}"], ', f'"127.0.0.1:{endpoint.port}"], {policy}'
            )
            (tmp_path / version / "sidecar.yml").write_text(changed)
        (tmp_path / "..data").symlink_to("v1")
        running.path.unlink()
        running.path.symlink_to("..data/sidecar.yml")
        with running:
            assert running.reload().json == {"result": "unchanged", "changes": []}
            (tmp_path / "..new").symlink_to("v2")
            (tmp_path / "..new").rename(tmp_path / "..data")
            assert running.reload().json["changes"] == ["api: retries"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_mounted_configuration_that_changes_is_read_by_itself(tmp_path: Path, workers: int) -> None:
    listen = free_port()
    with ScriptedEndpoint() as endpoint:
        more = f"workers: {workers}"
        text = balancers(one("api", endpoint.port), ports={listen: "api"}, more=more)
        (tmp_path / "own").mkdir()
        running = Sidecar(tmp_path / "own", text)
        volume = ConfigMapVolume(tmp_path / "mounted")
        volume.update(sidecar_yml=running.path.read_text())
        running.path = tmp_path / "mounted" / "sidecar.yml"
        with running, PacedLoad(listen, 100.0) as load:
            for number, retries in enumerate((3, 4), 1):
                policy = f"retries: {retries}"
                changed = balancers(
                    one("api", endpoint.port, policy=policy), ports={listen: "api"}, more=more
                )
                volume.update(
                    sidecar_yml=changed.replace("ADMIN", str(running.admin)).replace(
                        "METRICS", str(running.metrics_port)
                    )
                )
                wait_until(lambda number=number: reloads(running, "success") == number, "the swap to be seen")
            volume.update(sidecar_yml="load_balancers: [")
            wait_until(lambda: reloads(running, "failure") == 1, "the bad file to be refused")
            load.end()
            assert not failures(load.results)
            assert "not reloaded" in running.process.stderr
