"""Another policy for a cluster that serves: what it is and has counted stays, what comes next goes by the new one."""

from dataclasses import replace
from typing import Any

import pytest
from support.clock import FakeClock

from sidecar.balance import LeastRequest, RingHash, RoundRobin, ZonePreference
from sidecar.cluster import Cluster
from sidecar.model import Endpoint, EndpointState, Outcome, Snapshot, UpstreamPolicy
from sidecar.pool import Admission, PooledConnection
from sidecar.resilience import BreakerState

NOW = 1000.0
POLICY = UpstreamPolicy(
    breaker_threshold=1, breaker_open_for=10.0, breaker_max_open_for=10.0, breaker_jitter=0.0
)


class Waiter:
    """told: how often it went on."""

    def __init__(self) -> None:
        self.told = 0

    def avoids(self, connection: PooledConnection) -> bool:
        return False

    def proceed(self, connection: PooledConnection | None) -> None:
        self.told += 1


class Session:
    def __init__(self) -> None:
        self.left = False

    def endpoint_left(self) -> None:
        self.left = True


def cluster_of(count: int = 3, zones: str = "", **policy: Any) -> Cluster:
    """Endpoints a, b, c and so on; zones: of each, one letter."""
    clock: Any = FakeClock(NOW)
    cluster = Cluster("api", "http", replace(POLICY, **policy), clock)
    hosts = "abcdefgh"[:count]
    cluster.apply(
        Snapshot(
            "api",
            tuple(
                Endpoint(host, 80, 1, zone) for host, zone in zip(hosts, zones or [""] * count, strict=True)
            ),
            "static",
        )
    )
    return cluster


def change(cluster: Cluster, **policy: Any) -> None:
    cluster.reconfigure(replace(cluster.policy, **policy))


def state_of(cluster: Cluster, host: str) -> EndpointState:
    return cluster.endpoints[host, 80]


def fail(cluster: Cluster, host: str, outcome: Outcome = Outcome.RESET) -> None:
    cluster.report(state_of(cluster, host), outcome, NOW, state_of(cluster, host).breaker.permit)


def test_what_it_is_and_has_counted_stays() -> None:
    cluster = cluster_of()
    fail(cluster, "a")
    cluster.budget.deposit(NOW)
    assert state_of(cluster, "b").pool.admit(Waiter()) is Admission.OPEN
    states, stats, limit, budget = (
        list(cluster.endpoints.values()),
        cluster.stats,
        cluster.limit,
        cluster.budget,
    )
    pools = [state.pool for state in states]
    breakers = [state.breaker for state in states]
    journal = list(state_of(cluster, "a").breaker.journal)
    change(cluster, timeout=1.0, strategy="least_request", breaker_threshold=7, max_connections=5)
    assert list(cluster.endpoints.values()) == states
    assert (cluster.stats, cluster.limit, cluster.budget) == (stats, limit, budget)
    assert [state.pool for state in states] == pools
    assert [state.breaker for state in states] == breakers
    opened = state_of(cluster, "a").breaker
    assert (opened.state, opened.open_until) == (BreakerState.OPEN, NOW + 10.0)
    assert list(opened.journal) == journal
    assert state_of(cluster, "a").attempts[Outcome.RESET] == 1
    assert cluster.limit.used == 1
    assert cluster.budget.totals(NOW) == (1, 0)
    assert cluster.policy.timeout == 1.0


def test_breakers_go_by_other_parameters() -> None:
    cluster = cluster_of()
    change(cluster, breaker_threshold=2, breaker_open_for=3.0, breaker_max_open_for=3.0, check_fall=1)
    breaker = state_of(cluster, "a").breaker
    fail(cluster, "a")
    assert breaker.state is BreakerState.CLOSED
    fail(cluster, "a")
    assert (breaker.state, breaker.open_until) == (BreakerState.OPEN, NOW + 3.0)
    assert breaker.fall == 1


def test_endpoints_that_come_later_have_them_too() -> None:
    cluster = cluster_of(1)
    change(cluster, breaker_threshold=4, host_header="preserve")
    cluster.apply(Snapshot("api", (Endpoint("a", 80), Endpoint("z", 80)), "static"))
    assert state_of(cluster, "z").breaker.threshold == 4
    assert state_of(cluster, "z").authority == b""


