"""Random: each pick by chance alone, in proportion to the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.balance.picker import Picker
from sidecar.balance.round_robin import lay_out_endpoints

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.balance.picker import Balancing
    from sidecar.model.endpoint import EndpointState

__all__ = ["RandomChoice"]


class RandomChoice(Picker):
    """Draws from a cycle in which every endpoint stands as often as its weight says.

    What it is for: many sidecars that know nothing of each other, and would take turns in step.
    """

    __slots__ = ("_cycle",)

    def __init__(
        self, endpoints: Sequence[EndpointState], previous: Picker | None, balancing: Balancing
    ) -> None:
        Picker.__init__(self, endpoints, previous, balancing)
        self._cycle = lay_out_endpoints(endpoints)

    def pick(self, key: int, now: float) -> EndpointState | None:
        """Any; None when there is none."""
        cycle = self._cycle
        return cycle[int(self._uniform() * len(cycle))] if cycle else None
