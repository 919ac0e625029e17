"""Watching Consul: what is asked, when a snapshot comes of it, and how often. The agent is `support.consul`'s."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing
from itertools import pairwise
from typing import Any

import pytest
from aiohttp import web
from support.clock import FakeClock
from support.consul import ConsulAgent
from support.consul_faults import headers
from support.consul_source import WEB, news, source_of
from support.ports import has_ipv6

from sidecar.errors import SourceError
from sidecar.model import Endpoint, Snapshot
from sidecar.registry.sources import consul
from sidecar.registry.sources.source import Wanted

FIRST, SECOND = Endpoint("10.0.0.1", 80), Endpoint("10.0.0.2", 80)


@pytest.fixture
async def agent() -> AsyncIterator[ConsulAgent]:
    async with ConsulAgent() as made:
        made.add("web", "web-1", "10.0.0.1")
        yield made


# What is asked


async def test_the_first_snapshot_comes_at_once_and_those_that_follow_as_something_changes(
    agent: ConsulAgent,
) -> None:
    async with aclosing(source_of(agent).watch([WEB])) as stream:
        assert await anext(stream) == Snapshot("shop", (FIRST,), "consul")
        next_one = asyncio.create_task(news(stream))
        await agent.until(lambda agent: agent.blocked)
        agent.add("web", "web-2", "10.0.0.2")
        assert await next_one == (FIRST, SECOND)
        agent.remove("web-1")
        assert await news(stream) == (SECOND,)
        agent.remove("web-2")
        assert await news(stream) == ()
    first, second, *_ = agent.seen
    assert (first.method, first.target) == ("GET", "/v1/health/service/web?passing=true")
    assert second.target == "/v1/health/service/web?passing=true&index=11&wait=48s"
    assert first.token == ""


async def test_only_instances_whose_checks_all_pass(agent: ConsulAgent) -> None:
    agent.add("web", "web-2", "10.0.0.2", status="warning")
    async with aclosing(source_of(agent).watch([WEB])) as stream:
        assert await news(stream) == (FIRST,)
        agent.set_status("web-2", "passing")
        assert await news(stream) == (FIRST, SECOND)
        agent.set_status("web-1", "critical")
        assert await news(stream) == (SECOND,)


async def test_a_service_that_nobody_has_registered_is_empty_and_waited_for(agent: ConsulAgent) -> None:
    async with aclosing(source_of(agent).watch([Wanted("api", "api")])) as stream:
        assert await news(stream) == ()
        next_one = asyncio.create_task(news(stream))
        await agent.until(lambda agent: agent.blocked)
        agent.add("api", "api-1", "10.0.0.7", 8080)
        assert await next_one == (Endpoint("10.0.0.7", 8080),)


async def test_tags_all_have_to_be_there_and_the_upstreams_own_name_stands_in_for_a_service(
    agent: ConsulAgent,
) -> None:
    agent.add("web", "web-2", "10.0.0.2", Tags=["v2", "eu west"])
    async with aclosing(source_of(agent).watch([Wanted("web", "", tags=("v2", "eu west"))])) as stream:
        assert await news(stream) == (SECOND,)
    assert agent.seen[0].target == "/v1/health/service/web?passing=true&tag=v2&tag=eu%20west"


@pytest.mark.parametrize("name", ["a/b", "ä ö", "x?passing=false", "per%20cent", "a+b&c#d"])
async def test_any_name_of_a_service_is_one_segment_of_the_path(agent: ConsulAgent, name: str) -> None:
    agent.add(name, "one", "10.0.0.5")
    async with aclosing(source_of(agent).watch([Wanted("shop", name)])) as stream:
        assert await news(stream) == (Endpoint("10.0.0.5", 80),)


async def test_a_datacenter_is_the_upstreams_else_the_registrys(agent: ConsulAgent) -> None:
    agent.datacenters |= {"dc2", "dc3"}
    source = source_of(agent, datacenter="dc2")
    for wanted in (WEB, Wanted("shop", "web", datacenter="dc3")):
        async with aclosing(source.watch([wanted])) as stream:
            assert await news(stream) == (FIRST,)
    assert [seen.target.rpartition("&")[2] for seen in agent.seen] == ["dc=dc2", "dc=dc3"]


async def test_an_answer_may_be_compressed_and_an_address_ipv6(agent: ConsulAgent) -> None:
    agent.compress = True
    agent.add("web", "web-6", "fd00::6", 8080)
    async with aclosing(source_of(agent).watch([WEB])) as stream:
        assert await news(stream) == (FIRST, Endpoint("fd00::6", 8080))


@pytest.mark.skipif(not has_ipv6(), reason="no ::1 here")
async def test_an_agent_may_be_at_an_ipv6_address() -> None:
    async with ConsulAgent("::1") as agent, aclosing(source_of(agent).watch([WEB])) as stream:
        assert await news(stream) == ()


# When something has changed


async def test_nothing_new_is_said_for_a_wait_that_is_over_and_for_a_write_that_changes_nothing(
    agent: ConsulAgent,
) -> None:
    async with aclosing(source_of(agent, stale_after=0.5).watch([WEB])) as stream:
        assert await news(stream) == (FIRST,)
        assert await news(stream) is None
        assert agent.waits == [pytest.approx(0.4 * 17 / 16)], "before it would be stale"
        assert agent.seen[-1].target.endswith("&index=11&wait=400ms")
        next_one = asyncio.create_task(news(stream))
        await agent.until(lambda agent: agent.blocked)
        agent.change("web")
        assert await next_one is None
        agent.add("web", "web-2", "10.0.0.2")
        assert await news(stream) == (FIRST, SECOND)


@pytest.mark.parametrize(("stale_after", "wait"), [(60.0, 48.0), (600.0, 55.0), (2.0, 1.6)])
async def test_a_query_blocks_for_less_than_it_takes_to_be_stale(
    agent: ConsulAgent, stale_after: float, wait: float
) -> None:
    async with aclosing(source_of(agent, stale_after=stale_after).watch([WEB])) as stream:
        await news(stream)
        asking = asyncio.create_task(news(stream))
        await agent.until(lambda agent: agent.blocked)
        asking.cancel()
        await asyncio.wait([asking])
    assert agent.waits == [pytest.approx(wait * 17 / 16)]
    assert agent.waits[0] < stale_after


async def test_an_index_that_goes_backwards_is_asked_for_anew(agent: ConsulAgent) -> None:
    async with aclosing(source_of(agent).watch([WEB])) as stream:
        assert await news(stream) == (FIRST,)
        next_one = asyncio.create_task(news(stream))
        await agent.until(lambda agent: agent.blocked)
        agent.instances.clear()
        agent.restore(5)  # a Raft snapshot of the time before
        assert await next_one == ()
        assert await news(stream) is None
        next_one = asyncio.create_task(news(stream))
        await agent.until(lambda agent: agent.blocked)
        agent.add("web", "web-2", "10.0.0.2")
        assert await next_one == (SECOND,)
    assert [seen.index for seen in agent.seen] == [0, 11, 0, 5]


async def test_an_index_of_zero_still_blocks(agent: ConsulAgent) -> None:
    agent.script.append(headers(X_Consul_Index="0"))
    async with aclosing(source_of(agent).watch([WEB])) as stream:
        assert await news(stream) == (FIRST,)
        assert await news(stream) is None
    assert [seen.index for seen in agent.seen] == [0, 1]


@pytest.mark.parametrize("index", [None, "", "x", "-1", "1" * 21, "\u00b2"])
async def test_an_answer_without_an_index_is_no_consuls(agent: ConsulAgent, index: str | None) -> None:
    agent.always = headers(X_Consul_Index=index)
    async with aclosing(source_of(agent).watch([WEB])) as stream:
        with pytest.raises(SourceError, match=r"no X-Consul-Index .* is this Consul's HTTP port\?$"):
            await news(stream)


async def test_what_changes_all_the_time_is_asked_for_twice_a_second(agent: ConsulAgent) -> None:
    moments = []

    async def churn(agent: ConsulAgent, request: web.Request) -> web.StreamResponse:
        moments.append(asyncio.get_running_loop().time())
        agent.change("web")
        return await agent.health(request)

    agent.always = churn
    async with aclosing(source_of(agent).watch([WEB])) as stream:
        for _ in range(6):
            await news(stream)
    quick, slow = moments[:3], moments[2:]
    assert quick[-1] - quick[0] < 0.45, "a few changes in a row are heard of at once"
    assert all(later - before > 0.4 for before, later in pairwise(slow))


def test_a_token_bucket_has_a_burst_of_two() -> None:
    clock = FakeClock()
    pace = consul._Pace(clock)  # type: ignore[arg-type]
    assert [pace.pause() for _ in range(5)] == [0.0, 0.0, 0.5, 1.0, 1.5]
    clock.advance(10.0)
    assert [pace.pause() for _ in range(3)] == [0.0, 0.0, 0.5]


# Instances that are left out


async def test_an_instance_that_cannot_be_used_is_said_once(
    agent: ConsulAgent, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "sidecar.registry")
    agent.add("web", "web-bad", "10.0.0.9", 0)
    source = source_of(agent)
    async with aclosing(source.watch([WEB])) as stream:
        assert await news(stream) == (FIRST,)
        agent.change("web")
        assert await news(stream) is None
    async with aclosing(source.watch([WEB])) as stream:
        assert await news(stream) == (FIRST,)
    said = "instance `web-bad` of node `node-1` is left out: it has no port, and `port` names none"
    assert caplog.messages == [f"consul: shop: {said}"]
    agent.remove("web-bad")
    async with aclosing(source.watch([WEB])) as stream:
        await news(stream)
        agent.add("web", "web-bad", "10.0.0.9", 0)
        await news(stream)
    assert len(caplog.messages) == 2, "it had gone meanwhile"


async def test_many_are_not_all_named(agent: ConsulAgent, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(20):
        agent.add("web", f"bad-{number}", "10.0.0.9", 0)
    async with aclosing(source_of(agent).watch([WEB])) as stream:
        assert await news(stream) == (FIRST,)
    assert len(caplog.messages) == 6
    assert caplog.messages[-1] == "consul: shop: and 15 more like these"


async def test_none_that_can_be_used_is_not_the_registrys_word_that_there_are_none(
    agent: ConsulAgent,
) -> None:
    async with aclosing(source_of(agent).watch([Wanted("shop", "web", port="grpc")])) as stream:
        with pytest.raises(
            SourceError,
            match=r"^service web: none of its 1 instances can be used; instance `web-1` of node `node-1` is left out: "
            r"none of its TaggedAddresses is called `grpc` and has a port$",
        ):
            await news(stream)


async def test_more_endpoints_than_an_upstream_may_have_are_cut_off(
    agent: ConsulAgent, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(consul, "MAX_ENDPOINTS", 2)
    for last in (4, 3, 2):
        agent.add("web", f"web-{last}", f"10.0.0.{last}")
    async with aclosing(source_of(agent).watch([WEB])) as stream:
        assert await news(stream) == (FIRST, SECOND)
        agent.change("web")
        assert await news(stream) is None
    assert caplog.messages == ["consul: shop: of more than 2 endpoints the rest is left out"]


# Many upstreams


def test_each_upstream_has_a_stream_until_there_are_too_many_for_an_agents_connections() -> None:
    source = source_of()
    assert source.streams([]) == []
    for count in (1, 2, 150, 151, 300, 1000):
        wanted = [Wanted(f"u{number}", "web") for number in range(count)]
        streams = source.streams(wanted)
        assert len(streams) == min(count, 150)
        sizes = [len(stream) for stream in streams]
        assert max(sizes) - min(sizes) <= 1
        assert Counter(one for stream in streams for one in stream) == Counter(wanted)


async def test_upstreams_of_one_stream_are_asked_in_turn_on_one_connection(
    agent: ConsulAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consul, "MAX_STREAMS", 2)
    monkeypatch.setattr(consul, "TURN", 0.1)
    agent.max_connections = 2
    names = [f"s{number}" for number in range(5)]
    for number, name in enumerate(names):
        agent.add(name, name, f"10.1.0.{number}")
    source = source_of(agent)
    streams = source.streams([Wanted(name, name) for name in names])
    assert [len(stream) for stream in streams] == [3, 2]
    heard: dict[str, Any] = {}
    changed = asyncio.Event()

    async def follow(wanted: tuple[Wanted, ...]) -> None:
        async with aclosing(source.watch(wanted)) as stream:
            async for snapshot in stream:
                if snapshot is not None:
                    heard[snapshot.upstream] = snapshot.endpoints
                    changed.set()

    tasks = [asyncio.create_task(follow(stream)) for stream in streams]
    async with asyncio.timeout(10.0):
        while len(heard) < 5:
            changed.clear()
            await changed.wait()
        for name in names:
            agent.remove(name)
        while any(heard.values()):
            changed.clear()
            await changed.wait()
    for task in tasks:
        task.cancel()
    assert all(
        isinstance(end, asyncio.CancelledError)
        for end in await asyncio.gather(*tasks, return_exceptions=True)
    )
    assert {seen.target.rpartition("wait=")[2] for seen in agent.seen if seen.index} == {"100ms"}


async def test_one_that_cannot_be_used_does_not_silence_the_others_of_its_stream(agent: ConsulAgent) -> None:
    agent.add("bad", "bad-1", "10.0.0.9", 0)
    async with aclosing(source_of(agent).watch([Wanted("bad", "bad"), WEB])) as stream:
        assert await news(stream) == (FIRST,)
        with pytest.raises(SourceError, match="service bad: none of its 1 instances can be used"):
            await news(stream)


async def test_one_that_is_refused_does_not_silence_the_others_of_its_stream(agent: ConsulAgent) -> None:
    elsewhere = Wanted("elsewhere", "web", datacenter="nowhere")
    async with aclosing(source_of(agent).watch([elsewhere, WEB])) as stream:
        assert await news(stream) == (FIRST,)
        with pytest.raises(SourceError, match=r"status 500: No path to datacenter; see `datacenter`$"):
            await news(stream)


# The end of a stream


async def test_a_stream_that_is_cancelled_while_it_waits_leaves_nothing_open(agent: ConsulAgent) -> None:
    stream = source_of(agent).watch([WEB])
    await news(stream)
    waiting = asyncio.create_task(news(stream, 50.0))
    await agent.until(lambda agent: agent.blocked)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await agent.until(lambda agent: not agent.blocked)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_several_streams_of_one_source_go_on_at_the_same_time(agent: ConsulAgent) -> None:
    source = source_of(agent)
    agent.add("api", "api-1", "10.0.0.7")
    async with aclosing(source.watch([WEB])) as one, aclosing(source.watch([Wanted("api", "api")])) as other:
        assert await news(one) == (FIRST,)
        assert await news(other) == (Endpoint("10.0.0.7", 80),)
        waiting = asyncio.create_task(news(one))
        await agent.until(lambda agent: agent.blocked)
        agent.remove("api-1")
        assert await news(other) == ()
        agent.remove("web-1")
        assert await waiting == ()
    await source.close()
