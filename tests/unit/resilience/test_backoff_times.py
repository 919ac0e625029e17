"""Waiting before the same endpoint is tried again."""

from sidecar.resilience import full_jitter


def test_it_doubles_up_to_its_cap() -> None:
    assert [full_jitter(retry, 1.0, 6.0, 1.0) for retry in range(5)] == [1.0, 2.0, 4.0, 6.0, 6.0]


def test_it_is_anywhere_below() -> None:
    assert [full_jitter(2, 1.0, 60.0, chance) for chance in (0.0, 0.25, 0.5)] == [0.0, 1.0, 2.0]


def test_many_retries_do_not_overflow() -> None:
    assert full_jitter(100_000, 1.0, 60.0, 1.0) == 60.0


def test_without_a_base_there_is_no_wait() -> None:
    assert full_jitter(3, 0.0, 60.0, 1.0) == 0.0
