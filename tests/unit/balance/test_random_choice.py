"""Random: chance in proportion to the weights, and nothing else."""

from support.balance import balancing, build, counts, names, states

from sidecar.balance import POLICIES, RandomChoice


def test_it_is_found_by_the_name_the_configuration_uses() -> None:
    assert POLICIES["random"] is RandomChoice


def test_the_same_chances_give_the_same_picks() -> None:
    one, other = (build(RandomChoice, states(1, 1, 1), given=balancing(seed=7)) for _ in range(2))
    picked = names(one, 20)
    assert picked == names(other, 20)
    assert len(set(picked)) == 3


def test_each_gets_what_its_weight_says() -> None:
    found = counts(build(RandomChoice, states(1, 2, 7)), range(10_000))
    assert 900 < found["a"] < 1100
    assert 1850 < found["b"] < 2150
    assert 6850 < found["c"] < 7150


def test_load_does_not_matter() -> None:
    given = states(1, 1)
    given[0].in_flight = 1000
    assert 4700 < counts(build(RandomChoice, given), range(10_000))["a"] < 5300
