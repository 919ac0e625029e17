"""What is worth a line in the demo: the moves of the breakers, in words."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sidecar.resilience import Cause

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.cluster import Cluster
    from sidecar.model import EndpointState
    from sidecar.resilience import BreakerState, Transition

__all__ = ["Event", "EventFeed"]


@dataclass(frozen=True, slots=True)
class Event:
    """One move of one breaker. at: seconds since the demo began; state: where it moved to."""

    at: float
    endpoint: str
    state: BreakerState
    text: str


class EventFeed:
    """Reads the breakers' journals, each entry once.

    cluster: whose endpoints; names: what to call them, by port; begun: monotonic seconds.
    counts: moves so far, by the state they led to.
    """

    __slots__ = ("_begun", "_cluster", "_names", "_seen", "counts")

    def __init__(self, cluster: Cluster, names: Mapping[int, str], begun: float) -> None:
        self._cluster = cluster
        self._names = names
        self._begun = begun
        self._seen: dict[str, int] = {}
        self.counts: Counter[str] = Counter()

    def fresh(self) -> list[Event]:
        """What has happened since the last call, oldest first. Of a burst longer than a journal, its end."""
        events = [event for state in self._cluster.endpoints.values() for event in self._fresh_of(state)]
        return sorted(events, key=lambda event: event.at)

    def _fresh_of(self, state: EndpointState) -> list[Event]:
        name = self._names.get(state.endpoint.port, state.endpoint.address)
        breaker = state.breaker
        total = sum(breaker.transitions.values())
        new = total - self._seen.get(name, 0)
        self._seen[name] = total
        entries = list(breaker.journal)[-new:] if new else []
        self.counts.update(entry.to.label for entry in entries)
        return [Event(entry.at - self._begun, name, entry.to, _tell(name, entry)) for entry in entries]


def _tell(name: str, entry: Transition) -> str:
    evidence = "" if entry.evidence is None else entry.evidence.label.replace("_", " ")
    if entry.cause is Cause.CONSECUTIVE_FAILURES:
        why = f"opens after {entry.failures} failures in a row, the last a {evidence}"
    elif entry.cause is Cause.PROBE_FAILED:
        why = f"opens again, the probe ended in a {evidence}"
    elif entry.cause is Cause.PROBE_SUCCEEDED:
        why = "closes, the probe succeeded"
    else:
        why = "is half open, one request goes through as a probe"
    left_alone = f"; {name} is left alone for {entry.open_for:.1f} s" if entry.open_for else ""
    return f"{name}: breaker {why}{left_alone}"
