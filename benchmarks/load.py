"""Load generators: wrk for HTTP, redis-benchmark for TCP. Each turn gives how many requests it made, and how fast."""

import csv
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from programs import find
from scenarios import Scenario

__all__ = ["LoadError", "Turn", "generator", "read_redis_benchmark", "read_wrk", "run_turn", "warm_up"]

GRACE = 30.0  # seconds that a load generator may take beyond its turn before it is ended
GUESS = 20_000  # redis-benchmark's requests in the turn that finds how many a second there are
SCRIPTS = Path(__file__).resolve().parent
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
SIZES = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}


class LoadError(Exception):
    """A turn that measured nothing: the generator failed, or requests did."""


@dataclass(frozen=True, slots=True)
class Turn:
    """requests: completed, all well (with a part of one, where bytes were counted); seconds: in which.

    p50, p99: seconds of latency, None where unknown.
    """

    requests: float
    seconds: float
    p50: float | None = None
    p99: float | None = None

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


def generator(scenario: Scenario) -> str | None:
    """The program that makes the load; None when this one does."""
    return {"http": "wrk", "redis": "redis-benchmark"}.get(scenario.load)


def warm_up(scenario: Scenario, ports: Sequence[int], seconds: float, cpus: set[int]) -> float:
    """A turn that does not count; gives requests a second. Raises `LoadError`."""
    rate = 0.0
    if scenario.load == "redis":
        rate = _redis_benchmark(scenario, ports[0], GUESS, seconds, cpus).rate
    return run_turn(scenario, ports, seconds, cpus, rate).rate


def run_turn(
    scenario: Scenario, ports: Sequence[int], seconds: float, cpus: set[int], rate: float = 0.0
) -> Turn:
    """Load the proxy on `ports` for about `seconds`. Raises `LoadError`.

    rate: requests a second to expect; redis-benchmark takes a number of requests, not a time.
    """
    seconds = min(seconds, scenario.longest or seconds)
    if scenario.load == "http":
        return _wrk(scenario, ports, seconds, cpus)
    return _redis_benchmark(scenario, ports[0], max(GUESS, int(rate * seconds)), seconds, cpus)


def _wrk(scenario: Scenario, ports: Sequence[int], seconds: float, cpus: set[int]) -> Turn:
    # One thread, as the CPU is one; but only a thread of its own can load a port of its own.
    options = [f"-t{len(ports)}", f"-c{scenario.connections}", f"-d{seconds:.0f}s", "--latency"]
    if scenario.closing:
        options += ["-H", "Connection: close"]
    if scenario.body:
        options += ["-s", str(SCRIPTS / "upload.lua")]
    if len(ports) > 1:
        options += ["-s", str(SCRIPTS / "upstreams.lua")]
    scheme = "https" if scenario.front == "door" else "http"
    url = f"{scheme}://127.0.0.1:{ports[0]}{scenario.path}"
    arguments = ["--", str(scenario.body)] if scenario.body else []
    environment = {"PORTS": " ".join(map(str, ports))}
    return read_wrk(_run(["wrk", *options, url, *arguments], seconds, cpus, environment), scenario.answer)


def read_wrk(output: str, answer: int = 0) -> Turn:
    """What wrk --latency prints. Raises `LoadError` when any request failed.

    answer: bytes of one, to count requests by what was read: the last one of a turn is cut off, and may be a tenth.
    """
    if bad := re.search(r"(Non-2xx.*|Socket errors:.*)", output):
        raise LoadError(bad.group())
    counted = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m|h), ([\d.]+)([KMGT]?)B read", output)
    if not counted or counted[1] == "0":
        raise LoadError(f"wrk counted no request: {output[-200:]!r}")
    latency = {
        percent: float(value) * UNITS[unit]
        for percent, value, unit in re.findall(r"^ +(50|99)% +([\d.]+)(us|ms|s|m|h)$", output, re.MULTILINE)
    }
    seconds = float(counted[2]) * UNITS[counted[3]]
    requests = float(counted[4]) * SIZES[counted[5]] / answer if answer else int(counted[1])
    return Turn(requests, seconds, latency.get("50"), latency.get("99"))


def _redis_benchmark(scenario: Scenario, port: int, requests: int, seconds: float, cpus: set[int]) -> Turn:
    options = ["-p", str(port), "-c", str(scenario.connections), "-n", str(requests), "-t", scenario.command]
    command = ["redis-benchmark", *options, "-P", str(scenario.pipeline), "--csv"]
    return read_redis_benchmark(_run(command, seconds, cpus), requests)


def read_redis_benchmark(output: str, requests: int) -> Turn:
    """What redis-benchmark --csv prints of one command. Before Redis 6.2 it told no latencies."""
    rows = [row for row in csv.reader(output.splitlines()) if len(row) > 1]
    try:
        names = rows[0] if rows[0][0] == "test" else ["test", "rps"]
        told = dict(zip(names, rows[-1], strict=False))
        rate = float(told["rps"])
        p50, p99 = (float(told[name]) / 1000 if name in told else None for name in _PERCENTILES)
    except (IndexError, KeyError, ValueError):
        raise LoadError(f"redis-benchmark printed no rate: {output[-200:]!r}") from None
    if not rate:
        raise LoadError("redis-benchmark was too quick to tell a rate")
    return Turn(requests, requests / rate, p50, p99)


_PERCENTILES = ("p50_latency_ms", "p99_latency_ms")


def _run(
    command: Sequence[str], seconds: float, cpus: set[int], environment: Mapping[str, str] | None = None
) -> str:
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
            env={**os.environ, **(environment or {})},
            preexec_fn=partial(os.sched_setaffinity, 0, cpus),  # safe: this process has one thread
        )
    except subprocess.TimeoutExpired as error:
        raise LoadError(f"{command[0]} did not end within {seconds * 4 + GRACE:g} s") from error
    if done.returncode:
        raise LoadError(f"{command[0]} failed: {(done.stderr or done.stdout)[-200:].strip()}")
    return done.stdout
