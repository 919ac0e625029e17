"""Why the next request goes where it goes."""

from typing import Any

import pytest
from support.clock import FakeClock

from sidecar.admin.explain import explain_view, next_of
from sidecar.cluster import Cluster
from sidecar.model import Endpoint, EndpointState, Outcome, Snapshot, UpstreamPolicy
from sidecar.proxy.router import Route, Routes

NOW = 1000.0


def cluster_of(*hosts: str, scheme: str = "http", zones: str = "", **policy: Any) -> Cluster:
    clock: Any = FakeClock(NOW)
    chosen: dict[str, Any] = {
        "breaker_threshold": 2,
        "breaker_open_for": 4.0,
        "breaker_jitter": 0.0,
        **policy,
    }
    cluster = Cluster("api", scheme, UpstreamPolicy(**chosen), clock)
    endpoints = (
        Endpoint(host, 80, zone=zone) for host, zone in zip(hosts, zones or [""] * len(hosts), strict=True)
    )
    cluster.apply(Snapshot("api", tuple(endpoints), "static"))
    return cluster


def explained(cluster: Cluster, now: float = NOW) -> dict[str, Any]:
    clock: Any = FakeClock(now)
    return explain_view(cluster, clock, [next_of(cluster, now)], cluster.budget.totals(now))


def why(cluster: Cluster, host: str, now: float = NOW) -> str:
    found = next(one for one in explained(cluster, now)["endpoints"] if one["address"] == f"{host}:80")
    assert isinstance(found["why"], str)
    return found["why"]


def fail(cluster: Cluster, host: str, times: int = 2) -> EndpointState:
    state = cluster.endpoints[host, 80]
    for _ in range(times):
        cluster.report(state, Outcome.RESET, NOW, state.breaker.permit)
    return state


def test_who_is_in_rotation_and_who_is_not() -> None:
    cluster = cluster_of("a", "b", "c")
    fail(cluster, "a")
    fail(cluster, "b", times=1)
    assert why(cluster, "a", NOW + 1) == (
        "breaker open (consecutive failures, the last one reset); a probe in 3.0 s"
    )
    assert (
        why(cluster, "a", NOW + 4)
        == "breaker open (consecutive failures, the last one reset); the next request is its probe"
    )
    assert why(cluster, "b") == "in rotation; 1 of 2 failures in a row"
    assert why(cluster, "c") == "in rotation"
    out, _, still = explained(cluster)["endpoints"]
    assert (out["in_rotation"], out["state"], out["since"]) == (False, "open", "2023-11-14T22:30:00.000Z")
    assert (still["in_rotation"], still["since"]) == (True, None)


def test_half_open() -> None:
    cluster = cluster_of("a", "b")
    state = fail(cluster, "a")
    assert cluster.pick(NOW + 4) is state
    assert why(cluster, "a", NOW + 4).endswith("its probe is out")
    cluster.report(state, Outcome.CANCELLED, NOW + 5, state.breaker.permit)
    assert why(cluster, "a", NOW + 5) == (
        "half open (consecutive failures, the last one reset); the next request is its probe"
    )


def test_what_holds_it() -> None:
    cluster = cluster_of("a", "b", "c")
    cluster.trip([cluster.endpoints["a", 80]], NOW)
    cluster.check(cluster.endpoints["b", 80], False, NOW)
    assert why(cluster, "a") == "tripped by hand; until `sidecar reset`"
    assert why(cluster, "b") == "fails its health checks (check failed); 2 good ones in a row bring it back"


def test_panic_says_why_all_are_used() -> None:
    cluster = cluster_of("a", "b")
    fail(cluster, "a")
    assert explained(cluster)["panic"] is None
    fail(cluster, "b")
    assert explained(cluster)["panic"] == (
        "more than outlier allows (max_ejected 50%, min_available 1) should be out of rotation, "
        "so all are in it but what is tripped by hand"
    )
    assert why(cluster, "a").endswith("; in rotation all the same: panic")


def test_panic_that_fails_says_so() -> None:
    cluster = cluster_of("a", "b", panic_all=False)
    fail(cluster, "a")
    fail(cluster, "b")
    assert explained(cluster)["panic"].endswith("are out of rotation; with panic: fail they stay out")
    assert explained(cluster)["next"] == [{"endpoint": None, "why": "nobody is in rotation"}]


def test_a_breaker_that_observes_says_so() -> None:
    cluster = cluster_of("a", observe_only=True)
    fail(cluster, "a")
    assert why(cluster, "a").endswith("; in rotation all the same: its breaker only observes")


