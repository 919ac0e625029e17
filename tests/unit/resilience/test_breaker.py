"""The circuit breaker, row by row of its table."""

import pytest
from support.clock import FakeClock

from sidecar.model import Outcome
from sidecar.resilience import VOID, Breaker, BreakerState, Cause
from sidecar.resilience.breaker import JOURNAL_LENGTH

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
NEVER = float("inf")
BEFORE_IT_OPENED = 0  # the permit of a new breaker

FAILURES = [outcome for outcome in Outcome if outcome.is_failure]
NEUTRAL = [Outcome.CANCELLED, Outcome.IDLE_RACE, Outcome.LOCAL_SHORTAGE]


def breaker(threshold: int = 3, open_for: float = 10.0, max_open_for: float = 10.0) -> Breaker:
    """The seed's kind: a fixed open time, no jitter."""
    return Breaker(threshold, open_for, max_open_for, 0.0, FakeClock().uniform)


def opened(at: float = 100.0, **options: float) -> Breaker:
    """One that opened at `at` for ten seconds."""
    made = breaker(threshold=1, **options)
    assert made.record(Outcome.RESET, at, made.permit)
    return made


def half_open(at: float = 110.0) -> Breaker:
    """One whose probe went out at `at`."""
    made = opened(at - 10.0)
    assert made.take_probe(at)
    return made


# Failure rate


def rated(share: float = 0.5, at_least: int = 4, threshold: int = 100) -> Breaker:
    """One that looks at the last ten seconds."""
    return Breaker(threshold, 10.0, 10.0, 0.0, FakeClock().uniform, share, at_least, 10.0)


def tell(made: Breaker, story: str, now: float = 100.0) -> list[bool]:
    """Attempts that went well (`.`) or badly (`x`); whether each moved it."""
    return [made.record(Outcome.SUCCESS if one == "." else Outcome.RESET, now, made.permit) for one in story]


def test_one_that_fails_now_and_then_opens() -> None:
    made = rated()
    assert tell(made, ".x.xx") == [False] * 4 + [True]
    assert made.state is OPEN
    entry = made.journal[-1]
    assert (entry.cause, entry.evidence, entry.failures) == (Cause.FAILURE_RATE, Outcome.RESET, 2)
    assert (entry.good, entry.bad) == (2, 3)


def test_just_the_rate_is_not_above_it() -> None:
    assert not any(tell(rated(), ".x.x.x.x"))
    assert not any(tell(rated(share=1.0), "xxxxxxxx"))


def test_a_rate_that_floats_do_not_have_is_not_above_itself() -> None:
    assert not any(tell(rated(share=0.29, at_least=100), "." * 71 + "x" * 29))
    assert any(tell(rated(share=0.29, at_least=100), "." * 71 + "x" * 30))


def test_too_few_attempts_say_nothing() -> None:
    assert tell(rated(at_least=6), "xxxxxx") == [False] * 5 + [True]


def test_without_a_rate_only_the_row_counts() -> None:
    assert not any(tell(breaker(threshold=3), "xx.xx.xx.xx."))


def test_the_row_is_counted_first() -> None:
    made = rated(at_least=3, threshold=3)
    tell(made, "xxx")
    assert made.journal[-1].cause is Cause.CONSECUTIVE_FAILURES


def test_what_is_older_than_the_window_is_forgotten() -> None:
    made = rated()
    tell(made, "xxx", now=100.0)
    assert not any(tell(made, "..x", now=111.0))
    assert not any(tell(made, ".", now=112.0))
    assert tell(made, "xxx", now=113.0) == [False, False, True], "three of seven, four of eight, five of nine"


def test_what_was_counted_before_it_opened_is_forgotten_when_it_closes() -> None:
    made = Breaker(100, 1.0, 1.0, 0.0, FakeClock().uniform, 0.5, 4, 10.0)
    tell(made, "xxxx")
    assert made.take_probe(102.0), "within the window still"
    assert made.record(Outcome.SUCCESS, 102.0, made.permit)
    assert made.state is CLOSED
    assert not any(tell(made, "xxx", now=102.0))


def test_a_late_success_is_not_counted() -> None:
    made = rated()
    tell(made, "xxxx")
    assert not made.record(Outcome.SUCCESS, 101.0, 0)
    assert made.window is not None
    assert made.window.totals(101.0) == (0, 4)


# Closed


