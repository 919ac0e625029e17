"""What an upstream consists of when several sources know of it: the first that has any, or all together."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sidecar.config.settings import STATIC
from sidecar.model import Endpoint, Snapshot
from sidecar.registry.sources.source import MAX_ENDPOINTS, Wanted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.config.settings import UpstreamSettings

__all__ = ["combined", "static_endpoints", "wanted_of"]


def static_endpoints(upstream: UpstreamSettings) -> tuple[Endpoint, ...]:
    """What the configuration itself names."""
    return tuple(Endpoint(found.host, found.port, found.weight, found.zone) for found in upstream.endpoints)


def wanted_of(upstream: UpstreamSettings, kind: str) -> Wanted:
    """What a registry of that kind is asked for: dns, unless told otherwise, for the hosts that the file names."""
    source = upstream.source
    named = [
        endpoint for endpoint in static_endpoints(upstream) if endpoint.port
    ]  # a unix socket has no name
    own = named[0].port if named else upstream.listen_port
    return Wanted(
        upstream=upstream.name,
        service=source.service or ("" if kind == "dns" else upstream.name),
        port=source.port,
        default_port=own or 0,
        endpoints=tuple(named) if kind == "dns" else (),
        tags=source.tags,
        datacenter=source.datacenter,
        namespace=source.namespace,
    )


def combined(upstream: UpstreamSettings, said: Mapping[str, tuple[Endpoint, ...]]) -> Snapshot | None:
    """The snapshot that follows from what each source has `said`; None while none has said anything.

    An endpoint that several name is as the first of them has it. Its `source` names those it is made of.
    """
    source = upstream.source
    parts = [(name, static_endpoints(upstream) if name == STATIC else said.get(name)) for name in source.use]
    spoken = [(name, endpoints) for name, endpoints in parts if endpoints is not None]
    if not spoken:
        return None
    filled = [(name, endpoints) for name, endpoints in spoken if endpoints]
    chosen = filled if source.merge else filled[:1]
    if not chosen:
        return Snapshot(upstream.name, (), spoken[0][0])
    found: dict[tuple[str, int], Endpoint] = {}
    for _, endpoints in chosen:
        for endpoint in endpoints:
            moves = source.override_port and endpoint.port  # a unix socket has none
            placed = replace(endpoint, port=source.override_port) if moves else endpoint
            found.setdefault(placed.key, placed)
    return Snapshot(
        upstream.name, tuple(found.values())[:MAX_ENDPOINTS], "+".join(name for name, _ in chosen)
    )
