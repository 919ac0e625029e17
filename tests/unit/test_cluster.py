"""The joint: snapshots in, endpoints out, and breakers in between."""

from collections.abc import Collection
from typing import Any

import pytest
from support.clock import FakeClock

from sidecar.cluster import REMEMBERED, Cluster
from sidecar.errors import Reason
from sidecar.model import Endpoint, EndpointState, Outcome, Snapshot, UpstreamPolicy
from sidecar.pool import Admission, EndpointPool, PooledConnection
from sidecar.proxy.router import Routes
from sidecar.resilience import BreakerState

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
NOW = 1000.0  # where the fake clock stands
OPEN_FOR = 10.0


class Connection:
    """Leaves the books at once when closed."""

    def __init__(self, pool: EndpointPool) -> None:
        self.pool = pool
        self.closed = False

    def close(self) -> None:
        self.closed = True
        self.pool.release(self)


class Waiter:
    def avoids(self, connection: PooledConnection) -> bool:
        return False

    def proceed(self, connection: PooledConnection | None) -> None:
        raise AssertionError("nobody waits in these tests")


def snapshot(*endpoints: Endpoint, source: str = "static") -> Snapshot:
    return Snapshot("api", endpoints, source)


def cluster_of(*hosts: str, clock: FakeClock | None = None, **policy: Any) -> Cluster:
    """One endpoint for each host, on port 80; a breaker opens at the first failure, for ten seconds."""
    chosen: dict[str, Any] = {
        "breaker_threshold": 1,
        "breaker_open_for": OPEN_FOR,
        "breaker_max_open_for": OPEN_FOR,
        "breaker_jitter": 0.0,
        **policy,
    }
    duck: Any = clock or FakeClock(NOW)
    cluster = Cluster("api", "http", UpstreamPolicy(**chosen), duck)
    cluster.apply(snapshot(*(Endpoint(host, 80) for host in hosts)))
    return cluster


def state_of(cluster: Cluster, host: str) -> EndpointState:
    return cluster.endpoints[host, 80]


def picks(cluster: Cluster, count: int, now: float = NOW, tried: Collection[EndpointState] = ()) -> str:
    """The hosts of the next picks; `-` where there was none."""
    states = [cluster.pick(now, tried) for _ in range(count)]
    return "".join("-" if state is None else state.endpoint.host for state in states)


def fail(cluster: Cluster, host: str, now: float = NOW) -> None:
    """An attempt that began while closed has failed."""
    cluster.report(state_of(cluster, host), Outcome.RESET, now, state_of(cluster, host).breaker.permit)


def resting(state: EndpointState) -> Connection:
    """An idle connection in its pool."""
    assert state.pool.admit(Waiter()) is Admission.OPEN
    connection = Connection(state.pool)
    state.pool.give_back(connection)
    return connection


# Snapshots


def test_before_the_first_snapshot_nobody_is_there() -> None:
    duck: Any = FakeClock()
    cluster = Cluster("api", "http", UpstreamPolicy(), duck)
    assert cluster.pick(NOW) is None
    assert cluster.refusal is Reason.NO_ENDPOINTS
    assert cluster.stats.request_counts() == []
    assert (cluster.name, cluster.scheme, cluster.source, cluster.endpoints) == ("api", "http", "", {})


def test_endpoints_are_those_of_the_snapshot_in_its_order() -> None:
    cluster = cluster_of("b", "a", "c")
    assert list(cluster.endpoints) == [("b", 80), ("a", 80), ("c", 80)]
    assert picks(cluster, 4) == "bacb"
    assert cluster.source == "static"
    cluster.apply(snapshot(Endpoint("c", 80), Endpoint("b", 80), source="dns"))
    assert list(cluster.endpoints) == [("c", 80), ("b", 80)]
    assert cluster.source == "dns"


def test_what_stays_keeps_everything() -> None:
    cluster = cluster_of("a", "b")
    stats, limit = cluster.stats, cluster.limit
    kept = state_of(cluster, "a")
    breaker, pool = kept.breaker, kept.pool
    connection = resting(kept)
    cluster.report(kept, Outcome.SUCCESS, NOW, kept.breaker.permit)
    fail(cluster, "b")
    cluster.apply(snapshot(Endpoint("b", 80), Endpoint("a", 80, weight=3), Endpoint("c", 80)))
    assert state_of(cluster, "a") is kept
    assert (kept.breaker, kept.pool, kept.attempts[Outcome.SUCCESS]) == (breaker, pool, 1)
    assert not kept.removed
    assert not connection.closed
    assert kept.endpoint.weight == 3, "attributes follow the source"
    assert state_of(cluster, "b").breaker.state is OPEN
    assert picks(cluster, 4) == "aaca", "and so does the picker"
    assert (cluster.stats, cluster.limit) == (stats, limit), "the upstream is the same"


def test_what_is_new_starts_closed_with_its_policy() -> None:
    clock = FakeClock(chances=[1.0])
    cluster = cluster_of(
        clock=clock, breaker_threshold=2, breaker_open_for=4.0, breaker_max_open_for=4.0, breaker_jitter=0.5
    )
    cluster.apply(snapshot(Endpoint("a", 80)))
    state = state_of(cluster, "a")
    assert (state.breaker.state, state.breaker.threshold) == (CLOSED, 2)
    fail(cluster, "a")
    fail(cluster, "a")
    assert state.breaker.open_until == NOW + 6.0, "its jitter is the clock's chance"


def test_what_goes_is_retired() -> None:
    cluster = cluster_of("a", "b")
    gone = state_of(cluster, "a")
    connection = resting(gone)
    cluster.apply(snapshot(Endpoint("b", 80)))
    assert gone.removed
    assert connection.closed
    assert cluster.limit.pools == [state_of(cluster, "b").pool]
    assert picks(cluster, 2) == "bb"


