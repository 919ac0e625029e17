"""The metrics, in the Prometheus text exposition format 0.0.4.

Nothing here is updated by traffic. A scrape walks the clusters, reads the plain integers that the data path
has incremented, and forgets everything again: what it costs depends on how many upstreams and endpoints
there are, never on what was requested, and the series of an endpoint end when the endpoint goes.

Every name is a contract. Labels are names from the configuration, addresses of endpoints and members of
fixed enums; a client cannot make a series.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import CollectorRegistry

from sidecar.model import CloseReason, EndpointState, Outcome
from sidecar.model.stats import DURATION_BUCKETS, RETRY_REASONS
from sidecar.resilience import BreakerState
from sidecar.version import __version__

if TYPE_CHECKING:
    from sidecar.cluster import Cluster
    from sidecar.proxy.context import ProxyContext

__all__ = ["Metrics"]

CONNECT_RESULTS = ("established", "refused", "timeout")  # the order of `UpstreamStats.connects`
RETRY_RESULTS = ("failed", "succeeded")  # the order of each entry of `UpstreamStats.retries`
_BOUNDS = (*(f"{bound:g}" for bound in DURATION_BUCKETS), "+Inf")

# One series' label values and its value.
_Series = Iterable[tuple[tuple[str, ...], float]]


class Metrics:
    """Everything measured about one process.

    clusters: by upstream name; read anew at each scrape, so that a reload shows at once.
    context: the data path's shared state; None leaves out what is known of clients and draining.
    compiled: whether the hot modules run compiled.
    """

    content_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(
        self, clusters: Mapping[str, Cluster], context: ProxyContext | None, *, compiled: bool
    ) -> None:
        # A registry of its own: the library's global one would add its process and garbage collector metrics,
        # and would make two sidecars in one process (as tests run them) share what they report.
        self._registry = CollectorRegistry()
        self._registry.register(_Collector(clusters, context, compiled=compiled))

    def render(self) -> bytes:
        """One scrape's answer, to be sent with `content_type`."""
        return generate_latest(self._registry)


class _Collector:
    """Walks the clusters once per family. Implements prometheus_client's Collector protocol."""

    def __init__(
        self, clusters: Mapping[str, Cluster], context: ProxyContext | None, *, compiled: bool
    ) -> None:
        self._clusters = clusters
        self._context = context
        self._compiled = compiled

    def describe(self) -> list[Metric]:
        """Empty: registering must not need a walk, and no other collector shares the registry."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every family, complete, in the order in which a request meets what they count."""
        clusters = list(self._clusters.values())
        per_request = [cluster for cluster in clusters if cluster.scheme == "http"]
        per_session = [cluster for cluster in clusters if cluster.scheme != "http"]
        yield from _requests(per_request)
        yield from _sessions(per_session)
        yield from _bounds(clusters)
        yield from _connections(clusters)
        yield from _breakers(clusters)
        yield from self._process()

    def _process(self) -> Iterator[Metric]:
        build = ("version", "compiled", "python")
        values = (__version__, "true" if self._compiled else "false", platform.python_version())
        yield _gauge("build_info", "What is running; always 1.", build, [(values, 1)])
        context = self._context
        if context is None:
            return
        yield _gauge(
            "draining", "1 while the process finishes what it has, to exit.", (), [((), context.draining)]
        )
        yield _gauge(
            "clients", "Client connections open now, all listeners together.", (), [((), context.clients)]
        )
        yield _gauge("clients_limit", "Bound on sidecar_clients.", (), [((), context.max_clients)])
        yield _counter(
            "clients_refused_total",
            "Client connections closed at once, the bound reached.",
            (),
            [((), context.refused)],
        )


