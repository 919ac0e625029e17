"""Ring hash: the same key to the same endpoint, a fair share to each, and no more moves than there must be."""

import random
from collections import Counter
from dataclasses import replace

import pytest
from support.balance import balancing, build, counts, states

from sidecar.balance import POLICIES, RingHash
from sidecar.balance.ring_hash import MAX_POINTS, POINTS, Ring
from sidecar.model import EndpointState

CHANCE = random.Random(5)
KEYS = [CHANCE.getrandbits(64) for _ in range(20_000)]
TOP = (1 << 64) - 1


def owners(picker: object, keys: list[int] = KEYS) -> list[str]:
    found = [picker.pick(key, 0.0) for key in keys]  # type: ignore[attr-defined]
    return [state.endpoint.host for state in found]


def test_it_is_found_by_the_name_the_configuration_uses() -> None:
    assert POLICIES["ring_hash"] is RingHash


def test_the_same_key_goes_to_the_same_endpoint_in_whatever_order_they_are_named() -> None:
    given = states(1, 1, 1)
    picker = build(RingHash, given)
    assert owners(picker) == owners(picker)
    assert owners(build(RingHash, list(reversed(given)))) == owners(picker)


@pytest.mark.parametrize("key", [0, 1, TOP - 1, TOP])
def test_the_ring_has_no_ends(key: int) -> None:
    assert build(RingHash, states(1, 1)).pick(key, 0.0) is not None


def test_each_gets_about_its_share() -> None:
    found = counts(build(RingHash, states(*[1] * 10)), KEYS)
    assert len(found) == 10
    assert all(0.65 * 2000 < count < 1.35 * 2000 for count in found.values())


def test_weights_are_shares_of_the_ring() -> None:
    found = counts(build(RingHash, states(1, 4)), KEYS)
    assert 0.15 < found["a"] / len(KEYS) < 0.25


def test_one_that_goes_moves_its_own_keys_and_no_other() -> None:
    given = states(1, 1, 1, 1, 1)
    before = owners(build(RingHash, given))
    after = owners(build(RingHash, given[:-1]))
    moved = [was for was, now in zip(before, after, strict=True) if was != now]
    assert set(moved) == {"e"}


def test_one_that_comes_takes_its_share_and_moves_nothing_else() -> None:
    given = states(1, 1, 1, 1, 1)
    before = owners(build(RingHash, given[:-1]))
    after = owners(build(RingHash, given))
    moved = [now for was, now in zip(before, after, strict=True) if was != now]
    assert set(moved) == {"e"}
    assert len(moved) < 1.35 / 5 * len(KEYS)


def test_one_of_another_weight_moves_no_keys_of_others() -> None:
    """Points are of the own weight alone: with the lowest terms of all weights everybody's would move."""
    for weight in (1, 2, 3, 7):
        given = states(2, 2, 2, 2, weight)
        before = owners(build(RingHash, given[:-1]))
        after = owners(build(RingHash, given))
        assert {now for was, now in zip(before, after, strict=True) if was != now} == {"e"}


def test_a_breaker_that_opens_leaves_the_ring_as_it_is() -> None:
    given = states(1, 1, 1)
    shared = balancing(members=given)
    whole = build(RingHash, given, given=shared)
    laid_out = shared.ring
    without = build(RingHash, given[1:], whole, given=shared)
    again = build(RingHash, given, without, given=shared)
    assert shared.ring is laid_out
    assert owners(without) == owners(build(RingHash, given[1:]))
    assert owners(again) == owners(whole)


def test_with_most_of_them_open_a_pick_does_not_walk_past_them_all() -> None:
    given = states(*[1] * 100)
    few = build(RingHash, given[:3], given=balancing(members=given))
    assert isinstance(few, RingHash)
    assert few._ring.members == given[:3]
    assert owners(few) == owners(build(RingHash, given[:3]))


def place(picker: object, keys: list[int], given: list[EndpointState], stats: object) -> None:
    for key in keys:
        state = picker.pick(key, 0.0)  # type: ignore[attr-defined]
        stats.in_flight += 1  # type: ignore[attr-defined]
        state.in_flight += 1


