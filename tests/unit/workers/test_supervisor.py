"""The supervisor before scripted workers: starting, dying, telling moves on, and a reload that fails."""

import asyncio
import gc
import logging
import os
import resource
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from support.registrars import ScriptedRegistrar, announce_in, registration
from support.sources import ScriptedSource, registry

from sidecar.clock import Clock
from sidecar.config.settings import (
    Address,
    DeploymentMode,
    EndpointSettings,
    HealthSettings,
    PolicySettings,
    Settings,
    SidecarSettings,
    SourceSettings,
    UpstreamKind,
    UpstreamSettings,
)
from sidecar.errors import ConfigurationError, StartError, UnknownUpstreamError
from sidecar.model import Endpoint, Snapshot
from sidecar.registry import assembly
from sidecar.registry import supervisor as source_supervisor_module
from sidecar.registry.last_good import Kept
from sidecar.registry.supervisor import SourceSupervisor
from sidecar.workers import process as process_module
from sidecar.workers import supervisor as supervisor_module
from sidecar.workers.channel import Channel, Message
from sidecar.workers.process import Program
from sidecar.workers.supervisor import Supervisor
from sidecar.workers.wire import from_plain, order_of, reloaded_settings, snapshot_of
from sidecar.workers.worker import WorkerApp

UPSTREAM = UpstreamSettings(
    "api",
    UpstreamKind.SERVICE,
    "http",
    (EndpointSettings("127.0.0.1", 1),),
    "round_robin",
    "/",
    0,
    None,
    PolicySettings(),
)
SETTINGS = Settings(
    mode=DeploymentMode.LOCAL,
    domain="",
    origin="test",
    upstreams=(UPSTREAM,),
    sidecar=SidecarSettings(
        bind=("127.0.0.1",),
        admin=Address("127.0.0.1", 0),
        metrics=Address("127.0.0.1", 0),
        workers=2,
        drain_timeout=0.2,
    ),
    log_level="INFO",
    registry_debug=False,
    notes=(),
)
MOVE = {
    "upstream": "api",
    "host": "127.0.0.1",
    "port": 1,
    "at": 5.0,
    "open_until": 9.0,
    "opened_in_a_row": 1,
    "failing": False,
}


@pytest.fixture(autouse=True)
def limits() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
    gc.unfreeze()


class ScriptedWorker:
    """A worker that is no process. told: all messages but the first, which is `start`."""

    pid = 4321

    def __init__(self, descriptor: int, answer: Message | None) -> None:
        self.code: int | None = None
        self.told: list[Message] = []
        self.start: Message = {}
        self.channel = Channel(self._receive, lambda: None)
        self._answer = answer
        end = socket.socket(fileno=os.dup(descriptor))
        end.setblocking(False)
        self.opening = asyncio.get_running_loop().create_task(
            self.channel.open(asyncio.get_running_loop(), end)
        )

    def _receive(self, message: Message) -> None:
        if message["kind"] != "start":
            self.told.append(message)
            return
        self.start = message
        if self._answer is not None:
            self.channel.send(self._answer)

    def poll(self) -> int | None:
        return self.code

    def kill(self) -> None:
        self.die(-9)

    def die(self, code: int) -> None:
        if self.code is None:
            self.code = code
            # A process's end closes its channel however young it is; this one may not be open yet.
            self.opening.add_done_callback(lambda _: self.channel.close())


class Workers:
    """Spawns them. answers: what the next ones say at their start, None for nothing; then all are ready."""

    def __init__(self) -> None:
        self.made: list[ScriptedWorker] = []
        self.answers: list[Message | OSError | None] = []

    def spawn(self, channel: int, sockets: Sequence[int]) -> Program:
        answer = self.answers.pop(0) if self.answers else {"kind": "ready"}
        if isinstance(answer, OSError):
            raise answer
        made = ScriptedWorker(channel, answer)
        self.made.append(made)
        return made


async def until(look: Callable[[], object]) -> None:
    async with asyncio.timeout(5.0):
        while not look():  # noqa: ASYNC110 - of objects that tell nobody
            await asyncio.sleep(0.001)


@pytest.fixture
def workers() -> Workers:
    return Workers()


@pytest_asyncio.fixture
async def supervisor(workers: Workers) -> AsyncIterator[Supervisor]:
    """Not started yet; closed in the end."""
    made = Supervisor(SETTINGS, lambda: SETTINGS, spawn=workers.spawn)
    yield made
    await made.close()
    assert not made._workers
    for worker in workers.made:
        assert worker.code is not None, "left running"
        with suppress(asyncio.CancelledError):
            await worker.opening


