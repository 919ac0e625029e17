"""What the Python API tells about one service: the seed's names, `ServiceConfig` and `ServiceStatus`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["ServiceConfig", "ServiceStatus"]


class ServiceStatus(Enum):
    """How a service was at its last check."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    CIRCUIT_OPEN = "circuit_open"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class ServiceConfig:
    """A service or load balancer; of the latter, host and port are its first endpoint's.

    The first seven fields are the seed's, in its order and with its defaults.

    timeout, circuit_breaker_timeout: seconds, whole ones as `int`. circuit_breaker_timeout is how long the
    breaker stays open, at its longest. retries: further attempts after a failed one.
    """

    name: str
    host: str
    port: int
    scheme: str = "http"
    health_endpoint: str = "/health"
    timeout: float = 30
    circuit_breaker_threshold: int = 5
    circuit_breaker_timeout: float = 60.0
    retries: int = 1
