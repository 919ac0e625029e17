"""One endpoint of three fails: `python3 benchmarks/faults.py [--quick] [--fault NAME ...] [--package DIR]`.

The sidecar and HAProxy, each fresh before three endpoints of its own, one after the other for each fault: 200 requests
a second, due whatever becomes of those before, over connections kept alive. The load goes on for 6 s, in which
HAProxy's checks have come to trust every server (one that has just started is down after a single failed check, later
after three); then one endpoint fails for 10 s, then it is well again, until it is asked once more and for a second
after that.

requests, failed: of the application; a failure is a 5xx or an answer that breaks off. to eject: seconds from the
fault's beginning until the last request that reached the failing endpoint before a second with one request at most
(a breaker's probe is one); `-` where there was no such second, and 0 where none reached it. to recover: seconds from
the fault's end until a request was answered there. Health checks are not requests here. slowest: the longest time of
any request, from when it was due.

Both have 5 s without an answer as their time-out, 1 s to connect, and round robin (`--quick`: 2 s, and faults of 4 s,
which is less than three checks take).
The sidecar has its defaults besides: one retry, breakers of 5 failures in a row or 50 % of 20 within 10 s; without
health checks, and once more with those of HAProxy. HAProxy has what a configuration that is to survive failing
servers usually has: `option httpchk` with `check inter 2s fall 3 rise 2`, `option redispatch`, `retries 3`, and
`observe layer7 error-limit 5 on-error mark-down`, which ejects after 5 errors of traffic. `retry-on` stays at its
default (a failed connect), as most have it; what it does with `conn-failure empty-response response-timeout` shows
`--retry-on`. Neither is asked to hide statuses. HAProxy closes a client's connection that has been used before,
without a word, where the endpoint broke off before its answer: it leaves trying again to the client (`0
IncompleteReadError`), and this one does not.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from laboratory import FAULTS, Fault, FaultyEndpoint, PacedLoad, failures, last_before_silence, tally
from measure import split_cpus
from origins import Front
from peer_sidecar import Sidecar, find_package, interpreter
from peers import HAProxy, Peer, UnavailableError
from programs import Programs

RATE = 200.0  # requests a second
BEFORE = 6.0  # seconds of load before the fault
LASTS, QUICK_LASTS = 10.0, 4.0  # of the fault
TIMEOUT, QUICK_TIMEOUT = 5.0, 2.0  # seconds for an answer
COMES_BACK = 15.0  # seconds after which nobody waits for the endpoint's return any more
AFTER = 1.0
CHECK = "/health"
CHECKED = f"health_check: {{path: {CHECK}, interval: 2s, fall: 3, rise: 2}}"  # HAProxy's
SETTINGS = f"""  timeout connect 1s
  timeout client 60s
  timeout http-request 10s
  timeout http-keep-alive 60s
  retries 3
  option redispatch
  option httpchk GET {CHECK}
  option http-keep-alive
  http-reuse always
  balance roundrobin
