"""Services that registries know of, in a program: who is picked, what is known when, threads and their ends, forks."""

import asyncio
import gc
import logging
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.clock import FakeClock
from support.live import Scripted, live_of, scripted
from support.ports import free_port
from support.proxy import PACKAGES, ROOT, clean_environment
from support.waiting import wait_until

import sidecar.registry.live
from sidecar import ServiceRegistry, ServiceStatus
from sidecar.balance.keys import key_of
from sidecar.cli import run
from sidecar.cluster import Cluster
from sidecar.errors import NoEndpointsError, SourceError, UnknownUpstreamError
from sidecar.model import Endpoint, Snapshot
from sidecar.proxy.hash_key import request_key
from sidecar.registry import get_service_registry, reset_service_registry

CONSUL = "external_registry: {type: consul, host: consul.example}\n"
WEB = CONSUL + "services: {web: {}}\nsidecar: {ports: {8000: web}}\n"  # known to consul alone
FALLING_BACK = CONSUL + "services: {web: {host: file.example, port: 80}}\n"
TWO = CONSUL + "services: {web: {}, mail: {}}\nsidecar: {ports: {8000: web, 8001: mail}}\n"


def balancer(policy: str) -> str:
    return f"{CONSUL}load_balancers:\n  web: {{{policy}}}\nsidecar: {{ports: {{8000: web}}}}\n"


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    with scripted(tmp_path, monkeypatch) as found:
        yield found


def urls(registry: ServiceRegistry, count: int, path: str = "") -> Counter[str]:
    return Counter(registry.get_service_url("web", path) for _ in range(count))


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
    assert (health.status, health.error) == (ServiceStatus.UNKNOWN, "no endpoints are known")
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
    live.say("etcd", "web", "10.0.0.2:80", applied=False)
    assert registry.wait_until_ready(10)
    assert len(urls(registry, 10)) == 2


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


# Threads


def test_no_call_waits_for_a_registry_that_never_answers(live: Scripted) -> None:
    registry = live.start(FALLING_BACK)
    took = []
    for _ in range(2000):
        begun = time.perf_counter()
        registry.get_service_url("web")
        took.append(time.perf_counter() - begun)
    registry.get_deployment_info()
    assert sorted(took)[1900] < 0.002, "nineteen of twenty; the machine may have had something else to do"
    assert sum(took) < 1.0


def test_threads_share_it_while_snapshots_change(live: Scripted) -> None:
    registry = live.start(balancer("slow_start: 1"))
    live.say("consul", "web", "h0:1")
    stop = threading.Event()

    def ask(number: int) -> Counter[str]:
        found: Counter[str] = Counter()
        while not stop.is_set():
            found[registry.get_service_url("web", "/x")] += 1
            if not number:
                registry.get_deployment_info()
        return found

    with ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(ask, number) for number in range(8)]
        try:
            for number in range(1, 60):
                live.say("consul", "web", *(f"h{number + one}:1" for one in range(number % 5 + 1)))
        finally:
            stop.set()
        found = sum((one.result(10) for one in asking), Counter())
    assert len(found) > 20
    assert set(found) <= {f"http://h{number}:1/x" for number in range(70)}


def test_turns_are_exact_across_threads(live: Scripted) -> None:
    registry = live.start(WEB)
    live.say("consul", "web", "a:1", "b:1", "c:1", "d:1")
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            found = sum(pool.map(lambda _: urls(registry, 2000), range(8)), Counter())
    finally:
        sys.setswitchinterval(before)
    assert set(found.values()) == {4000}


class Watched(Cluster):
    """Takes its time, and counts how often somebody came while another was there. Pickers know nothing of threads."""

    inside = met = 0

    def apply(self, snapshot: Snapshot) -> None:
        with self.alone():
            super().apply(snapshot)

    def pick(self, *arguments: Any) -> Any:
        with self.alone():
            return super().pick(*arguments)

    @contextmanager
    def alone(self) -> Iterator[None]:
        self.inside += 1
        self.met += self.inside > 1
        time.sleep(0.0001)
        yield
        self.inside -= 1


def test_nobody_meets_at_a_cluster(live: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sidecar.registry.live, "Cluster", Watched)
    registry = live.start(WEB)
    live.say("consul", "web", "h0:1")
    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(urls, registry, 100) for _ in range(4)]
        for number in range(20):
            live.say("consul", "web", f"h{number}:1")
        for one in asking:
            one.result(20)
    cluster: Any = live_of(registry)._clusters["web"]
    assert cluster.met == 0


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "sidecar registries"]


def test_closing_ends_the_thread_and_keeps_what_is_known(live: Scripted) -> None:
    with live.start(WEB) as registry:
        live.say("consul", "web", "10.0.0.1:80")
        assert threads() == ["sidecar registries"]
    assert threads() == []
    assert live.sources["consul"].closed
    assert live.sources["consul"].open == 0
    assert registry.get_service_url("web") == "http://10.0.0.1:80"
    registry.close()


