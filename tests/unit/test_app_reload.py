"""An App that goes by another configuration: what stays, what comes, and what is told."""

import asyncio
import errno
import gc
import logging
import resource
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from support.ports import free_port
from support.sources import registry
from unit.test_app import Endpoint, ask, path, settings, until, upstream

from sidecar.app import App
from sidecar.config.settings import (
    Address,
    EndpointSettings,
    HealthSettings,
    LimitSettings,
    PolicySettings,
    Settings,
    SourceSettings,
)
from sidecar.errors import StartError
from sidecar.model import Endpoint as ModelEndpoint
from sidecar.proxy import Listener
from sidecar.registry import assembly
from sidecar.registry.last_good import Kept, LastGood, Saved
from sidecar.reload import NotNowError

Start = Callable[..., Any]
Connect = Callable[[App], Any]


@pytest.fixture(autouse=True)
def process_wide() -> Iterator[None]:
    """What a sidecar does to its process is undone."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    level = logging.getLogger().level
    yield
    logging.getLogger().setLevel(level)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    gc.unfreeze()


@pytest_asyncio.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    made = Endpoint()
    await made.start()
    yield made
    await made.stop()


@pytest_asyncio.fixture
async def connect() -> AsyncIterator[Connect]:
    """Connects clients that leave at the end."""
    clients: list[Client] = []

    async def connect(app: App) -> Client:
        clients.append(await Client().open(address_of(app)))
        return clients[-1]

    yield connect
    for client in clients:
        client.writer.transport.abort()
    for client in clients:
        with suppress(ConnectionError):
            await client.writer.wait_closed()


@pytest_asyncio.fixture
async def start() -> AsyncIterator[Start]:
    """Starts Apps that are closed at the end."""
    apps: list[App] = []

    async def start(wanted: Settings, **options: Any) -> App:
        app = App(wanted, **options)
        apps.append(app)
        await app.start()
        return app

    yield start
    for app in apps:
        await app.close()


def address_of(app: App, name: str = "api") -> str:
    return dict(app.listening)[name]


def sidecar(wanted: Settings, **fields: Any) -> Settings:
    return replace(wanted, sidecar=replace(wanted.sidecar, **fields))


class Client:
    """A connection to the application's side that is kept."""

    async def open(self, address: str) -> "Client":
        host, _, port = address.rpartition(":")
        self.reader, self.writer = await asyncio.open_connection(host, int(port))
        return self

    async def get(self) -> bytes:
        self.writer.write(path("/"))
        head = await self.reader.readuntil(b"\r\n\r\n")
        return head + await self.reader.readexactly(2)


async def test_what_is_in_both_keeps_everything(start: Start, connect: Connect, endpoint: Endpoint) -> None:
    wanted = settings(upstream("api", endpoint.port), upstream("web", endpoint.port))
    app = await start(wanted)
    client = await connect(app)
    await client.get()
    api, web = app.clusters.values()
    listening = list(app.listening)
    pool = api.endpoints["127.0.0.1", endpoint.port].pool
    changed = replace(wanted.upstreams[1], policy=PolicySettings(timeout=3.0))
    assert await app.reload(replace(wanted, upstreams=(wanted.upstreams[0], changed))) == ["web: timeout"]
    assert list(app.clusters.values()) == [api, web]
    assert web.policy.timeout == 3.0
    assert app.listening == listening
    assert len(pool.idle) == 1
    await client.get()
    assert api.stats.connects[0] == 1
    assert app.settings.upstreams[1] is changed


async def test_the_same_is_nothing_to_do(start: Start, endpoint: Endpoint) -> None:
    wanted = settings(upstream("api", endpoint.port))
    app = await start(wanted)
    assert await app.reload(replace(wanted, origin="another file")) == []


async def test_endpoints_come_and_go(start: Start, endpoint: Endpoint) -> None:
    wanted = settings(upstream("api", endpoint.port))
    app = await start(wanted)
    assert (await ask(address_of(app))).endswith(b"ok")
    other = EndpointSettings("127.0.0.1", 9, 3, "a")
    api = replace(wanted.upstreams[0], endpoints=(other,))
    assert await app.reload(replace(wanted, upstreams=(api,))) == ["api: endpoints"]
    (state,) = app.clusters["api"].endpoints.values()
    assert (state.endpoint.address, state.endpoint.weight, state.endpoint.zone) == ("127.0.0.1:9", 3, "a")
    assert (await ask(address_of(app))).startswith(b"HTTP/1.1 50")


