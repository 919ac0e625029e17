"""`sidecar health` as its users run it: a process, real endpoints, no sidecar that runs."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.endpoints import ScriptedEndpoint, ok, respond
from support.ports import free_port
from support.proxy import clean_environment, command
from support.servers import Redis


def health(directory: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command("health", *arguments)],
        env=clean_environment(AUTOBOT_DEPLOYMENT_MODE="local", **environ),
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.server("redis-server")
def test_what_is_well_and_what_is_not(tmp_path: Path) -> None:
    dead = free_port()
    with (
        ScriptedEndpoint(respond(ok(b'{"status": "ok"}'))) as ai,
        Redis(tmp_path / "redis") as redis,
    ):
        (tmp_path / "sidecar.yml").write_text(
            f"services:\n  redis: {{host: 127.0.0.1, port: {redis.port}}}\n"
            f"  ai-stack: {{host: 127.0.0.1, port: {ai.port}}}\n"
            f"  npu-worker: {{host: 127.0.0.1, port: {dead}}}\n"
        )
        done = health(tmp_path, "--config", "sidecar.yml")
        assert (done.returncode, done.stderr) == (1, "")
        rows = [re.split(r"  +", line) for line in done.stdout.splitlines()]
        assert rows[0] == ["upstream", "endpoint", "status", "time", "asked", "error"]
        assert [row[:3] for row in rows[1:]] == [
            ["redis", f"127.0.0.1:{redis.port}", "healthy"],
            ["ai-stack", f"127.0.0.1:{ai.port}", "healthy"],
            ["npu-worker", f"127.0.0.1:{dead}", "unhealthy"],
        ]
        assert all(re.fullmatch(r"[0-9]+(\.[0-9]+)? ms", row[3]) for row in rows[1:3]), "response times"
        assert rows[1][4] == "PING"
        assert rows[3][3:] == ["GET /health", "connection refused"]

        done = health(tmp_path, "redis", "--config", "sidecar.yml")
        assert (done.returncode, done.stdout.count("\n")) == (0, 2)
        done = health(tmp_path, "--config", "sidecar.yml", "--json", NPU_WORKER_PORT=str(ai.port))
        found = json.loads(done.stdout)
        assert found["npu-worker"]["error"] == 'status is "ok", not "ready"'
        assert done.returncode == 1


def test_usage(tmp_path: Path) -> None:
    done = health(tmp_path, "redsi")
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean `redis`" in done.stderr
    assert done.stderr.count("\n") == 1
    done = health(tmp_path, "--config", "missing.yml")
    assert (done.returncode, done.stdout) == (2, "")


def test_no_client_library_is_loaded(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "sidecar", "health", "redis"],
        env=clean_environment(
            AUTOBOT_DEPLOYMENT_MODE="local", REDIS_HOST="127.0.0.1", REDIS_PORT=str(free_port())
        ),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "sidecar" in loaded
    assert not loaded & {"aiohttp", "prometheus_client", "uvloop"}
