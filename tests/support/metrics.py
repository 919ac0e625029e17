"""Metrics in which everything occurs that there is to tell."""

from typing import Any

from sidecar.cluster import Cluster
from sidecar.errors import Reason
from sidecar.model import (
    AdminCounts,
    CheckResult,
    CloseReason,
    Endpoint,
    Limit,
    Outcome,
    ReloadCounts,
    Snapshot,
    UpstreamPolicy,
    WorkerCounts,
)
from sidecar.model.registry import Registered, RegistrationStatus, SourceStatus
from sidecar.observe.metrics import Metrics
from sidecar.proxy import ProxyContext
from sidecar.proxy.router import Route, Routes
from support.clock import FakeClock

__all__ = ["everything", "many"]

NOW = 1000.0


def everything(detail: str = "normal") -> Metrics:
    """Upstreams of both kinds, all bounds, checks, registries, registrations, workers, reloads and records."""
    clock: Any = FakeClock(NOW)
    loop: Any = None
    context = ProxyContext(loop, clock)
    context.clients, context.refused = 3, 2
    context.checks.running, context.checks.limit = 1, 128
    context.recording.lines_written, context.recording.spans_dropped = 7, 1
    sources = [SourceStatus("consul", [1, 2, 3, 4], NOW - 2.5, stale=False), SourceStatus("etcd")]
    announced = RegistrationStatus("api", "consul", "10.0.0.7:80", "announced", "", NOW, registered=True)
    workers = WorkerCounts(2)
    workers.running, workers.restarts = 2, 1
    return Metrics(
        {
            "api": _requests(clock),
            "redis": _sessions(clock),
            "vault": _secured(clock),
            "front": _router(clock),
        },
        context,
        compiled=False,
        workers=workers,
        sources=lambda: sources,
        registered=lambda: Registered((announced,), {"consul": [1, 2, 3, 4]}),
        clock=clock,
        reload_counts=ReloadCounts(),
        admin_counts=AdminCounts(),
        detail=lambda: detail,
    )


def _router(clock: Any) -> Cluster:
    cluster = Cluster("front", "http", UpstreamPolicy(), clock)
    other = Cluster("api", "http", UpstreamPolicy(), clock)
    cluster.router = Routes(cluster, [Route(0, [(other, 1)], path=b"/v1")], clock.uniform)
    cluster.stats.routed[0, "api"] = 8
    cluster.stats.count_request(0, 404, Reason.NO_ROUTE, 0.001)
    return cluster


def _requests(clock: Any) -> Cluster:
    policy = UpstreamPolicy(
        breaker_threshold=1,
        max_connections=10,
        max_connections_per_endpoint=6,
        max_in_flight=30,
        hedge_after=0.1,
        checked=True,
    )
    cluster = Cluster("api", "http", policy, clock)
    endpoints = (Endpoint("10.0.0.1", 80), Endpoint("fe80::1", 80), Endpoint("10.0.0.3", 80))
    cluster.apply(Snapshot("api", endpoints, "static"))
    first, second, third = cluster.endpoints.values()
    for seconds in (0.001, 0.002, 0.3, 60.0):
        cluster.stats.count_request(0, 200, Reason.NONE, seconds)
    cluster.stats.count_request(2, 503, Reason.ALL_OPEN, 1.0)
    for outcome in Outcome:
        cluster.report(first, outcome, NOW, first.breaker.permit, 0.25)
    for _ in range(3):
        cluster.report(second, Outcome.SUCCESS, NOW, second.breaker.permit, 0.5)
    cluster.drain([third], NOW)
    cluster.stats.secret_loads[1] = 1
    cluster.limit.used = first.pool.open = 4
    cluster.stats.retries[Reason.CONNECT_REFUSED][1] = 4
    cluster.stats.hedges[1] = 2
    cluster.stats.mirrored[0] = 9
    cluster.stats.overflows[Limit.PENDING] = 1_234_567
    cluster.stats.proxy_headers[0] = 6
    first.last_check = CheckResult(NOW - 1.0, False, 0.02, "refused", 3)
    second.last_check = CheckResult(NOW - 1.0, True, 0.01, "", 9)
    third.last_check = CheckResult(NOW - 1.0, None, 0.0, "no name server", 1)
    return cluster


def _sessions(clock: Any) -> Cluster:
    cluster = Cluster("redis", "redis", UpstreamPolicy(), clock)
    cluster.apply(Snapshot("redis", (Endpoint("10.0.0.9", 6379),), "static"))
    cluster.stats.sessions[CloseReason.CLIENT_CLOSED] = 5
    cluster.stats.bytes_sent, cluster.stats.bytes_received = 10_000_000, 123_456_789_012
    return cluster


def _secured(clock: Any) -> Cluster:
    cluster = Cluster("vault", "tls", UpstreamPolicy(), clock)
    cluster.apply(Snapshot("vault", (Endpoint("10.0.0.8", 8200),), "static"))
    cluster.stats.tls_failures[0][1] = 3
    cluster.stats.tls_reloads[1] = [2, 1]
    cluster.stats.tls_expiry[:] = [NOW + 86400.0, NOW + 7 * 86400.0]
    return cluster


def many(upstreams: int, endpoints: int, detail: str = "normal") -> Metrics:
    """So many upstreams of so many endpoints each, with some traffic and a breaker that has moved at every endpoint."""
    clock: Any = FakeClock(NOW)
    loop: Any = None
    clusters = {}
    for number in range(upstreams):
        name = f"upstream-{number}"
        cluster = clusters[name] = Cluster(name, "http", UpstreamPolicy(breaker_threshold=1), clock)
        hosts = (f"10.{number // 250}.{number % 250}.{last}" for last in range(endpoints))
        cluster.apply(Snapshot(name, tuple(Endpoint(host, 8080) for host in hosts), "static"))
        for method in range(3):
            for status in (200, 404, 503):
                cluster.stats.count_request(method, status, Reason.NONE, 0.01)
        for state in cluster.endpoints.values():
            cluster.report(state, Outcome.SUCCESS, NOW, state.breaker.permit, 0.01)
            state.attempts[Outcome.RESET] = 3
            state.breaker.check(False, NOW)
    return Metrics(clusters, ProxyContext(loop, clock), compiled=False, detail=lambda: detail)
