"""The live objects as JSON."""

import json
from typing import Any

from support.clock import FakeClock

from sidecar.admin.views import upstreams_view
from sidecar.cluster import Cluster
from sidecar.errors import Reason
from sidecar.model import (
    CheckResult,
    CloseReason,
    Endpoint,
    Limit,
    Outcome,
    Snapshot,
    UpstreamPolicy,
    WorkerCounts,
)
from sidecar.model.registry import Registered, RegistrationStatus
from sidecar.proxy.router import Route, Routes
from sidecar.version import __version__

POLICY = UpstreamPolicy(
    breaker_threshold=2, breaker_open_for=4.0, breaker_jitter=0.0, max_connections=10, max_pending=20
)


def _cluster(clock: FakeClock, name: str = "api", scheme: str = "http") -> Cluster:
    cluster = Cluster(name, scheme, POLICY, clock)
    cluster.apply(Snapshot(name, (Endpoint("::1", 80, weight=3), Endpoint("b.example", 81)), "static"))
    return cluster


def _view(cluster: Cluster, clock: FakeClock) -> dict[str, Any]:
    view = upstreams_view(
        {cluster.name: cluster}, clock, mode="local", compiled=True, started_at=0.0, draining=False
    )
    (upstream,) = json.loads(json.dumps(view))["upstreams"]  # JSON takes it, and takes nothing away
    assert isinstance(upstream, dict)
    return upstream


def test_the_top_says_what_answers() -> None:
    clock = FakeClock(now=1000.0, epoch=1_700_000_000.0)
    view = upstreams_view(
        {}, clock, mode="distributed", compiled=False, started_at=1_700_000_000.0, draining=True
    )
    assert view == {
        "version": __version__,
        "compiled": False,
        "mode": "distributed",
        "at": "2023-11-14T22:30:00.000Z",
        "started_at": "2023-11-14T22:13:20.000Z",
        "draining": True,
        "upstreams": [],
    }


def test_several_workers_are_named() -> None:
    workers = WorkerCounts(4)
    workers.running, workers.restarts = 3, 7
    view = upstreams_view(
        {}, FakeClock(), mode="local", compiled=True, started_at=0.0, draining=False, workers=workers
    )
    assert view["workers"] == {"configured": 4, "running": 3, "leaving": 0, "silent": 0, "restarts": 7}


def test_what_is_announced_is_shown_where_anything_is() -> None:
    clock = FakeClock(now=1000.0, epoch=1_700_000_000.0)
    statuses = (
        RegistrationStatus("api", "etcd", "10.0.0.7:80", "announced", "", 999.0, registered=True),
        RegistrationStatus("web", "consul", "", "failing", "no leader", 998.5, registered=False),
    )
    view = upstreams_view(
        {},
        clock,
        mode="local",
        compiled=True,
        started_at=0.0,
        draining=False,
        registered=Registered(statuses),
    )
    assert json.loads(json.dumps(view["registrations"])) == [
        {
            "name": "api",
            "registry": "etcd",
            "address": "10.0.0.7:80",
            "state": "announced",
            "since": "2023-11-14T22:29:59.000Z",
            "registered": True,
            "error": None,
        },
        {
            "name": "web",
            "registry": "consul",
            "address": None,
            "state": "failing",
            "since": "2023-11-14T22:29:58.500Z",
            "registered": False,
            "error": "no leader",
        },
    ]
    nothing = upstreams_view(
        {}, clock, mode="local", compiled=True, started_at=0.0, draining=False, registered=Registered()
    )
    assert "registrations" not in nothing


def test_an_upstream_that_has_done_nothing() -> None:
    clock = FakeClock()
    upstream = _view(_cluster(clock), clock)
    endpoints = upstream.pop("endpoints")
    assert upstream == {
        "name": "api",
        "scheme": "http",
        "strategy": "round_robin",
        "source": "static",
        "panic": False,
        "leaving": False,
        "requests": {"total": 0, "by_class": {}, "by_reason": {}},
        "retries": {"failed": 0, "succeeded": 0, "refused": 0, "active": 0},
        "hedges": {"lost": 0, "won": 0},
        "deadlines": {"header": None, "exceeded": 0},
        "in_flight": 0,
        "pending": 0,
        "sessions": {"active": 0, "total": 0, "by_reason": {}},
        "bytes": {"sent": 0, "received": 0},
        "overflows": {"total": 0, "by_limit": {}},
        "limits": {
            "connections": 10,
            "connections_used": 0,
            "connections_per_endpoint": None,
            "connections_per_endpoint_used": 0,
            "pending": 20,
            "pending_used": 0,
            "pending_timeout": 1.0,
            "in_flight": None,
            "in_flight_used": 0,
        },
        "recent": None,
    }
    assert [endpoint["address"] for endpoint in endpoints] == ["[::1]:80", "b.example:81"]
    assert endpoints[0] == {
        "address": "[::1]:80",
        "host": "::1",
        "port": 80,
        "weight": 3,
        "zone": "",
        "in_rotation": True,
        "drained": False,
        "in_flight": 0,
        "connections": {"open": 0, "idle": 0},
        "attempts": {},
        "breaker": {
            "state": "closed",
            "failures": 0,
            "threshold": 2,
            "probing": False,
            "retry_in": None,
            "retry_at": None,
            "held": None,
            "journal": [],
        },
        "check": None,
    }


