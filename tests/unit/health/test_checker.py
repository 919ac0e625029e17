"""The schedule of health checks: scripted endpoints, a clock in the test's hand, and no waiting for time."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from support.clock import FakeClock

from sidecar.cluster import Cluster
from sidecar.health.checker import FOLLOW, MAX_RUNNING, SOON, Checker, Watch
from sidecar.health.probes import Finding
from sidecar.model import CheckCounts, Endpoint, EndpointState, Snapshot, UpstreamPolicy
from sidecar.resilience import BreakerState

INTERVAL = 5.0
WELL, ILL = Finding(True, 0.01), Finding(False, 0.02, "status 503, not 200-299")
UNASKED = Finding(None, 0.0, "the variable PASSWORD (password_env) is not set", answered=False)


class Endpoints:
    """Scripted: `says` by host, WELL where there is nothing; `held` hosts answer when the test lets them."""

    def __init__(self, clock: FakeClock) -> None:
        self.asked: list[tuple[float, str]] = []
        self.says: dict[str, Finding | Exception] = {}
        self.held: dict[str, asyncio.Event] = {}
        self.cancelled: list[str] = []
        self.running: list[str] = []
        self.most = 0
        self._clock = clock

    async def ask(self, state: EndpointState) -> Finding:
        host = state.endpoint.host
        self.asked.append((self._clock.now, host))
        self.running.append(host)
        self.most = max(self.most, len(self.running))
        try:
            if host in self.held:
                await self.held[host].wait()
        except asyncio.CancelledError:
            self.cancelled.append(host)
            raise
        finally:
            self.running.remove(host)
        said = self.says.get(host, WELL)
        if isinstance(said, Exception):
            raise said
        return said

    def hosts(self) -> str:
        return "".join(host for _, host in self.asked)

    def times(self, host: str) -> list[float]:
        return [at for at, asked in self.asked if asked == host]


class Bench:
    """A checker over one cluster, in the place of a sweep."""

    def __init__(self, hosts: str, *, chances: tuple[float, ...] = (0.5,), limit: int = MAX_RUNNING) -> None:
        self.clock = FakeClock(1000.0, chances=chances)
        self.start = self.clock.now
        self.endpoints = Endpoints(self.clock)
        duck: Any = self.clock
        self.cluster = Cluster("api", "http", UpstreamPolicy(max_ejected=1.0), duck)
        self.apply(hosts)
        self.counts = CheckCounts()
        watch = Watch(self.cluster, INTERVAL, self.endpoints.ask)
        self.checker = Checker([watch], duck, self.counts, limit)

    def apply(self, hosts: str) -> None:
        self.cluster.apply(Snapshot("api", tuple(Endpoint(host, 80) for host in hosts), "static"))

    def state(self, host: str) -> EndpointState:
        return self.cluster.endpoints[host, 80]

    async def passes(self, seconds: float, step: float = 0.1) -> None:
        """So much time, in the sweep's steps; what a check does without waiting is done in each."""
        end = self.clock.now + seconds - step / 2
        while self.clock.now < end:
            self.clock.advance(step)
            await self.turn()

    async def turn(self) -> None:
        if self.checker.deadline <= self.clock.now:
            self.checker.expire()
        await settle()


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(hosts: str = "abcd", **options: Any) -> Bench:
        made.append(Bench(hosts, **options))
        return made[-1]

    yield make
    for one in made:
        for event in one.endpoints.held.values():
            event.set()
        await one.checker.close()


Make = Callable[..., Bench]


# When


async def test_first_checks_are_spread_and_soon(bench: Make) -> None:
    one = bench("abcd")
    await one.passes(SOON)
    at = [at - one.start for at, _ in one.endpoints.asked]
    assert one.endpoints.hosts() == "abcd"
    # The middle of four slots of a quarter of a second, found at the next pass.
    assert at == pytest.approx([0.2, 0.4, 0.7, 0.9], abs=0.11)


async def test_first_checks_are_within_a_short_interval(bench: Make) -> None:
    one = bench("ab")
    watch = Watch(one.cluster, 0.2, one.endpoints.ask)
    duck: Any = one.clock
    one.checker = Checker([watch], duck, one.counts)
    await one.passes(0.3)
    assert set(one.endpoints.hosts()) == {"a", "b"}


