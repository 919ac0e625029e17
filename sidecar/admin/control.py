"""What whoever runs the sidecar can have done to endpoints: taken out of rotation, and put back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.cluster import Cluster
from sidecar.errors import UnknownUpstreamError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sidecar.model import EndpointState

__all__ = ["ACTIONS", "cluster_called", "endpoints_called", "some_of"]

SHOWN = 20  # upstreams or endpoints that a line names

# By name: what is done to endpoints, at a moment.
ACTIONS: dict[str, Callable[[Cluster, Iterable[EndpointState], float], None]] = {
    "trip": Cluster.trip,
    "reset": Cluster.reset,
    "drain": Cluster.drain,
    "enable": Cluster.enable,
}


def cluster_called(clusters: Mapping[str, Cluster], name: str) -> Cluster:
    """The upstream of that name. Raises `UnknownUpstreamError`."""
    if name not in clusters:
        raise UnknownUpstreamError(
            f"no upstream is called {name!r}; known are: {some_of(list(clusters)) or 'none'}"
        )
    return clusters[name]


def endpoints_called(cluster: Cluster, address: str | None) -> list[EndpointState]:
    """The endpoint at `address` (host:port, as `/upstreams` shows it), or all. Raises `UnknownUpstreamError`."""
    states = list(cluster.endpoints.values())
    if address is None:
        return states
    found = [state for state in states if state.endpoint.address == address]
    if not found:
        known = some_of([state.endpoint.address for state in states]) or "none"
        raise UnknownUpstreamError(f"{cluster.name} has no endpoint {address!r}; it has: {known}")
    return found


def some_of(names: Sequence[str]) -> str:
    """The first of `names` as a list in words, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
