"""The exposition, read back with prometheus_client's own parser."""

from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.clock import FakeClock

from sidecar.cluster import Cluster
from sidecar.errors import Reason
from sidecar.model import (
    AdminCounts,
    CheckCounts,
    CloseReason,
    Endpoint,
    Limit,
    Outcome,
    RecordingCounts,
    ReloadCounts,
    Snapshot,
    UpstreamPolicy,
)
from sidecar.model.registry import Registered, RegistrationStatus
from sidecar.model.stats import METHODS, RETRY_REASONS
from sidecar.observe.exposition import PART
from sidecar.observe.metrics import Metrics
from sidecar.proxy.front import Front
from sidecar.proxy.router import Route, Routes
from sidecar.version import __version__

Samples = dict[str, dict[tuple[tuple[str, str], ...], float]]

# Every sample name that may appear, with its labels: the contract of dashboards and alerts.
CONTRACT = {
    "sidecar_requests_total": {"upstream", "method", "code_class", "reason"},
    "sidecar_request_duration_seconds_bucket": {"upstream", "code_class", "le"},
    "sidecar_request_duration_seconds_count": {"upstream", "code_class"},
    "sidecar_request_duration_seconds_sum": {"upstream", "code_class"},
    "sidecar_requests_in_flight": {"upstream"},
    "sidecar_queue_length": {"upstream"},
    "sidecar_queue_limit": {"upstream"},
    "sidecar_attempts_total": {"upstream", "endpoint", "outcome"},
    "sidecar_retries_total": {"upstream", "reason", "result"},
    "sidecar_connections_active": {"upstream", "endpoint"},
    "sidecar_connections_limit": {"upstream"},
    "sidecar_connections_opened_total": {"upstream", "result"},
    "sidecar_connection_reuse_failures_total": {"upstream"},
    "sidecar_connections_per_endpoint_limit": {"upstream"},
    "sidecar_in_flight_limit": {"upstream"},
    "sidecar_overflows_total": {"upstream", "limit"},
    "sidecar_tcp_sessions_total": {"upstream", "close_reason"},
    "sidecar_tcp_sessions_active": {"upstream"},
    "sidecar_tcp_bytes_total": {"upstream", "direction"},
    "sidecar_breaker_state": {"upstream", "endpoint", "state"},
    "sidecar_breaker_transitions_total": {"upstream", "endpoint", "to", "cause"},
    "sidecar_endpoints": {"upstream", "state"},
    "sidecar_endpoints_drained": {"upstream"},
    "sidecar_upstream_panic": {"upstream"},
    "sidecar_build_info": {"version", "compiled", "python"},
    "sidecar_draining": set(),
    "sidecar_clients": set(),
    "sidecar_clients_limit": set(),
    "sidecar_clients_refused_total": set(),
    "sidecar_pipes": set(),
    "sidecar_deadlines_exceeded_total": {"upstream"},
    "sidecar_routed_requests_total": {"router", "route", "upstream"},
    "sidecar_mirrored_requests_total": {"upstream", "result"},
    "sidecar_retries_active": {"upstream"},
    "sidecar_retries_refused_total": {"upstream"},
    "sidecar_pipes_limit": set(),
    "sidecar_hedges_total": {"upstream", "result"},
    "sidecar_health_checks_total": {"upstream", "result"},
    "sidecar_health_checks_running": set(),
    "sidecar_health_checks_limit": set(),
    "sidecar_access_log_lines_total": {"result"},
    "sidecar_access_log_errors_total": set(),
    "sidecar_spans_total": {"result"},
    "sidecar_tls_failures_total": {"upstream", "side", "reason"},
    "sidecar_tls_reloads_total": {"upstream", "side", "result"},
    "sidecar_tls_certificate_expiry_timestamp_seconds": {"upstream", "side"},
}


def _cluster(
    name: str = "api", scheme: str = "http", ports: tuple[int, ...] = (1, 2), *, checked: bool = False
) -> Cluster:
    policy = UpstreamPolicy(
        breaker_threshold=1,
        max_connections=10,
        max_connections_per_endpoint=6,
        max_pending=20,
        max_in_flight=30,
        hedge_after=0.1,
        checked=checked,
    )
    cluster = Cluster(name, scheme, policy, FakeClock())
    cluster.apply(Snapshot(name, tuple(Endpoint("10.0.0.1", port) for port in ports), "static"))
    return cluster


