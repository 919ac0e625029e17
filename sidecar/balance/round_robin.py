"""Smooth weighted round robin over a schedule that is laid out once.

Every endpoint appears weight times in a cycle, spread evenly, as nginx's smooth weighted round robin
spreads them ({5, 1, 1} gives a a b a c a a): laying the cycle out when endpoints change, which is rare,
makes a pick one index and one addition, which happens on every request.
"""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING

from sidecar.balance.picker import Picker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.balance.picker import Balancing
    from sidecar.model.endpoint import EndpointState

__all__ = ["MAX_CYCLE", "RoundRobin", "lay_out", "lay_out_endpoints"]

MAX_CYCLE = (
    8192  # entries in a cycle (64 KiB of references); beyond it weights are scaled down, never below 1
)


class RoundRobin(Picker):
    """Picks endpoints in the order of `lay_out`, for ever. `previous` hands over its place in the cycle."""

    __slots__ = ("_cycle", "_next")

    def __init__(
        self, endpoints: Sequence[EndpointState], previous: Picker | None, balancing: Balancing
    ) -> None:
        Picker.__init__(self, endpoints, previous, balancing)
        self._cycle = lay_out_endpoints(endpoints)
        # Going on from where the last cycle was keeps the first endpoints from taking every rebuild's first pick.
        self._next: int = previous._next if isinstance(previous, RoundRobin) else 0

    def pick(self, key: int, now: float) -> EndpointState | None:
        """The next endpoint of the cycle; None when there is none."""
        cycle = self._cycle
        index = self._next
        if index >= len(cycle):
            if not cycle:
                return None
            index = 0
        self._next = index + 1
        return cycle[index]

    def peek(self) -> EndpointState | None:
        """The next endpoint of the cycle."""
        cycle = self._cycle
        return cycle[self._next if self._next < len(cycle) else 0] if cycle else None


def lay_out_endpoints(endpoints: Sequence[EndpointState]) -> list[EndpointState]:
    """One smooth cycle of endpoints, each as often as its weight says: also what chance draws from."""
    return [endpoints[index] for index in lay_out([state.weight for state in endpoints])]


def lay_out(weights: Sequence[int]) -> list[int]:
    """Indices of `weights` in the order of one smooth cycle; index i appears weights[i]/gcd times.

    The k-th appearance of an entry of weight w stands at (k + phase) / w of the cycle. Entries of equal
    weight get evenly spaced phases, so that they take turns instead of meeting. O(S log S), S the cycle.
    """
    if not weights:
        return []
    divisor = gcd(*weights)
    counts = [weight // divisor for weight in weights]
    if max(counts) == 1:
        return list(range(len(weights)))
    total = sum(counts)
    if total > MAX_CYCLE:
        room = max(MAX_CYCLE, len(counts))
        counts = [max(1, count * room // total) for count in counts]
    peers: dict[int, int] = {}
    for count in counts:
        peers[count] = peers.get(count, 0) + 1
    seen: dict[int, int] = {}
    places: list[tuple[float, int]] = []
    for index, count in enumerate(counts):
        seen[count] = seen.get(count, 0) + 1
        phase = seen[count] / (peers[count] + 1)
        places.extend(((k + phase) / count, index) for k in range(count))
    places.sort()
    return [index for _, index in places]
