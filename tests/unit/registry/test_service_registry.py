"""The Python API, as the seed's examples use it."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

import pytest
from support.proxy import clean_environment

import sidecar
from sidecar import (
    DeploymentMode,
    ServiceConfig,
    ServiceRegistry,
    ServiceStatus,
    get_service_registry,
    get_service_url,
)
from sidecar.errors import UnknownUpstreamError
from sidecar.registry import reset_service_registry

FILE = """\
services:
  redis: {host: redis.example, port: 6379, scheme: redis, timeout: 2.5s, circuit_breaker_timeout: 1.5}
  six: {host: "::1", port: 8000}
load_balancers:
  api: {hosts: ["a.example:80", {host: b.example, port: 80, weight: 2}], retries: 4}
"""


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A process of its own: no files, no variables of ours, no registry yet."""
    for name in list(os.environ):
        if name.startswith(("AUTOBOT_", "REDIS_", "AI_STACK_", "BACKEND_", "KUBERNETES_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    reset_service_registry()
    yield monkeypatch
    reset_service_registry()


@pytest.fixture
def registry(tmp_path: Path) -> ServiceRegistry:
    file = tmp_path / "services.yml"
    file.write_text(FILE)
    return ServiceRegistry(config_file=file, environ={})


@pytest.mark.parametrize(
    ("mode", "redis", "ai"),
    [
        ("local", "redis://localhost:6379", "http://localhost:8080/api/process"),
        ("docker_local", "redis://autobot-redis:6379", "http://autobot-ai-stack:8080/api/process"),
        (
            "distributed",
            "redis://redis-01.autobot.prod:6379",
            "http://ai-worker-01.autobot.prod:8080/api/process",
        ),
    ],
)
def test_urls_of_the_seed(process: pytest.MonkeyPatch, mode: str, redis: str, ai: str) -> None:
    process.setenv("AUTOBOT_DEPLOYMENT_MODE", mode)
    assert get_service_url("redis") == redis
    assert get_service_url("ai-stack", "/api/process") == ai
    registry = get_service_registry()
    assert registry.deployment_mode.value == mode
    assert registry.deployment_mode is DeploymentMode(mode)
    assert registry.list_services() == ["redis", "backend", "frontend", "ai-stack", "npu-worker"]


def test_overview_of_the_seed(process: pytest.MonkeyPatch) -> None:
    process.setenv("AUTOBOT_DEPLOYMENT_MODE", "local")
    info = get_service_registry().get_deployment_info()
    assert (info["deployment_mode"], info["domain"], info["services_count"]) == ("local", "localhost", 5)
    lines = [
        f"{service}: {details['url']} ({details['health']})" for service, details in info["services"].items()
    ]
    assert lines[0] == "redis: redis://localhost:6379 (unknown)"
    assert info["services"]["backend"] == {
        "url": "http://localhost:8001",
        "host": "localhost",
        "port": 8001,
        "scheme": "http",
        "health": "unknown",
        "health_endpoint": "/api/system/health",
        "timeout": 30,
        "circuit_breaker_threshold": 5,
        "circuit_breaker_timeout": 60,
        "retries": 1,
        "endpoints": ["localhost:8001"],
        "source": "static",
        "stale": False,
    }


def test_one_registry_for_the_process(process: pytest.MonkeyPatch) -> None:
    with ThreadPoolExecutor(8) as pool:
        registries = set(pool.map(lambda _: get_service_registry(), range(32)))
    assert len(registries) == 1
    reset_service_registry()
    assert get_service_registry() not in registries


def test_service_config_has_the_seeds_fields() -> None:
    config = ServiceConfig("redis", "localhost", 6379)
    names = [field.name for field in fields(config)]
    assert names[:7] == [
        "name",
        "host",
        "port",
        "scheme",
        "health_endpoint",
        "timeout",
        "circuit_breaker_threshold",
    ]
    assert (config.scheme, config.health_endpoint, config.timeout, config.circuit_breaker_threshold) == (
        "http",
        "/health",
        30,
        5,
    )
    assert (config.circuit_breaker_timeout, config.retries) == (60.0, 1)


def test_service_configs(registry: ServiceRegistry) -> None:
    assert registry.get_service_config("redis") == ServiceConfig(
        "redis", "redis.example", 6379, "redis", "/", 2.5, 5, circuit_breaker_timeout=1.5
    )
    assert registry.get_service_config("api") == ServiceConfig("api", "a.example", 80, retries=4)
    assert repr(registry.get_service_config("api").timeout) == "30"


def test_statuses() -> None:
    assert [status.value for status in ServiceStatus] == ["healthy", "unhealthy", "circuit_open", "unknown"]


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("", "http://[::1]:8000"),
        ("/", "http://[::1]:8000/"),
        ("a/b", "http://[::1]:8000/a/b"),
        ("//a//b?c=/", "http://[::1]:8000/a//b?c=/"),
        ("?q=1", "http://[::1]:8000/?q=1"),
    ],
)
def test_joining(registry: ServiceRegistry, path: str, url: str) -> None:
    assert registry.get_service_url("six", path) == url


