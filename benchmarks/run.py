"""Side by side: `python3 benchmarks/run.py [--quick] [--all] [--scenario NAME ...] [--json FILE] [--picture FILE]`.

nginx and Redis as origins, and before them HAProxy, nginx, Envoy and the sidecar, one worker each, all on loopback
and fresh for every scenario. The proxies take turns (A B C D A B C D ...), and what counts is the CPU time of the
proxy's own process for each request: it holds on a noisy machine where throughput does not. Throughput, latency and
memory are told beside it. A peer that is not installed is left out by name.

Which sidecar: the package that this Python imports, or `--package DIR`; `--pure` takes it along without what is
compiled, `--policies` with every policy on, `--access-log` with an access log, `--before DIR`
another one (a checkout, say), to see what a change costs. `--floor` takes a relay along that looks at nothing: no proxy
goes below. `--congestion NAME` (as root) runs it all in a network of its own whose TCP goes by `reno`, say.
Everything that was started is ended, also on Ctrl-C.

Reading order: this, `scenarios`, `certificates`, `origins`, `peers`, `peer_envoy`, `peer_sidecar`, `peer_relay`,
`load`, `idle`, `measure`, `programs`, `own_network`, `machine`, `table`, `picture`. `instructions.py` is another
benchmark: it counts, and needs no quiet.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from idle import allow_descriptors, bytes_per_connection
from load import LoadError, generator, run_turn, warm_up
from machine import describe, words
from measure import cpu_seconds, memory, split_cpus
from origins import Front, Origins, start_origins
from own_network import enter
from peer_envoy import Envoy
from peer_relay import Relay
from peer_sidecar import EVERY_POLICY, HEDGED, Sidecar, differs, find_package, interpreter, pure_copy
from peers import HAProxy, Nginx, Peer, Proxy, UnavailableError
from picture import draw
from programs import Programs, find
from scenarios import SCENARIOS, Scenario, chosen
from table import Result, as_data, render

ROUNDS = 5  # odd, so that the median is a turn; enough to see a disturbed one
QUICK_ROUNDS = 3
SECONDS = 3.0  # of a turn: at 1/100 s a tick, the counted CPU time is then good to about 1 %
SHORTEST = 2.0
WARM_UP = 1.0


def main() -> int:
    """Run; 0 when every scenario was measured, 1 when something failed, 2 for wrong arguments."""
    options = _options()
    # SIGTERM ends as Ctrl-C does: what was started is ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    rounds = QUICK_ROUNDS if options.quick else ROUNDS
    seconds = SHORTEST if options.quick else options.seconds
    results: list[Result] = []
    failed = False
    if options.congestion:
        try:
            enter(options.congestion)
        except OSError as error:
            print(f"benchmarks/run.py: --congestion {options.congestion}: {error}", file=sys.stderr)
            return 1
    try:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder, Programs(Path(folder)) as programs:
            proxy_cpus, other_cpus = split_cpus()
            os.sched_setaffinity(0, other_cpus)
            allow_descriptors()
            origins = start_origins(programs, other_cpus)
            versions = _installed(_peers(options, programs.directory))
            machine = describe(proxy_cpus, other_cpus)
            print(f"{_words(machine)}; {rounds} turns of {seconds:g} s each\n", flush=True)
            run = _Run(programs, origins, versions, (proxy_cpus, other_cpus), rounds, seconds)
            for scenario in options.scenarios:
                try:
                    found = run.measure(scenario)
                except LoadError as error:
                    print(f"{scenario.name}: not measured: {error}\n", flush=True)
                    failed = True
                    continue
                print(render(scenario, found) + "\n", flush=True)
                results += found
    except (RuntimeError, UnavailableError) as error:
        print(f"benchmarks/run.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("benchmarks/run.py: interrupted; everything that was started has been ended", file=sys.stderr)
        return 130
    if results:
        data = {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": machine,
            "proxies": {peer.name: version for peer, version in versions.items()},
            "turns": rounds,
            "seconds_per_turn": seconds,
            "results": as_data(results),
        }
        _write(data, options)
    return 1 if failed or not results else 0


def _options() -> argparse.Namespace:
    names = [scenario.name for scenario in SCENARIOS]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} turns of {SHORTEST:g} s")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"of a turn, at least {SHORTEST:g}")
    parser.add_argument("--scenario", action="append", choices=names, help="only this one; may be repeated")
    parser.add_argument("--all", action="store_true", help="every scenario, the rarer ones too")
    parser.add_argument("--package", type=Path, metavar="DIR", help="the folder to import the sidecar from")
    parser.add_argument("--pure", action="store_true", help="the sidecar without what is compiled, too")
    parser.add_argument(
        "--policies", action="store_true", help="the sidecar with every optional policy on, too"
    )
    parser.add_argument(
        "--access-log", action="store_true", help="the sidecar that writes an access log, too"
    )
    parser.add_argument("--before", type=Path, metavar="DIR", help="the sidecar of another folder, too")
    parser.add_argument("--floor", action="store_true", help="the relay that looks at nothing, too")
    parser.add_argument(
        "--congestion", metavar="NAME", help="in a network whose TCP goes by this; takes root"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to FILE")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the figures into FILE, an SVG")
    options = parser.parse_args()
    if not SHORTEST <= options.seconds <= 60:
        parser.error(
            f"--seconds must be from {SHORTEST:g} to 60: shorter turns have too few clock ticks to count"
        )
    for name in ("package", "before"):
        folder = getattr(options, name)
        if folder and not (folder / "sidecar" / "__init__.py").is_file():
            parser.error(f"--{name}: {folder} holds no package `sidecar`")
        if folder:
            setattr(options, name, folder.resolve())
    for name in ("json", "picture"):
        path = getattr(options, name)
        if path and not path.parent.is_dir():  # known now, and not after ten minutes
            parser.error(f"--{name}: there is no folder {path.parent}")
    options.scenarios = chosen(options.scenario, every=options.all)
    return options


def _peers(options: argparse.Namespace, directory: Path) -> list[Peer]:
    """Everyone who is to take part. Raises `UnavailableError` where no sidecar can run."""
    python = interpreter()
    package = options.package or find_package(python)
    if not options.package and differs(package):
        print("note: the installed sidecar is not of this checkout's sources; `pip install .` makes it so")
    peers: list[Peer] = [HAProxy(), Nginx(), Envoy()]
    if options.before:
        peers.append(Sidecar("before", options.before, python))
    if options.pure:
        peers.append(Sidecar("pure Python", pure_copy(package, directory), python))
    if options.policies:
        peers.append(Sidecar("every policy", package, python, EVERY_POLICY))
        peers.append(Sidecar("and hedged", package, python, HEDGED))
    if options.access_log:
        peers.append(Sidecar("access log", package, python, logs=True))
    if options.floor:
        peers.append(Relay())
    return [*peers, Sidecar("sidecar", package, python)]


def _installed(peers: list[Peer]) -> dict[Peer, str]:
    """The version of each that is installed; the others are named."""
    found = {}
    for peer in peers:
        try:
            found[peer] = peer.version()
        except UnavailableError as error:
            print(f"left out: {error}", flush=True)
    return found


class _Run:
    """What all scenarios share. cpus: of the proxies, and of everything else."""

    def __init__(
        self,
        programs: Programs,
        origins: Origins,
        versions: dict[Peer, str],
        cpus: tuple[set[int], set[int]],
        rounds: int,
        seconds: float,
    ) -> None:
        self._programs = programs
        self._origins = origins
        self._versions = versions
        self._proxy_cpus, self._load_cpus = cpus
        self._rounds = rounds
        self._seconds = seconds

    def measure(self, scenario: Scenario) -> list[Result]:
        """All turns of one scenario. Raises `LoadError`, and `RuntimeError` when a sidecar does not start."""
        program = generator(scenario)
        if program and find(program) is None:
            raise LoadError(f"{program} is not installed")
        front = self._origins.front(scenario.front)
        if front is None:
            lacking = "redis-server" if scenario.front == "redis" else "openssl"
            raise LoadError(f"{lacking} is not installed")
        if scenario.load == "idle":
            return self._measure_idle(scenario, front)
        started: dict[Peer, Proxy] = {}
        try:
            for peer in self._versions:
                if proxy := self._start(peer, scenario, front):
                    started[peer] = proxy
            return self._take_turns(scenario, started)
        finally:
            self._programs.stop(*(proxy.pid for proxy in started.values()))

    def _take_turns(self, scenario: Scenario, started: dict[Peer, Proxy]) -> list[Result]:
        rates = {
            peer: warm_up(scenario, proxy.ports, WARM_UP, self._load_cpus) for peer, proxy in started.items()
        }
        results = {peer: self._result(scenario, peer) for peer in started}
        for _ in range(self._rounds):
            for peer, proxy in started.items():
                before = cpu_seconds(proxy.pid)
                turn = run_turn(scenario, proxy.ports, self._seconds, self._load_cpus, rates[peer])
                results[peer].figures.append((cpu_seconds(proxy.pid) - before) / turn.requests * 1e6)
                results[peer].turns.append(turn)
        for peer, proxy in started.items():
            results[peer].memory = memory(proxy.pid)
        return list(results.values())

    def _measure_idle(self, scenario: Scenario, front: Front) -> list[Result]:
        """One proxy at a time, and a fresh one for each turn."""
        results: dict[Peer, Result] = {}
        for _ in range(self._rounds):
            for peer in self._versions:
                proxy = self._start(peer, scenario, front)
                if proxy is None:
                    continue
                result = results.setdefault(peer, self._result(scenario, peer))
                taken = bytes_per_connection(proxy.pid, proxy.ports[0], scenario.connections)
                result.figures.append(taken / 1024)
                result.memory = memory(proxy.pid)
                self._programs.stop(proxy.pid)
        return list(results.values())

    def _result(self, scenario: Scenario, peer: Peer) -> Result:
        return Result(scenario, peer.name, self._versions[peer])

    def _start(self, peer: Peer, scenario: Scenario, front: Front) -> Proxy | None:
        if isinstance(peer, Relay) and not peer.takes(scenario):
            return None
        try:
            return peer.start(self._programs, front, self._proxy_cpus)
        except (UnavailableError, RuntimeError) as error:
            if isinstance(peer, Sidecar):  # whom the others are compared with
                raise
            print(f"left out of {scenario.name}: {error}", flush=True)
            return None


def _write(data: dict[str, Any], options: argparse.Namespace) -> None:
    if options.json:
        options.json.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n")
    if options.picture:
        options.picture.write_text(draw(data))


def _words(machine: dict[str, Any]) -> str:
    system = words(machine)
    proxies, others = machine["proxy_cpus"], machine["other_cpus"]
    if proxies == others:
        return f"{system}; one CPU for everything"
    return f"{system}; proxies pinned to CPU {_list(proxies)}, origins and load to CPU {_list(others)}"


def _list(cpus: list[int]) -> str:
    return ",".join(map(str, cpus))


if __name__ == "__main__":
    sys.exit(main())
