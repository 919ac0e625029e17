"""What one worker has counted, as one tree of numbers; sums of such trees; and a cluster that shows a sum.

Two trees, alike in shape: `counters` only grow and outlive the worker that counted them, `gauges` go with it. A leaf is
a number, a list has a fixed length, a mapping may lack what is zero: so `add` needs to know nothing of what it adds.
"""

from __future__ import annotations

from array import array
from dataclasses import asdict, astuple
from typing import TYPE_CHECKING, Any

from sidecar.admin.explain import next_of
from sidecar.cluster import REMEMBERED
from sidecar.model import CheckResult, Outcome
from sidecar.resilience import BreakerState, Cause, Transition
from sidecar.resilience.breaker import JOURNAL_LENGTH

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sidecar.cluster import Cluster
    from sidecar.model import EndpointState
    from sidecar.proxy.context import ProxyContext
    from sidecar.resilience import Breaker

__all__ = ["Tree", "Whole", "add", "clear_shown", "parts", "values_of"]

Tree = dict[str, Any]
Moves = dict[tuple[BreakerState, Cause], int]

# What a hand does is done by all workers and told of by the supervisor, once.
HAND_MOVES = {
    "trip": (BreakerState.OPEN, Cause.TRIPPED),
    "reset": (BreakerState.CLOSED, Cause.RESET),
}
_NOT_ITS_OWN = (Cause.SHARED, Cause.TRIPPED, Cause.RESET)

# Where the whole's breaker is: where one worker's probe is out there is something to wait for, and an open one beside
# closed ones is a message that has not arrived yet.
_TELLING = (BreakerState.HALF_OPEN, BreakerState.OPEN, BreakerState.CLOSED)

# Endpoints in a part, which takes some 5 ms to make and to write down. All of ten thousand took 150, in which a worker
# served nobody.
PART = 300

_PLAIN_COUNTERS = ("reuse_failures", "deadlines_exceeded", "retries_refused", "bytes_sent", "bytes_received")
_LIST_COUNTERS = (
    "checks",
    "connects",
    "hedges",
    "mirrored",
    "retries",
    "secret_loads",
    "sessions",
    "overflows",
    "proxy_headers",
    "tls_failures",
    "tls_reloads",
)
_ARRAY_COUNTERS = ("attempts", "durations", "duration_sums")


def parts(clusters: Mapping[str, Cluster]) -> list[dict[str, Cluster]]:
    """The clusters in parts of so many endpoints that `values_of` each is one turn of the loop; at least one part."""
    found: list[dict[str, Cluster]] = [{}]
    endpoints = 0
    for name, cluster in clusters.items():
        if endpoints >= PART:
            found.append({})
            endpoints = 0
        found[-1][name] = cluster
        endpoints += len(cluster.endpoints) + 1
    return found


def values_of(clusters: Mapping[str, Cluster], context: ProxyContext, *, first: bool = True) -> Tree:
    """What one process has counted for `clusters`: `{counters, gauges, breakers, checks, next, ...}`, JSON values.

    Parts are put together by `add`. first: what is the process's own is in this one.
    """
    now = context.monotonic()
    own: Tree = {"refused": context.refused, "recording": asdict(context.recording)} if first else {}
    own_gauges: Tree = {
        "clients": context.clients,
        "pipes": list(context.pipes),
        "checks": [context.checks.running, context.checks.limit],
    }
    return {
        "counters": {
            **own,
            "upstreams": {name: _counters(cluster) for name, cluster in clusters.items()},
        },
        "gauges": {
            **(own_gauges if first else {}),
            "upstreams": {name: _gauges(cluster, now) for name, cluster in clusters.items()},
        },
        "breakers": {
            name: {_key(*key): _breaker(state.breaker) for key, state in cluster.endpoints.items()}
            for name, cluster in clusters.items()
        },
        "next": {name: next_of(cluster, now) for name, cluster in clusters.items()},
        "tls_expiry": {
            name: list(cluster.stats.tls_expiry)
            for name, cluster in clusters.items()
            if any(cluster.stats.tls_expiry)
        },
        "checks": {
            name: {
                _key(*key): astuple(state.last_check)
                for key, state in cluster.endpoints.items()
                if state.last_check is not None
            }
            for name, cluster in clusters.items()
        },
    }


