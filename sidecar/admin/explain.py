"""Why an upstream's next request goes where it goes: what `/explain/NAME` answers and `sidecar explain` prints.

`/upstreams` says how things are; this says what follows from it, in words.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sidecar.admin.views import moment
from sidecar.resilience import BreakerState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sidecar.clock import Clock
    from sidecar.cluster import Cluster
    from sidecar.config.doors import RateSettings
    from sidecar.model import EndpointState
    from sidecar.model.policy import UpstreamPolicy
    from sidecar.resilience import Breaker

__all__ = ["explain_view", "next_of"]

_CHOICE = {
    "round_robin": "the next in a cycle in which each endpoint stands as often as its weight says",
    "least_request": "of two drawn by chance the one with less in flight for its weight",
    "random": "one by chance, as likely as its weight says",
    "peak_ewma": "of two drawn by chance the one whose latency times its load is less for its weight",
    "ring_hash": "the first endpoint clockwise from what {hash_on} hashes to that is in rotation and not overloaded",
}


def next_of(cluster: Cluster, now: float) -> dict[str, Any]:
    """This process's next pick: `{endpoint: address or null, why}`; null where it is up to chance or a key."""
    state, why = cluster.peek(now)
    return {"endpoint": None if state is None else state.endpoint.address, "why": why}


def explain_view(
    cluster: Cluster,
    clock: Clock,
    next_picks: Sequence[Mapping[str, Any]],
    budget: tuple[int, int],
    rate: RateSettings | None = None,
) -> dict[str, Any]:
    """One upstream: `{name, strategy, choice, panic, endpoints: [...], next: [...], retries: {...}, rate_limit}`.

    endpoints: `{address, zone, weight, in_rotation, state, since, why, in_flight}`, why being one sentence.
    next: see `next_of`, one for each process. retries: `{attempts, on, elsewhere, per_try_timeout, budget}` with the
    budget's requests and retries of its window, and what is left of it; a router makes no
    attempts. budget: those two, of all processes.
    rate_limit: `{requests, per, burst}` of `rate`, of all processes together; null where there is none.
    """
    now = clock.monotonic()
    epoch = clock.wall() - now
    policy = cluster.policy
    return {
        "name": cluster.name,
        "scheme": cluster.scheme,
        "strategy": policy.strategy,
        "choice": _choice(cluster),
        "panic": _panic(cluster),
        "endpoints": [_endpoint(cluster, state, now, epoch) for state in cluster.endpoints.values()],
        "next": list(next_picks),
        "retries": _tries(cluster, *budget),
        "rate_limit": asdict(rate) if rate is not None and rate.requests else None,
    }


def _choice(cluster: Cluster) -> str:
    policy = cluster.policy
    if cluster.router is not None:
        return "the first of its routes that fits, and there by weight; what fits none is answered 404"
    text = _CHOICE[policy.strategy].format(hash_on=policy.hash_on)
    if policy.zone:
        text += f"; the zone {policy.zone} first, others for what it cannot carry"
    return text


def _panic(cluster: Cluster) -> str | None:
    if not cluster.panic:
        return None
    policy = cluster.policy
    bound = f"more than outlier allows (max_ejected {policy.max_ejected:.0%}, min_available {policy.min_available})"
    if policy.observe_only:
        return f"{bound} would be out of rotation; breakers only observe, so nobody is"
    if policy.panic_all:
        return f"{bound} should be out of rotation, so all are in it but what is tripped by hand"
    return f"{bound} are out of rotation; with panic: fail they stay out"


def _endpoint(cluster: Cluster, state: EndpointState, now: float, epoch: float) -> dict[str, Any]:
    breaker = state.breaker
    moved = _since(breaker)
    return {
        "address": state.endpoint.address,
        "zone": state.endpoint.zone,
        "weight": state.endpoint.weight,
        "in_rotation": state.in_rotation,
        "state": breaker.state.label,
        "since": None if moved is None else moment(epoch + moved),
        "why": _why(cluster, state, now),
        "in_flight": state.in_flight,
    }


def _since(breaker: Breaker) -> float | None:
    """When it closed, or stopped being closed, as far as the journal goes back; monotonic seconds."""
    since = None
    for entry in reversed(breaker.journal):
        if (entry.to is BreakerState.CLOSED) is not (breaker.state is BreakerState.CLOSED):
            break
        since = entry.at
    return since


def _why(cluster: Cluster, state: EndpointState, now: float) -> str:
    breaker = state.breaker
    if state.drained:
        return "drained by hand; until `sidecar enable`"
    if breaker.state is BreakerState.CLOSED:
        slow = cluster.policy.slow_start
        if slow and now - state.since < slow:
            return f"in rotation, and starts slowly: {(now - state.since) / slow:.0%} of its weight"
        if breaker.failures:
            return f"in rotation; {breaker.failures} of {breaker.threshold} failures in a row"
        return "in rotation"
    text = _out(breaker, now)
    if not state.in_rotation:
        return text
    if cluster.policy.observe_only:
        return f"{text}; in rotation all the same: its breaker only observes"
    return f"{text}; in rotation all the same: panic"


def _out(breaker: Breaker, now: float) -> str:
    """What keeps it away, as far as its breaker knows."""
    if breaker.held == "hand":
        return "tripped by hand; until `sidecar reset`"
    opening = next((entry for entry in reversed(breaker.journal) if entry.to is BreakerState.OPEN), None)
    cause = "" if opening is None else f" ({opening.cause.label.replace('_', ' ')}"
    if opening is not None:
        evidence = opening.evidence
        cause += ")" if evidence is None else f", the last one {evidence.label.replace('_', ' ')})"
    if breaker.held == "checks":
        return f"fails its health checks{cause}; {breaker.rise} good ones in a row bring it back"
    if breaker.state is BreakerState.HALF_OPEN:
        return f"half open{cause}; " + (
            "its probe is out" if breaker.probing else "the next request is its probe"
        )
    wait = breaker.open_until - now
    probe = f"a probe in {wait:.1f} s" if wait > 0 else "the next request is its probe"
    return f"breaker open{cause}; {probe}"


def _tries(cluster: Cluster, requests: int, retries: int) -> dict[str, Any]:
    if cluster.router is not None:  # what it sends on is tried again as whoever gets it says
        return {"attempts": 0, "on": [], "elsewhere": "", "per_try_timeout": None, "budget": None}
    policy = cluster.policy
    return _retries(policy, requests, retries) if cluster.per_request else _dials(policy)


def _retries(policy: UpstreamPolicy, requests: int, retries: int) -> dict[str, Any]:
    on = [name for name in ("connect", "reset", "timeout") if getattr(policy, f"retry_on_{name}")]
    on += [str(status) for status in sorted(policy.retry_statuses)]
    return {
        "attempts": 1 + policy.retries,
        "on": on,
        "elsewhere": "at an endpoint not tried yet while there is one; after a refused connect that spends nothing",
        "per_try_timeout": policy.per_try_timeout or None,
        "budget": {
            "ratio": policy.retry_ratio,
            "min": policy.retry_min,
            "requests": requests,
            "retries": retries,
        },
    }


def _dials(policy: UpstreamPolicy) -> dict[str, Any]:
    return {
        "attempts": 1 + policy.retries,
        "on": ["connect"],
        "elsewhere": "at an endpoint not tried yet while there is one; a session that is joined is never moved",
        "per_try_timeout": None,
        "budget": None,
    }