def test_what_has_gone_moves_nothing_any_more() -> None:
    cluster = cluster_of("a", "b")
    gone = state_of(cluster, "a")
    fail(cluster, "a")
    cluster.apply(snapshot(Endpoint("b", 80)))
    picker = cluster.picker
    cluster.report(gone, Outcome.RESET, NOW, gone.breaker.permit)
    assert gone.attempts[Outcome.RESET] == 2, "it is still counted"
    assert cluster.picker is picker
    assert picks(cluster, 3, now=NOW + 10 * OPEN_FOR) == "bbb", "its open time is nobody's business"


def test_a_probe_at_an_endpoint_that_goes_is_forgotten_with_it() -> None:
    cluster = cluster_of("a", "b")
    fail(cluster, "a")
    probe = cluster.pick(NOW + OPEN_FOR)
    assert probe is not None
    assert probe.breaker.state is HALF_OPEN
    cluster.apply(snapshot(Endpoint("b", 80)))
    cluster.report(probe, Outcome.SUCCESS, NOW + OPEN_FOR, probe.breaker.permit)
    assert picks(cluster, 2) == "bb"


def test_the_last_endpoint_may_go() -> None:
    cluster = cluster_of("a")
    cluster.apply(snapshot())
    assert picks(cluster, 1) == "-"
    assert cluster.refusal is Reason.NO_ENDPOINTS
    assert cluster.limit.pools == []


def test_an_endpoint_named_twice_is_one_endpoint() -> None:
    cluster = cluster_of("a", "b")
    known = state_of(cluster, "a")
    cluster.apply(snapshot(Endpoint("a", 80), Endpoint("b", 80), Endpoint("a", 80, weight=2)))
    assert state_of(cluster, "a") is known
    assert not known.removed
    assert len(cluster.limit.pools) == 2
    fail(cluster, "a")
    assert picks(cluster, 3) == "bbb"


@pytest.mark.parametrize(
    ("host_header", "authority"),
    [("endpoint", b"[::1]:80"), ("preserve", b""), ("api.example", b"api.example")],
)
def test_the_host_that_requests_carry(host_header: str, authority: bytes) -> None:
    assert state_of(cluster_of("::1", host_header=host_header), "::1").authority == authority


def test_the_policy_bounds_the_connections() -> None:
    cluster = cluster_of("a", max_connections=7, max_pending=3)
    assert (cluster.limit.maximum, cluster.limit.max_pending) == (7, 3)
    assert state_of(cluster, "a").pool.limit is cluster.limit


# Picking


def test_open_endpoints_are_skipped_while_others_are_left() -> None:
    cluster = cluster_of("a", "b", "c")
    fail(cluster, "b")
    assert sorted(picks(cluster, 6)) == list("aaaccc")


def test_all_open_is_its_own_reason() -> None:
    cluster = cluster_of("a", "b", panic_all=False)
    fail(cluster, "a")
    fail(cluster, "b")
    assert picks(cluster, 2) == "--"
    assert cluster.refusal is Reason.ALL_OPEN


def test_a_breaker_moving_does_not_begin_the_rotation_again() -> None:
    cluster = cluster_of("a", "b", "c", "d")
    assert picks(cluster, 2) == "ab"
    fail(cluster, "d")
    assert picks(cluster, 3) == "cab"


def test_a_tried_endpoint_is_not_picked_while_an_untried_one_is_left() -> None:
    cluster = cluster_of("a", "b", "c")
    tried = [state_of(cluster, "a"), state_of(cluster, "c")]
    assert picks(cluster, 5, tried=tried) == "bbbbb"


def test_retries_take_their_turns_like_any_pick() -> None:
    cluster = cluster_of("a", "b", "c")
    assert picks(cluster, 4, tried=[state_of(cluster, "a")]) == "bcbc"
    assert picks(cluster, 2) == "ab", "and leave no gap in the rotation"


def test_with_every_endpoint_tried_one_is_tried_again() -> None:
    cluster = cluster_of("a", "b")
    assert set(picks(cluster, 4, tried=list(cluster.endpoints.values()))) <= {"a", "b"}
    alone = cluster_of("a")
    assert picks(alone, 2, tried=[state_of(alone, "a")]) == "aa"


def test_trying_again_does_not_mean_an_open_endpoint() -> None:
    cluster = cluster_of("a", "b", panic_all=False)
    fail(cluster, "a")
    assert picks(cluster, 2, tried=[state_of(cluster, "b")]) == "bb"
    fail(cluster, "b")
    assert picks(cluster, 1, tried=[state_of(cluster, "b")]) == "-"


def test_uneven_weights_do_not_hide_the_untried_one() -> None:
    cluster = cluster_of()
    cluster.apply(snapshot(Endpoint("z", 80), Endpoint("a", 80, weight=256), Endpoint("b", 80)))
    fail(cluster, "z")
    for _ in range(257):  # from every place of the cycle
        assert picks(cluster, 1, tried=[state_of(cluster, "a")]) == "b"
        cluster.pick(NOW)


def test_has_untried() -> None:
    cluster = cluster_of("a", "b", "c")
    a, b, _ = cluster.endpoints.values()
    assert cluster.has_untried(())
    assert cluster.has_untried([a, b])
    fail(cluster, "c")
    assert not cluster.has_untried([a, b]), "an open endpoint may not be picked"
    assert not cluster_of().has_untried(())


# Reporting


def test_every_attempt_is_counted_by_its_outcome() -> None:
    cluster = cluster_of("a", breaker_threshold=100)
    for outcome in (*Outcome, Outcome.SUCCESS):
        cluster.report(state_of(cluster, "a"), outcome, NOW, state_of(cluster, "a").breaker.permit)
    assert list(state_of(cluster, "a").attempts) == [2] + [1] * (len(Outcome) - 1)


def test_success_between_failures_is_heard() -> None:
    cluster = cluster_of("a", breaker_threshold=2)
    for _ in range(3):
        fail(cluster, "a")
        cluster.report(state_of(cluster, "a"), Outcome.SUCCESS, NOW, state_of(cluster, "a").breaker.permit)
    assert state_of(cluster, "a").breaker.state is CLOSED