def test_endpoints_of_a_load_balancer_take_turns(registry: ServiceRegistry) -> None:
    urls = [registry.get_service_url("api") for _ in range(30)]
    assert urls.count("http://a.example:80") == 10
    assert urls.count("http://b.example:80") == 20
    assert registry.get_deployment_info()["services"]["api"]["endpoints"] == ["a.example:80", "b.example:80"]


@pytest.mark.parametrize(
    ("scheme", "host", "url"),
    [
        ("http", "unix:/run/app.sock", "http+unix://%2Frun%2Fapp.sock/x"),
        ("http", "unix:@a:b%c", "http+unix://%40a%3Ab%25c/x"),
        ("redis", "unix:/run/redis.sock", "unix:///run/redis.sock"),
    ],
)
def test_urls_of_unix_sockets(tmp_path: Path, scheme: str, host: str, url: str) -> None:
    """As requests-unixsocket and docker-py spell them, and as redis-py does."""
    path = tmp_path / "sidecar.yml"
    path.write_text(f'services: {{s: {{host: "{host}", scheme: {scheme}, port: 80}}}}')
    found = ServiceRegistry(config_file=path, environ={})
    assert found.get_service_url("s", "x") == url
    assert found.get_service_config("s").host == host


def test_unknown_services(registry: ServiceRegistry) -> None:
    for ask in (registry.get_service_url, registry.get_service_config):
        with pytest.raises(UnknownUpstreamError, match="known are: redis, six, api"):
            ask("mail")


def test_debugging_tells_what_was_resolved_and_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("sidecar.registry")
    before = logger.level
    file = tmp_path / "services.yml"
    file.write_text(FILE)
    environ = {"AUTOBOT_SERVICE_REGISTRY_DEBUG": "true", "REDIS_HOST": "moved.example", "API_HOST": "x"}
    try:
        registry = ServiceRegistry(file, environ=environ)
        registry.get_service_url("redis")
    finally:
        logger.setLevel(before)
    assert caplog.messages == [
        "deployment mode local (detected: no container, no Kubernetes)"
        if registry.deployment_mode is DeploymentMode.LOCAL
        else "deployment mode docker_local (detected: inside a container)",
        f"services from {file}, domain {'localhost' if registry.deployment_mode is DeploymentMode.LOCAL else 'none'}",
        "environment overrides: REDIS_HOST",
        "note: API_HOST was ignored: api is a load balancer, its variable is API_HOSTS",
        "redis is at moved.example:6379",
        "six is at [::1]:8000",
        "api is at a.example:80, b.example:80",
        "redis is redis://moved.example:6379",
    ]


DEBUG = {"AUTOBOT_SERVICE_REGISTRY_DEBUG": "true"}


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
    """The registry's logger in a process that has set up no logging: pytest itself sets some up."""
    logger = logging.Logger("fresh")  # noqa: LOG001 - one below the root logger would have pytest's handlers
    monkeypatch.setattr("sidecar.registry.service_registry._log", lambda: logger)
    return logger


def test_debugging_is_seen_where_no_logging_is_set_up(
    fresh: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        ServiceRegistry(environ=DEBUG).get_service_url("redis")
    lines = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("redis is redis://") for line in lines) == 2, "each once"
    assert len(fresh.handlers) == 1


def test_debugging_leaves_logging_that_is_set_up_alone(fresh: logging.Logger) -> None:
    own = logging.NullHandler()
    fresh.addHandler(own)
    ServiceRegistry(environ=DEBUG)
    assert fresh.handlers == [own]


def test_without_debugging_nothing_is_said(fresh: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    ServiceRegistry(environ={}).get_service_url("redis")
    assert fresh.handlers == []
    assert fresh.level == logging.NOTSET


@pytest.mark.parametrize("debug", [True, False])
def test_an_application_without_logging_sees_it_on_stderr(tmp_path: Path, debug: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from sidecar import get_service_url; print(get_service_url('redis'))"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=clean_environment(AUTOBOT_DEPLOYMENT_MODE="local", **(DEBUG if debug else {})),
    )
    assert done.stdout == "redis://localhost:6379\n"
    assert ("redis is redis://localhost:6379" in done.stderr.splitlines()) is debug
    assert bool(done.stderr) is debug


def test_importing_the_package_loads_nothing_else() -> None:
    code = (
        "import sys, sidecar; "
        "print(*sorted(n for n in sys.modules if n.startswith(('sidecar', 'yaml', 'msgspec'))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(sidecar.__file__).parents[1],
    )
    assert done.stdout.split() == ["sidecar", "sidecar.version"]


def test_public_names() -> None:
    for name in sidecar.__all__:
        assert getattr(sidecar, name) is not None
        assert name in dir(sidecar)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = sidecar.nothing


def test_a_router_is_no_service(tmp_path: Path) -> None:
    """It is a port of the sidecar's: whoever looks a service up is told of those behind it."""
    path = tmp_path / "sidecar.yml"
    path.write_text(
        "services: {api: {host: api.example, port: 80}}\nrouters: {front: {port: 8000, routes: [{to: api}]}}\n"
    )
    registry = ServiceRegistry(path, environ={})
    assert registry.list_services() == ["api"]
    with pytest.raises(UnknownUpstreamError, match="no service or load balancer is called `front`"):
        registry.get_service_url("front")
    assert registry.get_deployment_info()["services_count"] == 1
