"""Checks that a program asks for: statuses, times, and this registry's breakers."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.clock import FakeClock
from support.endpoints import ok
from support.ports import free_port

import sidecar.registry.health
from sidecar import ServiceHealth, ServiceRegistry, ServiceStatus
from sidecar.config import Settings, load_settings
from sidecar.errors import UnknownUpstreamError
from sidecar.registry.health import ServiceChecks

HEALTHY, UNHEALTHY, OPEN, UNKNOWN = (
    ServiceStatus.HEALTHY,
    ServiceStatus.UNHEALTHY,
    ServiceStatus.CIRCUIT_OPEN,
    ServiceStatus.UNKNOWN,
)


class Server:
    """Answers each connection with a 200 while `well`, with a 503 else; `held` lets nobody have an answer."""

    def __init__(self) -> None:
        self.port = 0
        self.asked = 0
        self.well = True
        self.arrived = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.at_once = self.most = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked += 1
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        self.arrived.set()
        try:
            await reader.readuntil(b"\r\n\r\n")
            await self.may_answer.wait()
            writer.write(ok() if self.well else b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.at_once -= 1
            writer.transport.abort()


@asynccontextmanager
async def servers(count: int) -> AsyncIterator[list[Server]]:
    made = [Server() for _ in range(count)]
    async with AsyncExitStack() as stack:
        for server in made:
            listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
            server.port = listening.sockets[0].getsockname()[1]
            stack.callback(listening.close)
        yield made
        for server in made:
            server.may_answer.set()
        while any(server.at_once for server in made):  # noqa: ASYNC110 - the connections' own ends tell nobody
            await asyncio.sleep(0)


Load = Callable[[str], Settings]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(text: str) -> Settings:
        (tmp_path / "services.yml").write_text(text)
        return load_settings(tmp_path / "services.yml", environ={}, container=False)

    return load


class Bench:
    """The checks of one registry over settings, and a clock in the test's hand."""

    def __init__(self, settings: Settings, environ: dict[str, str] | None = None) -> None:
        self.settings = settings
        self.clock = FakeClock(chances=(0.9,))
        duck: Any = self.clock
        self.checks = ServiceChecks(environ or {}, duck)

    async def check(self, name: str = "web") -> ServiceHealth:
        return await self.checks.check(self.settings.upstream(name))

    async def statuses(self, count: int) -> list[ServiceStatus]:
        return [(await self.check()).status for _ in range(count)]


def one(port: int, more: str = "") -> str:
    return f"services:\n  web: {{host: 127.0.0.1, port: {port}{more}}}\n"


def balanced(*made: Server) -> str:
    hosts = ", ".join(f"'127.0.0.1:{server.port}'" for server in made)
    return f"load_balancers:\n  web: {{hosts: [{hosts}]}}\nsidecar: {{ports: {{8000: web}}}}\n"


# One service


async def test_a_healthy_service(tmp_path: Path) -> None:
    async with servers(1) as (server,):
        file = tmp_path / "services.yml"
        file.write_text(one(server.port, ", health_endpoint: /up"))
        registry = ServiceRegistry(file, environ={})
        assert registry.get_deployment_info()["services"]["web"]["health"] == "unknown"
        health = await registry.check_service_health("web")
        assert (health.status, health.error, health.check) == (HEALTHY, "", "GET /up")
        assert 0 < health.response_time < 60
        assert health.response_time_ms == health.response_time * 1000
        (endpoint,) = health.endpoints
        assert endpoint.address == f"127.0.0.1:{server.port}"
        assert (endpoint.status, endpoint.response_time) == (HEALTHY, health.response_time)
        assert registry.get_deployment_info()["services"]["web"]["health"] == "healthy"
        server.well = False
        assert (await registry.check_service_health("web")).status is UNHEALTHY
        assert registry.get_deployment_info()["services"]["web"]["health"] == "unhealthy"


async def test_one_that_answers_wrongly_and_one_that_does_not_answer(load: Load) -> None:
    async with servers(1) as (server,):
        server.well = False
        bench = Bench(load(one(server.port)))
        duck: Any = sidecar.registry.health.Clock()
        bench.checks = ServiceChecks({}, duck)
        health = await bench.check()
        assert (health.status, health.error) == (UNHEALTHY, "status 503, not 200-299")
        assert health.response_time > 0, "an answer is an answer"
    health = await Bench(load(one(free_port()))).check()
    assert (health.status, health.error, health.response_time) == (UNHEALTHY, "connection refused", 0.0)


