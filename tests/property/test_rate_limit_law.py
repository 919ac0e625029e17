"""Whatever comes when: in no span of time are more admitted than the burst and what flows in meanwhile."""

from hypothesis import given
from hypothesis import strategies as st

from sidecar.resilience import TokenBucket

STEPS = st.lists(
    st.one_of(st.just(0.0), st.floats(-5.0, 5.0), st.floats(0.0, 0.01), st.just(1e6)),
    min_size=1,
    max_size=200,
)


@given(st.integers(1, 1000), st.floats(0.01, 3600.0), st.integers(1, 500), STEPS)
def test_never_more_than_the_burst_and_the_rate(
    requests: int, per: float, burst: int, steps: list[float]
) -> None:
    now = 1000.0
    bucket = TokenBucket(requests, per, burst, now)
    latest = now  # as far as the clock has ever gone
    times: list[float] = []
    for step in steps:
        now += step
        latest = max(latest, now)
        if bucket.admit(now):
            times.append(latest)
    for first in range(len(times)):
        for last in range(first, len(times)):
            allowed = burst + requests / per * (times[last] - times[first])
            assert last - first + 1 <= allowed * (1 + 1e-9) + 1e-6


@given(st.integers(1, 1000), st.floats(0.01, 3600.0), st.integers(1, 500), STEPS)
def test_who_waits_as_long_as_told_is_admitted(
    requests: int, per: float, burst: int, steps: list[float]
) -> None:
    now = 1000.0
    bucket = TokenBucket(requests, per, burst, now)
    for step in steps:
        now += abs(step)
        bucket.admit(now)
    now += bucket.wait(now)
    assert bucket.admit(now + 1e-6 * per)
