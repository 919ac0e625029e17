"""The Kubernetes source against an API server: lists, watches, and everything that may go wrong in either."""

import asyncio
import json
import logging
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import aiohttp
import pytest
from support.authority import Authority
from support.clock import FakeClock
from support.kubernetes import (
    WAIT,
    FakeKubernetes,
    answer,
    drop,
    gone,
    hang,
    refuse,
    silent,
    slice_object,
    stream,
)
from support.ports import free_port

from sidecar.config.settings import Address, RegistrySettings, TlsSettings
from sidecar.errors import SourceError
from sidecar.model import Endpoint, Snapshot
from sidecar.registry.look_ups import LookUps
from sidecar.registry.sources import kubeconfig, kubernetes, kubernetes_api, slice_objects
from sidecar.registry.sources.kubernetes import KubernetesSource
from sidecar.registry.sources.source import Surroundings, Wanted
from sidecar.registry.telling import words

if TYPE_CHECKING:
    from sidecar.clock import Clock

API = Wanted("api", "api")


@pytest.fixture
async def server() -> AsyncIterator[FakeKubernetes]:
    async with FakeKubernetes() as made:
        yield made


def settings_of(*servers: FakeKubernetes | int, **more: Any) -> RegistrySettings:
    hosts = tuple(Address("127.0.0.1", one if isinstance(one, int) else one.port) for one in servers)
    return RegistrySettings("kubernetes", "kubernetes", hosts, **more)


def source_of(
    *servers: FakeKubernetes | int,
    clock: FakeClock | None = None,
    environ: dict[str, str] | None = None,
    account: Path | None = None,
    **more: Any,
) -> KubernetesSource:
    """clock: by default one whose every watch has lasted long enough."""
    surroundings = Surroundings(cast("Clock", clock or PassingClock()), environ or {}, LookUps().resolve)
    made = settings_of(*servers, **more)
    return KubernetesSource(made, surroundings, account) if account else KubernetesSource(made, surroundings)


class PassingClock(FakeClock):
    """Two seconds go by between any two looks."""

    def monotonic(self) -> float:
        return self.advance(2.0)


class Stream:
    """One `watch`, and what it gives."""

    def __init__(self, snapshots: AsyncGenerator[Snapshot | None, None]) -> None:
        self._snapshots = snapshots

    async def next(self) -> Snapshot | None:
        async with asyncio.timeout(WAIT):
            return await anext(self._snapshots)

    async def addresses(self) -> list[str]:
        """Of the next snapshot; signs of life before it are passed over."""
        while (snapshot := await self.next()) is None:
            pass
        return [one.address for one in snapshot.endpoints]

    async def sign(self) -> None:
        """Nothing but a sign of life."""
        assert await self.next() is None

    async def failure(self, kind: type[Exception] | tuple[type[Exception], ...] = SourceError) -> str:
        """What it ends with; signs of life before it are passed over."""
        with pytest.raises(kind) as raised:  # noqa: PT012 - how many signs there are is up to the server
            while await self.next() is None:
                pass
        said = str(raised.value)
        assert said
        assert "\n" not in said
        return said


@asynccontextmanager
async def watching(source: KubernetesSource, *wanted: Wanted) -> AsyncIterator[Stream]:
    snapshots = cast("AsyncGenerator[Snapshot | None, None]", source.watch(wanted or (API,)))
    async with aclosing(snapshots):
        yield Stream(snapshots)


async def _until(seen: Stream, server: FakeKubernetes, verb: str, count: int) -> None:
    """Let the stream go on until it has asked for so many of a kind; that is its end."""
    task = asyncio.ensure_future(seen.next())
    await server.until_asked(verb, count)
    task.cancel()
    await asyncio.wait([task])


# List and watch


@pytest.mark.every_loop
async def test_what_is_listed_comes_first_and_then_what_changes(server: FakeKubernetes) -> None:
    server.put(slice_object("api", "10.0.0.1"))
    server.put(slice_object("other", "10.9.9.9"))
    async with watching(source_of(server)) as seen:
        assert await seen.next() == Snapshot("api", (Endpoint("10.0.0.1", 8080),), "kubernetes")
        listed = server.version
        server.put(slice_object("api", "10.0.0.1", "10.0.0.2"))
        assert await seen.addresses() == ["10.0.0.1:8080", "10.0.0.2:8080"]
        server.put(slice_object("api", "10.0.0.3", name="api-2"))
        assert await seen.addresses() == ["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:8080"]
        server.delete("api-1")
        assert await seen.addresses() == ["10.0.0.3:8080"]
        server.delete("api-2")
        assert await seen.addresses() == []
    lists, watches = server.of("list"), server.of("watch")
    assert [one.query for one in lists] == [
        {"labelSelector": "kubernetes.io/service-name in (api)", "limit": "500"}
    ]
    assert [one.query for one in watches] == [
        {
            "labelSelector": "kubernetes.io/service-name in (api)",
            "watch": "true",
            "resourceVersion": str(listed),
            "allowWatchBookmarks": "true",
            "timeoutSeconds": "43",
        }
    ]
    assert lists[0].namespace == "default"
    assert lists[0].agent.startswith("sidecar/")


async def test_a_service_without_slices_has_an_empty_snapshot(server: FakeKubernetes) -> None:
    async with watching(source_of(server)) as seen:
        assert await seen.next() == Snapshot("api", (), "kubernetes")


