"""How long a start takes: `python3 benchmarks/start.py [--turns N] [--before DIR] [--python FILE] [--instructions]`.

Times, from the command to: a URL printed by `sidecar url`, a data port that accepts, the first answer through it,
and a metrics port that says ready, the last three of `sidecar run`. Medians and lowest of N turns, in which this
checkout and the one of `--before` alternate, beside a bare interpreter's start. The files are in the page cache and
compiled to bytecode, because the first turn does not count.

`--python` is the interpreter, for one whose environment has the dependencies alone: an editable installation of
anything loads its finder at each start. `--instructions` counts with valgrind what is executed until the URL is
printed and until the first data port accepts: the same on a busy machine.
"""

import argparse
import http.server
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parent.parent
TURNS = 21  # odd, so that the median is a turn
LIMIT = 30.0  # seconds for a start; far more than any takes
POLL = 0.001  # seconds between looks

T = TypeVar("T")

# Ends `sidecar run` at the first port that accepts.
UNTIL_LISTENING = """
import gc, os
gc.disable()
from sidecar.cli import run
import sidecar.app
listen = sidecar.app.App._listen
async def watched(self, *arguments):
    await listen(self, *arguments)
    os._exit(0)
sidecar.app.App._listen = watched
run(["run", "--config", "{config}"])
"""


class Origin(http.server.BaseHTTPRequestHandler):
    """Answers anything with nothing."""

    def do_GET(self) -> None:
        """204."""
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


class Start:
    """Starts the sidecar of one checkout."""

    def __init__(self, checkout: Path, python: str, folder: Path, origin: int) -> None:
        self.folder = folder  # where everything runs: the current folder would come before any checkout
        self.environ = {
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": str(checkout),
            "PYTHONHASHSEED": "0",
        }
        self.python = python
        self.config = folder / "start.yml"
        self.origin = origin

    def url(self) -> dict[str, float]:
        """Seconds that `sidecar url` takes."""
        self.configure()
        begin = time.perf_counter()
        subprocess.run(
            self.command("url", "api"),
            cwd=self.folder,
            env=self.environ,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        return {"url": time.perf_counter() - begin}

    def run(self) -> dict[str, float]:
        """Seconds until `sidecar run` listens, answers and is ready."""
        data, metrics = self.configure()
        begin = time.perf_counter()
        with subprocess.Popen(
            self.command("run"), cwd=self.folder, env=self.environ, stderr=subprocess.DEVNULL
        ) as process:
            try:
                client = wait_for(lambda: connect(data))
                found = {"listens": time.perf_counter() - begin}
                with client:
                    ask(client, "/")
                found["answers"] = time.perf_counter() - begin
                wait_for(lambda: is_ready(metrics))
                found["ready"] = time.perf_counter() - begin
            finally:
                process.kill()
        return found

    def bare(self) -> dict[str, float]:
        """Seconds that the interpreter takes by itself."""
        begin = time.perf_counter()
        subprocess.run([self.python, "-c", "pass"], cwd=self.folder, env=self.environ, check=True)
        return {"python": time.perf_counter() - begin}

    def instructions(self) -> dict[str, int]:
        """Instructions until the URL is printed, and until the first port accepts."""
        self.configure()
        listening = [self.python, "-c", UNTIL_LISTENING.format(config=self.config)]
        commands = {
            "python": [self.python, "-c", "pass"],
            "url": self.command("url", "api"),
            "listens": listening,
        }
        return {name: self.counted(command) for name, command in commands.items()}

    def counted(self, command: list[str]) -> int:
        """Instructions of a command, as callgrind counts them."""
        valgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
        done = subprocess.run(
            [*valgrind, *command],
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            check=True,
        )
        found = re.search(r"Collected : (\d+)", done.stderr)
        if found is None:
            raise RuntimeError(f"valgrind said no number: {done.stderr}")
        return int(found[1])

    def command(self, verb: str, *arguments: str) -> list[str]:
        """`sidecar VERB` with the configuration."""
        return [self.python, "-m", "sidecar", verb, "--config", str(self.config), *arguments]

    def configure(self) -> tuple[int, int]:
        """Write a configuration on free ports; the upstream's and the metrics'."""
        data, admin, metrics = free_ports(3)
        self.config.write_text(f"""load_balancers:
  api: {{hosts: ["127.0.0.1:{self.origin}"]}}
sidecar:
  bind: [127.0.0.1]
  ports: {{{data}: api}}
  admin: 127.0.0.1:{admin}
  metrics: 127.0.0.1:{metrics}
""")
        return data, metrics


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def connect(port: int) -> socket.socket | None:
    """A connection, once somebody accepts."""
    try:
        return socket.create_connection(("127.0.0.1", port), timeout=LIMIT)
    except ConnectionRefusedError:
        return None


def ask(client: socket.socket, path: str) -> bytes:
    """The first line of the answer."""
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    return client.makefile("rb").readline()


def is_ready(port: int) -> bool:
    """Whether /ready says so."""
    client = connect(port)
    if client is None:
        return False
    with client:
        return b" 200 " in ask(client, "/ready")


def wait_for(look: Callable[[], T | None]) -> T:
    """What `look` finds, asked again and again."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(POLL)
    raise TimeoutError(f"nothing after {LIMIT:g} s")


def measure(starts: dict[str, Start], turns: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of each turn, by checkout and by what was waited for."""
    taken: dict[str, dict[str, list[float]]] = {name: {} for name in starts}
    for turn in range(turns + 1):
        for name, start in starts.items():
            for found in (start.bare(), start.url(), start.run()):
                for what, seconds in found.items():
                    if turn:
                        taken[name].setdefault(what, []).append(seconds)
    return taken


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=TURNS, metavar="N")
    parser.add_argument("--before", type=Path, metavar="DIR", help="another checkout, to compare with")
    parser.add_argument("--python", default=sys.executable, metavar="FILE")
    parser.add_argument("--instructions", action="store_true", help="count them too; needs valgrind")
    options = parser.parse_args()
    if options.turns < 1:
        parser.error("--turns: at least one")
    if options.instructions and shutil.which("valgrind") is None:
        parser.error("--instructions: valgrind is not installed")
    checkouts = {"before": options.before.resolve()} if options.before else {}
    checkouts["now"] = ROOT
    origin = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Origin)
    threading.Thread(target=origin.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        starts = {
            name: Start(checkout, options.python, Path(folder), origin.server_port)
            for name, checkout in checkouts.items()
        }
        for name, taken in measure(starts, options.turns).items():
            for what, seconds in taken.items():
                median, lowest = statistics.median(seconds) * 1000, min(seconds) * 1000
                print(f"{name:<7} {what:<8} median {median:6.1f} ms  lowest {lowest:6.1f} ms")
        if options.instructions:
            for name, start in starts.items():
                for what, count in start.instructions().items():
                    print(f"{name:<7} {what:<8} {count / 1e6:7.1f} M instructions")
    origin.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
