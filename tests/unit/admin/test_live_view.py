"""What changes of the upstreams from one look to the next, and what does not though time passes."""

import asyncio
import json
from typing import Any

import pytest
from support.clock import FakeClock
from support.counting import answer, upstream

from sidecar.admin.live import MOST_ENDPOINTS, LiveView
from sidecar.admin.views import upstreams_view
from sidecar.model import CheckResult, Endpoint, Outcome, Snapshot, WorkerCounts
from sidecar.model.registry import FeedStatus, Registered, RegistrationStatus


class Stage:
    """Two upstreams, and what is known of them."""

    def __init__(self, endpoints: int = 2, workers: WorkerCounts | None = None) -> None:
        self.clock: Any = FakeClock()
        self.clusters = {name: upstream(self.clock, name, endpoints) for name in ("api", "web")}
        self.feeds: dict[str, list[FeedStatus]] = {}
        self.recent: dict[str, dict[str, Any]] = {}
        self.registered: Registered | None = None
        self.draining = False
        self.view = LiveView(
            self.clusters,
            self.clock,
            draining=lambda: self.draining,
            recent=self.recent.get,
            feeds=lambda name: self.feeds.get(name, []),
            registered=lambda: self.registered,
            workers=workers,
        )

    async def look(self) -> list[str]:
        """The names of the upstreams that have changed since the last look."""
        before = self.view.number
        await self.view.look()
        return [json.loads(text)["name"] for text in self.view.since(before)]

    def shown(self, name: str = "api") -> dict[str, Any]:
        """That upstream, as it was found by the last look."""
        found = next(one for one in map(json.loads, self.view.since(0)) if one["name"] == name)
        assert isinstance(found, dict)
        return found

    def fail(self, port: int = 1, name: str = "api") -> None:
        """The breaker of the endpoint opens."""
        cluster = self.clusters[name]
        state = cluster.endpoints["10.0.0.1", port]
        for _ in range(2):
            cluster.report(state, Outcome.RESET, self.clock.now, state.breaker.permit)


async def test_the_first_look_finds_everything_as_upstreams_shows_it() -> None:
    stage = Stage()
    stage.recent["web"] = {"requests": 3.0}
    stage.fail()
    assert await stage.look() == ["api", "web"]
    view = upstreams_view(
        stage.clusters,
        stage.clock,
        mode="local",
        compiled=True,
        started_at=0.0,
        draining=False,
        recent=stage.recent.get,
    )
    for wanted in view["upstreams"]:
        for endpoint in wanted["endpoints"]:
            del endpoint["breaker"]["retry_in"]
        assert stage.shown(wanted["name"]) == json.loads(json.dumps(wanted))


async def test_time_alone_changes_nothing() -> None:
    stage = Stage()
    stage.fail()
    cluster = stage.clusters["api"]
    cluster.endpoints["10.0.0.1", 2].last_check = CheckResult(990.0, True, 0.01, "", 4)
    stage.feeds["web"] = [FeedStatus("dns", 2, 999.0, False, False, "")]
    stage.recent["api"] = {"seconds": 1.0, "requests": 0.0}
    await stage.look()
    for _ in range(5):
        stage.recent["api"] = {"seconds": stage.recent["api"]["seconds"] + 1.0, "requests": 0.0}
        stage.clock.advance(1.0)
        stage.clock.epoch += 0.0004  # two clocks are not read at the same moment
        assert await stage.look() == []
    cluster.endpoints["10.0.0.1", 2].last_check = CheckResult(1005.0, True, 0.02, "", 5)
    assert await stage.look() == []


def change_in_flight(stage: Stage) -> None:
    stage.clusters["api"].endpoints["10.0.0.1", 2].in_flight = 1


def change_endpoints(stage: Stage) -> None:
    stage.clusters["api"].apply(Snapshot("api", (Endpoint("10.0.0.1", 2, weight=5),), "static"))


def change_attempts(stage: Stage) -> None:
    stage.clusters["api"].endpoints["10.0.0.1", 2].attempts[Outcome.SUCCESS] += 1


def change_check(stage: Stage) -> None:
    stage.clusters["api"].endpoints["10.0.0.1", 2].last_check = CheckResult(1000.0, False, 0.1, "refused", 1)


def change_drained(stage: Stage) -> None:
    cluster = stage.clusters["api"]
    cluster.drain([cluster.endpoints["10.0.0.1", 2]], stage.clock.now)


def change_recent(stage: Stage) -> None:
    stage.recent["api"] = {"requests": 1.0}


def change_feed(stage: Stage) -> None:
    stage.feeds["api"] = [FeedStatus("dns", 2, 999.0, True, False, "timed out")]


