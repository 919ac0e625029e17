"""The metric families, each complete from one walk over the clusters, and a large one in parts.

Families of what is proxied per request leave upstreams of opaque sessions out, and the other way round (but for
upstreams where a request has become a session): a series that can never move says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from sidecar.model import CloseReason, EndpointState, Limit, Outcome
from sidecar.model.registry import REGISTRATION_RESULTS, RESULTS
from sidecar.model.stats import CODE_CLASSES, DURATION_BUCKETS, RETRY_REASONS
from sidecar.resilience import BreakerState

if TYPE_CHECKING:
    from sidecar.cluster import Cluster
    from sidecar.model import AdminCounts, CheckCounts, ReloadCounts, WorkerCounts
    from sidecar.model.registry import Registered, SourceStatus

__all__ = [
    "admin",
    "bounds",
    "breakers",
    "checks",
    "connections",
    "counter",
    "gauge",
    "registrations",
    "registries",
    "reloads",
    "requests",
    "sessions",
    "workers",
]

CONNECT_RESULTS = ("established", "refused", "timeout")  # the order of `UpstreamStats.connects`
RETRY_RESULTS = ("failed", "succeeded")  # the order of each entry of `UpstreamStats.retries`
HEDGE_RESULTS = ("lost", "won")  # the order of `UpstreamStats.hedges`
CHECK_RESULTS = ("failure", "success", "unknown")  # the order of `UpstreamStats.checks`
PART = 500  # series that are read and written out without a pause: some 3 ms
_BOUNDS = (*(f"{bound:g}" for bound in DURATION_BUCKETS), "+Inf")

# Label values and value, for each series of a family.
Series = Iterable[tuple[tuple[str, ...], float]]


def requests(clusters: list[Cluster]) -> Iterator[Metric]:
    """Of upstreams that are proxied per request."""
    yield from counter(
        "requests_total",
        "Requests answered, by the proxy itself when the reason is not none.",
        ("upstream", "method", "code_class", "reason"),
        (
            ((cluster.name, method, code_class, reason), count)
            for cluster in clusters
            for method, code_class, reason, count in cluster.stats.request_counts()
        ),
    )
    yield from _durations(clusters)
    yield from _per_upstream(
        gauge,
        "requests_in_flight",
        "Requests being worked on.",
        clusters,
        lambda cluster: cluster.stats.in_flight,
    )
    yield from counter(
        "retries_total",
        "Attempts after the first, by what made them necessary and how they ended.",
        ("upstream", "reason", "result"),
        (
            ((cluster.name, reason.label, result), count)
            for cluster in clusters
            for reason in RETRY_REASONS
            for result, count in zip(RETRY_RESULTS, cluster.stats.retries[reason], strict=True)
        ),
    )
    yield from counter(
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
    yield from _per_upstream(
        gauge,
        "retries_active",
        "Retries that go on now, which the budget bounds.",
        clusters,
        lambda cluster: cluster.stats.retries_active,
    )
    yield from _per_upstream(
        counter,
        "retries_refused_total",
        "Retries that were not made, the budget being spent.",
        clusters,
        lambda cluster: cluster.stats.retries_refused,
    )
    yield from _per_upstream(
        counter,
        "deadlines_exceeded_total",
        "Requests that were ended because the time of their own deadline header was over.",
        clusters,
        lambda cluster: cluster.stats.deadlines_exceeded,
    )
    yield from _per_upstream(
        counter,
        "connection_reuse_failures_total",
        "Reused connections that closed without a response byte (the idle race).",
        clusters,
        lambda cluster: cluster.stats.reuse_failures,
    )


def _durations(clusters: list[Cluster]) -> Iterator[Metric]:
    def empty() -> HistogramMetricFamily:
        return HistogramMetricFamily(
            "sidecar_request_duration_seconds",
            "From the request's first byte to the response's last.",
            labels=("upstream", "code_class"),
        )

    family = empty()
    for cluster in clusters:
        stats = cluster.stats
        for code_class in range(CODE_CLASSES):
            counts = stats.duration_counts(code_class)
            total = 0
            buckets: list[tuple[str, float]] = []
            for bound, count in zip(_BOUNDS, counts, strict=True):
                total += count
                buckets.append((bound, total))
            if total:
                family.add_metric((cluster.name, f"{code_class}xx"), buckets, stats.duration_sums[code_class])
        if len(family.samples) >= PART:
            yield family
            family = empty()
    yield family


def sessions(clusters: list[Cluster]) -> Iterator[Metric]:
    """Of upstreams that are proxied per connection, and of those where requests have switched protocols."""
    yield from counter(
        "tcp_sessions_total",
        "Ended TCP sessions and tunnels of upgraded requests, by why they ended.",
        ("upstream", "close_reason"),
        (
            ((cluster.name, reason.label), cluster.stats.sessions[reason])
            for cluster in clusters
            for reason in CloseReason
        ),
    )
    yield from _per_upstream(
        gauge,
        "tcp_sessions_active",
        "TCP sessions and tunnels of upgraded requests open now.",
        clusters,
        lambda cluster: cluster.stats.sessions_active,
    )
    yield from counter(
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


def bounds(clusters: list[Cluster]) -> Iterator[Metric]:
    """What may be used of each bounded thing, how much is, and how often it was not enough.

    A bound that is off has no series: whatever is divided by it has none then either.
    """
    yield from _per_upstream(
        gauge,
        "queue_length",
        "Requests and sessions that wait for a connection.",
        clusters,
        lambda cluster: len(cluster.limit.pending),
    )
    yield from _per_upstream(
        gauge,
        "queue_limit",
        "Bound on sidecar_queue_length.",
        clusters,
        lambda cluster: cluster.limit.max_pending,
    )
    yield from _per_upstream(
        gauge,
        "connections_limit",
        "Bound on the connections to an upstream's endpoints together.",
        clusters,
        lambda cluster: cluster.limit.maximum,
    )
    yield from gauge(
        "connections_per_endpoint_limit",
        "Bound on the connections to each endpoint of an upstream.",
        ("upstream",),
        (((cluster.name,), cluster.limit.per_endpoint) for cluster in clusters if cluster.limit.per_endpoint),
    )
    yield from gauge(
        "in_flight_limit",
        "Bound on the requests, sessions and tunnels of an upstream at once.",
        ("upstream",),
        (
            ((cluster.name,), cluster.limit.max_in_flight)
            for cluster in clusters
            if cluster.limit.max_in_flight
        ),
    )
    yield from counter(
        "overflows_total",
        "Requests and sessions turned away, by the limit that was reached.",
        ("upstream", "limit"),
        (
            ((cluster.name, limit.label), cluster.stats.overflows[limit])
            for cluster in clusters
            for limit in Limit
        ),
    )


def connections(clusters: list[Cluster]) -> Iterator[Metric]:
    """Attempts and connections, endpoint by endpoint."""
    yield from counter(
        "attempts_total",
        "Attempts at an endpoint, by how they ended; an outcome is listed once it occurred.",
        ("upstream", "endpoint", "outcome"),
        (
            ((cluster.name, address, outcome.label), state.attempts[outcome])
            for cluster, address, state in _endpoints(clusters)
            for outcome in Outcome
            if state.attempts[outcome] or outcome is Outcome.SUCCESS
        ),
    )
    yield from gauge(
        "connections_active",
        "Connections open or being opened, idle ones included.",
        ("upstream", "endpoint"),
        (((cluster.name, address), state.pool.open) for cluster, address, state in _endpoints(clusters)),
    )
    yield from counter(
        "connections_opened_total",
        "Attempts to open a connection, by result.",
        ("upstream", "result"),
        (
            ((cluster.name, result), count)
            for cluster in clusters
            for result, count in zip(CONNECT_RESULTS, cluster.stats.connects, strict=True)
        ),
    )


def breakers(clusters: list[Cluster]) -> Iterator[Metric]:
    """Where each breaker is and what moved it."""
    yield from gauge(
        "breaker_state",
        "1 for the state that the endpoint's breaker is in.",
        ("upstream", "endpoint", "state"),
        (
            ((cluster.name, address, state.label), state is endpoint.breaker.state)
            for cluster, address, endpoint in _endpoints(clusters)
            for state in BreakerState
        ),
    )
    yield from counter(
        "breaker_transitions_total",
        "Moves of an endpoint's breaker, by where to and why.",
        ("upstream", "endpoint", "to", "cause"),
        (
            ((cluster.name, address, to.label, cause.label), count)
            for cluster, address, endpoint in _endpoints(clusters)
            for (to, cause), count in tuple(endpoint.breaker.transitions.items())
        ),
    )
    yield from _per_upstream(
        gauge,
        "upstream_panic",
        "1 while so many breakers are open that more would be out of rotation than may be.",
        clusters,
        lambda cluster: cluster.panic,
    )
    yield from gauge(
        "endpoints",
        "Endpoints of an upstream, by the state of their breakers.",
        ("upstream", "state"),
        (
            ((cluster.name, state.label), sum(e.breaker.state is state for e in cluster.endpoints.values()))
            for cluster in clusters
            for state in BreakerState
        ),
    )


def checks(clusters: list[Cluster], counts: CheckCounts) -> Iterator[Metric]:
    """Of health checks; `clusters` are those that are checked."""
    yield from counter(
        "health_checks_total",
        "Health checks of an upstream's endpoints, by result; unknown are those that could not be made.",
        ("upstream", "result"),
        (
            ((cluster.name, result), count)
            for cluster in clusters
            for result, count in zip(CHECK_RESULTS, cluster.stats.checks, strict=True)
        ),
    )
    yield from gauge("health_checks_running", "Health checks that go on now.", (), [((), counts.running)])
    yield from gauge(
        "health_checks_limit",
        "Bound on sidecar_health_checks_running; 0 where nothing is checked.",
        (),
        [((), counts.limit)],
    )


def registries(sources: list[SourceStatus], epoch: float) -> Iterator[Metric]:
    """Of the registries that are asked. epoch: wall time at monotonic zero."""
    yield from counter(
        "registry_updates_total",
        "What has come of asking a registry: signs of life are unchanged.",
        ("source", "result"),
        (
            ((source.name, result), count)
            for source in sources
            for result, count in zip(RESULTS, source.updates, strict=True)
        ),
    )
    yield from gauge(
        "registry_last_success_timestamp_seconds",
        "When all that is asked of a registry had been heard of last; 0 before the first time.",
        ("source",),
        (
            ((source.name,), 0 if source.last_success is None else epoch + source.last_success)
            for source in sources
        ),
    )
    yield from gauge(
        "registry_stale",
        "1 while a registry errs or says nothing, so that what it said before is used.",
        ("source",),
        (((source.name,), source.stale) for source in sources),
    )


def registrations(registered: Registered) -> Iterator[Metric]:
    """Of the services that registries are told of."""
    known: dict[tuple[str, ...], bool] = {}
    for status in registered.statuses:
        key = (status.name, status.registry)
        known[key] = known.get(key, True) and status.registered
    yield from gauge(
        "registered",
        "1 while a registry should know a local service, on all ports that it is announced with.",
        ("service", "registry"),
        known.items(),
    )
    yield from counter(
        "registrations_total",
        "What has come of announcing local services in a registry.",
        ("registry", "result"),
        (
            ((registry, result), count)
            for registry, counts in registered.counts.items()
            for result, count in zip(REGISTRATION_RESULTS, counts, strict=True)
        ),
    )


def workers(counts: WorkerCounts) -> Iterator[Metric]:
    """Of a sidecar with several worker processes."""
    yield from gauge("workers", "Worker processes that take connections.", (), [((), counts.running)])
    yield from gauge("workers_limit", "Worker processes that there should be.", (), [((), counts.configured)])
    yield from gauge(
        "workers_leaving",
        "Worker processes of an older configuration that finish what they have.",
        (),
        [((), counts.leaving)],
    )
    yield from gauge(
        "workers_silent",
        "Worker processes that did not answer in time: what they said before stands in for them.",
        (),
        [((), counts.silent)],
    )
    yield from counter("worker_restarts_total", "Worker processes that died.", (), [((), counts.restarts)])


def reloads(counts: ReloadCounts) -> Iterator[Metric]:
    """Of the configuration, read again."""
    yield from counter(
        "config_reloads_total",
        "Reloads of the configuration, by result; a failure has changed nothing.",
        ("result",),
        [
            (("success",), counts.success),
            (("failure",), counts.failure),
            (("unchanged",), counts.unchanged),
        ],
    )
    yield from gauge(
        "config_last_reload_success",
        "1 unless the last reload was refused.",
        (),
        [((), counts.last_success)],
    )


def admin(counts: AdminCounts) -> Iterator[Metric]:
    """What has been asked at the admin address."""
    yield from counter(
        "admin_requests_total",
        "Answers at the admin address, by class of their status.",
        ("code_class",),
        [((f"{first}xx",), counts.by_class[first]) for first in range(2, 6)],
    )
    yield from counter(
        "admin_denied_total", "Requests there without the right token.", (), [((), counts.denied)]
    )
    yield from counter(
        "admin_clients_refused_total",
        "Connections there closed at once, the bound reached.",
        (),
        [((), counts.refused)],
    )


def _endpoints(clusters: list[Cluster]) -> Iterator[tuple[Cluster, str, EndpointState]]:
    for cluster in clusters:
        for state in tuple(cluster.endpoints.values()):  # they may change before the next part
            yield cluster, state.endpoint.address, state


def _per_upstream(
    make: Callable[[str, str, tuple[str, ...], Series], Iterator[Metric]],
    name: str,
    text: str,
    clusters: list[Cluster],
    read: Callable[[Cluster], float],
) -> Iterator[Metric]:
    return make(name, text, ("upstream",), (((cluster.name,), read(cluster)) for cluster in clusters))


def counter(name: str, text: str, labels: tuple[str, ...], series: Series) -> Iterator[Metric]:
    """The counter `sidecar_NAME`, in parts; `name` ends in `_total`."""
    return _parts(CounterMetricFamily, name, text, labels, series)


def gauge(name: str, text: str, labels: tuple[str, ...], series: Series) -> Iterator[Metric]:
    """The gauge `sidecar_NAME`, in parts."""
    return _parts(GaugeMetricFamily, name, text, labels, series)


def _parts(
    make: type[CounterMetricFamily | GaugeMetricFamily],
    name: str,
    text: str,
    labels: tuple[str, ...],
    series: Series,
) -> Iterator[Metric]:
    """One family as several of that name, each of `PART` series at most; one without any where there are none."""
    family = make(f"sidecar_{name}", text, labels=labels)
    for values, value in series:
        if len(family.samples) >= PART:
            yield family
            family = make(f"sidecar_{name}", text, labels=labels)
        family.add_metric(values, value)
    yield family
