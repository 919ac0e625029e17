"""The sliding window: counts of the last seconds, dropped bucket by bucket."""

import pytest

from sidecar.resilience import SlidingWindow


def window(seconds: float = 10.0) -> SlidingWindow:
    return SlidingWindow(seconds)


def test_nothing_has_been_counted() -> None:
    assert window().totals(0.0) == (0, 0)
    assert window().totals(1e9) == (0, 0)


def test_what_is_counted_is_in_it_for_as_long_as_it_is() -> None:
    made = window()
    made.count(True, 100.0)
    made.count(False, 100.0)
    made.count(False, 105.0)
    assert made.totals(105.0) == (1, 2)
    assert made.totals(109.9) == (1, 2)
    assert made.totals(110.0) == (0, 1)
    assert made.totals(114.9) == (0, 1)
    assert made.totals(115.0) == (0, 0)


def test_a_long_pause_forgets_everything() -> None:
    made = window()
    made.count(False, 100.0)
    made.count(True, 1000.0)
    assert made.totals(1000.0) == (1, 0)


@pytest.mark.parametrize("seconds", [0.1, 1.0, 60.0])
def test_it_is_as_long_as_it_says(seconds: float) -> None:
    made = window(seconds)
    made.count(False, 5.0)
    assert made.totals(5.0 + 0.99 * seconds) == (0, 1)
    assert made.totals(5.0 + 1.01 * seconds) == (0, 0)


def test_cleared_it_begins_again() -> None:
    made = window()
    made.count(False, 100.0)
    made.clear()
    assert made.totals(100.0) == (0, 0)
    made.count(True, 100.5)
    assert made.totals(101.0) == (1, 0)
