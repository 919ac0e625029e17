"""The command line at its edges: every way to start wrongly is one clear line and exit code 2."""

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.endpoints import ScriptedEndpoint
from support.http import get
from support.ports import free_port
from support.processes import Process
from support.proxy import ROOT, Sidecar, clean_environment, command, configuration
from support.waiting import wait_until

from sidecar.version import build_name, is_compiled

DEPLOYMENTS = sorted((ROOT / "config" / "deployment").glob("*.yml"))


def sidecar(*arguments: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself."""
    return subprocess.run(
        [str(part) for part in command(*arguments)],
        env=clean_environment(**environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def complaint(done: subprocess.CompletedProcess[str], code: int = 2) -> str:
    """The one line on stderr of a command that failed as it should."""
    assert done.returncode == code, done
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("sidecar")
    return lines[0]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A good configuration on free ports."""
    text = configuration(free_port(), [free_port()])
    path = tmp_path / "sidecar.yml"
    path.write_text(text.replace("ADMIN", str(free_port())).replace("METRICS", str(free_port())))
    return path


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


# Starting wrongly


def test_a_taken_upstream_port(tmp_path: Path, taken: int) -> None:
    path = tmp_path / "sidecar.yml"
    text = configuration(taken, [free_port()])
    path.write_text(text.replace("ADMIN", str(free_port())).replace("METRICS", str(free_port())))
    said = complaint(sidecar("run", "--config", path))
    assert f"127.0.0.1:{taken}" in said
    assert "api" in said
    assert "address already in use" in said


@pytest.mark.parametrize("which", ["ADMIN", "METRICS"])
def test_a_taken_port_of_its_own(tmp_path: Path, taken: int, which: str) -> None:
    path = tmp_path / "sidecar.yml"
    text = configuration(free_port(), [free_port()]).replace(which, str(taken))
    path.write_text(text.replace("ADMIN", str(free_port())).replace("METRICS", str(free_port())))
    said = complaint(sidecar("run", "--config", path))
    assert f"127.0.0.1:{taken}" in said
    assert which.lower() in said
    assert "address already in use" in said


@pytest.mark.parametrize("which", ["ADMIN", "METRICS"])
def test_nobody_is_served_when_a_port_of_its_own_is_taken(tmp_path: Path, taken: int, which: str) -> None:
    listen = free_port()
    text = configuration(listen, [free_port()]).replace(which, str(taken))
    path = tmp_path / "sidecar.yml"
    path.write_text(text.replace("ADMIN", str(free_port())).replace("METRICS", str(free_port())))
    process = Process(command("run", "--config", path), tmp_path, clean_environment(), "sidecar")
    try:
        while process.running:
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", listen)).close()
    finally:
        process.kill()
    assert process.wait() == 2


# Starting quickly


HEAVY = {"aiohttp", "prometheus_client", "rich"}  # each takes longer to load than all that is ours
# Prints what is loaded once the first upstream's port accepts, and ends.
AT_THE_FIRST_PORT = """
import os, sys
import sidecar.app
from sidecar.cli import run
listen = sidecar.app.App._listen
async def watched(self, *arguments):
    await listen(self, *arguments)
    print(*sys.modules, flush=True)
    os._exit(0)
sidecar.app.App._listen = watched
run(sys.argv[1:])
"""


def loaded(stderr: str) -> set[str]:
    """The packages, and modules that are in none, that `-X importtime` tells of."""
    lines = [line for line in stderr.splitlines() if line.startswith("import time:")]
    assert lines
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


@pytest.mark.parametrize("with_file", [True, False])
def test_a_url_costs_only_what_it_needs(config: Path, with_file: bool, tmp_path: Path) -> None:
    arguments = ["url", "--config", config, "api"] if with_file else ["url", "redis"]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "sidecar", *arguments],
        env=clean_environment(),
        cwd=tmp_path,  # where no config/deployment is
        capture_output=True,
        text=True,
        check=True,
    )
    by_itself = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", ""],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    # Beside the heavy ones: what the standard library takes long for, and other packages of ours.
    never = {*HEAVY, "asyncio", "uvloop", "ssl", "socket", "logging", "json", "difflib", "shutil", "pathlib"}
    if not with_file:
        never.add("yaml")
    assert not (loaded(done.stderr) - loaded(by_itself.stderr)) & never
    assert not re.search(r"\bsidecar\.(?:app|admin|observe|proxy|console|demo)\b", done.stderr)


