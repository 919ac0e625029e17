"""Peak EWMA: of two endpoints drawn by chance, the one whose answer should be here sooner.

What an endpoint costs is its latency times the requests that would be in flight there. The latency is a moving
average that believes bad news at once and good news slowly: an attempt that took longer replaces it, one that was
quicker moves it by how long ago the last news was (Finagle's PeakEwma, linkerd2's `tower::load::peak_ewma`).
"""

from __future__ import annotations

from math import exp
from typing import TYPE_CHECKING

from sidecar.balance.least_request import TwoChoices

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.balance.picker import Balancing, Picker
    from sidecar.model.endpoint import EndpointState

__all__ = ["DECAY", "PENALTY", "PeakEwma"]

DECAY = 10.0  # seconds after which news counts for 1/e of what it did: Finagle's and linkerd's

# Added to what a failed attempt took: one that fails at once is not a quick one (linkerd2's failure penalty).
PENALTY = 5.0  # seconds

_DECAY = DECAY  # as compiled code sees them
_PENALTY = PENALTY

# Of an endpoint that nobody has heard of yet and that is asked already: one request finds out, not a crowd.
_UNKNOWN = 1e6  # seconds

_LEAST = 1e-6  # seconds: of nothing at all, load would be no cost


class PeakEwma(TwoChoices):
    """Less latency times load, for the weight, is better. An endpoint that is not known yet is asked once."""

    __slots__ = ()

    def __init__(
        self, endpoints: Sequence[EndpointState], previous: Picker | None, balancing: Balancing
    ) -> None:
        TwoChoices.__init__(self, endpoints, previous, balancing)
        self.observes = True

    def _prefers_second(self, first: EndpointState, second: EndpointState, now: float) -> bool:
        return self._cost(second, now) * first.weight < self._cost(first, now) * second.weight

    def _cost(self, state: EndpointState, now: float) -> float:
        if state.latency > 0.0:
            # It decays while it is not asked: else one slow answer would keep an endpoint away for ever.
            latency = max(state.latency * _kept(now - state.latency_at), _LEAST)
            return latency * (state.in_flight + 1)
        return _UNKNOWN * state.in_flight

    def observe(self, state: EndpointState, seconds: float, failed: bool, now: float) -> None:
        """An attempt at `state` took so long: the peak at once, the rest by and by."""
        if failed:
            seconds += _PENALTY
        kept = _kept(now - state.latency_at)
        if seconds >= state.latency * kept:
            state.latency = seconds
        else:
            state.latency = state.latency * kept + seconds * (1.0 - kept)
        state.latency_at = now


def _kept(age: float) -> float:
    """How much of what was known so many seconds ago still counts."""
    return exp(-age / _DECAY) if age > 0.0 else 1.0