def _counters(cluster: Cluster) -> Tree:
    stats = cluster.stats
    found: Tree = {name: getattr(stats, name) for name in (*_PLAIN_COUNTERS, *_LIST_COUNTERS)}
    found |= {name: getattr(stats, name).tolist() for name in _ARRAY_COUNTERS}
    found["requests"] = {str(index): count for index, count in enumerate(stats.requests) if count}
    found["endpoints"] = {
        _key(*key): {
            "attempts": state.attempts.tolist(),
            "seconds": state.attempt_seconds,
            "transitions": _moves(state.breaker.transitions),
        }
        for key, state in cluster.endpoints.items()
    }
    found["transitions"] = _moves(stats.transitions)
    found["routed"] = {f"{route} {name}": count for (route, name), count in stats.routed.items()}
    return found


def _moves(transitions: Moves) -> Tree:
    return {
        f"{int(to)} {int(cause)}": count
        for (to, cause), count in transitions.items()
        if cause not in (Cause.TRIPPED, Cause.RESET)
    }


def _gauges(cluster: Cluster, now: float) -> Tree:
    return {
        "in_flight": cluster.stats.in_flight,
        "sessions_active": cluster.stats.sessions_active,
        "retries_active": cluster.stats.retries_active,
        "used": cluster.limit.used,
        "pending": len(cluster.limit.pending),
        "panic": int(cluster.panic),
        "budget": list(cluster.budget.totals(now)),
        "endpoints": {
            _key(*key): {
                "in_flight": state.in_flight,
                "open": state.pool.open,
                "idle": len(state.pool.idle),
                "in_rotation": int(state.in_rotation),
            }
            for key, state in cluster.endpoints.items()
        },
    }


def _breaker(breaker: Breaker) -> Tree:
    """Moves that it made by itself are its journal here: what it adopted is in the journal of another."""
    return {
        "state": int(breaker.state),
        "failures": breaker.failures,
        "open_until": breaker.open_until,
        "probing": breaker.probing,
        "failing": breaker.failing,
        "tripped": breaker.tripped,
        "journal": [
            [
                entry.at,
                int(entry.to),
                int(entry.cause),
                entry.failures,
                entry.evidence,
                entry.open_for,
                entry.good,
                entry.bad,
            ]
            for entry in breaker.journal
            if entry.cause not in _NOT_ITS_OWN
        ],
    }


def _key(host: str, port: int) -> str:
    return f"{host} {port}"


def add(one: Any, other: Any) -> Any:
    """The sum of two trees, a new one."""
    if isinstance(one, dict):
        total = dict(one)
        for key, value in other.items():
            total[key] = add(one[key], value) if key in one else value
        return total
    if isinstance(one, list):
        return [add(left, right) for left, right in zip(one, other, strict=True)]
    return one + other


