"""What a scrape of /metrics costs: `benchmarks/scrape.py [--seconds N] [--detail LEVEL]`. Some 30 seconds.

First, in this process: size, CPU time of all and of the longest part, between two of which requests are served, for 50
and 500 upstreams of 20 endpoints each, in both formats. Then a sidecar with 50 such upstreams and 200 requests a second
to one of them: their latency in quiet, and while it is scraped once a second as Prometheus does. They take turns.

It exits with 1 when a scrape of 50 upstreams takes 50 ms of CPU or more, when a part takes 10 ms, or when a request
fails.
"""

import argparse
import gc
import gzip
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from laboratory import FaultyEndpoint, PacedLoad, Result, SidecarProcess, failures, wait_until
from measure import cpu_seconds
from programs import free_ports
from support.metrics import many  # laboratory.py has put its folder on the path

from sidecar.config.settings import DETAILS
from sidecar.observe.exposition import CLASSIC, OPENMETRICS
from sidecar.version import build_name

SIZES = (50, 500)  # upstreams
ENDPOINTS = 20  # of each upstream
MOST_CPU, MOST_STALL = 50.0, 10.0  # milliseconds, of 50 upstreams
REPEATS = 9  # of which the median counts: what stalls the machine once does not
RATE = 200.0  # requests a second
TURNS = 5
EVERY = 1.0  # seconds between scrapes: ten times as often as is usual
ACCEPT = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"


def main() -> int:
    """Run; 0 when all held."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="of each of the two kinds, all turns together"
    )
    parser.add_argument("--detail", choices=DETAILS, default="normal")
    options = parser.parse_args()
    held = in_process(options.detail)
    try:
        with tempfile.TemporaryDirectory(prefix="scrape-") as folder:
            return 0 if under_load(Path(folder), options.seconds, options.detail) and held else 1
    except KeyboardInterrupt:
        return 130


def in_process(detail: str) -> bool:
    """Print what writing takes; whether it is within its bounds."""
    print(f"metrics_detail {detail} ({build_name()})")
    print(
        f"{'upstreams':>9} {'format':12}{'series':>8}{'KB':>7}{'gzip KB':>9}{'CPU ms':>8}{'parts':>7}{'longest ms':>12}"
    )
    held = True
    for upstreams in SIZES:
        metrics = many(upstreams, ENDPOINTS, detail)
        gc.collect()
        gc.freeze()  # as sidecar/garbage.py does
        for name, form in (("text", CLASSIC), ("openmetrics", OPENMETRICS)):
            body = metrics.render(form)
            series = sum(not line.startswith(b"#") for line in body.splitlines())
            turns = sorted(_turn(metrics.parts(form)) for _ in range(REPEATS))
            cpu = turns[REPEATS // 2][0]
            longest = sorted(turn[1] for turn in turns)[REPEATS // 2]
            sizes = f"{len(body) / 1e3:7.0f}{len(gzip.compress(body, 1)) / 1e3:9.0f}"
            print(f"{upstreams:9} {name:12}{series:8}{sizes}{cpu:8.1f}{turns[0][2]:7}{longest:12.2f}")
            held = held and longest < MOST_STALL and (cpu < MOST_CPU or upstreams > 50)
    return held


def _turn(parts: Iterator[bytes]) -> tuple[float, float, int]:
    """(CPU of all, the longest part, how many parts), in milliseconds."""
    longest, count = 0.0, 0
    began = before = time.thread_time()  # what else the machine does stops the wall clock's parts anywhere
    for _ in parts:
        now = time.thread_time()
        longest = max(longest, now - before)
        before, count = now, count + 1
    return (before - began) * 1000.0, longest * 1000.0, count


def under_load(folder: Path, seconds: float, detail: str) -> bool:
    """Print the latency of requests without scrapes and with them; whether all were answered well."""
    (listen,) = free_ports(1)
    with FaultyEndpoint() as endpoint:
        text = _configuration(listen, endpoint.port, detail)
        with SidecarProcess(folder, text) as sidecar, PacedLoad(listen, RATE) as load:
            time.sleep(2.0)
            phases: dict[str, list[tuple[list[Result], float]]] = {"quiet": [], "scraped": []}
            for _ in range(TURNS):
                for name, found in phases.items():
                    found.append(_phase(load, sidecar, seconds / TURNS, scrapes=name == "scraped"))
    for name, found in phases.items():
        tails = sorted(_quantile(results, 0.99) for results, _ in found)
        results = [result for one, _ in found for result in one]
        cpu = sum(share for _, share in found) / len(found)
        print(
            f"{name:8} p50 {_quantile(results, 0.5):5.2f} ms  p99 {tails[len(tails) // 2]:5.2f} ms "
            f"({tails[0]:.2f} to {tails[-1]:.2f})  longest {_quantile(results, 1.0):.1f} ms  "
            f"{len(results)} requests, {len(failures(results))} failed, {cpu:.1%} of a core"
        )
    return not any(failures(results) for found in phases.values() for results, _ in found)


def _phase(
    load: PacedLoad, sidecar: SidecarProcess, seconds: float, *, scrapes: bool
) -> tuple[list[Result], float]:
    """The results of so many seconds, and the share of a core that the sidecar took."""
    pid = sidecar.process.pid
    began, before = time.monotonic(), cpu_seconds(pid)
    due = began + EVERY / 2
    while (now := time.monotonic()) < began + seconds:
        if scrapes and now >= due:
            due += EVERY
            _scrape(sidecar.metrics_port)
        time.sleep(0.01)
    cpu = (cpu_seconds(pid) - before) / (time.monotonic() - began)
    until = time.monotonic()
    wait_until(lambda: not load.results or load.results[-1].due >= until, "the answers")
    return load.due(began, until), cpu


def _scrape(port: int) -> None:
    fields = {"Accept": ACCEPT, "Accept-Encoding": "gzip"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers=fields)
    with urllib.request.urlopen(request, timeout=10.0) as answer:
        gzip.decompress(answer.read())


def _quantile(results: list[Result], share: float) -> float:
    """Milliseconds."""
    found = sorted(result.seconds for result in results)
    return found[min(len(found) - 1, int(share * len(found)))] * 1000.0


def _configuration(listen: int, port: int, detail: str) -> str:
    """u0 has the endpoint that is there; nobody asks for the others."""
    balancers = [f'  u0: {{hosts: ["127.0.0.1:{port}"]}}']
    for number in range(1, 50):
        hosts = ", ".join(f'"10.0.{number}.{last}:80"' for last in range(ENDPOINTS))
        balancers.append(f"  u{number}: {{hosts: [{hosts}]}}")
    lines = "\n".join(balancers)
    return f"""load_balancers:
{lines}
sidecar:
  bind: [127.0.0.1]
  ports: {{{listen}: u0}}
  admin: 127.0.0.1:ADMIN
  metrics: 127.0.0.1:METRICS
  metrics_detail: {detail}
"""


if __name__ == "__main__":
    sys.exit(main())
