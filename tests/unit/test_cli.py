"""The command line: exit codes, and what is said where."""

import asyncio
import gc
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, ClassVar

import pytest
import uvloop
from support.ports import free_port
from support.processes import Process
from support.proxy import clean_environment, command
from support.servers import answers
from support.waiting import wait_until

import sidecar.app
import sidecar.cli
import sidecar.console.health
import sidecar.console.ready
import sidecar.console.status
import sidecar.console.top
import sidecar.demo
import sidecar.host_limits
import sidecar.observe.logs
from sidecar.cli import run
from sidecar.errors import ConfigurationError, StartError
from sidecar.host_limits import HostLimits
from sidecar.version import __version__, build_name

CONFIG = Path(__file__).resolve().parents[2] / "config"
ENDPOINTS = CONFIG / "registries" / "endpoints.yml"  # what file.yml names, and no configuration
FOR_OTHERS = (
    "grafana",
    "image",
    "kubernetes",
    "prometheus",
    "systemd",
)  # folders of files that are read by those
SHIPPED = sorted(
    file
    for file in CONFIG.glob("*/*.*")  # of those in `config` itself none is the sidecar's
    if file != ENDPOINTS and file.parent.name not in FOR_OTHERS
)
GOOD = """\
services:
  ai-stack: {host: ai.example, port: 8080}
  redis: {host: redis.example, port: 6379, scheme: redis}
"""
BAD = """\
services:
  ai-stack: {host: ai.example, prot: 8080}
"""

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True, scope="session")
def libuv() -> None:
    """libuv opens a pipe for signals with a process's first loop and keeps it: no test's leak."""
    uvloop.new_event_loop().close()


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No deployment around it, an empty working directory, a machine that has enough of everything.

    Logging, signals and gc are as they were afterwards.
    """
    monkeypatch.setattr(sidecar.host_limits, "read_host_limits", HostLimits)
    for name in os.environ:
        if name.startswith(
            ("AUTOBOT_", "KUBERNETES_", "REDIS_", "AI_STACK_", "BACKEND_", "FRONTEND_", "NPU_WORKER_")
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AUTOBOT_DEPLOYMENT_MODE", "local")
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    taken = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in taken.items():
        signal.signal(number, handler)
    root.handlers[:] = handlers
    root.setLevel(level)
    gc.enable()  # what `main` turns off


@pytest.fixture
def good(tmp_path: Path) -> str:
    (tmp_path / "good.yml").write_text(GOOD)
    return "good.yml"


@pytest.fixture
def bad(tmp_path: Path) -> str:
    (tmp_path / "bad.yml").write_text(BAD)
    return "bad.yml"


class StubApp:
    """Notes what it was made with, and runs as told."""

    made: ClassVar[list[Any]] = []
    loads: ClassVar[list[Any]] = []
    error: ClassVar[BaseException | None] = None

    def __init__(self, settings: Any, load: Any, changes: Any, taken: Any) -> None:
        StubApp.made.append(settings)
        StubApp.loads.append(load)
        assert load() == settings
        assert taken is None

    async def run(self) -> None:
        if StubApp.error is not None:
            raise StubApp.error


@pytest.fixture
def stub_app(monkeypatch: pytest.MonkeyPatch) -> type[StubApp]:
    monkeypatch.setattr(sidecar.app, "App", StubApp)
    monkeypatch.setattr(StubApp, "made", [])
    monkeypatch.setattr(StubApp, "loads", [])
    monkeypatch.setattr(StubApp, "error", None)
    return StubApp


# Usage


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "sidecar: the following arguments are required: COMMAND"),
        (["runn"], "sidecar: argument COMMAND: invalid choice: 'runn'"),
        (["run", "--mode", "cloud"], "sidecar run: argument --mode: invalid choice: 'cloud'"),
        (["health", "a", "b"], "sidecar: unrecognized arguments: b"),
        (["url"], "sidecar url: the following arguments are required: NAME"),
        (["check", "--strict"], "sidecar: unrecognized arguments: --strict"),
        (["run", "--log-format", "xml"], "sidecar run: argument --log-format: invalid choice: 'xml'"),
        (["run", "--register", "api"], "sidecar run: argument --register: 'api' is not NAME=PORT; write for"),
        (["run", "--register", "=80"], "sidecar run: argument --register: `` cannot be a name; start with"),
        (["check", "--register", "a/b=80"], "sidecar check: argument --register: `a/b` cannot be a name; "),
        *(
            (
                ["run", "--register", f"api={port}"],
                f"sidecar run: argument --register: 'api={port}' has no port between 1 and 65535; write for",
            )
            for port in ("", "0", "65536", "-1", "x", "\u0661", "9" * 5000)
        ),
        *(
            (
                ["demo", "--seconds", text],
                f"sidecar demo: argument --seconds: {text!r} is not a positive number",
            )
            for text in ("0", "-1", "x", "nan", "inf", "1e10")
        ),
    ],
)
def test_usage_errors_are_one_line_and_2(arguments: list[str], said: str, capsys: Captured) -> None:
    with pytest.raises(SystemExit) as ended:
        run(arguments)
    captured = capsys.readouterr()
    assert ended.value.code == 2
    assert captured.out == ""
    assert captured.err.startswith(said)
    assert captured.err.count("\n") == 1
    assert "--help`" in captured.err


@pytest.mark.parametrize(
    "arguments",
    [["--help"], *([name, "--help"] for name in ("run", "check", "url", "health", "status", "top", "demo"))],
)
def test_every_command_has_help(arguments: list[str], capsys: Captured) -> None:
    with pytest.raises(SystemExit) as ended:
        run(arguments)
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage: sidecar")


def test_version(capsys: Captured) -> None:
    with pytest.raises(SystemExit) as ended:
        run(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"sidecar {__version__} ({build_name()})\n"


# check


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_the_shipped_files_are_fine(file: Path, capsys: Captured) -> None:
    assert run(["check", "--config", str(file)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.splitlines()[-1].startswith(f"{file}: fine: mode ")


def test_these_files_are_shipped() -> None:
    assert ENDPOINTS.exists()
    assert [str(file.relative_to(CONFIG)) for file in SHIPPED] == [
        "compose/sidecar.yml",
        "deployment/distributed.yml",
        "deployment/docker-local.yml",
        "deployment/kubernetes.yml",
        "deployment/local.yml",
        "registries/consul.yml",
        "registries/dns.yml",
        "registries/etcd.yml",
        "registries/file.yml",
        "registries/kubernetes.yml",
    ]


def test_check_says_what_it_read(good: str, capsys: Captured) -> None:
    assert run(["check", "--config", good, "--mode", "distributed"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("good.yml: fine: mode distributed, ")


def test_check_passes_notes_on(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "empty.yml").write_text("")
    assert run(["check", "--config", "empty.yml"]) == 0
    assert capsys.readouterr().out.startswith("note: empty.yml is empty: ")


def test_check_without_a_file(capsys: Captured) -> None:
    assert run(["check"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("note: redis will not listen: ")
    assert lines[-1].startswith("built-in defaults (local): fine: mode local, ")


def test_check_lists_findings_and_is_1(bad: str, tmp_path: Path, capsys: Captured) -> None:
    assert run(["check", "--config", bad]) == 1
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert captured.err == ""
    assert lines[0].startswith("bad.yml:2: ")
    assert "`port`" in lines[0]
    assert lines[-1] == f"{len(lines) - 1} finding" + ("s" if len(lines) > 2 else "")

    (tmp_path / "one.yml").write_text("servces: {}\n")
    assert run(["check", "--config", "one.yml"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "1 finding"

    (tmp_path / "two.yml").write_text("servces: {}\nsidecar: {bnd: []}\n")
    assert run(["check", "--config", "two.yml"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "2 findings"


@pytest.mark.parametrize("command", ["check", "run", "url", "health"])
def test_a_file_that_cannot_be_read_is_2(command: str, capsys: Captured) -> None:
    assert run([command, *(["redis"] if command == "url" else []), "--config", "absent.yml"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert (
        captured.err
        == "sidecar: absent.yml: cannot be read: No such file or directory; name a file that is there and readable\n"
    )


# url


def test_url(good: str, capsys: Captured) -> None:
    assert run(["url", "redis", "--config", good]) == 0
    assert run(["url", "ai-stack", "/api/process", "--config", good]) == 0
    captured = capsys.readouterr()
    assert captured.out == "redis://redis.example:6379\nhttp://ai.example:8080/api/process\n"
    assert captured.err == ""


@pytest.mark.parametrize(
    ("mode", "url"),
    [
        ("local", "redis://localhost:6379"),
        ("docker_local", "redis://autobot-redis:6379"),
        ("distributed", "redis://redis-01.autobot.prod:6379"),
    ],
)
def test_url_in_the_seeds_modes(
    mode: str, url: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setenv("AUTOBOT_DOMAIN", "autobot.prod" if mode == "distributed" else "localhost")
    assert run(["url", "redis", "--mode", mode]) == 0
    assert capsys.readouterr().out == f"{url}\n"


def test_an_unknown_service_is_2_and_says_what_was_meant(good: str, capsys: Captured) -> None:
    assert run(["url", "rediss", "--config", good]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("sidecar: no service or load balancer is called `rediss`")
    assert "`redis`" in captured.err
    assert captured.err.count("\n") == 1


# run


def test_run_hands_the_settings_over(stub_app: type[StubApp], good: str) -> None:
    arguments = [
        "--config",
        good,
        "--mode",
        "kubernetes",
        "--bind",
        "127.0.0.2",
        "--bind",
        "::1",
        "--log-format",
        "json",
    ]
    assert run(["run", *arguments]) == 0
    (settings,) = stub_app.made
    assert settings.origin == "good.yml"
    assert settings.mode.value == "kubernetes"
    assert settings.sidecar.bind == ("127.0.0.2", "::1")


def test_run_exposes_by_name(stub_app: type[StubApp], good: str, capsys: Captured) -> None:
    assert run(["run", "--config", good, "--bind", "0.0.0.0"]) == 2
    assert "add --expose if that is meant" in capsys.readouterr().err
    assert run(["run", "--config", good, "--bind", "0.0.0.0", "--expose"]) == 0
    (settings,) = stub_app.made
    assert settings.sidecar.bind == ("0.0.0.0",)


def test_it_reads_the_file_that_its_mode_has_named_again(
    stub_app: type[StubApp], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While an editor writes it, it may be missing; that is not to end all that it names."""
    file = tmp_path / "config" / "deployment" / "local.yml"
    file.parent.mkdir(parents=True)
    file.write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    assert run(["run", "--mode", "local"]) == 0
    (load,) = stub_app.loads
    assert load() == stub_app.made[0]
    file.unlink()
    with pytest.raises(ConfigurationError, match="cannot be read: No such file or directory"):
        load()
    file.write_text("")
    with pytest.raises(ConfigurationError, match="is empty"):
        load()


