"""Faults and reloads for a long time: `python3 benchmarks/soak.py [--minutes N] [--seed N]`, 10 minutes unless told.

One sidecar with two workers before three endpoints, and 200 requests a second. Endpoints fall ill and recover by
chance, from `--seed`, which is printed; in the first half the sidecar also reads its configuration again every few
seconds, whose balancing strategy changes each time. In the second half the same workers stay, so that what they gather
shows. Then the load ends, and a line each says PASS or FAIL of what must hold:

- requests, classes and reasons: `sidecar_requests_total` is what was sent, to the last one, and what the load saw.
- answers: no request was left without one, whatever it said.
- at rest: nothing is in flight, in a queue, or connected, and no worker is leaving.
- descriptors: each process has no more of them than it had before the load.
- memory: workers at the end have at most 5 % more than at a third of the second half, and the supervisor than after the
  first quarter of the reloads.
- end: SIGTERM ends it with 0, and it has printed no traceback.

It exits with 1 when one of them does not.
"""

import argparse
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from laboratory import (
    FAULTS,
    FaultyEndpoint,
    PacedLoad,
    Result,
    SidecarProcess,
    configuration,
    tally,
    wait_until,
)
from measure import tree
from programs import free_ports

RATE = 200.0  # requests a second
CONNECTIONS = 40  # so that both workers have some
STEP = (0.2, 1.5)  # seconds between what happens to endpoints
RELOADS = (4.0, 9.0)  # seconds between reloads
GROWTH = 1.05
MIB = 1 << 20
# A time-out far below the load's patience, and breakers that ask again soon.
POLICY = "timeout: 1, circuit_breaker_timeout: 1"
STRATEGIES = ("round_robin", "least_request")
AT_REST = (
    "clients",
    "connections_active",
    "queue_length",
    "requests_in_flight",
    "retries_active",
    "workers_leaving",
)