def test_counters_are_summed_over_what_is_not_shown() -> None:
    clock = FakeClock()
    cluster = _cluster(clock)
    stats = cluster.stats
    stats.count_request(0, 200, Reason.NONE, 0.1)
    stats.count_request(1, 204, Reason.NONE, 0.1)
    stats.count_request(0, 503, Reason.ALL_OPEN, 0.1)
    stats.retries[Reason.CONNECT_REFUSED] = [1, 2]
    stats.retries[Reason.CONNECT_TIMEOUT] = [3, 4]
    stats.retries_refused = 8
    stats.retries_active = 9
    stats.hedges[:] = [10, 11]
    stats.overflows[Limit.PENDING] = 3
    stats.overflows[Limit.IN_FLIGHT] = 2
    stats.in_flight = 6
    cluster.limit.used = 7
    cluster.limit.pending.append(None)  # type: ignore[arg-type]
    upstream = _view(cluster, clock)
    assert upstream["requests"] == {
        "total": 3,
        "by_class": {"2xx": 2, "5xx": 1},
        "by_reason": {"none": 2, "all_open": 1},
    }
    assert upstream["retries"] == {"failed": 4, "succeeded": 6, "refused": 8, "active": 9}
    assert upstream["hedges"] == {"lost": 10, "won": 11}
    assert upstream["overflows"] == {"total": 5, "by_limit": {"pending": 3, "in_flight": 2}}
    assert upstream["in_flight"] == 6
    assert upstream["limits"]["connections_used"] == 7
    assert upstream["pending"] == upstream["limits"]["pending_used"] == 1


def test_limits_show_what_is_used_of_them() -> None:
    clock = FakeClock()
    policy = UpstreamPolicy(max_connections_per_endpoint=4, pending_timeout=2.5, max_in_flight=9)
    cluster = Cluster("api", "http", policy, clock)
    cluster.apply(Snapshot("api", (Endpoint("a", 80), Endpoint("b", 80)), "static"))
    for state, opened in zip(cluster.endpoints.values(), (1, 3), strict=True):
        state.pool.open = opened
    cluster.stats.in_flight, cluster.stats.sessions_active = 5, 2
    limits = _view(cluster, clock)["limits"]
    assert (limits["connections_per_endpoint"], limits["connections_per_endpoint_used"]) == (4, 3)
    assert limits["pending_timeout"] == 2.5
    assert (limits["in_flight"], limits["in_flight_used"]) == (9, 7), "a tunnel is what a request has become"
    assert (
        _view(Cluster("none", "http", policy, clock), clock)["limits"]["connections_per_endpoint_used"] == 0
    )


def test_sessions_of_a_connection_upstream() -> None:
    clock = FakeClock()
    cluster = _cluster(clock, "redis", "redis")
    cluster.stats.sessions[CloseReason.CLIENT_CLOSED] = 3
    cluster.stats.sessions[CloseReason.CONNECT_FAILED] = 1
    cluster.stats.sessions_active = 2
    cluster.stats.bytes_sent = 10
    cluster.stats.bytes_received = 20
    upstream = _view(cluster, clock)
    assert upstream["sessions"] == {
        "active": 2,
        "total": 4,
        "by_reason": {"client_closed": 3, "connect_failed": 1},
    }
    assert upstream["bytes"] == {"sent": 10, "received": 20}


def test_an_endpoint_counts_attempts_and_connections() -> None:
    clock = FakeClock()
    cluster = _cluster(clock)
    state = cluster.endpoints["b.example", 81]
    state.attempts[Outcome.SUCCESS] = 2
    state.attempts[Outcome.RESET] = 1
    state.in_flight = 4
    state.pool.open = 3
    state.pool.idle.append(None)  # type: ignore[arg-type]
    endpoint = _view(cluster, clock)["endpoints"][1]
    assert endpoint["attempts"] == {"success": 2, "reset": 1}
    assert endpoint["in_flight"] == 4
    assert endpoint["connections"] == {"open": 3, "idle": 1}


