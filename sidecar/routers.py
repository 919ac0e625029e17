"""Routers and mirrors, made from the settings, and kept while these and the clusters that they name are the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.model.stats import METHODS
from sidecar.proxy.mirror import Copies
from sidecar.proxy.router import Route, Routes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.clock import Clock
    from sidecar.cluster import Cluster
    from sidecar.config.settings import Settings, UpstreamSettings
    from sidecar.proxy import ProxyContext

__all__ = ["Mirrors", "Routers"]


class Routers:
    """The routers of one process, by what they were made of."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._made: dict[str, tuple[object, Routes]] = {}

    def follow(self, settings: Settings, clusters: Mapping[str, Cluster]) -> None:
        """Have `clusters` route by `settings`, whose upstreams they are."""
        before, self._made = self._made, {}
        for upstream in settings.upstreams:
            cluster = clusters[upstream.name]
            if not upstream.routes:
                cluster.router = None
                continue
            targets = [clusters[name] for route in upstream.routes for name, _ in route.to]
            made_of = (upstream.routes, cluster, targets)
            known = before.get(upstream.name)
            router = known[1] if known is not None and known[0] == made_of else None
            if router is None:
                router = Routes(cluster, _routes(upstream, clusters), self._clock.uniform)
            self._made[upstream.name] = (made_of, router)
            cluster.router = router


def _routes(upstream: UpstreamSettings, clusters: Mapping[str, Cluster]) -> list[Route]:
    return [
        Route(
            position,
            [(clusters[name], weight) for name, weight in route.to],
            route.host.encode("ascii"),
            route.path.encode("ascii"),
            [METHODS.index(method) for method in route.methods],
            [(name.encode("ascii"), value.encode("ascii")) for name, value in route.headers],
        )
        for position, route in enumerate(upstream.routes)
    ]


class Mirrors:
    """Of all upstreams of one process, by the clusters that they are of and go to."""

    def __init__(self, context: ProxyContext) -> None:
        self._context = context
        self._made: dict[str, tuple[object, Copies]] = {}

    def follow(self, settings: Settings, clusters: Mapping[str, Cluster]) -> None:
        """Have those that `settings` name."""
        before, self._made = self._made, {}
        for upstream in settings.upstreams:
            wanted = upstream.policy.mirror
            if not wanted.to or wanted.to == upstream.name:  # its own, where `defaults` name it for all
                continue
            cluster, other = clusters[upstream.name], clusters[wanted.to]
            made_of = (cluster, other)
            known = before.get(upstream.name)
            if known is None or known[0] != made_of:
                copies = Copies(self._context, other, cluster.stats, wanted.share, wanted.max_in_flight)
                known = (made_of, copies)
            # The same object goes on, and with it the count of the copies that are under way.
            known[1].share, known[1].max_in_flight = wanted.share, wanted.max_in_flight
            self._made[upstream.name] = known

    def mirror(self, upstream: UpstreamSettings) -> Copies | None:
        """Who gets copies of an upstream's requests."""
        found = self._made.get(upstream.name)
        return None if found is None else found[1]
