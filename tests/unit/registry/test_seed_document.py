"""Every program of the seed document about the registry, word for word but for the path to import from."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
from support.consul import ConsulAgent
from support.endpoints import Conversation, ScriptedEndpoint, ok, respond
from support.ports import free_port
from support.proxy import clean_environment
from support.seed import about_the_registry, block, blocks

from sidecar import ServiceConfig, ServiceRegistry
from sidecar.net.names import with_port
from sidecar.registry.look_ups import LookUps

# Headings of the programs that are run below.
SHAPE = "Service Configuration"
ADDRESSES = "Basic Service URL Resolution"
CHECKS = "Health Checking"
BREAKER = "Circuit Breaker Pattern"
OVERVIEW = "Built-in Health Checks"
TESTING = "Health Check Testing"
AFTER = "After (Service Registry)"
CONSUL = "External Service Discovery"

# Runs each file in turn in one program, a top-level await as a console would. The names are those that the page takes
# for granted: what the API has, and libraries of others.
RUN = """\
import ast, asyncio, inspect, pathlib, sys, types
import requests
from sidecar import *
scope = dict(globals(), redis=types.SimpleNamespace(from_url=lambda url: print("redis client of", url)))
async def main():
    for name in sys.argv[1:]:
        code = compile(pathlib.Path(name).read_text(), name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        made = eval(code, scope)
        if inspect.iscoroutine(made):
            await made
asyncio.run(main())
"""


def test_every_program_about_the_registry_is_run_here() -> None:
    found = [one.heading for one in blocks("python") if about_the_registry(one)]
    assert found == [SHAPE, ADDRESSES, CHECKS, BREAKER, OVERVIEW, TESTING, AFTER, CONSUL]
    others = [one.heading for one in blocks("python") if not about_the_registry(one)]
    assert others == ["Before (Legacy)"]


# What the page's bodies of endpoints are made of


def redis(conversation: Conversation) -> None:
    """PING and PONG."""
    assert conversation.read_line() == b"*1"
    assert (conversation.read_line(), conversation.read_line()) == (b"$4", b"PING")
    conversation.send(b"+PONG\r\n")
    conversation.hang()


def page(body: bytes) -> ScriptedEndpoint:
    return ScriptedEndpoint(respond(ok(body)))


def environment(endpoints: Mapping[str, int], mode: str = "local") -> dict[str, str]:
    """The seed's mode, and its services at these ports."""
    environ = {"AUTOBOT_DEPLOYMENT_MODE": mode}
    for name, port in endpoints.items():
        start = name.upper().replace("-", "_")
        environ |= {f"{start}_HOST": "127.0.0.1", f"{start}_PORT": str(port)}
    return clean_environment(**environ)


def run_seed(
    tmp_path: Path, endpoints: Mapping[str, int], *headings: str, mode: str = "local", after: str = ""
) -> list[str]:
    """What programs of the page print, one after the other in one process. after: what is asked for then."""
    files = []
    for number, text in enumerate((*map(block, headings), after)):
        file = tmp_path / f"example{number}.py"
        file.write_text(text)
        files.append(str(file))
    return printed([sys.executable, "-c", RUN, *files], tmp_path, environment(endpoints, mode))


def run_alone(tmp_path: Path, endpoints: Mapping[str, int], heading: str) -> list[str]:
    """What a program prints that takes nothing for granted."""
    (tmp_path / "example.py").write_text(block(heading))
    return printed([sys.executable, "example.py"], tmp_path, environment(endpoints))


def printed(command: list[str], directory: Path, environ: dict[str, str], stderr: str = "") -> list[str]:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=directory, env=environ, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, stderr)
    return done.stdout.splitlines()


@pytest.fixture
def table() -> Any:
    """The seed's five services, each with the answer of its table."""
    with ExitStack() as stack:
        made = {
            "redis": ScriptedEndpoint(redis),
            "backend": page(b'{"status": "healthy"}'),
            "frontend": page(b"<!DOCTYPE html>\n<html><body>AutoBot</body></html>"),
            "ai-stack": page(b'{"status": "ok", "models": 3}'),
            "npu-worker": page(b'{"status": "ready"}'),
        }
        for endpoint in made.values():
            stack.enter_context(endpoint)
        yield made


