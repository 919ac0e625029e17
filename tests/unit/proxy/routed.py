"""The harness's data path with a router before two upstreams, and nobody behind the router itself."""

from typing import Any

from support.transports import MemoryTransport
from unit.proxy.harness import Proxy

from sidecar.cluster import Cluster
from sidecar.model import Endpoint, Snapshot, UpstreamPolicy
from sidecar.proxy.downstream import DownstreamConnection
from sidecar.proxy.router import Route, Routes

__all__ = ["Routed"]


class Routed(Proxy):
    """`api` is the router; `others` are upstreams of one endpoint each, 10.0.1.1, 10.0.1.2 and so on.

    routes: of each the keywords of `Route`, its targets as (name, weight).
    """

    def __init__(self, names: str, *routes: dict[str, Any], **keywords: Any) -> None:
        policies: dict[str, dict[str, Any]] = keywords.pop("policies", {})
        super().__init__(endpoints=0, **keywords)
        self.others: dict[str, Cluster] = {}
        for number, name in enumerate(names.split(), 1):
            policy = UpstreamPolicy(**{"backoff_base": 0.0, **policies.get(name, {})})
            self.others[name] = self.added(name, policy, number)
        self.route(*routes)

    def added(self, name: str, policy: UpstreamPolicy, number: int) -> Cluster:
        """A cluster of one endpoint."""
        cluster = Cluster(name, "http", policy, self.clock)  # type: ignore[arg-type] # a double
        cluster.apply(Snapshot(name, (Endpoint(f"10.0.1.{number}", 80),), "static"))
        return cluster

    def route(self, *routes: dict[str, Any]) -> None:
        """Have these routes from now on."""
        made = [
            Route(
                position,
                **{**route, "targets": [(self.others[name], weight) for name, weight in route["targets"]]},
            )
            for position, route in enumerate(routes)
        ]
        self.cluster.router = Routes(self.cluster, made, self.clock.uniform)

    def client(self, *pieces: bytes) -> MemoryTransport:
        """An application connects to the router, and sends."""
        transport = MemoryTransport(DownstreamConnection(self.context, self.cluster))
        self.clients.append(transport)
        transport.feed(*pieces)
        return transport

    def served_by(self, client: MemoryTransport, *pieces: bytes, answer: bytes) -> str:
        """Which upstream gets the request that `client` sends; it is answered."""
        client.feed(*pieces)
        endpoint = self.accept() if self.connecting else self.busy[-1]
        assert endpoint.taken()
        name: str = endpoint.protocol.exchange.cluster.name
        endpoint.feed(answer)
        return name

    def counts(self, name: str) -> dict[tuple[str, str], int]:
        """Requests that `name` has counted, by code class and reason."""
        cluster = self.others.get(name, self.cluster)
        return {(code, reason): count for _, code, reason, count in cluster.stats.request_counts()}

    def finish(self) -> None:
        """See `Proxy.finish`; of all clusters."""
        for transport in (*self.clients, *self.upstreams):
            transport.closing = True
        self.settle()
        if self.context.hedge_timers:
            self.clock.advance(60.0)
            self.run_timers()
        assert not self.context.sweep.members
        assert not self.context.copies
        for cluster in (self.cluster, *self.others.values()):
            left = (
                cluster.stats.in_flight,
                cluster.stats.retries_active,
                cluster.stats.sessions_active,
                cluster.limit.used,
                len(cluster.limit.pending),
                *(state.in_flight for state in cluster.endpoints.values()),
            )
            assert not any(left), (cluster.name, left)
