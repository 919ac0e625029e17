"""The Python API: `service` (what it tells), `service_registry` (who tells it), `health` (who asks services).

`health` is loaded by the first who asks.
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