def test_the_picker_is_replaced_only_when_a_breaker_moves() -> None:
    cluster = cluster_of("a", breaker_threshold=2)
    picker = cluster.picker
    cluster.report(state_of(cluster, "a"), Outcome.SUCCESS, NOW, state_of(cluster, "a").breaker.permit)
    fail(cluster, "a")
    assert cluster.picker is picker
    fail(cluster, "a")
    assert cluster.picker is not picker


def test_an_opening_breaker_closes_its_idle_connections_only() -> None:
    cluster = cluster_of("a", "b", breaker_threshold=2)
    failing, fine = resting(state_of(cluster, "a")), resting(state_of(cluster, "b"))
    fail(cluster, "a")
    assert (failing.closed, fine.closed) == (False, False)
    fail(cluster, "a")
    assert (failing.closed, fine.closed) == (True, False)


def test_whoever_a_closing_connection_lets_in_does_not_meet_the_endpoint_that_it_left() -> None:
    cluster = cluster_of("a", "b")
    met: list[str] = []

    class Nosy(Connection):
        def close(self) -> None:
            super().close()
            met.append(picks(cluster, 2))

    for host in ("a", "b"):
        pool = state_of(cluster, host).pool
        pool.admit(Waiter())
        pool.give_back(Nosy(pool))
    fail(cluster, "a")
    cluster.apply(snapshot(Endpoint("c", 80)))
    assert met == ["bb", "cc"]


# Probing (behaviour 27)


def test_one_request_probes_when_the_open_time_is_over() -> None:
    cluster = cluster_of("a", "b")
    fail(cluster, "a")
    assert picks(cluster, 2, now=NOW + OPEN_FOR - 0.001) == "bb"
    assert picks(cluster, 4, now=NOW + OPEN_FOR) == "abbb"
    assert state_of(cluster, "a").breaker.state is HALF_OPEN


def test_a_probe_that_succeeds_brings_the_endpoint_back() -> None:
    cluster = cluster_of("a", "b")
    fail(cluster, "a")
    probe = cluster.pick(NOW + OPEN_FOR)
    assert probe is state_of(cluster, "a")
    cluster.report(probe, Outcome.SUCCESS, NOW + OPEN_FOR, probe.breaker.permit)
    assert probe.breaker.state is CLOSED
    assert probe.attempts[Outcome.SUCCESS] == 1
    assert sorted(picks(cluster, 4, now=NOW + OPEN_FOR)) == list("aabb")


def test_a_probe_that_fails_waits_again() -> None:
    cluster = cluster_of("a")
    fail(cluster, "a")
    probe = cluster.pick(NOW + OPEN_FOR)
    assert probe is not None
    cluster.report(probe, Outcome.TOO_MANY_REQUESTS, NOW + OPEN_FOR, probe.breaker.permit)
    assert probe.breaker.state is OPEN
    assert picks(cluster, 1, now=NOW + 2 * OPEN_FOR - 0.001) == "-"
    assert picks(cluster, 2, now=NOW + 2 * OPEN_FOR) == "a-"


def test_the_breaker_that_has_waited_longest_is_probed_first() -> None:
    cluster = cluster_of("a", "b", "c", panic_all=False)
    fail(cluster, "c", NOW)
    fail(cluster, "a", NOW + 2)
    fail(cluster, "b", NOW + 1)
    assert picks(cluster, 4, now=NOW + 100) == "cba-"


def test_a_probe_is_not_sent_where_the_exchange_has_been() -> None:
    cluster = cluster_of("a", "b", panic_all=False)
    fail(cluster, "a")
    fail(cluster, "b", NOW + 1)
    late = NOW + 100
    assert picks(cluster, 1, now=late, tried=[state_of(cluster, "a")]) == "b"
    assert picks(cluster, 1, now=late, tried=[state_of(cluster, "a")]) == "-"
    assert picks(cluster, 1, now=late) == "a"


def test_with_nowhere_else_to_probe_there_is_no_probe() -> None:
    cluster = cluster_of("a")
    fail(cluster, "a")
    assert picks(cluster, 1, now=NOW + OPEN_FOR, tried=[state_of(cluster, "a")]) == "-"
    assert state_of(cluster, "a").breaker.state is OPEN, "its probe is left to another exchange"


def test_a_probe_that_was_not_sent_goes_to_the_next_request() -> None:
    cluster = cluster_of("a", "b")
    fail(cluster, "a")
    probe = cluster.pick(NOW + OPEN_FOR)
    assert probe is not None
    cluster.judge(probe, Outcome.CANCELLED, NOW + OPEN_FOR, probe.breaker.permit)
    assert sum(probe.attempts) == 1, "no attempt was made"
    assert picks(cluster, 2, now=NOW + OPEN_FOR) == "ab"


def test_a_probe_whose_client_left_goes_to_the_next_request() -> None:
    cluster = cluster_of("a")
    fail(cluster, "a")
    probe = cluster.pick(NOW + OPEN_FOR)
    assert probe is not None
    cluster.report(probe, Outcome.CANCELLED, NOW + OPEN_FOR, probe.breaker.permit)
    assert probe.attempts[Outcome.CANCELLED] == 1
    assert picks(cluster, 2, now=NOW + OPEN_FOR) == "a-"


def test_a_probe_that_goes_on_for_hours_is_settled_by_its_head() -> None:
    cluster = cluster_of("a")
    fail(cluster, "a")
    probe = cluster.pick(NOW + OPEN_FOR)
    assert probe is not None
    attempts = list(probe.attempts)
    cluster.judge(probe, Outcome.SUCCESS, NOW + OPEN_FOR, probe.breaker.permit)
    assert probe.breaker.state is CLOSED
    assert list(probe.attempts) == attempts, "the attempt has not ended"
    assert picks(cluster, 2, now=NOW + OPEN_FOR) == "aa"


