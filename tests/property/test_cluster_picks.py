"""The cluster under any sequence of snapshots, picks, results and time."""

from dataclasses import dataclass
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.clock import FakeClock

from sidecar.cluster import Cluster
from sidecar.model import Endpoint, EndpointState, Outcome, Snapshot, UpstreamPolicy
from sidecar.resilience import VOID, BreakerState

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN

endpoints = st.builds(
    Endpoint,
    st.sampled_from("abcd"),
    st.just(80),
    st.sampled_from((1, 1, 2, 7, 256)),
)
# Mostly of several endpoints, as breakers are told apart by their neighbours; named twice now and then.
snapshots = st.one_of(
    st.lists(endpoints, max_size=2), *[st.lists(endpoints, min_size=4, max_size=6)] * 3
).map(tuple)

outcomes = st.one_of(st.just(Outcome.RESET), st.just(Outcome.SUCCESS), st.sampled_from(list(Outcome)))

# What a response head can say of its endpoint.
settling = st.sampled_from((Outcome.SUCCESS, Outcome.FAILURE_STATUS, Outcome.TOO_MANY_REQUESTS))


@dataclass
class Attempt:
    """An attempt that has not ended. permit, probe: as its pick said."""

    state: EndpointState
    permit: int
    probe: bool


class Joint(RuleBasedStateMachine):
    """A source, exchanges with their attempts, checks, and somebody's hand."""

    policy: dict[str, Any] = {"panic_all": False}  # noqa: RUF012 - never changed; ClassVar would be one of hypothesis

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        duck: Any = self.clock
        policy = UpstreamPolicy(
            breaker_threshold=1,
            breaker_open_for=2.0,
            breaker_max_open_for=8.0,
            breaker_jitter=0.0,
            check_rise=1,
            check_fall=1,
            **self.policy,
        )
        self.cluster = Cluster("api", "http", policy, duck)
        self.attempts: list[Attempt] = []
        self.known: dict[tuple[str, int], EndpointState] = {}
        self.gone: list[EndpointState] = []
        self.counted = 0

    @initialize(first=snapshots)
    def start(self, first: tuple[Endpoint, ...]) -> None:
        """The first snapshot."""
        self.apply(first)

    @rule(told=snapshots)
    def apply(self, told: tuple[Endpoint, ...]) -> None:
        """A snapshot: what stays is the very same object, what goes is retired, the rest is new."""
        before = dict(self.known)
        self.cluster.apply(Snapshot("api", told, "static"))
        self.known = dict(self.cluster.endpoints)
        assert list(self.known) == list(dict.fromkeys(endpoint.key for endpoint in told))
        named = {endpoint.key: endpoint for endpoint in told}
        for key, state in self.known.items():
            assert state.endpoint == named[key]
            if key in before:
                assert state is before[key]
            else:
                assert state.breaker.state is CLOSED
                counted = [gone.attempts for gone in self.gone if gone.endpoint.key == key]
                assert state.attempts is counted[-1] if counted else not any(state.attempts)
        self.gone += [state for key, state in before.items() if key not in self.known]

    def rotation(self) -> tuple[list[EndpointState], list[EndpointState]]:
        """Who may be picked, and who for a retry."""
        there = [state for state in self.known.values() if not state.breaker.tripped]
        closed = [state for state in there if state.breaker.state is CLOSED]
        policy = self.cluster.policy
        if policy.observe_only:
            return there, there
        most = max(1, int(policy.max_ejected * len(there)))
        out = len(there) - len(closed)
        panic = out > most or (len(there) > 1 and len(closed) < policy.min_available and out > 0)
        assert self.cluster.panic == panic
        return (there if panic and policy.panic_all else closed), closed

    def due(self, state: EndpointState) -> bool:
        """Whether a probe of it may be sent now, by what this test knows of the probes that are out."""
        if state.breaker.held:
            return False
        if state.breaker.state is OPEN:
            return self.clock.now >= state.breaker.open_until
        return state.breaker.state is HALF_OPEN and not self.probed(state)

    def probed(self, state: EndpointState) -> bool:
        return any(attempt.probe and attempt.state is state for attempt in self.attempts)

    @rule(data=st.data())
    def pick(self, data: st.DataObject) -> None:
        """An exchange that has been at some endpoints asks for the next."""
        states = list(self.known.values())
        tried = data.draw(st.lists(st.sampled_from(states), max_size=5)) if states else []
        closed, sound = self.rotation()
        due = [state for state in states if state not in tried and self.due(state)]
        longest = min(
            (0.0 if state.breaker.state is HALF_OPEN else state.breaker.open_until for state in due),
            default=0,
        )
        asked_at = {id(state): state.breaker.open_until for state in due if state.breaker.state is OPEN}
        picked = self.cluster.pick(self.clock.now, tried)
        careful = tried and any(state not in tried for state in sound)
        if due and not careful and not self.cluster.policy.observe_only:
            assert picked in due, "a probe is due"
            assert picked is not None
            assert asked_at.get(id(picked), 0.0) == longest, "the one that has waited longest"
            assert picked.breaker.state is HALF_OPEN
            self.attempts.append(Attempt(picked, picked.breaker.permit, probe=True))
        elif closed:
            assert picked in closed
            if self.cluster.gave_probe:
                assert self.cluster.policy.observe_only
                assert picked in due
                self.attempts.append(Attempt(picked, picked.breaker.permit, probe=True))
                return
            assert picked is not None
            if picked in tried:
                assert all(state in tried for state in closed), "an untried one is left"
            elif tried and picked not in sound:
                assert all(state in tried for state in sound), "a retry goes to a closed one"
            permit = picked.breaker.permit if picked.breaker.closed else VOID
            self.attempts.append(Attempt(picked, permit, probe=False))
        else:
            assert picked is None
        assert self.cluster.has_untried(tried) == any(state not in tried for state in closed)
        assert self.cluster.has_sound(tried) == any(state not in tried for state in sound)

    @precondition(lambda self: self.known)
    @rule(data=st.data(), good=st.booleans())
    def is_checked(self, data: st.DataObject, good: bool) -> None:
        """One check is enough, either way."""
        state = data.draw(st.sampled_from(list(self.known.values())))
        self.cluster.check(state, good, self.clock.now)
        assert (state.breaker.state is CLOSED) is (good and not state.breaker.tripped)
        self.forget_probes(state)

    @precondition(lambda self: self.known)
    @rule(data=st.data(), trips=st.booleans())
    def somebody_interferes(self, data: st.DataObject, trips: bool) -> None:
        """Trip and reset."""
        state = data.draw(st.sampled_from(list(self.known.values())))
        if trips:
            self.cluster.trip([state], self.clock.now)
        else:
            self.cluster.reset([state], self.clock.now)
        assert state.breaker.state is (OPEN if trips else CLOSED)
        self.forget_probes(state)

    def forget_probes(self, state: EndpointState) -> None:
        """Those that are out go on as any other attempt."""
        for attempt in self.attempts:
            if attempt.state is state and state.breaker.permit != attempt.permit:
                attempt.probe = False

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def endpoint_fails(self, data: st.DataObject) -> None:
        """A request from before comes to nothing."""
        state = data.draw(st.sampled_from(list(self.known.values())))
        breaker = state.breaker
        permit = breaker.permit if breaker.state is CLOSED else breaker.permit - 1
        self.cluster.report(state, Outcome.RESET, self.clock.now, permit)
        assert state.breaker.state is not CLOSED
        self.forget_probes(state)
        self.counted += 1

    @precondition(lambda self: self.attempts)
    @rule(data=st.data(), outcome=outcomes)
    def attempt_ends(self, data: st.DataObject, outcome: Outcome) -> None:
        """Its result is told, wherever its endpoint is by now."""
        attempt = data.draw(st.sampled_from(self.attempts))
        self.attempts.remove(attempt)
        count = attempt.state.attempts[outcome]
        self.cluster.report(attempt.state, outcome, self.clock.now, attempt.permit)
        assert attempt.state.attempts[outcome] == count + 1
        self.counted += 1

    @precondition(lambda self: any(attempt.probe for attempt in self.attempts))
    @rule(data=st.data())
    def probe_is_not_sent(self, data: st.DataObject) -> None:
        """It is given back."""
        attempt = data.draw(st.sampled_from([attempt for attempt in self.attempts if attempt.probe]))
        self.attempts.remove(attempt)
        self.cluster.judge(attempt.state, Outcome.CANCELLED, self.clock.now, attempt.permit)
        assert attempt.state.breaker.state is HALF_OPEN

    @precondition(lambda self: any(attempt.probe for attempt in self.attempts))
    @rule(data=st.data(), outcome=settling)
    def probe_is_settled(self, data: st.DataObject, outcome: Outcome) -> None:
        """Its head has answered for it, and the attempt goes on as any other."""
        attempt = data.draw(st.sampled_from([attempt for attempt in self.attempts if attempt.probe]))
        self.cluster.judge(attempt.state, outcome, self.clock.now, attempt.permit)
        attempt.probe = False

    @rule(seconds=st.sampled_from((0.5, 2.0, 8.0)))
    def time_passes(self, seconds: float) -> None:
        """Open times run out."""
        self.clock.advance(seconds)

    @invariant()
    def a_breaker_has_one_probe_out_at_most_and_knows_of_it(self) -> None:
        for state in self.known.values():
            out = [attempt for attempt in self.attempts if attempt.probe and attempt.state is state]
            assert len(out) == state.breaker.probing
            assert not out or state.breaker.state is HALF_OPEN

    @invariant()
    def what_is_in_rotation_says_so(self) -> None:
        rotation, _ = self.rotation()
        assert [state for state in self.known.values() if state.in_rotation] == rotation
        assert not any(state.in_rotation for state in self.gone)

    @invariant()
    def what_is_named_is_in_the_books_and_what_has_gone_is_not(self) -> None:
        pools = [state.pool for state in self.known.values()]
        assert sorted(map(id, self.cluster.limit.pools)) == sorted(map(id, pools))
        assert not any(state.removed for state in self.known.values())
        assert all(state.removed for state in self.gone)

    @invariant()
    def every_attempt_is_counted_once(self) -> None:
        counts = {id(state.attempts): state.attempts for state in (*self.known.values(), *self.gone)}
        assert sum(map(sum, counts.values())) == self.counted


class Panicking(Joint):
    """Too few left means all: never more than half are out of rotation, but for those that somebody tripped.

    A half-open endpoint then gets requests beside its probe, which tell nothing of it.
    """

    policy: dict[str, Any] = {"max_ejected": 0.5, "min_available": 1}  # noqa: RUF012 - as above

    @invariant()
    def never_more_than_half_are_ejected(self) -> None:
        there = [state for state in self.known.values() if not state.breaker.tripped]
        out = [state for state in there if not state.in_rotation]
        assert len(out) <= max(1, len(there) // 2)
        assert len(there) == 1 or not there or any(state.in_rotation for state in there)


class Observing(Panicking):
    """Everything is decided, nothing enforced."""

    policy: dict[str, Any] = {"observe_only": True}  # noqa: RUF012 - as above

    @invariant()
    def nobody_is_ejected(self) -> None:
        assert all(state.in_rotation is not state.breaker.tripped for state in self.known.values())


TestJoint = Joint.TestCase
TestPanicking = Panicking.TestCase
TestObserving = Observing.TestCase
for _machine in (TestJoint, TestPanicking, TestObserving):
    _machine.settings = settings(max_examples=120, stateful_step_count=40, deadline=None, derandomize=True)
del _machine
