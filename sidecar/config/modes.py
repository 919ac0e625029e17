"""The four deployment modes: which one this is, and the built-in services of each (the seed's tables)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from sidecar.config.record import Record
from sidecar.config.settings import DeploymentMode

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BuiltIn", "built_in_services", "default_domain", "detect_mode", "in_container", "mode_file"]


class BuiltIn(Record):
    """What a well-known service is when the file does not say."""

    host: str
    port: int
    scheme: str
    health_endpoint: str


_SERVICES: Final = {
    "redis": (6379, "redis", "/"),
    "backend": (8001, "http", "/api/system/health"),
    "frontend": (5173, "http", "/"),
    "ai-stack": (8080, "http", "/health"),
    "npu-worker": (8081, "http", "/health"),
}
# The guide's machines: the backend runs on the API machine, the model servers on machines of their own.
_MACHINES: Final = {
    "redis": "redis-01",
    "backend": "api-01",
    "frontend": "web-01",
    "ai-stack": "ai-worker-01",
    "npu-worker": "npu-farm-01",
}
_DOMAINS: Final = {
    DeploymentMode.LOCAL: "localhost",
    DeploymentMode.DOCKER_LOCAL: "",
    DeploymentMode.DISTRIBUTED: "autobot.prod",
    DeploymentMode.KUBERNETES: "autobot-system.svc.cluster.local",
}
# Docker's and Podman's marker files; systemd-nspawn, Podman and LXC set the variable `container`.
_MARKERS: Final = ("/.dockerenv", "/run/.containerenv")


def default_domain(mode: DeploymentMode) -> str:
    """What the host names of a mode end in when nobody says."""
    return _DOMAINS[mode]


def mode_file(mode: DeploymentMode) -> str:
    """The configuration file of a mode, relative to the project's directory."""
    return os.path.join("config", "deployment", mode.value.replace("_", "-") + ".yml")


def built_in_services(mode: DeploymentMode, domain: str) -> dict[str, BuiltIn]:
    """The five well-known services as they are in `mode`. domain: for the modes with host names of one."""
    return {
        name: BuiltIn(_host(name, mode, domain), port, scheme, health)
        for name, (port, scheme, health) in _SERVICES.items()
    }


def _host(name: str, mode: DeploymentMode, domain: str) -> str:
    if mode is DeploymentMode.LOCAL:
        return "localhost"
    if mode is DeploymentMode.DOCKER_LOCAL:
        return f"autobot-{name}"
    if mode is DeploymentMode.DISTRIBUTED:
        return f"{_MACHINES[name]}.{domain}"
    return f"{name}-service.{domain}"


def detect_mode(environ: Mapping[str, str], distributed: bool, container: bool) -> tuple[DeploymentMode, str]:
    """The mode when nobody names one, and what told it. distributed: AUTOBOT_DISTRIBUTED is true."""
    if distributed:
        return DeploymentMode.DISTRIBUTED, "AUTOBOT_DISTRIBUTED"
    if environ.get("KUBERNETES_SERVICE_HOST"):
        return DeploymentMode.KUBERNETES, "detected: KUBERNETES_SERVICE_HOST is set"
    if container:
        return DeploymentMode.DOCKER_LOCAL, "detected: inside a container"
    return DeploymentMode.LOCAL, "detected: no container, no Kubernetes"


def in_container(environ: Mapping[str, str], markers: tuple[str, ...] = _MARKERS) -> bool:
    """True inside a container, as far as its runtime tells."""
    return bool(environ.get("container")) or any(os.path.exists(marker) for marker in markers)