def test_a_new_breaker_is_closed_and_has_nothing_to_ask() -> None:
    made = breaker()
    assert (made.state, made.failures, made.probing) == (CLOSED, 0, False)
    assert (made.probe_at, made.open_until) == (NEVER, 0.0)
    assert not made.take_probe(1e9)
    assert not made.journal
    assert made.transitions == {}


@pytest.mark.parametrize("failure", FAILURES)
def test_consecutive_failures_open_it(failure: Outcome) -> None:
    made = breaker(threshold=3)
    assert not made.record(failure, 1.0, made.permit)
    assert not made.record(failure, 2.0, made.permit)
    assert made.state is CLOSED
    assert made.record(failure, 3.0, made.permit)
    assert (made.state, made.failures) == (OPEN, 3)


def test_success_begins_the_count_again() -> None:
    made = breaker(threshold=2)
    for _ in range(3):
        assert not made.record(Outcome.RESET, 1.0, made.permit)
        assert not made.record(Outcome.SUCCESS, 1.0, made.permit)
    assert (made.state, made.failures) == (CLOSED, 0)


@pytest.mark.parametrize("outcome", [Outcome.TOO_MANY_REQUESTS, *NEUTRAL])
def test_what_is_not_the_endpoints_fault_changes_nothing(outcome: Outcome) -> None:
    made = breaker(threshold=2)
    made.record(Outcome.RESET, 1.0, made.permit)
    assert not made.record(outcome, 1.0, made.permit)
    assert (made.state, made.failures) == (CLOSED, 1), "neither counted nor forgiven"


def test_a_threshold_of_one_opens_at_once() -> None:
    assert breaker(threshold=1).record(Outcome.FAILURE_STATUS, 1.0, 0)


# Open


@pytest.mark.parametrize("outcome", list(Outcome))
@pytest.mark.parametrize("permit", [0, 1])
def test_while_open_no_result_changes_anything(outcome: Outcome, permit: int) -> None:
    made = opened()
    assert not made.record(outcome, 105.0, permit)
    assert (made.state, made.failures, made.open_until) == (OPEN, 1, 110.0)
    assert len(made.journal) == 1


def test_the_probe_is_given_when_the_open_time_is_over_and_not_before() -> None:
    made = opened(100.0)
    assert made.probe_at == 110.0
    assert not made.take_probe(109.999)
    assert made.state is OPEN
    assert made.take_probe(110.0)
    assert (made.state, made.probing) == (HALF_OPEN, True)
    assert made.probe_at == NEVER, "one is out: there is nothing to ask"


# Half open


def test_exactly_one_probe_is_out() -> None:
    made = half_open()
    assert not made.take_probe(110.0)
    assert not made.take_probe(1e9)


def test_a_probe_that_succeeds_closes_it() -> None:
    made = half_open()
    assert made.record(Outcome.SUCCESS, 111.0, made.permit)
    assert (made.state, made.failures, made.probing, made.probe_at) == (CLOSED, 0, False, NEVER)


@pytest.mark.parametrize("outcome", [*FAILURES, Outcome.TOO_MANY_REQUESTS])
def test_a_probe_that_fails_opens_it_again(outcome: Outcome) -> None:
    made = half_open()
    assert made.record(outcome, 112.0, made.permit)
    assert (made.state, made.failures, made.probing) == (OPEN, 2, False)
    assert made.open_until == 122.0
    assert made.take_probe(122.0)


@pytest.mark.parametrize("outcome", NEUTRAL)
def test_a_probe_that_told_nothing_is_given_back(outcome: Outcome) -> None:
    made = half_open()
    assert not made.record(outcome, 112.0, made.permit)
    assert (made.state, made.probing, made.probe_at) == (HALF_OPEN, False, 0.0)
    assert made.take_probe(112.0), "the next request takes its place"
    assert len(made.journal) == 2, "no transition"


@pytest.mark.parametrize("outcome", list(Outcome))
def test_requests_from_before_do_not_answer_for_the_probe(outcome: Outcome) -> None:
    made = half_open()
    assert not made.record(outcome, 112.0, BEFORE_IT_OPENED)
    assert (made.state, made.probing, made.failures) == (HALF_OPEN, True, 1)


def test_requests_from_before_it_opened_do_not_open_it_again() -> None:
    made = half_open()
    assert made.record(Outcome.SUCCESS, 111.0, made.permit)
    for permit in range(made.permit):
        assert not made.record(Outcome.REQUEST_TIMEOUT, 112.0, permit)
    assert (made.state, made.failures) == (CLOSED, 0)


