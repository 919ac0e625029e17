"""Smooth weighted round robin: exact counts, even spread, and a rotation that goes on."""

import pytest
from support.balance import build, names, states

from sidecar.balance import POLICIES, RoundRobin
from sidecar.balance.round_robin import MAX_CYCLE, lay_out


def test_it_is_found_by_the_name_the_configuration_uses() -> None:
    assert POLICIES["round_robin"] is RoundRobin


def test_nobody_to_pick_is_none() -> None:
    picker = build(RoundRobin, [])
    assert picker.pick(0, 0.0) is None
    assert picker.pick(0, 0.0) is None


def test_equal_endpoints_take_turns_in_source_order() -> None:
    assert names(build(RoundRobin, states(1, 1, 1)), 7) == "abcabca"
    assert names(build(RoundRobin, states(7, 7)), 5) == "ababa", "equal weights are equal whatever they are"
    assert names(build(RoundRobin, states(3)), 3) == "aaa"


@pytest.mark.parametrize(
    ("weights", "cycle"),
    [
        ((5, 1, 1), "aabacaa"),  # as nginx documents its smooth weighted round robin
        ((2, 1), "aba"),
        ((4, 2), "aba"),
        ((1, 3), "babb"),
        ((2, 2, 1), "abcab"),
        ((1, 2, 3), "cbacbc"),
    ],
)
def test_weights_are_spread_evenly(weights: tuple[int, ...], cycle: str) -> None:
    assert names(build(RoundRobin, states(*weights)), 2 * len(cycle)) == 2 * cycle


def test_every_pick_is_one_of_the_given_states() -> None:
    given = states(2, 1)
    picker = build(RoundRobin, given)
    assert [picker.pick(0, 0.0) for _ in range(3)] == [given[0], given[1], given[0]]


def test_a_new_picker_goes_on_where_the_last_one_was() -> None:
    first = build(RoundRobin, states(1, 1, 1))
    assert names(first, 2) == "ab"
    second = build(RoundRobin, states(1, 1, 1), first)
    assert names(second, 2) == "ca"
    assert names(build(RoundRobin, states(1, 1, 1, 1), second), 4) == "bcda"


def test_a_new_picker_with_fewer_endpoints_begins_again_when_the_place_has_gone() -> None:
    first = build(RoundRobin, states(1, 1, 1, 1))
    assert names(first, 3) == "abc"
    assert names(build(RoundRobin, states(1, 1), first), 3) == "aba"


def test_the_place_survives_a_time_without_endpoints() -> None:
    first = build(RoundRobin, states(1, 1, 1))
    assert names(first, 1) == "a"
    nobody = build(RoundRobin, [], first)
    assert nobody.pick(0, 0.0) is None
    assert names(build(RoundRobin, states(1, 1, 1), nobody), 2) == "bc"


def test_the_picker_of_another_policy_leaves_no_place() -> None:
    assert names(build(RoundRobin, states(1, 1), object()), 2) == "ab"


# lay_out


def test_lay_out_of_nothing() -> None:
    assert lay_out([]) == []


def test_a_cycle_is_as_short_as_its_weights_allow() -> None:
    assert len(lay_out([100, 100])) == 2
    assert len(lay_out([256, 128])) == 3
    assert sorted(lay_out([6, 4])) == [0, 0, 0, 1, 1]


def test_a_cycle_at_its_limit_is_exact() -> None:
    order = lay_out([MAX_CYCLE - 1, 1])
    assert len(order) == MAX_CYCLE
    assert order.count(1) == 1


def test_a_cycle_beyond_its_limit_is_scaled_down_and_forgets_nobody() -> None:
    weights = [256] * 100 + [1] * 3
    order = lay_out(weights)
    assert len(order) <= MAX_CYCLE + len(weights)
    counts = [order.count(index) for index in range(len(weights))]
    assert set(counts[:100]) == {256 * MAX_CYCLE // sum(weights)}
    assert counts[100:] == [1, 1, 1]


def test_more_endpoints_than_a_cycle_holds_are_each_in_it() -> None:
    weights = [1] * MAX_CYCLE + [2]
    order = lay_out(weights)
    assert set(order) == set(range(len(weights)))
    assert len(order) <= 2 * len(weights)
