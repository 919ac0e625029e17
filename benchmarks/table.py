"""The figures of a run as tables for people, and as plain data for files."""

from dataclasses import dataclass, field
from statistics import median
from typing import Any

from load import Scenario, Turn
from measure import Memory
from peers import Peer

__all__ = ["Result", "as_data", "render"]

MIB = 1024 * 1024


@dataclass(slots=True)
class Result:
    """All turns of one peer in one scenario. costs: CPU microseconds a request of each turn."""

    scenario: Scenario
    peer: Peer
    memory: Memory
    turns: list[Turn] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)

    @property
    def cost(self) -> float:
        """CPU microseconds a request, the median of the turns."""
        return median(self.costs)

    @property
    def rate(self) -> float:
        """Requests a second, the median of the turns."""
        return median(turn.rate for turn in self.turns)


def render(scenario: Scenario, results: list[Result]) -> str:
    """The table of one scenario: a line for each peer."""
    reference = next((result.cost for result in results if result.peer.name == "HAProxy"), None)
    header = (
        f"  {'proxy':<10}{'version':<10}{'CPU µs/request':>15}{'min-max':>16}{'requests/s':>12}"
        f"{'x HAProxy':>11}{'idle RSS MiB':>14}{'PSS':>7}"
    )
    lines = [f"{scenario.name}: {scenario.text}", header]
    for result in results:
        spread = f"{min(result.costs):.1f}-{max(result.costs):.1f}"
        ratio = f"{result.cost / reference:.2f}" if reference else "-"
        shared = result.memory.proportional
        lines.append(
            f"  {result.peer.name:<10}{result.peer.version:<10}{result.cost:>15.1f}{spread:>16}"
            f"{result.rate:>12.0f}{ratio:>11}{result.memory.resident / MIB:>14.1f}"
            f"{'-' if shared is None else f'{shared / MIB:.1f}':>7}"
        )
    return "\n".join(lines)


def as_data(results: list[Result]) -> list[dict[str, Any]]:
    """Every figure, one entry for each peer and scenario; CPU in microseconds a request, memory in bytes."""
    return [
        {
            "scenario": result.scenario.name,
            "proxy": result.peer.name,
            "version": result.peer.version,
            "cpu_us_per_request": result.cost,
            "cpu_us_per_request_turns": result.costs,
            "requests_per_second": result.rate,
            "requests_per_second_turns": [turn.rate for turn in result.turns],
            "idle_rss_bytes": result.memory.resident,
            "idle_pss_bytes": result.memory.proportional,
        }
        for result in results
    ]