async def test_two_sidecars_do_not_ask_at_the_same_moment(bench: Make) -> None:
    one, other = bench("a", chances=(0.0,)), bench("a", chances=(0.9,))
    for each in (one, other):
        await each.passes(SOON)
    assert one.endpoints.times("a") != other.endpoints.times("a")


@pytest.mark.parametrize(("chance", "wait"), [(0.0, 4.0), (0.5, 5.0), (1.0 - 1e-9, 6.0)])
async def test_each_round_is_the_interval_and_a_fifth_to_either_side(
    bench: Make, chance: float, wait: float
) -> None:
    one = bench("a", chances=(0.0, chance))
    await one.passes(13.0)
    first, second, third, *_ = one.endpoints.times("a")
    assert second - first == pytest.approx(wait, abs=0.11)
    assert third - second == pytest.approx(wait, abs=0.11)


async def test_nothing_is_due_before_its_time(bench: Make) -> None:
    one = bench("a")
    await one.passes(1.0)
    assert one.endpoints.hosts() == "a"
    await one.passes(4.0)
    assert one.endpoints.hosts() == "a"
    await one.passes(1.0)
    assert one.endpoints.hosts() == "aa"


async def test_no_two_checks_of_one_endpoint_overlap(bench: Make) -> None:
    one = bench("ab")
    one.endpoints.held["a"] = asyncio.Event()
    await one.passes(20.0)
    assert one.endpoints.times("a") == one.endpoints.times("a")[:1], "still the first"
    assert len(one.endpoints.times("b")) == 4, "nobody waits for it"
    one.endpoints.held.pop("a").set()
    await settle()
    await one.passes(0.1)
    assert len(one.endpoints.times("a")) == 2, "the next was due long ago"


async def test_so_many_at_once_and_the_rest_in_order(bench: Make) -> None:
    one = bench("abcde", limit=2)
    for host in "abcde":
        one.endpoints.held[host] = asyncio.Event()
    await one.passes(3.0)
    assert one.endpoints.running == ["a", "b"]
    assert (one.counts.running, one.counts.limit) == (2, 2)
    one.endpoints.held["b"].set()
    await settle()
    assert one.endpoints.running == ["a", "c"], "at once, not at the next pass"
    for event in one.endpoints.held.values():
        event.set()
    await settle()
    assert one.endpoints.hosts() == "abcde"
    assert one.endpoints.most == 2
    assert one.counts.running == 0


async def test_a_sweep_is_not_asked_for_passes_while_there_is_nothing_to_do(bench: Make) -> None:
    one = bench("")
    await one.turn()
    assert one.checker.deadline == one.clock.now + FOLLOW
    full = bench("ab", limit=1)
    full.endpoints.held["a"] = asyncio.Event()
    await full.passes(2.0)
    assert full.checker.deadline > full.clock.now


# Whom


async def test_who_comes_is_checked_soon_and_who_leaves_no_more(bench: Make) -> None:
    one = bench("a")
    await one.passes(2.0)
    one.apply("b")
    await one.passes(FOLLOW + SOON + 0.1)
    assert one.endpoints.hosts() == "ab"
    await one.passes(INTERVAL * 2)
    assert one.endpoints.hosts() == "abbb"


async def test_who_stays_keeps_its_turn(bench: Make) -> None:
    one = bench("a")
    await one.passes(2.0)
    one.apply("ab")
    await one.passes(2.0)
    assert one.endpoints.hosts() == "ab", "a was asked a moment ago"


async def test_the_check_of_one_that_leaves_is_ended(bench: Make) -> None:
    one = bench("ab")
    one.endpoints.held["a"] = asyncio.Event()
    await one.passes(2.0)
    gone = one.state("a")
    one.apply("b")
    await one.passes(FOLLOW + 0.1)
    assert one.endpoints.cancelled == ["a"]
    assert gone.last_check is None
    one.apply("ab")  # the same address is another endpoint: it has left in between
    one.endpoints.held.clear()
    await one.passes(FOLLOW + SOON + 0.1)
    assert one.state("a").last_check is not None