def test_a_probe_that_answered_once_is_not_heard_again() -> None:
    made = half_open()
    permit = made.permit
    assert made.record(Outcome.SUCCESS, 111.0, permit)
    assert not made.record(Outcome.RESET, 112.0, permit)
    assert (made.state, made.failures) == (CLOSED, 0)


# The open time


def open_times(made: Breaker, count: int) -> list[float]:
    """How long it stays open, opening `count` times in a row."""
    times = []
    now = 0.0
    made.record(Outcome.RESET, now, made.permit)
    for _ in range(count):
        times.append(made.open_until - now)
        now = made.open_until
        assert made.take_probe(now)
        assert made.record(Outcome.RESET, now, made.permit)
    return times


def test_the_open_time_doubles_up_to_its_cap() -> None:
    assert open_times(breaker(1, 1.0, 60.0), 8) == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


def test_the_seeds_open_time_is_fixed() -> None:
    assert open_times(breaker(1, 60.0, 60.0), 3) == [60.0, 60.0, 60.0]


def test_a_success_begins_the_doubling_again() -> None:
    made = breaker(1, 1.0, 60.0)
    assert open_times(made, 3) == [1.0, 2.0, 4.0]
    made.take_probe(made.open_until)
    made.record(Outcome.SUCCESS, 50.0, made.permit)
    made.record(Outcome.SUCCESS, 50.0, made.permit)
    assert open_times(made, 2) == [1.0, 2.0]


def test_answers_that_begin_well_and_break_do_not() -> None:
    """Their heads close it, one by one, as a probe of it is settled by its head."""
    made = breaker(1, 1.0, 60.0)
    open_for = []
    for _ in range(4):
        made.record(Outcome.RESET, made.open_until, made.permit)
        open_for.append(made.journal[-1].open_for)
        made.take_probe(made.open_until)
        made.record(Outcome.SUCCESS, made.open_until, made.permit)
        assert made.state is CLOSED
    assert open_for == [1.0, 2.0, 4.0, 8.0]


def test_a_very_long_outage_does_not_overflow() -> None:
    assert open_times(breaker(1, 1.0, 60.0), 1200)[-1] == 60.0


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 5.0), (0.5, 10.0), (0.75, 12.5), (1.0, 15.0)])
def test_jitter_spreads_the_open_time_evenly_to_both_sides(chance: float, seconds: float) -> None:
    made = Breaker(1, 10.0, 10.0, 0.5, FakeClock(chances=[chance]).uniform)
    made.record(Outcome.RESET, 100.0, made.permit)
    assert made.open_until == 100.0 + seconds
    assert made.journal[-1].open_for == seconds


def test_every_opening_has_a_chance_of_its_own() -> None:
    made = Breaker(1, 10.0, 10.0, 0.5, FakeClock(chances=[0.0, 1.0, 0.5]).uniform)
    assert open_times(made, 3) == [5.0, 15.0, 10.0]


# The evidence (behaviour 25)


def test_the_journal_tells_what_moved_it_when_and_why() -> None:
    made = breaker(threshold=2)
    made.record(Outcome.CONNECT_REFUSED, 1.0, made.permit)
    made.record(Outcome.FAILURE_STATUS, 2.0, made.permit)
    made.take_probe(12.0)
    made.record(Outcome.TOO_MANY_REQUESTS, 13.0, made.permit)
    made.take_probe(23.0)
    made.record(Outcome.SUCCESS, 24.0, made.permit)
    assert [
        (entry.at, entry.to, entry.cause, entry.failures, entry.evidence, entry.open_for)
        for entry in made.journal
    ] == [
        (2.0, OPEN, Cause.CONSECUTIVE_FAILURES, 2, Outcome.FAILURE_STATUS, 10.0),
        (12.0, HALF_OPEN, Cause.OPEN_TIME_OVER, 2, None, 0.0),
        (13.0, OPEN, Cause.PROBE_FAILED, 3, Outcome.TOO_MANY_REQUESTS, 10.0),
        (23.0, HALF_OPEN, Cause.OPEN_TIME_OVER, 3, None, 0.0),
        (24.0, CLOSED, Cause.PROBE_SUCCEEDED, 0, Outcome.SUCCESS, 0.0),
    ]
    assert made.transitions == {
        (OPEN, Cause.CONSECUTIVE_FAILURES): 1,
        (HALF_OPEN, Cause.OPEN_TIME_OVER): 2,
        (OPEN, Cause.PROBE_FAILED): 1,
        (CLOSED, Cause.PROBE_SUCCEEDED): 1,
    }


