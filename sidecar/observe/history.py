"""How each upstream was in the last ten minutes, and just now: readings of its counters, taken by one timer.

Every five seconds, and each second while somebody watches. The data path is told nothing of it.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import contextmanager, suppress
from math import isnan
from typing import TYPE_CHECKING, Any

from sidecar.observe.readings import between, read

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sidecar.clock import Clock
    from sidecar.cluster import Cluster
    from sidecar.observe.readings import Rates

__all__ = ["INTERVAL", "LENGTH", "SERIES", "WATCHED", "Sampler"]

INTERVAL = 5.0  # seconds from one point of the history to the next
LENGTH = 120  # points that are kept: ten minutes
WATCHED = 1.0  # seconds between two readings while somebody watches
SERIES = ("requests", "errors", "p50", "p99")
# Upstreams that are read without a pause: at most 15 µs each, so that requests wait for 2 ms.
PART = 100
# How much of an interval a point may be early: readings of watched upstreams are not taken at the very moment.
_EARLY = 0.5
_NONE = float("nan")

Refresh = Callable[[bool], Awaitable[None]]
Read = Callable[["Cluster", "array[int] | None"], "array[int]"]
_DIGITS = {"requests": 3, "errors": 5, "p50": 6, "p99": 6}  # as many as a float of 32 bits holds of them


class _Track:
    """One upstream: 120 points and up to seven readings, 6 KB with all that is around them.

    points: of each of `SERIES`, oldest first; not a number where nothing is known.
    """

    __slots__ = ("_ends_blank", "_point", "_point_at", "_readings", "cluster", "points")

    def __init__(self, cluster: Cluster, now: float, found: array[int]) -> None:
        self.cluster = cluster
        self.points = {name: array("f", (_NONE,)) * LENGTH for name in SERIES}
        self._readings = deque([(now, found)])
        self._point_at, self._point = self._readings[0]
        self._ends_blank = False  # a counter has begun again since the last point

    @property
    def last(self) -> array[int]:
        """The last reading."""
        return self._readings[-1][1]

    def take(self, cluster: Cluster, now: float, found: array[int]) -> None:
        """It has been read. Another cluster of this name goes on where the one before was, unless that has left."""
        last_at, last = self._readings[-1]
        if now <= last_at:
            return
        replaced = cluster is not self.cluster and self.cluster.leaving
        self.cluster = cluster
        if replaced or (found is not last and any(new < old for new, old in zip(found, last, strict=True))):
            self._readings.clear()
            self._ends_blank = True
        self._readings.append((now, found))
        while len(self._readings) > 2 and self._is_better(now):
            self._readings.popleft()

    def _is_better(self, now: float) -> bool:
        """Whether what happened lately is better told from the second reading on than from the first."""
        first, second = self._readings[0][0], self._readings[1][0]
        return abs(now - second - INTERVAL) <= abs(now - first - INTERVAL)

    def recent(self) -> Rates | None:
        """What happened in about the last `INTERVAL`; None before the second reading."""
        if len(self._readings) < 2:
            return None
        (before_at, before), (at, now) = self._readings[0], self._readings[-1]
        return between(before, now, at - before_at, per_request=self.cluster.per_request)

    def end_point(self, missed: int) -> None:
        """The last reading ends a point. missed: points before it in which nothing was read."""
        rates = None
        at, found = self._readings[-1]
        if not self._ends_blank and at > self._point_at:
            rates = between(self._point, found, at - self._point_at, per_request=self.cluster.per_request)
        self._point_at, self._point, self._ends_blank = at, found, False
        values = (_NONE,) * len(SERIES) if rates is None else _values(rates, self.cluster)
        for name, value in zip(SERIES, values, strict=True):
            points = self.points[name]
            points.extend([_NONE] * missed)
            points.append(value)
            del points[:-LENGTH]


def _values(rates: Rates, cluster: Cluster) -> tuple[float, ...]:
    """Of `SERIES`. What an upstream that is proxied per connection is asked are sessions."""
    asked = rates.requests if cluster.per_request else rates.sessions
    return (asked, *(_NONE if one is None else one for one in (rates.errors, rates.p50, rates.p99)))


class Sampler:
    """Takes the readings.

    clusters: by upstream name, looked at anew each time. refresh: awaited before they are read, where somebody else
    counts; told whether anybody watches. read: see `readings.read`.
    interval, length: of the history, see `INTERVAL` and `LENGTH`.
    at: wall time of the newest point, in seconds since the epoch. points: how many have ended, also where nothing was
    read. count: how many times readings have been taken.
    """

    interval = INTERVAL
    length = LENGTH

    def __init__(
        self,
        clusters: Mapping[str, Cluster],
        clock: Clock,
        refresh: Refresh | None = None,
        read: Read = read,
    ) -> None:
        self._clusters = clusters
        self._clock = clock
        self._refresh = refresh
        self._read = read
        self._tracks: dict[str, _Track] = {}
        self._watchers = 0
        self._wake = asyncio.Event()
        self._taken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._sampled_at = clock.monotonic()
        self._next_point = self._sampled_at + INTERVAL
        self.at = clock.wall()
        self.points = 0
        self.count = 0

    def start(self) -> None:
        """Take readings from now on, until it is closed."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Take no more; safe to call at any time and again."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Somebody watches: there are readings at once, and each second until it is left."""
        self._watchers += 1
        self._wake.set()
        try:
            yield
        finally:
            self._watchers -= 1

    async def after(self, count: int) -> int:
        """Wait until readings have been taken more often than `count`; how often by now."""
        while self.count <= count:
            await self._taken.wait()
        return self.count

    async def _run(self) -> None:
        await self.sample()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._due() - self._clock.monotonic()):
                    await self._wake.wait()
            self._wake.clear()
            self._sampled_at = self._clock.monotonic()
            if self._refresh is not None:
                await self._refresh(self._watchers > 0)
            await self.sample()

    def _due(self) -> float:
        if self._watchers:
            return min(self._next_point, self._sampled_at + WATCHED)
        return self._next_point

    async def sample(self) -> None:
        """Read all upstreams, in parts, and end a point if it is time."""
        now = self._clock.monotonic()
        ends = now >= self._next_point - _EARLY
        missed = 0
        if ends:
            missed = int((now - self._next_point + _EARLY) // INTERVAL)
            self._next_point += INTERVAL * (missed + 1)
        for number, (name, cluster) in enumerate(tuple(self._clusters.items())):
            if number % PART == PART - 1:
                await asyncio.sleep(0)  # requests come first
            now = self._clock.monotonic()
            track = self._tracks.get(name)
            if track is None:
                track = self._tracks[name] = _Track(cluster, now, self._read(cluster, None))
            else:
                track.take(cluster, now, self._read(cluster, track.last))
            if ends:
                track.end_point(min(missed, LENGTH))
        for name in [name for name in self._tracks if name not in self._clusters]:
            del self._tracks[name]
        if ends:
            self.at = self._clock.wall()
            self.points += missed + 1
        self.count += 1
        taken, self._taken = self._taken, asyncio.Event()
        taken.set()

    # What it knows

    def recent(self, name: str) -> dict[str, Any] | None:
        """What the upstream did in about the last five seconds (`Rates.view`); None where that is not known yet."""
        track = self._tracks.get(name)
        rates = None if track is None else track.recent()
        return None if rates is None else rates.view()

    def histories(self) -> Iterator[tuple[str, dict[str, list[float | None]]]]:
        """The points of each upstream, by `SERIES`, oldest first; looks at each when it is its turn.

        requests: per second, or ended sessions where the upstream is proxied per connection. errors: the ratio that
        failed. p50, p99: seconds. None: not known, or for all but requests that there were none.
        """
        for name in tuple(self._tracks):
            track = self._tracks.get(name)
            if track is not None:
                yield name, {series: _rounded(series, track.points[series]) for series in SERIES}


def _rounded(series: str, points: array[float]) -> list[float | None]:
    digits = _DIGITS[series]
    return [None if isnan(point) else round(point, digits) for point in points]