async def test_one_snapshot_of_each_upstream_and_then_of_those_that_change(server: FakeKubernetes) -> None:
    server.put(slice_object("api", "10.0.0.1"))
    server.put(slice_object("web", "10.0.0.2"))
    wanted = (API, Wanted("site", "web"), Wanted("other-port", "web", "9090"))
    async with watching(source_of(server), *wanted) as seen:
        first = [await seen.next() for _ in range(3)]
        assert {one.upstream: len(one.endpoints) for one in first if one} == {
            "api": 1,
            "site": 1,
            "other-port": 0,
        }
        server.put(slice_object("web", "10.0.0.3"))
        changed = await seen.next()
        assert changed is not None
        assert changed.upstream == "site"
        server.put(slice_object("web", "10.0.0.3"))
        await seen.sign()
    assert server.of("list")[0].query["labelSelector"] == "kubernetes.io/service-name in (api,web)"


async def test_an_upstream_is_called_as_its_service_unless_said_otherwise(server: FakeKubernetes) -> None:
    server.put(slice_object("api", "10.0.0.1"))
    async with watching(source_of(server), Wanted("api", "")) as seen:
        assert await seen.addresses() == ["10.0.0.1:8080"]


async def test_a_slice_that_changes_its_service_changes_both(server: FakeKubernetes) -> None:
    server.put(slice_object("api", "10.0.0.1", name="x"))
    async with watching(source_of(server), API, Wanted("web", "web")) as seen:
        await seen.next()
        await seen.next()
        server.put(slice_object("web", "10.0.0.1", name="x"))
        changed = [await seen.next(), await seen.next()]
        assert {one.upstream: len(one.endpoints) for one in changed if one} == {"api": 0, "web": 1}
        server.put(slice_object("elsewhere", "10.0.0.1", name="x"))
        assert await seen.addresses() == []


async def test_a_long_list_is_read_page_by_page(server: FakeKubernetes) -> None:
    server.page = 2
    for number in range(5):
        server.put(slice_object("api", f"10.0.0.{number}", name=f"api-{number}"))
    async with watching(source_of(server)) as seen:
        assert len(await seen.addresses()) == 5
    pages = [one.query for one in server.of("list")]
    assert [sorted(page) for page in pages] == [
        ["labelSelector", "limit"],
        *([["continue", "labelSelector", "limit"]] * 2),
    ]


async def test_a_list_that_expires_half_read_is_begun_anew(server: FakeKubernetes) -> None:
    server.page = 1
    for number in range(2):
        server.put(slice_object("api", f"10.0.0.{number}", name=f"api-{number}"))
    first = server.version

    async def expire(server: FakeKubernetes, request: Any) -> Any:
        server.expire_lists()
        server.put(slice_object("api", "10.0.0.9", name="api-9"))
        return await server._answer(request)

    server.faults["list"].extend([lambda *asked: asked[0]._answer(asked[1]), expire])
    async with watching(source_of(server)) as seen:
        assert len(await seen.addresses()) == 3
        await _until(seen, server, "watch", 1)
    assert server.of("watch")[0].query["resourceVersion"] == str(first + 1)


async def test_a_watch_begins_at_the_version_of_the_first_page(server: FakeKubernetes) -> None:
    """Later pages may be of a later version; what has changed meanwhile comes in the watch then."""
    pages = [
        {"metadata": {"resourceVersion": "105", "continue": "x"}, "items": [slice_object("api", "10.0.0.1")]},
        {"metadata": {"resourceVersion": "109"}, "items": [slice_object("api", "10.0.0.2", name="api-2")]},
    ]
    server.faults["list"].extend(answer(json.dumps(page).encode()) for page in pages)
    async with watching(source_of(server)) as seen:
        assert len(await seen.addresses()) == 2
        server.pass_versions(10)
        await _until(seen, server, "watch", 1)
    assert server.of("watch")[0].query["resourceVersion"] == "105"