def test_nothing_holds_what_is_closed(live: Scripted) -> None:
    live.start(WEB)
    left = weakref.ref(live_of(live.registry))
    live.close()
    live.sources.clear()
    del live.registry
    gc.collect()
    assert left() is None


def test_closing_in_its_own_thread(live: Scripted) -> None:
    """As a handler of the log may do, which hears of registries there."""
    registry = live.start(WEB)
    thread = live_of(registry)._thread
    assert thread is not None
    closed: Future[None] = Future()

    def close() -> None:
        try:
            closed.set_result(registry.close())
        except RuntimeError as error:
            closed.set_exception(error)

    thread.loop.call_soon_threadsafe(close)
    closed.result(10)
    thread.join(10)
    assert not thread.is_alive()


async def test_closing_in_a_coroutine(live: Scripted) -> None:
    async with live.start(WEB):
        assert threads()
    assert threads() == []


def test_collecting_it_ends_the_thread(live: Scripted) -> None:
    live.start(WEB)
    thread = live_of(live.registry)._thread
    assert thread is not None
    live.registry.itself = live.registry  # type: ignore[attr-defined] # one of a cycle
    del live.registry
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()


def test_resetting_the_registry_of_the_process_ends_its_thread(
    live: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config" / "deployment").mkdir(parents=True)
    (tmp_path / "config" / "deployment" / "local.yml").write_text(FALLING_BACK)
    monkeypatch.setenv("AUTOBOT_DEPLOYMENT_MODE", "local")
    monkeypatch.chdir(tmp_path)
    reset_service_registry()
    assert get_service_registry().get_service_url("web") == "http://file.example:80"
    assert threads()
    reset_service_registry()
    assert threads() == []


@pytest.mark.parametrize("what", ["_Following.start", "asyncio.new_event_loop"])
def test_without_a_thread_to_be_had_there_is_one_clear_line(
    live: Scripted, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def refuse(*_: object) -> None:
        raise (
            RuntimeError("can't start new thread") if "start" in what else OSError(24, "Too many open files")
        )

    monkeypatch.setattr(f"sidecar.registry.live.{what}", refuse)
    with pytest.raises(SourceError, match=r"^registries cannot be followed: .*(can't start|Too many)"):
        live.start(WEB)


# Ends of programs and forks, in a program of its own

PROLOGUE = """\
import gc, os, pathlib, sys, threading, time
import pytest
import sidecar.registry.live as module
from support.live import Scripted
from support.waiting import wait_until
live = Scripted(pathlib.Path(sys.argv[1]))
module.source_supervisor = live.supervisor
registry = live.start(sys.argv[2])

def child(do):
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        do()
        sys.exit(0)
    return pid

def end(pid):
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""


def program(directory: Path, text: str, code: str) -> Sequence[str]:
    """What it prints. It has to end well, say nothing on stderr, and not take long."""
    done = subprocess.run(
        # Python from 3.12 on warns of forks beside threads, which is what is looked at.
        [sys.executable, "-X", "dev", "-W", "ignore:This process", "-c", PROLOGUE + code, directory, text],
        env=clean_environment() | {"PYTHONPATH": f"{PACKAGES}:{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_a_program_that_closes_nothing_ends(tmp_path: Path) -> None:
    code = """
live.say("consul", "web", "a:1")
import atexit
atexit.register(lambda: print(registry.get_service_url("web")))  # before or after the thread has ended
async def close():
    print("closed")
live.sources["consul"].close = close
print("end")
"""
    assert program(tmp_path, WEB, code) == ["end", "http://a:1", "closed"]


def test_a_source_that_does_not_end_holds_nobody_up(tmp_path: Path) -> None:
    code = """
import asyncio
module.END_WITHIN = 0.1
async def close():
    await asyncio.sleep(60)
live.say("consul", "web", "a:1")
live.sources["consul"].close = close
begun = time.monotonic()
registry.close()
assert threading.active_count() == 2
print(time.monotonic() - begun < 5)
"""
    begun = time.monotonic()
    assert program(tmp_path, WEB, code) == ["True"]
    assert time.monotonic() - begun < 20


def test_a_forked_process_follows_by_itself(tmp_path: Path) -> None:
    code = """
live.say("consul", "web", "a:1")
parent = live.sources["consul"]
def work():
    assert threading.active_count() == 1
    assert registry.get_service_url("web") == "http://a:1"  # not the file's, though nobody has spoken here
    assert threading.active_count() == 2
    assert live.sources["consul"] is not parent
    assert registry.get_deployment_info()["services"]["web"]["stale"]
    live.say("consul", "web", "b:1")
    assert registry.wait_until_ready(10, fresh=True)
    assert registry.get_service_url("web") == "http://b:1"
    end(child(lambda: print("grandchild", registry.get_service_url("web"))))
    registry.close()
    live.__dict__.clear()
    globals()["registry"] = None
    gc.collect()  # of what the parent uses nothing may be closed here
    assert threading.active_count() == 1
end(child(work))
end(child(lambda: None))  # one that makes no use of it
live.say("consul", "web", "c:1")  # the parent's loop still hears
print("parent", registry.get_service_url("web"))
"""
    said = program(tmp_path, FALLING_BACK, code)
    assert said == ["grandchild http://b:1", "parent http://c:1"]


def test_a_fork_in_the_middle_of_everything(tmp_path: Path) -> None:
    code = """
live.say("consul", "web", "h0:1")
stop = threading.Event()
def ask():
    while not stop.is_set():
        registry.get_service_url("web")
def change():
    number = 0
    while not stop.is_set():
        number += 1
        live._call("consul", "say", "web", *(f"h{one}:1" for one in range(number % 40 + 1)))
        time.sleep(0.0005)
workers = [threading.Thread(target=one) for one in (ask, ask, ask, change)]
for one in workers:
    one.start()
def work():
    for _ in range(10):
        registry.get_service_url("web")
    count = len(live.addresses("web"))
    found = {registry.get_service_url("web") for _ in range(count)}
    assert len(found) == count, (len(found), count)
    os._exit(0)  # at once
for _ in range(30):
    end(child(work))
stop.set()
for one in workers:
    one.join()
print("fine")
"""
    assert program(tmp_path, WEB, code) == ["fine"]


def test_a_fork_while_somebody_waits(tmp_path: Path) -> None:
    code = """
held, go_on = threading.Event(), threading.Event()
def wait():
    with registry._live._ended._cond:  # as one that waits has for a moment, again and again
        held.set()
        go_on.wait()
waiting = threading.Thread(target=wait)
waiting.start()
held.wait()
def work():
    assert not registry.wait_until_ready(0.05)
    print("came back")
    os._exit(sys.stdout.flush() or 0)
end(child(work))
go_on.set()
waiting.join()
"""
    assert program(tmp_path, WEB, code) == ["came back"]


def test_a_child_without_a_thread_to_be_had_goes_by_what_its_parent_knew(tmp_path: Path) -> None:
    code = """
live.say("consul", "web", "a:1")
def work():
    def refuse(self):
        raise RuntimeError("no thread")
    module._Following.start = refuse
    import logging
    told = []
    logging.getLogger("sidecar.registry").warning = lambda *words: told.append(words[0] % words[1:])
    assert registry.get_service_url("web") == registry.get_service_url("web") == "http://a:1"
    print(*told)
end(child(work))
"""
    assert program(tmp_path, WEB, code) == [
        "registries are not followed in this process: registries cannot be followed: RuntimeError: no thread"
    ]


# The command line


@pytest.fixture
async def command(live: Scripted, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """`sidecar ...` over a file, beside whom a test has the registry speak."""
    made: list[ServiceRegistry] = []
    original = ServiceRegistry.__init__

    def watched(self: ServiceRegistry, *arguments: Any, **named: Any) -> None:
        original(self, *arguments, **named)
        live.registry = self
        made.append(self)

    monkeypatch.setattr(ServiceRegistry, "__init__", watched)
    for name in ("AUTOBOT_DEPLOYMENT_MODE", "WEB_HOST", "WEB_PORT"):
        monkeypatch.delenv(name, raising=False)

    def call(text: str, *arguments: str, says: tuple[str, ...] | None = None) -> int:
        live.file.write_text(text)
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(run, [*arguments, "--config", str(live.file)])
            if says is not None:
                wait_until(lambda: made, "the command's registry")
                live.say("consul", "web", *says, applied=False)
            code = running.result(20)
        assert threads() == []
        return code

    return call


def test_url_prints_a_live_one(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(FALLING_BACK, "url", "web", "/x", says=("10.0.0.1:80",)) == 0
    assert capsys.readouterr().out == "http://10.0.0.1:80/x\n"


WAIT = "sidecar: {registry_wait: 0.05}\n"
WEB_SOON = WEB.replace("8000: web}}", "8000: web}, registry_wait: 0.05}")


def test_url_falls_back_after_a_while(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(FALLING_BACK + WAIT, "url", "web") == 0
    assert capsys.readouterr().out == "http://file.example:80\n"


def test_url_of_nobody(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(WEB_SOON, "url", "web") == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "sidecar: no endpoints are known yet for web\n")


def test_health_of_live_ones_and_of_nobody(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    assert command(FALLING_BACK, "health", says=(f"127.0.0.1:{port}",)) == 1
    assert f"127.0.0.1:{port}  unhealthy" in capsys.readouterr().out
    assert command(WEB_SOON, "health") == 1
    row = capsys.readouterr().out.splitlines()[-1].split()
    assert row == ["web", "unknown", "GET", "/health", "no", "endpoints", "are", "known"]