async def test_each_is_told_its_sockets_and_the_settings(supervisor: Supervisor, workers: Workers) -> None:
    await supervisor.start()
    assert supervisor._is_ready()
    one, two = (worker.start for worker in workers.made)
    assert (one["slot"], two["slot"]) == (0, 1)
    assert one["settings"] == two["settings"]
    assert one["sockets"][0][:2] == two["sockets"][0][:2] == ["api", "127.0.0.1"]
    assert one["sockets"][0][2] != two["sockets"][0][2]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"kind": "failed", "why": "no memory to speak of"}, "no memory to speak of"),
        (OSError(11, "Resource temporarily unavailable"), "cannot start a worker: resource temporarily"),
    ],
)
async def test_one_that_never_starts_is_the_end_of_all(
    supervisor: Supervisor, workers: Workers, answer: Any, said: str
) -> None:
    workers.answers = [{"kind": "ready"}, answer]
    with pytest.raises(StartError, match=said):
        await supervisor.start()
    assert not supervisor._workers
    assert not supervisor.ready


async def test_one_that_says_nothing_is_not_waited_for_for_ever(
    supervisor: Supervisor, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "START_TIMEOUT", 0.05)
    workers.answers = [None]
    with pytest.raises(StartError, match=r"worker 0 was not ready within 0\.05 s"):
        await supervisor.start()


async def test_one_that_dies_while_it_starts(supervisor: Supervisor, workers: Workers) -> None:
    workers.answers = [None]
    starting = asyncio.get_running_loop().create_task(supervisor.start())
    await until(lambda: workers.made and workers.made[0].start)
    workers.made[0].die(3)
    with pytest.raises(StartError, match="worker 0 ended with exit code 3 while it started"):
        await starting