def _context(**values: Any) -> Any:
    return SimpleNamespace(
        **{
            "draining": False,
            "clients": 3,
            "max_clients": 100,
            "refused": 2,
            "pipes": (3, 96),
            "checks": CheckCounts(),
            "recording": RecordingCounts(),
            **values,
        }
    )


def _scrape(*clusters: Cluster, context: Any = None, compiled: bool = False) -> Samples:
    metrics = Metrics({cluster.name: cluster for cluster in clusters}, context, compiled=compiled)
    found: Samples = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            series = found.setdefault(sample.name, {})
            labels = tuple(sorted(sample.labels.items()))
            assert labels not in series, f"{sample.name}{labels} twice"
            series[labels] = sample.value
    return found


def _value(found: Samples, name: str, **labels: str) -> float:
    return found[f"sidecar_{name}"][tuple(sorted(labels.items()))]


def _busy() -> tuple[Cluster, ...]:
    """An upstream of each kind with something in every counter."""
    api, redis = _cluster(checked=True), _cluster("redis", "redis", (6379,))
    api.stats.count_request(METHODS.index("GET"), 200, Reason.NONE, 0.0025)
    api.stats.retries[Reason.CONNECT_REFUSED][1] = 4
    state = api.endpoints["10.0.0.1", 1]
    api.report(state, Outcome.RESET, 1000.0, state.breaker.permit)
    redis.stats.sessions[CloseReason.CLIENT_CLOSED] = 5
    api.stats.mirrored[0] = 1
    secured = _cluster("vault", "tls")
    secured.stats.tls_expiry[0] = 2000.0
    return api, redis, secured


def _router(target: Cluster) -> Cluster:
    """What shares its requests out, and has nothing else."""
    router = Cluster("front", "http", UpstreamPolicy(), FakeClock())
    router.router = Routes(router, [Route(0, [(target, 95)]), Route(1, [(target, 1)])], FakeClock().uniform)
    return router


def test_names_and_labels_are_the_contract() -> None:
    api, *others = _busy()
    found = _scrape(api, *others, _router(api), context=_context())
    assert {
        name: {label for label, _ in labels} for name, series in found.items() for labels in series
    } == CONTRACT


def test_requests_are_counted_by_method_class_and_reason() -> None:
    cluster = _cluster()
    for _ in range(3):
        cluster.stats.count_request(METHODS.index("POST"), 201, Reason.NONE, 0.1)
    cluster.stats.count_request(METHODS.index("OTHER"), 503, Reason.ALL_OPEN, 0.1)
    found = _scrape(cluster)
    assert found["sidecar_requests_total"] == {
        (("code_class", "2xx"), ("method", "POST"), ("reason", "none"), ("upstream", "api")): 3,
        (("code_class", "5xx"), ("method", "OTHER"), ("reason", "all_open"), ("upstream", "api")): 1,
    }


def test_durations_are_cumulative_buckets_with_sum_and_count() -> None:
    cluster = _cluster()
    for seconds in (0.001, 0.002, 0.3, 60.0):  # a bound belongs to its bucket
        cluster.stats.count_request(0, 200, Reason.NONE, seconds)
    found = _scrape(cluster)
    buckets = {
        dict(labels)["le"]: count
        for labels, count in found["sidecar_request_duration_seconds_bucket"].items()
    }
    assert buckets == {
        "0.001": 1,
        **dict.fromkeys(("0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25"), 2),
        **dict.fromkeys(("0.5", "1.0", "2.5", "10.0"), 3),
        "+Inf": 4,
    }
    assert _value(found, "request_duration_seconds_count", upstream="api", code_class="2xx") == 4
    assert _value(found, "request_duration_seconds_sum", upstream="api", code_class="2xx") == pytest.approx(
        60.303
    )


def test_a_router_has_requests_and_routes_and_nothing_of_endpoints() -> None:
    api = _cluster()
    router = _router(api)
    router.stats.routed[0, "api"] = 7
    router.stats.count_request(0, 404, Reason.NO_ROUTE, 0.001)
    found = _scrape(api, router)
    assert {name for name, series in found.items() if (("upstream", "front"),) in series} == {
        "sidecar_requests_in_flight",
        "sidecar_retries_active",
        "sidecar_retries_refused_total",
        "sidecar_deadlines_exceeded_total",
        "sidecar_connection_reuse_failures_total",
    }
    for name in ("endpoints", "upstream_panic", "queue_limit", "connections_opened_total", "overflows_total"):
        assert all(("upstream", "front") not in labels for labels in found[f"sidecar_{name}"])
    assert _value(found, "routed_requests_total", router="front", route="0", upstream="api") == 7
    assert _value(found, "routed_requests_total", router="front", route="1", upstream="api") == 0


