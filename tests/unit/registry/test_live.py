"""Services that registries know of, in a program: who is picked, what is known when, and what is told."""

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.clock import FakeClock
from support.live import CONSUL, FALLING_BACK, TWO, WEB, Scripted, balancer, live_of, urls
from support.ports import free_port
from support.waiting import wait_until

import sidecar.registry.live
from sidecar import ServiceRegistry, ServiceStatus
from sidecar.balance.keys import key_of
from sidecar.cluster import Cluster
from sidecar.errors import NoEndpointsError, SourceError, UnknownUpstreamError
from sidecar.model import Endpoint, Snapshot
from sidecar.proxy.hash_key import request_key

# What is known when


def test_nobody_is_known_before_the_first_word(live: Scripted) -> None:
    registry = live.start(WEB)
    expected = "no endpoints are known yet for web; wait with registry.wait_until_ready()"
    for ask in (registry.get_service_url, registry.get_service_config):
        with pytest.raises(NoEndpointsError) as raised:
            ask("web")
        assert str(raised.value) == expected
        assert isinstance(raised.value, SourceError)
        assert isinstance(raised.value, LookupError)
    live.fail("consul", "web", SourceError("status 500"))
    wait_until(lambda: live_of(registry)._feeds("web")[0].error, "the error")
    with pytest.raises(
        NoEndpointsError, match=r"^no endpoints are known yet for web \(consul: status 500\); "
    ):
        registry.get_service_url("web")
    live.say("consul", "web", "10.0.0.1:80")
    assert registry.get_service_url("web", "x") == "http://10.0.0.1:80/x"


def test_a_word_that_there_is_nobody_is_told_apart(live: Scripted) -> None:
    registry = live.start(WEB)
    live.say("consul", "web", applied=False)
    assert registry.wait_until_ready(10)
    with pytest.raises(
        NoEndpointsError, match=r"^web has no endpoints: none is known to consul; register one"
    ):
        registry.get_service_url("web")


def test_what_the_file_names_serves_until_a_registry_speaks(live: Scripted) -> None:
    registry = live.start(FALLING_BACK)
    assert registry.get_service_url("web") == "http://file.example:80"
    live.say("consul", "web", "10.0.0.1:80")
    assert registry.get_service_url("web") == "http://10.0.0.1:80"
    live.fail("consul", "web", OSError("gone"))
    wait_until(lambda: live_of(registry).is_stale("web"), "the error")
    assert registry.get_service_url("web") == "http://10.0.0.1:80"


def test_what_the_file_names_is_not_for_a_service_that_does_not_use_it(live: Scripted) -> None:
    registry = live.start(CONSUL + "services: {web: {host: file.example, port: 80, source: consul}}\n")
    with pytest.raises(NoEndpointsError, match="known yet"):
        registry.get_service_url("web")


@pytest.mark.parametrize(
    ("environ", "before", "after"),
    [
        ({"WEB_HOST": "moved.example"}, "moved.example:80", "moved.example:80"),
        ({"WEB_PORT": "81"}, "file.example:81", "10.0.0.1:81"),
        ({"WEB_HOST": "::1", "WEB_PORT": "81"}, "[::1]:81", "[::1]:81"),
    ],
)
def test_the_environment_overrides_a_registry(
    live: Scripted, environ: dict[str, str], before: str, after: str
) -> None:
    text = FALLING_BACK.replace("}}\n", "}, mail: {source: consul}}\nsidecar: {ports: {8001: mail}}\n")
    registry = live.start(text, environ)
    assert registry.get_service_url("web") == f"http://{before}"
    if "WEB_HOST" not in environ:
        live.say("consul", "web", "10.0.0.1:80", applied=False)
    live.say("consul", "mail", "10.0.0.9:25")
    wait_until(lambda: registry.get_service_url("web") == f"http://{after}", "what the registry says")
    assert registry.get_deployment_info()["services"]["web"]["url"] == f"http://{after}"


def test_a_program_may_name_the_registry(live: Scripted, tmp_path: Path) -> None:
    live.file.write_text("services: {web: {host: file.example, port: 80}}\n")
    named = {"type": "etcd", "host": "etcd.example:2379"}
    live.registry = ServiceRegistry(live.file, named, environ={})
    live.say("etcd", "web", "10.0.0.1:80")
    assert live.registry.get_service_url("web") == "http://10.0.0.1:80"