def test_a_port_accepts_before_what_serves_no_upstream_is_loaded(config: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AT_THE_FIRST_PORT, "run", "--config", config],
        env=clean_environment(),
        cwd=tmp_path,  # where no checkout is, which Python would look into first
        capture_output=True,
        text=True,
        check=True,
    )
    modules = set(done.stdout.split())
    # The loop that it runs on, which is the last thing to be loaded before: the compiled build has its own.
    assert ("sidecar.net.loop" in modules, "uvloop" in modules) == (is_compiled(), not is_compiled())
    assert not {name.partition(".")[0] for name in modules} & HEAVY


def test_who_comes_early_is_served(tmp_path: Path) -> None:
    """From the first moment that a port accepts, an upstream's or the sidecar's own."""

    def early(port: int, path: str) -> int:
        def ask() -> int:
            try:
                return get(port, path).status
            except ConnectionRefusedError:  # and nothing else: who is accepted is answered
                return 0

        return wait_until(ask, f"port {port}", 20.0)

    with ScriptedEndpoint() as endpoint, ThreadPoolExecutor(2) as aside:
        listen = free_port()
        running = Sidecar(tmp_path, configuration(listen, [endpoint.port]))
        own = aside.submit(early, running.metrics_port, "/ready")
        served = aside.submit(early, listen, "/")
        with running:
            assert (own.result(), served.result()) == (200, 200)


@pytest.mark.parametrize("verb", ["run", "check", "url"])
def test_a_file_that_is_not_there(tmp_path: Path, verb: str) -> None:
    extra = ["redis"] if verb == "url" else []
    said = complaint(sidecar(verb, "--config", tmp_path / "missing.yml", *extra))
    assert "missing.yml" in said
    assert "No such file" in said


def test_a_folder_instead_of_a_file(tmp_path: Path) -> None:
    said = complaint(sidecar("run", "--config", tmp_path))
    assert str(tmp_path) in said
    assert "directory" in said.lower()


def test_findings_keep_it_from_running(tmp_path: Path) -> None:
    path = tmp_path / "broken.yml"
    path.write_text("services:\n  redis: {prot: 6379}\n  other: {host: a}\n")
    done = sidecar("run", "--config", path)
    assert done.returncode == 2
    assert all(f"{path}:" in line for line in done.stderr.splitlines())  # one line for each finding
    assert "did you mean `port`" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["run", "--nope"], "--nope"),
        (["run", "--mode", "cloudy"], "cloudy"),
        (["run", "--log-format", "xml"], "xml"),
        (["fly"], "fly"),
        ([], "COMMAND"),
        (["url"], "NAME"),
        (["demo", "--seconds", "never"], "never"),
    ],
)
def test_a_wrong_word_on_the_command_line(arguments: list[str], named: str) -> None:
    said = complaint(sidecar(*arguments))
    assert named in said
    assert "--help" in said


def test_an_environment_variable_that_cannot_be_used(config: Path) -> None:
    said = complaint(sidecar("run", "--config", config, API_TIMEOUT="soon"))
    assert "API_TIMEOUT" in said


# check


@pytest.mark.parametrize("path", DEPLOYMENTS, ids=lambda path: path.name)
def test_the_deployment_files_are_fine(path: Path) -> None:
    done = sidecar("check", "--config", path)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_there_is_a_deployment_file_for_each_mode() -> None:
    assert [path.name for path in DEPLOYMENTS] == [
        "distributed.yml",
        "docker-local.yml",
        "kubernetes.yml",
        "local.yml",
    ]


