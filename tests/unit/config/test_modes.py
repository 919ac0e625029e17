"""The four modes: which it is, and what the well-known services are in it."""

from pathlib import Path

import pytest

from sidecar.config import DeploymentMode, load_settings
from sidecar.config.modes import built_in_services, default_domain, in_container
from sidecar.errors import ConfigurationError

HOSTS = {
    DeploymentMode.LOCAL: dict.fromkeys(
        ("redis", "backend", "frontend", "ai-stack", "npu-worker"), "localhost"
    ),
    DeploymentMode.DOCKER_LOCAL: {
        "redis": "autobot-redis",
        "backend": "autobot-backend",
        "frontend": "autobot-frontend",
        "ai-stack": "autobot-ai-stack",
        "npu-worker": "autobot-npu-worker",
    },
    DeploymentMode.DISTRIBUTED: {
        "redis": "redis-01.autobot.prod",
        "backend": "api-01.autobot.prod",
        "frontend": "web-01.autobot.prod",
        "ai-stack": "ai-worker-01.autobot.prod",
        "npu-worker": "npu-farm-01.autobot.prod",
    },
    DeploymentMode.KUBERNETES: {
        "redis": "redis-service.autobot-system.svc.cluster.local",
        "backend": "backend-service.autobot-system.svc.cluster.local",
        "frontend": "frontend-service.autobot-system.svc.cluster.local",
        "ai-stack": "ai-stack-service.autobot-system.svc.cluster.local",
        "npu-worker": "npu-worker-service.autobot-system.svc.cluster.local",
    },
}


@pytest.mark.parametrize("mode", DeploymentMode, ids=lambda mode: mode.value)
def test_built_in_hosts(mode: DeploymentMode) -> None:
    services = built_in_services(mode, default_domain(mode))
    assert {name: service.host for name, service in services.items()} == HOSTS[mode]


def test_built_in_services_are_those_of_the_seed() -> None:
    services = built_in_services(DeploymentMode.LOCAL, "localhost")
    assert {name: (s.port, s.scheme, s.health_endpoint) for name, s in services.items()} == {
        "redis": (6379, "redis", "/"),
        "backend": (8001, "http", "/api/system/health"),
        "frontend": (5173, "http", "/"),
        "ai-stack": (8080, "http", "/health"),
        "npu-worker": (8081, "http", "/health"),
    }


K8S = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}


@pytest.mark.parametrize(
    ("environ", "container", "mode", "reason"),
    [
        ({}, False, "local", "detected: no container, no Kubernetes"),
        ({}, True, "docker_local", "detected: inside a container"),
        (K8S, True, "kubernetes", "detected: KUBERNETES_SERVICE_HOST is set"),
        ({**K8S, "AUTOBOT_DISTRIBUTED": "Yes"}, True, "distributed", "AUTOBOT_DISTRIBUTED"),
        ({"AUTOBOT_DISTRIBUTED": "off"}, False, "local", "detected: no container, no Kubernetes"),
        ({"AUTOBOT_DISTRIBUTED": ""}, True, "docker_local", "detected: inside a container"),
        (
            {**K8S, "AUTOBOT_DEPLOYMENT_MODE": "Docker-Local"},
            False,
            "docker_local",
            "AUTOBOT_DEPLOYMENT_MODE",
        ),
        (
            {"AUTOBOT_DISTRIBUTED": "1", "AUTOBOT_DEPLOYMENT_MODE": "local"},
            False,
            "local",
            "AUTOBOT_DEPLOYMENT_MODE",
        ),
    ],
)
def test_detection(tmp_path: Path, environ: dict[str, str], container: bool, mode: str, reason: str) -> None:
    settings = load_settings(environ=environ, container=container, directory=tmp_path)
    assert (settings.mode.value, settings.mode_reason) == (mode, reason)
    assert settings.origin == f"built-in defaults ({mode})"


def test_precedence_of_the_mode(tmp_path: Path) -> None:
    file = tmp_path / "f.yml"
    file.write_text("deployment: {mode: kubernetes}\n")
    environ = {"AUTOBOT_DISTRIBUTED": "true"}
    from_file = load_settings(file, environ=environ, container=False)
    assert (from_file.mode, from_file.mode_reason) == (
        DeploymentMode.KUBERNETES,
        "deployment.mode of the file",
    )
    environ["AUTOBOT_DEPLOYMENT_MODE"] = "docker_local"
    assert load_settings(file, environ=environ, container=False).mode is DeploymentMode.DOCKER_LOCAL
    flag = load_settings(file, environ=environ, mode=DeploymentMode.LOCAL, container=False)
    assert (flag.mode, flag.mode_reason) == (DeploymentMode.LOCAL, "the mode flag")


def test_a_wrong_variable_is_told_beside_the_flag(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="AUTOBOT_DEPLOYMENT_MODE"):
        load_settings(
            environ={"AUTOBOT_DEPLOYMENT_MODE": "x"},
            mode=DeploymentMode.LOCAL,
            container=False,
            directory=tmp_path,
        )


def test_container_marks(tmp_path: Path) -> None:
    marker = tmp_path / ".dockerenv"
    assert not in_container({}, (str(marker),))
    assert in_container({"container": "podman"}, (str(marker),))
    marker.touch()
    assert in_container({}, (str(marker),))


def test_whether_this_is_a_container_is_found_out(tmp_path: Path) -> None:
    settings = load_settings(environ={"container": "lxc"}, directory=tmp_path)
    assert settings.mode is DeploymentMode.DOCKER_LOCAL


@pytest.mark.parametrize(
    ("mode", "redis", "domain"),
    [
        (DeploymentMode.LOCAL, "localhost", "x.example"),
        (DeploymentMode.DOCKER_LOCAL, "autobot-redis", "x.example"),
        (DeploymentMode.DISTRIBUTED, "redis-01.x.example", "x.example"),
        (DeploymentMode.KUBERNETES, "redis-service.x.example", "x.example"),
    ],
)
def test_domain(tmp_path: Path, mode: DeploymentMode, redis: str, domain: str) -> None:
    environ = {"AUTOBOT_DOMAIN": domain}
    settings = load_settings(environ=environ, mode=mode, container=False, directory=tmp_path)
    assert settings.domain == domain
    assert settings.upstream("redis").endpoints[0].host == redis


def test_the_variable_wins_over_the_domain_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "f.yml"
    file.write_text("deployment: {mode: distributed, domain: file.example}\n")
    from_file = load_settings(file, environ={}, container=False)
    assert from_file.upstream("redis").endpoints[0].host == "redis-01.file.example"
    moved = load_settings(file, environ={"AUTOBOT_DOMAIN": "env.example"}, container=False)
    assert moved.upstream("redis").endpoints[0].host == "redis-01.env.example"
