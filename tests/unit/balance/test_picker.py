"""What every policy is made of, and what all of them keep to."""

import pytest
from support.balance import balancing, build, states

from sidecar.balance import POLICIES, Picker
from sidecar.balance.least_request import TwoChoices

every_policy = pytest.mark.parametrize("name", POLICIES)


def test_a_policy_picks_for_itself() -> None:
    with pytest.raises(NotImplementedError):
        Picker([], None, balancing()).pick(0, 0.0)
    with pytest.raises(NotImplementedError):
        TwoChoices(states(1, 1), None, balancing()).pick(0, 0.0)


@every_policy
def test_nobody_to_pick_is_none(name: str) -> None:
    picker = build(POLICIES[name], [])
    assert picker.pick(0, 0.0) is None
    assert picker.pick_untried(0, 0.0, ()) is None


@every_policy
def test_the_only_one_is_picked_whatever_it_has_to_do(name: str) -> None:
    (only,) = states(3)
    picker = build(POLICIES[name], [only])
    for load in range(4):
        only.in_flight = load
        assert picker.pick(1 << 40, 0.0) is only
        assert picker.pick_untried(1 << 40, 0.0, [only]) is only


@every_policy
def test_a_tried_one_is_not_picked_while_another_is_left(name: str) -> None:
    given = states(256, 1, 3)
    picker = build(POLICIES[name], given)
    for key in range(0, 1 << 64, 1 << 58):
        assert picker.pick_untried(key, 0.0, [given[0], given[2]]) is given[1]
        assert picker.pick_untried(key, 0.0, [given[1]]) in (given[0], given[2])
        assert picker.pick_untried(key, 0.0, given) in given


@every_policy
def test_every_policy_takes_the_place_of_every_other(name: str) -> None:
    given = states(1, 2)
    for before in POLICIES.values():
        picker = build(POLICIES[name], given, build(before, given))
        assert picker.pick(5, 0.0) in given


@every_policy
def test_what_attempts_took_may_be_told_to_every_policy(name: str) -> None:
    given = states(1, 1)
    picker = build(POLICIES[name], given)
    picker.observe(given[0], 0.5, False, 1.0)
    assert picker.observes == (name == "peak_ewma")
    assert (given[0].latency > 0) == picker.observes