def test_copies_are_told_of_where_there_is_a_mirror() -> None:
    api, web, redis = _cluster(), _cluster("web"), _cluster("redis")
    api.front = Front(mirror=SimpleNamespace())  # type: ignore[arg-type] # nobody asks it
    web.front = Front()
    redis.stats.mirrored[2] = 4  # as the supervisor of several workers has it, which has no mirrors
    found = _scrape(api, web, redis)["sidecar_mirrored_requests_total"]
    assert {(dict(labels)["upstream"], dict(labels)["result"], count) for labels, count in found.items()} == {
        *(("api", result, 0) for result in ("sent", "dropped", "skipped")),
        ("redis", "sent", 0),
        ("redis", "dropped", 0),
        ("redis", "skipped", 4),
    }


def test_gauges_and_bounds_of_an_upstream() -> None:
    cluster = _cluster()
    cluster.stats.in_flight = 7
    cluster.stats.overflows[Limit.PENDING_TIMEOUT] = 2
    cluster.stats.reuse_failures = 3
    cluster.stats.deadlines_exceeded = 4
    cluster.limit.pending.extend([None, None])  # type: ignore[list-item]
    found = _scrape(cluster)
    assert _value(found, "requests_in_flight", upstream="api") == 7
    overflows = {dict(labels)["limit"]: count for labels, count in found["sidecar_overflows_total"].items()}
    assert overflows == {
        "connections": 0,
        "connections_per_endpoint": 0,
        "pending": 0,
        "pending_timeout": 2,
        "in_flight": 0,
        "descriptors": 0,
    }
    assert _value(found, "connection_reuse_failures_total", upstream="api") == 3
    assert _value(found, "deadlines_exceeded_total", upstream="api") == 4
    assert _value(found, "queue_length", upstream="api") == 2
    assert _value(found, "queue_limit", upstream="api") == 20
    assert _value(found, "connections_limit", upstream="api") == 10
    assert _value(found, "connections_per_endpoint_limit", upstream="api") == 6
    assert _value(found, "in_flight_limit", upstream="api") == 30


def test_a_bound_that_is_off_has_no_series() -> None:
    cluster = Cluster("api", "http", UpstreamPolicy(), FakeClock())
    found = _scrape(cluster)
    assert "sidecar_connections_per_endpoint_limit" not in found
    assert "sidecar_in_flight_limit" not in found
    assert "sidecar_hedges_total" not in found


def test_retries_and_connects_are_there_before_the_first() -> None:
    cluster = _cluster()
    cluster.stats.retries[Reason.CONNECT_TIMEOUT] = [5, 6]
    cluster.stats.connects = [7, 8, 9, 10]
    found = _scrape(cluster)
    retries = {(dict(k)["reason"], dict(k)["result"]): v for k, v in found["sidecar_retries_total"].items()}
    assert retries == {
        ("bad_response", "failed"): 0,
        ("bad_response", "succeeded"): 0,
        ("request_timeout", "failed"): 0,
        ("request_timeout", "succeeded"): 0,
        ("connect_refused", "failed"): 0,
        ("connect_refused", "succeeded"): 0,
        ("connect_timeout", "failed"): 5,
        ("connect_timeout", "succeeded"): 6,
        ("reset_before_headers", "failed"): 0,
        ("reset_before_headers", "succeeded"): 0,
    }
    results = {dict(k)["result"]: v for k, v in found["sidecar_connections_opened_total"].items()}
    assert results == {"established": 7, "refused": 8, "timeout": 9, "tls": 10}


