"""Real servers on free loopback ports, each with a directory of its own."""

import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

from support.ports import free_port
from support.processes import Process, find_program
from support.waiting import wait_until

__all__ = ["Nginx", "Redis", "Server", "answers"]


def answers(port: int, host: str = "127.0.0.1") -> bool:
    """Whether somebody accepts connections there."""
    try:
        with socket.create_connection((host, port), 1.0):
            return True
    except OSError:
        return False


class Server:
    """A program that listens on `ports`. Used as a context manager; start and stop may be repeated."""

    program = ""
    environ: Mapping[str, str] | None = None  # of the program; None is that of the tests

    def __init__(self, directory: Path, ports: Iterable[int]) -> None:
        self.directory = directory
        self.ports = list(ports)
        self.process: Process | None = None
        directory.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def command(self) -> list[str | Path]:
        """What to run, program first; writes the configuration it needs."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it and wait until every port accepts. When it ends instead, its own words fail the test."""
        process = self.process = Process(self.command(), self.directory, self.environ, self.program)

        def ready() -> bool:
            if not process.running:
                raise AssertionError(f"{self.program} ended at start: {process.stderr or process.stdout}")
            return all(answers(port) for port in self.ports)

        try:
            wait_until(ready, f"{self.program} on {self.ports}")
        except BaseException:
            process.kill()
            raise

    def stop(self) -> None:
        """End it, also its workers; nothing when it is not running."""
        if self.process is not None:
            self.process.stop()
            self.process = None

    def kill(self) -> None:
        """End it as a power cut would: established connections are reset, new ones refused."""
        if self.process is not None:
            self.process.kill()
            self.process = None


class Nginx(Server):
    """One nginx process with a server block for each name, which it says in its body and in `X-Endpoint`.

    ports: of the names, in order. `/big` serves the file `big` of the directory, if there; `/upload/NAME`
    stores what is PUT in `uploads/NAME`; everything else answers the name and a line feed.
    """

    program = "nginx"

    def __init__(self, directory: Path, *names: str, ports: Iterable[int] = ()) -> None:
        chosen = list(ports) or [free_port() for _ in names]
        super().__init__(directory, chosen)
        self.names = names

    @property
    def port(self) -> int:
        """The first port."""
        return self.ports[0]

    def uploaded(self, name: str) -> Path:
        """Where a PUT to /upload/NAME is stored."""
        return self.directory / "uploads" / name

    def block(self, name: str, port: int) -> str:
        """The server block of one name."""
        return f"""
  server {{
    listen 127.0.0.1:{port} backlog=2048;
    add_header X-Endpoint {name} always;
    location / {{ return 200 "{name}\\n"; }}
    location = /big {{ alias {self.directory}/big; }}
    location /upload/ {{
      alias {self.directory}/uploads/;
      dav_methods PUT;
      client_max_body_size 0;
    }}
  }}"""

    def command(self) -> list[str | Path]:
        for folder in ("uploads", "temporary"):
            (self.directory / folder).mkdir(exist_ok=True)
        # One process: a worker of a root master changes to another user, who could not store uploads.
        blocks = "".join(self.block(name, port) for name, port in zip(self.names, self.ports, strict=True))
        temporary = "".join(
            f"  {kind}_temp_path {self.directory}/temporary;\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        config = self.directory / "nginx.conf"
        config.write_text(f"""daemon off;
master_process off;
pid {self.directory}/nginx.pid;
error_log stderr warn;
worker_rlimit_nofile 8192;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  default_type text/plain;
  keepalive_requests 1000000;
  keepalive_timeout 60s;
{temporary}{blocks}
}}
""")
        return [_installed(self.program), "-p", self.directory, "-e", "stderr", "-c", config]


class Redis(Server):
    """A redis-server that keeps nothing on disk."""

    program = "redis-server"

    def __init__(self, directory: Path, port: int = 0) -> None:
        super().__init__(directory, [port or free_port()])

    @property
    def port(self) -> int:
        """Its port."""
        return self.ports[0]

    def command(self) -> list[str | Path]:
        options = {
            "port": self.port,
            "bind": "127.0.0.1",
            "save": "",
            "appendonly": "no",
            "dir": self.directory,
        }
        flags = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
        return [_installed(self.program), *flags]

    def stop(self) -> None:
        """End it; whatever file it wrote at the end is not wanted."""
        super().stop()
        with suppress(FileNotFoundError):
            (self.directory / "dump.rdb").unlink()


def _installed(name: str) -> str:
    program = find_program(name)
    if program is None:
        raise AssertionError(f'{name} is not installed; mark the test @pytest.mark.server("{name}")')
    return program