def test_one_static_service_beside_a_live_one(live: Scripted) -> None:
    registry = live.start(TWO.replace("mail: {}", "mail: {host: m.example, port: 25, source: static}"))
    assert registry.get_service_url("mail") == "http://m.example:25"
    assert registry.wait_until_ready(0.0, name="mail")
    assert not registry.wait_until_ready(0.0)
    with pytest.raises(UnknownUpstreamError):
        registry.wait_until_ready(0.0, name="nobody")


# Who is picked


def test_weights(live: Scripted) -> None:
    registry = live.start(WEB)
    live.give("consul", "web", Endpoint("a", 1, 3), Endpoint("b", 1, 1))
    assert urls(registry, 40) == {"http://a:1": 30, "http://b:1": 10}


def test_zones(live: Scripted) -> None:
    registry = live.start(WEB, {"AUTOBOT_ZONE": "z1"})
    live.give("consul", "web", Endpoint("a", 1, 1, "z1"), Endpoint("b", 1, 1, "z2"))
    assert urls(registry, 20) == {"http://a:1": 20}


@pytest.mark.parametrize("strategy", ["round_robin", "least_request", "random", "peak_ewma"])
def test_every_strategy_spreads(live: Scripted, strategy: str) -> None:
    registry = live.start(balancer(f"strategy: {strategy}"))
    live.say("consul", "web", "a:1", "b:1", "c:1")
    found = urls(registry, 300)
    assert len(found) == 3
    assert min(found.values()) > 50


def test_a_hashed_path_goes_where_the_sidecar_sends_it(live: Scripted) -> None:
    registry = live.start(balancer("strategy: ring_hash, hash_on: path"))
    hosts = [f"h{number}:1" for number in range(8)]
    live.say("consul", "web", *hosts)
    theirs: Any = live_of(registry)._clusters["web"]
    ours = Cluster("web", "http", theirs.policy, theirs._clock)
    ours.apply(Snapshot("web", live_of(registry).endpoints("web"), "consul"))
    seen = set()
    for number in range(50):
        head: Any = SimpleNamespace(target=f"/item/{number}?q=1".encode())
        key = request_key(head, None, ours)  # type: ignore[arg-type] # no client is looked at
        assert key == key_of(f"/item/{number}".encode())
        state = ours.pick(0.0, (), key)
        assert state is not None
        assert urls(registry, 3, f"item/{number}?q=2") == {
            f"http://{state.endpoint.address}/item/{number}?q=2": 3
        }
        seen.add(state.endpoint.address)
    assert len(seen) > 4
    assert len(urls(registry, 100)) > 4, "without a path by chance"


def test_another_hash_is_up_to_chance(live: Scripted) -> None:
    registry = live.start(balancer("strategy: ring_hash, hash_on: 'header:X-User'"))
    live.say("consul", "web", "a:1", "b:1")
    assert len(urls(registry, 100, "/same")) == 2


# Breakers of checks


async def test_endpoints_whose_breaker_is_open_are_passed_over(live: Scripted) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        well, ill, third = server.sockets[0].getsockname()[1], free_port(), free_port()
        registry = live.start(balancer("circuit_breaker_threshold: 1, circuit_breaker_timeout: 5"))
        clock = FakeClock()
        registry._health_checks()._clock = clock  # type: ignore[assignment] # the same methods
        live.say("consul", "web", f"127.0.0.1:{well}", f"127.0.0.1:{ill}")
        assert len(urls(registry, 10)) == 2
        health = await registry.check_service_health("web")
        assert health.status is ServiceStatus.HEALTHY
        assert [one.status.value for one in health.endpoints] == ["healthy", "unhealthy"]
        assert urls(registry, 10) == {f"http://127.0.0.1:{well}": 10}

        live.say("consul", "web", f"127.0.0.1:{ill}")
        assert urls(registry, 1) == {f"http://127.0.0.1:{ill}": 1}, "nobody else is left"
        live.say("consul", "web", f"127.0.0.1:{third}", f"127.0.0.1:{ill}")
        assert urls(registry, 10) == {f"http://127.0.0.1:{third}": 10}
        live.say("consul", "web", f"127.0.0.1:{third}")
        live.say("consul", "web", f"127.0.0.1:{third}", f"127.0.0.1:{ill}")
        assert urls(registry, 10) == {f"http://127.0.0.1:{third}": 10}, "it went and came back"
        clock.advance(5.0)
        assert len(urls(registry, 10)) == 2, "its open time is over"
    await server.wait_closed()


