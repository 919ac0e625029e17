"""Announcing a service to a Consul agent and withdrawing it. The agent is `support.consul`'s."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import pytest
from support.consul import ConsulAgent, Token
from support.consul_source import WEB, news, source_of

from sidecar.config.settings import Address, HealthSettings, RegistrationSettings
from sidecar.errors import SourceError
from sidecar.model import Endpoint
from sidecar.registry.announcement import ANSWER
from sidecar.registry.registration import GRACE
from sidecar.registry.sources.source import ANNOUNCE_WITHIN, WITHDRAW_WITHIN, Wanted

ME = RegistrationSettings(
    "web", "consul", "10.0.0.8", 8080, "web/10.0.0.8:8080", HealthSettings(), weight=3, zone="a", tags=("v2",)
)
HERE = Endpoint("10.0.0.8", 8080, 3, "a")
REGISTER = "/v1/agent/service/register?replace-existing-checks=true"
PASS = "/v1/agent/check/pass/service%3Aweb%2F10.0.0.8%3A8080"
DEREGISTER = "/v1/agent/service/deregister/web%2F10.0.0.8%3A8080"


@pytest.fixture
async def agent() -> AsyncIterator[ConsulAgent]:
    async with ConsulAgent() as made:
        yield made


def puts(agent: ConsulAgent) -> list[str]:
    return [seen.target for seen in agent.seen if seen.method == "PUT"]


async def test_what_is_registered(agent: ConsulAgent) -> None:
    await source_of(agent).announce(ME)
    (seen,) = agent.seen
    assert (seen.method, seen.target) == ("PUT", REGISTER)
    assert seen.body == {
        "ID": "web/10.0.0.8:8080",
        "Name": "web",
        "Address": "10.0.0.8",
        "Port": 8080,
        "Tags": ["v2"],
        "Meta": {"weight": "3", "zone": "a"},
        "Weights": {"Passing": 3, "Warning": 1},
        "Check": {
            "CheckID": "service:web/10.0.0.8:8080",
            "Name": "sidecar: web",
            "TTL": "15s",
            "Status": "passing",
            "DeregisterCriticalServiceAfter": "60s",
        },
    }


async def test_another_source_sees_it_come_stay_and_go(agent: ConsulAgent) -> None:
    source, other = source_of(agent), source_of(agent)
    async with aclosing(other.watch([Wanted("shop", "web", tags=("v2",))])) as stream:
        assert await news(stream) == ()
        await source.announce(ME)
        assert await news(stream) == (HERE,)
        await source.announce(ME)
        await source.withdraw(ME)
        assert await news(stream) == ()
    assert puts(agent) == [REGISTER, PASS, DEREGISTER]


async def test_silence_for_a_ttl_takes_it_out_and_a_word_brings_it_back(agent: ConsulAgent) -> None:
    source, short = source_of(agent), replace(ME, ttl=0.3)
    async with aclosing(source_of(agent).watch([WEB])) as stream:
        assert await news(stream) == ()
        await source.announce(short)
        assert await news(stream) == (HERE,)
        assert await news(stream) == ()
        await source.announce(short)
        assert await news(stream) == (HERE,)
    assert puts(agent) == [REGISTER, PASS]


@pytest.mark.parametrize("old", [False, True])
async def test_an_agent_that_has_forgotten_it_is_told_again(agent: ConsulAgent, old: bool) -> None:
    agent.old_refusals = old
    source = source_of(agent)
    await source.announce(ME)
    agent.remove(ME.identity)  # a restart without its data, or critical for a minute
    await source.announce(ME)
    assert puts(agent) == [REGISTER, PASS, REGISTER]
    assert agent.instances[ME.identity].passing


@pytest.mark.parametrize(
    "change", [{"port": 8081}, {"weight": 5}, {"zone": ""}, {"tags": ()}, {"host": "10.0.0.9"}, {"ttl": 30.0}]
)
async def test_what_has_changed_is_registered_again(agent: ConsulAgent, change: dict[str, object]) -> None:
    source = source_of(agent)
    await source.announce(ME)
    await source.announce(replace(ME, **change))  # type: ignore[arg-type]
    await source.announce(replace(ME, **change))  # type: ignore[arg-type]
    assert puts(agent) == [REGISTER, REGISTER, PASS]
    first, second, _ = agent.seen
    assert first.body != second.body
    assert ("zone" in second.body["Meta"]) is (change.get("zone") != "")


async def test_a_process_that_has_just_started_says_all_of_it(agent: ConsulAgent) -> None:
    await source_of(agent).announce(ME)
    await source_of(agent).announce(ME)
    assert puts(agent) == [REGISTER, REGISTER]
    assert len(agent.instances) == 1


@pytest.mark.parametrize(("ttl", "as_said", "gone"), [(1.5, "1500ms", "60s"), (90.0, "90s", "90s")])
async def test_times_are_as_go_reads_them(agent: ConsulAgent, ttl: float, as_said: str, gone: str) -> None:
    await source_of(agent).announce(replace(ME, ttl=ttl))
    check = agent.seen[0].body["Check"]
    assert (check["TTL"], check["DeregisterCriticalServiceAfter"]) == (as_said, gone)


@pytest.mark.parametrize("old", [False, True])
async def test_what_is_not_there_is_withdrawn_already(agent: ConsulAgent, old: bool) -> None:
    agent.old_refusals = old
    await source_of(agent).withdraw(ME)
    assert puts(agent) == [DEREGISTER]


async def test_two_services_are_announced_at_the_same_time(agent: ConsulAgent) -> None:
    source = source_of(agent)
    other = replace(ME, identity="web-2", host="10.0.0.9")
    for _ in range(2):
        await asyncio.gather(source.announce(ME), source.announce(other))
    assert set(agent.instances) == {ME.identity, "web-2"}
    await source.withdraw(other)
    assert set(agent.instances) == {ME.identity}
    await source.announce(ME)
    assert puts(agent)[-1] == PASS


# Hosts and tokens


async def test_it_stays_with_its_agent_and_is_withdrawn_wherever_it_was_announced(agent: ConsulAgent) -> None:
    async with ConsulAgent() as other:
        source = source_of(agent, other)
        await source.announce(ME)
        await source.announce(ME)
        assert (puts(agent), puts(other)) == ([REGISTER, PASS], [])
        await agent.stop()
        await source.announce(ME)
        await source.announce(ME)
        assert puts(other) == [REGISTER, PASS]
        await agent.start()
        await source.announce(ME)
        assert puts(other) == [REGISTER, PASS, PASS], "the one that it is at now"
        await other.stop()
        await source.announce(ME)
        await other.start()
        await source.announce(ME)
        assert puts(agent) == [REGISTER, PASS, PASS, PASS], "and back, for good again"
        await source.withdraw(ME)
        assert (agent.instances, other.instances) == ({}, {})


async def test_an_agent_that_is_silent_is_followed_by_the_next_in_good_time(agent: ConsulAgent) -> None:
    assert ANNOUNCE_WITHIN * 3 < ANSWER
    assert WITHDRAW_WITHIN * 2 < GRACE
    with socket.create_server(("127.0.0.1", 0)) as frozen:  # its kernel accepts, and nobody reads
        silent = Address("127.0.0.1", frozen.getsockname()[1])
        source = source_of(hosts=(silent, Address(agent.host, agent.port)))
        async with asyncio.timeout(ANSWER):
            await source.announce(ME)
        assert puts(agent) == [REGISTER]

        source = source_of(hosts=(silent, Address(agent.host, agent.port)))  # which knows not where it is
        async with asyncio.timeout(GRACE):
            with pytest.raises(SourceError, match=rf"no whole answer within {WITHDRAW_WITHIN:g} s$"):
                await source.withdraw(ME)
        assert agent.instances == {}


async def test_a_stream_that_moved_on_takes_no_registration_with_it(agent: ConsulAgent) -> None:
    async with ConsulAgent() as other:
        source = source_of(agent, other)
        await source.announce(ME)
        source._agents.preferred = 1
        await source.announce(ME)
        assert (puts(agent), puts(other)) == ([REGISTER, PASS], [])


async def test_a_withdrawal_that_fails_is_said_and_may_be_tried_again(agent: ConsulAgent) -> None:
    source = source_of(agent)
    await source.announce(ME)
    await agent.stop()
    with pytest.raises(
        SourceError, match=rf"^PUT {DEREGISTER} at 127\.0\.0\.1:{agent.port}: connection refused$"
    ):
        await source.withdraw(ME)
    await agent.start()
    await source.withdraw(ME)
    assert agent.instances == {}


async def test_nobody_who_listens(agent: ConsulAgent) -> None:
    await agent.stop()
    with pytest.raises(SourceError, match=r"^PUT /v1/agent/service/register at .*: connection refused$"):
        await source_of(agent).announce(ME)


async def test_a_token_has_to_be_one_that_may_write(agent: ConsulAgent) -> None:
    agent.tokens |= {"writes": Token(), "reads": Token(write=False)}
    await source_of(agent, token_env="TOKEN", environ={"TOKEN": "writes"}).announce(ME)
    source = source_of(agent, token_env="TOKEN", environ={"TOKEN": "reads"})
    for act in (source.announce, source.withdraw):
        with pytest.raises(SourceError) as caught:
            await act(ME)
        assert str(caught.value).endswith(
            "status 403: Permission denied: token lacks permission 'service:write';"
            " give `token_env` or `token_file` a token that may write the service"
        )
    assert [seen.token for seen in agent.seen] == ["writes", "reads", "reads"]


async def test_one_that_is_cancelled_leaves_nothing_open(agent: ConsulAgent) -> None:
    task = asyncio.create_task(source_of(agent).announce(ME))
    await agent.until(lambda agent: agent.seen)
    task.cancel()
    await asyncio.wait([task])
