"""The families of the process, and of what it asks and tells: checks, registries, workers, reloads, its own records."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from sidecar.model.registry import REGISTRATION_RESULTS, RESULTS
from sidecar.observe.exposition import Family, counter, gauge
from sidecar.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sidecar.cluster import Cluster
    from sidecar.model import AdminCounts, CheckCounts, RecordingCounts, ReloadCounts, WorkerCounts
    from sidecar.model.registry import Registered, SourceStatus
    from sidecar.proxy.context import ProxyContext

__all__ = [
    "admin",
    "build",
    "checks",
    "process",
    "recording",
    "registrations",
    "registries",
    "reloads",
    "workers",
]

CHECK_RESULTS = ("failure", "success", "unknown")  # the order of `UpstreamStats.checks`


def checks(clusters: list[Cluster], counts: CheckCounts) -> Iterator[Family]:
    """Of health checks; `clusters` are those that are checked."""
    yield counter(
        "health_checks_total",
        "Health checks of an upstream's endpoints, by result; unknown are those that could not be made.",
        ("upstream", "result"),
        (
            ((cluster.name, result), count)
            for cluster in clusters
            for result, count in zip(CHECK_RESULTS, cluster.stats.checks, strict=True)
        ),
    )
    yield gauge("health_checks_running", "Health checks that go on now.", (), [((), counts.running)])
    yield gauge(
        "health_checks_limit",
        "Bound on sidecar_health_checks_running; 0 where nothing is checked.",
        (),
        [((), counts.limit)],
    )


def registries(sources: list[SourceStatus], epoch: float) -> Iterator[Family]:
    """Of the registries that are asked. epoch: wall time at monotonic zero."""
    yield counter(
        "registry_updates_total",
        "What has come of asking a registry: signs of life are unchanged.",
        ("source", "result"),
        (
            ((source.name, result), count)
            for source in sources
            for result, count in zip(RESULTS, source.updates, strict=True)
        ),
    )
    yield gauge(
        "registry_last_success_timestamp_seconds",
        "When all that is asked of a registry had been heard of last; 0 before the first time.",
        ("source",),
        (
            ((source.name,), 0 if source.last_success is None else epoch + source.last_success)
            for source in sources
        ),
    )
    yield gauge(
        "registry_stale",
        "1 while a registry errs or says nothing, so that what it said before is used.",
        ("source",),
        (((source.name,), source.stale) for source in sources),
    )


def registrations(registered: Registered) -> Iterator[Family]:
    """Of the services that registries are told of."""
    known: dict[tuple[str, ...], bool] = {}
    for status in registered.statuses:
        key = (status.name, status.registry)
        known[key] = known.get(key, True) and status.registered
    yield gauge(
        "registered",
        "1 while a registry should know a local service, on all ports that it is announced with.",
        ("service", "registry"),
        known.items(),
    )
    yield counter(
        "registrations_total",
        "What has come of announcing local services in a registry.",
        ("registry", "result"),
        (
            ((registry, result), count)
            for registry, counts in registered.counts.items()
            for result, count in zip(REGISTRATION_RESULTS, counts, strict=True)
        ),
    )


def workers(counts: WorkerCounts) -> Iterator[Family]:
    """Of a sidecar with several worker processes."""
    yield gauge("workers", "Worker processes that take connections.", (), [((), counts.running)])
    yield gauge("workers_limit", "Worker processes that there should be.", (), [((), counts.configured)])
    yield gauge(
        "workers_leaving",
        "Worker processes of an older configuration that finish what they have.",
        (),
        [((), counts.leaving)],
    )
    yield gauge(
        "workers_silent",
        "Worker processes that did not answer in time: what they said before stands in for them.",
        (),
        [((), counts.silent)],
    )
    yield counter("worker_restarts_total", "Worker processes that died.", (), [((), counts.restarts)])


def reloads(counts: ReloadCounts) -> Iterator[Family]:
    """Of the configuration, read again."""
    yield counter(
        "config_reloads_total",
        "Reloads of the configuration, by result; a failure has changed nothing.",
        ("result",),
        [
            (("success",), counts.success),
            (("failure",), counts.failure),
            (("unchanged",), counts.unchanged),
        ],
    )
    yield gauge(
        "config_last_reload_success",
        "1 unless the last reload was refused.",
        (),
        [((), counts.last_success)],
    )


def recording(counts: RecordingCounts) -> Iterator[Family]:
    """Of the access log and of tracing; zeros where they are off, so that an alert need not know whether they are."""
    yield counter(
        "access_log_lines_total",
        "Lines of the access log; dropped are those that there was no room for, or nowhere to write to.",
        ("result",),
        [(("written",), counts.lines_written), (("dropped",), counts.lines_dropped)],
    )
    yield counter(
        "access_log_errors_total", "Writes to the access log that failed.", (), [((), counts.log_errors)]
    )
    yield counter(
        "spans_total",
        "Spans of traced requests, by what became of them: failed are those that the collector has not taken.",
        ("result",),
        [
            (("exported",), counts.spans_exported),
            (("dropped",), counts.spans_dropped),
            (("failed",), counts.spans_failed),
        ],
    )


def build(*, compiled: bool) -> Iterator[Family]:
    """What runs."""
    names = ("version", "compiled", "python")
    values = (__version__, "true" if compiled else "false", platform.python_version())
    yield gauge("build_info", "What is running; always 1.", names, [(values, 1)])


def process(context: ProxyContext) -> Iterator[Family]:
    """Of its clients and pipes."""
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


def admin(counts: AdminCounts) -> Iterator[Family]:
    """What has been asked at the admin address."""
    yield counter(
        "admin_requests_total",
        "Answers at the admin address, by class of their status.",
        ("code_class",),
        [((f"{first}xx",), counts.by_class[first]) for first in range(2, 6)],
    )
    yield counter("admin_denied_total", "Requests there without the right token.", (), [((), counts.denied)])
    yield counter(
        "admin_clients_refused_total",
        "Connections there, and at the metrics address, closed at once, the bound reached.",
        (),
        [((), counts.refused)],
    )