def test_a_request_from_before_does_not_answer_for_the_probe() -> None:
    cluster = cluster_of("a", "b")
    before = state_of(cluster, "a").breaker.permit
    fail(cluster, "a")
    probe = cluster.pick(NOW + OPEN_FOR)
    assert probe is not None
    cluster.report(probe, Outcome.SUCCESS, NOW + OPEN_FOR, before)
    assert probe.breaker.state is HALF_OPEN
    assert picks(cluster, 3, now=NOW + 100) == "bbb"


def test_a_snapshot_does_not_lose_a_waiting_probe() -> None:
    cluster = cluster_of("a", "b")
    fail(cluster, "a")
    cluster.apply(snapshot(Endpoint("a", 80), Endpoint("c", 80)))
    assert picks(cluster, 1, now=NOW) == "c"
    assert picks(cluster, 2, now=NOW + OPEN_FOR) == "ac"


# Shares of the bound


def shares(cluster: Cluster) -> list[int]:
    return [state.pool.share for state in cluster.endpoints.values()]


def test_the_bound_is_shared_by_weight() -> None:
    cluster = cluster_of(max_connections=10)
    cluster.apply(snapshot(Endpoint("a", 80), Endpoint("b", 80, weight=3), Endpoint("c", 80, weight=4)))
    assert shares(cluster) == [2, 4, 5], "rounded up: nobody is left without, and no room is left unused"


def test_only_closed_endpoints_have_a_share_of_it() -> None:
    cluster = cluster_of("a", "b", "c", max_connections=6)
    assert shares(cluster) == [2, 2, 2]
    fail(cluster, "b")
    assert [shares(cluster)[0], shares(cluster)[2]] == [3, 3]
    probe = cluster.pick(NOW + OPEN_FOR)
    assert probe is state_of(cluster, "b")
    assert [shares(cluster)[0], shares(cluster)[2]] == [3, 3], "a probe is no endpoint like the others yet"
    cluster.report(probe, Outcome.SUCCESS, NOW + OPEN_FOR, probe.breaker.permit)
    assert shares(cluster) == [2, 2, 2]


def test_with_nobody_closed_there_is_nothing_to_share() -> None:
    cluster = cluster_of("a", max_connections=6)
    fail(cluster, "a")
    assert cluster.refusal is Reason.ALL_OPEN


def test_a_snapshot_shares_anew() -> None:
    cluster = cluster_of("a", "b", max_connections=6)
    cluster.apply(snapshot(Endpoint("a", 80)))
    assert shares(cluster) == [6]
    cluster.apply(snapshot(*(Endpoint(host, 80) for host in "abcd")))
    assert shares(cluster) == [2, 2, 2, 2]


# Workers that share their breakers


class Sharing:
    """Tells every other cluster what one of them did, as the supervisor does."""

    def __init__(self, *clusters: Cluster) -> None:
        self.clusters = clusters
        self.told: list[tuple[str, BreakerState | str]] = []
        for cluster in clusters:
            cluster.watcher = self

    def moved(self, cluster: Cluster, state: EndpointState, now: float) -> None:
        breaker = state.breaker
        self.told.append((state.endpoint.host, breaker.state))
        until = now + 5.0 if breaker.state is HALF_OPEN else breaker.open_until
        for other in self.clusters:
            if other is not cluster:
                other.adopt(state.endpoint.key, breaker.state, now, until, breaker.opened_in_a_row)

    def held(self, cluster: Cluster, state: EndpointState, now: float) -> None:
        self.told.append((state.endpoint.host, state.breaker.held))


def test_a_trip_is_everybodys_and_told_once() -> None:
    one, two = cluster_of("a", "b"), cluster_of("a", "b")
    sharing = Sharing(one, two)
    kept = Connection(state_of(two, "a").pool)
    state_of(two, "a").pool.admit(Waiter())
    state_of(two, "a").pool.give_back(kept)
    fail(one, "a")
    assert sharing.told == [("a", OPEN)], "what is adopted is not told on"
    assert picks(two, 3) == "bbb"
    assert kept.closed, "an idle connection to it is not worth keeping here either"


def test_one_probe_for_all_and_its_success_closes_all() -> None:
    one, two = cluster_of("a", "b"), cluster_of("a", "b")
    sharing = Sharing(one, two)
    fail(one, "a")
    over = NOW + OPEN_FOR
    probe = two.pick(over)
    assert probe is state_of(two, "a")
    assert picks(one, 4, over) == "bbbb", "the probe is out in the other"
    two.report(probe, Outcome.SUCCESS, over + 1.0, probe.breaker.permit)
    assert sorted(picks(one, 4, over + 1.0)) == ["a", "a", "b", "b"]
    assert sharing.told == [("a", OPEN), ("a", HALF_OPEN), ("a", CLOSED)]


def test_a_probe_that_nobody_answers_for_is_sent_by_another_later() -> None:
    one, two = cluster_of("a", "b"), cluster_of("a", "b")
    Sharing(one, two)
    fail(one, "a")
    over = NOW + OPEN_FOR
    assert two.pick(over) is state_of(two, "a")  # and that worker dies
    assert "a" not in picks(one, 4, over + 4.9)
    assert one.pick(over + 5.0) is state_of(one, "a")


def test_what_checks_hold_open_without_a_move_is_told_too() -> None:
    one, two = cluster_of("a", "b"), cluster_of("a", "b")
    sharing = Sharing(one, two)
    a = state_of(one, "a")
    fail(one, "a")
    one.check(a, False, NOW)
    one.check(a, False, NOW)
    one.release(a, NOW)
    one.release(a, NOW)
    assert sharing.told == [("a", OPEN), ("a", "checks"), ("a", "")]
    assert two.pick(NOW + OPEN_FOR) is state_of(two, "a"), "the other has its own checks to go by"


