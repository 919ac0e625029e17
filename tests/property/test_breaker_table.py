"""The breaker against the table at the head of its module, under any sequence of events."""

from dataclasses import dataclass, field

from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar.model import Outcome
from sidecar.resilience import Breaker, BreakerState, Cause

OPEN_FOR, MAX_OPEN_FOR = 2.0, 7.0

FAILURE, TOO_MANY, NEUTRAL, SUCCESS = "failure", "too_many", "neutral", "success"
KINDS = {
    Outcome.SUCCESS: SUCCESS,
    Outcome.TOO_MANY_REQUESTS: TOO_MANY,
    Outcome.CANCELLED: NEUTRAL,
    Outcome.IDLE_RACE: NEUTRAL,
    Outcome.LOCAL_SHORTAGE: NEUTRAL,
}

# (state, event) -> (next state, cause); what is not here changes no state.
TABLE = {
    ("closed", "last straw"): ("open", Cause.CONSECUTIVE_FAILURES),
    ("closed", "too many"): ("open", Cause.FAILURE_RATE),
    ("open", "asked in time"): ("half_open", Cause.OPEN_TIME_OVER),
    ("half_open", "probe " + SUCCESS): ("closed", Cause.PROBE_SUCCEEDED),
    ("half_open", "probe " + FAILURE): ("open", Cause.PROBE_FAILED),
    ("half_open", "probe " + TOO_MANY): ("open", Cause.PROBE_FAILED),
    ("closed", "another opened"): ("open", Cause.SHARED),
    ("half_open", "another opened"): ("open", Cause.SHARED),
    ("open", "another closed"): ("closed", Cause.SHARED),
    ("half_open", "another closed"): ("closed", Cause.SHARED),
    ("closed", "checks bad"): ("open", Cause.CHECK_FAILED),
    ("half_open", "checks bad"): ("open", Cause.CHECK_FAILED),
    ("open", "checks good"): ("closed", Cause.CHECK_PASSED),
    ("half_open", "checks good"): ("closed", Cause.CHECK_PASSED),
    ("closed", "trip"): ("open", Cause.TRIPPED),
    ("open", "trip"): ("open", Cause.TRIPPED),
    ("half_open", "trip"): ("open", Cause.TRIPPED),
    ("open", "reset"): ("closed", Cause.RESET),
    ("half_open", "reset"): ("closed", Cause.RESET),
}
RISE, FALL = 2, 3
ANOTHER = {
    BreakerState.OPEN: "another opened",
    BreakerState.CLOSED: "another closed",
    BreakerState.HALF_OPEN: "another probes",
}


@dataclass
class Model:
    """The naive breaker: it remembers every result since it last closed and looks events up."""

    threshold: int
    rate: float  # of failures, above which it opens; 0 is off
    at_least: int
    results: list[bool] = field(default_factory=list)  # of attempts while closed, good or bad
    state: str = "closed"
    run: int = 0  # consecutive failures while closed
    openings: int = 0  # in a row
    until: float = 0.0
    probe_out: bool = False
    moved: float = 0.0  # when
    checks: str = ""  # good and bad ones that count, as "." and "x"
    checked: bool = False
    tripped: bool = False
    failing: bool = False

    def step(self, event: str, now: float) -> Cause | None:
        """Take an event; the cause when the state moved."""
        row = TABLE.get((self.state, event))
        if row is None:
            return None
        self.state = row[0]
        if self.state == "open" and self.checks.endswith("."):
            self.checks = ""
        if self.state == "closed":
            self.results = []
            self.failing = False
        self.moved = now
        if row[1] is not Cause.OPEN_TIME_OVER:
            self.probe_out = False
        if row[1] is Cause.SHARED:
            if self.state == "closed":
                self.run = 0
        elif row[1] is Cause.TRIPPED:
            self.until = now
        elif self.state == "open":
            self.until = now + min(MAX_OPEN_FOR, OPEN_FOR * 2**self.openings)
            self.openings += 1
        elif self.state == "closed":
            self.run = 0
        return row[1]

    def result(self, outcome: Outcome, now: float, probe: bool) -> Cause | None:
        kind = KINDS.get(outcome, FAILURE)
        if probe:
            self.probe_out = False
            return self.step(f"probe {kind}", now)
        if self.state != "closed":
            return None
        self.run = {SUCCESS: 0, FAILURE: self.run + 1}.get(kind, self.run)
        if kind == SUCCESS:
            self.openings = 0
        if kind in (SUCCESS, FAILURE):
            self.results.append(kind == SUCCESS)
        if self.run >= self.threshold:
            return self.step("last straw", now)
        bad = self.results.count(False)
        enough = len(self.results) >= self.at_least
        if kind == FAILURE and self.rate and enough and bad > self.rate * len(self.results):
            return self.step("too many", now)
        return None

    def hear(self, event: str, at: float, until: float, openings: int) -> Cause | None:
        """Of another worker's breaker."""
        if self.tripped or at < self.moved:
            return None
        if event == "another opened":
            self.until, self.openings = until, openings
        elif event == "another probes" and self.state == "open":
            self.until = max(self.until, until)
        elif event == "another closed" and self.failing:
            return None
        return self.step(event, at)

    def check(self, good: bool, now: float) -> Cause | None:
        self.checks += "." if good else "x" if self.checked else "x" * FALL
        self.checked = True
        if self.checks.endswith("." * RISE):
            self.failing = False
            return None if self.tripped else self.step("checks good", now)
        if self.checks.endswith("x" * FALL):
            self.failing = True
            return self.step("checks bad", now)
        return None

    def release(self) -> bool:
        was, self.failing, self.checks = self.failing, False, ""
        return was

    def hand(self, trips: bool, now: float) -> Cause | None:
        self.tripped = trips
        if trips:
            return self.step("trip", now)
        self.failing = False
        self.checks = ""
        self.openings = self.run = 0
        self.results = []
        return self.step("reset", now)

    @property
    def held(self) -> bool:
        return self.failing or self.tripped

    def ask(self, now: float) -> tuple[bool, Cause | None]:
        if self.held:
            return False, None
        if self.state == "closed" or self.probe_out or (self.state == "open" and now < self.until):
            return False, None
        self.probe_out = True
        return True, self.step("asked in time", now)


