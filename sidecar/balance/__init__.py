"""Balancing policies, one small module each, found by the name the configuration uses.

A policy is a class whose instance is the picker: built from the endpoints that may be picked now, asked
once per attempt, and replaced whole when the endpoints or their states change (grpc-go's split of
balancer and picker). `previous` is the picker it replaces, so that a rotation goes on where it was.
`zones` is no policy: it stands before two pickers of one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sidecar.balance.least_request import LeastRequest
from sidecar.balance.peak_ewma import PeakEwma
from sidecar.balance.picker import Balancing, Picker
from sidecar.balance.random_choice import RandomChoice
from sidecar.balance.ring_hash import RingHash
from sidecar.balance.round_robin import RoundRobin
from sidecar.balance.zones import ZonePreference, own_share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.model import EndpointState

__all__ = [
    "POLICIES",
    "Balancing",
    "LeastRequest",
    "PeakEwma",
    "Picker",
    "Policy",
    "RandomChoice",
    "RingHash",
    "RoundRobin",
    "ZonePreference",
    "own_share",
]


class Policy(Protocol):
    """How a picker is made."""

    def __call__(
        self, endpoints: Sequence[EndpointState], previous: Picker | None, balancing: Balancing
    ) -> Picker:
        """Build the picker over `endpoints` (those that may be picked, in source order)."""


POLICIES: dict[str, Policy] = {
    "round_robin": RoundRobin,
    "least_request": LeastRequest,
    "random": RandomChoice,
    "peak_ewma": PeakEwma,
    "ring_hash": RingHash,
}