async def test_nothing_piles_up_where_endpoints_come_and_go(bench: Make) -> None:
    """Their next moment is an interval away when they leave."""
    one = bench("ab")
    duck: Any = one.clock
    one.checker = Checker([Watch(one.cluster, 3600.0, one.endpoints.ask)], duck, one.counts)
    for number in range(50):
        one.apply(f"ab{'cd'[number % 2]}")
        await one.passes(FOLLOW + SOON + 0.1)
    assert len(one.endpoints.asked) == 52
    assert len(one.checker._due) <= 2 * 3 + 1
    await one.passes(7200.0, step=1.0)
    assert one.endpoints.hosts()[52:].count("a") == 2, "those that stay are asked in time"


# What follows


async def test_a_first_bad_check_takes_it_out_at_once_and_rise_good_ones_bring_it_back(bench: Make) -> None:
    one = bench("ab")
    one.endpoints.says["a"] = ILL
    await one.passes(SOON)
    breaker = one.state("a").breaker
    assert (breaker.state, breaker.held) == (BreakerState.OPEN, "checks")
    assert {one.cluster.pick(one.clock.now) for _ in range(4)} == {one.state("b")}
    assert one.state("a").last_check is not None
    found = one.state("a").last_check
    assert found is not None
    assert (found.ok, found.seconds, found.error, found.in_a_row) == (False, 0.02, ILL.error, 1)
    await one.passes(INTERVAL)
    assert one.state("a").last_check.in_a_row == 2  # type: ignore[union-attr] # there was one
    one.endpoints.says.clear()
    await one.passes(INTERVAL)
    assert breaker.state is BreakerState.OPEN, "one good check is not two"
    await one.passes(INTERVAL)
    assert breaker.state is BreakerState.CLOSED
    assert one.state("a").last_check.in_a_row == 2  # type: ignore[union-attr] # there was one
    assert one.cluster.stats.checks == [2, 6, 0]


async def test_a_mistake_in_one_check_is_not_the_others_trouble(
    bench: Make, caplog: pytest.LogCaptureFixture
) -> None:
    one = bench("ab")
    one.endpoints.says["a"] = RuntimeError("a mistake")
    await one.passes(SOON + 2 * INTERVAL)
    assert one.endpoints.hosts() == "ababab"
    found = one.state("a").last_check
    assert found is not None
    assert (found.ok, found.error) == (None, "the check itself failed: RuntimeError: a mistake")
    assert one.state("a").breaker.state is BreakerState.CLOSED, "it says nothing of the endpoint"
    assert one.cluster.stats.checks == [0, 3, 3]
    assert "a mistake" in caplog.text


async def test_what_cannot_be_asked_says_nothing_of_the_endpoint(
    bench: Make, caplog: pytest.LogCaptureFixture
) -> None:
    one = bench("a")
    one.endpoints.says["a"] = UNASKED
    await one.passes(SOON + 2 * INTERVAL)
    assert one.state("a").breaker.state is BreakerState.CLOSED
    assert one.cluster.stats.checks == [0, 0, 3]
    assert caplog.messages == [f"api: a:80 cannot be checked: {UNASKED.error}"], "once, not in each round"


async def test_what_can_be_checked_no_more_is_not_held_open_for_ever(
    bench: Make, caplog: pytest.LogCaptureFixture
) -> None:
    one = bench("ab")
    one.endpoints.says["a"] = ILL
    await one.passes(SOON)
    breaker = one.state("a").breaker
    one.endpoints.says["a"] = UNASKED
    await one.passes(2 * INTERVAL)
    assert breaker.held == "checks", "a secret that is being changed is there again soon"
    assert {one.cluster.pick(one.clock.now) for _ in range(4)} == {one.state("b")}
    await one.passes(INTERVAL)
    assert (breaker.state, breaker.held) == (BreakerState.OPEN, ""), "`fall` of them"
    assert one.cluster.pick(one.clock.now) is one.state("a"), (
        "the probe: its open time has been over for long"
    )
    assert caplog.messages[-1] == "api: a:80 is not held open any more, as it cannot be checked"
    await one.passes(INTERVAL)
    assert len(caplog.messages) == 3, "once"
    one.endpoints.says["a"] = ILL
    await one.passes(2 * INTERVAL)
    assert breaker.held == "", "counted anew"
    await one.passes(INTERVAL)
    assert breaker.held == "checks"


