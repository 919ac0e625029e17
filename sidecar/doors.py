"""What stands before upstreams and listeners, made from the settings: TLS, header rules, limits, mirrors, routes.

Clusters are given theirs here, at the start and at each reload; what has not changed stays the very same object, so
that a rate limit goes on counting and a certificate is not loaded again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.fronts import Fronts
from sidecar.model.stats import METHODS
from sidecar.proxy.front import Front
from sidecar.proxy.mirror import Copies
from sidecar.proxy.router import Route, Routes
from sidecar.rotation import Rotation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.clock import Clock
    from sidecar.cluster import Cluster
    from sidecar.config.settings import Settings, UpstreamSettings
    from sidecar.proxy import ProxyContext
    from sidecar.proxy.secure import ServerTls
    from sidecar.rotation import Rotating

__all__ = ["Doors", "Routers"]


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


class Doors:
    """Of one process.

    prepare: make what may fail, while nothing has changed yet. follow: give it to the clusters.
    """

    def __init__(self, context: ProxyContext, clock: Clock) -> None:
        self._context = context
        self._clock = clock
        self._rotation = Rotation()
        self._fronts = Fronts(clock)
        self._routers = Routers(clock)
        self._mirrors: dict[str, tuple[object, Copies]] = {}

    def prepare(self, settings: Settings) -> None:
        """Load what `settings` names and may not be there; takes its time. Raises StartError: nothing changes then."""
        self._fronts.prepare(settings)

    def follow(self, settings: Settings, clusters: Mapping[str, Cluster]) -> None:
        """Have `clusters` go by `settings`, whose upstreams they are; `prepare` has been called."""
        self._fronts.follow(settings)
        for upstream in settings.upstreams:
            cluster = clusters[upstream.name]
            cluster.proxy_protocol = upstream.policy.proxy_protocol
            cluster.front = self._front(upstream, cluster, clusters)
            token = self._fronts.token(upstream)
            if token is not None:
                token.count_in(cluster.stats)
        self._routers.follow(settings, clusters)
        self._mirrors = {
            one.name: self._mirrors[one.name] for one in settings.upstreams if one.name in self._mirrors
        }
        self._rotation.follow(self._rotating())

    def server_tls(self, _name: str) -> ServerTls | None:
        """How clients of the upstream's listener are spoken to; None in the clear."""
        return None

    def _front(
        self, upstream: UpstreamSettings, cluster: Cluster, clusters: Mapping[str, Cluster]
    ) -> Front | None:
        """What its requests pass first; None where that is nothing. What has not changed is the same object."""
        rate, rules = self._fronts.rate(upstream), self._fronts.rules(upstream)
        mirror = self._mirror(upstream, cluster, clusters)
        if rate is None and rules is None and mirror is None:
            return None
        return Front(rate, rules, mirror)

    def _mirror(
        self, upstream: UpstreamSettings, cluster: Cluster, clusters: Mapping[str, Cluster]
    ) -> Copies | None:
        wanted = upstream.policy.mirror
        if not wanted.to or wanted.to == upstream.name:  # its own, where `defaults` name it for all
            self._mirrors.pop(upstream.name, None)
            return None
        other = clusters[wanted.to]
        made_of = (wanted, cluster, other)
        known = self._mirrors.get(upstream.name)
        if known is not None and known[0] == made_of:
            return known[1]
        made = Copies(self._context, other, cluster.stats, wanted.share, wanted.max_in_flight)
        self._mirrors[upstream.name] = (made_of, made)
        return made

    def _rotating(self) -> list[Rotating]:
        """What is made of files that may be renewed."""
        return [*self._fronts.tokens()]

    def close(self) -> None:
        """Look at no file any more."""
        self._rotation.close()
