"""A unix socket under reloads and with several workers: one queue for all, one file for as long as it is wanted."""

import os
import signal
import socket
from pathlib import Path

import pytest
from support.endpoints import Conversation, ScriptedEndpoint
from support.ports import free_port
from support.proxy import Sidecar
from support.waiting import wait_until


def hello(conversation: Conversation) -> None:
    conversation.send(b"hello")
    conversation.hang()


def text(endpoint: int, port: int, sockets: str, workers: int = 1) -> str:
    return f"""services: {{api: {{host: 127.0.0.1, port: {endpoint}, scheme: tcp}}}}
sidecar: {{bind: [127.0.0.1], ports: {{{port}: api}}, sockets: {{{sockets}}}, workers: {workers},
  admin: "127.0.0.1:ADMIN", metrics: "127.0.0.1:METRICS", watch: false, drain_timeout: 20}}
"""


def connected(path: str) -> socket.socket:
    """A session through the socket at `path`."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(10.0)
    sock.connect(path)
    assert sock.recv(5) == b"hello"
    return sock


def change(running: Sidecar, new: str) -> list[str]:
    new = new.replace("ADMIN", str(running.admin)).replace("METRICS", str(running.metrics_port))
    running.path.write_text(new)
    found: list[str] = running.reload().json["changes"]
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_sockets_come_stay_and_go(place: Path, workers: int) -> None:
    port = free_port()
    a, b = place / "a.sock", place / "b.sock"
    with ScriptedEndpoint(hello) as endpoint:
        with Sidecar(place, text(endpoint.port, port, f"{a}: api", workers)) as running:
            number = a.stat().st_ino
            one = connected(str(a))

            wide = f'{a}: {{to: api, mode: "0666"}}'
            assert change(running, text(endpoint.port, port, wide, workers)) == ["api: listener.mode"]
            assert (a.stat().st_ino, a.stat().st_mode & 0o777) == (number, 0o666)
            connected(str(a)).close()

            strict = f'{a}: {{to: api, mode: "0666", accept_proxy: true}}'
            told = change(running, text(endpoint.port, port, strict, workers))
            assert told == ["api: listener.socket_accept_proxy"]
            assert a.stat().st_ino == number
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(10.0)
                sock.connect(str(a))
                sock.sendall(b"PROXY UNKNOWN\r\n")
                assert sock.recv(5) == b"hello"

            assert change(running, text(endpoint.port, port, f"{b}: api", workers))
            wait_until(lambda: not a.exists(), "the end of the first one's file")
            connected(str(b)).close()
            one.sendall(b"still there")
            wait_until(lambda: endpoint.received >= 11, "the session from before")
            one.close()
        assert not b.exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_that_somebody_has_removed_is_made_again_by_a_reload(place: Path, workers: int) -> None:
    path, port = place / "a.sock", free_port()
    with ScriptedEndpoint(hello) as endpoint:
        before = text(endpoint.port, port, f"{path}: api", workers)
        with Sidecar(place, before) as running:
            path.unlink()
            assert change(running, before.replace("drain_timeout: 20", "drain_timeout: 9"))
            connected(str(path)).close()


def descriptors(pid: str) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_all_workers_accept_from_it(place: Path) -> None:
    """And when one dies, who connects meanwhile is the others', or waits for the next one."""
    path = place / "a.sock"
    with (
        ScriptedEndpoint(hello) as endpoint,
        Sidecar(place, text(endpoint.port, free_port(), f"{path}: api", 2)) as running,
    ):
        pid = running.process.pid
        workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        before = {worker: descriptors(worker) for worker in workers}
        sessions = [connected(str(path)) for _ in range(64)]
        grown = sum(descriptors(worker) - before[worker] for worker in workers)
        assert grown >= 2 * len(sessions), "two for each session"
        os.kill(int(workers[0]), signal.SIGKILL)
        sessions += [connected(str(path)) for _ in range(8)]
        wait_until(lambda: running.metrics()["sidecar_workers"] == 2, "another worker", 20.0)
        sessions += [connected(str(path)) for _ in range(8)]
        for one in sessions:
            one.close()


def test_a_file_that_another_has_put_there_stays(place: Path) -> None:
    """Whoever takes over replaces the file, and it is not the old one's to remove."""
    path = place / "a.sock"
    with Sidecar(place, text(1, free_port(), f"{path}: api")), socket.socket(socket.AF_UNIX) as new:
        new.bind(f"{place}/new.sock")
        (place / "new.sock").replace(path)
    assert path.is_socket()