def test_a_new_worker_begins_with_what_checks_hold_open() -> None:
    cluster = cluster_of("a", "b")
    a = state_of(cluster, "a")
    cluster.adopt(("a", 80), OPEN, NOW, NOW + 1.0, 1, True)
    assert picks(cluster, 4, NOW + 100.0) == "bbbb", "no probe"
    cluster.check(a, True, NOW + 101.0)
    assert picks(cluster, 4, NOW + 102.0) == "bbbb", "one is not `rise`"
    cluster.check(a, True, NOW + 103.0)
    assert sorted(picks(cluster, 4, NOW + 103.0)) == ["a", "a", "b", "b"]


def test_an_endpoint_that_this_worker_does_not_have() -> None:
    cluster = cluster_of("a")
    cluster.adopt(("z", 80), OPEN, NOW, NOW + 1.0, 1)
    assert picks(cluster, 2) == "aa"


# Too few left


def test_when_more_than_half_should_be_out_all_are_used() -> None:
    cluster = cluster_of("a", "b", "c")
    fail(cluster, "a")
    assert (picks(cluster, 4), cluster.panic) == ("bcbc", False)
    fail(cluster, "b")
    assert (sorted(picks(cluster, 6)), cluster.panic) == (list("aabbcc"), True)
    cluster.reset([state_of(cluster, "a")], NOW)
    assert (sorted(picks(cluster, 4)), cluster.panic) == (list("aacc"), False)


def test_in_panic_a_retry_goes_to_one_that_is_expected_to_serve() -> None:
    cluster = cluster_of("a", "b", "c")
    fail(cluster, "a")
    fail(cluster, "b")
    assert picks(cluster, 5, tried=[state_of(cluster, "a")]) == "ccccc"
    assert cluster.has_untried([state_of(cluster, "c")])
    assert not cluster.has_sound([state_of(cluster, "c")]), "nobody who would be worth it for nothing"
    assert set(picks(cluster, 8, tried=[state_of(cluster, "c")])) == {"a", "b"}


def test_panic_can_mean_to_fail() -> None:
    cluster = cluster_of("a", "b", "c", panic_all=False)
    for host in "abc":
        fail(cluster, host)
    assert (picks(cluster, 1), cluster.panic) == ("-", True)


def test_an_endpoint_alone_is_never_panicked_about() -> None:
    cluster = cluster_of("a")
    fail(cluster, "a")
    assert (picks(cluster, 1), cluster.panic) == ("-", False)


def test_in_panic_connections_are_kept_and_the_bound_holds() -> None:
    cluster = cluster_of("a", "b", max_connections=2)
    kept = resting(state_of(cluster, "a"))
    fail(cluster, "b")
    fail(cluster, "a")
    assert not kept.closed
    assert shares(cluster) == [1, 1]


def test_an_open_endpoint_of_panic_is_still_probed_and_comes_back() -> None:
    cluster = cluster_of("a", "b")
    fail(cluster, "a")
    fail(cluster, "b", NOW + 1)
    probe = cluster.pick(NOW + OPEN_FOR)
    assert probe is state_of(cluster, "a")
    cluster.report(probe, Outcome.SUCCESS, NOW + OPEN_FOR, probe.breaker.permit)
    assert (picks(cluster, 3, NOW + OPEN_FOR), cluster.panic) == ("aaa", False)


def test_with_all_allowed_to_go_one_must_be_left() -> None:
    cluster = cluster_of("a", "b", "c", max_ejected=1.0)
    fail(cluster, "a")
    fail(cluster, "b")
    assert picks(cluster, 3) == "ccc"
    fail(cluster, "c")
    assert sorted(picks(cluster, 3)) == ["a", "b", "c"]


# Observing, and somebody's hand


def test_a_breaker_that_only_observes_keeps_nobody_away() -> None:
    cluster = cluster_of("a", "b", observe_only=True)
    kept = resting(state_of(cluster, "a"))
    fail(cluster, "a")
    fail(cluster, "b")
    assert state_of(cluster, "a").breaker.state is OPEN
    assert (sorted(picks(cluster, 4)), kept.closed) == (list("aabb"), False)
    assert cluster.has_untried([state_of(cluster, "a")])


def test_what_is_tripped_is_not_there() -> None:
    cluster = cluster_of("a", "b", "c")
    kept = resting(state_of(cluster, "a"))
    cluster.trip([state_of(cluster, "a")], NOW)
    assert kept.closed
    assert (picks(cluster, 4, NOW + 1000), cluster.panic) == ("bcbc", False)
    fail(cluster, "b")
    assert picks(cluster, 3) == "ccc", "half of the two that are left"
    fail(cluster, "c")
    assert sorted(picks(cluster, 2)) == ["b", "c"], "in panic too it stays away"
    cluster.reset([state_of(cluster, "a")], NOW)
    assert (sorted(picks(cluster, 3)), cluster.panic) == (["a", "b", "c"], True)


def test_with_all_tripped_nobody_serves() -> None:
    cluster = cluster_of("a", "b")
    for host in "ab":
        cluster.trip([state_of(cluster, host)], NOW)
    assert (picks(cluster, 1), cluster.refusal, cluster.panic) == ("-", Reason.ALL_OPEN, False)


def test_a_trip_lasts_over_snapshots() -> None:
    cluster = cluster_of("a", "b")
    cluster.trip([state_of(cluster, "a")], NOW)
    cluster.apply(snapshot(Endpoint("a", 80), Endpoint("b", 80)))
    assert picks(cluster, 2) == "bb"


class Staying:
    """A session that would end with its endpoint's place in the rotation."""

    def __init__(self) -> None:
        self.ended = False

    def endpoint_left(self) -> None:
        self.ended = True