@pytest.mark.parametrize(
    "change",
    [
        Stage.fail,
        change_in_flight,
        change_endpoints,
        change_attempts,
        change_check,
        change_drained,
        change_recent,
        change_feed,
        lambda stage: answer(stage.clusters["api"], 1),
    ],
)
async def test_what_is_shown_is_found_when_it_changes(change: Any) -> None:
    stage = Stage()
    await stage.look()
    change(stage)
    assert await stage.look() == ["api"]
    view = upstreams_view(
        stage.clusters,
        stage.clock,
        mode="local",
        compiled=True,
        started_at=0.0,
        draining=False,
        feeds=lambda name: stage.feeds.get(name, []),
    )
    wanted = view["upstreams"][0]["endpoints"]
    for shown, endpoint in zip(stage.shown()["endpoints"], wanted, strict=True):
        assert shown["attempts"] == endpoint["attempts"]
        assert shown["weight"] == endpoint["weight"]
        assert shown["drained"] == endpoint["drained"]
        assert shown["breaker"]["state"] == endpoint["breaker"]["state"]


async def test_a_moment_stands_where_upstreams_says_how_long() -> None:
    stage = Stage()
    stage.fail()
    stage.feeds["api"] = [FeedStatus("dns", 2, 999.0, False, False, "")]
    await stage.look()
    shown = stage.shown()
    breaker = shown["endpoints"][0]["breaker"]
    assert breaker["retry_at"] == "2023-11-14T22:30:04.000Z"
    assert "retry_in" not in breaker
    assert shown["registries"][0]["heard_at"] == "2023-11-14T22:29:55.000Z"  # of whole five seconds
    assert "age" not in shown["registries"][0]


async def test_when_the_clock_is_set_all_moments_are_told_anew() -> None:
    stage = Stage()
    stage.fail()
    await stage.look()
    stage.clock.epoch += 60.0
    assert await stage.look() == ["api"]
    assert stage.shown()["endpoints"][0]["breaker"]["retry_at"] == "2023-11-14T22:31:04.000Z"


async def test_of_many_endpoints_those_that_are_least_well_are_told() -> None:
    stage = Stage(endpoints=MOST_ENDPOINTS + 50)
    cluster = stage.clusters["api"]
    stage.fail(120)
    cluster.drain([cluster.endpoints["10.0.0.1", 130]], 1000.0)
    cluster.endpoints["10.0.0.1", 140].last_check = CheckResult(1000.0, False, 0.1, "refused", 1)
    tried = cluster.endpoints["10.0.0.1", 150]
    cluster.report(tried, Outcome.RESET, 1000.0, tried.breaker.permit)
    await stage.look()
    shown = stage.shown()
    assert shown["endpoints_total"] == MOST_ENDPOINTS + 50
    assert (shown["endpoints_drained"], shown["endpoints_serving"]) == (1, MOST_ENDPOINTS + 48)
    ports = [endpoint["port"] for endpoint in shown["endpoints"]]
    assert ports == [120, 130, 140, 150, *range(1, MOST_ENDPOINTS - 3)]


async def test_of_many_endpoints_all_are_counted_though_few_are_told() -> None:
    stage = Stage(endpoints=2 * MOST_ENDPOINTS + 50)
    for port in range(1, MOST_ENDPOINTS + 26):
        stage.fail(port)
    await stage.look()
    shown = stage.shown()
    assert len(shown["endpoints"]) == MOST_ENDPOINTS
    assert shown["endpoints_serving"] == MOST_ENDPOINTS + 25


async def test_who_was_told_before_hears_only_of_what_has_changed_since() -> None:
    stage = Stage()
    await stage.look()
    first = stage.view.number
    stage.fail(name="web")
    await stage.look()
    stage.fail(2)
    await stage.look()
    names = [json.loads(text)["name"] for text in stage.view.since(first)]
    assert names == ["api", "web"]


async def test_the_head_says_what_is_not_of_an_upstream() -> None:
    stage = Stage(workers=WorkerCounts(2))
    stage.draining = True
    status = RegistrationStatus("api", "etcd", "10.0.0.7:80", "announced", "", 999.0, registered=True)
    stage.registered = Registered((status,))
    await stage.look()
    head = json.loads(stage.view.head)
    assert head.pop("registrations")[0]["since"] == "2023-11-14T22:29:59.000Z"
    assert head == {
        "at": "2023-11-14T22:30:00.000Z",
        "draining": True,
        "workers": {"configured": 2, "running": 0, "leaving": 0, "silent": 0, "restarts": 0},
        "order": ["api", "web"],
    }


async def test_upstreams_come_and_go() -> None:
    stage = Stage()
    await stage.look()
    api = stage.clusters.pop("api")
    assert await stage.look() == []
    assert stage.view.order == ["web"]
    stage.clusters["api"] = api
    assert await stage.look() == ["api"]
    assert stage.view.order == ["web", "api"]


async def test_one_that_goes_while_it_is_looked_at_is_left_out() -> None:
    stage = Stage(endpoints=MOST_ENDPOINTS)
    asyncio.get_running_loop().call_soon(stage.clusters.pop, "web")
    assert await stage.look() == ["api"]


async def test_requests_come_before_the_next_hundred_endpoints() -> None:
    stage = Stage(endpoints=MOST_ENDPOINTS)
    turns: list[int] = []
    asyncio.get_running_loop().call_soon(turns.append, 1)
    await stage.look()
    assert turns