def test_tls_is_told_of_the_sides_that_have_it() -> None:
    vault, web = _cluster("vault", "tls"), _cluster("web")
    vault.stats.tls_failures[0] = [1, 2, 3, 4]
    vault.stats.tls_reloads[0] = [5, 6]
    web.stats.tls_expiry[1] = 2000.0
    web.stats.tls_failures[1][3] = 7
    found = _scrape(vault, web, _cluster())
    failures = {
        (dict(k)["upstream"], dict(k)["side"], dict(k)["reason"]): v
        for k, v in found["sidecar_tls_failures_total"].items()
    }
    assert failures == {
        ("vault", "endpoint", "tls_expired"): 1,
        ("vault", "endpoint", "tls_wrong_host"): 2,
        ("vault", "endpoint", "tls_unknown_ca"): 3,
        ("vault", "endpoint", "tls_failed"): 4,
        ("web", "listener", "tls_expired"): 0,
        ("web", "listener", "tls_wrong_host"): 0,
        ("web", "listener", "tls_unknown_ca"): 0,
        ("web", "listener", "tls_failed"): 7,
    }
    assert _value(found, "tls_reloads_total", upstream="vault", side="endpoint", result="success") == 5
    assert _value(found, "tls_reloads_total", upstream="vault", side="endpoint", result="failure") == 6
    assert found["sidecar_tls_certificate_expiry_timestamp_seconds"] == {
        (("side", "listener"), ("upstream", "web")): 2000.0
    }


def test_retries_of_failed_handshakes_are_told_of_upstreams_with_tls() -> None:
    cluster = _cluster("vault", "https")
    cluster.stats.retries[Reason.TLS_EXPIRED] = [1, 2]
    found = _scrape(cluster, _cluster())
    assert _value(found, "retries_total", upstream="vault", reason="tls_expired", result="succeeded") == 2
    assert _value(found, "retries_total", upstream="vault", reason="tls_failed", result="failed") == 0
    assert {dict(k)["reason"] for k in found["sidecar_retries_total"] if dict(k)["upstream"] == "api"} == {
        reason.label for reason in RETRY_REASONS
    }


def test_nothing_is_told_of_tls_where_all_is_in_the_clear() -> None:
    assert not [name for name in _scrape(_cluster()) if "tls" in name]


def test_attempts_and_connections_are_per_endpoint() -> None:
    cluster = _cluster()
    first, second = cluster.endpoints.values()
    first.attempts[Outcome.SUCCESS] = 11
    first.attempts[Outcome.BAD_RESPONSE] = 1
    first.pool.open = 4
    found = _scrape(cluster)
    attempts = {
        (dict(k)["endpoint"], dict(k)["outcome"]): v for k, v in found["sidecar_attempts_total"].items()
    }
    assert attempts == {
        ("10.0.0.1:1", "success"): 11,
        ("10.0.0.1:1", "bad_response"): 1,
        ("10.0.0.1:2", "success"): 0,
    }
    assert _value(found, "connections_active", upstream="api", endpoint="10.0.0.1:1") == 4
    assert _value(found, "connections_active", upstream="api", endpoint=second.endpoint.address) == 0


def test_breakers_are_one_hot_and_their_moves_counted() -> None:
    cluster = _cluster()
    first = cluster.endpoints["10.0.0.1", 1]
    cluster.report(first, Outcome.RESET, 1000.0, first.breaker.permit)
    found = _scrape(cluster)
    states = {(dict(k)["endpoint"], dict(k)["state"]): v for k, v in found["sidecar_breaker_state"].items()}
    assert states == {
        ("10.0.0.1:1", "closed"): 0,
        ("10.0.0.1:1", "open"): 1,
        ("10.0.0.1:1", "half_open"): 0,
        ("10.0.0.1:2", "closed"): 1,
        ("10.0.0.1:2", "open"): 0,
        ("10.0.0.1:2", "half_open"): 0,
    }
    move = {"upstream": "api", "endpoint": "10.0.0.1:1", "to": "open", "cause": "consecutive_failures"}
    assert _value(found, "breaker_transitions_total", **move) == 1
    endpoints = {dict(k)["state"]: v for k, v in found["sidecar_endpoints"].items()}
    assert endpoints == {"closed": 1, "open": 1, "half_open": 0}

    assert cluster.pick(1002.0) is first
    found = _scrape(cluster)
    assert _value(found, "breaker_state", upstream="api", endpoint="10.0.0.1:1", state="half_open") == 1


def test_sessions_are_those_of_connection_upstreams_only() -> None:
    api, redis, _ = _busy()
    redis.stats.sessions_active = 2
    redis.stats.bytes_sent = 100
    redis.stats.bytes_received = 200
    found = _scrape(api, redis)
    reasons = {dict(k)["close_reason"]: v for k, v in found["sidecar_tcp_sessions_total"].items()}
    assert reasons == {
        reason.label: 5 if reason is CloseReason.CLIENT_CLOSED else 0 for reason in CloseReason
    }
    assert found["sidecar_tcp_sessions_active"] == {(("upstream", "redis"),): 2}
    directions = {dict(k)["direction"]: v for k, v in found["sidecar_tcp_bytes_total"].items()}
    assert directions == {"sent": 100, "received": 200}
    assert found["sidecar_requests_in_flight"] == {(("upstream", "api"),): 0}


