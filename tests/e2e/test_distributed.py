"""The seed's distributed.yml, unchanged, before real servers that the environment alone points it at."""

import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.load import Load
from support.ports import has_ipv6, ports_in_use
from support.processes import find_program
from support.proxy import ROOT, Sidecar
from support.requirements import lacking
from support.servers import Nginx, Redis
from support.waiting import wait_until

pytestmark = pytest.mark.server("nginx", "redis-server", "redis-cli", "curl")

# The seed's own text, and the file that ships. Both listen on the ports they name, and 9901 and 9902.
FILES = {
    Path(__file__).with_name("distributed_seed.yml"): [6379, 8080, 8001],
    ROOT / "config" / "deployment" / "distributed.yml": [6379, 8080, 8001, 5173, 8081],
}
ADMIN, METRICS = 9901, 9902
API = ("api-a", "api-b", "api-c")


@dataclass(frozen=True, slots=True)
class Deployment:
    """What runs: the sidecar, and each API endpoint as a process of its own."""

    sidecar: Sidecar
    api: dict[str, Nginx]


@pytest.fixture(params=FILES, ids=["seed", "shipped"])
def deployment(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployment]:
    taken = ports_in_use([*FILES[request.param], ADMIN, METRICS])
    if taken:
        lacking(f"ports {taken} of the deployment file are in use on this machine")
    with ExitStack() as stack:
        redis = stack.enter_context(Redis(tmp_path / "redis"))
        ai_stack = stack.enter_context(Nginx(tmp_path / "ai", "ai-stack"))
        api = {name: stack.enter_context(Nginx(tmp_path / name, name)) for name in API}
        environ = {
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": str(redis.port),
            "AI_STACK_HOST": "127.0.0.1",
            "AI_STACK_PORT": str(ai_stack.port),
            "API_HOSTS": ",".join(f"127.0.0.1:{server.port}" for server in api.values()),
        }
        sidecar = Sidecar(tmp_path, path=request.param, environ=environ, admin=ADMIN, metrics=METRICS)
        yield Deployment(stack.enter_context(sidecar), api)


def run(program: str, *arguments: str) -> str:
    """What a command prints; it must succeed."""
    found = find_program(program)
    assert found
    done = subprocess.run([found, *arguments], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, f"{program} {arguments}: {done.stderr}"
    return done.stdout


def curl(url: str) -> str:
    return run("curl", "-sS", "--fail", "--globoff", "--noproxy", "*", url).strip()


def redis_cli(*arguments: str) -> str:
    return run("redis-cli", "-h", "localhost", "-p", "6379", *arguments).strip()


def test_applications_call_localhost(deployment: Deployment) -> None:
    assert curl("http://localhost:8080/api/process") == "ai-stack"
    assert curl("http://127.0.0.1:8001/") in API
    assert redis_cli("PING") == "PONG"
    assert redis_cli("SET", "answer", "42") == "OK"
    assert redis_cli("GET", "answer") == "42"
    if has_ipv6():
        assert curl("http://[::1]:8080/") == "ai-stack"
        assert run("redis-cli", "-h", "::1", "-p", "6379", "GET", "answer").strip() == "42"


def test_thirty_requests_are_spread_evenly(deployment: Deployment) -> None:
    assert Counter(curl("http://localhost:8001/") for _ in range(30)) == dict.fromkeys(API, 10)


def test_an_endpoint_dies_under_load_and_comes_back(deployment: Deployment) -> None:
    sidecar, victim = deployment.sidecar, deployment.api["api-b"]
    address = f"127.0.0.1:{victim.port}"
    with Load(8001, clients=8) as load:
        load.wait_for_more(300)
        assert set(load.bodies) == set(API)
        assert sidecar.breaker("api", address) == "closed"

        victim.kill()
        wait_until(lambda: sidecar.breaker("api", address) == "open", f"the breaker of {address} to open")
        load.wait_for_more(300)

        answered_before = load.bodies["api-b"]
        victim.start()
        wait_until(lambda: sidecar.breaker("api", address) == "closed", "the breaker to close", 30.0)
        load.wait_for(
            lambda seen: seen.bodies["api-b"] > answered_before + 50, "answers of the endpoint again"
        )

    assert not load.errors
    assert load.statuses == {200: load.sent}
    metrics = sidecar.metrics()
    labels = f'endpoint="{address}",to="{{}}",upstream="api"'
    moved = 'sidecar_breaker_transitions_total{{cause="{}",' + labels + "}}"
    assert metrics[moved.format("consecutive_failures", "open")] == 1
    assert metrics[moved.format("probe_succeeded", "closed")] == 1
    journal = next(one for one in sidecar.upstream("api")["endpoints"] if one["address"] == address)
    assert [entry["to"] for entry in journal["breaker"]["journal"]][-1] == "closed"