async def test_observed_breakers_keep_nobody_away(live: Scripted) -> None:
    registry = live.start(balancer("circuit_breaker: {consecutive_failures: 1, observe_only: true}"))
    live.say("consul", "web", f"127.0.0.1:{free_port()}", f"127.0.0.2:{free_port()}")
    await registry.check_service_health("web")
    assert len(registry._health_checks().refused("web")) == 2
    assert len(urls(registry, 10)) == 2


async def test_breakers_of_endpoints_that_have_gone_are_forgotten(live: Scripted) -> None:
    registry = live.start(balancer("circuit_breaker_threshold: 1"))
    for _ in range(3):
        live.say("consul", "web", f"127.0.0.1:{free_port()}")
        await registry.check_service_health("web")
        checks = registry._health_checks()
        assert len(checks._breakers["web"]) == len(checks.refused("web")) == 1


# What is told


def test_the_overview(live: Scripted) -> None:
    registry = live.start(TWO.replace("web: {}", "web: {host: file.example, port: 80}"))
    web = registry.get_deployment_info()["services"]["web"]
    assert (web["url"], web["endpoints"]) == ("http://file.example:80", ["file.example:80"])
    assert (web["source"], web["stale"]) == ("static", True), "the registry has not spoken"
    mail = registry.get_deployment_info()["services"]["mail"]
    assert (mail["url"], mail["host"], mail["port"], mail["endpoints"]) == ("", "", 0, [])
    assert (mail["source"], mail["stale"], mail["health"]) == ("", True, "unknown")
    live.say("consul", "web", "::1:80", "10.0.0.2:80", applied=False)
    live.say("consul", "mail", "10.0.0.3:25")
    wait_until(lambda: registry.get_service_config("web").host == "::1", "the registry's word")
    info = registry.get_deployment_info()
    web = info["services"]["web"]
    assert (web["url"], web["host"], web["port"]) == ("http://[::1]:80", "::1", 80)
    assert web["endpoints"] == ["[::1]:80", "10.0.0.2:80"]
    assert (web["source"], web["stale"]) == ("consul", False)
    assert info["services_count"] == 2
    assert registry.list_services() == ["web", "mail"]


async def test_a_service_without_endpoints_is_not_asked(live: Scripted) -> None:
    registry = live.start(WEB)
    health = await registry.check_service_health("web")
    assert (health.status, health.error) == (ServiceStatus.UNKNOWN, "no endpoints are known yet for web")
    assert (await registry.check_all_services_health())["web"].endpoints == ()


def test_a_registry_that_others_hide_makes_nothing_stale(live: Scripted) -> None:
    both = "external_registry: [{type: consul, host: c}, {type: etcd, host: e}]\n"
    registry = live.start(both + WEB.removeprefix(CONSUL))
    live.say("consul", "web", "10.0.0.1:80")
    assert not live_of(registry).is_stale("web")
    live.say("consul", "web")
    assert live_of(registry).is_stale("web"), "etcd has not spoken"
    live.say("etcd", "web", "10.0.0.2:80")
    assert not live_of(registry).is_stale("web")