async def test_endpoints_of_a_registry_are_not_the_files(start: Start) -> None:
    wanted = settings(upstream("api", 9))
    app = await start(wanted)
    before = app.clusters["api"].endpoints
    source = SourceSettings(use=("consul",))
    elsewhere = replace(wanted.upstreams[0], endpoints=(), source=source)
    assert await app.reload(replace(wanted, upstreams=(elsewhere,))) == ["api: endpoints, source.use"]
    assert app.clusters["api"].endpoints is before, "until the registry says who they are"
    assert app._is_ready(), "what it has not heard yet it serves without"
    assert await app.reload(wanted)
    assert list(app.clusters["api"].endpoints) == [("127.0.0.1", 9)]


async def test_upstreams_come_and_go_in_the_order_of_the_file(start: Start, endpoint: Endpoint) -> None:
    one, two = upstream("one", endpoint.port), upstream("two", endpoint.port)
    three = upstream("three", endpoint.port)
    app = await start(settings(one, two))
    gone = address_of(app, "one")
    clusters = app.clusters
    assert await app.reload(settings(three, two)) == ["one: removed", "three: added"]
    assert app.clusters is clusters
    assert list(clusters) == ["three", "two", "one"], "that leaves is last, as long as it is there"
    await until(lambda: list(clusters) == ["three", "two"])
    assert [name for name, _ in app.listening] == ["three", "two"]
    assert (await ask(address_of(app, "three"))).endswith(b"ok")
    with pytest.raises(ConnectionRefusedError):
        await ask(gone)


async def test_one_that_comes_back_while_it_leaves_is_a_new_one(
    start: Start, connect: Connect, endpoint: Endpoint
) -> None:
    api, web = upstream("api", endpoint.port), upstream("web", endpoint.port)
    app = await start(settings(api, web))
    client = await connect(app)
    endpoint.may_answer.clear()
    answer = asyncio.create_task(client.get())
    before = app.clusters["api"]
    await until(lambda: before.stats.in_flight)
    await app.reload(settings(web))
    assert before.leaving
    await app.reload(settings(api, web))
    assert app.clusters["api"] is not before
    assert app._in_flight() == 1, "the end of the process waits for it"
    endpoint.may_answer.set()
    assert b"\r\nConnection: close\r\n" in await answer
    assert await client.reader.read() == b""
    await until(lambda: list(app._leaving or ()) == [])
    assert app.clusters["api"] is not before
    assert (await ask(address_of(app))).endswith(b"ok")


async def test_hedge_timers_go_with_their_upstream(start: Start, endpoint: Endpoint) -> None:
    api = replace(upstream("api", endpoint.port), policy=PolicySettings(hedge_after=5.0))
    web = upstream("web", endpoint.port)
    app = await start(settings(api, web))
    await ask(address_of(app))
    assert app._context is not None
    assert set(app._context.hedge_timers) == {"api"}
    await app.reload(settings(web))
    await until(lambda: "api" not in app.clusters)
    assert app._context.hedge_timers == {}


async def test_another_scheme_is_another_cluster_on_the_same_socket(
    start: Start, connect: Connect, endpoint: Endpoint
) -> None:
    wanted = settings(upstream("api", endpoint.port))
    app = await start(wanted)
    before, address = app.clusters["api"], address_of(app)
    client = await connect(app)
    await client.get()
    tcp = replace(wanted.upstreams[0], scheme="tcp")
    assert await app.reload(replace(wanted, upstreams=(tcp,))) == ["api: scheme"]
    assert app.clusters["api"] is not before
    assert address_of(app) == address
    assert (await (await connect(app)).get()).endswith(b"ok")
    assert app.clusters["api"].stats.sessions_active == 1
    assert b"Connection: close" in await client.get(), "who is connected is served to an end"


