"""Zone preference: the own zone while it can, the others for the rest."""

import random

import pytest
from support.balance import balancing, build, names, states

from sidecar.balance import PeakEwma, RoundRobin, ZonePreference, own_share


def preference(share: float) -> ZonePreference:
    own = build(RoundRobin, states(1, 1))
    others = build(RoundRobin, states(1, 1, 1, 1)[2:])
    return ZonePreference(own, others, share, balancing())


@pytest.mark.parametrize(
    ("usable", "known", "share"),
    [(3, 3, 1.0), (8, 10, 1.0), (5, 10, 0.7), (1, 10, 0.14), (0, 10, 0.0), (0, 0, 0.0)],
)
def test_the_own_zone_keeps_all_until_three_tenths_have_gone(usable: int, known: int, share: float) -> None:
    assert own_share(usable, known) == pytest.approx(share)


def test_all_stays_in_the_own_zone_and_takes_turns_there() -> None:
    assert names(preference(1.0), 6) == "ababab"


def test_what_it_cannot_carry_goes_to_the_others_evenly() -> None:
    assert names(preference(0.5), 8) == "acbdacbd"
    picked = names(preference(0.7), 100)
    assert sum(name in "ab" for name in picked) == 70
    assert "cdc" not in picked
    assert "dcd" not in picked


def test_a_zone_that_has_nobody_gets_nothing() -> None:
    assert names(preference(0.0), 4) == "cdcd"


def test_what_attempts_took_is_learnt_in_either_zone() -> None:
    near, far = states(1, 1)
    own, others = build(PeakEwma, [near]), build(PeakEwma, [far])
    picker = ZonePreference(own, others, 0.5, balancing())
    assert picker.observes
    for state in (near, far):
        picker.observe(state, 0.5, False, 1.0)
        assert state.latency == 0.5


def test_rebuilt_after_every_pick_each_has_its_turn() -> None:
    picker = preference(0.25)
    picked = ""
    for _ in range(40):
        picked += names(picker, 1)
        picker = ZonePreference(picker.own, picker.others, 0.25, balancing(), previous=picker)
    assert sum(name in "ab" for name in picked) == 10


def test_by_key_a_key_stays_on_its_side() -> None:
    own, others = build(RoundRobin, states(1)), build(RoundRobin, states(1, 1)[1:])
    picker = ZonePreference(own, others, 0.7, balancing(), hashes=True)
    chance = random.Random(2)
    sides = {}
    for _ in range(2000):
        key = chance.getrandbits(64)
        found = {state.endpoint.host for state in (picker.pick(key, 0.0) for _ in range(3)) if state}
        assert len(found) == 1
        sides[key] = found.pop()
    assert 1300 < list(sides.values()).count("a") < 1500


def test_a_retry_goes_where_its_turn_is() -> None:
    """A zone that has one left is not to get every retry of the others."""
    picker = preference(0.25)
    c = picker.others.endpoints[0]
    found = [picker.pick_untried(0, 0.0, [c]) for _ in range(40)]
    assert sum(state in picker.own.endpoints for state in found) == 10


def test_a_retry_leaves_the_zone_only_when_all_of_it_were_tried() -> None:
    picker = preference(1.0)
    a, b, c, d = picker.endpoints
    assert picker.pick_untried(0, 0.0, [a]) is b
    assert picker.pick_untried(0, 0.0, [a, b]) in (c, d)
    assert picker.pick_untried(0, 0.0, [a, b, c]) is d
    assert picker.pick_untried(0, 0.0, [a, b, c, d]) in (a, b)
