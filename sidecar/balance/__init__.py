"""Balancing policies, one small module each, found by the name the configuration uses.

A policy is a class whose instance is the picker: built from the endpoints that may be picked now, asked
once per attempt, and replaced whole when the endpoints or their states change (grpc-go's split of
balancer and picker). `previous` is the picker it replaces, so that a rotation goes on where it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sidecar.balance.picker import Picker
from sidecar.balance.round_robin import RoundRobin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.model import EndpointState

__all__ = ["POLICIES", "Picker", "Policy", "RoundRobin"]


class Policy(Protocol):
    """How a picker is made."""

    def __call__(self, endpoints: Sequence[EndpointState], previous: Picker | None) -> Picker:
        """Build the picker over `endpoints` (those that may be picked, in source order)."""


POLICIES: dict[str, Policy] = {"round_robin": RoundRobin}
