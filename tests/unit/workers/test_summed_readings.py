"""What workers tell for the history, and what it adds up to whoever of them dies."""

import asyncio
from types import SimpleNamespace
from typing import Any

from support.clock import FakeClock
from support.counting import answer, upstream

from sidecar.observe.readings import REQUESTS, SIZE
from sidecar.workers.readings import PART, SummedReadings, ToldReadings


class Worker:
    """One whose messages arrive at once."""

    def __init__(self, *names: str) -> None:
        self.clusters = {name: upstream(FakeClock(), name) for name in names}
        self.messages: list[Any] = []
        self.known: Any = SimpleNamespace(readings={}, reread=set())
        self._told = ToldReadings(self.messages.append)

    def tell(self) -> list[str]:
        """The upstreams that it tells of."""
        self.messages.clear()
        self._told.tell(self.clusters)
        for message in self.messages:
            self.known.readings |= message["readings"]
            self.known.reread |= message["readings"].keys()
        return [name for message in self.messages for name in message["readings"]]


def requests(sums: SummedReadings, name: str = "api") -> int:
    found: int = sums.read(upstream(FakeClock(), name))[REQUESTS]
    return found


def test_a_worker_tells_what_has_changed() -> None:
    worker = Worker("api", "web")
    assert worker.tell() == ["api", "web"]
    assert worker.tell() == []
    assert worker.messages == [{"kind": "readings", "readings": {}, "more": False}]
    answer(worker.clusters["web"], 3)
    assert worker.tell() == ["web"]


def test_an_upstream_that_comes_back_is_told_anew() -> None:
    worker = Worker("api")
    worker.tell()
    cluster = worker.clusters.pop("api")
    worker.tell()
    worker.clusters["api"] = cluster
    assert worker.tell() == ["api"]


async def test_requests_come_before_the_next_hundred_upstreams() -> None:
    worker = Worker(*(f"a{number}" for number in range(PART + 1)))
    worker.tell()
    assert [message["more"] for message in worker.messages] == [True]
    await asyncio.sleep(0)
    assert [message["more"] for message in worker.messages] == [True, False]
    assert [len(message["readings"]) for message in worker.messages] == [PART, 1]


def test_nothing_is_known_of_an_upstream_at_first() -> None:
    assert SummedReadings().read(upstream(FakeClock())).tolist() == [0] * SIZE


def test_the_whole_is_the_sum_also_of_what_the_dead_had_told() -> None:
    one, two, sums = Worker("api"), Worker("api"), SummedReadings()
    answer(one.clusters["api"], 3)
    answer(two.clusters["api"], 4)
    one.tell()
    two.tell()
    sums.add_up([one.known, two.known], ["api"])
    assert requests(sums) == 7
    answer(one.clusters["api"], 10)
    one.tell()  # its last word, which nobody has added up
    sums.bury(one.known)
    sums.add_up([two.known], ["api"])
    assert requests(sums) == 17
    another = Worker("api")
    answer(another.clusters["api"], 5)
    another.tell()
    sums.add_up([two.known, another.known], ["api"])
    assert requests(sums) == 22
    sums.bury(two.known)
    sums.add_up([another.known], ["api"])
    assert requests(sums) == 22


def test_where_nothing_has_changed_the_reading_is_the_one_before() -> None:
    worker, sums = Worker("api"), SummedReadings()
    cluster = worker.clusters["api"]
    worker.tell()
    sums.add_up([worker.known], ["api"])
    first = sums.read(cluster)
    worker.tell()
    sums.add_up([worker.known], ["api"])
    assert sums.read(cluster, first) is first
    answer(cluster, 1)
    worker.tell()
    sums.add_up([worker.known], ["api"])
    assert sums.read(cluster, first) is not first


def test_what_is_not_configured_any_more_is_forgotten() -> None:
    worker, dead, sums = Worker("api", "web"), Worker("api"), SummedReadings()
    for one in (worker, dead):
        answer(one.clusters["api"], 3)
        one.tell()
    sums.bury(dead.known)
    sums.add_up([worker.known], ["api", "web"])
    assert requests(sums) == 6
    sums.add_up([worker.known], ["web"])
    assert list(worker.known.readings) == ["web"]
    sums.add_up([worker.known], ["api", "web"])
    assert requests(sums) == 0
