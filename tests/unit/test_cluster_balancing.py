"""What the joint gives to the balancing policies: weights that grow, zones, keys, and how long attempts took."""

from collections import Counter
from typing import Any

import pytest
from support.clock import FakeClock

from sidecar.balance import POLICIES
from sidecar.cluster import Cluster
from sidecar.model import Endpoint, Outcome, Snapshot, UpstreamPolicy
from sidecar.resilience import BreakerState

NOW = 1000.0


def cluster_of(*endpoints: Endpoint, clock: FakeClock | None = None, **policy: Any) -> Cluster:
    chosen: dict[str, Any] = {
        "breaker_threshold": 1,
        "breaker_open_for": 10.0,
        "breaker_jitter": 0.0,
        **policy,
    }
    duck: Any = clock or FakeClock(NOW)
    cluster = Cluster("api", "http", UpstreamPolicy(**chosen), duck)
    apply(cluster, *endpoints)
    return cluster


def apply(cluster: Cluster, *endpoints: Endpoint) -> None:
    cluster.apply(Snapshot("api", endpoints, "static"))


def at(host: str, weight: int = 1, zone: str = "") -> Endpoint:
    return Endpoint(host, 80, weight, zone)


def picked(cluster: Cluster, count: int, now: float = NOW) -> Counter[str]:
    found: Counter[str] = Counter()
    for _ in range(count):
        state = cluster.pick(now)
        found["-" if state is None else state.endpoint.host] += 1
    return found


def end(cluster: Cluster, host: str, outcome: Outcome, now: float = NOW, seconds: float = 0.0) -> None:
    state = cluster.endpoints[host, 80]
    cluster.report(state, outcome, now, state.breaker.permit, seconds)


@pytest.mark.parametrize("strategy", POLICIES)
def test_every_strategy_serves(strategy: str) -> None:
    cluster = cluster_of(at("a"), at("b"), strategy=strategy)
    assert cluster.hashes == (strategy == "ring_hash")
    for key in range(0, 1 << 64, 1 << 60):
        assert cluster.pick(NOW, (), key) in cluster.endpoints.values()
    end(cluster, "a", Outcome.RESET)
    assert {cluster.pick(NOW, (), key) for key in range(50)} == {cluster.endpoints["b", 80]}


# Slow start


def test_nobody_starts_slowly_with_the_process() -> None:
    cluster = cluster_of(at("a"), at("b"), slow_start=10.0)
    assert picked(cluster, 10) == {"a": 5, "b": 5}


def test_a_new_endpoint_gets_its_share_step_by_step() -> None:
    clock = FakeClock(NOW)
    cluster = cluster_of(at("a"), clock=clock, slow_start=10.0)
    apply(cluster, at("a"), at("b"))
    shares = [picked(cluster, 110, NOW + second)["b"] for second in range(12)]
    assert shares[0] == 10, "a tenth of what the other gets"
    assert shares == sorted(shares)
    assert shares[5] in (36, 37), "half of what the other gets"
    assert shares[10:] == [55, 55]


def test_a_recovered_endpoint_starts_slowly_too() -> None:
    cluster = cluster_of(at("a"), at("b"), slow_start=10.0)
    end(cluster, "b", Outcome.RESET)
    probe = cluster.pick(NOW + 10.0)
    assert probe is cluster.endpoints["b", 80]
    end(cluster, "b", Outcome.SUCCESS, NOW + 10.0)
    assert picked(cluster, 110, NOW + 10.0)["b"] == 10
    assert picked(cluster, 110, NOW + 20.0)["b"] == 55


def test_without_slow_start_a_new_endpoint_gets_its_share_at_once() -> None:
    cluster = cluster_of(at("a"))
    apply(cluster, at("a"), at("b"))
    assert picked(cluster, 10) == {"a": 5, "b": 5}


def test_a_flap_is_a_new_endpoint_and_one_that_stays_is_not() -> None:
    cluster = cluster_of(at("a"), at("b"), slow_start=10.0)
    apply(cluster, at("a"), at("b"), at("c"))
    apply(cluster, at("b"), at("a", weight=2))
    assert picked(cluster, 30) == {"a": 20, "b": 10}


def test_weights_that_grow_are_in_proportion_to_the_configured_ones() -> None:
    cluster = cluster_of(at("a", weight=1), slow_start=10.0)
    apply(cluster, at("a"), at("b", weight=4))
    found = picked(cluster, 700, NOW + 5.0)
    assert found["b"] in (466, 467), "1 to 2"


# Zones


def test_the_own_zone_is_preferred() -> None:
    cluster = cluster_of(at("a", zone="x"), at("b", zone="y"), at("c", zone="x"), zone="x")
    assert picked(cluster, 10) == {"a": 5, "c": 5}


def test_without_an_own_zone_zones_do_not_matter() -> None:
    cluster = cluster_of(at("a", zone="x"), at("b", zone="y"))
    assert picked(cluster, 10) == {"a": 5, "b": 5}


