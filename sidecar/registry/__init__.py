"""The Python API: `service` (what it tells), `service_registry` (who tells it), `health` (who asks services), `live`
(services that registries know of, with `forks`).

`health` is loaded by the first who asks, `live` by the first registry that has something to follow.
"""

from __future__ import annotations

from sidecar.registry.service import ServiceConfig, ServiceStatus
from sidecar.registry.service_registry import (
    ServiceRegistry,
    get_service_registry,
    get_service_url,
    reset_service_registry,
)

__all__ = [
    "ServiceConfig",
    "ServiceRegistry",
    "ServiceStatus",
    "get_service_registry",
    "get_service_url",
    "reset_service_registry",
]