def test_a_slow_start_says_how_far_it_is() -> None:
    cluster = cluster_of("a", "b", slow_start=10.0)
    cluster.reset([fail(cluster, "a")], NOW)
    assert why(cluster, "a", NOW + 3) == "in rotation, and starts slowly: 30% of its weight"


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({}, {"endpoint": "a:80", "why": "its turn"}),
        ({"strategy": "random"}, {"endpoint": None, "why": "up to chance"}),
        ({"strategy": "least_request"}, {"endpoint": None, "why": "up to chance"}),
        ({"strategy": "ring_hash", "hash_on": "path"}, {"endpoint": None, "why": "up to the request's key"}),
    ],
)
def test_the_next_pick(policy: dict[str, str], expected: dict[str, str | None]) -> None:
    cluster = cluster_of("a", "b", **policy)
    assert explained(cluster)["next"] == [expected]


def test_asking_changes_nothing() -> None:
    cluster = cluster_of("a", "b", "c")
    for host in "abcab":
        assert explained(cluster)["next"] == [{"endpoint": f"{host}:80", "why": "its turn"}]
        picked = cluster.pick(NOW)
        assert picked is cluster.endpoints[host, 80]


def test_the_next_pick_of_zones_is_whose_turn_it_is() -> None:
    cluster = cluster_of("a", "b", "c", "d", zones="eeww", zone="e")
    fail(cluster, "a")
    for _ in range(7):
        (found,) = explained(cluster)["next"]
        picked = cluster.pick(NOW)
        assert picked is not None
        assert found["endpoint"] == picked.endpoint.address
    assert explained(cluster)["choice"].endswith("the zone e first, others for what it cannot carry")
    hashed = cluster_of("a", "b", "c", "d", zones="eeww", zone="e", strategy="ring_hash", hash_on="path")
    assert explained(hashed)["next"][0]["endpoint"] is None


def test_a_probe_goes_first() -> None:
    cluster = cluster_of("a", "b")
    fail(cluster, "a")
    assert explained(cluster)["next"] == [{"endpoint": "b:80", "why": "alone in rotation"}]
    assert explained(cluster, NOW + 4)["next"] == [{"endpoint": "a:80", "why": "its probe is due"}]


def test_nobody_is_nobody() -> None:
    cluster = cluster_of()
    assert explained(cluster)["next"] == [{"endpoint": None, "why": "it has no endpoints"}]


def test_the_retry_plan() -> None:
    cluster = cluster_of("a", retries=2, retry_statuses=frozenset((503, 502)), per_try_timeout=1.5)
    cluster.budget.deposit(NOW)
    cluster.budget.withdraw(NOW)
    plan = explained(cluster)["retries"]
    assert (plan["attempts"], plan["on"], plan["per_try_timeout"]) == (
        3,
        ["connect", "reset", "502", "503"],
        1.5,
    )
    assert plan["budget"] == {"ratio": 0.2, "min": 3, "requests": 1, "retries": 1}


def test_sessions_are_retried_at_their_connect_only() -> None:
    plan = explained(cluster_of("a", scheme="redis"))["retries"]
    assert (plan["on"], plan["budget"]) == (["connect"], None)


def test_panic_of_a_breaker_that_observes_is_nobodys() -> None:
    cluster = cluster_of("a", "b", observe_only=True, panic_all=False)
    fail(cluster, "a")
    fail(cluster, "b")
    assert explained(cluster)["panic"].endswith(
        "would be out of rotation; breakers only observe, so nobody is"
    )


def test_since_is_when_it_stopped_serving_not_its_last_probe() -> None:
    cluster = cluster_of("a", "b")
    state = fail(cluster, "a")
    for late in (4.0, 20.0, 60.0):
        assert cluster.pick(NOW + late) is state
        cluster.report(state, Outcome.RESET, NOW + late, state.breaker.permit)
    (out, _) = explained(cluster, NOW + 61)["endpoints"]
    assert out["since"] == "2023-11-14T22:30:00.000Z"


def test_a_router_chooses_by_its_routes() -> None:
    router = cluster_of()
    router.router = Routes(router, [Route(0, [(cluster_of("a"), 1)])], FakeClock(NOW).uniform)
    found = explained(router)
    assert found["choice"].startswith("the first of its routes that fits")
    assert found["next"] == [{"endpoint": None, "why": "up to the request's route"}]
    assert (found["retries"]["attempts"], found["retries"]["budget"]) == (0, None), "its upstreams' own"