def test_what_is_drained_gets_nothing_new_and_finishes_what_it_has() -> None:
    cluster = cluster_of("a", "b", "c", slow_start=10.0)
    state, session = state_of(cluster, "a"), Staying()
    state.sessions.add(session)
    kept = resting(state)
    cluster.drain([state], NOW)
    assert (picks(cluster, 4), cluster.panic, kept.closed) == ("bcbc", False, True)
    assert (session.ended, state.breaker.state) == (False, CLOSED)
    fail(cluster, "a")
    fail(cluster, "b")
    assert (state.breaker.state, cluster.panic) == (OPEN, False), "its breaker goes on by itself"
    assert session.ended, "it is not well any more"
    assert set(picks(cluster, 4, NOW + OPEN_FOR)) == {"b", "c"}, "it gets no probe"
    assert cluster.peek(NOW + 2 * OPEN_FOR)[0] is not state
    cluster.reset([state], NOW)
    assert "a" not in picks(cluster, 4), "a reset is about its breaker"
    cluster.enable([state], NOW)
    assert "a" in picks(cluster, 30)
    assert state.weight < state_of(cluster, "c").weight, "it starts slowly"


@pytest.mark.parametrize(
    ("how", "ended"),
    [("watched", False), ("panic", False), ("opened", True), ("tripped", True), ("gone", True)],
)
def test_sessions_of_a_drained_endpoint_end_as_if_it_were_not(how: str, ended: bool) -> None:
    cluster = cluster_of(
        "a", "b", "c", observe_only=how == "watched", min_available=2 if how == "panic" else 1
    )
    state, session = state_of(cluster, "a"), Staying()
    state.sessions.add(session)
    cluster.drain([state], NOW)
    if how == "tripped":
        cluster.trip([state], NOW)
    elif how == "gone":
        cluster.apply(snapshot(Endpoint("b", 80), Endpoint("c", 80)))
    else:
        fail(cluster, "b" if how == "panic" else "a")
        fail(cluster, "a")
    assert (session.ended, cluster.keeps_sessions(state)) == (ended, not ended)


def test_with_all_drained_that_is_the_reason() -> None:
    cluster = cluster_of("a", "b")
    cluster.drain(cluster.endpoints.values(), NOW)
    assert (picks(cluster, 1), cluster.refusal, cluster.panic) == ("-", Reason.DRAINING, False)
    cluster.enable(cluster.endpoints.values(), NOW)
    assert sorted(picks(cluster, 2)) == ["a", "b"]


def test_to_enable_what_was_never_drained_is_no_slow_start() -> None:
    cluster = cluster_of("a", slow_start=10.0)
    cluster.enable(cluster.endpoints.values(), NOW)
    assert state_of(cluster, "a").since < NOW


def test_drained_lasts_over_snapshots() -> None:
    cluster = cluster_of("a", "b")
    cluster.drain([state_of(cluster, "a")], NOW)
    cluster.apply(snapshot(Endpoint("a", 80), Endpoint("b", 80)))
    assert picks(cluster, 2) == "bb"


# Health checks


def test_an_endpoint_that_fails_its_checks_leaves_and_comes_back_slowly() -> None:
    cluster = cluster_of("a", "b", check_fall=2, check_rise=2, slow_start=10.0)
    two = Sharing(cluster)
    state = state_of(cluster, "a")
    cluster.check(state, True, NOW)
    for _ in range(2):
        cluster.check(state, False, NOW)
    assert picks(cluster, 3, NOW + 1000) == "bbb", "no request asks how it is"
    for _ in range(2):
        cluster.check(state, True, NOW + 1000)
    assert picks(cluster, 10, NOW + 1000).count("a") < 3
    assert two.told == [("a", OPEN), ("a", CLOSED)]


def test_checks_of_one_that_has_gone_change_nothing() -> None:
    cluster = cluster_of("a", "b")
    gone = state_of(cluster, "a")
    cluster.apply(snapshot(Endpoint("b", 80)))
    cluster.check(gone, False, NOW)
    assert gone.breaker.state is CLOSED


# An endpoint's own bound


def busy(state: EndpointState, count: int) -> None:
    """So many of its connections carry something."""
    for _ in range(count):
        assert state.pool.admit(Waiter(), probe=True) is Admission.OPEN


class Told(Waiter):
    """A waiter of a queue, and what it was told."""

    def __init__(self) -> None:
        self.told: list[PooledConnection | None] = []

    def avoids(self, connection: PooledConnection) -> bool:
        return False

    def proceed(self, connection: PooledConnection | None) -> None:
        self.told.append(connection)


@pytest.mark.parametrize("strategy", ["round_robin", "least_request", "random", "peak_ewma", "ring_hash"])
@pytest.mark.parametrize("zone", ["", "here"])
def test_an_endpoint_without_room_is_passed_over(strategy: str, zone: str) -> None:
    cluster = cluster_of(strategy=strategy, zone=zone, max_connections_per_endpoint=1)
    cluster.apply(snapshot(*(Endpoint(host, 80, zone="here" if host < "c" else "there") for host in "abcd")))
    a, b, c, d = cluster.endpoints.values()
    for full in (a, b, c):
        busy(full, 1)
    for picked in (a, b, c):
        assert cluster.with_room(picked, NOW, (), 7) is d
    assert cluster.with_room(d, NOW, (), 7) is d
    busy(d, 1)
    assert cluster.with_room(a, NOW, (), 7) is a, "nobody has room: to the queue"


def test_without_a_bound_of_its_own_an_endpoint_has_room() -> None:
    cluster = cluster_of("a", "b")
    a, _ = cluster.endpoints.values()
    busy(a, 500)
    assert cluster.with_room(a, NOW, (), 0) is a


def test_an_idle_connection_is_room_too() -> None:
    cluster = cluster_of("a", "b", max_connections_per_endpoint=1)
    a, b = cluster.endpoints.values()
    busy(a, 1)
    busy(b, 1)
    b.pool.give_back(Connection(b.pool))
    assert cluster.with_room(a, NOW, (), 0) is b


