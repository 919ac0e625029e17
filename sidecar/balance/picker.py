"""What the data path asks for an endpoint: the base of every policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sidecar.model.endpoint import EndpointState

__all__ = ["Picker"]


class Picker:
    """Built over the endpoints that may be picked, asked once per attempt: no allocation, no I/O."""

    __slots__ = ()

    def pick(self) -> EndpointState | None:
        """The endpoint for the next attempt; None only when built from no endpoints."""
        raise NotImplementedError