class Whole:
    """The totals of a sidecar with several workers: of those that live, and of what dead ones had counted.

    counters of the dead that were not told before the end are lost: those of a worker that was killed, since the
    last time that anybody asked.
    """

    def __init__(self) -> None:
        self._past: Tree = {}  # counters
        self._journals: dict[tuple[str, str], list[list[Any]]] = {}  # by upstream and endpoint, of the dead
        self._hand: dict[tuple[str, str], Moves] = {}  # moves by hand, the same way
        self._hand_totals: dict[str, Moves] = {}  # of an upstream, also those of endpoints that have gone

    def note(self, name: str, state: EndpointState, to: BreakerState, cause: Cause, now: float) -> None:
        """Somebody's hand has moved the breaker of `state`."""
        key = (name, _key(*state.endpoint.key))
        entry = [now, int(to), int(cause), 0, None, 0.0, 0, 0]
        self._journals[key] = [*self._journals.get(key, []), entry][-JOURNAL_LENGTH:]
        for counts in (self._hand.setdefault(key, {}), self._hand_totals.setdefault(name, {})):
            counts[to, cause] = counts.get((to, cause), 0) + 1

    def bury(self, values: Tree) -> None:
        """Keep what a worker that has ended counted."""
        self._past = add(self._past, values["counters"])
        for name, breakers in values["breakers"].items():
            for key, breaker in breakers.items():
                if breaker["journal"]:
                    entries = self._journals.get((name, key), []) + breaker["journal"]
                    self._journals[name, key] = sorted(entries, key=_moment)[-JOURNAL_LENGTH:]

    def forget_all_but(self, clusters: Mapping[str, Cluster]) -> None:
        """Drop what was counted for upstreams that are not there any more, and most of endpoints that are not."""
        known = {name: {_key(*key) for key in cluster.endpoints} for name, cluster in clusters.items()}
        upstreams = self._past.get("upstreams", {})
        for by_name in (upstreams, self._hand_totals):
            for name in [name for name in by_name if name not in known]:
                del by_name[name]
        for name, counted in upstreams.items():
            _forget_endpoints(counted, known[name])
        for kept in (self._journals, self._hand):
            for name, key in list(kept):
                if key not in known.get(name, ()):
                    del kept[name, key]

    def forget_gone(self, cluster: Cluster) -> None:
        """Drop most of what was counted for endpoints that `cluster` does not have any more."""
        name, known = cluster.name, {_key(*key) for key in cluster.endpoints}
        counted = self._past.get("upstreams", {}).get(name)
        if counted:
            _forget_endpoints(counted, known)
        for kept in (self._journals, self._hand):
            for one in [one for one in kept if one[0] == name and one[1] not in known]:
                del kept[one]

    def show(
        self, living: Iterable[Tree], clusters: Mapping[str, Cluster], context: ProxyContext, slots: int
    ) -> None:
        """Make `clusters` and `context` those of one process that had counted everything.

        slots: how many workers there should be; each has the bounds of the configuration.
        """
        living = tuple(living)
        counters: Tree = self._past
        gauges: Tree = {}
        for values in living:
            counters, gauges = add(counters, values["counters"]), add(gauges, values["gauges"])
        context.refused = counters.get("refused", 0)
        for name, count in counters.get("recording", {}).items():
            setattr(context.recording, name, count)
        context.clients = gauges.get("clients", 0)
        context.pipes_elsewhere = tuple(gauges.get("pipes", (0, 0)))
        context.checks.running, context.checks.limit = gauges.get("checks", (0, 0))
        for name, cluster in clusters.items():
            _show_counters(cluster, counters.get("upstreams", {}).get(name, {}))
            cluster.stats.transitions |= self._hand_totals.get(name, {})
            _show_gauges(cluster, gauges.get("upstreams", {}).get(name, {}), slots)
            _show_expiry(cluster, [values.get("tls_expiry", {}).get(name) for values in living])
            for (host, port), state in cluster.endpoints.items():
                key = _key(host, port)
                found = [values["breakers"].get(name, {}).get(key) for values in living]
                past = self._journals.get((name, key), [])
                state.breaker.transitions |= self._hand.get((name, key), {})
                _show_breaker(state.breaker, [breaker for breaker in found if breaker], past)
                checks = [values["checks"].get(name, {}).get(key) for values in living]
                state.last_check = max(
                    (CheckResult(*check) for check in checks if check),
                    key=lambda check: check.at,
                    default=None,
                )


def _forget_endpoints(counted: Tree, known: set[str]) -> None:
    """Of those that have left attempts are kept, as living workers keep them (`Cluster.apply`); the last to leave last.

    Their breakers begin anew when they are back, and so do the moves.
    """
    found: Tree = counted["endpoints"]
    gone = [key for key in found if key not in known][-REMEMBERED:]
    counted["endpoints"] = {key: {**found[key], "transitions": {}} for key in gone} | {
        key: value for key, value in found.items() if key in known
    }


def clear_shown(cluster: Cluster) -> None:
    """Before it changes: of connections and queues only numbers are shown, nobody to be closed or woken."""
    cluster.limit.pending.clear()
    for state in cluster.endpoints.values():
        state.pool.idle.clear()