async def test_a_port_that_cannot_be_had_changes_nothing(start: Start, endpoint: Endpoint) -> None:
    api = upstream("api", endpoint.port)
    app = await start(settings(api))
    cluster, listening = app.clusters["api"], list(app.listening)
    free = free_port()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        bad = settings(
            replace(api, policy=PolicySettings(timeout=1.0)),
            replace(upstream("new", 9), listen_port=free),
            replace(upstream("bad", 9), listen_port=port),
        )
        with pytest.raises(StartError, match=f"cannot listen on 127.0.0.1:{port} for bad"):
            await app.reload(bad)
    assert app.clusters == {"api": cluster}
    assert cluster.policy.timeout == 30.0
    assert app.listening == listening
    socket.create_server(("127.0.0.1", free)).close()
    assert (await ask(address_of(app))).endswith(b"ok")


async def test_no_descriptor_for_a_listener_changes_nothing(
    start: Start, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = upstream("api", endpoint.port)
    app = await start(settings(api))
    real = socket.socket.dup
    made: list[socket.socket] = []

    def dup(self: socket.socket) -> socket.socket:
        if made:
            raise OSError(errno.EMFILE, "Too many open files")
        made.append(real(self))
        return made[-1]

    monkeypatch.setattr(socket.socket, "dup", dup)
    with pytest.raises(StartError, match="too many open files"):
        await app.reload(settings(api, upstream("new", 9), upstream("web", 9)))
    assert [one.fileno() for one in made] == [-1]
    assert list(app.clusters) == ["api"]
    assert (await ask(address_of(app))).endswith(b"ok")


async def test_the_process_follows_as_far_as_it_can(
    start: Start, endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = settings(upstream("api", endpoint.port))
    app = await start(wanted)
    other = sidecar(
        replace(wanted, log_level="ERROR", notes=("a note",)),
        head_timeout=1.0,
        idle_timeout=2.0,
        drain_timeout=3.0,
        min_body_rate=4,
        max_clients=5,
        zone="b",
        workers=6,
        admin=Address("127.0.0.1", 7),
    )
    caplog.set_level(logging.INFO, "sidecar")
    assert await app.reload(other) == [
        "sidecar.drain_timeout",
        "sidecar.head_timeout",
        "sidecar.idle_timeout",
        "sidecar.max_clients",
        "sidecar.min_body_rate",
        "sidecar.zone",
        "log_level",
    ]
    context = app._context
    assert context is not None
    assert (context.head_timeout, context.idle_timeout, context.min_body_rate) == (1.0, 2.0, 4)
    assert context.max_clients == 5
    assert app.settings.sidecar.drain_timeout == 3.0
    assert app.clusters["api"].policy.zone == "b"
    assert logging.getLogger().level == logging.ERROR
    assert "sidecar.workers stays 1; 6 needs a restart" in caplog.messages
    assert any(message.startswith("sidecar.admin stays 127.0.0.1:") for message in caplog.messages)
    assert "a note" in caplog.messages


async def test_other_addresses_are_listened_on(start: Start, connect: Connect, endpoint: Endpoint) -> None:
    wanted = settings(upstream("api", endpoint.port))
    app = await start(wanted)
    client = await connect(app)
    assert await app.reload(sidecar(wanted, bind=("127.0.0.2",))) == ["sidecar.bind"]
    assert address_of(app).startswith("127.0.0.2:")
    assert (await ask(address_of(app))).endswith(b"ok")
    assert (await client.get()).endswith(b"ok")
    assert app._context is not None
    assert {host for host, _ in app._context.listening} == {"127.0.0.2"}


async def test_more_connections_need_more_descriptors(start: Start) -> None:
    wanted = settings(upstream("api", 9))
    app = await start(wanted)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = app._descriptors_wanted()
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(before, hard), hard))
    more = replace(wanted.upstreams[0], policy=PolicySettings(limits=LimitSettings(connections=1024 + 100)))
    await app.reload(replace(wanted, upstreams=(more,)))
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(before + 100, hard)


async def test_health_checks_follow(start: Start, endpoint: Endpoint) -> None:
    plain = settings(upstream("api", endpoint.port))
    checked = settings(
        replace(plain.upstreams[0], health=HealthSettings(kind="tcp", active=True, interval=0.05))
    )
    app = await start(plain)
    assert app._checker is None
    assert "health.active" in (await app.reload(checked))[0]
    state = app.clusters["api"].endpoints["127.0.0.1", endpoint.port]
    await until(lambda: state.last_check is not None and state.last_check.ok)
    assert app.clusters["api"].policy.checked
    await app.reload(plain)
    assert state.last_check is None
    assert not app.clusters["api"].policy.checked


