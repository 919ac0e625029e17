"""The last ten minutes of each upstream, whatever becomes of time and of the upstreams meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.clock import FakeClock
from support.counting import answer, upstream

from sidecar.clock import Clock
from sidecar.cluster import Cluster
from sidecar.observe.history import INTERVAL, LENGTH, SERIES, Sampler


class Stage:
    """A sampler whose time a test moves."""

    def __init__(self, *names: str, scheme: str = "http") -> None:
        self.clock = FakeClock()
        self.clusters: dict[str, Cluster] = {
            name: upstream(self.clock, name, scheme=scheme) for name in names
        }
        clock: Any = self.clock
        self.sampler = Sampler(self.clusters, clock)

    async def pass_time(self, seconds: float = INTERVAL) -> None:
        """Let it pass, and a reading be taken."""
        self.clock.advance(seconds)
        await self.sampler.sample()

    def last(self, name: str = "api", count: int = 1) -> list[Any]:
        """The newest points, each with all series."""
        points = dict(self.sampler.histories())[name]
        assert {len(points[series]) for series in SERIES} == {LENGTH}
        return list(zip(*(points[series][-count:] for series in SERIES), strict=True))


async def staged(*names: str, scheme: str = "http") -> Stage:
    """One that has begun."""
    stage = Stage(*names, scheme=scheme)
    await stage.sampler.sample()
    return stage


async def test_nothing_is_known_at_first() -> None:
    stage = await staged("api")
    assert stage.last(count=LENGTH) == [(None, None, None, None)] * LENGTH
    assert stage.sampler.recent("api") is None
    assert stage.sampler.recent("other") is None


async def test_a_point_is_what_happened_in_its_interval() -> None:
    stage = await staged("api")
    answer(stage.clusters["api"], 15)
    answer(stage.clusters["api"], 5, 503)
    await stage.pass_time()
    assert stage.last() == [(4.0, 0.25, pytest.approx(0.00175), pytest.approx(0.002485))]
    await stage.pass_time()
    assert stage.last() == [(0.0, None, None, None)]
    assert stage.sampler.at == stage.clock.wall()


async def test_sessions_are_what_an_upstream_without_requests_is_asked() -> None:
    stage = await staged("api", scheme="tcp")
    stage.clusters["api"].stats.sessions[0] += 10
    await stage.pass_time()
    assert stage.last() == [(2.0, 0.0, None, None)]


async def test_only_the_last_ten_minutes_are_kept() -> None:
    stage = await staged("api")
    for count in range(LENGTH + 3):
        answer(stage.clusters["api"], 5 * count)
        await stage.pass_time()
    assert [point[0] for point in stage.last(count=LENGTH)] == [
        float(count) for count in range(3, LENGTH + 3)
    ]


async def test_rates_are_over_the_time_that_really_passed() -> None:
    stage = await staged("api")
    answer(stage.clusters["api"], 13)
    await stage.pass_time(6.5)
    assert stage.last(count=2) == [(None, None, None, None), (2.0, 0.0, *stage.last()[0][2:])]


async def test_intervals_keep_their_beat_after_one_that_was_late() -> None:
    stage = await staged("api")
    await stage.pass_time(6.0)
    await stage.pass_time(4.0)
    assert [point[0] for point in stage.last(count=3)] == [None, 0.0, 0.0]


async def test_what_was_not_looked_at_is_a_gap_and_no_spike() -> None:
    stage = await staged("api")
    await stage.pass_time()
    answer(stage.clusters["api"], 200)
    await stage.pass_time(20.0)
    assert [point[0] for point in stage.last(count=6)] == [None, 0.0, None, None, None, 10.0]


@pytest.mark.parametrize("seconds", [LENGTH * INTERVAL, 1e9])
async def test_a_gap_of_any_length_is_bounded(seconds: float) -> None:
    stage = await staged("api")
    await stage.pass_time()
    await stage.pass_time(seconds)
    assert [point[0] for point in stage.last(count=LENGTH)] == [None] * (LENGTH - 1) + [0.0]


async def test_readings_of_the_same_moment_are_one() -> None:
    stage = await staged("api")
    answer(stage.clusters["api"], 10)
    await stage.sampler.sample()
    assert stage.sampler.recent("api") is None
    await stage.pass_time()
    assert stage.last()[0][0] == 2.0


async def test_counters_that_begin_again_are_one_gap() -> None:
    stage = await staged("api")
    answer(stage.clusters["api"], 100)
    await stage.pass_time()
    stage.clusters["api"] = upstream(stage.clock)
    answer(stage.clusters["api"], 50)
    await stage.pass_time()
    assert stage.sampler.recent("api") is None
    answer(stage.clusters["api"], 5)
    await stage.pass_time()
    assert [point[0] for point in stage.last(count=3)] == [20.0, None, 1.0]


async def test_an_upstream_in_the_place_of_one_that_leaves_begins_anew() -> None:
    stage = await staged("api")
    answer(stage.clusters["api"], 10)
    await stage.pass_time()
    stage.clusters["api"].leaving = True
    stage.clusters["api"] = upstream(stage.clock)
    answer(stage.clusters["api"], 50)
    await stage.pass_time()
    await stage.pass_time()
    assert [point[0] for point in stage.last(count=3)] == [2.0, None, 0.0]


async def test_another_object_with_the_same_counters_goes_on() -> None:
    """A supervisor shows its sums in other clusters after each reload."""
    stage = await staged("api")
    answer(stage.clusters["api"], 10)
    await stage.pass_time()
    stage.clusters["api"] = upstream(stage.clock)
    answer(stage.clusters["api"], 15)
    await stage.pass_time()
    assert [point[0] for point in stage.last(count=2)] == [2.0, 1.0]


async def test_upstreams_come_and_go() -> None:
    stage = await staged("api", "web")
    del stage.clusters["api"]
    await stage.pass_time()
    assert list(dict(stage.sampler.histories())) == ["web"]
    stage.clusters["api"] = upstream(stage.clock)
    await stage.pass_time()
    assert stage.last(count=LENGTH) == [(None, None, None, None)] * LENGTH
    answer(stage.clusters["api"], 5)
    await stage.pass_time()
    assert stage.last()[0][0] == 1.0


# What happened just now


async def test_recent_is_of_the_last_interval_where_nobody_watches() -> None:
    stage = await staged("api")
    answer(stage.clusters["api"], 20, 500)
    await stage.pass_time()
    assert stage.sampler.recent("api") == {
        "seconds": 5.0,
        "requests": 4.0,
        "errors": 1.0,
        "p50": 0.00175,
        "p99": 0.002485,
        "sessions": 0.0,
        "bytes_sent": 0.0,
        "bytes_received": 0.0,
    }


async def test_recent_is_of_five_seconds_where_somebody_watches() -> None:
    stage = await staged("api")
    found = []
    for _ in range(9):
        answer(stage.clusters["api"], 1)
        await stage.pass_time(1.0)
        recent = stage.sampler.recent("api")
        assert recent is not None
        assert recent["requests"] == 1.0
        found.append(recent["seconds"])
    assert found == [1.0, 2.0, 3.0, 4.0, 5.0, 5.0, 5.0, 5.0, 5.0]
    assert [point[0] for point in stage.last(count=2)] == [None, 1.0]


# The timer


@pytest.fixture
async def running() -> AsyncIterator[tuple[Sampler, list[bool]]]:
    """A sampler in real time, and each time that it has asked for what is to be read: whether for a watcher."""
    asked: list[bool] = []

    async def refresh(watched: bool) -> None:
        asked.append(watched)

    clock = Clock()
    sampler = Sampler({"api": Cluster("api", "http", upstream(FakeClock()).policy, clock)}, clock, refresh)
    sampler.start()
    yield sampler, asked
    await sampler.close()
    await sampler.close()


async def test_who_begins_to_watch_has_a_reading_at_once(running: tuple[Sampler, list[bool]]) -> None:
    sampler, asked = running
    async with asyncio.timeout(INTERVAL / 2):
        count = await sampler.after(0)
        with sampler.watching():
            assert await sampler.after(count) == count + 1
    assert asked == [True]


async def test_while_somebody_watches_there_is_one_each_second(running: tuple[Sampler, list[bool]]) -> None:
    sampler, _ = running
    with sampler.watching():
        async with asyncio.timeout(INTERVAL / 2):
            assert await sampler.after(2) == 3


async def test_requests_come_before_the_next_hundred_upstreams() -> None:
    stage = Stage(*(f"a{number}" for number in range(250)))
    turns: list[int] = []
    asyncio.get_running_loop().call_soon(turns.append, 1)
    await stage.sampler.sample()
    assert turns
    assert len(dict(stage.sampler.histories())) == 250
