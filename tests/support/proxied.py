"""Real programs that speak the PROXY protocol: nginx, which says what it was told, and HAProxy, which tells."""

from pathlib import Path

from support.ports import free_port
from support.processes import find_program
from support.servers import Nginx, Server

__all__ = ["Haproxy", "SocketNginx", "Told"]


class Told(Nginx):
    """An nginx that takes nothing without a PROXY header, and answers with the client and the port that it names."""

    def block(self, name: str, port: int) -> str:
        told = "$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_port"
        return f"""
  server {{
    listen 127.0.0.1:{port} proxy_protocol;
    location / {{ return 200 "{told} $connection\\n"; }}
  }}"""


class SocketNginx(Nginx):
    """An nginx that listens on a unix socket too, `nginx.sock` in its directory."""

    @property
    def socket(self) -> Path:
        """Its path."""
        return self.directory / "nginx.sock"

    def block(self, name: str, port: int) -> str:
        return (
            super()
            .block(name, port)
            .replace("listen 127", f"listen unix:{self.socket};\n    listen 127", 1)
            .replace('return 200 "', 'return 200 "$http_host ')
        )


class Haproxy(Server):
    """An HAProxy with one frontend before one server. bind, server: what is said of either behind its address."""

    program = "haproxy"

    def __init__(self, directory: Path, target: str, *, mode: str, bind: str = "", server: str = "") -> None:
        super().__init__(directory, [free_port()])
        self._mode, self._target, self._bind, self._server = mode, target, bind, server

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.ports[0]

    def command(self) -> list[str | Path]:
        config = self.directory / "haproxy.cfg"
        config.write_text(f"""global
  maxconn 100
defaults
  mode {self._mode}
  timeout connect 5s
  timeout client 10s
  timeout server 10s
listen one
  bind 127.0.0.1:{self.port} {self._bind}
  server one {self._target} {self._server}
""")
        program = find_program(self.program)
        assert program is not None
        return [program, "-db", "-f", config]