def main() -> int:
    """Run; 0 when all held."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 16))
    options = parser.parse_args()
    # SIGTERM ends as Ctrl-C does: what was started is ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(f"{options.minutes:g} minutes, --seed {options.seed}", flush=True)
    endpoints = [FaultyEndpoint() for _ in range(3)]
    try:
        with tempfile.TemporaryDirectory(prefix="soak-") as folder, endpoints[0], endpoints[1], endpoints[2]:
            return Soak(Path(folder), endpoints, random.Random(options.seed)).run(options.minutes * 60)
    except AssertionError as error:  # what the tests' helpers say when something does not come
        print(f"FAIL {error}")
        return 1
    except KeyboardInterrupt:
        return 130


class Soak:
    """See the module."""

    def __init__(self, folder: Path, endpoints: list[FaultyEndpoint], chance: random.Random) -> None:
        (self._port,) = free_ports(1)
        self._endpoints = endpoints
        self._chance = chance
        self._held = True
        self._reloads = 0
        # It asks for its reloads; what watches the file would open its descriptors after they are counted.
        text = configuration(
            self._port,
            [endpoint.port for endpoint in endpoints],
            policy=self._policy(),
            sidecar="workers: 2, watch: false",
        )
        self._sidecar = SidecarProcess(folder, text)
        self._supervisor: list[int] = []  # bytes, after each reload

    def run(self, seconds: float) -> int:
        """All of it; 0 when everything held."""
        with self._sidecar as sidecar:
            before = _descriptors(sidecar.process.pid)
            with PacedLoad(self._port, RATE, connections=CONNECTIONS) as load:
                begin = time.monotonic()
                self._go_on(load, begin, begin + seconds / 2, reloads=True)
                self._go_on(load, begin, begin + seconds * 2 / 3, reloads=False)
                warm = _resident(sidecar.process.pid)
                self._go_on(load, begin, begin + seconds, reloads=False)
                for endpoint in self._endpoints:
                    endpoint.recover()
                time.sleep(2.0)  # with everybody well
                self._report(load, begin)
            self._judge_requests(load)
            self._judge_rest(before)
            self._judge_memory(warm)
            code = sidecar.end()
            quiet = "Traceback" not in sidecar.process.stderr
            self._judge("end", code == 0 and quiet, f"exit code {code}, {'no' if quiet else 'A'} traceback")
        return 0 if self._held else 1

    def _policy(self) -> str:
        return f"{POLICY}, strategy: {STRATEGIES[self._reloads % len(STRATEGIES)]}"

    def _go_on(self, load: PacedLoad, begin: float, until: float, *, reloads: bool) -> None:
        """Faults, and reloads, until then; a line every ten seconds."""
        reload_at = time.monotonic() + self._chance.uniform(*RELOADS) if reloads else float("inf")
        report_at = time.monotonic() + 10.0
        while time.monotonic() < until:
            time.sleep(min(self._chance.uniform(*STEP), max(0.0, until - time.monotonic())))
            endpoint = self._chance.choice(self._endpoints)
            if endpoint.fault in FAULTS:
                endpoint.recover()
            else:
                endpoint.suffer(self._chance.choice(FAULTS))
            endpoint.requests.clear()  # nobody looks at them
            if time.monotonic() >= reload_at:
                self._reload()
                reload_at = time.monotonic() + self._chance.uniform(*RELOADS)
            if time.monotonic() >= report_at:
                self._report(load, begin)
                report_at += 10.0

    def _reload(self) -> None:
        sidecar = self._sidecar
        before = self._policy()
        self._reloads += 1
        sidecar.path.write_text(sidecar.path.read_text().replace(before, self._policy()))
        sidecar.send(signal.SIGHUP)
        name = 'sidecar_config_reloads_total{result="success"}'
        wait_until(lambda: sidecar.metrics()[name] == self._reloads, f"reload {self._reloads}", 30.0)
        self._supervisor.append(_resident(sidecar.process.pid)[sidecar.process.pid])

    def _report(self, load: PacedLoad, begin: float) -> None:
        used = _resident(self._sidecar.process.pid)
        megabytes = " ".join(f"{size / MIB:.1f}" for size in used.values())
        count = sum(_descriptors(self._sidecar.process.pid).values())
        ill = ", ".join(one.fault.name for one in self._endpoints if one.fault in FAULTS) or "all well"
        failed = sum(result.failed for result in load.results.copy())
        print(
            f"{time.monotonic() - begin:6.0f} s {load.sent:8d} requests {failed:7d} failed {self._reloads:4d} reloads"
            f"  MiB {megabytes}  {count} descriptors  {ill}",
            flush=True,
        )

    # Judging

    def _judge(self, what: str, holds: bool, told: str) -> None:
        self._held = self._held and holds
        print(f"{'PASS' if holds else 'FAIL'} {what}: {told}", flush=True)

    def _judge_requests(self, load: PacedLoad) -> None:
        counted = self._counted()
        known = by_class_and_reason(load.results)
        self._judge(
            "requests",
            counted.total() == load.sent,
            f"{load.sent} sent, {counted.total()} counted by the sidecar",
        )
        differences = {
            key: (known[key], counted[key]) for key in known | counted if known[key] != counted[key]
        }
        told = (
            f"sent and counted differ: {differences}" if differences else f"{len(known)} kinds, each the same"
        )
        self._judge("classes and reasons", not differences, told)
        silent = tally(result for result in load.results if not result.status)
        self._judge("answers", not silent, f"{silent.total()} requests without one{_words(silent)}")

    def _judge_rest(self, before: dict[int, int]) -> None:
        def busy() -> dict[str, float]:
            found = self._sidecar.metrics()
            names = tuple(f"sidecar_{name}" for name in AT_REST)
            return {name: value for name, value in found.items() if value and name.split("{")[0] in names}

        self._judge(
            "at rest", _within(lambda: not busy()), f"not 0: {busy()}" if busy() else "nothing goes on"
        )
        pid = self._sidecar.process.pid
        most = max(count for process, count in before.items() if process != pid)

        def lean() -> bool:
            return all(
                count <= (before[pid] if one == pid else most) for one, count in _descriptors(pid).items()
            )

        holds = _within(lean)
        then, now = list(before.values()), list(_descriptors(pid).values())
        self._judge("descriptors", holds, f"supervisor and workers had {then}, have {now}")

    def _judge_memory(self, warm: dict[int, int]) -> None:
        pid = self._sidecar.process.pid
        now = _resident(pid)
        grown = [(warm.get(one, 0), now[one]) for one in now if one != pid]
        told = ", ".join(f"{then / MIB:.1f} MiB then, {end / MIB:.1f} MiB now" for then, end in grown)
        self._judge("memory of workers", all(end <= then * GROWTH for then, end in grown), told)
        after = self._supervisor[len(self._supervisor) // 4] if self._supervisor else warm[pid]
        told = f"{after / MIB:.1f} MiB then, {now[pid] / MIB:.1f} MiB now, {self._reloads} reloads"
        self._judge("memory of the supervisor", now[pid] <= after * GROWTH, told)

    def _counted(self) -> Counter[tuple[str, str]]:
        found: Counter[tuple[str, str]] = Counter()
        for name, value in self._sidecar.metrics().items():
            family, _, labels = name.partition("{")
            if family == "sidecar_requests_total" and value:
                of = dict(part.split("=") for part in labels.rstrip("}").replace('"', "").split(","))
                found[of["code_class"], of["reason"]] += int(value)
        return found


def by_class_and_reason(results: list[Result]) -> Counter[tuple[str, str]]:
    """As the sidecar has to count them."""
    found: Counter[tuple[str, str]] = Counter()
    for result in results:
        reason = "reset_after_headers" if result.broken else result.reason or "none"
        found[f"{result.status // 100}xx", reason] += 1
    return found


def _words(counts: Counter[str]) -> str:
    return f": {dict(counts)}" if counts else ""


def _within(condition: Callable[[], bool], seconds: float = 15.0) -> bool:
    """Whether it becomes true in time: connections to endpoints rest for 3 s, for one."""
    try:
        wait_until(condition, "", seconds)
    except AssertionError:
        return False
    return True


def _resident(pid: int) -> dict[int, int]:
    """Resident bytes of the process and of each of its workers."""
    size = {}
    for one in tree(pid):
        status = Path(f"/proc/{one}/status").read_text()
        size[one] = next(
            int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:")
        )
    return size


def _descriptors(pid: int) -> dict[int, int]:
    """How many the process and each of its workers has open."""
    return {one: len(list(Path(f"/proc/{one}/fd").iterdir())) for one in tree(pid)}


if __name__ == "__main__":
    sys.exit(main())
