"""The sidecar as a whole in one loop: put together, serving on loopback, and ending in its stages."""

import asyncio
import gc
import json
import logging
import os
import resource
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
import uvloop
from support.clock import FakeClock

import sidecar.app
import sidecar.ending
from sidecar.app import App, run_loop
from sidecar.config.settings import (
    Address,
    BreakerSettings,
    DeploymentMode,
    EndpointSettings,
    HealthSettings,
    LimitSettings,
    OutlierSettings,
    PolicySettings,
    RetrySettings,
    Settings,
    SidecarSettings,
    UpstreamKind,
    UpstreamSettings,
)
from sidecar.errors import StartError
from sidecar.following import LAST_CALL
from sidecar.health.checker import MAX_RUNNING
from sidecar.host_limits import CHECK_DESCRIPTORS, OWN_DESCRIPTORS, descriptors_note
from sidecar.model import UpstreamPolicy
from sidecar.version import build_name, is_compiled

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture(autouse=True)
def process_wide(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a sidecar does to its process is undone; a drain looks around often and is patient for little."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(sidecar.ending, "DRAIN_POLL", 0.001)
    monkeypatch.setattr(sidecar.ending, "DRAIN_QUIET", 0.02)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    gc.unfreeze()


class Endpoint:
    """An endpoint that answers `OK` once it may. asked: set when a request has come."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.port = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        try:
            await self._answer(reader, writer)
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                self.asked.set()
                await self.may_answer.wait()
                writer.write(OK)

    async def stop(self) -> None:
        self.may_answer.set()
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        for writer in self._writers:
            with suppress(ConnectionError):
                await writer.wait_closed()


@pytest_asyncio.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    """One that answers at once unless told otherwise."""
    made = Endpoint()
    await made.start()
    yield made
    await made.stop()


def upstream(name: str = "api", *ports: int, **fields: Any) -> UpstreamSettings:
    """One upstream with endpoints on loopback, listening on a free port."""
    base = UpstreamSettings(
        name=name,
        kind=UpstreamKind.SERVICE,
        scheme="http",
        endpoints=tuple(EndpointSettings("127.0.0.1", port) for port in ports),
        strategy="round_robin",
        health_endpoint="/health",
        listen_port=0,
        skipped=None,
        policy=PolicySettings(),
    )
    return replace(base, **fields)


def settings(*upstreams: UpstreamSettings, notes: tuple[str, ...] = (), **sidecar_fields: Any) -> Settings:
    """A configuration whose every port is free."""
    own: dict[str, Any] = {
        "bind": ("127.0.0.1",),
        "admin": Address("127.0.0.1", 0),
        "metrics": Address("127.0.0.1", 0),
        **sidecar_fields,
    }
    return Settings(
        mode=DeploymentMode.LOCAL,
        domain="localhost",
        origin="test.yml",
        upstreams=upstreams,
        sidecar=SidecarSettings(**own),
        log_level="INFO",
        registry_debug=False,
        notes=notes,
    )


async def ask(address: str, asked: bytes = GET, *, close: bool = True) -> bytes:
    """Send and read until the end, or until nothing more of one answer is to come."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    if close:
        asked = asked.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    try:
        writer.write(asked)
        return await reader.read()
    finally:
        writer.transport.abort()


def path(target: str) -> bytes:
    return GET.replace(b"/ ", target.encode() + b" ")


async def until(look: Callable[[], object]) -> None:
    """Wait for `look` to give something true, turn by turn; the test's time limit is the bound."""
    while not look():  # noqa: ASYNC110 - what is awaited is the state of the code under test, which has no event
        await asyncio.sleep(0.001)


class Running:
    """`App.run` going on beside the test. address: of the first listener."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.task = asyncio.create_task(app.run())

    @property
    def address(self) -> str:
        return self.app.listening[0][1]

    async def begin_request(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A request that is in flight when this returns."""
        host, _, port = self.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(GET)
        await until(lambda: self.app.clusters["api"].stats.in_flight)
        return reader, writer


@pytest_asyncio.fixture
async def run() -> AsyncIterator[Callable[[App], Any]]:
    """Starts `App.run`; ended at the end of the test if it has not."""
    started: list[Running] = []

    async def run(app: App) -> Running:
        running = Running(app)
        started.append(running)
        await until(lambda: app.ready or running.task.done())
        await asyncio.sleep(0)  # `run` goes on from `start` to where it waits for signals
        return running

    yield run
    for running in started:
        if not running.task.done():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            await running.task


# Starting


@pytest.mark.parametrize("clock", [None, FakeClock()])
@pytest.mark.uvloop
async def test_everything_is_up_once_started(endpoint: Endpoint, clock: Any) -> None:
    app = App(settings(upstream("api", endpoint.port)), clock)
    assert not app.ready
    await app.start()
    try:
        assert app.ready
        assert [name for name, _ in app.listening] == ["api"]
        assert (await ask(app.listening[0][1])).endswith(b"\r\n\r\nok")
        assert app.metrics_address is not None
        assert app.admin_address is not None
        assert (await ask(app.metrics_address, path("/ready"))).startswith(b"HTTP/1.1 200 ")
        exposition = await ask(app.metrics_address, path("/metrics"))
        assert (
            b'sidecar_requests_total{code_class="2xx",method="GET",reason="none",upstream="api"} 1.0'
            in exposition
        )
        view = json.loads((await ask(app.admin_address, path("/upstreams"))).partition(b"\r\n\r\n")[2])
        assert [entry["name"] for entry in view["upstreams"]] == ["api"]
        assert view["started_at"] <= view["at"]
        assert {**view, "at": ""} == json.loads(json.dumps({**app.view(), "at": ""}))
    finally:
        await app.close()
    assert not app.ready


async def test_a_tcp_upstream_is_relayed(endpoint: Endpoint) -> None:
    app = App(settings(upstream("redis", endpoint.port, scheme="redis")))
    await app.start()
    try:
        host, _, port = app.listening[0][1].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(GET)
        assert await reader.readexactly(len(OK)) == OK
        writer.close()
        await until(lambda: app.clusters["redis"].stats.sessions_active == 0)
    finally:
        await app.close()


async def test_time_outs_are_looked_after() -> None:
    """In real time, as short as it may be: a head that never ends is answered."""
    app = App(settings(upstream("api", 9), head_timeout=0.01))
    await app.start()
    try:
        host, _, port = app.listening[0][1].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET / HT")
        assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
        writer.close()
    finally:
        await app.close()


async def test_what_lives_as_long_as_the_process_is_left_out_of_collections() -> None:
    app = App(settings(upstream("api", 9)))
    await app.start()
    await app.close()
    assert gc.get_freeze_count() > 0


async def test_garbage_is_collected_once_started_whatever_was_before() -> None:
    app = App(settings(upstream("api", 9)))
    gc.disable()
    try:
        await app.start()
        assert gc.isenabled()
    finally:
        gc.enable()
        await app.close()


async def test_ipv6_addresses_are_said_in_brackets() -> None:
    app = App(settings(upstream("api", 9), bind=("::1",), admin=Address("::1", 0), metrics=Address("::1", 0)))
    await app.start()
    try:
        said = [app.listening[0][1], str(app.admin_address), str(app.metrics_address)]
        assert [address.rpartition(":")[0] for address in said] == ["[::1]"] * 3
        assert (await ask(said[2], path("/live"))).startswith(b"HTTP/1.1 200 ")
    finally:
        await app.close()


async def test_some_upstreams_have_no_port() -> None:
    app = App(
        settings(
            upstream("a", 9, listen_port=None), upstream("b", 9, skipped="it is itself"), upstream("c", 9)
        )
    )
    await app.start()
    assert [name for name, _ in app.listening] == ["c"]
    assert set(app.clusters) == {"a", "b", "c"}, "they can still be looked at"
    await app.close()


@pytest.mark.parametrize("which", ["listener", "admin", "metrics"])
async def test_a_port_that_is_taken_is_an_error_and_nothing_stays_open(which: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        if which == "listener":
            made = settings(upstream("first", 9), upstream("second", 9, listen_port=port))
        else:
            taken: dict[str, Any] = {which: Address("127.0.0.1", port)}
            made = settings(upstream("api", 9), **taken)
        app = App(made)
        with pytest.raises(StartError, match=f"127.0.0.1:{port}"):
            await app.start()
    assert not app.ready
    for _, address in app.listening:
        with pytest.raises(ConnectionRefusedError):
            await ask(address)


async def test_closing_is_safe_at_any_time_and_again() -> None:
    app = App(settings(upstream("api", 9)))
    await app.close()
    await app.start()
    await app.close()
    await app.close()


async def test_every_policy_reaches_the_data_path() -> None:
    """No value equals another or a default, so none can be taken for another."""
    policy = PolicySettings(
        timeout=11.0,
        connect_timeout=12.0,
        idle_timeout=13.0,
        continue_timeout=13.5,
        tunnel_idle_timeout=13.75,
        retries=14,
        host_header="preserve",
        close_on_unhealthy=True,
        per_try_timeout=14.25,
        hedge_after=14.3,
        retry=RetrySettings(on=("timeout", "500"), ratio=0.141, least=142, base=0.143, longest=0.144),
        deadline_header="X-Timeout",
        slow_start=14.5,
        breaker=BreakerSettings(
            consecutive_failures=15,
            open_for=16.0,
            max_open_for=17.0,
            jitter=0.18,
            failure_rate=0.185,
            min_requests=186,
            window=18.7,
            failure_statuses=("5xx", "503"),
            observe_only=True,
        ),
        outlier=OutlierSettings(max_ejected=0.188, min_available=189, panic="fail"),
        limits=LimitSettings(
            connections=19,
            connections_per_endpoint=18,
            pending=20,
            pending_timeout=20.5,
            in_flight=21,
            request_head=2100,
            response_head=2200,
        ),
    )
    app = App(
        settings(
            replace(
                upstream("api", 9, policy=policy),
                strategy="ring_hash",
                hash_on="header:x",
                health=HealthSettings(active=True, rise=187, fall=188, interval=1000.0),
            ),
            zone="east",
            head_timeout=23.0,
            idle_timeout=24.0,
            max_clients=25,
            min_body_rate=26,
        )
    )
    await app.start()
    assert app._context is not None
    assert (app._context.head_timeout, app._context.idle_timeout) == (23.0, 24.0)
    assert (app._context.max_clients, app._context.min_body_rate) == (25, 26)
    assert app.clusters["api"].policy == UpstreamPolicy(
        strategy="ring_hash",
        hash_on="header:x",
        zone="east",
        close_on_unhealthy=True,
        retry_on_connect=False,
        retry_on_reset=False,
        retry_on_timeout=True,
        retry_statuses=frozenset((500,)),
        per_try_timeout=14.25,
        hedge_after=14.3,
        retry_ratio=0.141,
        retry_min=142,
        backoff_base=0.143,
        backoff_max=0.144,
        slow_start=14.5,
        timeout=11.0,
        connect_timeout=12.0,
        idle_timeout=13.0,
        continue_timeout=13.5,
        tunnel_idle_timeout=13.75,
        retries=14,
        deadline_header=b"x-timeout",
        host_header="preserve",
        breaker_threshold=15,
        breaker_open_for=16.0,
        breaker_max_open_for=17.0,
        breaker_jitter=0.18,
        breaker_failure_rate=0.185,
        breaker_min_requests=186,
        breaker_window=18.7,
        failure_statuses=frozenset(range(500, 600)),
        observe_only=True,
        max_ejected=0.188,
        min_available=189,
        panic_all=False,
        checked=True,
        check_rise=187,
        check_fall=188,
        max_connections=19,
        max_connections_per_endpoint=18,
        max_pending=20,
        pending_timeout=20.5,
        max_in_flight=21,
        max_request_head=2100,
        max_response_head=2200,
    )
    await app.close()


# Health checks


CHECKED = HealthSettings(active=True, interval=0.1)


@pytest.mark.every_loop
async def test_endpoints_are_checked_from_the_start_to_the_end(endpoint: Endpoint) -> None:
    checked = upstream("api", endpoint.port, health=CHECKED)
    app = App(settings(checked, upstream("other", endpoint.port)))
    await app.start()
    try:
        (state,) = app.clusters["api"].endpoints.values()
        await until(lambda: state.last_check)
        assert state.last_check is not None
        assert state.last_check.ok
        view = app.view()["upstreams"]
        assert view[0]["endpoints"][0]["check"]["ok"] is True
        assert view[1]["endpoints"][0]["check"] is None
        assert app.metrics_address is not None
        exposition = await ask(app.metrics_address, path("/metrics"))
        assert b'sidecar_health_checks_total{result="success",upstream="api"}' in exposition
        assert b'sidecar_health_checks_total{result="success",upstream="other"}' not in exposition
        endpoint.may_answer.clear()
        endpoint.asked.clear()
        await endpoint.asked.wait()  # one goes on when the end comes
    finally:
        await app.close()


async def test_what_is_asked_has_ended_when_a_start_has_failed(endpoint: Endpoint) -> None:
    class Failing(App):
        async def _serve_own(self, context: Any) -> None:
            endpoint.may_answer.clear()
            await endpoint.asked.wait()
            raise StartError("no")

    app = Failing(settings(upstream("api", endpoint.port, health=CHECKED)))
    with pytest.raises(StartError):
        await app.start()
    assert app._context is not None
    assert app._context.checks.running == 0


async def test_who_accepts_nothing_more_checks_nobody(endpoint: Endpoint, run: Callable[[App], Any]) -> None:
    endpoint.may_answer.clear()
    running = await run(App(settings(upstream("api", endpoint.port, health=CHECKED))))
    reader, writer = await running.begin_request()
    checker = running.app._checker
    signal.raise_signal(signal.SIGINT)
    await until(lambda: checker.deadline == float("inf"))
    assert not running.task.done(), "the request goes on"
    endpoint.may_answer.set()
    assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    writer.close()
    await running.task


async def test_nothing_is_made_where_nothing_is_checked() -> None:
    app = App(settings(upstream("api", 9)))
    await app.start()
    assert app._checker is None
    assert app._context is not None
    assert app._context.checks.limit == 0
    await app.close()


def test_there_are_descriptors_for_as_many_checks_as_there_may_be() -> None:
    assert CHECK_DESCRIPTORS == MAX_RUNNING
    plain, checked = App(settings(upstream("a", 9))), App(settings(upstream("a", 9, health=CHECKED)))
    assert checked._descriptors_wanted() - plain._descriptors_wanted() == MAX_RUNNING


INFINITE = resource.RLIM_INFINITY
WANTED = 1000 + 1024 + OWN_DESCRIPTORS


@pytest.mark.parametrize(
    ("soft", "hard", "set_to"),
    [
        (1024, 500_000, WANTED),
        (1024, 2000, 2000),
        (1024, INFINITE, WANTED),
        (WANTED, 500_000, None),
        (INFINITE, INFINITE, None),
        (1024, WANTED, WANTED),
        (2000, 2000, None),
    ],
)
async def test_the_descriptor_limit_follows_the_bounds(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    soft: int,
    hard: int,
    set_to: int | None,
) -> None:
    caplog.set_level(logging.INFO, "sidecar")
    calls: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _which, limits: calls.append(limits))
    app = App(settings(upstream("api", 9, listen_port=None), max_clients=1000))
    await app.start()
    await app.close()
    assert calls == ([] if set_to is None else [(set_to, hard)])
    assert caplog.messages == ([descriptors_note(WANTED, 2000)] if hard == 2000 else [])
    monkeypatch.undo()


# Running and ending


async def test_it_says_what_it_does(endpoint: Endpoint, run: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sidecar")
    skipped = upstream("local", 80, skipped="its only endpoint is this port")
    running = await run(
        App(
            settings(
                upstream("api", endpoint.port),
                skipped,
                upstream("no", 9, listen_port=None),
                notes=("a note",),
            )
        )
    )
    signal.raise_signal(signal.SIGTERM)
    await running.task

    said = caplog.messages
    assert said[0] == f"sidecar started from test.yml, mode local, {build_name()}"
    assert said[1] == "a note"
    assert f"api: {running.address} -> 127.0.0.1:{endpoint.port}" in said
    assert "local: not listening: its only endpoint is this port" in said
    assert f"admin: http://{running.app.admin_address}/" in said
    assert f"metrics: http://{running.app.metrics_address}/metrics" in said
    assert "draining for up to 30 s; once more to accept no new connections" in said
    assert said[-1] == "stopped"
    assert not any(line.startswith("no:") for line in said)


async def test_a_drain_goes_on_accepting_and_ends_when_nothing_is_left(endpoint: Endpoint, run: Any) -> None:
    """2: the application is still ending its own work."""
    endpoint.may_answer.clear()
    running = await run(App(settings(upstream("api", endpoint.port))))
    reader, writer = await running.begin_request()
    os.kill(os.getpid(), signal.SIGTERM)
    await until(lambda: running.app.view()["draining"])
    assert (await ask(running.app.metrics_address, path("/ready"))).startswith(b"HTTP/1.1 503 ")

    second = asyncio.create_task(ask(running.address))
    await until(lambda: running.app.clusters["api"].stats.in_flight == 2)
    assert not running.task.done()
    endpoint.may_answer.set()
    answer = await reader.read()
    assert answer.endswith(b"\r\nConnection: close\r\n\r\nok")
    assert (await second).endswith(b"\r\n\r\nok")
    await running.task
    writer.close()


async def test_the_second_sigterm_accepts_no_more_and_finishes_what_is_in_flight(
    endpoint: Endpoint, run: Any
) -> None:
    endpoint.may_answer.clear()
    running = await run(App(settings(upstream("api", endpoint.port))))
    reader, writer = await running.begin_request()
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
    await until(lambda: running.app._stage == 2)
    with pytest.raises(ConnectionRefusedError):
        await ask(running.address)
    assert not running.task.done()
    endpoint.may_answer.set()
    assert (await reader.read()).endswith(b"ok")
    await running.task
    writer.close()


async def test_sigint_closes_what_is_idle_and_ends_when_nothing_is_in_flight(
    endpoint: Endpoint, run: Any
) -> None:
    running = await run(App(settings(upstream("api", endpoint.port))))
    host, _, port = running.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(GET)
    assert await reader.readexactly(len(OK)) == OK
    signal.raise_signal(signal.SIGINT)
    assert await reader.read() == b""
    await running.task
    writer.close()


async def test_sigint_twice_is_at_once(endpoint: Endpoint, run: Any) -> None:
    endpoint.may_answer.clear()
    running = await run(App(settings(upstream("api", endpoint.port))))
    reader, writer = await running.begin_request()
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)
    await running.task
    with suppress(ConnectionResetError):
        assert await reader.read() == b"", "no answer"
    assert running.app.clusters["api"].stats.in_flight == 0
    writer.close()


async def test_a_drain_ends_at_its_deadline(
    endpoint: Endpoint, run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """4: whatever hangs does not hold up the exit."""
    endpoint.may_answer.clear()
    clock: Any = FakeClock()
    running = await run(App(settings(upstream("api", endpoint.port), drain_timeout=5.0), clock))
    _, writer = await running.begin_request()
    signal.raise_signal(signal.SIGTERM)
    await until(lambda: running.app.view()["draining"])
    await asyncio.sleep(0)
    clock.advance(4.9)
    for _ in range(5):
        await asyncio.sleep(0.002)
        assert not running.task.done()
    clock.advance(0.1)
    await running.task
    assert "drain time is over with 1 still in flight" in caplog.messages
    writer.close()


async def test_the_last_of_the_drain_time_is_for_what_is_in_flight(
    endpoint: Endpoint, run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """An application that never stops asking is not cut off in the middle of a request."""
    caplog.set_level(logging.INFO, "sidecar")
    clock: Any = FakeClock()
    patient = PolicySettings(timeout=1000.0)  # the sweep passes in real time
    running = await run(
        App(settings(upstream("api", endpoint.port, policy=patient), drain_timeout=100.0), clock)
    )
    host, _, port = running.address.rpartition(":")
    quiet_reader, quiet_writer = await asyncio.open_connection(host, int(port))
    quiet_writer.write(GET)
    assert await quiet_reader.readexactly(len(OK)) == OK
    endpoint.may_answer.clear()
    reader, writer = await running.begin_request()
    signal.raise_signal(signal.SIGTERM)
    await until(lambda: running.app.view()["draining"])

    clock.advance(100.0 * (1 - LAST_CALL) - 0.01)
    for _ in range(5):
        await asyncio.sleep(0.002)
        assert running.app._stage == 1
    _, still_accepted = await asyncio.open_connection(host, int(port))
    still_accepted.close()
    await still_accepted.wait_closed()
    clock.advance(0.02)
    await until(lambda: running.app._stage == 2)
    assert caplog.messages[-1] == "finishing what is in flight, accepting no more; once more to end at once"
    with pytest.raises(ConnectionRefusedError):
        await ask(running.address)
    assert await quiet_reader.read() == b"", "closed, as nothing is asked on it"
    assert not running.task.done()
    endpoint.may_answer.set()
    assert (await reader.read()).endswith(b"\r\n\r\nok")
    await running.task
    assert "drain time is over" not in "".join(caplog.messages)
    quiet_writer.close()
    writer.close()


async def test_a_quiet_drain_closes_what_is_idle_and_accepts_no_more(endpoint: Endpoint, run: Any) -> None:
    """The application has ended its work: nothing is in flight and nothing came for a while."""
    running = await run(App(settings(upstream("api", endpoint.port))))
    host, _, port = running.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(GET)
    assert await reader.readexactly(len(OK)) == OK
    signal.raise_signal(signal.SIGTERM)
    assert await reader.read() == b""
    await running.task
    with pytest.raises(ConnectionRefusedError):
        await ask(running.address)
    writer.close()


async def test_closing_waits_for_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up whose answer never comes ends with the sidecar."""
    loop = asyncio.get_running_loop()
    answer = loop.create_future()

    async def never(*_arguments: object, **_keywords: object) -> object:
        return await answer

    monkeypatch.setattr(loop, "getaddrinfo", never)
    named = upstream("api", endpoints=(EndpointSettings("dead.example", 80),), listen_port=None)
    app = App(settings(named, admin=Address("127.0.0.1", 0)))
    await app.start()
    assert app._context is not None
    waiting = asyncio.ensure_future(app._context.resolver.resolve("dead.example", 80))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiting.done()
    await app.close()
    assert answer.cancelled()
    await asyncio.wait([waiting])
    assert waiting.cancelled()


async def test_a_drain_waits_for_sessions_too(endpoint: Endpoint, run: Any) -> None:
    running = await run(App(settings(upstream("redis", endpoint.port, scheme="tcp"))))
    host, _, port = running.address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    await until(lambda: running.app.clusters["redis"].stats.sessions_active)
    signal.raise_signal(signal.SIGINT)
    await until(lambda: running.app._stage == 2)
    assert not running.task.done()
    writer.close()
    await running.task


async def test_an_error_at_start_is_raised_by_run(run: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        app = App(settings(upstream("api", 9, listen_port=other.getsockname()[1])))
        with pytest.raises(StartError):
            await app.run()


async def test_a_signal_while_starting_is_heard_once_started(
    endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sidecar")
    app = App(settings(upstream("api", endpoint.port)))
    task = asyncio.create_task(app.run())
    await asyncio.sleep(0)
    assert not app.ready
    signal.raise_signal(signal.SIGTERM)
    await task
    assert caplog.messages[-1] == "stopped"
    assert sum(message.startswith("draining") for message in caplog.messages) == 1


async def test_sighup_without_anything_to_read_is_logged_and_ends_nothing(
    endpoint: Endpoint, run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Its default is the end of the process, and those who send it want a reload."""
    running = await run(App(settings(upstream("api", endpoint.port))))
    signal.raise_signal(signal.SIGHUP)
    await until(lambda: any(message.startswith("not reloaded: ") for message in caplog.messages))
    assert "there is no configuration to read again; start the sidecar anew" in caplog.messages
    assert (await ask(running.address)).endswith(b"\r\n\r\nok")
    signal.raise_signal(signal.SIGTERM)
    await running.task


async def test_sighup_while_starting_is_a_reload_once_started(endpoint: Endpoint, run: Any) -> None:
    loads = []

    def load() -> Settings:
        loads.append(1)
        return settings(upstream("api", endpoint.port), upstream("web", endpoint.port))

    app = App(settings(upstream("api", endpoint.port)), load=load)
    running = asyncio.create_task(run(app))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not app.ready
    signal.raise_signal(signal.SIGHUP)
    await running
    await until(lambda: "web" in app.clusters)
    assert (app.reloads.counts.success, len(loads)) == (1, 1)


async def test_the_signals_stay_taken_until_the_loop_closes(run: Any) -> None:
    """An impatient second signal at the very end must not kill the process with another exit code."""
    running = await run(App(settings(upstream("api", 9))))
    signal.raise_signal(signal.SIGTERM)
    await running.task
    signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL


def test_the_loop_is_uvloop_or_the_compiled_builds_own() -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        assert type(loop).__name__ == "ReactorLoop" if is_compiled() else isinstance(loop, uvloop.Loop)
        return 7

    assert run_loop(main()) == 7