def test_a_zone_without_endpoints_and_one_with_all_of_them_are_no_zones() -> None:
    assert picked(cluster_of(at("a", zone="x"), at("b"), zone="z"), 10) == {"a": 5, "b": 5}
    assert picked(cluster_of(at("a", zone="x"), at("b", zone="x"), zone="x"), 10) == {"a": 5, "b": 5}


def test_a_zone_that_has_lost_half_of_itself_spills_over() -> None:
    cluster = cluster_of(at("a", zone="x"), at("b", zone="x"), at("c", zone="y"), at("d", zone="y"), zone="x")
    end(cluster, "a", Outcome.RESET)
    found = picked(cluster, 100)
    assert found["b"] == 70
    assert found["c"] == found["d"] == 15
    end(cluster, "b", Outcome.RESET)
    assert picked(cluster, 10) == {"c": 5, "d": 5}


def test_a_retry_leaves_the_zone_when_there_is_nobody_else_in_it() -> None:
    cluster = cluster_of(at("a", zone="x"), at("b", zone="y"), zone="x")
    (own, other) = cluster.endpoints.values()
    assert cluster.pick(NOW) is own
    assert cluster.pick(NOW, [own]) is other
    assert cluster.pick(NOW, [own, other]) is own


def test_in_a_zone_too_a_new_endpoint_starts_slowly() -> None:
    clock = FakeClock(NOW)
    cluster = cluster_of(at("a", zone="x"), at("b", zone="y"), clock=clock, zone="x", slow_start=10.0)
    end(cluster, "a", Outcome.RESET)
    assert cluster.pick(NOW + 10.0) is cluster.endpoints["a", 80]
    end(cluster, "a", Outcome.SUCCESS, NOW + 10.0)
    assert picked(cluster, 100, NOW + 10.0)["a"] == 14
    assert picked(cluster, 100, NOW + 20.0)["a"] == 100


def test_another_workers_close_starts_slowly_too() -> None:
    cluster = cluster_of(at("a"), at("b"), slow_start=10.0)
    end(cluster, "b", Outcome.RESET)
    cluster.adopt(("b", 80), BreakerState.CLOSED, NOW + 5.0, 0.0, 0)
    assert picked(cluster, 110, NOW + 5.0)["b"] == 10


def test_the_rotation_of_a_zone_goes_on_when_the_others_change() -> None:
    endpoints = [at(host, zone="x") for host in "abc"]
    cluster = cluster_of(*endpoints, at("y", zone="y"), at("z", zone="y"), zone="x")
    assert picked(cluster, 1) == {"a": 1}
    end(cluster, "z", Outcome.RESET)
    assert picked(cluster, 1) == {"b": 1}


def keyed(cluster: Cluster) -> list[str]:
    """Where each of many keys goes."""
    found = [cluster.pick(NOW, (), number * (1 << 64) // 997) for number in range(997)]
    return [state.endpoint.host for state in found if state is not None]


def test_a_ring_follows_the_snapshots_weights_and_endpoints() -> None:
    """Whatever was before: every sidecar sends a key to the same place."""
    cluster = cluster_of(at("a"), at("b"), strategy="ring_hash")
    for endpoints in (
        [at("a"), at("b", weight=9)],
        [at("a"), at("b", weight=9), at("c")],
        [at("c"), at("b")],
    ):
        apply(cluster, *endpoints)
        assert keyed(cluster) == keyed(cluster_of(*endpoints, strategy="ring_hash"))
        ring = cluster._balancing.ring
        end(cluster, "b", Outcome.RESET)
        assert "b" not in keyed(cluster)
        assert cluster._balancing.ring is ring
        cluster.adopt(("b", 80), BreakerState.CLOSED, NOW + 5.0, 0.0, 0)
        assert cluster._balancing.ring is ring


def test_a_key_stays_where_it_is_in_a_zone_that_spills_over() -> None:
    endpoints = [at("a", zone="x"), at("b", zone="x"), at("c", zone="y"), at("d", zone="y")]
    cluster = cluster_of(*endpoints, zone="x", strategy="ring_hash")
    end(cluster, "a", Outcome.RESET)
    found = keyed(cluster)
    assert found == keyed(cluster)
    assert 600 < found.count("b") < 800
    assert set(found) == set("bcd")


# How long attempts took


def test_peak_ewma_hears_of_attempts_that_say_something() -> None:
    cluster = cluster_of(at("a"), at("b"), strategy="peak_ewma")
    state = cluster.endpoints["a", 80]
    for outcome in (Outcome.CANCELLED, Outcome.LOCAL_SHORTAGE, Outcome.IDLE_RACE):
        end(cluster, "a", outcome, seconds=5.0)
    assert state.latency == 0.0
    end(cluster, "a", Outcome.SUCCESS, seconds=0.25)
    assert state.latency == 0.25
    end(cluster, "a", Outcome.FAILURE_STATUS, seconds=0.25)
    assert state.latency > 1.0


def test_a_request_without_a_key_gets_one_by_chance() -> None:
    cluster = cluster_of(at("a"), clock=FakeClock(NOW, chances=(0.0, 0.25, 0.999)))
    assert cluster.any_key() == 0
    assert cluster.any_key() == 1 << 62
    assert 0 < cluster.any_key() < 1 << 64
