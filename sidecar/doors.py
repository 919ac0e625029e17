"""What stands before upstreams and listeners, made from the settings: TLS, header rules, limits, mirrors, routes.

Clusters are given theirs here, at the start and at each reload; what has not changed stays the very same object, so
that a rate limit goes on counting and a certificate is not loaded again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.fronts import Fronts
from sidecar.proxy.front import Front
from sidecar.rotation import Rotation
from sidecar.routers import Mirrors, Routers
from sidecar.tls.certificates import Certificates

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.clock import Clock
    from sidecar.cluster import Cluster
    from sidecar.config.settings import Settings, UpstreamSettings
    from sidecar.proxy import ProxyContext
    from sidecar.proxy.secure import ServerTls
    from sidecar.rotation import Rotating

__all__ = ["Doors"]


class Doors:
    """Of one process.

    prepare: make what may fail, while nothing has changed yet. follow: give it to the clusters.
    """

    def __init__(self, context: ProxyContext, clock: Clock) -> None:
        self._rotation = Rotation()
        self._certificates = Certificates(clock.monotonic, self._rotation.note)
        self._fronts = Fronts(clock, self._rotation.note)
        self._mirrors = Mirrors(context)
        self._routers = Routers(clock)

    def prepare(self, settings: Settings) -> None:
        """Load what `settings` names and may not be there; takes its time. Raises StartError: nothing changes then."""
        self._fronts.prepare(settings)
        self._certificates.prepare(settings)

    def follow(self, settings: Settings, clusters: Mapping[str, Cluster]) -> None:
        """Have `clusters` go by `settings`, whose upstreams they are; `prepare` has been called."""
        self._fronts.follow(settings)
        self._mirrors.follow(settings, clusters)
        for upstream in settings.upstreams:
            cluster = clusters[upstream.name]
            _follow_proxy_protocol(cluster, upstream.policy.proxy_protocol)
            cluster.front = self._front(upstream, cluster.front)
            token = self._fronts.token(upstream)
            if token is not None:
                token.count_in(cluster.stats)
        self._routers.follow(settings, clusters)
        self._certificates.follow({one.name: clusters[one.name] for one in settings.upstreams})
        self._rotation.follow(self._rotating())

    def server_tls(self, name: str) -> ServerTls | None:
        """How clients of the listener of `name` are spoken to; None in the clear."""
        return self._certificates.server_tls(name)

    def _front(self, upstream: UpstreamSettings, before: Front | None) -> Front | None:
        """What its requests pass first; None where that is nothing, `before` where that has not changed."""
        rate, rules = self._fronts.rate(upstream), self._fronts.rules(upstream)
        mirror = self._mirrors.mirror(upstream)
        if rate is None and rules is None and mirror is None:
            return None
        made = Front(rate, rules, mirror)
        return before if before is not None and before.parts == made.parts else made

    def _rotating(self) -> list[Rotating]:
        """What is made of files that may be renewed."""
        return [*self._fronts.tokens(), *self._certificates.rotating()]

    def close(self) -> None:
        """Look at no file any more."""
        self._rotation.close()


def _follow_proxy_protocol(cluster: Cluster, version: int) -> None:
    """Connections that were opened before, and so in another way, carry no other request."""
    if cluster.proxy_protocol != version:
        cluster.proxy_protocol = version
        for state in cluster.endpoints.values():
            state.pool.close_idle()
