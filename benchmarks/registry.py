"""A large registry that never rests: `benchmarks/registry.py [--seconds N] [--workers N]`. Needs etcd; some 40 seconds.

First, in this process, how long `Cluster.apply` takes for a snapshot of 1,000 endpoints, for each strategy: the first
one, one in which a few have changed, and one in which all have. Then a sidecar with 500 upstreams of 10,000 endpoints
in a real etcd, and 200 requests a second to one of them: their latency while endpoints of an upstream with 1,000 come
and go 50 times a second, and while as many other keys do, which are nobody's: the machine has the same work both times.

They take turns, and what counts is the median p99 of each: a stall of the machine is not the registry's.

It exits with 1 when a snapshot in which a few have changed takes 20 ms or more, when a request fails, or when the p99
while endpoints change is more than twice the other one (and 1 ms).
"""

import argparse
import base64
import json
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path

from laboratory import FaultyEndpoint, PacedLoad, Result, SidecarProcess, failures, wait_until
from measure import cpu_seconds, memory, split_cpus
from programs import Programs, find, free_ports

from sidecar.clock import Clock
from sidecar.cluster import Cluster
from sidecar.model import Endpoint, Snapshot, UpstreamPolicy
from sidecar.version import build_name

UPSTREAMS, ENDPOINTS, LARGE = 500, 10_000, 1000
RATE = 200.0  # requests a second
CHANGES = 50.0  # a second
TURNS = 5  # of each of the two phases
NAMES, FOLDERS = ("quiet", "churn"), ("/elsewhere/", "/services/u0/")
MOST = 20.0  # milliseconds that a snapshot of LARGE may take
SLACK = 1.0  # milliseconds
MIB = 1 << 20
STRATEGIES = ("round_robin", "least_request", "random", "peak_ewma", "ring_hash")


def main() -> int:
    """Run; 0 when all held."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seconds", type=float, default=15.0, help="of each of the two phases, all turns together"
    )
    parser.add_argument("--workers", type=int, default=1, help="of the sidecar")
    options = parser.parse_args()
    held = apply_times()
    if find("etcd") is None:
        print("benchmarks/registry.py: needs etcd (Debian's etcd-server)", file=sys.stderr)
        return 1
    try:
        with tempfile.TemporaryDirectory(prefix="registry-") as folder, Programs(Path(folder)) as programs:
            return 0 if churn(Path(folder), programs, options.seconds, options.workers) and held else 1
    except KeyboardInterrupt:
        return 130


def apply_times() -> bool:
    """Print how long snapshots take; whether those with few changes are quick enough."""
    print(f"a snapshot of {LARGE} endpoints, ms ({build_name()})")
    print(f"{'strategy':16}{'first':>8}{'few new':>9}{'all new':>9}")
    held = True
    for strategy in STRATEGIES:
        hash_on = "path" if strategy == "ring_hash" else ""
        cluster = Cluster("large", "http", UpstreamPolicy(strategy=strategy, hash_on=hash_on), Clock())
        first = _apply(cluster, range(LARGE))
        few = sorted(_apply(cluster, range(step, LARGE + step)) for step in range(1, 12))[5]
        every = _apply(cluster, range(5 * LARGE, 6 * LARGE))
        print(f"{strategy:16}{first:8.1f}{few:9.1f}{every:9.1f}")
        held = held and few < MOST
    return held


def _apply(cluster: Cluster, numbers: range) -> float:
    """Milliseconds."""
    snapshot = Snapshot("large", tuple(Endpoint(_address(number), 80) for number in numbers), "etcd")
    began = time.perf_counter()
    cluster.apply(snapshot)
    return (time.perf_counter() - began) * 1000.0


def _address(number: int) -> str:
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def churn(folder: Path, programs: Programs, seconds: float, workers: int) -> bool:
    """The two phases before a real etcd; whether the second is as the first."""
    port, peer, listen = free_ports(3)
    client = f"http://127.0.0.1:{port}"
    own = f"http://127.0.0.1:{peer}"
    command = [str(find("etcd")), "--data-dir", str(folder / "etcd")]
    command += ["--listen-client-urls", client, "--advertise-client-urls", client]
    command += ["--listen-peer-urls", own, "--initial-advertise-peer-urls", own]
    command += ["--initial-cluster", f"default={own}", "--log-level", "error"]
    _, other_cpus = split_cpus()
    programs.start("etcd", command, [port], other_cpus)
    with FaultyEndpoint() as one, FaultyEndpoint() as other:
        served = [one.port, other.port]
        _fill(client, served)
        text = _configuration(port, listen, workers)
        with SidecarProcess(folder, text) as sidecar:
            _wait_for_all(sidecar)
            pid = sidecar.process.pid
            print(f"{UPSTREAMS} upstreams, {ENDPOINTS} endpoints: {memory(pid).resident / MIB:.0f} MiB")
            with PacedLoad(listen, RATE) as load:
                time.sleep(2.0)
                turns = [
                    [
                        _phase(load, pid, seconds / TURNS, partial(_change, client, folder))
                        for folder in FOLDERS
                    ]
                    for _ in range(TURNS)
                ]
            updates = sidecar.metrics()['sidecar_registry_updates_total{result="changed",source="etcd"}']
    print(f"{updates:.0f} changes told by the registry")
    quiet, noisy = (
        _summary(name, list(phases)) for name, phases in zip(NAMES, zip(*turns, strict=True), strict=True)
    )
    failed = any(failures(results) for turn in turns for results, _ in turn)
    return not failed and noisy <= 2.0 * quiet + SLACK


def _summary(name: str, phases: list[tuple[list[Result], float]]) -> float:
    """Print what the phases of one kind were like; the median of their p99, in milliseconds."""
    results = [result for found, _ in phases for result in found]
    tails = sorted(_quantile(found, 0.99) for found, _ in phases)
    cpu = sum(share for _, share in phases) / len(phases)
    print(
        f"{name:8} p50 {_quantile(results, 0.5):6.2f} ms  p99 {tails[len(tails) // 2]:6.2f} ms "
        f"({tails[0]:.2f} to {tails[-1]:.2f})  {len(results)} requests, {len(failures(results))} failed, "
        f"{cpu:.0%} of a core"
    )
    return tails[len(tails) // 2]


def _phase(
    load: PacedLoad, pid: int, seconds: float, change: Callable[[int], None]
) -> tuple[list[Result], float]:
    """The results of so many seconds, in which `change` is called CHANGES times a second, and the sidecar's CPU."""
    began, before = time.monotonic(), cpu_seconds(pid)
    number = 0
    while (now := time.monotonic()) < began + seconds:
        change(number)
        number += 1
        time.sleep(max(0.0, began + number / CHANGES - now))
    cpu = (cpu_seconds(pid) - before) / seconds
    until = time.monotonic()
    wait_until(lambda: not load.results or load.results[-1].due >= until, "the answers")
    return load.due(began, until), cpu