"""


class WatchfulHAProxy(HAProxy):
    """HAProxy with health checks, and an eye on the traffic. timeout: seconds for an answer."""

    server = "check inter 2s fall 3 rise 2 observe layer7 error-limit 5 on-error mark-down"

    def __init__(self, timeout: float, *, retry_on: bool) -> None:
        self.settings = f"{SETTINGS}  timeout server {timeout:g}s\n"
        if retry_on:
            self.settings += "  retry-on conn-failure empty-response response-timeout\n"


@dataclass(frozen=True, slots=True)
class Row:
    """What one fault did behind one proxy; see the module. Seconds are None where there was no such moment."""

    requests: int
    failed: int
    eject: float | None
    recover: float | None
    slowest: float
    how: str


def main() -> int:
    """Run; 0 when every fault was tried, 1 when a proxy did not start, 2 for wrong arguments."""
    options = _options()
    # SIGTERM ends as Ctrl-C does: what was started is ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix="faults-") as folder, Programs(Path(folder)) as programs:
            proxy_cpus, other_cpus = split_cpus()
            os.sched_setaffinity(0, other_cpus)
            python = interpreter()
            package = (options.package or find_package(python)).resolve()
            lasts, timeout = (QUICK_LASTS, QUICK_TIMEOUT) if options.quick else (LASTS, TIMEOUT)
            peers: list[Peer] = [
                Sidecar("sidecar", package, python, f"timeout: {timeout:g}"),
                Sidecar("with checks", package, python, f"timeout: {timeout:g}, {CHECKED}"),
                WatchfulHAProxy(timeout, retry_on=options.retry_on),
            ]
            print(", ".join(f"{peer.name} {peer.version()}" for peer in peers), end="; ")
            print(f"one of three endpoints fails for {lasts:g} s, {RATE:g} requests a second\n")
            print(_line("fault", "proxy", "requests", "failed", "to eject", "to recover", "slowest", "how"))
            for fault in options.faults:
                for peer in peers:
                    row = _measure(programs, peer, fault, lasts, proxy_cpus)
                    print(_render(fault, peer, row), flush=True)
    except (RuntimeError, UnavailableError) as error:
        print(f"benchmarks/faults.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("benchmarks/faults.py: interrupted; everything started has been ended", file=sys.stderr)
        return 130
    return 0


def _options() -> argparse.Namespace:
    names = {fault.name: fault for fault in FAULTS}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help=f"faults of {QUICK_LASTS:g} s, time-outs of {QUICK_TIMEOUT:g} s"
    )
    parser.add_argument(
        "--fault", action="append", choices=list(names), help="only this one; may be repeated"
    )
    parser.add_argument("--retry-on", action="store_true", help="HAProxy with retries of missing answers")
    parser.add_argument("--package", type=Path, metavar="DIR", help="the folder to import the sidecar from")
    options = parser.parse_args()
    options.faults = [names[name] for name in options.fault] if options.fault else list(FAULTS)
    return options


@contextmanager
def _endpoints() -> Iterator[list[FaultyEndpoint]]:
    """Three of them."""
    with ExitStack() as stack:
        yield [stack.enter_context(FaultyEndpoint(unseen=CHECK)) for _ in range(3)]


def _measure(programs: Programs, peer: Peer, fault: Fault, lasts: float, cpus: set[int]) -> Row:
    """One fault behind one fresh proxy."""
    with _endpoints() as endpoints:
        front = Front("http", (tuple(endpoint.address for endpoint in endpoints),))
        proxy = peer.start(programs, front, cpus)
        bad = endpoints[-1]
        try:
            with PacedLoad(proxy.ports[0], RATE, patience=4 * TIMEOUT) as load:
                time.sleep(BEFORE)
                began = bad.suffer(fault)
                time.sleep(lasts)
                ended = bad.recover()
                _wait_for_answers(bad, ended)
                time.sleep(AFTER)
        finally:
            programs.stop(proxy.pid)
    failed = failures(load.results)
    return Row(
        load.sent,
        len(failed),
        last_before_silence(bad.arrivals, began, until=ended),
        next((at - ended for at in bad.answers if at >= ended), None),
        max(result.seconds for result in load.results),
        ", ".join(f"{count} x {how}" for how, count in tally(failed).most_common(3)),
    )


def _wait_for_answers(endpoint: FaultyEndpoint, since: float) -> None:
    deadline = since + COMES_BACK
    while time.monotonic() < deadline and not (endpoint.answers and endpoint.answers[-1] >= since):
        time.sleep(0.05)


def _render(fault: Fault, peer: Peer, row: Row) -> str:
    eject, recover = (_seconds(value) for value in (row.eject, row.recover))
    return _line(
        fault.name, peer.name, row.requests, row.failed, eject, recover, _seconds(row.slowest), row.how
    )


def _line(fault: str, proxy: str, *cells: object) -> str:
    *figures, how = cells
    return f"{fault:<18} {proxy:<16} " + " ".join(f"{cell!s:>10}" for cell in figures) + f"  {how}".rstrip()


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"


if __name__ == "__main__":
    sys.exit(main())