def test_room_at_one_that_was_tried_is_better_than_none() -> None:
    cluster = cluster_of("a", "b", "c", max_connections_per_endpoint=1)
    a, b, c = cluster.endpoints.values()
    busy(a, 1)
    assert cluster.with_room(a, NOW, (b,), 0) is c
    busy(c, 1)
    assert cluster.with_room(a, NOW, (b,), 0) is b


def test_a_probe_stays_where_it_is() -> None:
    cluster = cluster_of("a", "b", max_connections_per_endpoint=1)
    a, _ = cluster.endpoints.values()
    busy(a, 1)
    fail(cluster, "a")
    probe = cluster.pick(NOW + OPEN_FOR)
    assert probe is a
    assert cluster.with_room(a, NOW + OPEN_FOR, (), 0) is a


def test_who_waits_hears_of_an_endpoint_that_is_back_or_new() -> None:
    cluster = cluster_of("a", "b", max_connections_per_endpoint=1)
    a, b = cluster.endpoints.values()
    fail(cluster, "b")
    busy(a, 1)
    waiting = [Told() for _ in range(4)]
    for waiter in waiting:
        assert a.pool.admit(waiter) is Admission.WAIT
    probe = cluster.pick(NOW + OPEN_FOR)
    assert probe is b
    assert [waiter.told for waiter in waiting] == [[]] * 4
    cluster.report(probe, Outcome.SUCCESS, NOW + OPEN_FOR, probe.breaker.permit)
    assert all(waiter.told == [None] for waiter in waiting), "they take no room here, and so all are told"

    waiter = Told()
    busy(b, 1)
    assert a.pool.admit(waiter) is Admission.WAIT
    cluster.apply(snapshot(*(Endpoint(host, 80) for host in "abc")))
    assert waiter.told == [None]


def test_who_waits_hears_of_an_endpoint_that_is_back_for_another_worker() -> None:
    cluster = cluster_of("a", "b", max_connections_per_endpoint=1)
    a, b = cluster.endpoints.values()
    fail(cluster, "b")
    busy(a, 1)
    waiter = Told()
    a.pool.admit(waiter)
    cluster.adopt(b.endpoint.key, CLOSED, NOW + 1.0, 0.0, 0)
    assert waiter.told == [None]


def test_who_waits_hears_that_nobody_is_left() -> None:
    cluster = cluster_of("a", max_connections_per_endpoint=1)
    (a,) = cluster.endpoints.values()
    busy(a, 1)
    waiter = Told()
    a.pool.admit(waiter)
    fail(cluster, "a")
    assert waiter.told == [None]


def test_who_waits_is_not_woken_for_endpoints_that_go() -> None:
    cluster = cluster_of("a", "b", "c", max_connections_per_endpoint=2)
    a, b, c = cluster.endpoints.values()
    busy(a, 2)
    for going in (b, c):
        busy(going, 2)
    waiter = Told()
    assert a.pool.admit(waiter) is Admission.WAIT
    b.pool.idle.append(Connection(b.pool))
    c.pool.idle.append(Connection(c.pool))
    cluster.apply(snapshot(Endpoint("a", 80)))
    assert waiter.told == []
    assert (b.pool.open, c.pool.open) == (1, 1)


def test_who_has_no_room_is_no_place_to_move_on_to() -> None:
    cluster = cluster_of("a", "b", max_connections_per_endpoint=1)
    a, b = cluster.endpoints.values()
    assert cluster.has_untried([a])
    busy(b, 1)
    assert not cluster.has_untried([a])
    b.pool.give_back(Connection(b.pool))
    assert cluster.has_untried([a]), "an idle connection is room too"


def test_a_retry_is_no_probe_while_somebody_is_expected_to_serve() -> None:
    cluster = cluster_of("a", "b", "c", "d")
    fail(cluster, "a")
    fail(cluster, "b")
    late = NOW + OPEN_FOR
    assert set(picks(cluster, 4, late, tried=[state_of(cluster, "c")])) == {"d"}
    assert not cluster.gave_probe
    assert picks(cluster, 1, late) == "a"
    assert cluster.gave_probe
    both = [state_of(cluster, "c"), state_of(cluster, "d")]
    assert picks(cluster, 1, late, tried=both) == "b", "nobody else is left for it"


def test_in_panic_with_nobody_closed_a_retry_goes_to_who_was_not_asked() -> None:
    cluster = cluster_of("a", "b", "c")
    for host in "abc":
        fail(cluster, host)
    assert cluster.has_untried([state_of(cluster, "a")])
    assert not cluster.has_sound([state_of(cluster, "a")]), "each request would ask each of them"
    assert set(picks(cluster, 6, tried=[state_of(cluster, "a")])) == {"b", "c"}


def test_the_picks_of_panic_are_no_probes() -> None:
    cluster = cluster_of("a", "b")
    fail(cluster, "a")
    fail(cluster, "b")
    assert picks(cluster, 1, NOW + OPEN_FOR) == "a"
    assert cluster.gave_probe
    cluster.pick(NOW + OPEN_FOR)
    assert cluster.gave_probe, "the other one's"
    cluster.pick(NOW + OPEN_FOR)
    assert not cluster.gave_probe


def test_observing_a_probe_is_whoever_has_its_turn() -> None:
    cluster = cluster_of("a", "b", observe_only=True, slow_start=10.0)
    fail(cluster, "a")
    late = NOW + OPEN_FOR
    cluster.pick(late)  # wherever the turn is
    assert picks(cluster, 4, late) in ("abab", "baba"), "nobody goes first"
    assert state_of(cluster, "a").breaker.state is HALF_OPEN
    assert cluster.peek(late)[1] == "its turn"


def test_one_that_never_left_does_not_start_slowly() -> None:
    cluster = cluster_of("a", "b", observe_only=True, slow_start=10.0)
    fail(cluster, "a")
    state = state_of(cluster, "a")
    while not (cluster.pick(NOW + OPEN_FOR) is state and cluster.gave_probe):
        pass
    cluster.report(state, Outcome.SUCCESS, NOW + OPEN_FOR, state.breaker.permit)
    assert state.breaker.state is CLOSED
    assert sorted(picks(cluster, 10, NOW + OPEN_FOR)) == list("aaaaabbbbb")


