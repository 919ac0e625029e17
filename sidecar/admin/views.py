"""The live objects as plain JSON values: what `/upstreams` answers and `sidecar status` draws.

Everything inside the process counts monotonic seconds; everything here is for people and other machines,
so that moments become RFC 3339 wall time and deadlines become seconds from now.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sidecar.model import CloseReason, Limit, Outcome
from sidecar.model.stats import METHODS
from sidecar.resilience import BreakerState
from sidecar.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sidecar.clock import Clock
    from sidecar.cluster import Cluster
    from sidecar.model import CheckResult, EndpointState, WorkerCounts
    from sidecar.model.registry import FeedStatus, Registered, RegistrationStatus
    from sidecar.proxy.router import Route
    from sidecar.resilience import Breaker, Transition

__all__ = ["endpoint_view", "moment", "registrations_view", "upstream_view", "upstreams_view", "workers_view"]

# What an upstream did in about the last five seconds, by its name: see `observe.history.Sampler.recent`.
Recent = Callable[[str], dict[str, Any] | None]


def upstreams_view(
    clusters: Mapping[str, Cluster],
    clock: Clock,
    *,
    mode: str,
    compiled: bool,
    started_at: float,
    draining: bool,
    workers: WorkerCounts | None = None,
    feeds: Callable[[str], list[FeedStatus]] | None = None,
    registered: Registered | None = None,
    recent: Recent | None = None,
    lazy: bool = False,
) -> dict[str, Any]:
    """Every upstream with its endpoints, in configuration order.

    Shape: `{version, compiled, mode, at, started_at, draining, upstreams: [{name, scheme, strategy, source, panic,
    leaving, requests: {total, by_class, by_reason}, retries, hedges, deadlines: {header, exceeded}, in_flight,
    pending, sessions: {...}, bytes: {sent, received}, overflows: {total, by_limit}, limits: {...}, recent: {...},
    endpoints: [...]}]}`.
    at: the moment of the answer; started_at: that of the process's start, here in wall seconds.
    Counts grow from the start of the process and name only what occurred; `_limits`, `endpoint_view` and `_breaker`
    give the inner shapes. leaving: it is not configured any more, and finishes what it has.
    recent: of about the last five seconds, null before it is known: `{seconds, requests, errors, p50, p99, sessions,
    bytes_sent, bytes_received}`, per second, but errors is a ratio and p50 and p99 are seconds (`observe.readings`).
    With `feeds`, upstreams that registries are asked for have `registries` (`_feed`). Where services are announced,
    there is `registrations` (`_registration`). Routers have `routes` (`_route`), and no endpoints.
    With `workers` there is `workers: {configured, running, leaving, silent, restarts}` too; all else is of all of them.
    lazy: `upstreams` is an iterator, that looks at each when it is its turn: ten thousand endpoints take 0.1 s.
    """
    now = clock.monotonic()
    wall = clock.wall()
    epoch = wall - now  # wall time of monotonic zero: only the difference to now is used
    view: dict[str, Any] = {
        "version": __version__,
        "compiled": compiled,
        "mode": mode,
        "at": moment(wall),
        "started_at": moment(started_at),
        "draining": draining,
    }
    if workers is not None:
        view["workers"] = workers_view(workers)
    shown = _upstreams(list(clusters.values()), clock, epoch, feeds, recent, lazy=lazy)
    view["upstreams"] = shown if lazy else list(shown)
    if registered is not None and registered.statuses:
        view["registrations"] = registrations_view(registered, epoch)
    return view


def workers_view(workers: WorkerCounts) -> dict[str, Any]:
    """How many worker processes there are."""
    return {
        "configured": workers.configured,
        "running": workers.running,
        "leaving": workers.leaving,
        "silent": workers.silent,
        "restarts": workers.restarts,
    }


def registrations_view(registered: Registered, epoch: float) -> list[dict[str, Any]]:
    """What is announced."""
    return [_registration(status, epoch) for status in registered.statuses]


def _upstreams(
    clusters: list[Cluster],
    clock: Clock,
    epoch: float,
    feeds: Callable[[str], list[FeedStatus]] | None,
    recent: Recent | None,
    *,
    lazy: bool,
) -> Iterator[dict[str, Any]]:
    for cluster in clusters:
        said = feeds(cluster.name) if feeds is not None else []
        figures = recent(cluster.name) if recent is not None else None
        states = list(cluster.endpoints.values())
        yield upstream_view(cluster, clock.monotonic(), epoch, states, said, figures, lazy=lazy)


def _registration(status: RegistrationStatus, epoch: float) -> dict[str, Any]:
    """One service that is announced while it is well.

    address: where others reach it, null before that is known. state, since: announced, unwell, failing or withdrawn,
    see `RegistrationStatus`. registered: the registry should know it now. error: null while it is announced.
    """
    return {
        "name": status.name,
        "registry": status.registry,
        "address": status.address or None,
        "state": status.state,
        "since": moment(epoch + status.since),
        "registered": status.registered,
        "error": status.error or None,
    }


def _feed(feed: FeedStatus, now: float, epoch: float) -> dict[str, Any]:
    """What one registry says of an upstream.

    endpoints: how many, null before its first word. age: seconds since it was heard of, null before. stale: it errs or
    is silent, so that its last word is used. saved: that word is from the last good file. error: null when it is well.
    """
    return {
        "source": feed.source,
        "endpoints": feed.endpoints,
        "heard_at": None if feed.heard_at is None else moment(epoch + feed.heard_at),
        "age": None if feed.heard_at is None else round(now - feed.heard_at, 3),
        "stale": feed.stale,
        "saved": feed.saved,
        "error": feed.error or None,
    }


def upstream_view(
    cluster: Cluster,
    now: float,
    epoch: float,
    states: Iterable[EndpointState],
    feeds: Iterable[FeedStatus],
    recent: dict[str, Any] | None,
    *,
    lazy: bool = False,
) -> dict[str, Any]:
    """One upstream, with those of its endpoints that are in `states`. epoch: wall time at monotonic zero.

    lazy: its `endpoints` are an iterator.
    """
    stats = cluster.stats
    limit = cluster.limit
    endpoints = (endpoint_view(state, now, epoch) for state in states)
    retries = [sum(results) for results in zip(*stats.retries, strict=True)]
    view = {
        "name": cluster.name,
        "scheme": cluster.scheme,
        "strategy": cluster.policy.strategy,
        "source": cluster.source,
        "panic": cluster.panic,
        "leaving": cluster.leaving,
        "requests": _requests(cluster),
        "retries": {
            "failed": retries[0],
            "succeeded": retries[1],
            "refused": stats.retries_refused,
            "active": stats.retries_active,
        },
        "hedges": {"lost": stats.hedges[0], "won": stats.hedges[1]},
        "deadlines": {
            "header": cluster.policy.deadline_header.decode("ascii") or None,
            "exceeded": stats.deadlines_exceeded,
        },
        "in_flight": stats.in_flight,
        "pending": len(limit.pending),
        "sessions": {
            "active": stats.sessions_active,
            "total": sum(stats.sessions),
            "by_reason": {
                reason.label: stats.sessions[reason] for reason in CloseReason if stats.sessions[reason]
            },
        },
        "bytes": {"sent": stats.bytes_sent, "received": stats.bytes_received},
        "overflows": {
            "total": sum(stats.overflows),
            "by_limit": {found.label: stats.overflows[found] for found in Limit if stats.overflows[found]},
        },
        "limits": _limits(cluster),
        "recent": recent,
        "endpoints": endpoints if lazy else list(endpoints),
    }
    if cluster.router is not None:
        view["routes"] = [_route(route, cluster) for route in cluster.router.routes]
    registries = [_feed(feed, now, epoch) for feed in feeds]
    if registries:
        view["registries"] = registries
    return view


def _route(route: Route, cluster: Cluster) -> dict[str, Any]:
    """One route of a router: what has to be true of a request, as in the configuration, and where it goes then.

    headers: names alone, as a value may be a key. requests: that have gone there by this route.
    """
    counts = cluster.stats.routed
    return {
        "host": route.host.decode("ascii"),
        "path": route.path.decode("ascii"),
        "methods": [METHODS[method] for method in sorted(route.methods)],
        "headers": [name.decode("ascii") for name, _ in route.fields],
        "to": [
            {
                "upstream": target.name,
                "weight": weight,
                "requests": counts.get((route.position, target.name), 0),
            }
            for target, weight in route.targets
        ],
    }


def _limits(cluster: Cluster) -> dict[str, Any]:
    """Each bound as under `limits`, null where it is off, and `..._used` how much of it is.

    connections_per_endpoint_used: of the endpoint that has most. pending_timeout: seconds.
    """
    stats, limit = cluster.stats, cluster.limit
    return {
        "connections": limit.maximum,
        "connections_used": limit.used,
        "connections_per_endpoint": limit.per_endpoint or None,
        "connections_per_endpoint_used": max(
            (state.pool.open for state in cluster.endpoints.values()), default=0
        ),
        "pending": limit.max_pending,
        "pending_used": len(limit.pending),
        "pending_timeout": cluster.policy.pending_timeout,
        "in_flight": limit.max_in_flight or None,
        "in_flight_used": stats.in_flight + stats.sessions_active,
    }


def _requests(cluster: Cluster) -> dict[str, Any]:
    by_class: dict[str, int] = {}
    by_reason: dict[str, int] = {}
    for _, code_class, reason, count in cluster.stats.request_counts():
        by_class[code_class] = by_class.get(code_class, 0) + count
        by_reason[reason] = by_reason.get(reason, 0) + count
    return {"total": sum(by_class.values()), "by_class": by_class, "by_reason": by_reason}


def endpoint_view(state: EndpointState, now: float, epoch: float) -> dict[str, Any]:
    endpoint = state.endpoint
    return {
        "address": endpoint.address,
        "host": endpoint.host,
        "port": endpoint.port,
        "weight": endpoint.weight,
        "zone": endpoint.zone,
        "in_rotation": state.in_rotation,
        "drained": state.drained,
        "in_flight": state.in_flight,
        "connections": {"open": state.pool.open, "idle": len(state.pool.idle)},
        "attempts": {
            outcome.label: state.attempts[outcome] for outcome in Outcome if state.attempts[outcome]
        },
        "breaker": _breaker(state.breaker, now, epoch),
        "check": None if state.last_check is None else _check(state.last_check, epoch),
    }


def _check(found: CheckResult, epoch: float) -> dict[str, Any]:
    """The last health check. ok: null when it could not be made; in_a_row: as many had the same result."""
    return {
        "at": moment(epoch + found.at),
        "ok": found.ok,
        "seconds": round(found.seconds, 6),
        "error": found.error,
        "in_a_row": found.in_a_row,
    }


def _breaker(breaker: Breaker, now: float, epoch: float) -> dict[str, Any]:
    """retry_in: seconds until it asks for a probe, null unless it is open for a time; retry_at: the moment of that.

    held: what keeps it open without end, `checks` or `hand`; null when nothing does.
    """
    is_open = breaker.state is BreakerState.OPEN and not breaker.held
    return {
        "state": breaker.state.label,
        "failures": breaker.failures,
        "threshold": breaker.threshold,
        "probing": breaker.probing,
        "retry_in": round(max(0.0, breaker.open_until - now), 3) if is_open else None,
        "retry_at": moment(epoch + breaker.open_until) if is_open else None,
        "held": breaker.held or None,
        "journal": [_transition(entry, epoch) for entry in breaker.journal],
    }


def _transition(entry: Transition, epoch: float) -> dict[str, Any]:
    """evidence: the outcome that decided it, null when time did; open_for: seconds, 0 unless it opened.

    window: the attempts in it then; `{good: 0, bad: 0}` where no failure rate is looked at.
    """
    return {
        "at": moment(epoch + entry.at),
        "to": entry.to.label,
        "cause": entry.cause.label,
        "failures": entry.failures,
        "evidence": None if entry.evidence is None else entry.evidence.label,
        "open_for": round(entry.open_for, 3),
        "window": {"good": entry.good, "bad": entry.bad},
    }


def moment(wall: float) -> str:
    """RFC 3339 of seconds since the epoch."""
    at = datetime.fromtimestamp(wall, tz=UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
