"""Sums: several workers, living and dead, look like one that had counted everything."""

import json
from dataclasses import fields
from functools import partial
from typing import Any

import pytest
from support.clock import FakeClock

from sidecar.admin.views import upstreams_view
from sidecar.cluster import REMEMBERED, Cluster
from sidecar.errors import Reason
from sidecar.model import CheckResult, CloseReason, Endpoint, Limit, Outcome, Snapshot, UpstreamPolicy
from sidecar.observe.metrics import Metrics
from sidecar.proxy import ProxyContext
from sidecar.proxy.router import Route, Routes
from sidecar.resilience import BreakerState, Cause
from sidecar.workers.values import Tree, Whole, add, parts, values_of

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
NOW = 1000.0


class Process:
    """What one worker has, or the supervisor: clusters and a context."""

    def __init__(self, *hosts: str, name: str = "api") -> None:
        clock: Any = FakeClock(NOW)
        loop: Any = None
        self.context = ProxyContext(loop, clock)
        policy = UpstreamPolicy(
            breaker_threshold=1, checked=True, max_connections_per_endpoint=100, max_in_flight=200
        )
        cluster = self.cluster = Cluster(name, "http", policy, clock)
        cluster.apply(Snapshot(name, tuple(Endpoint(host, 80) for host in hosts or ("a", "b")), "static"))
        self.clusters = {name: cluster}
        self.clock = clock

    def values(self) -> Tree:
        """As they come over the wire."""
        values: Tree = json.loads(json.dumps(values_of(self.clusters, self.context)))
        return values

    def work(self, times: int = 1) -> "Process":
        """Something of everything that is counted."""
        stats = self.cluster.stats
        for _ in range(times):
            stats.count_request(0, 200, Reason.NONE, 0.004)
            stats.count_request(2, 503, Reason.ALL_OPEN, 3.0)
            stats.retries[Reason.CONNECT_REFUSED][1] += 1
            stats.sessions[CloseReason.CLIENT_CLOSED] += 1
            stats.connects[0] += 1
            stats.reuse_failures += 1
            stats.deadlines_exceeded += 3
            stats.overflows[Limit.PENDING] += 1
            stats.overflows[Limit.IN_FLIGHT] += 2
            stats.checks[0] += 1
            stats.checks[1] += 2
            stats.checks[2] += 3
            stats.mirrored[1] += 2
            stats.bytes_sent += 10
            stats.bytes_received += 20
            state = self.cluster.endpoints["a", 80]
            self.cluster.report(state, Outcome.SUCCESS, NOW, state.breaker.permit, 0.25)
            self.context.refused += 1
            for number, name in enumerate(fields(self.context.recording)):
                counted = getattr(self.context.recording, name.name)
                setattr(self.context.recording, name.name, counted + number + 1)
        return self

    def use(self) -> "Process":
        """Something of everything that is a gauge."""
        state = self.cluster.endpoints["a", 80]
        self.context.clients += 3
        used, limit = self.context.pipes_elsewhere
        self.context.pipes_elsewhere = (used + 1, limit + 96)
        self.context.checks.running += 1
        self.context.checks.limit += 128
        self.cluster.stats.in_flight += 2
        self.cluster.stats.sessions_active += 1
        self.cluster.limit.used += 2
        self.cluster.limit.pending.append(None)  # type: ignore[arg-type]
        state.in_flight += 2
        state.pool.open += 2
        state.pool.idle.append(None)  # type: ignore[arg-type]
        return self

    def fail(self, host: str, at: float) -> None:
        state = self.cluster.endpoints[host, 80]
        self.cluster.report(state, Outcome.RESET, at, state.breaker.permit)

    def scrape(self) -> str:
        """At each level of detail."""
        return "".join(
            Metrics(self.clusters, self.context, compiled=False, detail=partial(str, detail))
            .render()
            .decode()
            for detail in ("low", "endpoint")
        )


def shown(whole: Whole, *living: Process, slots: int = 2) -> Process:
    """The supervisor's side after it has asked."""
    into = Process()
    whole.show([process.values() for process in living], into.clusters, into.context, slots)
    return into


def test_trees_add_up() -> None:
    one = {"n": 1, "list": [1, [2.5]], "only": 3, "deep": {"x": 1}}
    other = {"n": 2, "list": [10, [0.5]], "deep": {"x": 4, "y": 5}}
    assert add(one, other) == {"n": 3, "list": [11, [3.0]], "only": 3, "deep": {"x": 5, "y": 5}}
    assert add({}, one) == one
    assert one["n"] == 1, "neither is changed"
    with pytest.raises(ValueError, match="zip"):
        add([1], [1, 2])