result = st.tuples(st.just("result"), st.sampled_from(list(Outcome)))
answer = st.tuples(st.just("answer"), st.sampled_from(list(Outcome)))
late = st.tuples(st.just("late"), st.sampled_from(list(Outcome)))
failures = st.tuples(st.just("result"), st.just(Outcome.RESET))
asked = st.tuples(st.just("ask"), st.none())
# What another worker's breaker did, and how many seconds ago.
heard = st.tuples(
    st.just("hear"),
    st.tuples(st.sampled_from(list(BreakerState)), st.sampled_from((0.0, 0.0, 1.0, 3.0))),
)
check = st.tuples(st.just("check"), st.booleans())
hand = st.tuples(st.just("hand"), st.booleans())
release = st.tuples(st.just("release"), st.none())
passing = st.tuples(st.just("pass"), st.sampled_from((0.5, 1.0, 2.0, 4.0, 7.0)))
events = st.lists(
    st.one_of(result, late, failures, answer, asked, heard, passing, check, check, hand, release), max_size=60
)


# One good check while the probe is out and one after it has failed: chance hardly ever tells that story.
PROBE_BETWEEN_CHECKS: list[tuple[str, object]] = [
    ("result", Outcome.RESET),
    ("pass", 4.0),
    ("ask", None),
    ("check", True),
    ("answer", Outcome.RESET),
    ("check", True),
]


@example(PROBE_BETWEEN_CHECKS, 1, 0.0, 1)
@settings(max_examples=400, deadline=None, derandomize=True)
@given(events, st.integers(1, 4), st.sampled_from((0.0, 0.25, 0.5, 1.0)), st.integers(1, 6))
def test_the_breaker_follows_its_table(
    story: list[tuple[str, object]], threshold: int, rate: float, at_least: int
) -> None:
    """Its window never ends here: `test_window_sums` holds that against a sum."""
    breaker = Breaker(threshold, OPEN_FOR, MAX_OPEN_FOR, 0.0, lambda: 0.5, rate, at_least, 1e6, RISE, FALL)
    model = Model(threshold, rate, at_least)
    now = 100.0
    moves: dict[tuple[str, Cause], int] = {}
    for what, value in story:
        cause: Cause | None = None
        model_was = model.state
        if isinstance(value, float):
            now += value
        elif what == "check":
            cause = model.check(bool(value), now)
            assert breaker.check(bool(value), now) is (cause is not None)
        elif what == "release":
            assert breaker.release() is model.release()
        elif what == "hand":
            cause = model.hand(bool(value), now)
            if value:
                breaker.trip(now)
            else:
                assert breaker.reset(now) is (cause is not None)
        elif what == "ask":
            permitted, cause = model.ask(now)
            assert breaker.take_probe(now) is permitted
        elif isinstance(value, tuple):
            to, ago = value
            cause = model.hear(ANOTHER[to], now - ago, now - ago + 3.0, 2)
            assert breaker.adopt(to, now - ago, now - ago + 3.0, 2) is (cause is not None)
        elif isinstance(value, Outcome) and (what == "result" or model.probe_out):
            probe = what == "answer"  # only who was given a probe answers for it
            cause = model.result(value, now, probe)
            began_now = probe or model_was == "closed"
            permit = breaker.permit if began_now else breaker.permit - 1
            assert breaker.record(value, now, permit) is (cause is not None)
        elif what == "late" and isinstance(value, Outcome):
            assert not breaker.record(value, now, breaker.permit - 1), "void since the last move"
        assert breaker.state.label == model.state
        assert breaker.probing is model.probe_out
        assert bool(breaker.held) is model.held
        assert breaker.closed is (model.state == "closed")
        if model.held:
            assert breaker.probe_at == float("inf")
        elif model.state == "open":
            assert breaker.probe_at == breaker.open_until == model.until
        elif model.state == "half_open" and not model.probe_out:
            assert breaker.probe_at <= now, "whoever asks now gets the probe"
        else:
            assert breaker.probe_at == float("inf")
        if cause is not None:
            moves[model.state, cause] = moves.get((model.state, cause), 0) + 1
            entry = breaker.journal[-1]
            assert (entry.to.label, entry.cause, entry.at) == (model.state, cause, model.moved)
    assert {(to.label, cause): count for (to, cause), count in breaker.transitions.items()} == moves