def test_debugging_tells_what_registries_say(live: Scripted, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "sidecar.registry")
    registry = live.start(FALLING_BACK, {"WEB_PORT": "81"})
    live.say("consul", "web", "10.0.0.1:80", applied=False)
    wait_until(lambda: registry.get_service_config("web").host == "10.0.0.1", "the registry's word")
    registry.get_service_url("web")
    live.fail("consul", "web", SourceError("status 500"))
    wait_until(lambda: live_of(registry).is_stale("web"), "the error")
    registry.get_service_url("web")
    live.say("consul", "web", *(f"10.0.1.{number}:81" for number in range(22)))
    wait_until(lambda: "21 endpoints" in caplog.text or "22 endpoints" in caplog.text, "the log's line")
    told = caplog.messages
    for line in (
        "environment overrides: WEB_PORT",
        "web is looked for in consul, static, every endpoint at port 81",
        "web is at file.example:81 (static)",
        "web is at 10.0.0.1:81 (consul)",
        "web is http://10.0.0.1:81",
        "consul (web): status 500",
        "web is http://10.0.0.1:81 (stale)",
        "consul (web) is back",
    ):
        assert told.count(line) == 1, line
    assert any(line.endswith("10.0.1.19:81 and 2 more (consul)") for line in told)


# Waiting


def test_waiting_for_the_first_word(live: Scripted) -> None:
    registry = live.start(TWO)
    assert not registry.wait_until_ready(0.03)
    live.say("consul", "mail", "10.0.0.1:25")
    assert registry.wait_until_ready(10, name="mail")
    assert not registry.wait_until_ready(0.0)
    threading.Timer(0.05, lambda: live.say("consul", "web", "10.0.0.2:80", applied=False)).start()
    assert registry.wait_until_ready(10)
    assert registry.get_service_url("web") == "http://10.0.0.2:80"


async def test_waiting_in_a_coroutine(live: Scripted) -> None:
    registry = live.start(FALLING_BACK)
    assert not await registry.until_ready(0.03)
    waiting = asyncio.create_task(registry.until_ready(10))
    await asyncio.sleep(0)
    live.say("consul", "web", "10.0.0.2:80", applied=False)
    assert await waiting
    assert registry.get_service_url("web") == "http://10.0.0.2:80", "not the file's"


def test_merged_registries_are_all_waited_for(live: Scripted) -> None:
    both = "external_registry: [{type: consul, host: c}, {type: etcd, host: e}]\n"
    merged = "web: {source: {use: [consul, etcd], merge: true}}"
    registry = live.start(both + WEB.removeprefix(CONSUL).replace("web: {}", merged))
    live.say("consul", "web", "10.0.0.1:80")
    assert not registry.wait_until_ready(0.0)
    assert live_of(registry).is_stale("web")
    live.say("etcd", "web", "10.0.0.2:80", applied=False)
    assert registry.wait_until_ready(10)
    assert len(urls(registry, 10)) == 2
    assert registry.get_deployment_info()["services"]["web"]["source"] == "consul+etcd"
    assert not live_of(registry).is_stale("web")


def test_a_word_that_is_not_applied_yet_is_waited_for(
    live: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.registry.supervisor.COALESCE", 0.3)
    registry = live.start(TWO)
    live.say("consul", "mail", "10.0.0.1:25")
    live.say("consul", "web", "10.0.0.2:80", applied=False)
    wait_until(lambda: live_of(registry)._feeds("web")[0].endpoints, "the word")
    with pytest.raises(NoEndpointsError):
        registry.get_service_url("web")
    assert registry.wait_until_ready(10)
    assert registry.get_service_url("web") == "http://10.0.0.2:80"


def test_waiting_ends_with_the_registry(live: Scripted) -> None:
    registry = live.start(WEB)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(registry.wait_until_ready, 30)
        registry.close()
        assert not waiting.result(10)


def test_a_static_configuration_waits_for_nobody(tmp_path: Path) -> None:
    with ServiceRegistry(environ={}) as registry:
        assert registry.wait_until_ready(0.0, fresh=True)
        assert registry._live is None


async def test_a_static_configuration_is_an_async_context_too() -> None:
    async with ServiceRegistry(environ={}) as registry:
        assert await registry.until_ready(0.0)


def test_what_was_saved_is_known_at_once_but_is_not_fresh(live: Scripted) -> None:
    settings = live.start(WEB)._settings
    live.close()
    saved = {("consul", "web"): ((Endpoint("old", 1),), 0.0)}
    found = sidecar.registry.live.LiveServices(settings, {}, saved=saved)
    try:
        assert found.pick("web", "", frozenset()) == Endpoint("old", 1)
        assert found.wait(0.0)
        assert not found.wait(0.0, fresh=True)
        assert found.is_stale("web")
    finally:
        found.close()