@pytest.mark.parametrize("named", [True, False])
def test_what_changes_while_it_starts_is_a_change(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, named: bool
) -> None:
    file = tmp_path / "config" / "deployment" / "local.yml"
    file.parent.mkdir(parents=True)
    file.write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    configure = sidecar.observe.logs.configure
    seen = []

    def configured(*arguments: Any) -> None:
        file.write_text(GOOD + "# and more\n")
        configure(*arguments)

    class Watching(StubApp):
        def __init__(self, settings: Any, load: Any, changes: Any, taken: Any) -> None:
            self.changes = changes

        async def run(self) -> None:
            async with asyncio.timeout(5.0), aclosing(self.changes()) as words:
                await anext(words)
                seen.append(file.read_text())

    monkeypatch.setattr(sidecar.app, "App", Watching)
    monkeypatch.setattr(sidecar.observe.logs, "configure", configured)
    assert run(["run", "--mode", "local", *(("--config", str(file)) if named else ())]) == 0
    assert seen


ETCD = "external_registry: {type: etcd, host: etcd.example}\n" + GOOD


def test_run_registers_what_is_named(stub_app: type[StubApp], tmp_path: Path) -> None:
    (tmp_path / "etcd.yml").write_text(ETCD + "register: {name: api, port: 8080, weight: 7}\n")
    named = ["--register", "web=81", "--register", "api=8081", "--register", "api=8080"]
    assert run(["run", "--config", "etcd.yml", *named]) == 0
    (settings,) = stub_app.made
    found = [(one.name, one.port, one.registry, one.weight) for one in settings.registrations]
    assert found == [("api", 8080, "etcd", 7), ("web", 81, "etcd", 1), ("api", 8081, "etcd", 1)]


