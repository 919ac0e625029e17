"""Least request: of two drawn by chance, the one with fewer in flight for its weight."""

from support.balance import balancing, build, counts, states

from sidecar.balance import POLICIES, LeastRequest


def test_it_is_found_by_the_name_the_configuration_uses() -> None:
    assert POLICIES["least_request"] is LeastRequest


def test_of_two_the_one_with_less_to_do() -> None:
    given = states(1, 1)
    given[0].in_flight = 1
    assert counts(build(LeastRequest, given), range(200)) == {"b": 200}
    given[1].in_flight = 2
    assert counts(build(LeastRequest, given), range(200)) == {"a": 200}


def test_the_busiest_of_all_is_never_picked_and_the_idlest_most_often() -> None:
    """Two are drawn: the busiest loses to whatever it meets, the idlest wins whenever it is drawn."""
    given = states(1, 1, 1, 1)
    for load, state in enumerate(given):
        state.in_flight = load
    found = counts(build(LeastRequest, given), range(6000))
    assert found["d"] == 0
    assert 2850 < found["a"] < 3150  # 1 - (3/4 * 2/3)
    assert 1850 < found["b"] < 2150  # 1/3
    assert 850 < found["c"] < 1150  # 1/6


def test_load_counts_in_proportion_to_the_weight() -> None:
    given = states(4, 1)
    given[0].in_flight, given[1].in_flight = 3, 1
    assert counts(build(LeastRequest, given), range(200)) == {"a": 200}
    given[0].in_flight = 5
    assert counts(build(LeastRequest, given), range(200)) == {"b": 200}


def test_with_nothing_to_do_each_gets_what_its_weight_says() -> None:
    found = counts(build(LeastRequest, states(1, 3)), range(8000))
    assert 1850 < found["a"] < 2150


def test_load_evens_out() -> None:
    """Requests that come faster than they end: nobody gets far ahead, whatever chance says."""
    given = states(*[1] * 50)
    picker = build(LeastRequest, given, given=balancing(seed=3))
    for _ in range(5000):
        state = picker.pick(0, 0.0)
        assert state is not None
        state.in_flight += 1
    loads = [state.in_flight for state in given]
    assert sum(loads) == 5000
    assert max(loads) <= 100 + 4