async def test_a_dead_one_is_followed_at_once_and_then_ever_later(
    supervisor: Supervisor, workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    await supervisor.start()
    for death in range(3):
        made = len(workers.made)
        workers.made[-1].die(-11 if death else 7)
        await until(lambda made=made: len(workers.made) > made and supervisor._is_ready())
    said = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert said == [
        "worker 1 (pid 4321) ended with exit code 7; starting another",
        "worker 1 (pid 4321) was ended by SIGSEGV; starting another in 0.1 s",
        "worker 1 (pid 4321) was ended by SIGSEGV; starting another in 0.2 s",
    ]
    assert supervisor.counts.restarts == 3
    assert workers.made[-1].start["slot"] == 1


async def test_one_that_cannot_be_followed_is_tried_again(supervisor: Supervisor, workers: Workers) -> None:
    await supervisor.start()
    workers.answers = [OSError(12, "Cannot allocate memory"), {"kind": "failed", "why": "busy"}]
    workers.made[0].die(-9)
    await until(lambda: len(workers.made) == 3)
    workers.made[-1].die(1)
    await until(lambda: len(workers.made) == 4 and supervisor._is_ready())
    assert supervisor.counts.restarts == 3


async def test_garbage_is_collected_once_it_runs(supervisor: Supervisor) -> None:
    """The command line turns the collector off for the start; scrapes and reloads leave cycles behind for years."""
    gc.disable()
    try:
        await supervisor.start()
        assert gc.isenabled()
    finally:
        gc.enable()


async def test_a_move_is_told_to_all_others_and_to_those_that_come(
    supervisor: Supervisor, workers: Workers
) -> None:
    await supervisor.start()
    one, two = workers.made
    one.channel.send({"kind": "move", "move": {**MOVE, "to": 1}})
    await until(lambda: two.told)
    assert two.told == [{"kind": "move", "move": {**MOVE, "to": 1}}]
    assert not one.told
    two.die(-9)
    await until(lambda: len(workers.made) == 3 and workers.made[2].start)
    assert workers.made[2].start["moves"] == [{**MOVE, "to": 1}]
    one.channel.send({"kind": "move", "move": {**MOVE, "to": 2, "at": 6.0}})
    await until(lambda: workers.made[2].told)
    workers.made[2].die(-9)
    await until(lambda: len(workers.made) == 4 and workers.made[3].start)
    assert workers.made[3].start["moves"] == [{**MOVE, "to": 1, "at": 6.0}], "a probe is out: leave it alone"
    one.channel.send({"kind": "move", "move": {**MOVE, "to": 0, "at": 7.0}})
    await until(lambda: workers.made[3].told)
    workers.made[3].die(-9)
    await until(lambda: len(workers.made) == 5 and workers.made[4].start)
    assert workers.made[4].start["moves"] == []


@pytest.mark.parametrize("checked", [True, False])
async def test_what_checks_hold_open_is_told_to_those_that_come_where_there_are_checks(
    workers: Workers, checked: bool
) -> None:
    upstream = replace(UPSTREAM, health=HealthSettings(active=checked))
    settings = replace(SETTINGS, upstreams=(upstream,))
    supervisor = Supervisor(settings, lambda: settings, spawn=workers.spawn)
    try:
        await supervisor.start()
        one, two = workers.made
        one.channel.send({"kind": "held", "move": {**MOVE, "to": 1, "failing": True}})
        await until(lambda: supervisor._standing.moves)
        assert two.told == [], "it has checks of its own"
        two.die(-9)
        await until(lambda: len(workers.made) == 3 and workers.made[2].start)
        assert workers.made[2].start["moves"] == [{**MOVE, "to": 1, "failing": checked}]
        one.channel.send({"kind": "held", "move": {**MOVE, "to": 1, "at": 6.0}})
        await until(lambda: not any(move.failing for move in supervisor._standing.moves.values()))
        workers.made[2].die(-9)
        await until(lambda: len(workers.made) == 4 and workers.made[3].start)
        assert workers.made[3].start["moves"] == [{**MOVE, "to": 1, "at": 6.0}]
    finally:
        await supervisor.close()


async def test_what_is_done_by_hand_is_told_to_all_and_to_those_that_come(
    supervisor: Supervisor, workers: Workers
) -> None:
    await supervisor.start()
    one, two = workers.made
    assert supervisor.control("trip", "api", "127.0.0.1:1") == ["127.0.0.1:1"]
    await until(lambda: one.told and two.told)
    order = one.told[0]["order"]
    action, at, upstream, endpoints = order
    assert (action, type(at), upstream, endpoints) == ("trip", float, "api", [["127.0.0.1", 1]])
    assert one.told == two.told == [{"kind": "do", "order": order}]
    one.channel.send({"kind": "move", "move": {**MOVE, "to": 1}})
    await until(lambda: len(two.told) == 2)
    two.die(-9)
    await until(lambda: len(workers.made) == 3 and workers.made[2].start)
    assert workers.made[2].start["orders"] == [order]
    assert supervisor.control("reset", "api", None) == ["127.0.0.1:1"]
    await until(lambda: len(workers.made[2].told) == 1)
    workers.made[2].die(-9)
    await until(lambda: len(workers.made) == 4 and workers.made[3].start)
    assert workers.made[3].start["orders"] == workers.made[3].start["moves"] == [], (
        "nothing is held against it"
    )
    with pytest.raises(UnknownUpstreamError, match="no upstream is called 'nobody'; known are: api"):
        supervisor.control("trip", "nobody", None)


async def test_what_is_drained_stays_so_over_deaths_reloads_and_snapshots(
    supervisor: Supervisor, workers: Workers
) -> None:
    await supervisor.start()
    (state,) = supervisor.clusters["api"].endpoints.values()
    supervisor.control("drain", "api", None)
    assert supervisor.view()["upstreams"][0]["endpoints"][0]["drained"]
    assert state.breaker.journal == type(state.breaker.journal)(), "that is no move of its breaker"
    workers.made[1].die(-9)
    await until(lambda: len(workers.made) == 3 and workers.made[2].start)
    assert [order[0] for order in workers.made[2].start["orders"]] == ["drain"]
    supervisor._show(OTHER)  # as at a reload, whose clusters are others
    (state,) = supervisor.clusters["api"].endpoints.values()
    assert state.drained
    supervisor.control("enable", "api", None)
    assert (state.drained, supervisor._standing.drained) == (False, {})
    supervisor.control("drain", "api", None)
    supervisor.clusters["api"].apply(Snapshot("api", (), "static"))
    supervisor._show(replace(SETTINGS, upstreams=()))
    assert supervisor.clusters == {}


async def test_what_is_done_to_many_is_one_order(supervisor: Supervisor, workers: Workers) -> None:
    """Each means a new picker: one by one, a thousand of them stopped a worker for a second."""
    await supervisor.start()
    both = (Endpoint("127.0.0.1", 1), Endpoint("127.0.0.1", 2))
    supervisor.clusters["api"].apply(Snapshot("api", both, "static"))
    for action in ("drain", "trip"):
        supervisor.control(action, "api", None)
    supervisor.control("enable", "api", "127.0.0.1:1")
    await until(lambda: all(len(worker.told) == 3 for worker in workers.made))
    told = [order_of(message["order"]) for message in workers.made[0].told]
    keys = tuple(endpoint.key for endpoint in both)
    assert [(order.action, order.endpoints) for order in told] == [
        ("drain", keys),
        ("trip", keys),
        ("enable", keys[:1]),
    ]
    assert [(order.action, order.endpoints) for order in supervisor._standing.orders()] == [
        ("trip", keys),
        ("drain", keys[1:]),
    ]


async def test_logs_that_are_rotated_are_the_workers(supervisor: Supervisor, workers: Workers) -> None:
    await supervisor.start()
    supervisor._on_sigusr1()
    await until(lambda: all(worker.told for worker in workers.made))
    assert [worker.told for worker in workers.made] == [[{"kind": "reopen"}]] * 2


async def test_what_is_done_while_a_worker_starts_is_done_by_it_too(
    supervisor: Supervisor, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    await supervisor.start()
    opening = Channel.open

    async def open_late(self: Channel, loop: asyncio.AbstractEventLoop, end: socket.socket) -> None:
        if self in [worker._channel for worker in supervisor._workers]:
            supervisor.control("trip", "api", None)
        await opening(self, loop, end)

    monkeypatch.setattr(Channel, "open", open_late)
    workers.made[0].die(-9)
    await until(lambda: len(workers.made) == 3 and workers.made[2].start)
    assert [order[0] for order in workers.made[2].start["orders"]] == ["trip"]


async def test_one_that_breaks_its_channel_is_ended(
    supervisor: Supervisor, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "REAP_PATIENCE", 0.02)
    await supervisor.start()
    workers.made[0].channel.close()
    await until(lambda: len(workers.made) == 3 and supervisor._is_ready())
    assert workers.made[0].code == -9


async def test_a_reload_whose_workers_fail_changes_nothing(
    supervisor: Supervisor, workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    supervisor.reloads._load = lambda: replace(SETTINGS, upstreams=(replace(UPSTREAM, name="web"),))
    await supervisor.start()
    workers.answers = [{"kind": "ready"}, {"kind": "failed", "why": "too new"}]
    supervisor._on_sighup()
    await until(lambda: supervisor.reloads.counts.failure)
    assert [worker.told for worker in workers.made[:2]] == [[], []]
    assert supervisor._is_ready()
    assert not supervisor.reloads.counts.last_success
    assert list(supervisor.clusters) == ["api"]
    assert "too new" in caplog.text
    assert "not reloaded" in caplog.text


async def test_a_reload_asked_for_during_one_comes_after_it(supervisor: Supervisor, workers: Workers) -> None:
    loads = []

    def load() -> Settings:
        loads.append(1)
        if len(loads) == 1:
            raise ConfigurationError(["a: wrong", "b: wrong"])
        return replace(SETTINGS, upstreams=())

    supervisor.reloads._load = load
    await supervisor.start()
    supervisor._on_sighup()
    supervisor._on_sighup()
    await asyncio.sleep(0)
    supervisor._on_sighup()
    await until(lambda: supervisor.reloads._task is None)
    counts = supervisor.reloads.counts
    assert (counts.failure, counts.success, counts.unchanged) == (1, 1, len(loads) - 2)
    assert len(loads) in (2, 3)
    assert counts.last_success
    assert supervisor.clusters == {}
    await until(lambda: {"kind": "leave"} in workers.made[0].told)
    assert {"kind": "leave"} in workers.made[1].told


async def test_it_announces_for_all_and_no_worker_stops_accepting_before_it_has_withdrawn(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    etcd = registry("etcd", "etcd", hosts=(Address("127.0.0.1", 2379),))
    registrar = ScriptedRegistrar(etcd)
    check = HealthSettings(kind="tcp", interval=1000.0)

    announce_in(registrar, monkeypatch)
    with socket.create_server(("127.0.0.1", 0)) as service:
        own = registration(port=service.getsockname()[1], check=check)
        settings = replace(SETTINGS, registries=(etcd,), registrations=(own,))
        supervisor = Supervisor(settings, lambda: settings, spawn=workers.spawn)
        await supervisor.start()
        try:
            await until(lambda: registrar.known)
            assert [shown["state"] for shown in supervisor.view()["registrations"]] == ["announced"]
            registrar.answers.clear()
            registrar.asked.clear()
            supervisor._hurry(2)
            draining = asyncio.get_running_loop().create_task(supervisor._drain())
            async with asyncio.timeout(5.0):
                await registrar.asked.wait()
            await until(lambda: all(worker.told for worker in workers.made))
            stages = [[told["stage"] for told in worker.told] for worker in workers.made]
            assert stages == [[1], [1]]
            assert supervisor._ports.by_upstream["api"][0].sockets[0].fileno() >= 0
            registrar.answers.set()
            await until(lambda: all(worker.told[-1]["stage"] == 2 for worker in workers.made))
            assert registrar.known == {}
            for worker in workers.made:
                worker.die(0)
            await draining
        finally:
            await supervisor.close()
    assert registrar.closed
    for worker in workers.made:
        await worker.opening


async def test_a_reload_announces_what_is_named_now(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    etcd = registry("etcd", "etcd", hosts=(Address("127.0.0.1", 2379),))
    registrar = ScriptedRegistrar(etcd)
    check = HealthSettings(kind="tcp", interval=1000.0)

    announce_in(registrar, monkeypatch)
    with socket.create_server(("127.0.0.1", 0)) as service:
        port = service.getsockname()[1]
        named = [
            replace(SETTINGS, registries=(etcd,), registrations=(registration(name, port, check=check),))
            for name in ("first", "second")
        ]
        supervisor = Supervisor(SETTINGS, lambda: named.pop(0), spawn=workers.spawn)
        await supervisor.start()
        try:
            for name in ("first", "second"):
                supervisor._on_sighup()
                for worker in workers.made:
                    await until(lambda worker=worker: worker.told and worker.told[-1]["kind"] == "reload")
                    worker.told.clear()
                    worker.channel.send({"kind": "reloaded", "why": ""})
                await until(lambda name=name: list(registrar.known) == [f"{name}-10.0.0.7-{port}"])
        finally:
            await supervisor.close()
    assert registrar.known == {}
    for worker in workers.made:
        await worker.opening


async def test_a_worker_announces_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(assembly, "announcer")
    app = WorkerApp(replace(SETTINGS, registrations=(registration(),)), {}, [], Channel(print, print))
    app._register()
    assert app._announcer is None


# In place, where the listeners are the same

OTHER = replace(SETTINGS, upstreams=(replace(UPSTREAM, strategy="random"),))


async def reloaded(supervisor: Supervisor, settings: Settings) -> list[str]:
    async with asyncio.timeout(10.0):
        return await supervisor.reload(settings)


async def test_workers_are_told_and_stay(supervisor: Supervisor, workers: Workers) -> None:
    await supervisor.start()
    going_on = asyncio.create_task(reloaded(supervisor, OTHER))
    for worker in workers.made:
        await until(lambda worker=worker: worker.told)
        assert [message["kind"] for message in worker.told] == ["reload"]
        assert reloaded_settings(worker.told[0], SETTINGS) == OTHER
        assert not going_on.done()
        worker.channel.send({"kind": "reloaded", "why": ""})
    assert await going_on == ["api: strategy"]
    assert len(workers.made) == 2
    assert supervisor.clusters["api"].policy.strategy == "random"
    assert supervisor.settings == OTHER
    assert supervisor._is_ready()
    assert await supervisor.reload(OTHER) == []


@pytest.mark.parametrize(
    ("answer", "why"), [({"kind": "reloaded", "why": "KeyError: 'x'"}, "KeyError: 'x'"), (None, "no answer")]
)
async def test_one_that_does_not_follow_is_replaced(
    supervisor: Supervisor,
    workers: Workers,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    answer: Message | None,
    why: str,
) -> None:
    monkeypatch.setattr(supervisor_module, "RELOAD_TIMEOUT", 0.2)
    await supervisor.start()
    going_on = asyncio.create_task(reloaded(supervisor, OTHER))
    good, bad = workers.made
    await until(lambda: good.told and bad.told)
    good.channel.send({"kind": "reloaded", "why": ""})
    if answer is not None:
        bad.channel.send(answer)
    assert await going_on == ["api: strategy"]
    assert f"worker 1 (pid 4321) does not reload: {why}" in caplog.messages
    await until(lambda: len(workers.made) == 3 and supervisor._is_ready())
    assert (good.code, bad.code) == (None, -9)
    assert from_plain(Settings, workers.made[2].start["settings"]) == OTHER


async def test_one_that_dies_meanwhile_is_started_again_with_the_new(
    supervisor: Supervisor, workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    await supervisor.start()
    going_on = asyncio.create_task(reloaded(supervisor, OTHER))
    good, bad = workers.made
    await until(lambda: good.told and bad.told)
    good.channel.send({"kind": "reloaded", "why": ""})
    bad.die(-9)
    await going_on
    await until(lambda: len(workers.made) == 3 and supervisor._is_ready())
    assert from_plain(Settings, workers.made[2].start["settings"]) == OTHER
    assert "does not reload" not in caplog.text


async def test_one_that_starts_is_told_and_not_waited_for(supervisor: Supervisor, workers: Workers) -> None:
    await supervisor.start()
    workers.answers = [None]
    workers.made[1].die(-9)
    await until(lambda: len(workers.made) == 3 and workers.made[2].start)
    going_on = asyncio.create_task(reloaded(supervisor, OTHER))
    await until(lambda: workers.made[0].told)
    workers.made[0].channel.send({"kind": "reloaded", "why": ""})
    await going_on
    await until(lambda: workers.made[2].told)
    assert workers.made[2].told[0]["kind"] == "reload"


async def test_one_whose_channel_is_not_open_yet_is_started_with_the_new(
    supervisor: Supervisor, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    await supervisor.start()
    opening = Channel.open
    going_on: list[asyncio.Task[list[str]]] = []

    async def open_late(self: Channel, loop: asyncio.AbstractEventLoop, end: socket.socket) -> None:
        if not going_on:
            going_on.append(asyncio.create_task(reloaded(supervisor, OTHER)))
            await until(lambda: supervisor.settings == OTHER)
        await opening(self, loop, end)

    monkeypatch.setattr(Channel, "open", open_late)
    workers.made[1].die(-9)
    await until(lambda: len(workers.made) == 3 and workers.made[2].start)
    workers.made[0].channel.send({"kind": "reloaded", "why": ""})
    await going_on[0]
    assert from_plain(Settings, workers.made[2].start["settings"]) == OTHER


async def test_what_is_tripped_or_open_is_known_on_where_it_still_is(
    supervisor: Supervisor, workers: Workers
) -> None:
    settings = replace(
        SETTINGS,
        upstreams=(replace(UPSTREAM, endpoints=(*UPSTREAM.endpoints, EndpointSettings("127.0.0.1", 2))),),
    )
    await supervisor.start()
    supervisor.control("trip", "api", None)
    workers.made[0].channel.send({"kind": "move", "move": {**MOVE, "to": 1}})
    await until(lambda: supervisor._standing.moves)
    for wanted, known in (
        (settings, 1),
        (replace(settings, upstreams=(replace(UPSTREAM, endpoints=()),)), 0),
    ):
        going_on = asyncio.create_task(reloaded(supervisor, wanted))
        for worker in workers.made:
            await until(lambda worker=worker: worker.told and worker.told[-1]["kind"] == "reload")
            worker.told.clear()
            worker.channel.send({"kind": "reloaded", "why": ""})
        await going_on
        assert (len(supervisor._standing.moves), len(supervisor._standing.tripped)) == (known, known)


async def test_another_port_takes_other_workers(supervisor: Supervisor, workers: Workers) -> None:
    await supervisor.start()
    upstreams = (UPSTREAM, replace(UPSTREAM, name="web"))
    assert await reloaded(supervisor, replace(SETTINGS, upstreams=upstreams)) == ["web: added"]
    assert len(workers.made) == 4
    await until(lambda: all({"kind": "leave"} in worker.told for worker in workers.made[:2]))
    assert [name for name, _ in supervisor.listening] == ["api", "web"]


async def test_a_file_that_changes_is_read_again_here_too(workers: Workers) -> None:
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

    wanted = replace(OTHER, sidecar=replace(OTHER.sidecar, watch=False), log_level="ERROR")
    supervisor = Supervisor(SETTINGS, lambda: wanted, spawn=workers.spawn, changes=changes)
    level = logging.getLogger().level
    try:
        await supervisor.start()
        changed.put_nowait(1)
        for worker in workers.made:
            await until(lambda worker=worker: worker.told)
            worker.channel.send({"kind": "reloaded", "why": ""})
        await until(lambda: supervisor.reloads.counts.success == 1 and not watching)
        assert logging.getLogger().level == logging.ERROR
    finally:
        logging.getLogger().setLevel(level)
        await supervisor.close()


async def test_the_end_waits_for_a_reload_that_starts_workers(
    supervisor: Supervisor, workers: Workers
) -> None:
    supervisor.reloads._load = lambda: replace(SETTINGS, upstreams=(replace(UPSTREAM, name="web"),))
    await supervisor.start()
    workers.answers = [None, None]
    asked = supervisor.reloads.ask()
    await until(lambda: len(workers.made) == 4)
    async with asyncio.timeout(10.0):
        await supervisor.close()
    refused = await asked
    assert (refused.result, refused.findings) == ("refused", ("not reloading: the sidecar is ending",))
    assert [worker.code for worker in workers.made] == [-9] * 4


# With registries

FOLLOWED = replace(UPSTREAM, endpoints=(), source=SourceSettings(("consul",)))


class Registries:
    """In place of those that the supervisor asks: a test tells what they say."""

    def __init__(self, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
        self.supervisor = supervisor
        self.source: ScriptedSource
        monkeypatch.setattr(source_supervisor_module, "COALESCE", 0.0)
        monkeypatch.setattr(assembly, "source_supervisor", self.made)

    def made(
        self, settings: Settings, clock: Clock, apply: Any, *, saved: Kept | None, keeps: bool
    ) -> SourceSupervisor:
        return SourceSupervisor(
            settings.upstreams,
            settings.registries,
            assembly.surroundings_of(clock),
            apply,
            wait=60.0,
            saved=saved,
            make=self._make,
        )

    def _make(self, settings: Any, surroundings: Any) -> ScriptedSource:
        self.source = ScriptedSource(settings, surroundings)
        return self.source

    async def say(self, name: str, *addresses: str) -> None:
        """Until it shows."""
        await until(lambda: self.source.opened)
        self.source.say(name, *addresses)
        await until(lambda: self.shown(name) == list(addresses))

    def shown(self, name: str) -> list[str]:
        return [state.endpoint.address for state in self.supervisor.clusters[name].endpoints.values()]


@pytest.fixture
def registries(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> Registries:
    return Registries(supervisor, monkeypatch)


def with_consul(*upstreams: UpstreamSettings) -> Settings:
    return replace(SETTINGS, upstreams=upstreams, registries=(registry("consul"),))


def given(worker: ScriptedWorker) -> list[str]:
    """What a worker has been started with of registries."""
    return [
        f"{snapshot.upstream} {endpoint.address}"
        for snapshot in map(snapshot_of, worker.start["snapshots"])
        for endpoint in snapshot.endpoints
    ]


async def followed(supervisor: Supervisor, workers: Workers, settings: Settings) -> None:
    """Reload, in place or with other workers."""
    present = workers.made[-2:]
    going_on = asyncio.create_task(reloaded(supervisor, settings))
    while not going_on.done():
        for worker in present:
            if worker.told and worker.told[-1]["kind"] == "reload":
                worker.told.clear()
                worker.channel.send({"kind": "reloaded", "why": ""})
        await asyncio.sleep(0.001)
    await going_on


async def test_until_a_registry_speaks_an_upstream_has_what_the_configuration_named(
    supervisor: Supervisor, workers: Workers, registries: Registries
) -> None:
    await supervisor.start()
    await followed(supervisor, workers, with_consul(FOLLOWED))
    assert registries.shown("api") == ["127.0.0.1:1"], "as in each worker"
    assert supervisor._is_ready(), "a reload makes nobody less ready"
    workers.made[1].die(-9)
    await until(lambda: len(workers.made) == 3 and supervisor._is_ready())
    assert given(workers.made[2]) == ["api 127.0.0.1:1"]
    await followed(supervisor, workers, with_consul(FOLLOWED, replace(FOLLOWED, name="web")))
    assert [given(worker) for worker in workers.made[3:]] == [["api 127.0.0.1:1"]] * 2
    await followed(supervisor, workers, with_consul(replace(FOLLOWED, scheme="tcp")))
    assert [given(worker) for worker in workers.made[5:]] == [["api 127.0.0.1:1"]] * 2


async def test_with_another_scheme_what_the_configuration_named_is_not_it(
    supervisor: Supervisor, workers: Workers, registries: Registries
) -> None:
    await supervisor.start()
    await followed(supervisor, workers, with_consul(replace(FOLLOWED, scheme="tcp")))
    assert [given(worker) for worker in workers.made[2:]] == [[], []]
    assert registries.shown("api") == []
    await registries.say("api", "10.0.0.1:80")
    await until(lambda: all(worker.told for worker in workers.made[2:]))


async def test_what_a_registry_said_before_the_configuration_named_endpoints_is_forgotten(
    supervisor: Supervisor, workers: Workers, registries: Registries
) -> None:
    supervisor.settings = with_consul(FOLLOWED)
    await supervisor.start()
    await registries.say("api", "10.0.0.1:80")
    await followed(supervisor, workers, SETTINGS)
    await followed(supervisor, workers, with_consul(FOLLOWED))
    assert registries.shown("api") == ["127.0.0.1:1"]
    workers.made[1].die(-9)
    await until(lambda: len(workers.made) == 3 and workers.made[2].start)
    assert given(workers.made[2]) == ["api 127.0.0.1:1"]


async def test_a_reload_tells_workers_nothing_that_they_know(
    supervisor: Supervisor, workers: Workers, registries: Registries, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor.settings = with_consul(FOLLOWED)
    await supervisor.start()
    await registries.say("api", "10.0.0.1:80")
    await until(lambda: all(worker.told for worker in workers.made))
    caplog.set_level(logging.INFO)
    await followed(supervisor, workers, with_consul(replace(FOLLOWED, strategy="random")))
    assert registries.shown("api") == ["10.0.0.1:80"]
    supervisor.worker_said(next(iter(supervisor._workers)), {"kind": "move", "move": {**MOVE, "to": 1}})
    await until(lambda: any(worker.told for worker in workers.made))
    assert not any(message["kind"] == "snapshot" for worker in workers.made for message in worker.told)
    assert "endpoint from consul" not in caplog.text


async def test_a_registry_of_before_changes_no_endpoints_that_are_configured_now(
    supervisor: Supervisor, workers: Workers, registries: Registries
) -> None:
    supervisor.settings = with_consul(FOLLOWED)
    await supervisor.start()
    await registries.say("api", "10.0.0.1:80")
    going_on = asyncio.create_task(reloaded(supervisor, SETTINGS))
    await until(
        lambda: all(worker.told[-1:] and worker.told[-1]["kind"] == "reload" for worker in workers.made)
    )
    supervisor.apply(Snapshot("api", (), "consul"))
    for worker in workers.made:
        worker.channel.send({"kind": "reloaded", "why": ""})
    await going_on
    assert registries.shown("api") == ["127.0.0.1:1"]
    assert all(worker.told[-1]["kind"] == "reload" for worker in workers.made)


async def test_a_worker_takes_no_snapshot_of_an_upstream_that_has_its_endpoints_configured() -> None:
    for upstream, addresses in ((UPSTREAM, ["127.0.0.1:1"]), (FOLLOWED, ["10.0.0.1:80"])):
        app = WorkerApp(replace(SETTINGS, upstreams=(upstream,)), {}, [], Channel(print, print))
        await app.start()
        try:
            app.apply(Snapshot("api", (Endpoint("10.0.0.1", 80),), "consul"))
            assert [state.endpoint.address for state in app.clusters["api"].endpoints.values()] == addresses
        finally:
            await app.close()


# What they have counted


async def test_values_in_parts_are_put_together_and_the_last_word_stands_alone(
    supervisor: Supervisor, workers: Workers
) -> None:
    await supervisor.start()
    one, other = workers.made
    refreshing = asyncio.create_task(supervisor.refresh())
    for worker in workers.made:
        await until(lambda worker=worker: worker.told)
    first: Message = {"counters": {"refused": 1, "upstreams": {}}, "gauges": {"upstreams": {}}}
    more: Message = {"counters": {"upstreams": {}}, "gauges": {"upstreams": {}}, "breakers": {"api": {}}}
    rest: Message = {"breakers": {}, "checks": {}, "next": {}}
    one.channel.send({"kind": "values", "values": {**first, **rest}, "part": 0, "more": True})
    other.channel.send({"kind": "values", "values": {**first, **rest}, "part": 0, "more": False})
    slots = [slot.worker for slot in supervisor._slots]
    await until(lambda: slots[1] is not None and slots[1].values)
    assert not refreshing.done()
    one.channel.send({"kind": "values", "values": {**rest, **more}, "part": 1, "more": False})
    await refreshing
    told = slots[0]
    assert told is not None
    assert told.values is not None
    assert told.values["counters"]["refused"] == 1
    assert told.values["breakers"] == {"api": {}}
    # In the middle of its parts it ends, and says all once more.
    one.channel.send({"kind": "values", "values": {**first, **rest}, "part": 0, "more": True})
    one.channel.send(
        {"kind": "values", "values": {**first, **rest, "counters": {"refused": 7, "upstreams": {}}}}
    )
    await until(lambda: told.values and told.values["counters"]["refused"] == 7)
