"""Which upstream a request of a shared listener goes to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from sidecar.http1.message import RequestHead
    from sidecar.proxy.downstream import DownstreamConnection

__all__ = ["Router"]


class Router(Protocol):
    """The routes of one listener, whose own cluster has no endpoints: what fits none of them stays there."""

    def direct(self, client: DownstreamConnection, head: RequestHead) -> None:
        """Have `client` take the cluster, and an exchange of that, for the request with `head`."""
