"""Side by side: `python3 benchmarks/run.py [--quick] [--seconds N] [--scenario NAME ...] [--before DIR] [--json FILE]`.

Three nginx origins, then HAProxy, nginx and this checkout's sidecar before them, one worker each, all on
loopback. In every scenario the proxies take turns (A B C A B C ...), and what counts is the CPU time of the
proxy's own process for each request: it holds on a noisy machine where throughput does not. A peer that is not
installed is left out by name. `--before` takes another checkout's sidecar along, to see what a change costs.
Everything that was started is ended, also on Ctrl-C.

Reading order: this, `peers`, `origins`, `load`, `measure`, `programs`, `table`.
"""

import argparse
import json
import platform
import signal
import sys
import tempfile
from pathlib import Path

from load import LoadError, Scenario, Turn, run_turn
from measure import Memory, cpu_seconds, memory, split_cpus
from origins import LARGE, SMALL, Origins, start_origins
from peers import PEERS, HAProxy, Nginx, Peer, Sidecar, UnavailableError
from programs import Programs, find
from table import Result, as_data, render

SCENARIOS = (
    Scenario("small", f"{SMALL}-byte answers, 32 connections kept alive", "http", 32),
    Scenario("single", f"{SMALL}-byte answers, one connection kept alive", "http", 1),
    Scenario("download", f"{LARGE // 1024} KiB answers, 8 connections kept alive", "http", 8, "/large"),
    Scenario("redis", "GET through TCP, 32 connections, no pipelining", "redis", 32),
)
ROUNDS = 5  # odd, so that the median is a turn; enough to see a disturbed one
QUICK_ROUNDS = 3
SECONDS = 3.0  # of a turn: at 1/100 s a tick, the counted CPU time is then good to about 1 %
SHORTEST = 2.0
WARM_UP = 1.0


def main() -> int:
    """Run; 0 when every scenario was measured, 1 when something failed, 2 for wrong arguments."""
    options = _options()
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # ends as Ctrl-C does: what was started is ended
    rounds = QUICK_ROUNDS if options.quick else ROUNDS
    seconds = SHORTEST if options.quick else options.seconds
    results: list[Result] = []
    failed = False
    try:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder, Programs(Path(folder)) as programs:
            proxy_cpus, other_cpus = split_cpus()
            origins = start_origins(programs, other_cpus)
            kinds = [*PEERS[:-1], *([Sidecar("before", options.before)] if options.before else []), PEERS[-1]]
            peers = _start_peers(kinds, programs, origins, proxy_cpus)
            idle = {peer.name: memory(peer.pid) for peer in peers}
            print(f"{_machine(proxy_cpus, other_cpus)}; {rounds} turns of {seconds:g} s each\n", flush=True)
            for scenario in options.scenarios:
                try:
                    found = _measure(scenario, peers, idle, rounds, seconds, other_cpus)
                except LoadError as error:
                    print(f"{scenario.name}: not measured: {error}\n", flush=True)
                    failed = True
                    continue
                print(render(scenario, found) + "\n", flush=True)
                results += found
    except RuntimeError as error:
        print(f"benchmarks/run.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("benchmarks/run.py: interrupted; everything that was started has been ended", file=sys.stderr)
        return 130
    if options.json:
        options.json.write_text(json.dumps(as_data(results), indent=2) + "\n")
    return 1 if failed or not results else 0


def _options() -> argparse.Namespace:
    names = [scenario.name for scenario in SCENARIOS]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} turns of {SHORTEST:g} s")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"of a turn, at least {SHORTEST:g}")
    parser.add_argument("--scenario", action="append", choices=names, help="only this one; may be repeated")
    parser.add_argument(
        "--before", type=Path, metavar="DIR", help="another checkout of the sidecar, to compare"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to FILE")
    options = parser.parse_args()
    if not SHORTEST <= options.seconds <= 60:
        parser.error(
            f"--seconds must be from {SHORTEST:g} to 60: shorter turns have too few clock ticks to count"
        )
    if options.before and not (options.before / "sidecar" / "__main__.py").is_file():
        parser.error(f"--before: {options.before} is no checkout of the sidecar")
    options.scenarios = [s for s in SCENARIOS if not options.scenario or s.name in options.scenario]
    return options


def _start_peers(
    kinds: list[HAProxy | Nginx | Sidecar], programs: Programs, origins: Origins, cpus: set[int]
) -> list[Peer]:
    peers = []
    for kind in kinds:
        try:
            peers.append(kind.start(programs, origins, cpus))
        except (UnavailableError, RuntimeError) as error:
            if kind.name in ("sidecar", "before"):  # whom the others are compared with
                raise RuntimeError(str(error)) from None
            print(f"left out: {error}", flush=True)
    return peers


def _measure(
    scenario: Scenario,
    peers: list[Peer],
    idle: dict[str, Memory],
    rounds: int,
    seconds: float,
    cpus: set[int],
) -> list[Result]:
    """All turns of one scenario. Raises `LoadError`."""
    if find(scenario.generator) is None:
        raise LoadError(f"{scenario.generator} is not installed")
    results, rates = [], {}
    for peer in peers:
        port = _port(scenario, peer)
        if port is None:
            print(f"left out of {scenario.name}: {peer.name} has no TCP relay or no Redis here", flush=True)
            continue
        rates[peer.name] = run_turn(scenario, port, WARM_UP, cpus, rate=10_000).rate
        results.append(Result(scenario, peer, idle[peer.name]))
    for _ in range(rounds):
        for result in results:
            port = _port(scenario, result.peer)
            assert port is not None
            before = cpu_seconds(result.peer.pid)
            turn: Turn = run_turn(scenario, port, seconds, cpus, rates[result.peer.name])
            result.costs.append((cpu_seconds(result.peer.pid) - before) / turn.requests * 1e6)
            result.turns.append(turn)
    return results


def _port(scenario: Scenario, peer: Peer) -> int | None:
    return peer.http if scenario.protocol == "http" else peer.redis


def _machine(proxies: set[int], others: set[int]) -> str:
    system = f"{platform.machine()}, Linux {platform.release()}, Python {platform.python_version()}"
    if proxies == others:
        return f"{system}; one CPU for everything"
    return f"{system}; proxies pinned to CPU {_cpus(proxies)}, origins and load to CPU {_cpus(others)}"


def _cpus(cpus: set[int]) -> str:
    return ",".join(map(str, sorted(cpus)))


if __name__ == "__main__":
    sys.exit(main())