async def test_a_check_is_as_it_is_configured(load: Load) -> None:
    async with servers(1) as (server,):
        text = one(server.port, ", health_check: {path: /x, expect_status: 503, expect_body: fine}")
        health = await Bench(load(text)).check()
        assert (health.status, health.error) == (UNHEALTHY, "status 200, not 503")
        text = one(server.port, ", health_check: {type: tcp}")
        assert (await Bench(load(text)).check()).check == "connect"


async def test_the_path_of_the_table_wants_its_answer(load: Load) -> None:
    async with servers(1) as (server,):
        text = f"services: {{ai-stack: {{host: 127.0.0.1, port: {server.port}}}}}\n"
        health = await Bench(load(text)).check("ai-stack")
        assert (health.status, health.error) == (UNHEALTHY, "the body is no JSON: ok\\n")


async def test_who_cannot_be_asked_is_unknown(load: Load) -> None:
    text = one(1, ", scheme: redis, health_check: {password_env: SECRET}")
    bench = Bench(load(text))
    assert await bench.statuses(7) == [UNKNOWN] * 7, "no breaker counts that"
    assert (await bench.check()).error == "the variable SECRET (password_env) is not set"


async def test_a_registrys_own_environment_has_the_password(tmp_path: Path) -> None:
    file = tmp_path / "services.yml"
    file.write_text(one(free_port(), ", scheme: redis, health_check: {password_env: SECRET}"))
    health = await ServiceRegistry(file, environ={"SECRET": "x"}).check_service_health("web")
    assert (health.status, health.error) == (UNHEALTHY, "connection refused"), "it got that far"