@pytest.mark.parametrize(("host", "authority"), [("endpoint", b"a:80"), ("preserve", b""), ("web", b"web")])
def test_host_is_what_the_policy_says(host: str, authority: bytes) -> None:
    cluster = cluster_of(host_header="other" if host != "web" else "endpoint")
    change(cluster, host_header=host)
    assert state_of(cluster, "a").authority == authority


def test_statuses_that_are_failures() -> None:
    cluster = cluster_of()
    change(cluster, failure_statuses=frozenset((500,)))
    assert 500 in cluster.outcomes
    assert 503 not in cluster.outcomes


def test_another_strategy_has_another_picker_and_a_rotation_goes_on() -> None:
    cluster = cluster_of()
    assert [cluster.pick(NOW) for _ in range(2)] == [state_of(cluster, "a"), state_of(cluster, "b")]
    change(cluster, timeout=2.0)
    assert isinstance(cluster.picker, RoundRobin)
    assert cluster.pick(NOW) is state_of(cluster, "c"), "as it would have been"
    change(cluster, strategy="least_request")
    assert isinstance(cluster.picker, LeastRequest)
    assert not cluster.hashes
    change(cluster, strategy="ring_hash", hash_on="path", max_load=2.0)
    assert isinstance(cluster.picker, RingHash)
    assert cluster.hashes
    assert cluster._balancing.max_load == 2.0
    assert cluster._balancing.ring is not None
    change(cluster, strategy="random", hash_on="")
    assert cluster._balancing.ring is None, "a MiB that nobody looks at"
    assert cluster.pick(NOW) is not None


def test_another_zone() -> None:
    cluster = cluster_of(zones="xxy")
    change(cluster, zone="y")
    assert isinstance(cluster.picker, ZonePreference)
    assert {cluster.pick(NOW) for _ in range(9)} == {state_of(cluster, "c")}
    change(cluster, zone="")
    assert {cluster.pick(NOW) for _ in range(9)} == set(cluster.endpoints.values())


def test_the_budget_of_retries() -> None:
    cluster = cluster_of(retry_min=0, retry_ratio=0.0)
    assert not cluster.budget.withdraw(NOW)
    change(cluster, retry_min=1)
    assert cluster.budget.withdraw(NOW)


def test_bounds_and_who_waits_for_them() -> None:
    cluster = cluster_of(1, max_connections=1)
    pool = state_of(cluster, "a").pool
    waiter = Waiter()
    assert pool.admit(Waiter()) is Admission.OPEN
    assert pool.admit(waiter) is Admission.WAIT
    change(cluster, max_connections=8, max_pending=3, max_connections_per_endpoint=4, max_in_flight=9)
    limit = cluster.limit
    assert (limit.maximum, limit.max_pending, limit.per_endpoint, limit.max_in_flight) == (8, 3, 4, 9)
    assert pool.share == 8
    assert waiter.told == 1


def test_panic_and_who_is_used_follow() -> None:
    cluster = cluster_of(2, panic_all=False)
    for host in "ab":
        fail(cluster, host)
    assert cluster.pick(NOW) is None
    change(cluster, panic_all=True)
    assert cluster.panic
    assert cluster.pick(NOW) is not None
    change(cluster, max_ejected=1.0, min_available=0)
    assert not cluster.panic
    assert cluster.pick(NOW) is None
    change(cluster, observe_only=True)
    assert cluster.pick(NOW) is not None


def test_sessions_that_are_no_longer_to_end_with_their_endpoint() -> None:
    cluster = cluster_of(5, close_on_unhealthy=True)
    sessions = Session(), Session()
    state_of(cluster, "a").sessions.add(sessions[0])
    change(cluster, timeout=1.0)
    fail(cluster, "a")
    assert sessions[0].left
    state_of(cluster, "b").sessions.add(sessions[1])
    change(cluster, close_on_unhealthy=False)
    fail(cluster, "b")
    assert not sessions[1].left


def test_a_slow_start_that_is_turned_off_is_over() -> None:
    cluster = cluster_of(1, slow_start=60.0)
    cluster.apply(Snapshot("api", (Endpoint("a", 80), Endpoint("b", 80)), "static"))
    assert state_of(cluster, "b").weight < state_of(cluster, "a").weight
    change(cluster, slow_start=0.0)
    assert state_of(cluster, "b").weight == state_of(cluster, "a").weight
