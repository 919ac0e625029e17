"""What clusters are given at the start and at a reload: which header endpoints are sent."""

from typing import Any

from support.clock import FakeClock

from sidecar.cluster import Cluster
from sidecar.doors import _follow_proxy_protocol
from sidecar.model import Endpoint, Snapshot, UpstreamPolicy


class Idle:
    """A pooled connection."""

    closed = False

    def close(self) -> None:
        self.closed = True


def test_pooled_connections_of_another_kind_are_closed() -> None:
    clock: Any = FakeClock()
    cluster = Cluster("api", "http", UpstreamPolicy(), clock)
    cluster.apply(Snapshot("api", (Endpoint("10.0.0.1", 80),), "static"))
    (state,) = cluster.endpoints.values()
    idle: Any = Idle()
    state.pool.idle.append(idle)
    _follow_proxy_protocol(cluster, 0)
    assert state.pool.idle == [idle], "nothing has changed"
    _follow_proxy_protocol(cluster, 2)
    assert cluster.proxy_protocol == 2
    assert idle.closed
    assert state.pool.idle == []
