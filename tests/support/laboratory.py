"""Three endpoints that can be told to fail, the sidecar before them, and a steady load on it.

What a test of faults looks at: how many requests failed, how, and since when traffic has left an endpoint or has
come back to it. Every request is accounted for at the end, by the load and by the sidecar.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from support.faults import FaultyEndpoint
from support.paced import PacedLoad, failures
from support.ports import free_port
from support.proxy import Sidecar, configuration
from support.waiting import wait_until

__all__ = ["RATE", "Laboratory", "laboratory", "since"]

RATE = 200.0  # requests a second


class Laboratory:
    """See the module. bad: the one of `endpoints` that fails alone."""

    def __init__(self, sidecar: Sidecar, endpoints: list[FaultyEndpoint], load: PacedLoad) -> None:
        self.sidecar = sidecar
        self.endpoints = endpoints
        self.bad = endpoints[-1]
        self.load = load

    def let_pass(self, seconds: float) -> None:
        """Load of so many seconds has been answered."""
        goal = len(self.load.results) + int(seconds * RATE)
        wait_until(lambda: len(self.load.results) >= goal, f"{seconds:g} s of answers", seconds + 5.0)

    def breakers(self) -> dict[str, dict[str, Any]]:
        """Of each endpoint, by address, as /upstreams tells it."""
        return {one["address"]: one["breaker"] for one in self.sidecar.upstream("api")["endpoints"]}

    def breaker(self) -> dict[str, Any]:
        """Of the bad endpoint."""
        return self.breakers()[self.bad.address]

    def opened(self, seconds: float) -> dict[str, Any]:
        """Wait until its breaker has opened; the journal's first entry."""
        first = wait_until(lambda: self.breaker()["journal"], "the breaker to open", seconds)[0]
        assert first["to"] == "open"
        assert isinstance(first, dict)
        return first

    def wait_for_next_opening(self) -> None:
        """Wait until a probe has failed just now: its breaker's whole open time is still to come."""

        def openings() -> int:
            return sum(entry["to"] == "open" for entry in self.breaker()["journal"])

        before = openings()
        wait_until(lambda: openings() > before, "a probe to fail")

    def back(self) -> float:
        """Let it recover, and wait until traffic has come back to it; the seconds that took."""
        before = len(self.bad.answers)
        began = self.bad.recover()
        wait_until(lambda: len(self.bad.answers) >= before + 10, "traffic of the endpoint again")
        return next(at for at in self.bad.answers[before:] if at >= began) - began

    def counted(self, family: str) -> int:
        """The sum of all series of that metric."""
        found = self.sidecar.metrics()
        return int(sum(value for name, value in found.items() if name.startswith(family + "{")))


@contextmanager
def laboratory(tmp_path: Path, policy: str) -> Iterator[Laboratory]:
    """A fresh one, half a second after its begin."""
    port = free_port()
    with ExitStack() as stack:
        endpoints = [stack.enter_context(FaultyEndpoint()) for _ in range(3)]
        text = configuration(port, [endpoint.port for endpoint in endpoints], policy=policy)
        sidecar = stack.enter_context(Sidecar(tmp_path, text))
        found = Laboratory(sidecar, endpoints, stack.enter_context(PacedLoad(port, RATE)))
        found.let_pass(0.5)
        assert not failures(found.load.results)
        yield found
        found.let_pass(0.3)
        found.load.end()
        assert found.counted("sidecar_requests_total") == found.load.sent, "each request is counted once"


def since(began: float, entry: dict[str, Any]) -> float:
    """Seconds from a monotonic time to an entry of a breaker's journal, whose times are the calendar's."""
    return datetime.fromisoformat(entry["at"]).timestamp() - (time.time() - (time.monotonic() - began))