def test_series_of_an_endpoint_go_with_it() -> None:
    cluster = _cluster()
    state = cluster.endpoints["10.0.0.1", 1]
    cluster.report(state, Outcome.RESET, 1000.0, state.breaker.permit)
    assert b"10.0.0.1:1" in Metrics({"api": cluster}, None, compiled=False).render()
    cluster.apply(Snapshot("api", (Endpoint("10.0.0.1", 2),), "static"))
    text = Metrics({"api": cluster}, None, compiled=False).render()
    assert b"10.0.0.1:1" not in text
    assert b"10.0.0.1:2" in text


def test_a_large_scrape_comes_in_parts_that_are_one_exposition() -> None:
    sizes = [300, 300, 300, 300, *(1,) * 100]
    clusters = [_cluster(f"u{place}", ports=tuple(range(1, 1 + size))) for place, size in enumerate(sizes)]
    for cluster in clusters:
        cluster.stats.count_request(METHODS.index("GET"), 200, Reason.NONE, 0.01)
    metrics = Metrics({cluster.name: cluster for cluster in clusters}, _context(), compiled=False)
    parts = list(metrics.parts())
    series = [sum(not line.startswith(b"#") for line in part.splitlines()) for part in parts]
    assert max(series) < PART + 15  # a whole histogram
    assert len(parts) < sum(series) / PART + 1
    text = b"".join(parts)
    assert text == metrics.render()
    families = list(text_string_to_metric_families(text.decode()))
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    active = [sample for family in families for sample in family.samples if sample.name.endswith("_active")]
    assert len([sample for sample in active if "endpoint" in sample.labels]) == 1300


def test_endpoints_may_change_between_two_parts() -> None:
    cluster = _cluster(ports=tuple(range(1, 2 * PART)))
    parts = Metrics({"api": cluster}, None, compiled=False).parts()
    for part in parts:
        if b"endpoint=" in part:
            break
    cluster.apply(Snapshot("api", (Endpoint("10.0.0.1", 1),), "static"))
    assert b'sidecar_endpoints{state="closed",upstream="api"} 1.0' in b"".join(parts)


def test_an_upstream_that_appears_later_is_seen() -> None:
    clusters: dict[str, Cluster] = {}
    metrics = Metrics(clusters, None, compiled=False)
    assert b'upstream="api"' not in metrics.render()
    clusters["api"] = _cluster()
    assert b'upstream="api"' in metrics.render()


def test_the_process_says_what_it_is_and_whether_it_drains() -> None:
    found = _scrape(context=_context(draining=True), compiled=True)
    ((labels, value),) = found["sidecar_build_info"].items()
    assert value == 1
    assert dict(labels)["version"] == __version__
    assert dict(labels)["compiled"] == "true"
    assert dict(labels)["python"].startswith("3.")
    assert _value(found, "draining") == 1
    assert _value(found, "clients") == 3
    assert _value(found, "clients_limit") == 100
    assert (_value(found, "pipes"), _value(found, "pipes_limit")) == (3, 96)
    assert _value(found, "clients_refused_total") == 2


def test_without_a_data_path_only_the_build_is_known() -> None:
    assert list(_scrape()) == ["sidecar_build_info"]


def test_ipv6_endpoints_are_bracketed_labels() -> None:
    cluster = _cluster()
    cluster.apply(Snapshot("api", (Endpoint("fe80::1", 80),), "static"))
    assert _value(_scrape(cluster), "connections_active", upstream="api", endpoint="[fe80::1]:80") == 0


def test_it_is_the_classic_text_format() -> None:
    metrics = Metrics({"api": _cluster()}, _context(), compiled=False)
    assert metrics.scrape("")[0] == "text/plain; version=0.0.4; charset=utf-8"
    text = metrics.render().decode()
    assert text.endswith("\n")
    assert "# TYPE sidecar_requests_total counter\n" in text
    assert "# TYPE sidecar_request_duration_seconds histogram\n" in text
    assert "_created" not in text


