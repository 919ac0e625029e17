"""The bounds that turn a request or session away."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Limit"]


class Limit(IntEnum):
    """What was reached; the `limit` label of `sidecar_overflows_total`. The value indexes `UpstreamStats.overflows`.

    The names are those under `limits`, whose raising would have let it in, but for the process's descriptors.
    CONNECTIONS and CONNECTIONS_PER_ENDPOINT turn somebody away only where `pending` is 0: else there is a queue.
    """

    CONNECTIONS = 0
    CONNECTIONS_PER_ENDPOINT = 1
    PENDING = 2
    PENDING_TIMEOUT = 3
    IN_FLIGHT = 4
    DESCRIPTORS = 5

    @property
    def label(self) -> str:
        """The name as metrics and JSON spell it."""
        return self.name.lower()
