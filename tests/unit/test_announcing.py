"""The sidecar as a whole announces services once it listens, and withdraws them before it stops."""

import asyncio
import gc
import json
import resource
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio
from support.registrars import ScriptedRegistrar, announce_in, registration
from support.sources import registry

import sidecar.app
import sidecar.ending
from sidecar.app import App
from sidecar.config.settings import (
    Address,
    DeploymentMode,
    EndpointSettings,
    HealthSettings,
    PolicySettings,
    Settings,
    SidecarSettings,
    UpstreamKind,
    UpstreamSettings,
)
from sidecar.registry import assembly
from sidecar.registry import registration as registration_module

ETCD = registry("etcd", "etcd", hosts=(Address("127.0.0.1", 2379),))
GET = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.fixture(autouse=True)
def process_wide(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a sidecar does to its process is undone; a drain is patient for little."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(sidecar.ending, "DRAIN_POLL", 0.001)
    monkeypatch.setattr(sidecar.ending, "DRAIN_QUIET", 0.02)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    gc.unfreeze()


async def until(look: Callable[[], object]) -> None:
    async with asyncio.timeout(10.0):
        while not look():  # noqa: ASYNC110 - of objects that tell nobody
            await asyncio.sleep(0.001)


class WatchfulRegistrar(ScriptedRegistrar):
    """Looks at every call whether the sidecar listens. app: which. listening: what it saw, by call."""

    app: App
    listening: list[tuple[str, bool]]

    async def _called(self, what: str, service: Any) -> None:
        self.listening.append((what, await accepts(self.app)))
        await super()._called(what, service)


async def accepts(app: App) -> bool:
    """Whether the first listener takes connections."""
    host, _, port = app.listening[0][1].rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except ConnectionRefusedError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


@pytest_asyncio.fixture
async def service() -> AsyncIterator[int]:
    """The port of a local service that accepts."""

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


def settings(port: int, **fields: Any) -> Settings:
    """One upstream on a free port, and one registration."""
    upstream = UpstreamSettings(
        name="api",
        kind=UpstreamKind.SERVICE,
        scheme="http",
        endpoints=(EndpointSettings("127.0.0.1", 9),),
        strategy="round_robin",
        health_endpoint="/health",
        listen_port=0,
        skipped=None,
        policy=PolicySettings(),
    )
    free = Address("127.0.0.1", 0)
    check = HealthSettings(kind="tcp", active=True, interval=0.02, rise=1, fall=1)
    return Settings(
        mode=DeploymentMode.LOCAL,
        domain="localhost",
        origin="test.yml",
        upstreams=(upstream,),
        sidecar=SidecarSettings(bind=("127.0.0.1",), admin=free, metrics=free, **fields),
        log_level="INFO",
        registry_debug=False,
        notes=(),
        registries=(ETCD,),
        registrations=(registration("web", port, check=check),),
    )


class Started:
    """`App.run` going on beside the test, and its registry."""

    def __init__(self, app: App, registrar: WatchfulRegistrar, task: "asyncio.Task[None]") -> None:
        self.app = app
        self.registrar = registrar
        self.task = task


@pytest_asyncio.fixture
async def started(service: int, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Started]:
    """One that has announced its service."""
    registrar = WatchfulRegistrar(ETCD)
    registrar.listening = []

    announce_in(registrar, monkeypatch)
    app = registrar.app = App(settings(service))
    task = asyncio.get_running_loop().create_task(app.run())
    await until(lambda: registrar.known or task.done())
    await until(lambda: app.ready or task.done())
    await asyncio.sleep(0)
    yield Started(app, registrar, task)
    if not task.done():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    await task
    assert registrar.closed


async def test_it_is_announced_once_it_listens_and_withdrawn_while_it_does(started: Started) -> None:
    signal.raise_signal(signal.SIGTERM)
    await started.task
    assert started.registrar.listening == [("announce", True), ("withdraw", True)]
    assert started.registrar.known == {}
    assert not await accepts(started.app)


@pytest.mark.parametrize("signals", [[signal.SIGINT], [signal.SIGTERM, signal.SIGTERM]])
async def test_no_listener_closes_before_the_withdrawal_is_done(
    started: Started, signals: list[signal.Signals]
) -> None:
    started.registrar.answers.clear()
    started.registrar.asked.clear()
    for number in signals:
        signal.raise_signal(number)
    async with asyncio.timeout(10.0):
        await started.registrar.asked.wait()
    assert started.app._stage == 2
    assert await accepts(started.app)
    started.registrar.answers.set()
    await started.task
    assert not await accepts(started.app)


async def test_the_first_stage_is_not_over_before_the_withdrawal_is_done(started: Started) -> None:
    """However quiet it is."""
    started.registrar.answers.clear()
    started.registrar.asked.clear()
    signal.raise_signal(signal.SIGTERM)
    async with asyncio.timeout(10.0):
        await started.registrar.asked.wait()
    await asyncio.sleep(5 * sidecar.ending.DRAIN_QUIET)  # nothing is to happen in that time
    assert await accepts(started.app)
    started.registrar.answers.set()
    await started.task


async def test_a_registry_that_is_silent_holds_up_the_end_for_a_bounded_time(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration_module, "GRACE", 0.05)
    started.registrar.answers.clear()
    signal.raise_signal(signal.SIGTERM)
    async with asyncio.timeout(10.0):
        await started.task
    assert started.registrar.cancelled == 1


async def test_a_third_signal_waits_for_no_withdrawal(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration_module, "GRACE", 1000.0)
    started.registrar.answers.clear()
    started.registrar.asked.clear()
    signal.raise_signal(signal.SIGINT)
    async with asyncio.timeout(10.0):
        await started.registrar.asked.wait()
        signal.raise_signal(signal.SIGINT)
        await started.task
    assert started.registrar.cancelled == 1


async def test_closing_without_a_signal_withdraws_too(started: Started) -> None:
    await started.app.close()
    assert started.registrar.listening == [("announce", True), ("withdraw", True)]
    await started.app.close()


async def test_it_is_shown(started: Started) -> None:
    (shown,) = json.loads(json.dumps(started.app.view()))["registrations"]
    assert (shown["name"], shown["registry"], shown["state"]) == ("web", "etcd", "announced")
    assert started.app.metrics_address is not None
    host, _, port = started.app.metrics_address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(GET)
    said = await reader.read()
    writer.close()
    assert b'sidecar_registered{registry="etcd",service="web"} 1.0' in said
    assert b'sidecar_registrations_total{registry="etcd",result="announced"} 1.0' in said


async def test_nothing_is_made_where_nothing_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(assembly, "announcer")
    without = settings(1)
    app = App(
        Settings(
            **{
                **{name: getattr(without, name) for name in Settings.__slots__},
                "registrations": (),
            }
        )
    )
    await app.start()
    assert "registrations" not in app.view()
    await app.close()
