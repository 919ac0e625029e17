"""What a registry source says an upstream consists of now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sidecar.model.endpoint import Endpoint

__all__ = ["Snapshot"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The endpoints of one upstream, complete: what is not in it has gone.

    source: which source said so, for example `static`.
    """

    upstream: str
    endpoints: tuple[Endpoint, ...]
    source: str
