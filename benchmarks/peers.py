"""What is compared: a program that can stand before origins, and the process of it that does.

The peers do comparable work with one worker each: round robin, connections kept alive on both sides, requests and
bodies streamed, time-outs of 1 s to connect, 30 s without an answer and 60 s without a request, and no log of
requests. What they do by default besides stays on: counters, and trying another server when one refuses.
"""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from certificates import NAME
from origins import Front
from programs import Programs, find, free_ports

__all__ = ["HAProxy", "Nginx", "Peer", "Proxy", "UnavailableError", "told_version"]

STREAM_MODULES = (
    "/usr/lib/nginx/modules/ngx_stream_module.so",
    "/usr/lib64/nginx/modules/ngx_stream_module.so",
)


class UnavailableError(Exception):
    """The peer cannot take part; the text says why."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A running peer: its process, and the port before each of the front's backends."""

    pid: int
    ports: tuple[int, ...]


class Peer(Protocol):
    """A program to compare. name: in the tables."""

    @property
    def name(self) -> str:
        """As named."""

    def version(self) -> str:
        """Which one is installed. Raises `UnavailableError` when none is."""

    def start(self, programs: Programs, front: Front, cpus: set[int]) -> Proxy:
        """Start it. Raises `UnavailableError` when it cannot do this, `RuntimeError` when it does not start."""


class HAProxy:
    """HAProxy, one thread. settings: of its `defaults`; server: what stands behind each server's address."""

    name = "HAProxy"
    settings = """  timeout connect 1s
  timeout client 60s
  timeout server 30s
  timeout http-request 10s
  timeout http-keep-alive 60s
  retries 1
  option redispatch 1
  option http-keep-alive
  http-reuse always
  balance roundrobin
"""
    server = ""

    def version(self) -> str:
        """Which one is installed."""
        return told_version([_program("haproxy", self.name), "-v"])

    def start(self, programs: Programs, front: Front, cpus: set[int]) -> Proxy:
        """Start it."""
        program = _program("haproxy", self.name)
        ports = free_ports(len(front.backends))
        text = f"global\n  nbthread 1\n  maxconn 8192\ndefaults\n{self.settings}"
        for number, (port, addresses) in enumerate(zip(ports, front.backends, strict=True)):
            door = f" ssl crt {front.door.both}" if front.door else ""
            text += f"listen l{number}\n  mode {front.protocol}\n  bind 127.0.0.1:{port}{door}\n"
            extra = self.server
            if front.secure:
                extra += f" ssl verify required ca-file {front.secure.ca} sni str({NAME}) verifyhost {NAME}"
            servers = (f"server s{index} {address} {extra}" for index, address in enumerate(addresses))
            text += "".join(f"  {server.rstrip()}\n" for server in servers)
        config = programs.directory / "haproxy.cfg"
        config.write_text(text)
        pid = programs.start(self.name, [program, "-db", "-f", str(config)], ports, cpus)
        return Proxy(pid, tuple(ports))


class Nginx:
    """nginx as a proxy, one worker; TCP with its stream module where that is installed."""

    name = "nginx"

    def version(self) -> str:
        """Which one is installed."""
        return told_version([_program("nginx", self.name), "-v"])

    def start(self, programs: Programs, front: Front, cpus: set[int]) -> Proxy:
        """Start it."""
        program = _program("nginx", self.name)
        directory = programs.directory
        ports = free_ports(len(front.backends))
        upstreams, servers = "", ""
        http = front.protocol == "http"
        for number, (port, addresses) in enumerate(zip(ports, front.backends, strict=True)):
            listed = " ".join(f"server {address};" for address in addresses)
            kept = "keepalive 1024; keepalive_requests 100000000; keepalive_timeout 60s;" if http else ""
            upstreams += f"  upstream u{number} {{ {listed} {kept} }}\n"
            scheme = "https" if front.secure else "http"
            route = f"location / {{ proxy_pass {scheme}://u{number}; }}" if http else f"proxy_pass u{number};"
            listen = f"127.0.0.1:{port}"
            if front.secure:
                route += f" proxy_ssl_verify on; proxy_ssl_trusted_certificate {front.secure.ca};"
                route += f" proxy_ssl_server_name on; proxy_ssl_name {NAME};"
            if front.door:
                listen += " ssl"
                route += f" ssl_certificate {front.door.cert}; ssl_certificate_key {front.door.key};"
            servers += f"  server {{ listen {listen}; {route} }}\n"
        module = "" if http else f"load_module {_stream_module(self.name)};\n"
        context = (_HTTP if http else _STREAM).format(directory=directory)
        config = directory / "nginx-proxy.conf"
        config.write_text(module + _MAIN.format(directory=directory) + context + upstreams + servers + "}\n")
        command = [program, "-p", str(directory), "-e", "stderr", "-c", str(config)]
        return Proxy(programs.start(self.name, command, ports, cpus), tuple(ports))


_MAIN = """daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr error;
events {{ worker_connections 16384; }}
"""
# Bodies are streamed as by the others; nginx's own default would write them to files first.
_HTTP = """http {{
  access_log off;
  keepalive_requests 100000000;
  client_max_body_size 0;
  client_body_temp_path {directory};
  proxy_temp_path {directory};
  fastcgi_temp_path {directory};
  uwsgi_temp_path {directory};
  scgi_temp_path {directory};
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  proxy_request_buffering off;
  proxy_max_temp_file_size 0;
  proxy_connect_timeout 1s;
  proxy_read_timeout 30s;
"""
_STREAM = """stream {{
  proxy_connect_timeout 1s;
"""


def _stream_module(name: str) -> str:
    for path in STREAM_MODULES:
        if Path(path).exists():
            return path
    raise UnavailableError(f"{name}: its stream module is not installed (Debian: libnginx-mod-stream)")


def _program(name: str, peer: str) -> str:
    program = find(name)
    if program is None:
        raise UnavailableError(f"{peer}: not installed (Debian: apt-get install {name})")
    return program


def told_version(command: list[str]) -> str:
    """The version that a program prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
    return found.group() if found else "unknown"
