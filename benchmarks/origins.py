"""What the proxies stand before: three nginx servers with one small and one large answer, and a Redis."""

from dataclasses import dataclass
from pathlib import Path

from programs import Programs, find, free_port

__all__ = ["LARGE", "SMALL", "Origins", "start_origins"]

SMALL = 130  # bytes of the answer to /
LARGE = 1024 * 1024  # bytes of the answer to /large


@dataclass(frozen=True, slots=True)
class Origins:
    """Ports of 127.0.0.1. redis is None when redis-server is not installed."""

    http: tuple[int, ...]
    redis: int | None


def start_origins(programs: Programs, cpus: set[int]) -> Origins:
    """Start them. Raises `RuntimeError` when nginx is not installed: there would be nothing to measure."""
    nginx = find("nginx")
    if nginx is None:
        raise RuntimeError(
            "nginx is not installed, and the origins are nginx; install it (Debian: nginx-light)"
        )
    directory = programs.directory
    (directory / "large").write_bytes(b"x" * LARGE)
    http = tuple(free_port() for _ in range(3))
    for number, port in enumerate(http):
        config = directory / f"origin-{number}.conf"
        config.write_text(_nginx_config(directory, number, port))
        command = [nginx, "-p", str(directory), "-e", "stderr", "-c", str(config)]
        programs.start(f"origin-{number}", command, [port], cpus)
    redis = None
    if program := find("redis-server"):
        redis = free_port()
        command = [program, "--port", str(redis), "--bind", "127.0.0.1", "--save", ""]
        programs.start("redis", command, [redis], cpus)
    return Origins(http, redis)


def _nginx_config(directory: Path, number: int, port: int) -> str:
    return f"""daemon off;
master_process off;
pid {directory}/origin-{number}.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_timeout 65s;
  keepalive_requests 100000000;
  default_type text/plain;
  client_body_temp_path {directory};
  proxy_temp_path {directory};
  fastcgi_temp_path {directory};
  uwsgi_temp_path {directory};
  scgi_temp_path {directory};
  server {{
    listen 127.0.0.1:{port};
    location / {{ return 200 "{"x" * (SMALL - 1)}\\n"; }}
    location = /large {{ alias {directory}/large; }}
  }}
}}
"""