def test_a_breaker_shows_its_evidence_in_wall_time_and_its_deadline_in_seconds() -> None:
    clock = FakeClock(now=1000.0, epoch=1_700_000_000.0 - 1000.0)
    cluster = _cluster(clock)
    state = cluster.endpoints["::1", 80]
    for outcome in (Outcome.RESET, Outcome.CONNECT_REFUSED):
        cluster.report(state, outcome, clock.monotonic(), state.breaker.permit)
    clock.advance(1.5)
    breaker = _view(cluster, clock)["endpoints"][0]["breaker"]
    opening = {
        "at": "2023-11-14T22:13:20.000Z",
        "to": "open",
        "cause": "consecutive_failures",
        "failures": 2,
        "evidence": "connect_refused",
        "open_for": 4.0,
        "window": {"good": 0, "bad": 2},
    }
    assert breaker["state"] == "open"
    assert breaker["retry_in"] == 2.5
    assert breaker["retry_at"] == "2023-11-14T22:13:24.000Z"
    assert breaker["journal"] == [opening]

    clock.advance(10.0)
    assert _view(cluster, clock)["endpoints"][0]["breaker"]["retry_in"] == 0.0
    assert cluster.pick(clock.monotonic()) is state
    breaker = _view(cluster, clock)["endpoints"][0]["breaker"]
    assert breaker["state"] == "half_open"
    assert breaker["probing"] is True
    assert breaker["retry_in"] is None
    assert breaker["journal"] == [
        opening,
        {
            "at": "2023-11-14T22:13:31.500Z",
            "to": "half_open",
            "cause": "open_time_over",
            "failures": 2,
            "evidence": None,
            "open_for": 0.0,
            "window": {"good": 0, "bad": 0},
        },
    ]


def test_a_stepped_wall_clock_moves_the_past_and_not_the_deadlines() -> None:
    clock = FakeClock(epoch=0.0)
    cluster = _cluster(clock)
    for _ in range(2):
        state = cluster.endpoints["::1", 80]
        cluster.report(state, Outcome.RESET, clock.monotonic(), state.breaker.permit)
    clock.epoch += 3600.0
    breaker = _view(cluster, clock)["endpoints"][0]["breaker"]
    assert breaker["retry_in"] == 4.0
    assert breaker["journal"][0]["at"] == "1970-01-01T01:16:40.000Z"


def test_what_holds_an_endpoint_out_of_rotation_is_named() -> None:
    clock = FakeClock()
    cluster = _cluster(clock)
    one, two = cluster.endpoints.values()
    cluster.trip([one], clock.now)
    cluster.check(two, False, clock.now)
    found = [
        (endpoint["in_rotation"], endpoint["breaker"]["held"], endpoint["breaker"]["retry_in"])
        for endpoint in _view(cluster, clock)["endpoints"]
    ]
    assert found == [(False, "hand", None), (False, "checks", None)]


def test_the_last_check_and_what_it_holds_open() -> None:
    clock = FakeClock(now=1000.0, epoch=1_700_000_000.0 - 1000.0)
    cluster = _cluster(clock)
    state = cluster.endpoints["::1", 80]
    state.last_check = CheckResult(clock.monotonic(), False, 0.25, "status 503, not 200-299", 3)
    cluster.check(state, False, clock.monotonic())
    endpoint = _view(cluster, clock)["endpoints"][0]
    assert endpoint["check"] == {
        "at": "2023-11-14T22:13:20.000Z",
        "ok": False,
        "seconds": 0.25,
        "error": "status 503, not 200-299",
        "in_a_row": 3,
    }
    assert (endpoint["breaker"]["state"], endpoint["breaker"]["held"]) == ("open", "checks")
    assert endpoint["breaker"]["retry_in"] is None, "no request is sent to see whether it has recovered"
    state.breaker.reset(clock.monotonic())
    state.breaker.trip(clock.monotonic())
    assert _view(cluster, clock)["endpoints"][0]["breaker"]["held"] == "hand"


def test_a_lazy_view_looks_at_each_upstream_when_it_is_its_turn() -> None:
    clock = FakeClock()
    clusters = {name: Cluster(name, "http", UpstreamPolicy(), clock) for name in ("a", "b")}
    view = upstreams_view(
        clusters, clock, mode="local", compiled=True, started_at=0.0, draining=False, lazy=True
    )
    assert list(next(view["upstreams"])["endpoints"]) == []
    clusters["b"].apply(Snapshot("b", (Endpoint("10.0.0.1", 80),), "static"))
    clusters["c"] = clusters.pop("a")
    (second,) = view["upstreams"]
    assert [endpoint["address"] for endpoint in second["endpoints"]] == ["10.0.0.1:80"]


def test_a_router_says_where_it_sends_requests() -> None:
    clock = FakeClock()
    router, api = Cluster("front", "http", POLICY, clock), _cluster(clock)
    routes = [
        Route(
            0,
            [(api, 95), (_cluster(clock, "next"), 5)],
            b"*.example",
            b"/v1/",
            [2, 0],
            [(b"x-key", b"secret")],
        ),
        Route(1, [(api, 1)]),
    ]
    router.router = Routes(router, routes, clock.uniform)
    router.stats.routed[0, "next"] = 3
    view = _view(router, clock)
    assert view["endpoints"] == []
    assert view["routes"] == [
        {
            "host": "*.example",
            "path": "/v1/",
            "methods": ["GET", "POST"],
            "headers": ["x-key"],
            "to": [
                {"upstream": "api", "weight": 95, "requests": 0},
                {"upstream": "next", "weight": 5, "requests": 3},
            ],
        },
        {
            "host": "",
            "path": "/",
            "methods": [],
            "headers": [],
            "to": [{"upstream": "api", "weight": 1, "requests": 0}],
        },
    ]
    assert "routes" not in _view(api, clock)
