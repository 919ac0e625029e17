"""The shapes of what the admin API answers, as JSON Schema (https://json-schema.org/draft/2020-12/schema).

Every object is closed: a value that comes to be shown has to be named here, which the tests see to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sidecar.admin.control import ACTIONS
from sidecar.admin.live import MOST_ENDPOINTS
from sidecar.config.settings import PROTOCOLS
from sidecar.errors import Reason
from sidecar.model import CloseReason, Limit, Outcome
from sidecar.resilience import BreakerState
from sidecar.resilience.breaker import Cause

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Shape", "closed", "listed", "one_of", "ref", "shapes"]

Shape = dict[str, Any]

POINTS = 120  # of a history: ten minutes, one each five seconds

TEXT: Shape = {"type": "string"}
FLAG: Shape = {"type": "boolean"}
COUNT: Shape = {"type": "integer", "minimum": 0}
AMOUNT: Shape = {"type": "number", "minimum": 0}
SHARE: Shape = {"type": "number", "minimum": 0, "maximum": 1}
MOMENT: Shape = {"type": "string", "format": "date-time"}


def ref(name: str) -> Shape:
    """One of `shapes`, by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


def one_of(words: Iterable[str]) -> Shape:
    """One of some words."""
    return {"type": "string", "enum": list(words)}


def listed(item: Shape, **more: Any) -> Shape:
    """A list of items."""
    return {"type": "array", "items": item, **more}


def closed(needed: Shape, optional: Shape | None = None, about: str = "") -> Shape:
    """An object with these properties and no other."""
    shape: Shape = {
        "type": "object",
        "properties": {**needed, **(optional or {})},
        "required": list(needed),
        "additionalProperties": False,
    }
    return {**shape, "description": about} if about else shape


def _or_null(shape: Shape) -> Shape:
    if "type" in shape and "enum" not in shape:
        return {**shape, "type": [shape["type"], "null"]}
    return {"anyOf": [shape, {"type": "null"}]}


def _counts(words: Iterable[str]) -> Shape:
    """How often each of some words, those left out that did not occur."""
    return {"type": "object", "propertyNames": {"enum": list(words)}, "additionalProperties": COUNT}


def _labels(kind: type[BreakerState | Cause | CloseReason | Limit | Outcome | Reason]) -> list[str]:
    return [one.label for one in kind]


_CLASSES = [f"{first}xx" for first in range(1, 6)]
_STATE = one_of(_labels(BreakerState))


def shapes() -> dict[str, Shape]:
    """All shapes by name, but for the configuration's."""
    found = {**_of_upstreams(), **_of_endpoints(), **_of_calls(), **_of_time()}
    return {**found, **_of_events(found)}


