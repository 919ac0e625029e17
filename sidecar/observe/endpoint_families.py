"""The families of endpoints, and what there is of them where no endpoint is told by its name.

A total of an upstream is counted as such: the sum over its endpoints falls when one of them goes, and Prometheus would
take that for a restart and the rest of the sum for new.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.model import Outcome
from sidecar.observe.exposition import Family, Summary, counter, gauge
from sidecar.observe.families import per_upstream
from sidecar.resilience import BreakerState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sidecar.cluster import Cluster
    from sidecar.model import EndpointState

__all__ = ["endpoints", "endpoints_closely", "rotation", "without_endpoints"]

_ATTEMPTS = "Attempts at an endpoint, by how they ended; an outcome is listed once it occurred."
_ACTIVE = "Connections open or being opened, idle ones included."
_TRANSITIONS = "Moves of an endpoint's breaker, by where to and why."
_SUCCESS = int(Outcome.SUCCESS)
_OUTCOMES = tuple(outcome.label for outcome in Outcome)
_STATES = tuple((state, state.label) for state in BreakerState)


def endpoints(clusters: list[Cluster]) -> Iterator[Family]:
    """Attempts, connections and breakers, endpoint by endpoint."""
    yield counter(
        "attempts_total",
        _ATTEMPTS,
        ("upstream", "endpoint", "outcome"),
        (
            ((name, address, _OUTCOMES[outcome]), count)
            for name, address, state in _each(clusters)
            for outcome, count in enumerate(state.attempts)
            if count or outcome == _SUCCESS
        ),
    )
    yield _per_endpoint("connections_active", _ACTIVE, clusters, lambda state: state.pool.open)
    yield gauge(
        "breaker_state",
        "1 for the state that the endpoint's breaker is in.",
        ("upstream", "endpoint", "state"),
        (
            ((name, address, label), 1 if state.breaker.state is one else 0)
            for name, address, state in _each(clusters)
            for one, label in _STATES
        ),
    )
    yield counter(
        "breaker_transitions_total",
        _TRANSITIONS,
        ("upstream", "endpoint", "to", "cause"),
        (
            ((name, address, to.label, cause.label), count)
            for name, address, state in _each(clusters)
            for (to, cause), count in tuple(state.breaker.transitions.items())
        ),
    )


def without_endpoints(clusters: list[Cluster]) -> Iterator[Family]:
    """The same of upstreams as a whole, but for the breakers' states, which `rotation` counts.

    What sums over endpoints in a query reads both alike.
    """
    yield counter(
        "attempts_total",
        _ATTEMPTS,
        ("upstream", "outcome"),
        (
            ((cluster.name, _OUTCOMES[outcome]), count)
            for cluster in clusters
            for outcome, count in enumerate(cluster.stats.attempts)
            if count or outcome == _SUCCESS
        ),
    )
    yield per_upstream(gauge, "connections_active", _ACTIVE, clusters, lambda cluster: cluster.limit.used)
    yield counter(
        "breaker_transitions_total",
        _TRANSITIONS,
        ("upstream", "to", "cause"),
        (
            ((cluster.name, to.label, cause.label), count)
            for cluster in clusters
            for (to, cause), count in tuple(cluster.stats.transitions.items())
        ),
    )


def rotation(clusters: list[Cluster]) -> Iterator[Family]:
    """How many endpoints of each upstream may be sent to."""
    yield per_upstream(
        gauge,
        "upstream_panic",
        "1 while so many breakers are open that more would be out of rotation than may be.",
        clusters,
        lambda cluster: 1 if cluster.panic else 0,
    )
    yield gauge(
        "endpoints",
        "Endpoints of an upstream, by the state of their breakers.",
        ("upstream", "state"),
        (
            ((cluster.name, label), states.count(one))
            for cluster in clusters
            for states in ([state.breaker.state for state in cluster.endpoints.values()],)
            for one, label in _STATES
        ),
    )
    yield per_upstream(
        gauge,
        "endpoints_drained",
        "Endpoints of an upstream that nothing new is sent to, by somebody's hand.",
        clusters,
        lambda cluster: sum([1 for state in cluster.endpoints.values() if state.drained]),
    )


def endpoints_closely(clusters: list[Cluster]) -> Iterator[Family]:
    """What else is known of each endpoint, for whoever looks for the one that is not like the others."""
    yield _per_endpoint(
        "endpoint_in_flight",
        "Requests and sessions that are at an endpoint now.",
        clusters,
        lambda state: state.in_flight,
    )
    yield _per_endpoint(
        "endpoint_weight",
        "Its share of the requests relative to the others of its upstream, in tenths while one of them starts slowly.",
        clusters,
        lambda state: state.weight,
    )
    yield _per_endpoint(
        "endpoint_in_rotation",
        "1 while an endpoint may be picked.",
        clusters,
        lambda state: 1 if state.in_rotation else 0,
    )
    yield _per_endpoint(
        "endpoint_drained",
        "1 while nothing new is sent to an endpoint, by somebody's hand.",
        clusters,
        lambda state: 1 if state.drained else 0,
    )
    yield Summary(
        "attempt_duration_seconds",
        "From the pick of an endpoint to the head of its response, or to the connection that a session is given; "
        "of attempts that say something of the endpoint.",
        ("upstream", "endpoint"),
        (
            ((name, address), (state.timed_attempts, state.attempt_seconds))
            for name, address, state in _each(clusters)
        ),
    )
    yield _per_endpoint(
        "breaker_failures",
        "Failures in a row that an endpoint's breaker has seen.",
        clusters,
        lambda state: state.breaker.failures,
    )
    checked = [cluster for cluster in clusters if cluster.policy.checked]
    yield gauge(
        "health_check_success",
        "1 where the last check of an endpoint went well; not there before the first, and where it could not be made.",
        ("upstream", "endpoint"),
        (
            ((name, address), 1 if check.ok else 0)
            for name, address, state in _each(checked)
            if (check := state.last_check) is not None and check.ok is not None
        ),
    )
    yield gauge(
        "health_check_duration_seconds",
        "What the last check of an endpoint took, where it could be made.",
        ("upstream", "endpoint"),
        (
            ((name, address), check.seconds)
            for name, address, state in _each(checked)
            if (check := state.last_check) is not None and check.ok is not None
        ),
    )


def _each(clusters: list[Cluster]) -> Iterator[tuple[str, str, EndpointState]]:
    for cluster in clusters:
        name = cluster.name
        for state in tuple(cluster.endpoints.values()):  # they may change before the next part
            yield name, state.endpoint.address, state


def _per_endpoint(
    name: str, text: str, clusters: list[Cluster], read: Callable[[EndpointState], float]
) -> Family:
    return gauge(
        name,
        text,
        ("upstream", "endpoint"),
        (((upstream, address), read(state)) for upstream, address, state in _each(clusters)),
    )
