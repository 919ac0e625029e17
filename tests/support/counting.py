"""Clusters that have counted what a test says, without anybody having sent anything."""

from typing import Any

from sidecar.cluster import Cluster
from sidecar.errors import Reason
from sidecar.model import Endpoint, Snapshot, UpstreamPolicy
from support.clock import FakeClock

__all__ = ["answer", "upstream"]


def upstream(clock: FakeClock, name: str = "api", endpoints: int = 2, scheme: str = "http") -> Cluster:
    """An upstream of that many endpoints, ports from 1 on."""
    policy: Any = UpstreamPolicy(breaker_threshold=2, breaker_open_for=4.0, breaker_jitter=0.0)
    cluster = Cluster(name, scheme, policy, clock)  # type: ignore[arg-type] # a clock is what it looks like
    found = tuple(Endpoint("10.0.0.1", port) for port in range(1, endpoints + 1))
    cluster.apply(Snapshot(name, found, "static"))
    return cluster


def answer(
    cluster: Cluster, times: int, status: int = 200, seconds: float = 0.002, reason: Reason = Reason.NONE
) -> None:
    """So many requests have ended."""
    for _ in range(times):
        cluster.stats.count_request(0, status, reason, seconds)