async def test_a_large_page_is_read_aside(server: FakeKubernetes, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = set()

    def read_slice(item: Any) -> Any:
        threads.add(threading.current_thread())
        return slice_objects.read_slice(item)

    monkeypatch.setattr(kubernetes, "read_slice", read_slice)
    addresses = [f"10.0.{number >> 8}.{number & 255}" for number in range(1500)]
    server.put(slice_object("api", *addresses))
    async with watching(source_of(server)) as seen:
        assert len(await seen.addresses()) == 1500
    assert threads
    assert threading.current_thread() not in threads


async def test_files_are_read_aside(server: FakeKubernetes, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []

    def find_access(*arguments: Any) -> Any:
        threads.append(threading.current_thread())
        return kubeconfig.find_access(*arguments)

    monkeypatch.setattr(kubernetes, "find_access", find_access)
    server.put(slice_object("api", "10.0.0.1"))
    async with watching(source_of(server)) as seen:
        await seen.next()
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()


async def test_a_large_page_that_is_no_json(server: FakeKubernetes) -> None:
    server.faults["list"].append(answer(b"[" * kubernetes.LARGE))
    async with watching(source_of(server)) as seen:
        assert (await seen.failure()).endswith("the answer is no JSON")


async def test_the_loop_has_a_turn_between_two_services_of_a_list(server: FakeKubernetes) -> None:
    turns: list[str] = []
    wanted = [Wanted(name, name) for name in ("a", "b", "c")]
    async with watching(source_of(server), *wanted) as seen:
        for one in wanted:
            await seen.next()
            assert len(turns) == wanted.index(one)
            asyncio.get_running_loop().call_soon(turns.append, one.upstream)


# A watch that ends, and signs of life


async def test_a_watch_that_ends_is_taken_up_where_it_was_without_a_list(server: FakeKubernetes) -> None:
    server.put(slice_object("api", "10.0.0.1"))
    async with watching(source_of(server)) as seen:
        await seen.addresses()
        after = asyncio.ensure_future(seen.next())
        await server.until(lambda it: it.watching)
        version = server.put(slice_object("api", "10.0.0.2"))
        await after
        server.end_watches()
        await seen.sign()
        after = asyncio.ensure_future(seen.addresses())
        await server.until_asked("watch", 2)
        server.put(slice_object("api", "10.0.0.3"))
        assert await after == ["10.0.0.3:8080"]
    assert len(server.of("list")) == 1
    assert server.of("watch")[1].query["resourceVersion"] == str(version)


async def test_a_watch_ends_when_its_time_is_over(
    server: FakeKubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server keeps the time that it was asked to keep."""
    monkeypatch.setattr(kubernetes, "SHORTEST", 1.25)
    async with watching(source_of(server, stale_after=0.1)) as seen:
        assert await seen.addresses() == []
        await seen.sign()
        await _until(seen, server, "watch", 2)
    assert [one.query["timeoutSeconds"] for one in server.of("watch")] == ["1", "1"]


async def test_what_changes_between_two_watches_is_not_missed(server: FakeKubernetes) -> None:
    async with watching(source_of(server)) as seen:
        await seen.addresses()
        sign = asyncio.ensure_future(seen.next())
        await server.until(lambda it: it.watching)
        server.end_watches()
        assert await sign is None
        server.put(slice_object("api", "10.0.0.1"))
        assert await seen.addresses() == ["10.0.0.1:8080"]
    assert len(server.of("list")) == 1


async def test_a_bookmark_is_a_sign_of_life_and_where_the_next_watch_begins(
    server: FakeKubernetes, caplog: pytest.LogCaptureFixture
) -> None:
    async with watching(source_of(server)) as seen:
        await seen.addresses()
        sign = asyncio.ensure_future(seen.next())
        await server.until(lambda it: it.watching)
        version = server.pass_versions(1000)
        server.bookmark()
        assert await sign is None
        server.end_watches()
        await seen.sign()
        server.compact()  # from where the first watch began nothing is kept
        server.put(slice_object("api", "10.0.0.1"))
        assert await seen.addresses() == ["10.0.0.1:8080"]
    assert len(server.of("list")) == 1
    assert server.of("watch")[1].query["resourceVersion"] == str(version)
    assert caplog.records == []


@pytest.mark.parametrize(
    ("stale_after", "chance", "seconds"),
    [
        (60.0, 0.0, 48),
        (60.0, 0.999, 38),
        (600.0, 0.0, 300),
        (600.0, 0.5, 270),
        (600.0, 0.999, 240),
        (5.0, 0.0, 10),
        (5.0, 0.999, 8),
    ],
)
def test_a_watch_ends_within_the_time_after_which_its_registry_is_stale(
    stale_after: float, chance: float, seconds: int
) -> None:
    assert kubernetes._watch_seconds(stale_after, chance) == seconds


async def test_watches_do_not_all_last_equally_long(server: FakeKubernetes) -> None:
    clock = PassingClock(chances=(0.0, 0.5))
    async with watching(source_of(server, clock=clock, stale_after=375.0)) as seen:
        await seen.addresses()
        sign = asyncio.ensure_future(seen.next())
        await server.until(lambda it: it.watching)
        server.end_watches()
        await sign
        await _until(seen, server, "watch", 2)
    assert [one.query["timeoutSeconds"] for one in server.of("watch")] == ["300", "270"]


async def test_a_watch_that_ends_at_once_and_brings_nothing_is_an_error(server: FakeKubernetes) -> None:
    """Else it would be asked for again and again without a pause."""
    server.faults["watch"].append(stream())
    async with watching(source_of(server, clock=FakeClock())) as seen:
        await seen.addresses()
        assert "the watch ended at once, and has brought nothing" in await seen.failure()
    assert len(server.of("watch")) == 1


async def test_a_watch_that_ends_at_once_is_none_if_it_has_brought_something(server: FakeKubernetes) -> None:
    event = {"type": "ADDED", "object": slice_object("api", "10.0.0.1")}
    event["object"]["metadata"]["resourceVersion"] = "101"
    server.faults["watch"].append(stream(event))
    async with watching(source_of(server, clock=FakeClock())) as seen:
        assert await seen.addresses() == []
        assert await seen.addresses() == ["10.0.0.1:8080"]
        await seen.sign()


@pytest.mark.parametrize("begin", [(), (b'{"type":"MODI',)])
async def test_a_watch_of_which_nothing_is_heard_is_given_up(
    server: FakeKubernetes, monkeypatch: pytest.MonkeyPatch, begin: tuple[bytes, ...]
) -> None:
    monkeypatch.setattr(kubernetes, "GRACE", -7.8)
    server.faults["watch"].append(silent(*begin))
    async with watching(source_of(server, clock=PassingClock(chances=(0.99,)), stale_after=1.0)) as seen:
        await seen.addresses()
        assert "a watch of 8 s did not end" in await seen.failure(TimeoutError)


async def test_a_server_that_does_not_answer_is_given_up(
    server: FakeKubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes, "LIST_TIMEOUT", 0.2)
    server.faults["list"].append(hang)
    async with watching(source_of(server)) as seen:
        said = await seen.failure(TimeoutError)
    assert said.startswith(f"GET {server.url}/apis/")
    assert said.endswith(": no answer within 0.2 s")


async def test_a_connection_is_kept_alive_by_tcp(
    server: FakeKubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    options: list[int] = []
    keep_alive = kubernetes_api._keep_alive

    def look(response: aiohttp.ClientResponse) -> None:
        keep_alive(response)
        if response.connection is not None:  # a short list is there whole, its connection free again
            assert response.connection.transport is not None
            sock = response.connection.transport.get_extra_info("socket")
            options.append(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    monkeypatch.setattr(kubernetes_api, "_keep_alive", look)
    async with watching(source_of(server)) as seen:
        await seen.addresses()
        sign = asyncio.ensure_future(seen.next())
        await server.until(lambda it: it.watching)
        server.bookmark()
        await sign
    assert options == [1]


# Gone


@pytest.mark.parametrize("by_status", [True, False])
async def test_what_is_gone_is_listed_again_at_once(server: FakeKubernetes, by_status: bool) -> None:
    server.gone_by_status = by_status
    server.put(slice_object("api", "10.0.0.1"))
    async with watching(source_of(server)) as seen:
        await seen.addresses()
        sign = asyncio.ensure_future(seen.next())
        await server.until(lambda it: it.watching)
        server.end_watches()
        await sign
        server.delete("api-1")
        server.put(slice_object("api", "10.0.0.2", name="api-2"))
        server.compact()
        assert await seen.addresses() == ["10.0.0.2:8080"]
        server.put(slice_object("api", "10.0.0.3", name="api-2"))
        assert await seen.addresses() == ["10.0.0.3:8080"]
    assert [one.verb for one in server.asked] == ["list", "watch", "watch", "list", "watch"]


async def test_gone_in_the_middle_of_a_watch_is_listed_again(server: FakeKubernetes) -> None:
    server.put(slice_object("api", "10.0.0.1"))
    async with watching(source_of(server)) as seen:
        await seen.addresses()
        sign = asyncio.ensure_future(seen.next())
        await server.until(lambda it: it.watching)
        server.send(gone())
        assert await sign is None  # nothing has changed
        assert len(server.of("list")) == 2
        server.put(slice_object("api", "10.0.0.2"))
        assert await seen.addresses() == ["10.0.0.2:8080"]


async def test_what_is_gone_again_and_again_is_an_error(server: FakeKubernetes) -> None:
    server.faults["watch"].extend(
        [stream(gone()), refuse(410, "Expired", "too old resource version"), stream(gone())]
    )
    async with watching(source_of(server)) as seen:
        await seen.addresses()
        said = await seen.failure()
    assert "410: too old resource version" in said
    assert said.endswith("; 3 times in a row, although listed anew each time")
    assert [one.verb for one in server.asked] == ["list", "watch"] * 3


async def test_a_list_that_always_expires_is_an_error(server: FakeKubernetes) -> None:
    server.faults["list"].extend([refuse(410)] * 3)
    async with watching(source_of(server)) as seen:
        assert "status 410" in await seen.failure()
    assert len(server.asked) == 3


async def test_what_is_gone_now_and_then_is_none(server: FakeKubernetes) -> None:
    async with watching(source_of(server)) as seen:
        await seen.addresses()
        for _ in range(5):
            sign = asyncio.ensure_future(seen.next())
            await server.until(lambda it: it.watching)
            server.pass_versions(1)
            server.bookmark()
            await sign
            server.send(gone())
            await seen.sign()  # of the list
    assert len(server.of("list")) == 6


# What goes wrong in a watch


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (stream(b'{"type":"ADDED","obj'), "a line of the watch is no JSON"),
        (stream(b'{"type":"ADDED","obj', b"\n"), "a line of the watch is no JSON"),
        (stream(b"\xff\xfe\n"), "a line of the watch is no JSON"),
        (stream(b"[" * 100_000 + b"\n"), "a line of the watch is no JSON"),
        (stream(b"[]\n"), "a line of the watch is no event"),
        (stream({"type": "ADDED", "object": []}), "a line of the watch is no event"),
        (stream({"type": "RENAMED", "object": {}}), "a line of the watch is no event"),
        (
            stream({"type": "ERROR", "object": {"code": 500, "message": "etcd\nis ill"}}),
            "failed with 500: etcd is ill",
        ),
        (
            stream({"type": "ERROR", "object": {"code": "5\n0" * 999, "message": "ill"}}),
            "the watch failed with 5 05 0",
        ),
        (stream({"type": "ERROR", "object": {}}), "the watch failed with None: no reason given"),
        (refuse(500, message="etcd is ill"), "status 500: etcd is ill"),
        (refuse(403, message="no"), "the verbs list and watch"),
    ],
)
async def test_a_watch_that_cannot_be_understood_is_an_error(
    server: FakeKubernetes, fault: Any, said: str
) -> None:
    server.faults["watch"].append(fault)
    async with watching(source_of(server)) as seen:
        await seen.addresses()
        message = await seen.failure()
    assert said in message
    assert len(message) < 500
    assert len(server.of("watch")) == 1


async def test_events_that_come_in_pieces_or_together_are_events(server: FakeKubernetes) -> None:
    items = [slice_object("api", f"10.0.0.{number}") for number in range(3)]
    first, second, third = (
        json.dumps({"type": "MODIFIED", "object": item}).encode() + b"\n" for item in items
    )
    server.faults["watch"].append(silent(first[:7], first[7:] + second + third[:1], b"", third[1:]))
    async with watching(source_of(server)) as seen:
        assert await seen.addresses() == []
        for number in range(3):
            assert await seen.addresses() == [f"10.0.0.{number}:8080"]


@pytest.mark.parametrize("cut", [stream(cut=True), stream(b'{"type":"ADDED","obj', cut=True), drop])
async def test_a_connection_that_is_cut_is_an_error(server: FakeKubernetes, cut: Any) -> None:
    server.faults["watch"].extend(
        [cut] * 2
    )  # aiohttp repeats a GET whose connection was closed before its answer
    async with watching(source_of(server)) as seen:
        await seen.addresses()
        await seen.failure((OSError, aiohttp.ClientError))


async def test_a_slice_that_becomes_malformed_is_left_out_with_one_warning(
    server: FakeKubernetes, caplog: pytest.LogCaptureFixture
) -> None:
    server.put(slice_object("api", "10.0.0.1"))
    server.put(slice_object("api", "10.0.0.2", name="api-2"))
    async with watching(source_of(server)) as seen:
        assert len(await seen.addresses()) == 2
        server.put(slice_object("api", "10.0.0.1", addressType="IPX"))
        assert await seen.addresses() == ["10.0.0.2:8080"]
        server.put(slice_object("api", "10.0.0.3", addressType="IPX"))
        await seen.sign()
        server.put(slice_object("api", "10.0.0.1", "nonsense"))
        assert await seen.addresses() == ["10.0.0.1:8080", "10.0.0.2:8080"]
        server.put(slice_object("api", "nonsense", "10.0.0.1"))
        await seen.sign()
    family, address = (record.getMessage() for record in caplog.records)
    assert family.startswith(
        "registry kubernetes: an EndpointSlice is left out: EndpointSlice `api-1`: its addressType"
    )
    assert address.startswith(
        "registry kubernetes: EndpointSlice `api-1`: an endpoint is left out: its address `nons"
    )
    assert {(record.name, record.levelno) for record in caplog.records} == {
        ("sidecar.registry", logging.WARNING)
    }


async def test_ports_that_cannot_be_chosen_from_are_said_once(
    server: FakeKubernetes, caplog: pytest.LogCaptureFixture
) -> None:
    ports = [{"name": "grpc", "port": 1}, {"name": "metrics", "port": 2}]
    server.put(slice_object("api", "10.0.0.1", ports=ports))
    async with watching(source_of(server)) as seen:
        assert await seen.addresses() == []
        server.put(slice_object("api", "10.0.0.2", ports=ports))
        await seen.sign()
    assert len(caplog.records) == 1
    assert "has several ports and is left out: `grpc` 1, `metrics` 2" in caplog.records[0].getMessage()


def test_only_so_many_warnings_are_remembered(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(kubernetes, "MAX_WARNINGS", 2)
    source = source_of()
    source._warn(["a", "b", "c", "c", "b"])
    assert len(caplog.records) == 3
    source._warn(["a"])
    assert len(caplog.records) == 4
    assert len(source._warned) == 2


async def test_more_slices_than_there_may_be_are_an_error(
    server: FakeKubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes, "MAX_SLICES", 2)
    server.put(slice_object("api", "10.0.0.1"))
    server.put(slice_object("api", "10.0.0.2", name="api-2"))
    async with watching(source_of(server)) as seen:
        await seen.addresses()
        server.put(slice_object("api", "10.0.0.3", name="api-3"))
        assert "there are more than 2 EndpointSlices of these services" in await seen.failure()
    async with watching(source_of(server)) as seen:
        assert "there are more than 2 EndpointSlices of these services" in await seen.failure()


async def test_slices_that_were_not_asked_for_do_not_count(
    server: FakeKubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes, "MAX_SLICES", 1)
    items = [slice_object("api", "10.0.0.1"), slice_object("web", "10.0.0.2"), slice_object("db", "10.0.0.3")]
    page = {"metadata": {"resourceVersion": "100"}, "items": items}
    server.faults["list"].append(answer(json.dumps(page).encode()))
    async with watching(source_of(server)) as seen:
        assert await seen.addresses() == ["10.0.0.1:8080"]


async def test_a_list_without_end_is_an_error(
    server: FakeKubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes, "MAX_PAGES", 3)
    page = answer(b'{"metadata": {"resourceVersion": "1", "continue": "more"}, "items": []}')
    server.faults["list"].extend([page] * 4)
    async with watching(source_of(server)) as seen:
        await seen.failure()
    assert len(server.asked) == 3


# What goes wrong in a list


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (answer(b"<html>"), "the answer is no JSON"),
        (answer(b"[]"), "the answer is no list of EndpointSlices"),
        (answer(b'{"metadata": {}, "items": []}'), "the answer is no list of EndpointSlices"),
        (answer(b'{"metadata": {"resourceVersion": "1"}, "items": {"a": 1}}'), "no list of EndpointSlices"),
        (
            answer(b'{"metadata": {"resourceVersion": "1", "continue": 7}, "items": []}'),
            "no list of EndpointSlices",
        ),
        (
            answer(b'{"metadata": {"resourceVersion": "1"}, "items": [{}, 7]}'),
            "127.0.0.1: no slice of the list can be used: an EndpointSlice without a name is left out",
        ),
        (answer(b"[" * 10_000, 500), "status 500: [[["),
        (
            refuse(401, "Unauthorized", "Unauthorized"),
            "status 401: Unauthorized; check that the token or client",
        ),
        (refuse(404), "status 404; EndpointSlices are there from Kubernetes 1.21 on"),
        (
            refuse(429, message="too many", Retry_After="7"),
            "status 429: too many; it asks to be left alone for 7 s",
        ),
        (refuse(500, message="ill"), "status 500: ill"),
        (answer(b"<h1>Bad\ngateway</h1>" + b"x" * 100_000, 502), "status 502: <h1>Bad gateway</h1>xxx"),
        (stream(b"<h1>", b"x" * 100_000, code=502, cut=True), "status 502"),
        (silent(b"<h1>", b"x" * 100_000, code=502), "status 502: <h1>xxx"),
        (refuse(302, Location="http://127.0.0.1:1/"), "status 302"),
    ],
)
async def test_a_list_that_cannot_be_had_is_an_error(server: FakeKubernetes, fault: Any, said: str) -> None:
    server.faults["list"].append(fault)
    async with watching(source_of(server)) as seen:
        message = await seen.failure()
    assert said in message
    assert "127.0.0.1" in message
    assert len(message) < 500
    assert len(server.asked) == 1


async def test_a_server_that_refuses_connections_is_an_error() -> None:
    port = free_port()
    snapshots = source_of(port).watch((API,))
    with pytest.raises(OSError) as raised:  # noqa: PT011 - what is told of it is looked at
        await anext(snapshots)
    assert words(raised.value) == f"no connection to 127.0.0.1:{port} (connection refused)"


async def test_a_service_account_that_may_not_is_told_what_it_needs(server: FakeKubernetes) -> None:
    server.forbidden = {"list"}
    async with watching(source_of(server)) as seen:
        message = await seen.failure()
    assert 'User "system:serviceaccount:default:app" cannot list' in message
    assert "needs the verbs list and watch for endpointslices of the API group discovery.k8s.io" in message


async def test_a_service_account_that_may_list_but_not_watch_is_told_too(server: FakeKubernetes) -> None:
    server.forbidden = {"watch"}
    async with watching(source_of(server)) as seen:
        await seen.addresses()
        assert "needs the verbs list and watch" in await seen.failure()


# Members


@pytest.mark.parametrize("fault", [refuse(503), refuse(429), drop])
async def test_another_member_is_asked_at_once(server: FakeKubernetes, fault: Any) -> None:
    server.put(slice_object("api", "10.0.0.1"))
    async with FakeKubernetes() as ill:
        ill.faults["list"].extend([fault] * 2)
        async with watching(source_of(ill, server)) as seen:
            assert await seen.addresses() == ["10.0.0.1:8080"]
            await _until(seen, server, "watch", 1)
        assert ill.of("watch") == []


async def test_a_watch_goes_on_at_another_member_when_one_goes_between_two(server: FakeKubernetes) -> None:
    async with FakeKubernetes() as other:
        async with watching(source_of(server, other)) as seen:
            await seen.addresses()
            sign = asyncio.ensure_future(seen.next())
            await server.until(lambda it: it.watching)
            server.end_watches()
            await sign
            await server.stop()
            other.put(slice_object("api", "10.0.0.1"))
            assert await seen.addresses() == ["10.0.0.1:8080"]
        assert [one.verb for one in other.asked] == ["watch"]


async def test_a_refusal_is_not_asked_for_at_every_member(server: FakeKubernetes) -> None:
    server.forbidden = {"list"}
    async with FakeKubernetes() as other:
        async with watching(source_of(server, other)) as seen:
            await seen.failure()
        assert other.asked == []


async def test_when_no_member_answers_the_last_failure_is_raised(server: FakeKubernetes) -> None:
    server.faults["list"].append(refuse(503, message="starting"))
    async with watching(source_of(free_port(), server)) as seen:
        assert "status 503: starting" in await seen.failure()


# Credentials


async def test_the_token_is_read_for_each_request(server: FakeKubernetes, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    server.tokens = {"first"}
    async with watching(source_of(server, token_file=str(file))) as seen:
        await seen.addresses()
        sign = asyncio.ensure_future(seen.next())
        await server.until(lambda it: it.watching)
        file.write_text("second\n")
        server.tokens = {"second"}
        server.end_watches()
        await sign
        server.put(slice_object("api", "10.0.0.1"))
        assert await seen.addresses() == ["10.0.0.1:8080"]
    assert [one.token for one in server.asked] == ["first", "first", "second"]


async def test_a_token_that_is_replaced_while_it_is_refused_is_tried_at_once(
    server: FakeKubernetes, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("old")
    server.tokens = {"new"}

    async def rotate(server: FakeKubernetes, request: Any) -> Any:
        file.write_text("new")
        return await refuse(401)(server, request)

    server.faults["list"].append(rotate)
    async with watching(source_of(server, token_file=str(file))) as seen:
        assert await seen.addresses() == []
    assert [one.token for one in server.asked][:2] == ["old", "new"]


async def test_a_token_that_has_expired_is_an_error_that_does_not_show_it(
    server: FakeKubernetes, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("sesame-1234")
    server.tokens = {"new"}
    async with watching(source_of(server, token_file=str(file))) as seen:
        message = await seen.failure()
    assert f"status 401: Unauthorized; the token is from {file}; check that the token" in message
    assert "sesame" not in message
    assert len(server.asked) == 2


async def test_a_token_of_a_variable_that_is_refused(server: FakeKubernetes) -> None:
    server.tokens = set()
    async with watching(source_of(server, token_env="TOKEN", environ={"TOKEN": "sesame"})) as seen:
        assert "the token is from TOKEN" in await seen.failure()
    assert {one.token for one in server.asked} == {"sesame"}


async def test_a_missing_token_asks_nobody(server: FakeKubernetes, tmp_path: Path) -> None:
    async with watching(source_of(server, token_file=str(tmp_path / "none"))) as seen:
        assert "no such file" in await seen.failure()
    assert server.asked == []


# Pods, kubeconfigs and TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.mark.every_loop
@pytest.mark.server("openssl")
async def test_in_a_pod_the_service_account_is_all_there_is_to_know(
    authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "ca.crt").write_bytes(authority.ca.read_bytes())
    (tmp_path / "token").write_text("pod-token")
    (tmp_path / "namespace").write_text("shop")
    tls = authority.server_context(authority.issue("server", "IP:127.0.0.1"))
    async with FakeKubernetes(tls) as server:
        server.tokens = {"pod-token"}
        server.put(slice_object("api", "10.0.0.1", namespace="shop"))
        environ = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(server.port)}
        async with watching(source_of(environ=environ, account=tmp_path)) as seen:
            assert await seen.addresses() == ["10.0.0.1:8080"]
            server.put(slice_object("api", "10.0.0.2", namespace="shop"))
            assert await seen.addresses() == ["10.0.0.2:8080"]
        assert {one.namespace for one in server.asked} == {"shop"}


@pytest.mark.server("openssl")
async def test_a_server_that_another_authority_has_signed_is_not_told_the_token(
    authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other")
    tls = other.server_context(other.issue("server", "IP:127.0.0.1"))
    async with FakeKubernetes(tls) as server:
        trusting = TlsSettings(enabled=True, ca=str(authority.ca))
        async with watching(source_of(server, tls=trusting)) as seen:
            assert "CERTIFICATE_VERIFY_FAILED" in await seen.failure(aiohttp.ClientError)
        assert server.asked == []


@pytest.mark.server("openssl")
async def test_a_server_is_known_by_the_name_that_it_is_to_have(authority: Authority) -> None:
    tls = authority.server_context(authority.issue("named", "DNS:kubernetes.default.svc"))
    async with FakeKubernetes(tls) as server:
        named = TlsSettings(enabled=True, ca=str(authority.ca), server_name="kubernetes.default.svc")
        async with watching(source_of(server, tls=named)) as seen:
            assert await seen.addresses() == []
        unnamed = TlsSettings(enabled=True, ca=str(authority.ca))
        async with watching(source_of(server, tls=unnamed)) as seen:
            await seen.failure(aiohttp.ClientError)
        anyone = TlsSettings(enabled=True, verify=False)
        async with watching(source_of(server, tls=anyone)) as seen:
            assert await seen.addresses() == []


@pytest.mark.parametrize("data", [True, False])
@pytest.mark.server("openssl")
async def test_a_kubeconfig_shows_the_client_certificate(
    authority: Authority, tmp_path: Path, data: bool
) -> None:
    import base64

    client = authority.issue("client")
    tls = authority.server_context(authority.issue("server", "IP:127.0.0.1"), ask_clients=True)
    async with FakeKubernetes(tls) as server:
        server.put(slice_object("api", "10.0.0.1", namespace="shop"))

        def entry(key: str, file: Path) -> dict[str, str]:
            return {f"{key}-data": base64.b64encode(file.read_bytes()).decode()} if data else {key: str(file)}

        config = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u", "namespace": "shop"}}],
            "clusters": [
                {
                    "name": "k",
                    "cluster": {"server": f"{server.url}/k8s/one/"}
                    | entry("certificate-authority", authority.ca),
                }
            ],
            "users": [
                {
                    "name": "u",
                    "user": entry("client-certificate", client.cert) | entry("client-key", client.key),
                }
            ],
        }
        file = tmp_path / "config"
        file.write_text(json.dumps(config))
        async with watching(source_of(kubeconfig=str(file))) as seen:
            assert await seen.addresses() == ["10.0.0.1:8080"]
        config["users"] = [{"name": "u", "user": {}}]
        file.write_text(json.dumps(config))
        async with watching(source_of(kubeconfig=str(file))) as seen:
            await seen.failure((OSError, aiohttp.ClientError))


# Streams and names


def services(*streams: tuple[Wanted, ...]) -> list[list[str]]:
    return [[one.service for one in group] for group in streams]


def test_fifty_services_of_a_namespace_are_watched_together() -> None:
    wanted = [Wanted(f"u{number}", f"s{number}") for number in range(101)]
    wanted += [Wanted("again", "s0"), Wanted("elsewhere", "x", namespace="shop"), Wanted("dotted", "y.shop")]
    streams = source_of(1).streams(wanted)
    assert [len({one.service for one in group}) for group in streams] == [50, 50, 1, 2]
    assert [one.upstream for one in streams[0][:2]] == ["u0", "again"]
    assert services(streams[3]) == [["x", "y.shop"]]
    assert source_of(1).streams([]) == []


def test_the_longest_names_fit_into_a_url() -> None:
    from yarl import URL

    names = [f"{number:03}" + "x" * 60 for number in range(50)]
    view = kubernetes._View("k", {Wanted(name, name): name for name in names})
    assert len(str(URL("http://x/").with_query({"labelSelector": view.selector}))) < 4096


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (Wanted("api", "no_name"), "upstream `api`: `no_name` is no name of a Service"),
        (Wanted("api", "a),b"), "is no name of a Service"),
        (Wanted("api", "x" * 64), "is no name of a Service"),
        (Wanted("api", "Api"), "is no name of a Service"),
        (Wanted("api", "api\n"), "is no name of a Service"),
        (Wanted("api", "api.shop", namespace="other"), "`api.shop` is no name of a Service"),
        (Wanted("api", "api.shop.svc"), "`shop.svc` is no name of a namespace"),
        (Wanted("api", "api", namespace="../x"), "`../x` is no name of a namespace"),
    ],
)
async def test_what_cannot_be_asked_for_fails_by_itself(
    server: FakeKubernetes, wanted: Wanted, said: str
) -> None:
    source = source_of(server)
    assert services(*source.streams([wanted, Wanted("web", "web")])) == [[wanted.service], ["web"]]
    async with watching(source, wanted) as seen:
        assert said in await seen.failure()
    assert server.asked == []


@pytest.mark.parametrize(
    ("wanted", "registry", "namespace"),
    [
        (Wanted("api", "api"), "", "default"),
        (Wanted("api", "api"), "shop", "shop"),
        (Wanted("api", "api.other"), "shop", "other"),
        (Wanted("api", "api", namespace="mine"), "shop", "mine"),
    ],
)
async def test_the_namespace_is_the_nearest_that_is_named(
    server: FakeKubernetes, wanted: Wanted, registry: str, namespace: str
) -> None:
    server.put(slice_object("api", "10.0.0.1", namespace=namespace))
    async with watching(source_of(server, namespace=registry), wanted) as seen:
        assert await seen.addresses() == ["10.0.0.1:8080"]


@pytest.mark.server("openssl")
async def test_a_namespace_of_the_pod_that_is_none_is_an_error(
    server: FakeKubernetes, tmp_path: Path
) -> None:
    (tmp_path / "namespace").write_text("No Name")
    (tmp_path / "token").write_text("t")
    environ = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(server.port)}
    tls = TlsSettings(verify=False, ca=str(_any_ca(tmp_path)))
    async with watching(source_of(environ=environ, account=tmp_path, tls=tls)) as seen:
        assert "`No Name` is no name of a namespace" in await seen.failure()


def _any_ca(directory: Path) -> Path:
    return Authority(directory / "any").ca


# Ends


@pytest.mark.parametrize("when", ["list", "watch"])
async def test_a_stream_that_is_cancelled_leaves_nothing_open(server: FakeKubernetes, when: str) -> None:
    if when == "list":
        server.faults["list"].append(hang)
    snapshots = source_of(server).watch((API,))

    async def follow() -> None:
        async for _ in snapshots:
            pass

    task = asyncio.ensure_future(follow())
    await server.until(lambda it: it.asked if when == "list" else it.watching)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    await server.until(lambda it: not it.watching)


@pytest.mark.every_loop
async def test_a_stream_that_is_closed_leaves_nothing_open(server: FakeKubernetes) -> None:
    """Nor any generator of its own, which the loop would have to close in a task."""
    left: list[Any] = []
    before = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(firstiter=lambda generator: None, finalizer=left.append)
    try:
        await _watch_until_a_bookmark(server)
    finally:
        sys.set_asyncgen_hooks(*before)
    assert left == []
    await server.until(lambda it: not it.watching)


async def _watch_until_a_bookmark(server: FakeKubernetes) -> None:
    async with watching(source_of(server)) as seen:
        await seen.addresses()
        sign = asyncio.ensure_future(seen.next())
        await server.until(lambda it: it.watching)
        server.bookmark()
        await sign


async def test_several_streams_of_one_source_go_on_at_the_same_time(server: FakeKubernetes) -> None:
    source = source_of(server)
    async with watching(source) as one, watching(source, Wanted("web", "web", namespace="shop")) as two:
        assert await one.addresses() == await two.addresses() == []
        server.put(slice_object("web", "10.0.0.2", namespace="shop"))
        server.put(slice_object("api", "10.0.0.1"))
        assert await one.addresses() == ["10.0.0.1:8080"]
        assert await two.addresses() == ["10.0.0.2:8080"]
    await source.close()
