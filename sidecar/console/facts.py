"""What the JSON of `/upstreams` says of one upstream or endpoint, as plain values for a row.

A part that is missing, null or of another type is not known, and nothing is raised for it: the sidecar that answers may
be of another version.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sidecar.console.look import DRAINED
from sidecar.model.outcome import Outcome

__all__ = [
    "EndpointFacts",
    "UpstreamFacts",
    "endpoint_facts",
    "is_fine",
    "is_up",
    "mapping_of",
    "mappings_of",
    "moment_of",
    "number_of",
    "text_of",
    "upstream_facts",
]

DEGRADED = 0.01  # ratio of errors: one in a hundred is more than a slip
FAILING = 0.5  # and here more come to nothing than not
ENOUGH = (
    1.0  # requests per second from which a ratio of 5 s says that much: one that failed alone is no outage
)

_BROKEN = ("failing", "panic", "drained")

_FAILURES = frozenset(outcome.label for outcome in Outcome if outcome.is_failure)


@dataclass(frozen=True, slots=True)
class UpstreamFacts:
    """One upstream.

    state: well, idle, degraded, failing, panic or drained. rate: requests per second, of TCP the sessions that ended.
    errors: ratio of 0 to 1. p50, p99: seconds. active: requests and sessions under way. sent, received: bytes per
    second of sessions. up, total: endpoints whose
    breakers are closed and that are not drained, and all. routes: of a router, which has no endpoints; 0 of others.
    endpoints: their JSON.
    None is what is not known.
    """

    name: str
    scheme: str
    state: str
    rate: float | None
    errors: float | None
    p50: float | None
    p99: float | None
    active: int
    pending: int
    retries: int
    sent: float | None
    received: float | None
    up: int
    total: int
    routes: int
    leaving: bool
    endpoints: list[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class EndpointFacts:
    """One endpoint.

    state: its breaker's, or drained. probe_in: seconds until its breaker asks for a probe, None when it does not.
    why: one sentence. ok, failed: attempts since the start.
    """

    address: str
    state: str
    probe_in: float | None
    why: str
    well: bool
    active: int
    ok: int
    failed: int
    idle: int
    open: int


def upstream_facts(upstream: Mapping[str, Any]) -> UpstreamFacts:
    """What `upstream`, one of those of `/upstreams`, says."""
    endpoints = mappings_of(upstream, "endpoints")
    recent = mapping_of(upstream, "recent")
    retries = mapping_of(upstream, "retries")
    scheme = text_of(upstream, "scheme")
    rates = [number_of(recent, key) for key in ("requests", "sessions")]
    active = _whole(upstream, "in_flight") + _whole(mapping_of(upstream, "sessions"), "active")
    rate = rates[1] if scheme and not scheme.startswith("http") else rates[0]
    errors = number_of(recent, "errors")
    hidden = _whole(upstream, "endpoints_total") - len(endpoints)  # beyond the least well, which are told
    up = sum(map(is_up, endpoints)) + max(0, hidden)
    return UpstreamFacts(
        name=text_of(upstream, "name"),
        scheme=scheme,
        state=_upstream_state(upstream, endpoints, up, rate, errors, busy=bool(active or any(rates))),
        rate=rate,
        errors=errors,
        p50=number_of(recent, "p50"),
        p99=number_of(recent, "p99"),
        active=active,
        pending=_whole(upstream, "pending"),
        retries=_whole(retries, "failed") + _whole(retries, "succeeded"),
        sent=number_of(recent, "bytes_sent"),
        received=number_of(recent, "bytes_received"),
        up=up,
        total=len(endpoints) + max(0, hidden),
        routes=len(mappings_of(upstream, "routes")),
        leaving=upstream.get("leaving") is True,
        endpoints=endpoints,
    )


def is_fine(facts: UpstreamFacts) -> bool:
    """Whether requests to it are served as they should be."""
    return facts.state not in _BROKEN


def _upstream_state(
    upstream: Mapping[str, Any],
    endpoints: list[Mapping[str, Any]],
    up: int,
    rate: float | None,
    errors: float | None,
    *,
    busy: bool,
) -> str:
    present = [endpoint for endpoint in endpoints if endpoint.get("drained") is not True]
    if endpoints and not present and not up:
        return "drained"
    if upstream.get("panic") is True:
        return "panic"
    if (
        not up
        and not mappings_of(upstream, "routes")
        and not any(_in_rotation(endpoint) for endpoint in present)
    ):
        return "failing"
    if errors is not None and errors >= FAILING and (rate or 0.0) >= ENOUGH:
        return "failing"
    if not all(map(is_up, present)) or (errors or 0.0) >= DEGRADED:
        return "degraded"
    return "idle" if rate is not None and not busy else "well"


def endpoint_facts(endpoint: Mapping[str, Any], *, panic: bool = False, passed: float = 0.0) -> EndpointFacts:
    """What `endpoint`, one of an upstream's, says. passed: seconds since it was said. panic: its upstream's."""
    attempts = mapping_of(endpoint, "attempts")
    connections = mapping_of(endpoint, "connections")
    state = _state(endpoint)
    retry_in = number_of(mapping_of(endpoint, "breaker"), "retry_in") if state == "open" else None
    return EndpointFacts(
        address=text_of(endpoint, "address"),
        state=state,
        probe_in=None if retry_in is None else max(0.0, retry_in - passed),
        why=_why(endpoint, panic, passed),
        well=state == "closed",
        active=_whole(endpoint, "in_flight"),
        ok=_whole(attempts, "success"),
        failed=sum(_whole(attempts, outcome) for outcome in attempts if outcome in _FAILURES),
        idle=_whole(connections, "idle"),
        open=_whole(connections, "open"),
    )


def is_up(endpoint: Mapping[str, Any]) -> bool:
    """Whether nothing keeps requests from it: its breaker is closed and it is not drained."""
    return _state(endpoint) == "closed"


def _state(endpoint: Mapping[str, Any]) -> str:
    if endpoint.get("drained") is True:
        return "drained"
    return text_of(mapping_of(endpoint, "breaker"), "state")


def _in_rotation(endpoint: Mapping[str, Any]) -> bool:
    said = endpoint.get("in_rotation")
    return said is True if isinstance(said, bool) else _state(endpoint) == "closed"


def _why(endpoint: Mapping[str, Any], panic: bool, passed: float) -> str:
    """The sentence of `/explain`, as far as `/upstreams` tells what it needs."""
    breaker = mapping_of(endpoint, "breaker")
    state = _state(endpoint)
    if state == "drained":
        return DRAINED
    if state == "closed":
        failures = _whole(breaker, "failures")
        return (
            f"in rotation; {failures} of {_whole(breaker, 'threshold')} failures in a row"
            if failures
            else "in rotation"
        )
    text = _out(endpoint, breaker, passed)
    if not _in_rotation(endpoint):
        return text
    return f"{text}; in rotation all the same: {'panic' if panic else 'its breaker only observes'}"


def _out(endpoint: Mapping[str, Any], breaker: Mapping[str, Any], passed: float) -> str:
    """What keeps it away."""
    held = breaker.get("held")
    if held == "hand":
        return "tripped by hand; until `sidecar reset`"
    cause = _cause(breaker)
    if held == "checks":
        error = text_of(mapping_of(endpoint, "check"), "error")
        return f"fails its health checks{cause}{f': {error}' if error else ''}"
    if breaker.get("state") == "half_open":
        return f"half open{cause}; " + (
            "its probe is out" if breaker.get("probing") is True else "the next request is its probe"
        )
    if breaker.get("state") != "open":
        return "nothing is known of its breaker"
    wait = (number_of(breaker, "retry_in") or 0.0) - passed
    probe = f"a probe in {wait:.1f} s" if wait > 0 else "the next request is its probe"
    return f"breaker open{cause}; {probe}"


def _cause(breaker: Mapping[str, Any]) -> str:
    """What opened it last, in parentheses; empty where its journal does not say."""
    opening = next(
        (entry for entry in reversed(mappings_of(breaker, "journal")) if entry.get("to") == "open"), None
    )
    if opening is None:
        return ""
    cause, evidence = (text_of(opening, key).replace("_", " ") for key in ("cause", "evidence"))
    return f" ({cause}, the last one {evidence})" if evidence else f" ({cause})"


def mapping_of(view: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The object at `key`; an empty one when there is none."""
    value = view.get(key)
    return value if isinstance(value, Mapping) else {}


def mappings_of(view: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """The objects of the list at `key`; empty when there is none."""
    value = view.get(key)
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def number_of(view: Mapping[str, Any], key: str) -> float | None:
    """The finite number at `key`; None when there is none."""
    value = view.get(key)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) < math.inf:
        return None
    return float(min(value, 2**63))  # a whole number of JSON may be beyond all floats


def moment_of(view: Mapping[str, Any], key: str) -> float | None:
    """The moment of RFC 3339 at `key`, in seconds since the epoch; None when there is none."""
    try:
        return datetime.fromisoformat(text_of(view, key)).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def text_of(view: Mapping[str, Any], key: str) -> str:
    """The string at `key`; an empty one when there is none."""
    value = view.get(key)
    return value if isinstance(value, str) else ""


def _whole(view: Mapping[str, Any], key: str) -> int:
    return int(number_of(view, key) or 0)