def _show_counters(cluster: Cluster, counted: Tree) -> None:
    stats = cluster.stats
    if counted:
        for name in (*_PLAIN_COUNTERS, *_LIST_COUNTERS):
            setattr(stats, name, counted[name])
        for name in _ARRAY_COUNTERS:
            _fill(getattr(stats, name), counted[name])
    requests = counted.get("requests", {})
    _fill(stats.requests, [requests.get(str(index), 0) for index in range(len(stats.requests))])
    endpoints = counted.get("endpoints", {})
    for key, state in cluster.endpoints.items():
        of_endpoint = endpoints.get(_key(*key), {})
        _fill(state.attempts, of_endpoint.get("attempts", [0] * len(Outcome)))
        state.attempt_seconds = of_endpoint.get("seconds", 0.0)
        state.breaker.transitions = _moved(of_endpoint)
    stats.transitions = _moved(counted)
    routed = counted.get("routed", {})
    for route, name in stats.routed:  # those of routes that are configured no more are told nobody
        stats.routed[route, name] = routed.get(f"{route} {name}", 0)


def _moved(counted: Tree) -> Moves:
    """The other way round from `_moves`."""
    found: Moves = {}
    for move, count in counted.get("transitions", {}).items():
        to, _, cause = move.partition(" ")
        found[BreakerState(int(to)), Cause(int(cause))] = count
    return found


def _fill(counts: array[Any], values: list[Any]) -> None:
    """Put `values` in place: an array of statistics stays the same object, which compiled code counts in."""
    counts[:] = array(counts.typecode, values)


def _show_gauges(cluster: Cluster, now: Tree, slots: int) -> None:
    stats, limit = cluster.stats, cluster.limit
    stats.in_flight = now.get("in_flight", 0)
    stats.sessions_active = now.get("sessions_active", 0)
    stats.retries_active = now.get("retries_active", 0)
    cluster.panic = now.get("panic", 0) > 0
    limit.used = now.get("used", 0)
    limit.maximum = cluster.policy.max_connections * slots
    limit.max_pending = cluster.policy.max_pending * slots
    limit.per_endpoint = cluster.policy.max_connections_per_endpoint * slots
    limit.max_in_flight = cluster.policy.max_in_flight * slots
    # Only their number is looked at.
    limit.pending.clear()
    limit.pending.extend([None] * now.get("pending", 0))  # type: ignore[list-item]
    for key, state in cluster.endpoints.items():
        of_endpoint = now.get("endpoints", {}).get(_key(*key), {})
        state.in_flight = of_endpoint.get("in_flight", 0)
        state.in_rotation = of_endpoint.get("in_rotation", 0) > 0
        state.pool.open = of_endpoint.get("open", 0)
        state.pool.idle[:] = [None] * of_endpoint.get("idle", 0)  # type: ignore[list-item]


def _show_expiry(cluster: Cluster, living: list[list[float] | None]) -> None:
    """The first that any worker has: all read the same files, though not in the same moment."""
    found = [ends for ends in living if ends]
    for side in (0, 1):
        there = [ends[side] for ends in found if ends[side]]
        cluster.stats.tls_expiry[side] = min(there, default=0.0)


def _show_breaker(breaker: Breaker, living: list[Tree], past: list[list[Any]]) -> None:
    states = [BreakerState(found["state"]) for found in living]
    breaker.state = next((state for state in _TELLING if state in states), BreakerState.CLOSED)
    breaker.failures = max((found["failures"] for found in living), default=0)
    breaker.probing = any(found["probing"] for found in living)
    breaker.failing = any(found["failing"] for found in living)
    breaker.tripped = any(found["tripped"] for found in living)
    # The first that may send its probe.
    breaker.open_until = min(
        (found["open_until"] for found in living if found["state"] == BreakerState.OPEN), default=0.0
    )
    entries = sorted((entry for found in living for entry in found["journal"]), key=_moment)
    breaker.journal.clear()
    for at, to, cause, failures, evidence, open_for, good, bad in sorted([*past, *entries], key=_moment)[
        -JOURNAL_LENGTH:
    ]:
        breaker.journal.append(
            Transition(
                at,
                BreakerState(to),
                Cause(cause),
                failures,
                None if evidence is None else Outcome(evidence),
                open_for,
                good,
                bad,
            )
        )


def _moment(entry: list[Any]) -> float:
    at: float = entry[0]
    return at
