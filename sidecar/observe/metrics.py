"""The metrics, in the Prometheus text exposition format 0.0.4.

Nothing here is updated by traffic. A scrape walks the clusters, reads the plain integers that the data path
has incremented, and forgets everything again: what it costs depends on how many upstreams and endpoints
there are, never on what was requested, and the series of an endpoint end when the endpoint goes.

Every name is a contract. Labels are names from the configuration, addresses of endpoints and members of
fixed enums; a client cannot make a series.
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import CollectorRegistry

from sidecar.observe.families import (
    bounds,
    breakers,
    checks,
    connections,
    counter,
    gauge,
    registrations,
    registries,
    reloads,
    requests,
    sessions,
    workers,
)
from sidecar.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prometheus_client.metrics_core import Metric

    from sidecar.clock import Clock
    from sidecar.cluster import Cluster
    from sidecar.model import ReloadCounts, WorkerCounts
    from sidecar.model.registry import Registered, SourceStatus
    from sidecar.proxy.context import ProxyContext

__all__ = ["Metrics"]


class Metrics:
    """Everything measured about one process.

    clusters: by upstream name; read anew at each scrape, so that a reload shows at once.
    context: the data path's shared state; None leaves out what is known of clients and draining.
    compiled: whether the hot modules run compiled.
    workers: of the supervisor of several worker processes; None where there is one process.
    sources: how the registries are; None where none is asked. clock: tells their moments in wall time.
    registered: what is announced in registries; None, or giving None, where nothing is.
    reload_counts: of the configuration; None leaves them out.
    """

    content_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(
        self,
        clusters: Mapping[str, Cluster],
        context: ProxyContext | None,
        *,
        compiled: bool,
        workers: WorkerCounts | None = None,
        sources: Callable[[], list[SourceStatus]] | None = None,
        registered: Callable[[], Registered | None] | None = None,
        clock: Clock | None = None,
        reload_counts: ReloadCounts | None = None,
    ) -> None:
        # A registry of its own: the library's global one would add its process and garbage collector metrics,
        # and would make two sidecars in one process (as tests run them) share what they report.
        self._registry = CollectorRegistry()
        self._registry.register(
            _Collector(
                clusters,
                context,
                compiled=compiled,
                workers=workers,
                sources=sources,
                registered=registered,
                clock=clock,
                reload_counts=reload_counts,
            )
        )

    def render(self) -> bytes:
        """One scrape's answer, to be sent with `content_type`."""
        return generate_latest(self._registry)


class _Collector:
    """Walks the clusters once per family. Implements prometheus_client's Collector protocol."""

    def __init__(
        self,
        clusters: Mapping[str, Cluster],
        context: ProxyContext | None,
        *,
        compiled: bool,
        workers: WorkerCounts | None = None,
        sources: Callable[[], list[SourceStatus]] | None = None,
        registered: Callable[[], Registered | None] | None = None,
        clock: Clock | None = None,
        reload_counts: ReloadCounts | None = None,
    ) -> None:
        self._clusters = clusters
        self._context = context
        self._compiled = compiled
        self._workers = workers
        self._sources = sources
        self._registered = registered
        self._clock = clock
        self._reloads = reload_counts

    def describe(self) -> list[Metric]:
        """Empty: registering must not need a walk, and no other collector shares the registry."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every family, complete, in the order in which a request meets what they count."""
        clusters = list(self._clusters.values())
        per_request = [cluster for cluster in clusters if cluster.scheme == "http"]
        per_session = [
            cluster for cluster in clusters if cluster.scheme != "http" or cluster.stats.has_sessions
        ]
        yield from requests(per_request)
        yield from sessions(per_session)
        yield from bounds(clusters)
        yield from connections(clusters)
        yield from breakers(clusters)
        if self._context is not None:
            checked = [cluster for cluster in clusters if cluster.policy.checked]
            yield from checks(checked, self._context.checks)
        sources = self._sources() if self._sources is not None else []
        if sources and self._clock is not None:
            yield from registries(sources, self._clock.wall() - self._clock.monotonic())
        registered = self._registered() if self._registered is not None else None
        if registered is not None:
            yield from registrations(registered)
        yield from self._process()
        if self._reloads is not None:
            yield from reloads(self._reloads)
        if self._workers is not None:
            yield from workers(self._workers)

    def _process(self) -> Iterator[Metric]:
        build = ("version", "compiled", "python")
        values = (__version__, "true" if self._compiled else "false", platform.python_version())
        yield gauge("build_info", "What is running; always 1.", build, [(values, 1)])
        context = self._context
        if context is None:
            return
        yield gauge(
            "draining", "1 while the process finishes what it has, to exit.", (), [((), context.draining)]
        )
        yield gauge(
            "clients", "Client connections open now, all listeners together.", (), [((), context.clients)]
        )
        yield gauge("clients_limit", "Bound on sidecar_clients.", (), [((), context.max_clients)])
        yield counter(
            "clients_refused_total",
            "Client connections closed at once, the bound reached.",
            (),
            [((), context.refused)],
        )
        pipes, pipes_limit = context.pipes
        yield gauge("pipes", "Pipes open, through which the kernel moves large bodies.", (), [((), pipes)])
        yield gauge("pipes_limit", "Bound on sidecar_pipes; 0 in pure Python.", (), [((), pipes_limit)])
