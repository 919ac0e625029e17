"""What the proxies stand before: three nginx servers with small and large answers, and a Redis."""

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from certificates import Certificate, make_certificate
from programs import Programs, find, free_ports

__all__ = ["BULK", "LARGE", "SMALL", "Front", "Origins", "start_origins"]

SMALL = 130  # bytes of the answer to /
LARGE = 1024 * 1024  # bytes of the answer to /large
BULK = 100 * LARGE  # bytes of the answer to /bulk
ENDPOINTS = 100
UPSTREAMS = 50
SERVERS = 3  # processes, so that a proxy's connections do not all end in one


@dataclass(frozen=True, slots=True)
class Front:
    """What one proxy is to listen for. backends: for each port that it opens, the addresses behind it.

    secure: what the backends show, who speak TLS then; door: what the proxy shows its clients. None is in the clear.
    """

    protocol: Literal["http", "tcp"]
    backends: tuple[tuple[str, ...], ...]
    secure: Certificate | None = None
    door: Certificate | None = None


@dataclass(frozen=True, slots=True)
class Origins:
    """Addresses of 127.0.0.1. redis is None when redis-server is not installed, certificate without openssl.

    secure: over TLS. closing: too, and they close each connection behind its first answer.
    """

    balanced: tuple[str, ...]
    endpoints: tuple[str, ...]
    upstreams: tuple[str, ...]
    redis: str | None
    secure: tuple[str, ...] = ()
    closing: tuple[str, ...] = ()
    certificate: Certificate | None = None

    def front(self, name: str) -> Front | None:
        """`balanced` (over three), `endpoints` (over 100), `upstreams` (50 alone) or `redis`; three over TLS are
        `secure`, and `closing` with a connection for each request; `door` is TLS before `balanced`.

        None without Redis, or without openssl.
        """
        if name in ("secure", "closing", "door"):
            if self.certificate is None:
                return None
            if name == "door":
                return Front("http", (self.balanced,), door=self.certificate)
            behind = self.closing if name == "closing" else self.secure
            return Front("http", (behind,), secure=self.certificate)
        if name == "redis":
            return Front("tcp", ((self.redis,),)) if self.redis else None
        if name == "upstreams":
            return Front("http", tuple((address,) for address in self.upstreams))
        return Front("http", (self.endpoints if name == "endpoints" else self.balanced,))


def start_origins(programs: Programs, cpus: set[int]) -> Origins:
    """Start them. Raises `RuntimeError` when nginx is not installed: there would be nothing to measure."""
    nginx = find("nginx")
    if nginx is None:
        raise RuntimeError(
            "nginx is not installed, and the origins are nginx; install it (Debian: nginx-light)"
        )
    directory = programs.directory
    (directory / "large").write_bytes(b"x" * LARGE)
    with (directory / "bulk").open("wb") as file:
        file.truncate(BULK)  # a hole, which costs no disk
    certificate = make_certificate(directory)
    ports = free_ports(SERVERS + ENDPOINTS + UPSTREAMS + 2 * SERVERS)
    secure, closing = ports[-2 * SERVERS : -SERVERS], ports[-SERVERS:]
    del ports[-2 * SERVERS :]
    for number in range(SERVERS):
        own = ports[number::SERVERS]
        config = directory / f"origin-{number}.conf"
        over_tls = "" if certificate is None else _tls_servers(certificate, secure[number], closing[number])
        config.write_text(_nginx_config(directory, number, own, over_tls))
        command = [nginx, "-p", str(directory), "-e", "stderr", "-c", str(config)]
        programs.start(f"origin-{number}", command, own, cpus)
    addresses = tuple(f"127.0.0.1:{port}" for port in ports)
    return Origins(
        addresses[:SERVERS],
        addresses[SERVERS : SERVERS + ENDPOINTS],
        addresses[SERVERS + ENDPOINTS :],
        _start_redis(programs, cpus),
        tuple(f"127.0.0.1:{port}" for port in secure),
        tuple(f"127.0.0.1:{port}" for port in closing),
        certificate,
    )


def _start_redis(programs: Programs, cpus: set[int]) -> str | None:
    program = find("redis-server")
    if program is None:
        return None
    (port,) = free_ports(1)
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    programs.start("redis", command, [port], cpus)
    # The one key that redis-benchmark asks for, so that GET finds something: the three bytes that it would set.
    with socket.create_connection(("127.0.0.1", port), 5.0) as client:
        client.sendall(b"SET key:__rand_int__ xxx\r\n")
        if client.recv(64) != b"+OK\r\n":
            raise RuntimeError("redis-server took no SET")
    return f"127.0.0.1:{port}"


def _tls_servers(certificate: Certificate, secure: int, closing: int) -> str:
    """Small answers over TLS, on a port that keeps connections and on one that closes them."""
    return "".join(
        f"""
  server {{
    listen 127.0.0.1:{port} ssl backlog=4096;
    ssl_certificate {certificate.cert};
    ssl_certificate_key {certificate.key};
    keepalive_timeout {keep};
    location / {{ return 200 "{"x" * (SMALL - 1)}\\n"; }}
  }}"""
        for port, keep in ((secure, "65s"), (closing, "0"))
    )


def _nginx_config(directory: Path, number: int, ports: list[int], more: str) -> str:
    """One origin. more: servers of it.

    An upload is read whole before it is answered, as an application does: `return` would answer at once, so
    /upload passes on to the server itself, without the body.
    """
    listens = "\n".join(f"    listen 127.0.0.1:{port};" for port in ports)
    return f"""daemon off;
master_process off;
pid {directory}/origin-{number}.pid;
error_log stderr warn;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_timeout 65s;
  keepalive_requests 100000000;
  client_max_body_size 64m;
  client_body_buffer_size 16m;
  default_type text/plain;
  client_body_temp_path {directory};
  proxy_temp_path {directory};
  fastcgi_temp_path {directory};
  uwsgi_temp_path {directory};
  scgi_temp_path {directory};
  upstream itself {{ server unix:{directory}/origin-{number}.sock; keepalive 64; }}
  server {{
{listens}
    listen unix:{directory}/origin-{number}.sock;
    location / {{ return 200 "{"x" * (SMALL - 1)}\\n"; }}
    location = /large {{ alias {directory}/large; }}
    location = /bulk {{ alias {directory}/bulk; }}
    location = /upload {{
      proxy_pass http://itself/;
      proxy_method GET;
      proxy_pass_request_body off;
      proxy_pass_request_headers off;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Content-Length "";
    }}
  }}{more}
}}
"""
