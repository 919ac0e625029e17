"""`sidecar url` and `sidecar health` where services come from registries."""

import subprocess
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.live import FALLING_BACK, WEB, Scripted, threads
from support.ports import free_port
from support.proxy import clean_environment
from support.proxy import command as command_line
from support.waiting import wait_until

from sidecar import ServiceRegistry
from sidecar.cli import run


@pytest.fixture
async def command(live: Scripted, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """`sidecar ...` over a file, beside whom a test has the registry speak."""
    made: list[ServiceRegistry] = []
    original = ServiceRegistry.__init__

    def watched(self: ServiceRegistry, *arguments: Any, **named: Any) -> None:
        original(self, *arguments, **named)
        live.registry = self
        made.append(self)

    monkeypatch.setattr(ServiceRegistry, "__init__", watched)
    for name in ("AUTOBOT_DEPLOYMENT_MODE", "WEB_HOST", "WEB_PORT"):
        monkeypatch.delenv(name, raising=False)

    def call(text: str, *arguments: str, says: tuple[str, ...] | None = None) -> int:
        live.file.write_text(text)
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(run, [*arguments, "--config", str(live.file)])
            if says is not None:
                wait_until(lambda: made, "the command's registry")
                live.say("consul", "web", *says, applied=False)
            code = running.result(20)
        assert threads() == []
        return code

    return call


def test_url_prints_a_live_one(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(FALLING_BACK, "url", "web", "/x", says=("10.0.0.1:80",)) == 0
    assert capsys.readouterr().out == "http://10.0.0.1:80/x\n"


WAIT = "sidecar: {registry_wait: 0.05}\n"
WEB_SOON = WEB.replace("8000: web}}", "8000: web}, registry_wait: 0.05}")


def test_url_falls_back_after_a_while(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(FALLING_BACK + WAIT, "url", "web") == 0
    assert capsys.readouterr().out == "http://file.example:80\n"


def test_url_of_nobody(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(WEB_SOON, "url", "web") == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "sidecar: no endpoints are known yet for web\n")


def test_health_of_live_ones_and_of_nobody(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    assert command(FALLING_BACK, "health", says=(f"127.0.0.1:{port}",)) == 1
    assert f"127.0.0.1:{port}  unhealthy" in capsys.readouterr().out
    assert command(WEB_SOON, "health") == 1
    row = " ".join(capsys.readouterr().out.splitlines()[-1].split())
    assert row == "web unknown GET /health no endpoints are known yet for web"


@pytest.mark.parametrize("asked", ["url", "health"])
def test_a_registry_that_errs_is_told_once(tmp_path: Path, asked: str) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    text = f"""external_registry: {{type: consul, host: "{nobody}"}}
services: {{web: {{port: 80, source: consul}}, api: {{port: 81, source: consul}}}}
sidecar: {{registry_wait: 0.3}}
"""
    (tmp_path / "sidecar.yml").write_text(text)
    ended = subprocess.run(
        command_line(asked, "web", "--config", tmp_path / "sidecar.yml"),
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert ended.returncode == 1
    why = f"(consul: GET /v1/health/service/web at {nobody}: connection refused)"
    said = ended.stdout + ended.stderr
    assert f"no endpoints are known yet for web {why}" in " ".join(said.split())
    assert said.count("refused") == 1
    assert ended.stderr.count("\n") == (1 if asked == "url" else 0)