def test_the_journal_is_bounded_and_the_counts_are_not() -> None:
    made = breaker(1, 1.0, 1.0)
    open_times(made, 2 * JOURNAL_LENGTH)
    assert len(made.journal) == JOURNAL_LENGTH
    assert made.journal[-1].at == made.open_until - 1.0, "the newest is kept"
    assert made.transitions[OPEN, Cause.PROBE_FAILED] == 2 * JOURNAL_LENGTH


def test_labels_are_the_metrics_words() -> None:
    assert [state.label for state in BreakerState] == ["closed", "open", "half_open"]
    assert [cause.label for cause in Cause] == [
        "consecutive_failures",
        "open_time_over",
        "probe_succeeded",
        "probe_failed",
        "shared",
        "failure_rate",
        "check_failed",
        "check_passed",
        "tripped",
        "reset",
    ]


# Of other workers


def test_another_workers_trip_is_taken_over_with_its_time() -> None:
    made = breaker(threshold=3, open_for=1.0, max_open_for=8.0)
    assert made.adopt(OPEN, 100.0, 104.0, 2)
    assert (made.state, made.probe_at, made.opened_in_a_row) == (OPEN, 104.0, 2)
    entry = made.journal[-1]
    assert (entry.at, entry.to, entry.cause, entry.open_for) == (100.0, OPEN, Cause.SHARED, 4.0)
    assert made.transitions == {(OPEN, Cause.SHARED): 1}
    assert (made.failures, made.closed) == (0, False), "they were another's"
    assert made.take_probe(104.0)
    assert made.record(Outcome.RESET, 105.0, made.permit)
    assert made.open_until == 109.0, "the third in a row"


def test_requests_from_before_another_workers_trip_tell_nothing() -> None:
    made = breaker(threshold=1)
    before = made.permit
    made.adopt(OPEN, 100.0, 110.0, 1)
    made.adopt(CLOSED, 110.0, 0.0, 0)
    assert not made.record(Outcome.RESET, 111.0, before)
    assert made.state is CLOSED


def test_one_that_is_open_takes_over_the_time_of_the_later_trip() -> None:
    made = opened(at=100.0)
    assert not made.adopt(OPEN, 100.5, 107.0, 1)
    assert (made.open_until, len(made.journal)) == (107.0, 1)


def test_an_older_move_changes_nothing() -> None:
    made = opened(at=100.0)
    assert not made.adopt(CLOSED, 99.0, 0.0, 0)
    assert not made.adopt(OPEN, 99.0, 120.0, 7)
    assert (made.state, made.open_until, made.opened_in_a_row) == (OPEN, 110.0, 1)


def test_another_workers_probe_puts_off_its_own() -> None:
    made = opened(at=100.0)
    assert not made.adopt(HALF_OPEN, 110.0, 115.0, 1)
    assert (made.state, made.probe_at) == (OPEN, 115.0)
    assert not made.adopt(HALF_OPEN, 111.0, 112.0, 1), "never brings it forward"
    assert made.probe_at == 115.0


@pytest.mark.parametrize("to", [CLOSED, HALF_OPEN])
def test_a_closed_one_hears_of_another_that_closes_or_probes(to: BreakerState) -> None:
    made = breaker()
    assert not made.adopt(to, 100.0, 105.0, 1)
    assert (made.state, made.probe_at) == (CLOSED, NEVER)


def test_a_probe_of_its_own_is_not_disturbed_by_another() -> None:
    made = half_open(at=110.0)
    assert not made.adopt(HALF_OPEN, 110.5, 115.0, 1)
    assert (made.state, made.probing) == (HALF_OPEN, True)


@pytest.mark.parametrize("to", [CLOSED, OPEN])
def test_another_workers_verdict_makes_its_own_probe_void(to: BreakerState) -> None:
    made = half_open(at=110.0)
    permit = made.permit
    assert made.adopt(to, 111.0, 131.0, 2)
    assert (made.state, made.probing) == (to, False)
    assert not made.record(Outcome.RESET, 112.0, permit)
    assert made.state is to


def test_another_workers_success_closes_it() -> None:
    made = opened(at=100.0)
    assert made.adopt(CLOSED, 105.0, 0.0, 0)
    assert (made.state, made.failures, made.opened_in_a_row, made.probe_at) == (CLOSED, 0, 1, NEVER)


# Health checks


