"""The proxies that are compared, each with one worker and set up for the same work.

A peer balances HTTP round robin over the three origins on its `http` port with connections kept alive on both
sides, and relays TCP to Redis on its `redis` port. None logs requests; all keep their ordinary time-outs.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from origins import Origins
from programs import Programs, find, free_port

__all__ = ["PEERS", "HAProxy", "Nginx", "Peer", "Sidecar", "UnavailableError"]

ROOT = Path(__file__).resolve().parent.parent
STREAM_MODULES = (
    "/usr/lib/nginx/modules/ngx_stream_module.so",
    "/usr/lib64/nginx/modules/ngx_stream_module.so",
)


class UnavailableError(Exception):
    """The peer cannot take part; the text says why."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A running proxy. redis is None when it does not relay TCP here."""

    name: str
    version: str
    pid: int
    http: int
    redis: int | None


class HAProxy:
    """HAProxy, one thread."""

    name = "HAProxy"

    def start(self, programs: Programs, origins: Origins, cpus: set[int]) -> Peer:
        """Start it. Raises `UnavailableError`."""
        program = _program("haproxy", self.name)
        http, redis = free_port(), free_port() if origins.redis else None
        servers = "".join(f"  server o{index} 127.0.0.1:{port}\n" for index, port in enumerate(origins.http))
        text = f"""global
  nbthread 1
  maxconn 8192
defaults
  timeout connect 1s
  timeout client 60s
  timeout server 30s
listen http
  mode http
  bind 127.0.0.1:{http}
  balance roundrobin
  option http-keep-alive
  http-reuse always
{servers}"""
        if redis:
            text += f"""listen redis
  mode tcp
  bind 127.0.0.1:{redis}
  server redis 127.0.0.1:{origins.redis}
"""
        config = programs.directory / "haproxy.cfg"
        config.write_text(text)
        ports = [http, redis] if redis else [http]
        pid = programs.start(self.name, [program, "-db", "-f", str(config)], ports, cpus)
        return Peer(self.name, _version([program, "-v"]), pid, http, redis)


class Nginx:
    """nginx as a proxy, one worker; TCP with its stream module where that is installed."""

    name = "nginx"

    def start(self, programs: Programs, origins: Origins, cpus: set[int]) -> Peer:
        """Start it. Raises `UnavailableError`."""
        program = _program("nginx", self.name)
        directory = programs.directory
        module = next((path for path in STREAM_MODULES if Path(path).exists()), None)
        http, redis = free_port(), free_port() if origins.redis and module else None
        servers = " ".join(f"server 127.0.0.1:{port};" for port in origins.http)
        stream = f"""load_module {module};
stream {{ server {{ listen 127.0.0.1:{redis}; proxy_pass 127.0.0.1:{origins.redis}; }} }}
"""
        text = f"""{stream if redis else ""}daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  keepalive_requests 100000000;
  client_body_temp_path {directory};
  proxy_temp_path {directory};
  fastcgi_temp_path {directory};
  uwsgi_temp_path {directory};
  scgi_temp_path {directory};
  upstream origins {{ {servers} keepalive 64; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{http};
    location / {{
      proxy_pass http://origins;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
    }}
  }}
}}
"""
        config = directory / "nginx-proxy.conf"
        config.write_text(text)
        command = [program, "-p", str(directory), "-e", "stderr", "-c", str(config)]
        pid = programs.start(self.name, command, [http, redis] if redis else [http], cpus)
        return Peer(self.name, _version([program, "-v"]), pid, http, redis)


@dataclass(frozen=True, slots=True)
class Sidecar:
    """The sidecar of a checkout (this one), started by a Python that has its dependencies."""

    name: str = "sidecar"
    root: Path = ROOT

    def start(self, programs: Programs, origins: Origins, cpus: set[int]) -> Peer:
        """Start it. Raises `UnavailableError`."""
        python = _python()
        http, redis = free_port(), free_port() if origins.redis else None
        hosts = ", ".join(f'"127.0.0.1:{port}"' for port in origins.http)
        service = f"services: {{redis: {{host: 127.0.0.1, port: {origins.redis}, scheme: redis}}}}\n"
        text = f"""{service if redis else ""}load_balancers: {{origins: {{hosts: [{hosts}]}}}}
sidecar:
  bind: [127.0.0.1]
  ports: {{{http}: origins{f", {redis}: redis" if redis else ""}}}
  admin: 127.0.0.1:{free_port()}
  metrics: 127.0.0.1:{free_port()}
"""
        config = programs.directory / f"{self.name}.yml"
        config.write_text(text)
        # -P: what is imported is the checkout's, which PYTHONPATH names, and not the current directory's.
        command = [
            "env",
            f"PYTHONPATH={self.root}",
            "AUTOBOT_DEPLOYMENT_MODE=local",
            python,
            "-P",
            "-m",
            "sidecar",
        ]
        ports = [http, redis] if redis else [http]
        pid = programs.start(self.name, [*command, "run", "--config", str(config)], ports, cpus)
        told = _version(["env", f"PYTHONPATH={self.root}", python, "-P", "-m", "sidecar", "--version"])
        return Peer(self.name, told, pid, http, redis)


PEERS = (HAProxy(), Nginx(), Sidecar())


def _program(name: str, peer: str) -> str:
    program = find(name)
    if program is None:
        raise UnavailableError(f"{peer}: not installed (Debian: apt-get install {name})")
    return program


def _python() -> str:
    """This Python, or the one of the checkout's test environment."""
    for python in (sys.executable, str(ROOT / ".venv" / "bin" / "python")):
        check = [python, "-c", "import uvloop, yaml, aiohttp, prometheus_client"]
        if (
            os.access(python, os.X_OK)
            and subprocess.run(check, capture_output=True, check=False).returncode == 0
        ):
            return python
    raise UnavailableError(
        "sidecar: its dependencies are missing; install it once, as the README says: "
        "python3 -m venv .venv && .venv/bin/pip install ."
    )


def _version(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
    return found.group() if found else "unknown"