def test_two_together_are_scraped_as_one_that_did_all() -> None:
    whole, alone = Whole(), Process().work(5).use().use()
    alone.cluster.limit.maximum *= 2
    alone.cluster.limit.max_pending *= 2
    alone.cluster.limit.per_endpoint *= 2
    alone.cluster.limit.max_in_flight *= 2
    together = shown(whole, Process().work(2).use(), Process().work(3).use())
    assert together.scrape() == alone.scrape()
    assert view(together) == view(alone)


def view(process: Process) -> dict[str, Any]:
    return upstreams_view(
        process.clusters, process.clock, mode="local", compiled=True, started_at=0.0, draining=False
    )


def test_nobody_there_is_all_zero() -> None:
    assert 'sidecar_attempts_total{endpoint="a:80",outcome="success",upstream="api"} 0.0' in (
        shown(Whole()).scrape()
    )


def test_what_the_dead_counted_stays_and_what_they_had_open_goes() -> None:
    whole, dead, living = Whole(), Process().work(2).use(), Process().work(1).use()
    whole.bury(dead.values())
    found = shown(whole, living)
    assert found.cluster.endpoints["a", 80].attempts[Outcome.SUCCESS] == 3
    assert sum(found.cluster.stats.requests) == 6
    assert found.context.refused == 3
    assert (found.context.clients, found.cluster.stats.in_flight) == (3, 2)
    whole.bury(living.values())
    assert sum(shown(whole).cluster.stats.requests) == 6


def test_totals_do_not_depend_on_when_somebody_dies() -> None:
    whole, one, two = Whole(), Process().work(2), Process().work(3)
    before = shown(whole, one, two).scrape()
    whole.bury(one.values())
    assert shown(whole, two).scrape() == before


@pytest.mark.parametrize(
    ("states", "whole_is"),
    [
        ((CLOSED, CLOSED), CLOSED),
        ((OPEN, CLOSED), OPEN),
        ((OPEN, HALF_OPEN), HALF_OPEN),
        ((CLOSED, HALF_OPEN), HALF_OPEN),
        ((), CLOSED),
    ],
)
def test_where_the_breaker_of_the_whole_is(states: tuple[BreakerState, ...], whole_is: BreakerState) -> None:
    workers = []
    for number, state in enumerate(states):
        worker = Process()
        breaker = worker.cluster.endpoints["a", 80].breaker
        if state is not CLOSED:
            worker.fail("a", NOW + number)
        if state is HALF_OPEN:
            assert breaker.take_probe(breaker.open_until)
        workers.append(worker)
    found = shown(Whole(), *workers).cluster.endpoints["a", 80].breaker
    assert found.state is whole_is
    if OPEN in states:
        assert found.open_until == workers[states.index(OPEN)].cluster.endpoints["a", 80].breaker.open_until
    assert found.probing is (HALF_OPEN in states)


def test_the_journal_is_everybodys_own_moves_in_order() -> None:
    whole, one, two = Whole(), Process(), Process()
    one.fail("a", NOW)
    two.cluster.adopt(("a", 80), OPEN, NOW, NOW + 1.0, 1)
    two.cluster.pick(NOW + 1.0)
    two.fail("a", NOW + 1.5)
    whole.bury(one.values())
    breaker = shown(whole, two).cluster.endpoints["a", 80].breaker
    assert [(entry.at, entry.cause) for entry in breaker.journal] == [
        (NOW, Cause.CONSECUTIVE_FAILURES),
        (NOW + 1.0, Cause.OPEN_TIME_OVER),
        (NOW + 1.5, Cause.PROBE_FAILED),
    ]
    assert breaker.transitions[OPEN, Cause.SHARED] == 1
    assert breaker.transitions[OPEN, Cause.CONSECUTIVE_FAILURES] == 1
    assert breaker.journal[0].evidence is Outcome.RESET