def test_the_seeds_examples_run(tmp_path: Path, table: dict[str, ScriptedEndpoint]) -> None:
    ports = {name: endpoint.port for name, endpoint in table.items()}
    said = run_seed(tmp_path, ports, OVERVIEW, CHECKS, BREAKER, OVERVIEW)
    urls = {
        name: f"{'redis' if name == 'redis' else 'http'}://127.0.0.1:{port}" for name, port in ports.items()
    }
    assert said[:2] == ["Deployment Mode: local", "Services: 5"]
    assert said[2:7] == [f"  {name}: {url} (unknown)" for name, url in urls.items()]
    assert said[7].startswith("Redis is healthy (response time: 0.")
    assert said[8:13] == [f"{name}: healthy" for name in ports]
    assert said[15:] == [f"  {name}: {url} (healthy)" for name, url in urls.items()]
    paths = {
        name: endpoint.requests[0].line.split()[1] for name, endpoint in table.items() if endpoint.requests
    }
    assert paths == {
        "backend": "/api/system/health",
        "frontend": "/",
        "ai-stack": "/health",
        "npu-worker": "/health",
    }


def test_the_seeds_health_check_testing(tmp_path: Path, table: dict[str, ScriptedEndpoint]) -> None:
    ports = {name: endpoint.port for name, endpoint in table.items()}
    ports["frontend"] = free_port()
    said = run_alone(tmp_path, ports, TESTING)
    assert [line for line in said if "Response time" not in line] == [
        "\u2705 redis: healthy",
        "\u2705 backend: healthy",
        "\u274c frontend: unhealthy",
        "\u2705 ai-stack: healthy",
        "\u2705 npu-worker: healthy",
    ]
    assert sum("Response time: 0." in line for line in said) == 4


def test_the_seeds_circuit_breaker(tmp_path: Path) -> None:
    said = run_seed(tmp_path, {"ai-stack": free_port()}, *[BREAKER] * 5)
    assert said == [], "five failures are asked for"
    said = run_seed(tmp_path, {"ai-stack": free_port()}, *[BREAKER] * 6)
    assert said == ["AI service circuit breaker is open - using fallback"]


@pytest.mark.parametrize("wrong", ["backend", "frontend", "ai-stack", "npu-worker", "redis"])
def test_each_row_of_the_table_is_expected(
    tmp_path: Path, table: dict[str, ScriptedEndpoint], wrong: str
) -> None:
    ports = {name: endpoint.port for name, endpoint in table.items()}
    with page(b'{"status": "other"}') as other:
        said = run_alone(tmp_path, {**ports, wrong: other.port}, TESTING)
    assert [line.split()[1] for line in said if "unhealthy" in line] == [f"{wrong}:"]


# Addresses


def test_the_configs_shape() -> None:
    scope: dict[str, Any] = {}
    exec(f"from dataclasses import dataclass\n{block(SHAPE)}", scope)
    theirs = [(one.name, one.default) for one in fields(scope["ServiceConfig"])]
    assert theirs == [(one.name, one.default) for one in fields(ServiceConfig)][: len(theirs)]
    assert [name for name, default in theirs if default is MISSING] == ["name", "host", "port"]
    assert str(ServiceConfig("redis", "localhost", 6379)).startswith(
        str(scope["ServiceConfig"]("redis", "localhost", 6379))[:-1]
    )


@pytest.mark.parametrize("mode", ["local", "docker_local", "distributed"])
def test_addresses_are_what_the_page_says(tmp_path: Path, mode: str) -> None:
    said = dict(re.findall(r"# Returns: (redis\S+) \((\w+)\)", block(ADDRESSES)))
    redis_url = next(url for url, where in said.items() if where == mode)
    show = "print(redis_url); print(ai_endpoint)"
    files = [tmp_path / "example.py", tmp_path / "show.py"]
    files[0].write_text(block(ADDRESSES))
    files[1].write_text(show)
    environ = environment({}, mode) | ({"AUTOBOT_DOMAIN": "autobot.prod"} if mode == "distributed" else {})
    found = printed([sys.executable, "-c", RUN, *map(str, files)], tmp_path, environ)
    assert found[0] == redis_url
    if mode == "distributed":
        assert found[1:] == re.findall(r"# Returns: (http\S+)", block(ADDRESSES))


def test_after_the_migration(tmp_path: Path) -> None:
    with page(b"done") as ai:
        said = run_seed(
            tmp_path, {"ai-stack": ai.port}, AFTER, after="print(response.status_code, response.text)"
        )
        assert ai.requests[0].line.split()[1] == "/api/process"
    assert said == ["redis client of redis://localhost:6379", "200 done"]


# Shell


