"""The token bucket: bursts, refilling, clocks that stand still or jump, and other values meanwhile."""

import pytest

from sidecar.resilience import TokenBucket

NOW = 1000.0


def admitted(bucket: TokenBucket, now: float, asked: int = 100) -> int:
    """How many of so many are admitted at once."""
    return sum(bucket.admit(now) for _ in range(asked))


def test_a_burst_then_the_rate() -> None:
    bucket = TokenBucket(10, 1.0, 20, NOW)
    assert admitted(bucket, NOW) == 20
    assert admitted(bucket, NOW + 0.5) == 5
    assert admitted(bucket, NOW + 1.5) == 10


def test_it_holds_no_more_than_its_burst() -> None:
    bucket = TokenBucket(10, 1.0, 3, NOW)
    assert admitted(bucket, NOW + 3600.0) == 3


@pytest.mark.parametrize(("requests", "per"), [(10, 1.0), (3, 1.0), (7, 1.0), (1, 0.7)])
def test_who_comes_evenly_at_the_rate_always_passes(requests: int, per: float) -> None:
    bucket = TokenBucket(requests, per, 1, NOW)
    assert all(bucket.admit(NOW + number * per / requests) for number in range(500))


def test_a_bucket_holds_one_at_least() -> None:
    assert admitted(TokenBucket(10, 1.0, 0.25, NOW), NOW) == 1


def test_time_that_stands_still_or_goes_back_brings_nothing() -> None:
    bucket = TokenBucket(10, 1.0, 2, NOW)
    assert admitted(bucket, NOW) == 2
    assert admitted(bucket, NOW) == 0
    assert admitted(bucket, NOW - 60.0) == 0
    assert admitted(bucket, NOW + 0.05) == 0, "what was before is not counted twice"
    assert admitted(bucket, NOW + 0.1) == 1
    assert admitted(TokenBucket(10, 1.0, 2, NOW), NOW - 60.0) == 2


@pytest.mark.parametrize(("passed", "wait"), [(0.0, 0.5), (0.3, 0.2), (0.5, 0.0), (9.0, 0.0)])
def test_how_long_the_next_has_to_wait(passed: float, wait: float) -> None:
    bucket = TokenBucket(2, 1.0, 1, NOW)
    assert bucket.wait(NOW) == 0.0
    assert bucket.admit(NOW)
    assert bucket.wait(NOW + passed) == pytest.approx(wait)


def test_other_values_keep_what_is_in_it() -> None:
    bucket = TokenBucket(10, 1.0, 20, NOW)
    assert admitted(bucket, NOW, asked=15) == 15
    bucket.configure(100, 1.0, 40, NOW)
    assert admitted(bucket, NOW) == 5, "more room is no more tokens"
    bucket.configure(100, 1.0, 4, NOW + 1.0)
    assert admitted(bucket, NOW + 1.0) == 4, "and less room holds fewer"


def test_what_came_before_other_values_came_at_the_old_rate() -> None:
    bucket = TokenBucket(10, 1.0, 100, NOW)
    assert admitted(bucket, NOW) == 100
    bucket.configure(1000, 1.0, 100, NOW + 1.0)
    assert admitted(bucket, NOW + 1.0) == 10