def test_what_a_reload_has_removed_is_forgotten() -> None:
    whole = Whole()
    dead = Process("a", "z").work()
    dead.fail("z", NOW)
    whole.bury(dead.values())
    whole.bury(Process(name="gone").work().values())
    kept = Process("a")
    whole.forget_all_but(kept.clusters)
    into = Process("a", "z")
    whole.show([], {**into.clusters, **Process(name="gone").clusters}, into.context, 1)
    assert into.cluster.endpoints["a", 80].attempts[Outcome.SUCCESS] == 1
    assert into.cluster.endpoints["z", 80].attempts[Outcome.RESET] == 1, "as one process has it"
    assert not into.cluster.endpoints["z", 80].breaker.journal
    assert sum(into.cluster.stats.requests) == 2, "the upstream's own stay"


def test_an_endpoint_that_comes_back_has_what_dead_workers_had_counted_for_it() -> None:
    whole, dead = Whole(), Process().work(5)
    dead.fail("b", NOW)
    whole.bury(dead.values())
    before = shown(whole).cluster.endpoints["b", 80]
    for there in (Process("a"), Process("a", "b")):  # a reload has other clusters
        whole.forget_all_but(there.clusters)
        whole.forget_gone(there.cluster)
    after = shown(whole).cluster.endpoints["b", 80]
    assert sum(before.attempts) == sum(after.attempts) > 0
    assert (after.attempts, after.attempt_seconds) == (before.attempts, before.attempt_seconds)
    assert before.breaker.transitions
    assert not after.breaker.transitions, "a breaker knows nothing of then"


def test_of_endpoints_that_have_gone_the_last_ones_are_kept() -> None:
    whole = Whole()
    for number in range(0, REMEMBERED + 200, 100):
        hosts = [f"h{number + one}" for one in range(100)]
        whole.bury(Process("a", *hosts).work().values())
        whole.forget_gone(Process("a").cluster)
    kept = list(whole._past["upstreams"]["api"]["endpoints"])
    assert kept == [f"h{number} 80" for number in range(200, REMEMBERED + 200)] + ["a 80"]


def test_nothing_buried_is_nothing_to_forget() -> None:
    whole = Whole()
    whole.forget_all_but(Process().clusters)
    assert sum(shown(whole).cluster.stats.requests) == 0


def test_the_evidence_of_a_window_is_told() -> None:
    one = Process()
    state = one.cluster.endpoints["a", 80]
    one.cluster.report(state, Outcome.SUCCESS, 5.0, state.breaker.permit)
    one.fail("a", 5.0)
    found = shown(Whole(), one)
    assert [
        (entry.cause, entry.good, entry.bad) for entry in found.cluster.endpoints["a", 80].breaker.journal
    ] == [(entry.cause, entry.good, entry.bad) for entry in one.cluster.endpoints["a", 80].breaker.journal]
    (entry,) = one.cluster.endpoints["a", 80].breaker.journal
    assert (entry.good, entry.bad) == (1, 1)


def test_who_is_out_of_rotation_and_why() -> None:
    one, two, whole = Process(), Process(), Process()
    for process in (one, two):
        state = process.cluster.endpoints["a", 80]
        process.cluster.trip([state], NOW)
    one.cluster.check(one.cluster.endpoints["b", 80], False, NOW)
    Whole().show([one.values(), two.values()], whole.clusters, whole.context, 2)
    view = upstreams_view(
        whole.clusters, whole.clock, mode="local", compiled=True, started_at=0.0, draining=False
    )["upstreams"][0]
    assert [(endpoint["in_rotation"], endpoint["breaker"]["held"]) for endpoint in view["endpoints"]] == [
        (False, "hand"),
        (True, "checks"),
    ]
    assert not view["panic"]
    two.cluster.reset([two.cluster.endpoints["a", 80]], NOW)
    for host in "ab":
        state = two.cluster.endpoints[host, 80]
        two.cluster.report(state, Outcome.RESET, NOW, state.breaker.permit)
    Whole().show([one.values(), two.values()], whole.clusters, whole.context, 2)
    assert whole.cluster.panic, "one of them is enough"


