"""A sidecar that takes another's place, and clients that have a connection for each request."""

import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from support.processes import Process
from support.proxy import Sidecar, command
from support.waiting import wait_until

__all__ = ["Callers", "Succession"]


class Succession(Sidecar):
    """A sidecar, and those that take its place. All that are started are ended with it."""

    def __init__(
        self,
        directory: Path,
        text: str,
        *,
        environ: Mapping[str, str] | None = None,
        arguments: tuple[str, ...] = (),
    ) -> None:
        super().__init__(directory, text, environ=environ, arguments=("--log-format", "text", *arguments))
        self._started: list[Process] = []

    def __exit__(self, kind: object, *rest: object) -> None:
        try:
            super().__exit__(kind, *rest)
        finally:
            for process in self._started:
                process.kill()

    def begin(self, name: str, path: Path | None = None) -> Process:
        """Start `sidecar run --takeover` with this one's configuration, or another."""
        asked = command("run", "--config", path or self.path, "--takeover", "--log-format", "text")
        self._started.append(Process(asked, self.directory, self.environ, name))
        return self._started[-1]

    def take_over(self, name: str, path: Path | None = None) -> Process:
        """Have a new process take the place of `process`; the old one."""
        return self.follow(self.begin(name, path))

    def follow(self, after: Process) -> Process:
        """Wait until `after` has taken the place of `process`, and be it; the old one."""
        wait_until(lambda: "metrics: http" in after.stderr or not after.running, after.name, 30.0)
        assert after.running, after.stderr
        assert f"process {self.process.pid} is taken over from" in after.stderr, after.stderr
        before, self.process = self.process, after
        self._started.append(before)
        return before


class Callers:
    """Clients in threads, each request on a connection of its own, until the end of `with`.

    answered: requests that had a 200. errors: what became of the others.
    """

    def __init__(self, port: int, count: int) -> None:
        self.port = port
        self.answered = 0
        self.errors: list[str] = []
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._call, name=f"caller {one}") for one in range(count)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(30.0)

    def wait_for_more(self, answers: int) -> None:
        """Wait until so many more have been answered; a failure fails the test at once."""
        goal = self.answered + answers

        def look() -> bool:
            assert not self.errors, self.errors[:5]
            return self.answered >= goal

        wait_until(look, f"{answers} more answers", 30.0)

    def _call(self) -> None:
        request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        while not self._ending.is_set():
            answer = b""
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=20.0) as connection:
                    connection.sendall(request)
                    while piece := connection.recv(65536):
                        answer += piece
            except OSError as error:
                self.errors.append(f"{type(error).__name__}: {error}")
                continue
            with self._lock:
                if answer.startswith(b"HTTP/1.1 200 "):
                    self.answered += 1
                else:
                    self.errors.append(repr(answer[:200]))