def _of_upstreams() -> dict[str, Shape]:
    upstream = {
        "name": TEXT,
        "scheme": one_of(PROTOCOLS),
        "strategy": TEXT,
        "source": TEXT,
        "panic": FLAG,
        "leaving": FLAG,
        "requests": closed(
            {"total": COUNT, "by_class": _counts(_CLASSES), "by_reason": _counts(_labels(Reason))}
        ),
        "retries": closed({"failed": COUNT, "succeeded": COUNT, "refused": COUNT, "active": COUNT}),
        "hedges": closed({"lost": COUNT, "won": COUNT}),
        "deadlines": closed({"header": _or_null(TEXT), "exceeded": COUNT}),
        "in_flight": COUNT,
        "pending": COUNT,
        "sessions": closed({"active": COUNT, "total": COUNT, "by_reason": _counts(_labels(CloseReason))}),
        "bytes": closed({"sent": COUNT, "received": COUNT}),
        "overflows": closed({"total": COUNT, "by_limit": _counts(_labels(Limit))}),
        "limits": ref("Limits"),
        "recent": ref("Recent"),
        "endpoints": listed(ref("Endpoint")),
    }
    used = {f"{name}_used": COUNT for name in ("connections", "pending", "in_flight")}
    return {
        "Upstreams": closed(
            {
                "version": TEXT,
                "compiled": FLAG,
                "mode": TEXT,
                "at": MOMENT,
                "started_at": MOMENT,
                "draining": FLAG,
                "upstreams": listed(ref("Upstream")),
            },
            {"workers": ref("Workers"), "registrations": listed(ref("Registration"))},
            "Counts grow from started_at, the start of the process, and name only what occurred. at: of the answer.",
        ),
        "Upstream": closed(
            upstream,
            {"registries": listed(ref("Registry")), "routes": listed(ref("Route"))},
            "routes: of a router, which has no endpoints. leaving: not configured any more, it finishes what it has.",
        ),
        "Route": closed(
            {
                "host": TEXT,
                "path": TEXT,
                "methods": listed(TEXT),
                "headers": listed(TEXT),
                "to": listed(closed({"upstream": TEXT, "weight": COUNT, "requests": COUNT})),
            },
            about="What a request has to have, empty for any, and where it goes then; of headers only the names.",
        ),
        "Limits": closed(
            {
                "connections": COUNT,
                "connections_per_endpoint": _or_null(COUNT),
                "connections_per_endpoint_used": COUNT,
                "pending": COUNT,
                "pending_timeout": AMOUNT,
                "in_flight": _or_null(COUNT),
                **used,
            },
            about="Each bound, null where it is off, and how much of it is used; pending_timeout in seconds.",
        ),
        "Workers": closed(
            dict.fromkeys(("configured", "running", "leaving", "silent", "restarts"), COUNT),
            about="There where there are several processes; all other values are of all of them.",
        ),
        "Registry": closed(
            {
                "source": TEXT,
                "endpoints": _or_null(COUNT),
                "heard_at": _or_null(MOMENT),
                "age": _or_null(AMOUNT),
                "stale": FLAG,
                "saved": FLAG,
                "error": _or_null(TEXT),
            },
            about="What one registry says; age in seconds, null before its first word.",
        ),
        "Registration": closed(
            {
                "name": TEXT,
                "registry": TEXT,
                "address": _or_null(TEXT),
                "state": one_of(("announced", "unwell", "failing", "withdrawn")),
                "since": MOMENT,
                "registered": FLAG,
                "error": _or_null(TEXT),
            },
            about="A local service that is announced while it is well.",
        ),
    }


def _of_endpoints() -> dict[str, Shape]:
    return {
        "Endpoint": closed(
            {
                "address": TEXT,
                "host": TEXT,
                "port": {"type": "integer", "minimum": 0, "maximum": 65535},
                "weight": {"type": "integer", "minimum": 1, "maximum": 256},
                "zone": TEXT,
                "in_rotation": FLAG,
                "drained": FLAG,
                "in_flight": COUNT,
                "connections": closed({"open": COUNT, "idle": COUNT}),
                "attempts": _counts(_labels(Outcome)),
                "breaker": ref("Breaker"),
                "check": _or_null(ref("Check")),
            }
        ),
        "Breaker": closed(
            {
                "state": _STATE,
                "failures": COUNT,
                "threshold": COUNT,
                "probing": FLAG,
                "retry_in": _or_null(AMOUNT),
                "retry_at": _or_null(MOMENT),
                "held": {"enum": ["checks", "hand", None]},
                "journal": listed(ref("Transition"), maxItems=16),
            },
            about="retry_in, retry_at: seconds until its probe, and the moment of that. held: what keeps it open "
            "whatever requests do.",
        ),
        "Transition": closed(
            {
                "at": MOMENT,
                "to": _STATE,
                "cause": one_of(_labels(Cause)),
                "failures": COUNT,
                "evidence": _or_null(one_of(_labels(Outcome))),
                "open_for": AMOUNT,
                "window": closed({"good": COUNT, "bad": COUNT}),
            }
        ),
        "Check": closed(
            {"at": MOMENT, "ok": _or_null(FLAG), "seconds": AMOUNT, "error": TEXT, "in_a_row": COUNT},
            about="The last health check; ok is null when it could not be made.",
        ),
    }


