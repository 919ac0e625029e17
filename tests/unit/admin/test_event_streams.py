"""Server-sent events over loopback, to a client of aiohttp: what it is told, when, and when it is told no more."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web
from support.clock import FakeClock
from support.counting import answer, upstream
from support.streams import Event, EventStream

from sidecar.admin import events as events_module
from sidecar.admin.access import Access
from sidecar.admin.api import admin_app
from sidecar.admin.bind import bind
from sidecar.admin.events import MOST_CLIENTS, Events
from sidecar.admin.live import LiveView
from sidecar.admin.server import AdminServer
from sidecar.config.settings import SidecarSettings
from sidecar.observe.history import LENGTH, Sampler

if TYPE_CHECKING:
    from sidecar.cluster import Cluster

LARGE = 40  # upstreams of as many endpoints: a state of 1 MB


class Stage:
    """The admin server over upstreams that a test counts for, whose seconds pass when the test says so."""

    def __init__(self, names: int = 2, endpoints: int = 2) -> None:
        self.clock: Any = FakeClock()
        self.clusters: dict[str, Cluster] = {
            f"a{number}": upstream(self.clock, f"a{number}", endpoints) for number in range(names)
        }
        self.sampler = Sampler(self.clusters, self.clock)
        self.view = LiveView(
            self.clusters,
            self.clock,
            draining=lambda: False,
            recent=self.sampler.recent,
            feeds=lambda _name: [],
            registered=lambda: None,
        )
        self.hello: dict[str, Any] = {"version": "1"}
        self.settings = SidecarSettings()
        self.environ: dict[str, str] = {}
        self.events = Events(self.sampler, self.view, lambda: dict(self.hello))
        access = Access(lambda: self.settings, self.clock, environ=self.environ)
        app = admin_app(dict, lambda *_: [], lambda _: {}, events=self.events, access=access)
        app.on_response_prepare.append(self.note)
        self.connections: set[Any] = set()
        self.server = AdminServer(app)
        self.session = aiohttp.ClientSession()
        self.streams: list[EventStream] = []
        self.port = 0

    async def start(self) -> None:
        sockets = await bind("127.0.0.1", 0, "admin")
        for one in sockets:  # what a client leaves unread is to be noticed soon
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.port = sockets[0].getsockname()[1]
        await self.server.start(sockets)
        await self.sampler.sample()

    async def stop(self) -> None:
        for stream in self.streams:
            stream.response.close()
        await self.session.close()
        await self.events.close()
        await self.server.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def connect(self, **fields: str) -> EventStream:
        """A client of the events."""
        stream = EventStream(await self.session.get(f"{self.url}/v1/events", headers=fields))
        self.streams.append(stream)
        return stream

    async def watch(self) -> EventStream:
        """A client that has been told hello and history, and waits for a state."""
        stream = await self.connect()
        assert [(await stream.next()).name for _ in range(2)] == ["hello", "history"]
        return stream

    async def note(self, request: web.Request, _response: web.StreamResponse) -> None:
        self.connections.add(request.protocol)

    async def pass_second(self) -> None:
        self.clock.advance(1.0)
        await self.sampler.sample()
        await asyncio.sleep(0)  # for those who watch

    async def connect_slowly(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A client that reads when the test does."""
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.setblocking(False)
        await asyncio.get_running_loop().sock_connect(one, ("127.0.0.1", self.port))
        reader, writer = await asyncio.open_connection(sock=one, limit=4096)
        writer.write(b"GET /v1/events HTTP/1.0\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        return reader, writer


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage()
    await stage.start()
    yield stage
    await stage.stop()


@pytest.fixture
async def large() -> AsyncIterator[Stage]:
    stage = Stage(LARGE, LARGE)
    await stage.start()
    yield stage
    await stage.stop()


async def until(true: Any) -> None:
    """Let the loop turn until it is so."""
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - nothing of the server's tells
            await asyncio.sleep(0.001)


def names(event: Event) -> list[str]:
    return [one["name"] for one in event.data["upstreams"]]


async def test_a_stream_begins_with_who_speaks_and_what_has_been(stage: Stage) -> None:
    stream = await stage.connect()
    assert stream.response.headers["Content-Type"] == "text/event-stream"
    assert stream.response.headers["Cache-Control"] == "no-store"
    hello = await stream.next()
    assert (hello.name, hello.data) == ("hello", {"version": "1"})
    history = await stream.next()
    assert history.name == "history"
    assert list(history.data["upstreams"]) == ["a0", "a1"]
    async with stage.session.get(f"{stage.url}/v1/history") as response:
        assert await response.json() == history.data


async def test_history_says_what_its_points_are(stage: Stage) -> None:
    answer(stage.clusters["a0"], 10)
    stage.clock.advance(5.0)
    await stage.sampler.sample()
    async with stage.session.get(f"{stage.url}/v1/history") as response:
        assert response.headers["Cache-Control"] == "no-store"
        found = await response.json()
    assert (found["at"], found["interval"], found["length"]) == ("2023-11-14T22:30:05.000Z", 5, LENGTH)
    assert found["points"] == 1
    points = found["upstreams"]["a0"]
    assert {name: len(series) for name, series in points.items()} == dict.fromkeys(
        ("requests", "errors", "p50", "p99"), LENGTH
    )
    assert points["requests"][-2:] == [None, 2.0]


async def test_each_second_it_is_told_what_has_changed(stage: Stage) -> None:
    stream = await stage.watch()
    await stage.pass_second()
    first = await stream.next()
    assert (first.name, names(first)) == ("state", ["a0", "a1"])
    assert first.data["at"] == "2023-11-14T22:30:01.000Z"
    answer(stage.clusters["a1"], 5)
    stage.clusters["a1"].stats.in_flight = 3
    await stage.pass_second()
    second = await stream.next()
    assert names(second) == ["a1"]
    assert int(second.id) == int(first.id) + 1
    found = next(one for one in second.data["upstreams"] if one["name"] == "a1")
    assert (found["in_flight"], found["recent"]["requests"]) == (3, 2.5)
    assert second.data["order"] == ["a0", "a1"]


async def test_who_comes_later_is_told_everything(stage: Stage) -> None:
    stream = await stage.watch()
    await stage.pass_second()
    await stream.next()
    later = await stage.watch()
    assert names(await later.next()) == ["a0", "a1"]


async def test_while_there_is_nothing_to_say_a_comment_shows_that_it_lives(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_module, "QUIET", 0.01)
    stream = await stage.connect()
    async with asyncio.timeout(10):
        while (line := await stream.response.content.readline()) != b": keep-alive\n":
            assert line


async def test_nobody_looks_while_nobody_watches(stage: Stage) -> None:
    before = asyncio.all_tasks()
    stream = await stage.watch()
    await stage.pass_second()
    await stream.next()
    stream.response.close()
    async with asyncio.timeout(10):
        while stage.events.clients:
            await stage.pass_second()  # that it has gone is seen when it is told something
    await until(lambda: asyncio.all_tasks() <= before)


async def test_who_comes_back_is_not_told_what_was_before(stage: Stage) -> None:
    (await stage.watch()).response.close()
    async with asyncio.timeout(10):
        while stage.events.clients:
            await stage.pass_second()
    stream = await stage.watch()
    del stage.clusters["a0"]
    await stage.pass_second()
    assert names(await stream.next()) == ["a1"]


async def test_the_seventeenth_client_is_told_why_it_has_to_wait(stage: Stage) -> None:
    streams = [await stage.watch() for _ in range(MOST_CLIENTS)]
    async with stage.session.get(f"{stage.url}/v1/events") as response:
        assert response.status == 503
        assert await response.json() == {
            "error": "16 clients read /v1/events already; close a page that nobody looks at",
            "status": 503,
        }
    streams[0].response.close()
    async with asyncio.timeout(10):
        while stage.events.clients == MOST_CLIENTS:
            await stage.pass_second()
    await stage.watch()


async def test_a_slow_client_gets_the_newest_state_and_no_queue(large: Stage) -> None:
    reader, writer = await large.connect_slowly()
    await until(lambda: large.events.clients)
    for count in range(1, 21):
        for cluster in large.clusters.values():
            cluster.stats.in_flight = count
        await large.pass_second()
        await until(lambda count=count: large.view.number == count)
    stream = EventStream(reader)
    states: list[Event] = []
    async with asyncio.timeout(10):
        while not states or states[-1].data["upstreams"][-1]["in_flight"] < 20:
            event = await stream.next()
            if event.name == "state":
                states.append(event)
    assert len(states) < 5
    assert names(states[-1]) == list(large.clusters)
    writer.close()
    await writer.wait_closed()


async def test_a_client_that_takes_nothing_is_dropped(
    large: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(events_module, "PATIENCE", 0.05)
    reader, writer = await large.connect_slowly()
    await until(lambda: large.events.clients == 1)
    await large.pass_second()
    await until(lambda: large.events.clients == 0)
    async with asyncio.timeout(10):
        assert not (await reader.read()).endswith(b"\n\n")  # in the middle of a state
    writer.close()
    await writer.wait_closed()
    assert not caplog.records


async def test_a_client_that_breaks_off_in_the_middle_is_no_error(
    large: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    _, writer = await large.connect_slowly()
    await until(lambda: large.events.clients == 1)
    await large.pass_second()
    (connection,) = large.connections
    looks: list[bool] = []

    def full() -> bool:
        looks.append(connection.writing_paused)
        return len(looks) > 20 and all(looks[-20:])  # and not while the kernel still takes some

    await until(full)
    # So that closing it is a reset (socket(7), SO_LINGER).
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    await until(lambda: large.events.clients == 0)
    assert not caplog.records


@pytest.mark.parametrize("change", ["another", "gone", "new"])
async def test_a_stream_ends_when_its_token_is_none_any_more(
    stage: Stage, caplog: pytest.LogCaptureFixture, change: str
) -> None:
    if change != "new":
        stage.settings = SidecarSettings(admin_token_env="TOKEN")
        stage.environ["TOKEN"] = "first"
    stream = await stage.connect(Authorization="Bearer first")
    await stage.pass_second()
    for name in ("hello", "history", "state"):
        assert (await stream.next()).name == name
    if change == "another":
        stage.environ["TOKEN"] = "second"
    elif change == "gone":
        del stage.environ["TOKEN"]
    else:
        stage.settings = SidecarSettings(admin_token_env="TOKEN")
    for _ in range(2):  # the first may have been looked at before
        await stage.pass_second()
    async with asyncio.timeout(5):
        await stream.response.content.read()
    assert stream.response.content.at_eof()
    assert stage.events.clients == 0
    (line,) = caplog.messages
    assert line.endswith(": GET /v1/events: what it was let in by holds no longer")


async def test_a_stream_goes_on_when_a_token_is_wanted_no_more(stage: Stage) -> None:
    stage.settings = SidecarSettings(admin_token_env="TOKEN")
    stage.environ["TOKEN"] = "first"
    stream = await stage.connect(Authorization="Bearer first")
    stage.settings = SidecarSettings()
    for name in ("hello", "history", "state", "state"):
        await stage.pass_second()
        assert (await stream.next()).name == name


async def test_that_actions_are_not_allowed_any_more_is_told_at_once(stage: Stage) -> None:
    stream = await stage.watch()
    await stage.pass_second()
    assert (await stream.next()).name == "state"
    stage.hello["control"] = False
    await stage.pass_second()
    found = {(event := await stream.next()).name: event.data for _ in range(2)}
    assert found.keys() == {"hello", "state"}
    assert found["hello"] == {"version": "1", "control": False}


async def test_all_streams_end_with_the_process(large: Stage) -> None:
    stream = await large.watch()
    _, stuck = await large.connect_slowly()
    await until(lambda: large.events.clients == 2)
    await large.pass_second()
    await stream.next()
    async with asyncio.timeout(0.5):
        await large.events.close()
        await large.server.stop()
    assert large.events.clients == 0
    assert await stream.response.content.read() == b""
    stuck.close()


async def test_no_stream_begins_when_the_process_ends(stage: Stage) -> None:
    await stage.events.close()
    async with stage.session.get(f"{stage.url}/v1/events") as response:
        assert response.status == 503
        assert (await response.json())["error"] == "the sidecar is ending"


async def test_asking_only_for_the_head_is_not_possible(stage: Stage) -> None:
    async with stage.session.head(f"{stage.url}/v1/events") as response:
        assert response.status == 405
