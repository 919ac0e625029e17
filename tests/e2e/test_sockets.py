"""Unix domain sockets on both sides, with the programs that people use them with."""

import os
import socket
import subprocess
from pathlib import Path

import pytest
from support.http import get
from support.ports import free_port
from support.processes import Process
from support.proxied import SocketNginx
from support.proxy import Sidecar, clean_environment, command
from support.servers import Redis
from support.waiting import wait_until

MIB = 1024 * 1024


class SocketRedis(Redis):
    """A redis-server that listens on a unix socket too."""

    @property
    def socket(self) -> Path:
        """Its path."""
        return self.directory / "redis.sock"

    def command(self) -> list[str | Path]:
        return [*super().command(), "--unixsocket", self.socket]


def configuration(text: str) -> str:
    own = 'bind: [127.0.0.1], admin: "127.0.0.1:ADMIN", metrics: "127.0.0.1:METRICS"'
    return text.replace("OWN", own)


def curl(sock: Path | str, path: str, *more: str) -> bytes:
    kind = "--abstract-unix-socket" if str(sock).startswith("@") else "--unix-socket"
    told = ["curl", "-sS", "-m", "20", kind, str(sock).removeprefix("@"), *more, f"http://any.example{path}"]
    return subprocess.run(told, check=True, capture_output=True).stdout


@pytest.mark.server("nginx", "curl")
def test_http_from_socket_to_socket(place: Path) -> None:
    listen, name = free_port(), f"@sidecar-{os.getpid()}"
    with SocketNginx(place / "nginx", "a") as nginx:
        (nginx.directory / "big").write_bytes(os.urandom(5 * MIB))
        text = configuration(f"""services:
  near: {{host: "unix:{nginx.socket}", port: {listen}, health_check: {{path: /, interval: 0.2}}}}
  far: {{host: 127.0.0.1, port: {nginx.port}}}
sidecar:
  {{OWN, ports: {{{listen}: near}}, sockets: {{{place}/near.sock: near, "{name}": {{to: far}}}}}}
""")
        with Sidecar(place, text) as sidecar:
            assert curl(place / "near.sock", "/") == b"localhost a\n"
            assert curl(name, "/") == b"127.0.0.1:%d a\n" % nginx.port
            assert get(listen, "/").text == "localhost a\n"
            assert (place / "near.sock").stat().st_mode & 0o777 == 0o660
            big = (nginx.directory / "big").read_bytes()
            assert curl(place / "near.sock", "/big") == big
            curl(place / "near.sock", "/upload/x", "-T", str(nginx.directory / "big"))
            assert nginx.uploaded("x").read_bytes() == big

            checks = 'sidecar_health_checks_total{result="success",upstream="near"}'
            wait_until(lambda: sidecar.metrics().get(checks), "a check of the endpoint")
            assert sidecar.upstream("near")["endpoints"][0]["address"] == f"unix:{nginx.socket}"
            labels = f'endpoint="unix:{nginx.socket}",outcome="success",upstream="near"'
            assert sidecar.metrics()[f"sidecar_attempts_total{{{labels}}}"] == 4
        assert not (place / "near.sock").exists()


@pytest.mark.server("redis-server")
def test_redis_from_socket_to_socket(place: Path) -> None:
    with SocketRedis(place / "redis") as redis:
        text = configuration(f"""services:
  redis: {{host: "unix:{redis.socket}", scheme: redis, health_check: {{interval: 0.2}}}}
sidecar: {{OWN, ports: {{}}, sockets: {{{place}/r.sock: redis}}}}
""")
        with Sidecar(place, text) as sidecar, socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10.0)
            sock.connect(f"{place}/r.sock")
            value = os.urandom(3 * MIB)
            sock.sendall(b"SET key %b\r\n" % b"x" + b"*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n$%d\r\n" % len(value))
            sock.sendall(value + b"\r\nGET big\r\nQUIT\r\n")
            with sock.makefile("rb") as replies:
                assert [replies.readline() for _ in range(3)] == [
                    b"+OK\r\n",
                    b"+OK\r\n",
                    b"$%d\r\n" % len(value),
                ]
                assert replies.read() == value + b"\r\n+OK\r\n"
            checks = 'sidecar_health_checks_total{result="success",upstream="redis"}'
            wait_until(lambda: sidecar.metrics().get(checks, 0), "a check")
            sock.close()
            active = 'sidecar_tcp_sessions_active{upstream="redis"}'
            wait_until(lambda: sidecar.metrics()[active] == 0, "the session's end")


@pytest.mark.server("curl")
def test_an_endpoint_that_is_not_there_is_refused(place: Path) -> None:
    """And so is one whose queue is full, which is as good as away."""
    with socket.socket(socket.AF_UNIX) as full, socket.socket(socket.AF_UNIX) as waiting:
        full.bind(f"{place}/full.sock")
        full.listen(0)
        waiting.connect(f"{place}/full.sock")
        text = configuration(f"""services:
  away: {{host: "unix:{place}/none.sock"}}
  full: {{host: "unix:{place}/full.sock"}}
sidecar: {{OWN, ports: {{}}, sockets: {{{place}/a.sock: away, {place}/f.sock: full}}}}
""")
        with Sidecar(place, text):
            for name in "af":
                assert b'"connect_refused"' in curl(place / f"{name}.sock", "/")


@pytest.mark.server("nginx", "curl")
def test_what_is_there_already(place: Path) -> None:
    """Of a dead process: replaced. Of a live one, or no socket at all: left alone, and said."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{place}/s.sock")
    text = configuration(f"""services: {{app: {{host: 127.0.0.1, port: 1}}}}
sidecar: {{OWN, ports: {{}}, sockets: {{{place}/s.sock: app}}}}
""")

    def refused(why: str) -> None:
        process = Process(
            command("run", "--config", place / "other.yml"), place, clean_environment(), "other"
        )
        assert process.wait() == 2
        assert f"cannot listen on unix:{place}/s.sock for app: {why}" in process.stderr

    with Sidecar(place, text) as running:
        assert b'"connect_refused"' in curl(place / "s.sock", "/")
        (place / "other.yml").write_text(
            running.path.read_text().replace(str(running.admin), "0").replace(str(running.metrics_port), "0")
        )
        refused("address already in use; stop what listens there, or give the socket another path")
        assert b'"connect_refused"' in curl(place / "s.sock", "/"), "it goes on"
    (place / "s.sock").write_text("precious")
    refused("a file that is no socket is there; remove it, or give the socket another path")
    assert (place / "s.sock").read_text() == "precious"
    (place / "s.sock").unlink()
    (place / "other.yml").write_text((place / "other.yml").read_text().replace("s.sock", "none/s.sock"))
    process = Process(command("run", "--config", place / "other.yml"), place, clean_environment(), "other")
    assert process.wait() == 2
    assert "no such file or directory; create its directory first" in process.stderr