async def test_what_turns_is_logged_once(bench: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    one = bench("a")
    await one.passes(2 * INTERVAL)
    assert caplog.messages == []
    one.endpoints.says["a"] = ILL
    await one.passes(2 * INTERVAL)
    one.endpoints.says.clear()
    await one.passes(2 * INTERVAL)
    assert caplog.messages == [
        f"api: a:80 fails its health checks: {ILL.error}",
        "api: a:80 passes its health checks again",
    ]


# The end


async def test_nothing_is_left_when_it_is_closed(bench: Make) -> None:
    one = bench("ab")
    one.endpoints.held["a"] = asyncio.Event()
    await one.passes(2.0)
    before = len(one.endpoints.asked)
    await one.checker.close()
    assert one.endpoints.cancelled == ["a"]
    assert one.counts.running == 0
    await one.passes(20.0)
    assert len(one.endpoints.asked) == before
    assert one.checker.deadline == float("inf")


async def test_a_process_that_would_like_to_end_is_not_kept(bench: Make) -> None:
    one = bench("a")
    one.endpoints.held["a"] = asyncio.Event()
    await one.passes(2.0)
    assert one.checker.retire(one.clock.now) is False
    await settle()
    assert one.endpoints.cancelled == ["a"]
    one.checker.expire()
    await settle()
    assert one.endpoints.hosts() == "a"


# Another configuration


def watch(one: Bench, made_of: object = None, interval: float = INTERVAL) -> Watch:
    return Watch(one.cluster, interval, one.endpoints.ask, made_of)


async def test_a_watch_that_is_the_same_goes_on_as_if_nothing_had_happened(bench: Make) -> None:
    one = bench("ab")
    one.checker.follow([watch(one, "a")])
    await one.passes(SOON)
    assert sorted(one.endpoints.hosts()) == ["a", "b"]
    one.checker.follow([watch(one, "a", interval=99.0)])
    await one.passes(SOON)
    assert sorted(one.endpoints.hosts()) == ["a", "b"], "they are asked when their interval is over"
    await one.passes(INTERVAL)
    assert sorted(one.endpoints.hosts()) == ["a", "a", "b", "b"]


async def test_another_one_asks_at_once_and_keeps_what_was_found(bench: Make) -> None:
    one = bench("a")
    one.endpoints.says["a"] = ILL
    await one.passes(SOON)
    state = one.state("a")
    found = state.last_check
    assert found is not None
    assert state.breaker.failing
    one.checker.follow([watch(one, "another", interval=1.0)])
    assert state.last_check is found
    assert state.breaker.failing
    await one.passes(SOON)
    assert one.endpoints.hosts() == "aa"
    assert state.last_check.in_a_row == 2


async def test_what_is_checked_no_more_is_not_held_open_either(bench: Make) -> None:
    one = bench("ab")
    one.endpoints.says["a"] = ILL
    await one.passes(SOON)
    state = one.state("a")
    assert (state.breaker.state, state.breaker.held) == (BreakerState.OPEN, "checks")
    one.checker.follow([])
    assert (state.breaker.state, state.breaker.held) == (BreakerState.OPEN, "")
    assert [state.last_check for state in one.cluster.endpoints.values()] == [None, None]
    assert one.counts.limit == 0
    asked = len(one.endpoints.asked)
    await one.passes(2 * INTERVAL)
    assert len(one.endpoints.asked) == asked
    assert one.cluster.pick(state.breaker.probe_at) is state, "a request is its probe again"
    one.checker.follow([watch(one)])
    assert one.counts.limit == MAX_RUNNING
    await one.passes(SOON)
    assert len(one.endpoints.asked) == asked + 2


async def test_a_check_that_goes_on_is_given_up_with_its_watch(bench: Make) -> None:
    one = bench("a")
    one.endpoints.held["a"] = asyncio.Event()
    await one.passes(SOON)
    assert one.endpoints.running == ["a"]
    one.checker.follow([watch(one, "another")])
    await settle()
    assert one.endpoints.cancelled == ["a"]
    await one.passes(SOON)
    assert one.endpoints.running == ["a"]
    one.endpoints.held["a"].set()
    await settle()


async def test_after_the_end_nothing_is_followed(bench: Make) -> None:
    one = bench("a")
    one.checker.shut()
    one.checker.follow([watch(one, "another")])
    await one.passes(SOON)
    assert one.endpoints.asked == []
