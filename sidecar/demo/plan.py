"""The demo's configuration: what a file would say, with ports that are free on this machine."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

from sidecar.config.settings import (
    Address,
    BreakerSettings,
    DeploymentMode,
    EndpointSettings,
    PolicySettings,
    Settings,
    SidecarSettings,
    UpstreamKind,
    UpstreamSettings,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["API", "ECHO", "plan", "preferably"]

API = "api"
ECHO = "echo"

# Three failures and two seconds, always the same, so that opening, probing and closing are seen as they happen.
BREAKER = BreakerSettings(consecutive_failures=3, open_for=2.0, max_open_for=2.0, jitter=0.0)


def plan(api_ports: Sequence[int], echo_port: int) -> Settings:
    """Settings for the upstreams `api` (http, one endpoint for each of `api_ports`) and `echo` (tcp).

    The sidecar's own ports are the usual ones where these are free, else any (0).
    """
    return Settings(
        mode=DeploymentMode.LOCAL,
        domain="localhost",
        origin="the demo",
        upstreams=(
            _upstream(API, UpstreamKind.LOAD_BALANCER, "http", api_ports, preferably(8080)),
            _upstream(ECHO, UpstreamKind.SERVICE, "tcp", [echo_port], preferably(7000)),
        ),
        sidecar=SidecarSettings(
            admin=Address("127.0.0.1", preferably(9901)), metrics=Address("127.0.0.1", preferably(9902))
        ),
        log_level="WARNING",
        registry_debug=False,
        notes=(),
    )


def preferably(port: int) -> int:
    """`port`, or 0 (any that is free) when something listens there on a loopback address.

    Free a moment ago, that is: whoever binds it may still find it taken.
    """
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            with socket.socket(family) as probe:
                # As servers do: connections of an earlier run that linger in TIME_WAIT do not take a port.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return 0
    return port


def _upstream(
    name: str, kind: UpstreamKind, scheme: str, ports: Sequence[int], listen_port: int
) -> UpstreamSettings:
    return UpstreamSettings(
        name=name,
        kind=kind,
        scheme=scheme,
        endpoints=tuple(EndpointSettings("127.0.0.1", port) for port in ports),
        strategy="round_robin",
        health_endpoint="/",
        listen_port=listen_port,
        skipped=None,
        policy=PolicySettings(idle_timeout=3.0 if scheme == "http" else 0.0, breaker=BREAKER),
    )
