"""Least request: of two endpoints drawn by chance, the one with less to do.

Two are as good as all: the most loaded endpoint's excess falls from logarithmic to doubly logarithmic in their
number (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001), and many sidecars that know
nothing of each other do not all run to the same idle endpoint. Envoy's LEAST_REQUEST and linkerd do it so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.balance.picker import Picker
from sidecar.balance.round_robin import lay_out_endpoints

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.balance.picker import Balancing
    from sidecar.model.endpoint import EndpointState

__all__ = ["LeastRequest", "TwoChoices"]


class TwoChoices(Picker):
    """Draws two different endpoints and takes the one that `_prefers_second` says.

    The first is drawn in proportion to the weights and wins a tie, so that endpoints with nothing to do get what
    their weights say; the second is any of the others.
    """

    __slots__ = ("_cycle",)

    def __init__(
        self, endpoints: Sequence[EndpointState], previous: Picker | None, balancing: Balancing
    ) -> None:
        Picker.__init__(self, endpoints, previous, balancing)
        self._cycle = lay_out_endpoints(endpoints)

    def pick(self, key: int, now: float) -> EndpointState | None:
        """The better of two; None when there is none."""
        cycle = self._cycle
        if not cycle:
            return None
        first = cycle[int(self._uniform() * len(cycle))]
        endpoints = self.endpoints
        others = len(endpoints) - 1
        if not others:
            return first
        second = endpoints[int(self._uniform() * others)]
        if second is first:
            second = endpoints[others]
        return second if self._prefers_second(first, second, now) else first

    def _prefers_second(self, first: EndpointState, second: EndpointState, now: float) -> bool:
        """Whether the second is better, and not as good."""
        raise NotImplementedError


class LeastRequest(TwoChoices):
    """Fewer exchanges and sessions in flight, for the weight, are better.

    One that has nothing to do comes before one that has, whatever their weights, as with nginx's `least_conn`.
    """

    __slots__ = ()

    def _prefers_second(self, first: EndpointState, second: EndpointState, now: float) -> bool:
        return second.in_flight * first.weight < first.in_flight * second.weight
