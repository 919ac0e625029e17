"""Whatever is counted and whenever it is looked at: rates times seconds are what was counted, and none is negative."""

import asyncio
from math import isclose
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from support.clock import FakeClock
from support.counting import answer, upstream

from sidecar.observe.history import INTERVAL, LENGTH, Sampler

# Requests that end, and seconds until the next look: early, late, or long after.
STEPS = st.lists(
    st.tuples(
        st.integers(0, 40),
        st.one_of(st.sampled_from([1.0, INTERVAL, INTERVAL * 2.5]), st.floats(0.0, 3 * INTERVAL)),
    ),
    max_size=30,
)


@given(STEPS)
def test_points_add_up_to_what_was_counted(steps: list[tuple[int, float]]) -> None:
    async def play() -> None:
        clock: Any = FakeClock()
        cluster = upstream(clock)
        sampler = Sampler({"api": cluster}, clock)
        await sampler.sample()
        ended_at, pointed, total, counted = clock.now, sampler.at, 0.0, 0
        for requests, seconds in steps:
            answer(cluster, requests)
            counted += requests
            clock.advance(seconds)
            await sampler.sample()
            ((_, points),) = sampler.histories()
            assert all(value is None or value >= 0 for series in points.values() for value in series)
            assert {len(series) for series in points.values()} == {LENGTH}
            recent = sampler.recent("api")
            assert recent is None or recent["requests"] >= 0
            if sampler.at != pointed:
                pointed = sampler.at
                assert points["requests"][-1] is not None
                total += points["requests"][-1] * (clock.now - ended_at)
                ended_at = clock.now
                assert isclose(total, counted, rel_tol=1e-6, abs_tol=0.0005 * (clock.now - 1000.0) + 1e-6)

    asyncio.run(play())
