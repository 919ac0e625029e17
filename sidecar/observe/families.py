"""The families of an upstream: what is requested of it, how it is served, and its bounds.

Families of what is proxied per request leave upstreams of opaque sessions out, and the other way round (but for
upstreams where a request has become a session): a series that can never move says nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.config.settings import PROTOCOLS
from sidecar.errors import Reason
from sidecar.model import CloseReason, Limit
from sidecar.model.stats import CODE_CLASSES, DURATION_BUCKETS, MIRRORED, RETRY_REASONS
from sidecar.observe.exposition import Family, Histogram, counter, gauge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sidecar.cluster import Cluster

__all__ = ["bounds", "connections", "per_upstream", "requests", "routing", "secrets", "sessions"]

RETRY_RESULTS = ("failed", "succeeded")  # the order of each entry of `UpstreamStats.retries`
HEDGE_RESULTS = ("lost", "won")  # the order of `UpstreamStats.hedges`
SECRET_RESULTS = ("failed", "succeeded")  # the order of `UpstreamStats.secret_loads`
_OVER_TLS = (
    *RETRY_REASONS,
    Reason.TLS_EXPIRED,
    Reason.TLS_WRONG_HOST,
    Reason.TLS_UNKNOWN_CA,
    Reason.TLS_FAILED,
)
CONNECT_RESULTS = ("established", "refused", "timeout", "tls")  # the order of `UpstreamStats.connects`
PROXY_HEADER_RESULTS = ("accepted", "invalid", "timeout", "closed")  # of `UpstreamStats.proxy_headers`


def requests(clusters: list[Cluster], *, methods: bool) -> Iterator[Family]:
    """Of upstreams that are proxied per request. methods: whether they are told apart."""
    text = "Requests answered, by the proxy itself when the reason is not none."
    if methods:
        yield counter(
            "requests_total",
            text,
            ("upstream", "method", "code_class", "reason"),
            (
                ((cluster.name, method, code_class, reason), count)
                for cluster in clusters
                for method, code_class, reason, count in cluster.stats.request_counts()
            ),
        )
    else:
        yield counter(
            "requests_total",
            text,
            ("upstream", "code_class", "reason"),
            (
                ((cluster.name, *labels), count)
                for cluster in clusters
                for labels, count in _without_methods(cluster).items()
            ),
        )
    yield Histogram(
        "request_duration_seconds",
        "From the request's first byte to the response's last.",
        ("upstream", "code_class"),
        DURATION_BUCKETS,
        (
            ((cluster.name, f"{code_class}xx"), (counts, cluster.stats.duration_sums[code_class]))
            for cluster in clusters
            for code_class in range(CODE_CLASSES)
            if any(counts := cluster.stats.duration_counts(code_class))
        ),
    )
    yield per_upstream(
        gauge,
        "requests_in_flight",
        "Requests being worked on.",
        clusters,
        lambda cluster: cluster.stats.in_flight,
    )
    yield counter(
        "retries_total",
        "Attempts after the first, by what made them necessary and how they ended.",
        ("upstream", "reason", "result"),
        (
            ((cluster.name, reason.label, result), count)
            for cluster in clusters
            for reason in (RETRY_REASONS if cluster.scheme in PROTOCOLS.values() else _OVER_TLS)
            for result, count in zip(RETRY_RESULTS, cluster.stats.retries[reason], strict=True)
        ),
    )
    yield counter(
        "hedges_total",
        "Requests that a second endpoint was asked too, by whether it was the one to answer.",
        ("upstream", "result"),
        (
            ((cluster.name, result), count)
            for cluster in clusters
            if cluster.policy.hedge_after
            for result, count in zip(HEDGE_RESULTS, cluster.stats.hedges, strict=True)
        ),
    )
    yield per_upstream(
        gauge,
        "retries_active",
        "Retries that go on now, which the budget bounds.",
        clusters,
        lambda cluster: cluster.stats.retries_active,
    )
    yield per_upstream(
        counter,
        "retries_refused_total",
        "Retries that were not made, the budget being spent.",
        clusters,
        lambda cluster: cluster.stats.retries_refused,
    )
    yield per_upstream(
        counter,
        "deadlines_exceeded_total",
        "Requests that were ended because the time of their own deadline header was over.",
        clusters,
        lambda cluster: cluster.stats.deadlines_exceeded,
    )
    yield per_upstream(
        counter,
        "connection_reuse_failures_total",
        "Reused connections that closed without a response byte (the idle race).",
        clusters,
        lambda cluster: cluster.stats.reuse_failures,
    )


def secrets(clusters: list[Cluster]) -> Iterator[Family]:
    """Of upstreams whose requests carry a token."""
    yield counter(
        "secret_loads_total",
        "How often the bearer token of an upstream was read: at first, and when its file had changed.",
        ("upstream", "result"),
        (
            ((cluster.name, result), count)
            for cluster in clusters
            if any(cluster.stats.secret_loads)
            for result, count in zip(SECRET_RESULTS, cluster.stats.secret_loads, strict=True)
        ),
    )


def routing(clusters: list[Cluster]) -> Iterator[Family]:
    """Where routers have sent requests, and of how many a copy went to a mirror."""
    yield counter(
        "routed_requests_total",
        "Requests that a router has sent to an upstream, by the position of the route in the configuration, from 0.",
        ("router", "route", "upstream"),
        (
            ((cluster.name, str(route), name), count)
            for cluster in clusters
            for (route, name), count in cluster.stats.routed.items()
        ),
    )
    yield counter(
        "mirrored_requests_total",
        "Requests of an upstream that a copy of was to be made of, by what became of it.",
        ("upstream", "result"),
        (
            ((cluster.name, result), count)
            for cluster in clusters
            if any(cluster.stats.mirrored) or (cluster.front is not None and cluster.front.mirror is not None)
            for result, count in zip(MIRRORED, cluster.stats.mirrored, strict=True)
        ),
    )


def _without_methods(cluster: Cluster) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for _, code_class, reason, count in cluster.stats.request_counts():
        found[code_class, reason] = found.get((code_class, reason), 0) + count
    return found


def sessions(clusters: list[Cluster]) -> Iterator[Family]:
    """Of upstreams that are proxied per connection, and of those where requests have switched protocols."""
    yield counter(
        "tcp_sessions_total",
        "Ended TCP sessions and tunnels of upgraded requests, by why they ended.",
        ("upstream", "close_reason"),
        (
            ((cluster.name, reason.label), cluster.stats.sessions[reason])
            for cluster in clusters
            for reason in CloseReason
        ),
    )
    yield per_upstream(
        gauge,
        "tcp_sessions_active",
        "TCP sessions and tunnels of upgraded requests open now.",
        clusters,
        lambda cluster: cluster.stats.sessions_active,
    )
    yield counter(
        "tcp_bytes_total",
        "Bytes relayed: sent to endpoints, received from them.",
        ("upstream", "direction"),
        (
            ((cluster.name, direction), count)
            for cluster in clusters
            for direction, count in (
                ("sent", cluster.stats.bytes_sent),
                ("received", cluster.stats.bytes_received),
            )
        ),
    )


def bounds(clusters: list[Cluster]) -> Iterator[Family]:
    """What may be used of each bounded thing, how much is, and how often it was not enough.

    A bound that is off has no series: whatever is divided by it has none then either.
    """
    yield per_upstream(
        gauge,
        "queue_length",
        "Requests and sessions that wait for a connection.",
        clusters,
        lambda cluster: len(cluster.limit.pending),
    )
    yield per_upstream(
        gauge,
        "queue_limit",
        "Bound on sidecar_queue_length.",
        clusters,
        lambda cluster: cluster.limit.max_pending,
    )
    yield per_upstream(
        gauge,
        "connections_limit",
        "Bound on the connections to an upstream's endpoints together.",
        clusters,
        lambda cluster: cluster.limit.maximum,
    )
    yield gauge(
        "connections_per_endpoint_limit",
        "Bound on the connections to each endpoint of an upstream.",
        ("upstream",),
        (((cluster.name,), cluster.limit.per_endpoint) for cluster in clusters if cluster.limit.per_endpoint),
    )
    yield gauge(
        "in_flight_limit",
        "Bound on the requests, sessions and tunnels of an upstream at once.",
        ("upstream",),
        (
            ((cluster.name,), cluster.limit.max_in_flight)
            for cluster in clusters
            if cluster.limit.max_in_flight
        ),
    )
    yield counter(
        "overflows_total",
        "Requests and sessions turned away, by the limit that was reached.",
        ("upstream", "limit"),
        (
            ((cluster.name, limit.label), cluster.stats.overflows[limit])
            for cluster in clusters
            for limit in Limit
        ),
    )


def connections(clusters: list[Cluster]) -> Iterator[Family]:
    """Of connections to endpoints, whichever they are to."""
    yield counter(
        "connections_opened_total",
        "Attempts to open a connection, by result.",
        ("upstream", "result"),
        (
            ((cluster.name, result), count)
            for cluster in clusters
            for result, count in zip(CONNECT_RESULTS, cluster.stats.connects, strict=True)
        ),
    )
    yield counter(
        "proxy_headers_total",
        "Clients' connections that had to begin with a PROXY header, by what became of it.",
        ("upstream", "result"),
        (
            ((cluster.name, result), count)
            for cluster in clusters
            if any(cluster.stats.proxy_headers)
            for result, count in zip(PROXY_HEADER_RESULTS, cluster.stats.proxy_headers, strict=True)
        ),
    )


def per_upstream(
    make: Callable[..., Family],
    name: str,
    text: str,
    clusters: list[Cluster],
    read: Callable[[Cluster], float],
) -> Family:
    """The family `sidecar_NAME` with one series for each upstream; `make` is `counter` or `gauge`."""
    return make(name, text, ("upstream",), (((cluster.name,), read(cluster)) for cluster in clusters))