def checked(story: str, made: Breaker | None = None, now: float = 100.0) -> tuple[Breaker, list[bool]]:
    """Checks that went well (`.`) or badly (`x`); whether each moved it. Two good ones close, three bad ones open."""
    made = made or breaker()
    return made, [made.check(one == ".", now) for one in story]


def test_bad_checks_in_a_row_open_it() -> None:
    made, moved = checked(".xx.xxx")
    assert moved == [False] * 6 + [True]
    entry = made.journal[-1]
    assert (entry.to, entry.cause, entry.evidence) == (OPEN, Cause.CHECK_FAILED, None)
    assert (made.failing, made.held) == (True, "checks")
    assert (entry.failures, made.closed) == (0, False), "no attempt has failed"


def test_the_first_check_of_all_counts_at_once() -> None:
    made, moved = checked("x")
    assert (made.state, moved) == (OPEN, [True])
    made, moved = checked(".x")
    assert (made.state, moved) == (CLOSED, [False, False])


def test_good_checks_in_a_row_close_it() -> None:
    made, moved = checked("x.x..")
    assert moved == [True, False, False, False, True]
    entry = made.journal[-1]
    assert (entry.to, entry.cause, entry.failures) == (CLOSED, Cause.CHECK_PASSED, 0)
    assert (made.failing, made.held) == (False, "")


def test_no_request_is_sent_to_an_endpoint_that_fails_its_checks() -> None:
    made, _ = checked("x")
    assert made.probe_at == NEVER
    assert not made.take_probe(1000.0)


def test_checks_hold_one_open_that_its_requests_have_opened() -> None:
    made = opened(100.0)
    _, moved = checked(".xxx", made)
    assert not any(moved), "it is open already"
    assert (made.probe_at, made.held) == (NEVER, "checks")
    assert checked("..", made)[1] == [False, True]


def test_good_checks_close_one_that_its_requests_have_opened_before_its_time() -> None:
    made = opened(100.0)
    assert checked("..", made, now=101.0)[1] == [False, True]
    assert made.state is CLOSED


def test_good_checks_before_it_opened_do_not_close_it() -> None:
    made, _ = checked("........", breaker(threshold=1))
    made.record(Outcome.RESET, 100.0, made.permit)
    assert checked(".", made)[1] == [False]
    assert checked(".", made)[1] == [True]


def test_good_checks_before_a_probe_failed_do_not_close_it() -> None:
    made = half_open()
    assert checked(".", made)[1] == [False]
    made.record(Outcome.RESET, 111.0, made.permit)
    assert checked(".", made)[1] == [False], "one since it opened"
    assert checked(".", made)[1] == [True]


def test_bad_checks_end_a_probe() -> None:
    made = half_open()
    permit = made.permit
    _, moved = checked(".xxx", made)
    assert (moved[-1], made.state, made.probing) == (True, OPEN, False)
    assert not made.record(Outcome.SUCCESS, 111.0, permit), "its answer counts no more"
    assert made.state is OPEN


def test_good_checks_say_nothing_of_one_that_is_closed() -> None:
    made, moved = checked("......")
    assert (any(moved), list(made.journal)) == (False, [])


def test_what_can_no_longer_be_checked_is_a_matter_of_its_open_time() -> None:
    made, _ = checked("x", now=100.0)
    assert made.release()
    assert (made.state, made.held, made.probe_at) == (OPEN, "", made.open_until)
    assert made.take_probe(made.open_until)
    assert not made.release(), "nothing holds it"
    assert checked("xx", made)[1] == [False, False], "counted anew"
    assert checked("x", made)[1] == [True]


# By hand


def test_tripped_it_stays_open_until_it_is_reset() -> None:
    made = breaker()
    made.trip(100.0)
    entry = made.journal[-1]
    assert (made.state, entry.cause, entry.evidence, made.held) == (OPEN, Cause.TRIPPED, None, "hand")
    assert (made.probe_at, made.take_probe(1e6)) == (NEVER, False)
    assert not any(checked(".......", made)[1])
    assert not made.adopt(CLOSED, 200.0, 0.0, 0)
    assert made.state is OPEN
    assert made.reset(300.0)
    assert (made.state, made.journal[-1].cause, made.held, made.failures) == (CLOSED, Cause.RESET, "", 0)


def test_another_workers_success_does_not_close_what_its_own_checks_hold_open() -> None:
    made, _ = checked("x")
    assert not made.adopt(CLOSED, 200.0, 0.0, 0)
    assert (made.state, made.held, made.probe_at) == (OPEN, "checks", NEVER)
    checked("..", made, 300.0)
    assert made.state is CLOSED
    made.adopt(OPEN, 400.0, 410.0, 1)
    assert made.adopt(CLOSED, 405.0, 0.0, 0), "what others have opened they close"


