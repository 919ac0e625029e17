"""The window against the naive sum over everything that was ever counted."""

from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.resilience import SlidingWindow
from sidecar.resilience.window import BUCKETS

# Steps in 32nds of a second, so that sums of floats are exact.
steps = st.lists(st.tuples(st.integers(0, 200), st.booleans()), max_size=80)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(steps, st.sampled_from((5.0, 10.0, 20.0)))
def test_it_holds_what_the_last_seconds_have_brought(story: list[tuple[int, bool]], seconds: float) -> None:
    """All that is younger than the window less one bucket, and nothing that is older than it."""
    window = SlidingWindow(seconds)
    counted: list[tuple[float, bool]] = []
    now = 64.0
    for step, good in story:
        now += step / 32
        window.count(good, now)
        counted.append((now, good))
        found = window.totals(now)
        for wanted, count in zip((True, False), found, strict=True):
            times = [at for at, was in counted if was is wanted]
            surely = sum(now - at < seconds - seconds / BUCKETS for at in times)
            perhaps = sum(now - at < seconds for at in times)
            assert surely <= count <= perhaps