def test_the_size_of_a_scrape_has_a_bound() -> None:
    clusters = []
    for number in range(50):
        cluster = _cluster(f"upstream-{number}", ports=tuple(range(1, 21)))
        for method in range(len(METHODS)):  # whatever clients do
            for reason in (Reason.NONE, Reason.RESET_BEFORE_HEADERS):
                cluster.stats.count_request(method, 200, reason, 0.01)
        for state in cluster.endpoints.values():
            state.attempts = [1] * len(Outcome)
        clusters.append(cluster)
    samples = sum(len(series) for series in _scrape(*clusters).values())
    # Per endpoint: outcomes, one connection gauge, three states. Per upstream: well under a hundred.
    assert 50 * 20 * 15 <= samples <= 50 * (20 * 20 + 100)


def test_health_checks_are_counted_where_there_are_any_from_the_start() -> None:
    counts = CheckCounts()
    counts.running, counts.limit = 2, 128
    checked, other = _cluster("api", checked=True), _cluster("web")
    found = _scrape(checked, other, context=_context(checks=counts))
    assert found["sidecar_health_checks_total"] == {
        (("result", "failure"), ("upstream", "api")): 0,
        (("result", "success"), ("upstream", "api")): 0,
        (("result", "unknown"), ("upstream", "api")): 0,
    }
    checked.stats.checks[:] = [3, 5, 7]
    found = _scrape(checked, other, context=_context(checks=counts))
    assert _value(found, "health_checks_total", upstream="api", result="failure") == 3
    assert _value(found, "health_checks_total", upstream="api", result="success") == 5
    assert _value(found, "health_checks_total", upstream="api", result="unknown") == 7
    assert (_value(found, "health_checks_running"), _value(found, "health_checks_limit")) == (2, 128)


def test_what_is_announced_is_counted_where_anything_is() -> None:
    def status(name: str, *, known: bool) -> RegistrationStatus:
        return RegistrationStatus(name, "etcd", "10.0.0.7:80", "announced", "", 0.0, registered=known)

    statuses = (status("api", known=True), status("web", known=True), status("api", known=False))
    registered = Registered(statuses, {"etcd": [1, 2, 3, 4], "consul": [5, 0, 0, 0]})
    metrics = Metrics({}, None, compiled=False, registered=lambda: registered)
    lines = metrics.render().decode().splitlines()
    assert [line for line in lines if line.startswith("sidecar_regist")] == [
        'sidecar_registered{registry="etcd",service="api"} 0.0',
        'sidecar_registered{registry="etcd",service="web"} 1.0',
        'sidecar_registrations_total{registry="etcd",result="announced"} 1.0',
        'sidecar_registrations_total{registry="etcd",result="renewed"} 2.0',
        'sidecar_registrations_total{registry="etcd",result="withdrawn"} 3.0',
        'sidecar_registrations_total{registry="etcd",result="error"} 4.0',
        'sidecar_registrations_total{registry="consul",result="announced"} 5.0',
        'sidecar_registrations_total{registry="consul",result="renewed"} 0.0',
        'sidecar_registrations_total{registry="consul",result="withdrawn"} 0.0',
        'sidecar_registrations_total{registry="consul",result="error"} 0.0',
    ]
    nothing = Metrics({}, None, compiled=False, registered=lambda: None).render().decode()
    assert "sidecar_regist" not in nothing


def test_reloads() -> None:
    counts = ReloadCounts()
    counts.success, counts.failure, counts.unchanged = 3, 2, 1
    told = Metrics({}, None, compiled=False, reload_counts=counts).render().decode()
    for line in (
        'sidecar_config_reloads_total{result="success"} 3.0',
        'sidecar_config_reloads_total{result="failure"} 2.0',
        'sidecar_config_reloads_total{result="unchanged"} 1.0',
        "sidecar_config_last_reload_success 1.0",
    ):
        assert line in told.splitlines()
    counts.last_success = False
    assert (
        "sidecar_config_last_reload_success 0.0"
        in Metrics({}, None, compiled=False, reload_counts=counts).render().decode()
    )
    assert "reload" not in Metrics({}, None, compiled=False).render().decode()


def test_what_the_admin_server_was_asked_is_counted() -> None:
    counts = AdminCounts()
    counts.by_class[4] = 3
    counts.denied, counts.refused = 2, 1
    told = Metrics({}, None, compiled=False, admin_counts=counts).render().decode().splitlines()
    assert 'sidecar_admin_requests_total{code_class="4xx"} 3.0' in told
    assert 'sidecar_admin_requests_total{code_class="2xx"} 0.0' in told
    assert "sidecar_admin_denied_total 2.0" in told
    assert "sidecar_admin_clients_refused_total 1.0" in told
