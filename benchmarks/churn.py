"""Memory under churn: `python3 benchmarks/churn.py [--minutes N] [--package DIR]`, 10 minutes unless told otherwise.

One sidecar before three origins, and load that changes every few seconds: keep-alive, a connection for each request,
many connections, large answers, uploads. Every turn a line with the sidecar's resident memory and its descriptors, read
when the load has ended. It exits with 1 when memory at the end is more than 5 % above what it was after the first two
rounds of all kinds of load, which is when pools and buffers have their size.
"""

import argparse
import sys
import tempfile
import time
from itertools import cycle
from pathlib import Path

from idle import allow_descriptors
from load import LoadError, run_turn
from measure import memory, split_cpus
from origins import start_origins
from peer_sidecar import Sidecar, find_package, interpreter
from peers import Proxy, UnavailableError
from programs import Programs
from scenarios import SCENARIOS, Scenario

KINDS = ("small", "connect", "many", "download", "upload")
TURN = 2.0  # seconds of load
WARM = 2  # rounds of all kinds before memory counts
GROWTH = 1.05
MIB = 1 << 20


def main() -> int:
    """Run; 0 when memory was steady."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--package", type=Path, metavar="DIR", help="the folder to import the sidecar from")
    options = parser.parse_args()
    allow_descriptors()
    scenarios = {scenario.name: scenario for scenario in SCENARIOS}
    try:
        with tempfile.TemporaryDirectory(prefix="churn-") as folder, Programs(Path(folder)) as programs:
            proxy_cpus, other_cpus = split_cpus()
            origins = start_origins(programs, other_cpus)
            python = interpreter()
            package = (options.package or find_package(python)).resolve()
            front = origins.front(scenarios["small"].front)
            assert front is not None, "the origins are HTTP"
            proxy = Sidecar("sidecar", package, python).start(programs, front, proxy_cpus)
            return _churn(proxy, scenarios, options.minutes * 60, other_cpus)
    except (RuntimeError, UnavailableError, LoadError) as error:
        print(f"benchmarks/churn.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _churn(proxy: Proxy, scenarios: dict[str, Scenario], seconds: float, cpus: set[int]) -> int:
    """Rounds of all kinds of load for `seconds`; 0 when memory was steady."""
    started = time.monotonic()
    base = highest = 0.0
    requests = 0.0
    for number, kind in enumerate(cycle(KINDS)):
        requests += run_turn(scenarios[kind], proxy.ports, TURN, cpus).requests
        resident = memory(proxy.pid).resident / MIB
        elapsed = time.monotonic() - started
        descriptors = len(list(Path(f"/proc/{proxy.pid}/fd").iterdir()))
        print(
            f"{elapsed:6.0f} s  {kind:<9} {requests:10.0f} requests  {resident:7.1f} MiB  {descriptors:5d} descriptors",
            flush=True,
        )
        if number < WARM * len(KINDS):
            base = max(base, resident)
        highest = resident if number % len(KINDS) == 0 else max(highest, resident)
        if elapsed >= seconds and number >= (WARM + 1) * len(KINDS) and (number + 1) % len(KINDS) == 0:
            break
    steady = highest <= base * GROWTH
    print(
        f"after warm-up {base:.1f} MiB, in the last round {highest:.1f} MiB: {'steady' if steady else 'GROWN'}"
    )
    return 0 if steady else 1


if __name__ == "__main__":
    sys.exit(main())
