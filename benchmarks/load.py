"""Load generators: wrk for HTTP, redis-benchmark for TCP. Each turn gives how many requests it made."""

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from programs import find

__all__ = ["LoadError", "Scenario", "Turn", "run_turn"]

GRACE = 30.0  # seconds that a load generator may take beyond its turn before it is ended


class LoadError(Exception):
    """A turn that measured nothing: the generator failed, or requests did."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of work. protocol: http or redis; connections: open at once; path: of HTTP requests."""

    name: str
    text: str
    protocol: str
    connections: int
    path: str = "/"

    @property
    def generator(self) -> str:
        """The program that makes the load."""
        return "wrk" if self.protocol == "http" else "redis-benchmark"


@dataclass(frozen=True, slots=True)
class Turn:
    """requests: completed, all well; seconds: in which."""

    requests: int
    seconds: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


def run_turn(scenario: Scenario, port: int, seconds: float, cpus: set[int], rate: float = 0.0) -> Turn:
    """Load the proxy on `port` for about `seconds`. Raises `LoadError`.

    rate: requests a second to expect; redis-benchmark takes a number of requests, not a time.
    """
    if scenario.protocol == "http":
        return _wrk(scenario, port, seconds, cpus)
    return _redis_benchmark(scenario, port, max(1000, int(rate * seconds)), seconds, cpus)


def _wrk(scenario: Scenario, port: int, seconds: float, cpus: set[int]) -> Turn:
    url = f"http://127.0.0.1:{port}{scenario.path}"
    output = _run(["wrk", "-t1", f"-c{scenario.connections}", f"-d{seconds:.0f}s", url], seconds, cpus)
    if bad := re.search(r"(Non-2xx.*|Socket errors:.*)", output):
        raise LoadError(f"{scenario.name} on port {port}: {bad.group()}")
    counted = re.search(r"(\d+) requests in ([\d.]+)(ms|s|m)", output)
    if not counted:
        raise LoadError(f"wrk printed no count: {output[-200:]!r}")
    scale = {"ms": 0.001, "s": 1.0, "m": 60.0}[counted[3]]
    return Turn(int(counted[1]), float(counted[2]) * scale)


def _redis_benchmark(scenario: Scenario, port: int, requests: int, seconds: float, cpus: set[int]) -> Turn:
    options = ["-p", str(port), "-c", str(scenario.connections), "-n", str(requests), "-t", "get", "--csv"]
    output = _run(["redis-benchmark", *options], seconds, cpus)
    counted = re.search(r'"GET","([\d.]+)"', output)
    if not counted:
        raise LoadError(f"redis-benchmark printed no rate: {output[-200:]!r}")
    return Turn(requests, requests / float(counted[1]))


def _run(command: Sequence[str], seconds: float, cpus: set[int]) -> str:
    program = find(command[0])
    if program is None:
        raise LoadError(f"{command[0]} is not installed")
    try:
        done = subprocess.run(
            [program, *command[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds * 4 + GRACE,
            preexec_fn=partial(os.sched_setaffinity, 0, cpus),  # safe: this process has one thread
        )
    except subprocess.TimeoutExpired as error:
        raise LoadError(f"{command[0]} did not end within {seconds * 4 + GRACE:g} s") from error
    if done.returncode:
        raise LoadError(f"{command[0]} failed: {(done.stderr or done.stdout)[-200:].strip()}")
    return done.stdout