def shell(directory: Path, script: str, environ: dict[str, str] | None = None, stderr: str = "") -> list[str]:
    """What a script prints, where `python` is this one."""
    programs = directory / "programs"
    programs.mkdir(exist_ok=True)
    (programs / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (programs / "python").chmod(0o755)
    environ = environment({}) if environ is None else environ
    path = f"{programs}:{os.environ['PATH']}"
    return printed(["bash", "-euc", script], directory, environ | {"PATH": path}, stderr)


def test_detection_is_shown_by_the_shell(tmp_path: Path) -> None:
    assert shell(tmp_path, block("Service Discovery Failures", "bash")) == [
        "Mode: local",
        "Services: ['redis', 'backend', 'frontend', 'ai-stack', 'npu-worker']",
        "Redis: redis://localhost:6379",
        "Backend: http://localhost:8001",
        "AI Stack: http://localhost:8080",
    ]


SHOW = """
python -c "
from sidecar import get_service_registry
info = get_service_registry().get_deployment_info()
print(info['deployment_mode'], info['domain'])
for name in ('redis', 'ai-stack', 'npu-worker', 'backend'):
    one = info['services'][name]
    print(one['url'], one['timeout'], one['retries'], one['circuit_breaker_threshold'], one['circuit_breaker_timeout'])
"
"""


def test_variables_of_the_page(tmp_path: Path) -> None:
    both = block("Service Discovery", "bash") + block("Health Check Configuration", "bash")
    assert shell(tmp_path, both + SHOW, clean_environment()) == [
        "distributed autobot.prod",
        "redis://redis-cluster.prod.com:6379 30 1 5 60",
        "http://ai-farm-01.prod.com:8080 60 3 5 60",
        "http://npu-cluster.prod.com:8081 30 1 5 60",
        "http://api-01.autobot.prod:8001 30 1 5 60",
    ]


def test_debug_mode(tmp_path: Path) -> None:
    agent = tmp_path / "run_agent.sh"
    agent.write_text(
        "#!/bin/sh\nexec python -c \"from sidecar import get_service_url; get_service_url('redis')\"\n"
    )
    agent.chmod(0o755)
    told = """\
deployment mode local (AUTOBOT_DEPLOYMENT_MODE)
services from built-in defaults (local), domain localhost
environment overrides: REDIS_HOST
redis is at redis.example:6379
backend is at localhost:8001
frontend is at localhost:5173
ai-stack is at localhost:8080
npu-worker is at localhost:8081
redis is redis://redis.example:6379
"""
    environ = environment({}) | {"REDIS_HOST": "redis.example"}
    assert shell(tmp_path, block("Debug Mode", "bash"), environ, told) == []


# Registries


async def test_external_service_discovery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's own distributed file as production.yml, and an agent where `consul.autobot.prod:8500` leads."""
    file = tmp_path / "config" / "deployment" / "production.yml"
    file.parent.mkdir(parents=True)
    file.write_text(block("Distributed Production (`config/deployment/distributed.yml`)", "yaml"))
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("AUTOBOT_", "REDIS_", "AI_STACK_", "API_")):
            monkeypatch.delenv(name)
    # Of 127.0.0.0/8 one of its own: its port 8500 is nobody else's.
    address = f"127.{os.getpid() // 250 % 250 + 1}.{os.getpid() % 250 + 1}.85"
    asked = []

    async def resolve(_: LookUps, host: str, port: int) -> list[Any]:
        asked.append((host, port))
        entry = (2, 1, 6, "", (address, 0))
        return with_port([entry], port)

    monkeypatch.setattr(LookUps, "resolve", resolve)
    async with ConsulAgent(address, port=8500) as agent:
        agent.add("api", "api-1", "10.0.0.1", 8001)
        agent.add("api", "api-2", "10.0.0.2", 8001)
        scope: dict[str, Any] = {"ServiceRegistry": ServiceRegistry}
        exec(block(CONSUL), scope)
        async with scope["registry"] as registry:
            assert registry.deployment_mode.value == "distributed"
            assert await registry.until_ready(10)
            assert set(asked) == {("consul.autobot.prod", 8500)}
            urls = [registry.get_service_url("api", "/v1") for _ in range(4)]
            assert sorted(urls) == ["http://10.0.0.1:8001/v1"] * 2 + ["http://10.0.0.2:8001/v1"] * 2
            # Consul knows no redis: the file does.
            assert registry.get_service_url("redis") == "redis://redis-01.autobot.prod:6379"
            services = registry.get_deployment_info()["services"]
            assert {name: (one["source"], one["stale"]) for name, one in services.items()} == {
                "redis": ("static", False),
                "ai-stack": ("static", False),
                "api": ("consul", False),
            }
            agent.remove("api-1")
            async with asyncio.timeout(10):
                while services["api"]["endpoints"] != ["10.0.0.2:8001"]:
                    await asyncio.sleep(0.01)
                    services = registry.get_deployment_info()["services"]
            assert {registry.get_service_url("api") for _ in range(4)} == {"http://10.0.0.2:8001"}