def _requests(clusters: list[Cluster]) -> Iterator[Metric]:
    yield _counter(
        "requests_total",
        "Requests answered, by the proxy itself when the reason is not none.",
        ("upstream", "method", "code_class", "reason"),
        (
            ((cluster.name, method, code_class, reason), count)
            for cluster in clusters
            for method, code_class, reason, count in cluster.stats.request_counts()
        ),
    )
    yield _durations(clusters)
    yield _per_upstream(
        _gauge,
        "requests_in_flight",
        "Requests being worked on.",
        clusters,
        lambda cluster: cluster.stats.in_flight,
    )
    yield _counter(
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
    yield _per_upstream(
        _counter,
        "connection_reuse_failures_total",
        "Reused connections that closed without a response byte (the idle race).",
        clusters,
        lambda cluster: cluster.stats.reuse_failures,
    )


def _durations(clusters: list[Cluster]) -> Metric:
    family = HistogramMetricFamily(
        "sidecar_request_duration_seconds",
        "From the request's first byte to the response's last.",
        labels=("upstream", "code_class"),
    )
    for cluster in clusters:
        stats = cluster.stats
        for code_class, counts in enumerate(stats.durations):
            total = 0
            buckets: list[tuple[str, float]] = []
            for bound, count in zip(_BOUNDS, counts, strict=True):
                total += count
                buckets.append((bound, total))
            if total:
                family.add_metric((cluster.name, f"{code_class}xx"), buckets, stats.duration_sums[code_class])
    return family


def _sessions(clusters: list[Cluster]) -> Iterator[Metric]:
    yield _counter(
        "tcp_sessions_total",
        "Ended TCP sessions, by why they ended.",
        ("upstream", "close_reason"),
        (
            ((cluster.name, reason.label), cluster.stats.sessions[reason])
            for cluster in clusters
            for reason in CloseReason
        ),
    )
    yield _per_upstream(
        _gauge,
        "tcp_sessions_active",
        "TCP sessions open now.",
        clusters,
        lambda cluster: cluster.stats.sessions_active,
    )
    yield _counter(
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


def _bounds(clusters: list[Cluster]) -> Iterator[Metric]:
    yield _per_upstream(
        _gauge,
        "queue_length",
        "Requests and sessions that wait for a connection.",
        clusters,
        lambda cluster: len(cluster.limit.pending),
    )
    yield _per_upstream(
        _gauge,
        "queue_limit",
        "Bound on sidecar_queue_length.",
        clusters,
        lambda cluster: cluster.limit.max_pending,
    )
    yield _per_upstream(
        _gauge,
        "connections_limit",
        "Bound on the connections to an upstream's endpoints together.",
        clusters,
        lambda cluster: cluster.limit.maximum,
    )
    yield _per_upstream(
        _counter,
        "overflows_total",
        "Requests and sessions refused, a bound reached.",
        clusters,
        lambda cluster: cluster.stats.overflows,
    )


def _connections(clusters: list[Cluster]) -> Iterator[Metric]:
    yield _counter(
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
    yield _gauge(
        "connections_active",
        "Connections open or being opened, idle ones included.",
        ("upstream", "endpoint"),
        (((cluster.name, address), state.pool.open) for cluster, address, state in _endpoints(clusters)),
    )
    yield _counter(
        "connections_opened_total",
        "Attempts to open a connection, by result.",
        ("upstream", "result"),
        (
            ((cluster.name, result), count)
            for cluster in clusters
            for result, count in zip(CONNECT_RESULTS, cluster.stats.connects, strict=True)
        ),
    )


def _breakers(clusters: list[Cluster]) -> Iterator[Metric]:
    yield _gauge(
        "breaker_state",
        "1 for the state that the endpoint's breaker is in.",
        ("upstream", "endpoint", "state"),
        (
            ((cluster.name, address, state.label), state is endpoint.breaker.state)
            for cluster, address, endpoint in _endpoints(clusters)
            for state in BreakerState
        ),
    )
    yield _counter(
        "breaker_transitions_total",
        "Moves of an endpoint's breaker, by where to and why.",
        ("upstream", "endpoint", "to", "cause"),
        (
            ((cluster.name, address, to.label, cause.label), count)
            for cluster, address, endpoint in _endpoints(clusters)
            for (to, cause), count in endpoint.breaker.transitions.items()
        ),
    )
    yield _gauge(
        "endpoints",
        "Endpoints of an upstream, by the state of their breakers.",
        ("upstream", "state"),
        (
            ((cluster.name, state.label), sum(e.breaker.state is state for e in cluster.endpoints.values()))
            for cluster in clusters
            for state in BreakerState
        ),
    )


def _endpoints(clusters: list[Cluster]) -> Iterator[tuple[Cluster, str, EndpointState]]:
    for cluster in clusters:
        for state in cluster.endpoints.values():
            yield cluster, state.endpoint.address, state


def _per_upstream(
    make: Callable[[str, str, tuple[str, ...], _Series], Metric],
    name: str,
    text: str,
    clusters: list[Cluster],
    read: Callable[[Cluster], float],
) -> Metric:
    return make(name, text, ("upstream",), (((cluster.name,), read(cluster)) for cluster in clusters))


def _counter(name: str, text: str, labels: tuple[str, ...], series: _Series) -> Metric:
    family = CounterMetricFamily(f"sidecar_{name}", text, labels=labels)
    for values, value in series:
        family.add_metric(values, value)
    return family


def _gauge(name: str, text: str, labels: tuple[str, ...], series: _Series) -> Metric:
    family = GaugeMetricFamily(f"sidecar_{name}", text, labels=labels)
    for values, value in series:
        family.add_metric(values, value)
    return family