def test_check_lists_every_finding_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.yml"
    path.write_text("services:\n  redis:\n    prot: 6379\n    timeout: -1\n")
    done = sidecar("check", "--config", path)
    assert done.returncode == 1
    assert f"{path}:3: services.redis.prot" in done.stdout
    assert f"{path}:4: services.redis.timeout" in done.stdout
    assert done.stderr == ""


# url


def test_url_prints_a_url() -> None:
    distributed = ROOT / "config" / "deployment" / "distributed.yml"
    assert sidecar("url", "--config", distributed, "redis").stdout == "redis://redis-01.autobot.prod:6379\n"
    done = sidecar("url", "--config", distributed, "ai-stack", "/api/process", AI_STACK_HOST="10.0.0.7")
    assert (done.returncode, done.stdout) == (0, "http://10.0.0.7:8080/api/process\n")


def test_url_of_nobody(config: Path) -> None:
    said = complaint(sidecar("url", "--config", config, "apy"))
    assert "`apy`" in said
    assert "did you mean `api`" in said


# status


def test_status_of_a_running_sidecar(tmp_path: Path) -> None:
    with (
        ScriptedEndpoint() as endpoint,
        Sidecar(tmp_path, configuration(free_port(), [endpoint.port])) as running,
    ):
        admin = f"127.0.0.1:{running.admin}"
        done = sidecar("status", "--endpoints", "--admin", admin)
        assert done.returncode == 0, done.stderr
        assert endpoint.address in done.stdout
        assert "closed" in done.stdout
        assert "\x1b" not in done.stdout  # no colours where no terminal is
        view = json.loads(sidecar("status", "--admin", admin, "--json").stdout)
        assert [upstream["name"] for upstream in view["upstreams"]] == ["api"]


def test_status_of_nobody() -> None:
    port = free_port()
    said = complaint(sidecar("status", "--admin", f"127.0.0.1:{port}"), code=1)
    assert f"127.0.0.1:{port}" in said


# What it says while it runs


def test_logs_are_json_lines_where_no_terminal_is(tmp_path: Path) -> None:
    listen = free_port()
    with Sidecar(tmp_path, configuration(listen, [free_port()])) as running:
        built = [series for series in running.metrics() if series.startswith("sidecar_build_info")]
        assert running.end(signal.SIGTERM) == 0
    entries = [json.loads(line) for line in running.process.stderr.splitlines()]
    assert all({"time", "level", "message"} <= entry.keys() for entry in entries)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry["time"]) for entry in entries)
    said = "\n".join(entry["message"] for entry in entries)
    assert f"127.0.0.1:{listen}" in said  # where it listens, upstream by upstream
    assert f"127.0.0.1:{running.admin}" in said
    assert f"127.0.0.1:{running.metrics_port}" in said
    assert f", {build_name()}\n" in said
    assert [f'compiled="{str(is_compiled()).lower()}"' in series for series in built] == [True]


def test_logs_are_text_where_that_is_asked_for(tmp_path: Path) -> None:
    arguments = ("--log-format", "text")
    with Sidecar(tmp_path, configuration(free_port(), [free_port()]), arguments=arguments) as running:
        assert running.end(signal.SIGTERM) == 0
    lines = running.process.stderr.splitlines()
    assert lines
    assert all(re.match(r"\d\d:\d\d:\d\d +INFO +", line) for line in lines)


def test_the_mode_flag_outranks_the_environment(tmp_path: Path) -> None:
    done = sidecar("url", "--mode", "kubernetes", "redis", AUTOBOT_DEPLOYMENT_MODE="distributed")
    assert done.stdout == "redis://redis-service.autobot-system.svc.cluster.local:6379\n"
