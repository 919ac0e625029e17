"""What stands before upstreams and listeners, made from the settings: TLS, header rules, limits, mirrors, routes.

Clusters are given theirs here, at the start and at each reload; what has not changed stays the very same object, so
that a rate limit goes on counting and a certificate is not loaded again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.rotation import Rotation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.clock import Clock
    from sidecar.cluster import Cluster
    from sidecar.config.settings import Settings
    from sidecar.proxy import ProxyContext
    from sidecar.rotation import Rotating

__all__ = ["Doors"]


class Doors:
    """Of one process.

    prepare: make what may fail, while nothing has changed yet. follow: give it to the clusters.
    """

    def __init__(self, context: ProxyContext, clock: Clock) -> None:
        self._context = context
        self._clock = clock
        self._rotation = Rotation()

    def prepare(self, settings: Settings) -> None:
        """Load what `settings` names and may not be there; takes its time. Raises StartError: nothing changes then."""

    def follow(self, settings: Settings, clusters: Mapping[str, Cluster]) -> None:
        """Have `clusters` go by `settings`, whose upstreams they are; `prepare` has been called."""
        for upstream in settings.upstreams:
            cluster = clusters[upstream.name]
            _follow_proxy_protocol(cluster, upstream.policy.proxy_protocol)
        self._rotation.follow(self._rotating())

    def _rotating(self) -> list[Rotating]:
        """What is made of files that may be renewed."""
        return []

    def close(self) -> None:
        """Look at no file any more."""
        self._rotation.close()


def _follow_proxy_protocol(cluster: Cluster, version: int) -> None:
    """Connections that were opened before, and so in another way, carry no other request."""
    if cluster.proxy_protocol != version:
        cluster.proxy_protocol = version
        for state in cluster.endpoints.values():
            state.pool.close_idle()
