"""A client-side load-balancing sidecar proxy, and where services are for Python programs that ask.

    from sidecar import get_service_url

    redis_url = get_service_url("redis")
    # redis://localhost:6379 (local), redis://autobot-redis:6379 (docker_local),
    # redis://redis-01.autobot.prod:6379 (distributed)

    ai_endpoint = get_service_url("ai-stack", "/api/process")
    # http://ai-worker-01.autobot.prod:8080/api/process (distributed)

    health = await get_service_registry().check_service_health("redis")

The public names are loaded when first used (PEP 562), so that `import sidecar` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from sidecar.version import __version__

if TYPE_CHECKING:
    from sidecar.config.settings import DeploymentMode
    from sidecar.registry.health import ServiceHealth
    from sidecar.registry.service import ServiceConfig, ServiceStatus
    from sidecar.registry.service_registry import ServiceRegistry, get_service_registry, get_service_url

__all__ = [
    "DeploymentMode",
    "ServiceConfig",
    "ServiceHealth",
    "ServiceRegistry",
    "ServiceStatus",
    "__version__",
    "get_service_registry",
    "get_service_url",
]

_HOMES = {
    "DeploymentMode": "sidecar.config.settings",
    "ServiceConfig": "sidecar.registry.service",
    "ServiceHealth": "sidecar.registry.health",
    "ServiceRegistry": "sidecar.registry.service_registry",
    "ServiceStatus": "sidecar.registry.service",
    "get_service_registry": "sidecar.registry.service_registry",
    "get_service_url": "sidecar.registry.service_registry",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value  # the next use finds it without asking here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
