"""Peak EWMA: latency times load; bad news counts at once, good news slowly, no news less and less."""

from math import e

import pytest
from support.balance import build, counts, states

from sidecar.balance import POLICIES, PeakEwma
from sidecar.balance.peak_ewma import DECAY, PENALTY


def test_it_is_found_by_the_name_the_configuration_uses() -> None:
    assert POLICIES["peak_ewma"] is PeakEwma


def test_a_longer_attempt_counts_at_once() -> None:
    (state, _) = given = states(1, 1)
    picker = build(PeakEwma, given)
    picker.observe(state, 0.010, False, 0.0)
    assert state.latency == 0.010
    picker.observe(state, 0.500, False, 0.001)
    assert state.latency == 0.500


def test_a_quicker_one_counts_as_much_as_time_has_passed() -> None:
    (state, _) = given = states(1, 1)
    picker = build(PeakEwma, given)
    picker.observe(state, 1.0, False, 0.0)
    picker.observe(state, 0.0, False, 0.0)
    assert state.latency == 1.0
    picker.observe(state, 0.0, False, DECAY)
    assert state.latency == pytest.approx(1 / e)


def test_of_two_the_quicker_one() -> None:
    given = states(1, 1)
    picker = build(PeakEwma, given)
    picker.observe(given[0], 0.100, False, 0.0)
    picker.observe(given[1], 0.010, False, 0.0)
    assert counts(picker, range(100)) == {"b": 100}
    given[1].in_flight = 10  # eleven times ten milliseconds, with the next one
    assert counts(picker, range(100)) == {"a": 100}


def test_the_weight_counts_too() -> None:
    given = states(4, 1)
    picker = build(PeakEwma, given)
    picker.observe(given[0], 0.030, False, 0.0)
    picker.observe(given[1], 0.010, False, 0.0)
    assert counts(picker, range(100)) == {"a": 100}


def test_an_unknown_one_is_asked_once_and_not_by_a_crowd() -> None:
    given = states(1, 1)
    picker = build(PeakEwma, given)
    picker.observe(given[0], 1.0, False, 0.0)
    assert counts(picker, range(20)) == {"b": 20}
    given[1].in_flight = 1
    given[0].in_flight = 50
    assert counts(picker, range(20)) == {"a": 20}


def test_an_endpoint_that_fails_at_once_is_not_a_quick_one() -> None:
    given = states(1, 1)
    picker = build(PeakEwma, given)
    picker.observe(given[0], 0.001, True, 0.0)
    picker.observe(given[1], 1.0, False, 0.0)
    assert given[0].latency == 0.001 + PENALTY
    assert counts(picker, range(100)) == {"b": 100}


def test_a_slow_one_is_asked_again_after_a_while() -> None:
    """Nothing is heard of one that is not picked: what was known of it must not count for ever."""
    given = states(1, 1)
    picker = build(PeakEwma, given)
    picker.observe(given[0], 1.0, False, 0.0)
    now = 0.0
    while True:
        picker.observe(given[1], 0.010, False, now)
        if "a" in counts(picker, range(10), now):
            break
        now += 1.0
    assert 4 * DECAY < now < 5 * DECAY  # ln 100 is 4.6
