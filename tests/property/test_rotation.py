"""Round robin: exact counts in every cycle, no bunching, and a rotation that rebuilding does not disturb."""

from itertools import groupby
from math import gcd

from hypothesis import given, settings
from hypothesis import strategies as st
from support.balance import build, states

from sidecar.balance import RoundRobin
from sidecar.balance.round_robin import MAX_CYCLE, lay_out

quick = settings(max_examples=200, deadline=None, derandomize=True)

weights_of_some = st.lists(st.one_of(st.integers(1, 5), st.integers(1, 256)), min_size=1, max_size=8)


def shares(weights: list[int]) -> list[int]:
    """Appearances in one cycle: the weights in their lowest terms."""
    return [weight // gcd(*weights) for weight in weights]


@quick
@given(weights_of_some)
def test_every_cycle_gives_each_endpoint_its_weight(weights: list[int]) -> None:
    order = lay_out(weights)
    assert [order.count(index) for index in range(len(weights))] == shares(weights)


@quick
@given(weights_of_some)
def test_no_endpoint_gets_ahead_or_falls_behind(weights: list[int]) -> None:
    """After any number of picks, whatever its neighbours' weights.

    The k-th of w appearances stands at (k + phase) / w of the cycle with 0 < phase < 1, so up to any point x
    of it an endpoint has appeared w x times give or take one, and all n together total x give or take n.
    """
    order = lay_out(weights)
    total, wanted = len(order), shares(weights)
    seen = [0] * len(weights)
    for picks, index in enumerate(order, 1):
        seen[index] += 1
        for count, share in zip(seen, wanted, strict=True):
            assert abs(count - picks * share / total) <= 1 + len(weights) * share / total


@quick
@given(weights_of_some)
def test_runs_are_as_short_as_the_weights_allow(weights: list[int]) -> None:
    """Between two appearances of a second endpoint a first appears w1 / w2 times, rounded up at most."""
    order = lay_out(weights) * 2  # the seam between cycles is no exception
    wanted = shares(weights)
    longest = [0] * len(weights)
    for index, run in groupby(order):
        longest[index] = max(longest[index], len(list(run)))
    if len(weights) > 1:
        for index, share in enumerate(wanted):
            neighbour = max(wanted[:index] + wanted[index + 1 :])
            assert longest[index] <= share // neighbour + 1


@quick
@given(st.integers(1, 30), st.integers(1, 256))
def test_equal_endpoints_take_turns(count: int, weight: int) -> None:
    assert lay_out([weight] * count) == list(range(count))


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 256), min_size=60, max_size=300))
def test_a_large_upstream_keeps_a_bounded_cycle_near_its_weights(weights: list[int]) -> None:
    order = lay_out(weights)
    assert len(order) <= MAX_CYCLE + len(weights)
    for index, weight in enumerate(weights):
        exact = min(1.0, MAX_CYCLE / sum(shares(weights))) * weight / gcd(*weights)
        assert exact - 1 < order.count(index) <= max(1, exact)


@quick
@given(weights_of_some, st.lists(st.integers(0, 40), max_size=6))
def test_rebuilding_over_the_same_endpoints_disturbs_nothing(weights: list[int], stops: list[int]) -> None:
    given_states = states(*weights)
    steady, rebuilt = build(RoundRobin, given_states), build(RoundRobin, given_states)
    for stop in stops:
        for _ in range(stop):
            assert rebuilt.pick(0, 0.0) is steady.pick(0, 0.0)
        rebuilt = build(RoundRobin, given_states, rebuilt)
    assert rebuilt.pick(0, 0.0) is steady.pick(0, 0.0)


@quick
@given(st.lists(st.tuples(st.lists(st.integers(1, 9), max_size=5), st.integers(0, 9)), max_size=6))
def test_a_picker_gives_only_its_own_and_none_only_when_empty(steps: list[tuple[list[int], int]]) -> None:
    picker = None
    for weights, count in steps:
        own = states(*weights)
        picker = build(RoundRobin, own, picker)
        for _ in range(count):
            picked = picker.pick(0, 0.0)
            assert picked in own if own else picked is None
