"""Upstreams that a reload has taken away: they serve whoever is connected to an end, and then they are gone.

Their listeners are closed already. Responses close their connections from now on (`Cluster.leaving`), what is quiet is
closed, sessions go on; and when `within` is over, whatever is left is ended. Endpoints stay until then, since whoever
is connected may still ask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.model import Snapshot
from sidecar.proxy.follow import clients_of
from sidecar.proxy.sweep import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sidecar.cluster import Cluster
    from sidecar.proxy import ProxyContext

__all__ = ["Leaving"]

LOOK = 0.2  # seconds between looks at who is still there: each walks over all that is open


class Leaving:
    """The clusters that leave. A member of a sweep while there are any, see `proxy.sweep.Expiring`.

    gone: told of each that has left.
    """

    def __init__(self, context: ProxyContext, gone: Callable[[Cluster], None]) -> None:
        self.deadline = NEVER
        self._context = context
        self._gone = gone
        self._times: dict[Cluster, tuple[float, float]] = {}  # quiet clients are closed from, all from

    def __iter__(self) -> Iterator[Cluster]:
        """Those that have not left yet."""
        return iter(tuple(self._times))

    def add(self, cluster: Cluster, within: float, quiet: float = 0.0) -> None:
        """Let `cluster` leave within so many seconds, and leave quiet clients alone for the first `quiet` of them."""
        now = self._context.monotonic()
        cluster.leaving = True
        self._times[cluster] = (now + quiet, now + within)
        self.deadline = now
        self._context.sweep.members.add(self)

    # What a sweep calls

    def expire(self) -> None:
        """Look who is still there."""
        now = self._context.monotonic()
        clients = clients_of(self._context, self._times)
        for cluster, (quiet, end) in tuple(self._times.items()):
            mine = clients.get(cluster, [])
            if now >= end:
                for client in mine:
                    client.shut()
                mine = []
            elif now >= quiet:
                mine = [client for client in mine if client.retire(now)]
            if not mine:
                self._let_go(cluster)
        self.deadline = now + LOOK if self._times else NEVER
        if not self._times:
            self._context.sweep.members.discard(self)

    def retire(self, now: float) -> bool:
        """The process would like to end: what is left to finish says so itself."""
        return False

    def shut(self) -> None:
        """The process ends now, and with it all that is open."""
        for cluster in tuple(self._times):
            self._let_go(cluster)
        self._context.sweep.members.discard(self)

    def _let_go(self, cluster: Cluster) -> None:
        del self._times[cluster]
        cluster.apply(Snapshot(cluster.name, (), cluster.source))
        self._gone(cluster)
