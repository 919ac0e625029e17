"""The figures of a run as tables for people, and as plain data for files."""

from dataclasses import dataclass, field
from statistics import median
from typing import Any

from load import Turn
from measure import Memory
from scenarios import Scenario

__all__ = ["REFERENCE", "Result", "as_data", "render"]

KIB = 1024
MIB = 1024 * KIB
REFERENCE = "HAProxy"  # whom the others are compared with


@dataclass(slots=True)
class Result:
    """All turns of one peer in one scenario.

    figures: what is compared, one for each turn: CPU microseconds a request, or KiB a connection in `idle`.
    turns: of the load generators; none in `idle`. memory: of the proxy after the last turn.
    """

    scenario: Scenario
    proxy: str
    version: str
    figures: list[float] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    memory: Memory = field(default_factory=lambda: Memory(0, None))

    @property
    def figure(self) -> float:
        """The median of the turns."""
        return median(self.figures)

    @property
    def rate(self) -> float | None:
        """Requests a second, the median of the turns."""
        return _median([turn.rate for turn in self.turns])

    @property
    def p50(self) -> float | None:
        """Seconds of latency that half of the requests stay below, the median of the turns."""
        return _median([turn.p50 for turn in self.turns])

    @property
    def p99(self) -> float | None:
        """The same for 99 %."""
        return _median([turn.p99 for turn in self.turns])


def render(scenario: Scenario, results: list[Result]) -> str:
    """The table of one scenario: a line for each peer."""
    reference = next((result.figure for result in results if result.proxy == REFERENCE), None)
    header = (
        f"  {'proxy':<12}{'version':<16}{scenario.unit:>15}{'min-max':>18}{'x ' + REFERENCE:>11}"
        f"{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}{'RSS MiB':>9}{'PSS':>7}"
    )
    lines = [f"{scenario.name}: {scenario.text}", header]
    for result in results:
        spread = f"{_short(min(result.figures))}-{_short(max(result.figures))}"
        ratio = f"{result.figure / reference:.2f}" if reference else "-"
        shared = result.memory.proportional
        lines.append(
            f"  {result.proxy:<12}{result.version:<16}{_short(result.figure):>15}{spread:>18}{ratio:>11}"
            f"{'-' if result.rate is None else f'{result.rate:.0f}':>12}"
            f"{_milliseconds(result.p50):>9}{_milliseconds(result.p99):>9}"
            f"{result.memory.resident / MIB:>9.1f}{'-' if shared is None else f'{shared / MIB:.1f}':>7}"
        )
    return "\n".join(lines)


def as_data(results: list[Result]) -> list[dict[str, Any]]:
    """Every figure, one entry for each scenario and peer. Times in seconds and memory in bytes where not named."""
    return [_entry(result) for result in results]


def _entry(result: Result) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "scenario": result.scenario.name,
        "title": result.scenario.title,
        "text": result.scenario.text,
        "proxy": result.proxy,
        "version": result.version,
        "unit": result.scenario.unit,
        "figure": result.figure,
        "figure_turns": result.figures,
        "rss_bytes": result.memory.resident,
        "pss_bytes": result.memory.proportional,
    }
    if result.turns:
        entry |= {
            "requests_per_second": result.rate,
            "latency_p50": result.p50,
            "latency_p99": result.p99,
            "turns": [
                {"requests": turn.requests, "seconds": turn.seconds, "p50": turn.p50, "p99": turn.p99}
                for turn in result.turns
            ],
        }
    return entry


def _median(values: list[float | None]) -> float | None:
    """None where any turn could not tell, or there is none."""
    known = [value for value in values if value is not None]
    return median(known) if known and len(known) == len(values) else None


def _short(value: float) -> str:
    """Three digits that say something, or more before the point."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.2f}"