def test_what_checks_hold_open_is_not_looked_at_with_every_pick_and_probed_once_it_is_released() -> None:
    cluster = cluster_of("a", "b", check_fall=1, panic_all=False)
    state = state_of(cluster, "a")
    fail(cluster, "a")
    assert cluster._look_at == NOW + OPEN_FOR
    cluster.check(state, False, NOW)
    assert cluster._look_at == float("inf"), "it is open, and has no probe to send"
    cluster.release(state, NOW)
    assert picks(cluster, 2, NOW + OPEN_FOR) == "ab"


@pytest.mark.parametrize("hosts", ["ab", "abc", "abcd"])
def test_what_is_next_is_next_also_when_the_cycle_has_shrunk(hosts: str) -> None:
    for turns in range(6):
        cluster = cluster_of(*hosts, panic_all=False)
        picks(cluster, turns)
        fail(cluster, hosts[-1])
        told, _ = cluster.peek(NOW)
        assert cluster.pick(NOW) is told


def test_an_endpoint_that_comes_back_counts_on_with_a_new_breaker() -> None:
    cluster = cluster_of("a", "b")
    fail(cluster, "a")
    fail(cluster, "a")
    was = state_of(cluster, "a")
    cluster.apply(snapshot(Endpoint("b", 80)))
    cluster.apply(snapshot(Endpoint("a", 80), Endpoint("b", 80)))

    now = state_of(cluster, "a")
    assert now is not was
    assert now.breaker.state is CLOSED
    assert now.attempts[Outcome.RESET] == 2
    now.count(Outcome.RESET)
    assert now.attempts[Outcome.RESET] == 3
    # What was still under way when it left ends later, and is not lost.
    cluster.report(was, Outcome.SUCCESS, NOW, 0)
    assert now.attempts[Outcome.SUCCESS] == 1


def test_the_time_of_attempts_goes_with_their_count() -> None:
    cluster = cluster_of("a", "b")
    was = state_of(cluster, "a")
    for outcome in Outcome:
        cluster.report(was, outcome, NOW, 0, 0.5)
    assert (was.timed_attempts, was.attempt_seconds) == (len(Outcome) - 3, (len(Outcome) - 3) * 0.5)
    cluster.apply(snapshot(Endpoint("b", 80)))
    cluster.report(was, Outcome.SUCCESS, NOW, 0, 4.0)  # ends while it is away
    cluster.apply(snapshot(Endpoint("a", 80), Endpoint("b", 80)))
    now = state_of(cluster, "a")
    assert (now.timed_attempts, now.attempt_seconds) == (len(Outcome) - 2, (len(Outcome) - 3) * 0.5 + 4.0)
    cluster.report(was, Outcome.SUCCESS, NOW, 0, 8.0)  # and after it has come back
    assert (now.timed_attempts, now.attempt_seconds) == (len(Outcome) - 1, (len(Outcome) - 3) * 0.5 + 12.0)


def test_the_time_of_attempts_does_not_fall_when_one_outlasts_two_changes() -> None:
    cluster = cluster_of("a", "b")
    was = state_of(cluster, "a")
    cluster.apply(snapshot(Endpoint("b", 80)))
    cluster.apply(snapshot(Endpoint("a", 80), Endpoint("b", 80)))
    cluster.report(state_of(cluster, "a"), Outcome.SUCCESS, NOW, 0, 2.0)
    cluster.apply(snapshot(Endpoint("b", 80)))
    cluster.report(was, Outcome.SUCCESS, NOW, 0, 4.0)
    cluster.apply(snapshot(Endpoint("a", 80), Endpoint("b", 80)))
    now = state_of(cluster, "a")
    assert (now.timed_attempts, now.attempt_seconds) == (2, 6.0)


def test_the_time_of_an_attempt_that_nobody_counts_any_more_is_nobodys() -> None:
    cluster = cluster_of("a", "b")
    was = state_of(cluster, "a")
    cluster.apply(snapshot(Endpoint("b", 80)))
    cluster._left.clear()  # as so many have left
    cluster.apply(snapshot(Endpoint("a", 80), Endpoint("b", 80)))
    cluster.report(was, Outcome.SUCCESS, NOW, 0, 4.0)
    now = state_of(cluster, "a")
    assert (now.timed_attempts, now.attempt_seconds) == (0, 0.0)


def test_totals_of_an_upstream_do_not_fall_when_an_endpoint_goes() -> None:
    cluster = cluster_of("a", "b")
    fail(cluster, "a")
    fail(cluster, "a")
    stats = cluster.stats
    assert stats.attempts[Outcome.RESET] == 2
    assert sum(stats.transitions.values()) == 1
    cluster.apply(snapshot(Endpoint("b", 80)))
    fail(cluster, "b")
    fail(cluster, "b")
    assert stats.attempts[Outcome.RESET] == 4
    assert sum(stats.transitions.values()) == 2


def test_what_has_left_is_remembered_within_bounds() -> None:
    cluster = cluster_of()
    for number in range(3):
        cluster.apply(snapshot(*(Endpoint(f"h{number}-{index}", 80) for index in range(REMEMBERED))))
    cluster.apply(snapshot())
    assert len(cluster._left) == REMEMBERED
    assert ("h2-0", 80) in cluster._left


def test_what_a_router_does_not_route_is_told_apart_from_lack_of_endpoints() -> None:
    clock: Any = FakeClock()
    router = Cluster("front", "http", UpstreamPolicy(), clock)
    assert router.pick(clock.monotonic()) is None
    assert router.refusal is Reason.NO_ENDPOINTS
    router.router = Routes(router, [], clock.uniform)
    assert router.refusal is Reason.NO_ROUTE
    assert router.peek(clock.monotonic()) == (None, "up to the request's route")