def test_a_hand_is_told_of_once() -> None:
    """All workers do what it asks for, and so do those that come later."""
    one, two, whole = Process(), Process(), Process()
    shown = Whole()
    key = ("a", 80)
    shown.note("api", whole.cluster.endpoints[key], BreakerState.OPEN, Cause.TRIPPED, NOW)
    for process in (one, two):
        process.cluster.trip([process.cluster.endpoints[key]], NOW)
    shown.show([one.values(), two.values()], whole.clusters, whole.context, 2)
    breaker = whole.cluster.endpoints[key].breaker
    assert breaker.transitions == {(OPEN, Cause.TRIPPED): 1}
    assert [(entry.at, entry.cause) for entry in breaker.journal] == [(NOW, Cause.TRIPPED)]
    shown.note("api", whole.cluster.endpoints[key], BreakerState.CLOSED, Cause.RESET, NOW + 1)
    for process in (one, two):
        process.cluster.reset([process.cluster.endpoints[key]], NOW + 1)
    shown.show([one.values(), two.values()], whole.clusters, whole.context, 2)
    assert breaker.transitions == {(OPEN, Cause.TRIPPED): 1, (CLOSED, Cause.RESET): 1}
    assert whole.cluster.stats.transitions == breaker.transitions
    shown.forget_all_but({})
    assert not shown._journals
    assert not shown._hand
    assert not shown._hand_totals


def test_moves_of_endpoints_that_have_gone_stay_in_the_totals() -> None:
    whole, dead, living = Whole(), Process(), Process()
    dead.fail("a", NOW)
    living.fail("a", NOW)
    living.fail("b", NOW)
    whole.bury(dead.values())
    for process in (living, into := Process()):
        process.cluster.apply(Snapshot("api", (Endpoint("b", 80),), "static"))
    whole.forget_gone(into.cluster)
    whole.show([living.values()], into.clusters, into.context, 2)
    assert into.cluster.stats.transitions == {(OPEN, Cause.CONSECUTIVE_FAILURES): 3}
    assert into.cluster.stats.attempts[Outcome.RESET] == 3
    assert sum(into.cluster.endpoints["b", 80].breaker.transitions.values()) == 1


def test_what_the_budgets_have_spent_is_told() -> None:
    one = Process()
    one.cluster.budget.deposit(NOW)
    one.cluster.budget.withdraw(NOW)
    assert one.values()["gauges"]["upstreams"]["api"]["budget"] == [1, 1]
    assert one.values()["next"] == {"api": {"endpoint": "a:80", "why": "its turn"}}


def test_the_latest_check_of_any_worker_is_shown_and_what_checks_hold_open() -> None:
    one, two = Process(), Process()
    for process, at, ok in ((one, NOW, True), (two, NOW + 1.0, False)):
        state = process.cluster.endpoints["a", 80]
        state.last_check = CheckResult(at, ok, 0.5, "" if ok else "status 503", 7)
        process.cluster.check(state, ok, at)
    whole = shown(Whole(), one, two).cluster.endpoints
    assert whole["a", 80].last_check == CheckResult(NOW + 1.0, False, 0.5, "status 503", 7)
    assert (whole["a", 80].breaker.state, whole["a", 80].breaker.held) == (OPEN, "checks")
    assert (whole["b", 80].last_check, whole["b", 80].breaker.held) == (None, "")
    two.cluster.trip([two.cluster.endpoints["b", 80]], NOW)
    assert shown(Whole(), one, two).cluster.endpoints["b", 80].breaker.held == "hand"


def test_parts_together_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.workers.values.PART", 3)
    process = Process().work().use()
    for number in range(5):
        other = Process("a", "b", name=f"api-{number}").work(number).use()
        process.clusters |= other.clusters
    told = parts(process.clusters)
    assert [name for part in told for name in part] == list(process.clusters)
    assert len(told) == 6
    together: Tree = {}
    for number, part in enumerate(told):
        tree = json.loads(json.dumps(values_of(part, process.context, first=number == 0)))
        together = add(together, tree) if number else tree
    assert together == process.values()


def test_nothing_is_one_part() -> None:
    assert parts({}) == [{}]


def routed(process: Process, *weights: int) -> Process:
    """Its cluster shares requests out, by a route for each weight."""
    targets = Cluster("web", "http", UpstreamPolicy(), process.clock)
    routes = [Route(number, [(targets, weight)]) for number, weight in enumerate(weights)]
    process.cluster.router = Routes(process.cluster, routes, process.clock.uniform)
    return process


def test_requests_of_a_router_add_up_by_route_as_it_is_configured_now() -> None:
    whole, shown = Whole(), routed(Process(), 1, 1)
    dead, living = routed(Process(), 1, 1, 1), routed(Process(), 1, 1)
    dead.cluster.stats.routed.update({(0, "web"): 5, (2, "web"): 9})
    living.cluster.stats.routed[0, "web"] = 2
    whole.bury(dead.values())
    whole.show([living.values()], shown.clusters, shown.context, 2)
    assert shown.cluster.stats.routed == {(0, "web"): 7, (1, "web"): 0}
