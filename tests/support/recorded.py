"""Answers of `/upstreams` as several sidecars in several situations give them, for whatever draws them."""

from typing import Any

__all__ = ["HISTORY", "HOSTILE", "SCENES", "endpoint", "upstream", "view"]

RECENT = {
    "seconds": 5.0,
    "requests": 123.4,
    "errors": 0.0,
    "p50": 0.00123,
    "p99": 0.0456,
    "sessions": 0.0,
    "bytes_sent": 0.0,
    "bytes_received": 0.0,
}
IDLE = {**RECENT, "requests": 0.0, "errors": None, "p50": None, "p99": None}

# What must not reach a terminal, or be taken for mark-up: colours, a title, a bell, an override of the direction.
HOSTILE = "[bold red]x[/] \x1b[31m\x1b]0;title\x07 \u202e \N{CJK UNIFIED IDEOGRAPH-6D4B}\n"


def _move(to: str, cause: str, evidence: str | None = None) -> dict[str, Any]:
    return {
        "at": "2026-01-01T00:00:00.000Z",
        "to": to,
        "cause": cause,
        "failures": 5,
        "evidence": evidence,
        "open_for": 2.0,
        "window": {"good": 20, "bad": 5},
    }


def endpoint(address: str = "10.0.0.1:8080", state: str = "closed", **changes: Any) -> dict[str, Any]:
    """One endpoint whose breaker is in `state`; `drained`, `held` and so on as given."""
    journal = [] if state == "closed" else [_move("open", "consecutive_failures", "reset")]
    breaker = {
        "state": state,
        "failures": 0 if state == "closed" else 5,
        "threshold": 5,
        "probing": False,
        "retry_in": 12.3 if state == "open" and not changes.get("held") else None,
        "held": changes.pop("held", None),
        "journal": journal,
    }
    host, _, port = address.rpartition(":")
    return {
        "address": address,
        "host": host,
        "port": int(port),
        "weight": 1,
        "zone": "",
        "in_rotation": state == "closed" and not changes.get("drained"),
        "drained": False,
        "in_flight": 3,
        "connections": {"open": 4, "idle": 1},
        "attempts": {"success": 1234} if state == "closed" else {"success": 20, "reset": 5, "idle_race": 1},
        "breaker": breaker,
        "check": None,
        **changes,
    }


def upstream(name: str = "api", *endpoints: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """One upstream with traffic; without `endpoints`, two that are well."""
    return {
        "name": name,
        "scheme": "http",
        "strategy": "round_robin",
        "source": "static",
        "panic": False,
        "leaving": False,
        "requests": {"total": 5000, "by_class": {"2xx": 5000}, "by_reason": {"none": 5000}},
        "retries": {"failed": 1, "succeeded": 4, "refused": 0, "active": 0},
        "hedges": {"lost": 0, "won": 0},
        "deadlines": {"header": None, "exceeded": 0},
        "in_flight": 6,
        "pending": 0,
        "sessions": {"active": 0, "total": 0, "by_reason": {}},
        "bytes": {"sent": 0, "received": 0},
        "overflows": {"total": 0, "by_limit": {}},
        "limits": {},
        "recent": RECENT,
        "endpoints": list(endpoints) or [endpoint("10.0.0.1:8080"), endpoint("10.0.0.2:8080")],
        **changes,
    }


def view(*upstreams: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A whole answer."""
    return {
        "version": "0.1.0",
        "mode": "distributed",
        "draining": False,
        "upstreams": list(upstreams),
        **changes,
    }


def _feed(**changes: Any) -> dict[str, Any]:
    return {
        "source": "consul",
        "endpoints": 2,
        "heard_at": "2026-01-01T00:00:00.000Z",
        "age": 200.0,
        "stale": True,
        "saved": False,
        "error": "GET http://[::1]:8500/v1/health/service/api: connection refused",
        **changes,
    }


WORKERS = {"configured": 4, "running": 3, "leaving": 1, "silent": 0, "restarts": 2}
REGISTRATION = {
    "name": "backend",
    "registry": "consul",
    "address": "10.0.0.9:8001",
    "state": "unwell",
    "since": "2026-01-01T00:00:00.000Z",
    "registered": False,
    "error": "connection refused",
}
_DOWN = [endpoint(f"10.0.0.{number}:8080", "open") for number in range(1, 4)]

SCENES: dict[str, dict[str, Any]] = {
    "healthy": view(upstream("api"), upstream("backend", recent=IDLE, in_flight=0)),
    "outage": view(
        upstream(
            "api",
            endpoint("10.0.0.1:8080"),
            endpoint("api-02.autobot.prod:8080", "open"),
            endpoint("[fe80::1]:8080", "half_open"),
            recent={**RECENT, "errors": 0.0312},
            pending=7,
        ),
        upstream("down", *_DOWN, recent={**RECENT, "errors": 1.0}),
        upstream("empty", endpoints=[]),
    ),
    "panic": view(upstream("api", *[{**one, "in_rotation": True} for one in _DOWN], panic=True)),
    "checks": view(
        upstream(
            "api",
            endpoint("10.0.0.1:8080"),
            endpoint("10.0.0.2:8080", "open", held="checks", check={"ok": False, "error": "status 503"}),
            endpoint("10.0.0.3:8080", "open", held="hand"),
        )
    ),
    "stale registry": view(upstream("api", registries=[_feed()]), registrations=[REGISTRATION]),
    "drained": view(
        upstream("api", endpoint("10.0.0.1:8080"), endpoint("10.0.0.2:8080", drained=True)),
        upstream("gone", endpoint("10.0.0.3:8080", drained=True)),
        draining=True,
    ),
    "workers": view(
        upstream("api"),
        workers=WORKERS,
        compiled=True,
        at="2026-01-01T02:05:00.000Z",
        started_at="2026-01-01T00:00:00.000Z",
    ),
    "tcp only": view(
        upstream(
            "redis",
            scheme="redis",
            recent={**IDLE, "sessions": 2.5, "errors": 0.0, "bytes_sent": 1536.0, "bytes_received": 5e6},
            in_flight=0,
            sessions={"active": 12, "total": 30, "by_reason": {"client_closed": 18}},
        )
    ),
    "many": view(*(upstream(f"service-{number:03d}") for number in range(200))),
    "hostile": view(
        upstream(HOSTILE, endpoint(f"{HOSTILE}:80", "open"), source=HOSTILE),
        upstream("a" * 64, endpoint("b" * 100 + ".example:8080", "open")),
        upstream("\N{CJK UNIFIED IDEOGRAPH-6D4B}" * 30, registries=[_feed(source=HOSTILE, error=HOSTILE)]),
        mode=HOSTILE,
        version=HOSTILE,
        registrations=[{**REGISTRATION, "name": HOSTILE, "error": HOSTILE, "state": HOSTILE}],
    ),
    "nulls": view(
        upstream("api", recent=None),
        upstream("web", recent={**dict.fromkeys(RECENT), "seconds": 5.0}),
    ),
    "nothing known": view(
        {}, {"name": "x", "endpoints": [{}, {"breaker": None}]}, {"name": 3, "endpoints": "no"}
    ),
    "no upstreams": view(),
}

HISTORY: dict[str, Any] = {
    "at": "2026-01-01T00:00:00.000Z",
    "interval": 5,
    "length": 120,
    "upstreams": {
        name: {
            "requests": [None] * 60 + [float(point) for point in range(60)],
            "errors": [],
            "p50": [],
            "p99": [],
        }
        for name in ("api", "backend", "down")
    },
}