async def test_a_mistake_in_a_check_is_no_verdict(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    async def mistaken(*_: object) -> None:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(sidecar.registry.health, "examine", mistaken)
    health = await Bench(load(one(1))).check()
    assert (health.status, health.error) == (UNKNOWN, "the check itself failed: RuntimeError: a mistake")


async def test_nobody_of_that_name(tmp_path: Path) -> None:
    registry = ServiceRegistry(environ={})
    with pytest.raises(UnknownUpstreamError, match="did you mean `redis`"):
        await registry.check_service_health("redsi")


# Breakers


async def test_failures_in_a_row_open_the_breaker_and_nobody_is_asked_then(load: Load) -> None:
    async with servers(1) as (server,):
        server.well = False
        bench = Bench(load(one(server.port)))
        assert await bench.statuses(6) == [UNHEALTHY] * 5 + [OPEN]
        assert server.asked == 5
        bench.clock.advance(50.0)
        health = await bench.check()
        assert (health.status, health.response_time) == (OPEN, 0.0)
        assert health.error == "its circuit breaker is open after 5 failures in a row, for 10.0 s yet"
        assert bench.checks.last("web") is OPEN

        bench.clock.advance(10.0)
        assert await bench.statuses(2) == [UNHEALTHY, OPEN]
        assert server.asked == 6, "one probe, and it failed"

        bench.clock.advance(60.0)
        server.well = True
        assert await bench.statuses(3) == [HEALTHY] * 3
        server.well = False
        assert await bench.statuses(6) == [UNHEALTHY] * 5 + [OPEN], "counted from the beginning"


async def test_the_policy_says_when_and_for_how_long(load: Load) -> None:
    text = one(free_port(), ", circuit_breaker: {consecutive_failures: 2, open_for: 2, max_open_for: 7}")
    bench = Bench(load(text))
    assert await bench.statuses(3) == [UNHEALTHY] * 2 + [OPEN]
    bench.clock.advance(6.9)
    assert await bench.statuses(1) == [OPEN]
    bench.clock.advance(0.1)
    assert await bench.statuses(2) == [UNHEALTHY, OPEN]


async def test_a_good_answer_ends_the_row(load: Load) -> None:
    async with servers(1) as (server,):
        bench = Bench(load(one(server.port, ", circuit_breaker_threshold: 2")))
        for well, status in ((False, UNHEALTHY), (True, HEALTHY), (False, UNHEALTHY), (True, HEALTHY)):
            server.well = well
            assert await bench.statuses(1) == [status]


async def test_while_one_probe_is_out_others_wait_for_it(load: Load) -> None:
    async with servers(1) as (server,):
        server.well = False
        bench = Bench(load(one(server.port, ", circuit_breaker_threshold: 1, circuit_breaker_timeout: 5")))
        assert await bench.statuses(2) == [UNHEALTHY, OPEN]
        bench.clock.advance(5.0)
        server.may_answer.clear()
        server.arrived.clear()
        probing = asyncio.create_task(bench.check())
        await server.arrived.wait()
        health = await bench.check()
        assert (health.status, server.asked) == (OPEN, 2)
        assert health.error == "its circuit breaker is half open, and another check is on its way"
        probing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await probing
        server.may_answer.set()
        server.well = True
        assert await bench.statuses(1) == [HEALTHY], "a probe that was given up is another's to make"


async def test_two_registries_know_nothing_of_each_other(load: Load) -> None:
    settings = load(one(free_port(), ", circuit_breaker_threshold: 1"))
    assert await Bench(settings).statuses(2) == [UNHEALTHY, OPEN]
    assert await Bench(settings).statuses(1) == [UNHEALTHY]


# Several endpoints


async def test_a_load_balancer_is_healthy_while_one_endpoint_is(load: Load) -> None:
    async with servers(3) as made:
        first, second, third = made
        bench = Bench(load(balanced(*made)))
        first.well = second.well = False
        health = await bench.check()
        assert (health.status, health.error) == (HEALTHY, "")
        assert [one.status for one in health.endpoints] == [UNHEALTHY, UNHEALTHY, HEALTHY]
        third.well = False
        health = await bench.check()
        assert health.status is UNHEALTHY
        assert health.error == "; ".join(f"127.0.0.1:{each.port}: status 503, not 200-299" for each in made)


async def test_many_errors_are_not_all_told(load: Load) -> None:
    async with servers(5) as made:
        for server in made:
            server.well = False
        assert (await Bench(load(balanced(*made))).check()).error.endswith("; and 2 more")


async def test_a_load_balancer_is_open_when_all_breakers_are(load: Load) -> None:
    async with servers(2) as made:
        made[0].well = False
        text = balanced(*made).replace("]}", "], circuit_breaker_threshold: 1}")
        bench = Bench(load(text))
        await bench.check()
        assert [one.status for one in (await bench.check()).endpoints] == [OPEN, HEALTHY]
        made[1].well = False
        assert (await bench.check()).status is UNHEALTHY
        assert (await bench.check()).status is OPEN


async def test_the_quickest_healthy_one_tells_the_time(load: Load) -> None:
    endpoint = sidecar.registry.health.EndpointHealth
    found = [endpoint("a", HEALTHY, 0.3), endpoint("b", HEALTHY, 0.2), endpoint("c", UNHEALTHY, 0.1, "no")]
    assert sidecar.registry.health._together("GET /", found).response_time == 0.2


async def test_all_are_asked_at_the_same_time_and_so_many_at_once(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sidecar.registry.health, "AT_ONCE", 3)
    async with servers(1) as (server,):
        server.may_answer.clear()
        text = "services:\n" + "".join(
            f"  s{number}: {{host: 127.0.0.{number}, port: {server.port}}}\n" for number in range(1, 6)
        )
        text += "sidecar: {ports: {9000: s1}}\n"
        listening = await asyncio.start_server(server.serve, "0.0.0.0", 0)
        settings = load(
            text.replace(f"port: {server.port}", f"port: {listening.sockets[0].getsockname()[1]}")
        )
        async with listening:
            asking = asyncio.create_task(Bench(settings).checks.check_all(settings.upstreams))
            while server.at_once < 3:  # noqa: ASYNC110 - a number, not an event
                await asyncio.sleep(0)
            for _ in range(100):
                await asyncio.sleep(0)
            assert server.at_once == 3
            server.may_answer.set()
            found = await asking
        assert list(found) == ["s1", "s2", "s3", "s4", "s5"]
        assert {health.status for health in found.values()} == {HEALTHY}
        assert server.most == 3


async def test_debugging_tells_what_was_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "sidecar.registry")
    file = tmp_path / "services.yml"
    file.write_text(one(free_port()))
    await ServiceRegistry(file, environ={}).check_service_health("web")
    assert caplog.messages[-1] == "web is unhealthy: connection refused"