def test_there_has_to_be_somewhere_to_register(stub_app: type[StubApp], good: str, capsys: Captured) -> None:
    assert run(["run", "--config", good, "--register", "api=8080"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        "sidecar: flags: --register[0]: there is nowhere to announce it; add a consul or etcd"
    )
    assert said.count("\n") == 1
    assert stub_app.made == []


def test_check_says_what_will_be_announced(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "etcd.yml").write_text(ETCD + "register: {name: api, port: 8080, health_check: /health}\n")
    assert run(["check", "--config", "etcd.yml", "--register", "redis=6379"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        "note: api will be announced in etcd while its check passes (GET /health at 127.0.0.1:8080)" in lines
    )
    assert "note: redis will be announced in etcd while its check passes (connect at 127.0.0.1:6379)" in lines


@pytest.mark.parametrize(("form", "is_json"), [("auto", True), ("json", True), ("text", False)])
def test_run_logs_as_asked(
    stub_app: type[StubApp], good: str, form: str, is_json: bool, capsys: Captured
) -> None:
    """stderr is no terminal here."""
    assert run(["run", "--config", good, "--log-format", form]) == 0
    logging.getLogger("sidecar").info("hello")
    line = capsys.readouterr().err
    assert line.startswith("{") is is_json
    assert "hello" in line


def test_a_broken_configuration_does_not_run(stub_app: type[StubApp], bad: str, capsys: Captured) -> None:
    assert run(["run", "--config", bad]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("sidecar: bad.yml:2: ")
    assert all(line.startswith("sidecar: ") for line in captured.err.splitlines())
    assert stub_app.made == []


def test_what_cannot_start_is_one_line_and_2(stub_app: type[StubApp], good: str, capsys: Captured) -> None:
    stub_app.error = StartError("cannot listen on 127.0.0.1:80 for api: permission denied")
    assert run(["run", "--config", good]) == 2
    assert capsys.readouterr().err == "sidecar: cannot listen on 127.0.0.1:80 for api: permission denied\n"


def test_a_port_that_is_taken_for_real(tmp_path: Path, capsys: Captured) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        (tmp_path / "taken.yml").write_text(
            "services: {api: {host: api.example, port: 80}}\n"
            f"sidecar: {{ports: {{{port}: api}}, admin: '127.0.0.1:0', metrics: '127.0.0.1:0', bind: [127.0.0.1]}}\n"
        )
        assert run(["run", "--config", "taken.yml"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(
        f"sidecar: cannot listen on 127.0.0.1:{port} for api: address already in use; "
    )
    assert captured.err.count("\n") == 1


# health


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is asked of `show_health`, which finds something that is not well."""
    asked: list[Any] = []

    def show_health(registry: Any, name: str | None, **options: bool) -> int:
        asked.append((registry.list_services(), registry.deployment_mode.value, name, options))
        return 1

    monkeypatch.setattr(sidecar.console.health, "show_health", show_health)
    return asked


def test_health_is_given_what_was_said(asked: list[Any], good: str) -> None:
    assert run(["health", "--config", good]) == 1
    assert run(["health", "redis", "--config", good, "--mode", "kubernetes", "--json"]) == 1
    assert asked == [
        (["ai-stack", "redis"], "local", None, {"json": False}),
        (["ai-stack", "redis"], "kubernetes", "redis", {"json": True}),
    ]


def test_health_of_an_unknown_service_is_2(good: str, capsys: Captured) -> None:
    assert run(["health", "rediss", "--config", good]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "did you mean `redis`?" in captured.err
    assert captured.err.count("\n") == 1


def test_health_of_a_broken_configuration_is_2(asked: list[Any], bad: str, capsys: Captured) -> None:
    assert run(["health", "--config", bad]) == 2
    assert capsys.readouterr().err.startswith("sidecar: bad.yml:2: ")
    assert asked == []


# status and demo


def test_status_is_given_what_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def show_status(admin: str, **options: bool) -> int:
        asked.append((admin, options))
        return 1

    monkeypatch.setattr(sidecar.console.status, "show_status", show_status)
    assert run(["status"]) == 1
    assert run(["status", "--admin", "[::1]:99", "--json", "--watch", "--endpoints"]) == 1
    assert asked == [
        ("127.0.0.1:9901", {"json": False, "watch": False, "every_endpoint": False}),
        ("[::1]:99", {"json": True, "watch": True, "every_endpoint": True}),
    ]


def test_top_is_given_what_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def show_top(admin: str, _clock: object, **options: object) -> int:
        asked.append((admin, options))
        return 0

    monkeypatch.setattr(sidecar.console.top, "show_top", show_top)
    assert run(["top"]) == 0
    assert run(["top", "--admin", "[::1]:99", "--interval", "0.001", "--count", "3"]) == 0
    assert run(["top", "--once"]) == 0
    assert asked == [
        ("127.0.0.1:9901", {"interval": 1.0, "count": None}),
        ("[::1]:99", {"interval": 0.1, "count": 3}),
        ("127.0.0.1:9901", {"interval": 1.0, "count": 1}),
    ]


@pytest.mark.parametrize("count", ["0", "-1", "x", "1.5"])
def test_top_counts_in_whole_tables(count: str, capsys: Captured) -> None:
    with pytest.raises(SystemExit) as ended:
        run(["top", "--count", count])
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        f"sidecar top: argument --count: {count!r} is not a number of tables; see `sidecar top --help`\n"
    )


def test_readiness_is_asked_for_at_the_metrics_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sidecar.console.ready, "show_ready", len)
    assert run(["status", "--ready"]) == len("127.0.0.1:9902")
    assert run(["status", "--ready", "--metrics", "[::1]:1"]) == len("[::1]:1")


def test_status_of_nothing_is_1(capsys: Captured) -> None:
    with socket.socket() as unused:  # bound but not listening
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        assert run(["status", "--admin", f"127.0.0.1:{port}"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"sidecar: nothing answers at 127.0.0.1:{port} (connection refused)")


def test_demo_is_given_what_was_said(monkeypatch: pytest.MonkeyPatch, stub_app: type[StubApp]) -> None:
    asked: list[Any] = []

    async def run_demo(app_factory: object, **options: Any) -> int:
        asked.append((app_factory, options))
        return 0

    monkeypatch.setattr(sidecar.demo, "run_demo", run_demo)
    assert run(["demo", "--seconds", "2.5"]) == 0
    assert run(["demo"]) == 0
    assert [(factory, options["seconds"]) for factory, options in asked] == [
        (stub_app, 2.5),
        (stub_app, None),
    ]


# Ends from outside


def test_ctrl_c_is_no_error(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    def interrupted(_options: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(sidecar.cli, "_check", interrupted)
    assert run(["check"]) == 0
    assert capsys.readouterr().err == ""


def test_ctrl_c_while_waiting_does_not_mean_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_options: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(sidecar.cli, "_wait", interrupted)
    assert run(["wait"]) == 1


def test_a_reader_that_has_seen_enough_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is still in the buffer goes nowhere, instead of failing once more at exit."""

    def broken(_options: object) -> int:
        raise BrokenPipeError

    monkeypatch.setattr(sidecar.cli, "_url", broken)
    with (tmp_path / "out").open("w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert run(["url", "redis"]) == 0
        out.write("never read")
        out.flush()
        monkeypatch.undo()
    assert (tmp_path / "out").read_text() == ""


def test_the_module_runs_the_command_line(
    monkeypatch: pytest.MonkeyPatch, good: str, capsys: Captured
) -> None:
    import sidecar.__main__
    from sidecar.__main__ import main

    monkeypatch.setattr(sidecar.__main__, "_leave", sys.exit)

    monkeypatch.setattr(sys, "argv", ["sidecar", "url", "redis", "--config", good])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert capsys.readouterr().out == "redis://redis.example:6379\n"


def test_findings_are_read_by_programs_too(bad: str, capsys: Captured) -> None:
    """file:line: text, one a line, as editors and CI jump to."""
    run(["check", "--config", bad])
    first = capsys.readouterr().out.splitlines()[0]
    file, line, _ = first.split(":", 2)
    assert json.loads(line) == 2
    assert file == bad


# As a process: signals and streams that a shell or a supervisor hands over


def shell(line: str, directory: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """`sidecar` followed by `line`, by a shell, with what it redirects."""
    program = " ".join(map(str, command()))
    return subprocess.run(
        ["sh", "-c", f"exec {program} {line}"],
        cwd=directory,
        env=clean_environment(AUTOBOT_DEPLOYMENT_MODE="local", **environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def serving(directory: Path) -> tuple[str, int]:
    """A configuration on free ports, and the port of its metrics, which answers once everything is up."""
    metrics = free_port()
    own = f'{{bind: [127.0.0.1], admin: "127.0.0.1:{free_port()}", metrics: "127.0.0.1:{metrics}"}}'
    service = f"{{host: api.example, port: {free_port()}}}"
    (directory / "serving.yml").write_text(f"services: {{api: {service}}}\nsidecar: {own}\n")
    return "serving.yml", metrics


def test_sigterm_before_there_is_anything_to_drain_is_0(tmp_path: Path) -> None:
    """As process 1 of a container nothing would end it otherwise; the file that it reads is a pipe here."""
    os.mkfifo(tmp_path / "slow.yml")
    process = Process(command("run", "--config", "slow.yml"), tmp_path, clean_environment())
    try:
        with (tmp_path / "slow.yml").open("w"):  # returns once the process has opened it as well
            process.send(signal.SIGTERM)
            assert process.wait() == 0
    finally:
        process.kill()
    assert (process.stdout, process.stderr) == ("", "")


@pytest.mark.parametrize("line", ["check --config good.yml", "url redis --config good.yml", "check"])
def test_an_answer_that_cannot_be_written_is_2(good: str, tmp_path: Path, line: str) -> None:
    done = shell(f"{line} >/dev/full", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "sidecar: cannot write the answer: no space left on device\n"


@pytest.mark.parametrize(
    ("error", "said"),
    [(OSError(28, "No space left on device"), "no space left on device"), (OSError("Odd"), "odd")],
)
def test_a_failed_write_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Captured, error: OSError, said: str
) -> None:
    def full(_options: object) -> int:
        raise error

    monkeypatch.setattr(sidecar.cli, "_check", full)
    with (tmp_path / "out").open("w") as out, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", out)
        assert run(["check"]) == 2
        out.write("never read")
        out.flush()
    assert capsys.readouterr().err == f"sidecar: cannot write the answer: {said}\n"
    assert (tmp_path / "out").read_text() == "", "the last flush finds a place"


def test_sigterm_while_nothing_runs_yet_ends_with_0(
    monkeypatch: pytest.MonkeyPatch, stub_app: type[StubApp]
) -> None:
    def told_to_end(_options: object) -> int:
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("it is to end at once")

    monkeypatch.setattr(sidecar.cli, "_run", told_to_end)
    with pytest.raises(SystemExit) as ended:
        run(["run"])
    assert ended.value.code == 0


@pytest.mark.parametrize("redirected", ["2>&-", ">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_run_does_without_the_streams_that_are_closed(tmp_path: Path, redirected: str) -> None:
    """Supervisors of an older kind start their services so."""
    config, metrics = serving(tmp_path)
    line = f"exec {' '.join(map(str, command('run', '--config', config)))} {redirected}"
    process = Process(["sh", "-c", line], tmp_path, clean_environment())
    try:
        wait_until(lambda: answers(metrics) or not process.running, "the sidecar's metrics")
        assert process.running, process.stderr
        process.send(signal.SIGTERM)
        assert process.wait() == 0, process.stderr
    finally:
        process.kill()
    assert "Traceback" not in process.stderr


def test_check_does_without_a_closed_output(good: str, tmp_path: Path) -> None:
    """The exit code is the answer then."""
    done = shell("check --config good.yml >&-", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_after_the_loop_no_signal_disturbs_the_end(stub_app: type[StubApp], good: str) -> None:
    assert run(["run", "--config", good]) == 0
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_closed_streams_are_filled_before_anything_is_opened(
    monkeypatch: pytest.MonkeyPatch, good: str
) -> None:
    import sidecar.__main__
    from sidecar.__main__ import main

    monkeypatch.setattr(sidecar.__main__, "_leave", sys.exit)

    names = ("stdin", "stdout", "stderr")
    with monkeypatch.context() as patched:
        patched.setattr(sys, "argv", ["sidecar", "url", "redis", "--config", good])
        for name in names:
            patched.setattr(sys, name, None)
        with pytest.raises(SystemExit) as ended:
            main()
        streams = [getattr(sys, name) for name in names]
    assert ended.value.code == 0
    assert [stream.writable() for stream in streams] == [False, True, True]
    assert all(os.fstat(stream.fileno()).st_rdev == Path(os.devnull).stat().st_rdev for stream in streams)
    for stream in streams:
        stream.close()


def test_the_other_commands_leave_signals_alone(good: str, capsys: Captured) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert run(["check", "--config", good]) == 0
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("name", ["check", "run", "url"])
def test_a_folder_is_no_configuration(tmp_path: Path, name: str, capsys: Captured) -> None:
    assert run([name, *(["redis"] if name == "url" else []), "--config", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        f"sidecar: {tmp_path}: cannot be read: Is a directory; name a file that is there and readable\n"
    )


def test_check_names_listeners_that_are_left_out(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "self.yml").write_text(
        "services: {redis: {host: localhost, port: 6379, scheme: redis}, api: {host: api.example, port: 80}}\n"
    )
    assert run(["check", "--config", "self.yml"]) == 0
    lines = capsys.readouterr().out.splitlines()
    notes = [line for line in lines if line.startswith("note: ")]
    assert len(notes) == 1
    assert notes[0].startswith("note: redis will not listen: it would proxy to itself: ")
    assert lines[-1].startswith("self.yml: fine: ")