async def test_what_takes_its_time_is_loaded_aside(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ten thousand endpoints of the last good file do, and modules: requests are served meanwhile."""
    loaded: list[str] = []

    def load(self: LastGood) -> Kept:
        loaded.append(threading.current_thread().name)
        return {("consul", "api"): Saved((ModelEndpoint("10.0.0.1", 80),), 1.0)}

    monkeypatch.setattr(LastGood, "load", load)
    kinds: list[tuple[str, str]] = []
    monkeypatch.setattr(
        assembly, "load_source", lambda kind: kinds.append((kind, threading.current_thread().name))
    )
    wanted = settings(upstream("api", 9))
    app = await start(wanted)
    elsewhere = replace(wanted.upstreams[0], endpoints=(), source=SourceSettings(use=("consul",)))
    asked = replace(
        wanted, upstreams=(elsewhere,), registries=(registry("consul", hosts=(Address("127.0.0.1", 9),)),)
    )
    await app.reload(asked)
    assert loaded == ["loading of registries"]
    assert list(app.clusters["api"].endpoints) == [("10.0.0.1", 80)]
    await app.reload(replace(asked, registries=(*asked.registries, registry("dns", "dns"))))
    assert loaded == ["loading of registries"]
    assert kinds == [(kind, "loading of registries") for kind in ("consul", "consul", "dns")]


async def test_not_before_it_serves_and_not_when_it_ends(start: Start) -> None:
    wanted = settings(upstream("api", 9))
    with pytest.raises(NotNowError, match="the sidecar is starting"):
        await App(wanted).reload(wanted)
    app = await start(wanted)
    app._hurry(1)
    with pytest.raises(NotNowError, match="the sidecar is ending"):
        await app.reload(wanted)


async def test_a_file_that_changes_is_read_again_unless_that_is_off(start: Start) -> None:
    changed: asyncio.Queue[int] = asyncio.Queue()
    watching = 0

    async def changes() -> AsyncIterator[object]:
        nonlocal watching
        watching += 1
        try:
            while True:
                yield await changed.get()
        finally:
            watching -= 1

    wanted = settings(upstream("api", 9))
    loaded = [wanted]
    app = await start(wanted, load=lambda: loaded[0], changes=changes)
    loaded[0] = settings(replace(wanted.upstreams[0], strategy="random"))
    changed.put_nowait(1)
    await until(lambda: app.reloads.counts.success == 1)
    assert app.clusters["api"].policy.strategy == "random"
    loaded[0] = sidecar(loaded[0], watch=False)
    changed.put_nowait(1)
    await until(lambda: app.reloads.counts.success == 2 and not watching)
    changed.put_nowait(1)
    assert (await app.reloads.result()).result == "unchanged"
    loaded[0] = sidecar(loaded[0], watch=True)
    assert (await app.reloads.result()).changes == ("sidecar.watch",)
    await until(lambda: app.reloads.counts.unchanged == 2)


async def test_a_reload_that_is_given_up_in_the_middle_leaves_nothing_open(
    start: Start, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the process ends just then; the check for descriptors is the test's."""
    wanted = settings(upstream("api", endpoint.port))
    app = await start(wanted)
    listening = asyncio.Event()

    async def adopt(self: Listener, host: str, bound: socket.socket, **options: bool) -> None:
        bound.close()
        listening.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(Listener, "adopt", adopt)
    more = settings(*wanted.upstreams, upstream("one", 9), upstream("two", 9))
    going_on = asyncio.create_task(app.reload(more))
    await listening.wait()
    going_on.cancel()
    with pytest.raises(asyncio.CancelledError):
        await going_on


async def test_told_to_end_while_it_listens_anew_it_listens_no_more(
    start: Start, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = settings(upstream("api", endpoint.port))
    app = await start(wanted)
    real = Listener.adopt

    async def adopt(self: Listener, host: str, bound: socket.socket, **options: bool) -> None:
        await real(self, host, bound, **options)
        app._hurry(2)

    monkeypatch.setattr(Listener, "adopt", adopt)
    await app.reload(settings(*wanted.upstreams, upstream("web", endpoint.port)))
    for _, address in app.listening:
        with pytest.raises(ConnectionRefusedError):
            await ask(address)