def test_a_hot_key_spills_over_to_the_next_ones() -> None:
    """No more than 1.25 times the share of all, rounded up by the one that is placed."""
    given = states(1, 1, 1, 1)
    shared = balancing(max_load=1.25)
    picker = build(RingHash, given, given=shared)
    place(picker, [KEYS[0]] * 400, given, shared.stats)
    loads = sorted(state.in_flight for state in given)
    assert loads[-1] <= 1.25 * 400 / 4 + 1
    assert sum(loads) == 400


def test_a_key_with_little_to_do_stays_where_it_is() -> None:
    given = states(1, 1, 1, 1)
    shared = balancing(max_load=1.0)
    picker = build(RingHash, given, given=shared)
    place(picker, [KEYS[0]] * 8, given, shared.stats)
    assert max(state.in_flight for state in given) == 8
    place(picker, [KEYS[0]], given, shared.stats)
    assert max(state.in_flight for state in given) == 8


def test_sessions_are_load_too() -> None:
    given = states(1, 1)
    shared = balancing(max_load=1.0)
    picker = build(RingHash, given, given=shared)
    first = picker.pick(KEYS[0], 0.0)
    assert first is not None
    first.in_flight = 10
    assert picker.pick(KEYS[0], 0.0) is not first
    shared.stats.sessions_active = 30
    assert picker.pick(KEYS[0], 0.0) is first


def test_a_higher_bound_keeps_more_together() -> None:
    given = states(1, 1, 1, 1)
    shared = balancing(max_load=4.0)
    picker = build(RingHash, given, given=shared)
    place(picker, [KEYS[0]] * 100, given, shared.stats)
    assert max(state.in_flight for state in given) == 100


def test_an_untried_one_is_the_next_clockwise() -> None:
    given = states(1, 1, 1)
    picker = build(RingHash, given)
    for key in KEYS[:200]:
        first = picker.pick(key, 0.0)
        assert first is not None
        without = [state for state in given if state is not first]
        assert picker.pick_untried(key, 0.0, [first]) is build(RingHash, without).pick(key, 0.0)


def test_room_is_in_proportion_to_the_weight() -> None:
    given = states(1, 9)
    shared = balancing(max_load=1.0)
    picker = build(RingHash, given, given=shared)
    heavy = next(key for key in KEYS if owners(picker, [key]) == ["b"])
    place(picker, [heavy] * 20, given, shared.stats)
    assert given[1].in_flight >= 18


def test_when_all_are_full_the_keys_own_takes_it() -> None:
    given = states(*[1] * 4)
    shared = balancing()
    picker = build(RingHash, given, given=shared)
    wanted = owners(picker, KEYS[:50])
    for state in given:
        state.in_flight = 100
    assert owners(picker, KEYS[:50]) == wanted


def test_a_large_upstream_has_a_bounded_ring() -> None:
    ring = Ring(states(*[256, 1] * 1000))
    assert len(ring.points) <= MAX_POINTS
    owned = Counter(point & ring.mask for point in ring.points)
    assert len(owned) == 2000
    assert min(owned.values()) >= 8
    assert len(Ring(states(1, 1)).points) == 2 * POINTS


def test_a_ring_that_follows_many_snapshots_is_the_one_laid_out_at_once() -> None:
    chance = random.Random(7)
    everybody = states(*[1] * 60)
    shared = balancing(members=everybody[:40])
    picker = build(RingHash, shared.members, given=shared)
    for _ in range(30):
        for state in chance.sample(everybody, 5):  # known endpoints may come to have another weight
            state.endpoint = replace(state.endpoint, weight=chance.choice((1, 1, 1, 3)))
        shared.members = chance.sample(everybody, chance.randint(33, 60) if chance.random() < 0.7 else 15)
        picker = build(RingHash, shared.members, picker, given=shared)
        ring = shared.ring
        assert isinstance(ring, Ring)
        assert ring.points == sorted(ring.points)
        assert len(ring.members) <= ring.mask + 1
        fresh = build(RingHash, shared.members, given=balancing(members=shared.members))
        assert owners(picker, KEYS[:2000]) == owners(fresh, KEYS[:2000])