def _of_calls() -> dict[str, Shape]:
    reasons = {
        "address": TEXT,
        "zone": TEXT,
        "weight": COUNT,
        "in_rotation": FLAG,
        "state": _STATE,
        "since": _or_null(MOMENT),
        "why": TEXT,
        "in_flight": COUNT,
    }
    budget = closed({"ratio": SHARE, "min": COUNT, "requests": COUNT, "retries": COUNT})
    rate = closed({"requests": COUNT, "per": AMOUNT, "burst": COUNT})
    retries = {
        "attempts": COUNT,
        "on": listed(TEXT),
        "elsewhere": TEXT,
        "per_try_timeout": _or_null(AMOUNT),
        "budget": {**budget, "type": ["object", "null"]},
    }
    return {
        "Explanation": closed(
            {
                "name": TEXT,
                "scheme": TEXT,
                "strategy": TEXT,
                "choice": TEXT,
                "panic": _or_null(TEXT),
                "endpoints": listed(closed(reasons)),
                "next": listed(closed({"endpoint": _or_null(TEXT), "why": TEXT}, {"worker": COUNT})),
                "retries": closed(retries),
                "rate_limit": {**rate, "type": ["object", "null"]},
            },
            about="next: of each process; endpoint is null where it is up to chance, or to the request.",
        ),
        "Done": closed(
            {"upstream": TEXT, "action": one_of(ACTIONS), "endpoints": listed(TEXT)},
            about="endpoints: the addresses that it was done to.",
        ),
        "Reloaded": closed({"result": one_of(("reloaded", "unchanged")), "changes": listed(TEXT)}),
        "Ends": closed(
            {"result": {"const": "ending"}, "in_flight": COUNT},
            about="in_flight: requests and sessions that are finished first.",
        ),
        "NotReloaded": closed({"error": TEXT, "status": COUNT, "findings": listed(TEXT)}),
        "Error": closed(
            {"error": TEXT, "status": COUNT}, about="error: what it is, and what to do about it."
        ),
    }


def _of_events(found: dict[str, Shape]) -> dict[str, Shape]:
    """What `/v1/events` tells, beside the history: of the views, what is not another at each moment."""
    endpoint = _without(
        found["Endpoint"],
        breaker=_without(found["Breaker"], retry_in=None),
        check=_or_null(_without(found["Check"], at=None, seconds=None, in_a_row=None)),
    )
    upstream = _without(found["Upstream"], endpoints=listed(endpoint, maxItems=MOST_ENDPOINTS))
    upstream["properties"] |= {
        "registries": listed(_without(found["Registry"], age=None)),
        "endpoints_total": {**COUNT, "description": "there when `endpoints` has only the least well of them"},
        "endpoints_drained": {**COUNT, "description": "there with endpoints_total: of all of them"},
        "endpoints_serving": {**COUNT, "description": "likewise: in rotation and not drained"},
    }
    views = found["Upstreams"]["properties"]
    return {
        "Hello": closed(
            {
                "version": TEXT,
                "mode": TEXT,
                "compiled": FLAG,
                "control": FLAG,
                "actions": listed(one_of(ACTIONS)),
                "interval": AMOUNT,
            },
            about="control: whether actions are allowed. interval: seconds between two states.",
        ),
        "State": closed(
            {
                "at": MOMENT,
                "points": COUNT,
                "draining": FLAG,
                "order": listed(TEXT),
                "upstreams": listed(upstream),
            },
            {name: views[name] for name in ("workers", "registrations")},
            about="points: of the history so far. order: all names. upstreams: those that have changed since the state "
            "before; without seconds from now, and of a check only what it says.",
        ),
    }


def _without(shape: Shape, **others: Shape | None) -> Shape:
    """It with other properties, and without those that are None."""
    left = {name for name, other in others.items() if other is None}
    properties = {**shape["properties"], **{name: other for name, other in others.items() if other}}
    return {
        **shape,
        "properties": {name: one for name, one in properties.items() if name not in left},
        "required": [name for name in shape["required"] if name not in left],
    }


def _of_time() -> dict[str, Shape]:
    points = listed(_or_null(AMOUNT), minItems=POINTS, maxItems=POINTS)
    rates = ("requests", "sessions", "bytes_sent", "bytes_received")
    return {
        "Recent": {
            **closed(
                {
                    "seconds": AMOUNT,
                    **dict.fromkeys(rates, AMOUNT),
                    "errors": _or_null(SHARE),
                    "p50": _or_null(AMOUNT),
                    "p99": _or_null(AMOUNT),
                }
            ),
            "type": ["object", "null"],
            "description": "Of the last so many seconds: rates a second, the share of errors, latencies in seconds; "
            "bytes are those of sessions and tunnels. Null before anything is known.",
        },
        "History": closed(
            {
                "at": MOMENT,
                "interval": AMOUNT,
                "length": {"const": POINTS},
                "points": COUNT,
                "upstreams": {
                    "type": "object",
                    "additionalProperties": closed(
                        dict.fromkeys(("requests", "errors", "p50", "p99"), points)
                    ),
                },
            },
            about="Points of `interval` seconds, the oldest first; at: of the newest; points: so far.",
        ),
    }