def _quantile(results: list[Result], share: float) -> float:
    """Milliseconds."""
    found = sorted(result.seconds for result in results)
    return found[min(len(found) - 1, int(share * len(found)))] * 1000.0


def _configuration(etcd: int, listen: int, workers: int) -> str:
    names = [f"u{number}" for number in range(UPSTREAMS)]
    balancers = "\n".join(f"  {name}: {{source: etcd}}" for name in names)
    return f"""external_registry: {{type: etcd, host: "127.0.0.1:{etcd}"}}
load_balancers:
{balancers}
sidecar:
  bind: [127.0.0.1]
  ports: {{{listen}: u1}}
  admin: 127.0.0.1:ADMIN
  metrics: 127.0.0.1:METRICS
  workers: {workers}
"""


def _wait_for_all(sidecar: SidecarProcess) -> None:
    def known() -> bool:
        found = sidecar.metrics()
        return found.get('sidecar_registry_stale{source="etcd"}') == 0

    wait_until(known, "all upstreams to be known", 60.0)


def _fill(client: str, served: list[int]) -> None:
    """u0 has LARGE endpoints, u1 those that are served, the others the rest."""
    pairs = [(f"u0/{number}", _value(_address(number), 80)) for number in range(LARGE)]
    pairs += [(f"u1/{port}", _value("127.0.0.1", port)) for port in served]
    rest = ENDPOINTS - len(pairs)
    pairs += [
        (f"u{2 + number % (UPSTREAMS - 2)}/{number}", _value(_address(number), 81)) for number in range(rest)
    ]
    for start in range(0, len(pairs), 100):
        operations = [
            {"requestPut": {"key": _base64(f"/services/{key}"), "value": _base64(value)}}
            for key, value in pairs[start : start + 100]
        ]
        _post(client, "/v3/kv/txn", {"success": operations})


def _change(client: str, folder: str, number: int) -> None:
    """One key goes, or comes back: an endpoint of u0, if the folder is its."""
    key = {"key": _base64(f"{folder}{number // 2 % LARGE}")}
    if number % 2 == 0:
        _post(client, "/v3/kv/deleterange", key)
    else:
        value = _base64(_value(_address(number // 2 % LARGE), 80))
        _post(client, "/v3/kv/put", {**key, "value": value})


def _value(host: str, port: int) -> str:
    return json.dumps({"host": host, "port": port})


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _post(client: str, path: str, body: object) -> None:
    request = urllib.request.Request(client + path, json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=10.0) as answer:
        answer.read()


if __name__ == "__main__":
    sys.exit(main())
