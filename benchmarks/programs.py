"""Local programs: found, started, waited for, and ended by process id however the run ends."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from measure import pin

__all__ = ["Programs", "find", "free_ports"]

# Debian puts servers where an ordinary user's PATH does not look.
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])
START = 20.0  # seconds until a program must accept connections
STOP = 5.0  # seconds from SIGTERM to SIGKILL


def find(name: str) -> str | None:
    """The program's path; None when it is not installed."""
    return shutil.which(name, path=PATH)


def free_ports(count: int) -> list[int]:
    """Free ports of 127.0.0.1, no two the same."""
    with ExitStack() as open_together:
        probes = [open_together.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


class Programs:
    """The programs of one run, each logging to a file in `directory`. Leaving the context ends them all."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave any of them running
        self._end(self._running)

    def start(self, name: str, command: Sequence[str], ports: Sequence[int], cpus: set[int]) -> int:
        """Start a program on `cpus`; its process id, once all its ports accept. Raises `RuntimeError`."""
        log = self.directory / f"{name}.log"
        try:
            with log.open("wb") as output:
                process = subprocess.Popen(
                    list(command),
                    cwd=self.directory,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C is for the benchmark, which then ends them in order
                )
        except OSError as error:
            raise RuntimeError(f"{name} cannot be started: {error}; look at PATH") from error
        self._running.append(process)
        pin(process.pid, cpus)
        deadline = time.monotonic() + START
        waiting = list(ports)
        while waiting:
            waiting = [port for port in waiting if not _accepts(port)]
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended at start: {log.read_text(errors='replace')[-400:].strip()}")
            if waiting and time.monotonic() > deadline:
                raise RuntimeError(f"{name} does not accept on {waiting} after {START:g} s")
            time.sleep(0.02)
        return process.pid

    def stop(self, *pids: int) -> None:
        """End the programs of these process ids, which `start` gave."""
        self._end([process for process in self._running if process.pid in pids])

    def _end(self, processes: list[subprocess.Popen[bytes]]) -> None:
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + STOP
        for process in processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running = [process for process in self._running if process not in processes]


def _accepts(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1.0):
            return True
    except OSError:
        return False
