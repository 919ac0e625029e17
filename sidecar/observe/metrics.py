"""The metrics: what one scrape tells, in the format that it asks for.

Nothing here is updated by traffic. A scrape walks the clusters, reads the plain integers that the data path
has incremented, and forgets everything again: what it costs depends on how many upstreams and endpoints
there are, never on what was requested, and the series of an endpoint end when the endpoint goes.

Every name is a contract. Labels are names from the configuration, addresses of endpoints and members of
fixed enums; a client cannot make a series.

How much is told is `sidecar.metrics_detail`:

    level     of each upstream                            of each endpoint
    --------  ------------------------------------------  ---------------------------------------------------------
    low       all, but requests without `method`;         nothing: `attempts_total`, `connections_active` and
              some 60 series                              `breaker_transitions_total` are the upstream's, without
                                                          the label `endpoint`; `breaker_state` is not there
    normal    all                                         attempts, connections, breaker: 5 series and more
    endpoint  all                                         also what is in flight, weight, rotation, latency,
                                                          failures in a row and the last check: 9 series more

A query that sums over `endpoint` and `method` reads every level alike, and `endpoints{state}` counts breakers at each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.observe import endpoint_families as of_endpoints
from sidecar.observe import families as of_upstreams
from sidecar.observe import process_families as of_process
from sidecar.observe.exposition import CLASSIC, Format, written
from sidecar.observe.negotiation import chosen_format
from sidecar.observe.tls_families import tls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sidecar.clock import Clock
    from sidecar.cluster import Cluster
    from sidecar.model import AdminCounts, ReloadCounts, WorkerCounts
    from sidecar.model.registry import Registered, SourceStatus
    from sidecar.observe.exposition import Family
    from sidecar.proxy.context import ProxyContext

__all__ = ["Metrics"]


class Metrics:
    """Everything measured about one process.

    clusters: by upstream name; read anew at each scrape, so that a reload shows at once.
    context: the data path's shared state; None leaves out what is known of clients, draining and records.
    compiled: whether the hot modules run compiled.
    workers: of the supervisor of several worker processes; None where there is one process.
    sources: how the registries are; None where none is asked. clock: tells their moments in wall time.
    registered: what is announced in registries; None, or giving None, where nothing is.
    reload_counts: of the configuration; None leaves them out. admin_counts: the same of the admin server.
    detail: gives low, normal or endpoint; asked at each scrape.
    """

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
        detail: Callable[[], str] | None = None,
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
        self._detail = detail
        self._admin = admin_counts

    def scrape(self, accept: str) -> tuple[str, Iterator[bytes]]:
        """The content type and the parts of the answer to who sends `accept` (RFC 9110 section 12.5.1)."""
        form = chosen_format(accept)
        return form.content_type, self.parts(form)

    def render(self, form: Format = CLASSIC) -> bytes:
        """One scrape's answer."""
        return b"".join(self.parts(form))

    def parts(self, form: Format = CLASSIC) -> Iterator[bytes]:
        """The same bit by bit, for who has requests to serve meanwhile: all of ten thousand endpoints takes 0.2 s."""
        return written(self._families(), form)

    def _families(self) -> Iterator[Family]:
        """Each once, in the order in which a request meets what they count."""
        detail = "normal" if self._detail is None else self._detail()
        clusters = list(self._clusters.values())
        served = [cluster for cluster in clusters if cluster.router is None]  # the others have no endpoints
        per_request = [cluster for cluster in clusters if cluster.per_request]
        per_session = [cluster for cluster in served if not cluster.per_request or cluster.stats.has_sessions]
        yield from of_upstreams.requests(per_request, methods=detail != "low")
        yield from of_upstreams.secrets(per_request)
        yield from of_upstreams.routing(clusters)
        yield from of_upstreams.sessions(per_session)
        yield from of_upstreams.bounds(served)
        yield from of_upstreams.connections(served)
        yield from tls(clusters)
        if detail == "low":
            yield from of_endpoints.without_endpoints(served)
        else:
            yield from of_endpoints.endpoints(served)
        yield from of_endpoints.rotation(served)
        if detail == "endpoint":
            yield from of_endpoints.endpoints_closely(served)
        yield from self._others(served)

    def _others(self, clusters: list[Cluster]) -> Iterator[Family]:
        context = self._context
        if context is not None:
            checked = [cluster for cluster in clusters if cluster.policy.checked]
            yield from of_process.checks(checked, context.checks)
        sources = self._sources() if self._sources is not None else []
        if sources and self._clock is not None:
            yield from of_process.registries(sources, self._clock.wall() - self._clock.monotonic())
        registered = self._registered() if self._registered is not None else None
        if registered is not None:
            yield from of_process.registrations(registered)
        yield from of_process.build(compiled=self._compiled)
        if context is not None:
            yield from of_process.process(context)
            yield from of_process.recording(context.recording)
        if self._reloads is not None:
            yield from of_process.reloads(self._reloads)
        if self._admin is not None:
            yield from of_process.admin(self._admin)
        if self._workers is not None:
            yield from of_process.workers(self._workers)
