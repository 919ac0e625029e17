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
from prometheus_client.registry import Collector

from sidecar.observe.families import (
    admin,
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
    from sidecar.model import AdminCounts, ReloadCounts, WorkerCounts
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
    reload_counts: of the configuration; None leaves them out. admin_counts: the same of the admin server.
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
        admin_counts: AdminCounts | None = None,
    ) -> None:
        # Nothing of the library's global registry, which would add its process and garbage collector metrics, and make
        # two sidecars in one process (as tests run them) share what they report.
        self._all = _Collector(
            clusters,
            context,
            compiled=compiled,
            workers=workers,
            sources=sources,
            registered=registered,
            clock=clock,
            reload_counts=reload_counts,
            admin_counts=admin_counts,
        )

    def render(self) -> bytes:
        """One scrape's answer, to be sent with `content_type`."""
        return b"".join(self.parts())

    def parts(self) -> Iterator[bytes]:
        """The same bit by bit, for who has requests to serve meanwhile: of ten thousand endpoints it takes 0.4 s."""
        before = ""
        for family in self._all.collect():
            text = generate_latest(_Part(family))
            if family.name == before:
                text = text.split(b"\n", 2)[2]  # without HELP and TYPE, which are there already
            before = family.name
            yield text


class _Part(Collector):
    """One family, or a part of it, as the library takes them."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterator[Metric]:
        yield self._family


class _Collector:
    """Walks the clusters once per family."""

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
        admin_counts: AdminCounts | None = None,
    ) -> None:
        self._clusters = clusters
        self._context = context
        self._compiled = compiled
        self._workers = workers
        self._sources = sources
        self._registered = registered
        self._clock = clock
        self._reloads = reload_counts
        self._admin = admin_counts

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
        if self._admin is not None:
            yield from admin(self._admin)
        if self._workers is not None:
            yield from workers(self._workers)

    def _process(self) -> Iterator[Metric]:
        build = ("version", "compiled", "python")
        values = (__version__, "true" if self._compiled else "false", platform.python_version())
        yield from gauge("build_info", "What is running; always 1.", build, [(values, 1)])
        context = self._context
        if context is None:
            return
        yield from gauge(
            "draining", "1 while the process finishes what it has, to exit.", (), [((), context.draining)]
        )
        yield from gauge(
            "clients", "Client connections open now, all listeners together.", (), [((), context.clients)]
        )
        yield from gauge("clients_limit", "Bound on sidecar_clients.", (), [((), context.max_clients)])
        yield from counter(
            "clients_refused_total",
            "Client connections closed at once, the bound reached.",
            (),
            [((), context.refused)],
        )
        pipes, pipes_limit = context.pipes
        yield from gauge(
            "pipes", "Pipes open, through which the kernel moves large bodies.", (), [((), pipes)]
        )
        yield from gauge("pipes_limit", "Bound on sidecar_pipes; 0 in pure Python.", (), [((), pipes_limit)])