def test_good_checks_are_remembered_while_somebodys_hand_holds_it() -> None:
    made, _ = checked("x")
    made.trip(100.0)
    checked("..", made)
    assert (made.failing, made.held) == (False, "hand")


def test_reset_closes_whatever_opened_it() -> None:
    for made in (opened(), half_open(), checked("x")[0]):
        assert made.reset(111.0)
        assert (made.state, made.held, made.probing) == (CLOSED, "", False)
    assert not breaker().reset(100.0), "it is closed"


def test_after_a_reset_checks_begin_anew() -> None:
    made, _ = checked("x")
    made.reset(101.0)
    assert checked("xxx", made)[1] == [False, False, True]


def test_a_tripped_one_that_was_half_open_has_no_probe_out() -> None:
    made = half_open()
    made.trip(111.0)
    assert (made.state, made.probing) == (OPEN, False)


def test_one_that_is_open_already_has_the_hand_in_its_journal_too() -> None:
    made = opened(100.0)
    made.trip(105.0)
    assert [(entry.at, entry.cause) for entry in made.journal] == [
        (100.0, Cause.CONSECUTIVE_FAILURES),
        (105.0, Cause.TRIPPED),
    ]


def test_a_reset_forgets_what_a_closed_one_has_seen() -> None:
    made = rated(at_least=4, threshold=3)
    tell(made, "..xx")
    assert not made.reset(100.0), "it is closed"
    assert not any(tell(made, "xx")), "two in a row, of two"
    assert not made.journal


def test_who_is_no_probe_tells_a_half_open_one_nothing() -> None:
    made = half_open()
    for outcome in Outcome:
        assert not made.record(outcome, 111.0, VOID)
    assert (made.state, made.probing) == (HALF_OPEN, True)


# Another configuration


def test_other_parameters_hold_for_what_comes_next() -> None:
    made = opened(100.0)
    made.configure(2, 3.0, 3.0, 0.0, 0.0, 20, 10.0, 1, 1)
    assert (made.state, made.open_until, made.probe_at) == (OPEN, 110.0, 110.0), "where it is, it stays"
    assert [entry.cause for entry in made.journal] == [Cause.CONSECUTIVE_FAILURES]
    assert made.take_probe(110.0)
    assert made.record(Outcome.SUCCESS, 110.0, made.permit)
    assert not made.record(Outcome.RESET, 111.0, made.permit)
    assert made.record(Outcome.RESET, 111.0, made.permit), "two failures are enough now, and needed"
    assert made.open_until == 114.0
    assert made.check(True, 112.0), "one good check is"
    assert made.check(False, 113.0)


def test_failures_so_far_count_against_a_lower_threshold() -> None:
    made = breaker(threshold=10)
    assert tell(made, "xxx") == [False] * 3
    made.configure(3, 10.0, 10.0, 0.0, 0.0, 20, 10.0, 2, 3)
    assert made.state is CLOSED
    assert tell(made, "x") == [True]


def test_a_window_of_the_same_length_keeps_what_it_has_counted() -> None:
    made = rated(share=0.9)
    tell(made, ".x.xx")
    made.configure(100, 10.0, 10.0, 0.0, 0.5, 4, 10.0, 2, 3)
    assert made.window is not None
    assert made.window.totals(100.0) == (2, 3)
    assert tell(made, "x") == [True]


@pytest.mark.parametrize("seconds", [20.0, 5.0])
def test_a_window_of_another_length_starts_empty(seconds: float) -> None:
    made = rated()
    tell(made, ".x.x")
    made.configure(100, 10.0, 10.0, 0.0, 0.5, 4, seconds, 2, 3)
    assert made.window is not None
    assert (made.window.seconds, made.window.totals(100.0)) == (seconds, (0, 0))


def test_the_failure_rate_can_be_turned_off_and_on() -> None:
    made = rated()
    tell(made, ".x.x")
    made.configure(100, 10.0, 10.0, 0.0, 0.0, 4, 10.0, 2, 3)
    assert made.window is None
    assert not any(tell(made, "xxxxxxxx"))
    tell(made, ".")
    made.configure(100, 10.0, 10.0, 0.0, 0.5, 4, 10.0, 2, 3)
    assert tell(made, "xxxx") == [False] * 3 + [True]
