"""The process that was started when `sidecar.workers` is above 1: a sidecar whose data path is in its workers.

It is an App as far as starting, ending and being asked goes; where an App listens, this one starts workers, restarts
those that die, and answers `/metrics` and `/upstreams` with sums. When the configuration is read again it tells them,
or, where other ports are listened on, replaces them all.
Its clusters serve nobody: they show what the workers' clusters add up to, see `values.Whole`.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Any

from sidecar.admin.control import cluster_called
from sidecar.admin.explain import explain_view
from sidecar.admin.server import metrics_app
from sidecar.answering import load_servers
from sidecar.app import App
from sidecar.doors import Doors
from sidecar.ending import DRAIN_POLL, LAST_CALL
from sidecar.errors import StartError
from sidecar.host_limits import OWN_DESCRIPTORS
from sidecar.model import Snapshot, WorkerCounts
from sidecar.observe.recorder import Recording
from sidecar.proxy import ProxyContext
from sidecar.registry.threads import in_thread
from sidecar.reload import NotNowError
from sidecar.resilience import BreakerState
from sidecar.routers import Routers
from sidecar.version import __version__
from sidecar.workers.backoff import Backoff
from sidecar.workers.process import WorkerProcess, spawn
from sidecar.workers.readings import SummedReadings
from sidecar.workers.standing import Standing
from sidecar.workers.values import HAND_MOVES, Whole, clear_shown
from sidecar.workers.wire import (
    Move,
    Order,
    from_plain,
    is_followed,
    plain_order,
    plain_snapshot,
    reload_message,
    to_plain,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from sidecar.clock import Clock
    from sidecar.cluster import Cluster
    from sidecar.config.difference import Difference
    from sidecar.config.settings import Settings
    from sidecar.handover import Taken
    from sidecar.model import EndpointState
    from sidecar.ports import Ports
    from sidecar.reload import Changes, Load
    from sidecar.workers.channel import Message
    from sidecar.workers.process import Spawn

__all__ = ["Supervisor"]

ASK_TIMEOUT = (
    1.0  # seconds in which workers have to tell their counts: a tenth of Prometheus's usual scrape_timeout
)
RELOAD_TIMEOUT = 10.0  # seconds in which a worker has to follow other settings, which takes milliseconds
GRACE = 2.0  # seconds beyond drain_timeout, or beyond the third signal, after which a worker is killed

_log = logging.getLogger("sidecar")


class _Slot:
    """One worker's place: its sockets go from one to the next. worker: the present one, None while it is dead."""

    __slots__ = ("backoff", "number", "timer", "worker")

    def __init__(self, number: int) -> None:
        self.number = number
        self.worker: WorkerProcess | None = None
        self.backoff = Backoff()
        self.timer: asyncio.TimerHandle | None = None

    def cancel(self) -> None:
        """Start no other worker after all."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Supervisor(App):
    """One sidecar of several processes.

    load, changes: see `App`. log_format: for the workers' logs.
    """

    def __init__(
        self,
        settings: Settings,
        load: Load,
        log_format: str = "auto",
        clock: Clock | None = None,
        spawn: Spawn = spawn,
        changes: Changes | None = None,
        taken: Taken | None = None,
    ) -> None:
        super().__init__(settings, clock, load, changes, taken)
        count = settings.sidecar.workers
        self.counts = self._worker_counts = WorkerCounts(count)
        self._log_format = log_format
        self._spawn = spawn
        self._slots = [_Slot(number) for number in range(count)]
        self._workers: set[WorkerProcess] = set()  # all that have not ended
        self._whole = Whole()
        self._readings = SummedReadings()
        self._standing = Standing()
        self._routers = Routers(self.clock)  # nobody is routed here: they say what is shown
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking: asyncio.Task[None] | None = None

    # Starting

    async def _start(self) -> None:
        settings = self.settings
        self._raise_descriptor_limit()
        context = self._context = ProxyContext(asyncio.get_running_loop(), self.clock)
        # Only to find out at a reload what workers would fail at: here nothing is told of.
        self._recording = Recording(self.clock, context.recording, os.environ, settings.mode.value)
        self._recording.assume(settings.sidecar)
        self._doors = Doors(context, self.clock)  # for the same: nothing follows it here
        self._doors.prepare(settings)
        self._show(settings)
        self._ask_registries()
        await self._bind_own()
        if self._taken is None:
            await self._serve_own(self._context)
        before, self._ports = self._ports, self._open_ports()
        before.close(but=self._ports)
        self.listening[:] = self._ports.listening
        await self._until_settled()
        try:
            workers = await self._start_workers(settings, self._ports)
        except StartError:
            if self._stage:  # told to end, they did
                return
            raise
        for slot, worker in zip(self._slots, workers, strict=True):
            slot.worker = worker
        if self._taken is not None:
            await in_thread("loading of servers", load_servers)
            if not await self._replace():
                return
            self._in_place = True
            for worker in tuple(self._workers):
                worker.tell({"kind": "accept"})
            await self._serve_own(self._context)
        self._register()
        self._offer_sockets()
        self._discard_taken()
        self._begin_reloads()
        self._garbage.begin()

    def _descriptors_wanted(self) -> int:
        """A worker inherits the limit; this process needs all of the sockets."""
        upstreams = self.settings.upstreams
        places = sum(one.listen_port is not None for one in upstreams) * len(self.settings.sidecar.bind)
        places += sum(bool(one.listener.socket) for one in upstreams)
        sockets = places * self.counts.configured
        return max(super()._descriptors_wanted(), sockets + OWN_DESCRIPTORS)

    def _own_apps(self, context: ProxyContext) -> tuple[Any, Any]:
        return (
            metrics_app(self._metrics(context).scrape, self._is_ready, self.refresh),
            self._admin_app(self._watch_upstreams(self._refresh_history, self._readings.read), self.refresh),
        )

    def _is_ready(self) -> bool:
        return super()._is_ready() and all(slot.worker and slot.worker.serves for slot in self._slots)

    def _on_sigusr1(self) -> None:
        for worker in tuple(self._workers):
            worker.tell({"kind": "reopen"})

    def _announce(self) -> None:
        super()._announce()
        pids = ", ".join(str(slot.worker.pid) for slot in self._slots if slot.worker)
        _log.info("%d workers: %s", len(self._slots), pids)

    def _show(self, settings: Settings) -> None:
        """Have the clusters of `settings` to show sums in."""
        known = self._snapshots_for(settings)
        self.settings = settings
        self.clusters.clear()
        for upstream in settings.upstreams:
            self._add_upstream(upstream)
        self._routers.follow(settings, self.clusters)
        for snapshot in known:
            super().apply(snapshot)
        self._standing.show(self.clusters)
        assert self._context is not None
        self._context.max_clients = settings.sidecar.max_clients * self.counts.configured

    # Workers

    async def _start_workers(self, settings: Settings, ports: Ports) -> list[WorkerProcess]:
        """One for each slot, ready. Raises StartError when one will never be, and none is left then."""
        started = [await self._launch(slot.number, lambda: settings, ports) for slot in self._slots]
        await asyncio.wait([worker.ready for worker in started])
        failed = [worker for worker in started if not worker.serves]
        if failed:
            for worker in started:
                worker.kill()
            await asyncio.wait([worker.ended for worker in started])
            raise StartError(failed[0].ready.result() or f"worker {failed[0].slot} {failed[0].end}")
        return started

    async def _launch(self, slot: int, wanted: Callable[[], Settings], ports: Ports) -> WorkerProcess:
        sockets = [
            (name, place.host, place.sockets[slot].fileno())
            for name, places in ports.by_upstream.items()
            for place in places
        ]

        def message() -> Message:
            settings = wanted()
            checked = [upstream.name for upstream in settings.upstreams if upstream.health.active]
            return {
                "kind": "start",
                "version": __version__,
                "settings": to_plain(settings),
                "log_format": self._log_format,
                "slot": slot,
                "waits": self._taken is not None and not self._in_place,
                "sockets": sockets,
                "moves": [to_plain(move) for move in self._standing.moves_for(checked)],
                "orders": [plain_order(order) for order in self._standing.orders()],
                "snapshots": [plain_snapshot(snapshot) for snapshot in self._snapshots_for(settings)],
            }

        worker = WorkerProcess(slot, self, self.clock.monotonic())
        self._workers.add(worker)
        await worker.start(message, [descriptor for _, _, descriptor in sockets], self._spawn)
        if self._stage:
            self._tell_stage(worker)
        return worker

    def _snapshots_for(self, settings: Settings) -> list[Snapshot]:
        """What upstreams with registries consist of now, for whoever is to go by `settings`.

        Until its registry has spoken an upstream keeps the endpoints that the configuration named, if it had none
        before: as in a single process, where a reload takes no endpoint away that nobody has said to be gone.
        """
        found = []
        named = {upstream.name for upstream in self.settings.upstreams if upstream.source.is_static}
        for upstream in settings.upstreams:
            cluster = self.clusters.get(upstream.name)
            if upstream.source.is_static or cluster is None or not cluster.source:
                continue
            if upstream.name in named and cluster.scheme != upstream.scheme:  # those speak something else
                continue
            endpoints = tuple(state.endpoint for state in cluster.endpoints.values())
            found.append(Snapshot(upstream.name, endpoints, cluster.source))
        return found

    def apply(self, snapshot: Snapshot) -> None:
        """Show it, and have all workers go by it, and those that come later."""
        if not is_followed(
            self.settings, snapshot.upstream
        ):  # of before a reload, whose workers know already
            return
        cluster = self.clusters.get(snapshot.upstream)
        if cluster is not None:
            clear_shown(cluster)
            cluster.apply(snapshot)
            self._whole.forget_gone(cluster)
            self._standing.forget_gone(self.clusters, cluster.name)
        message = {"kind": "snapshot", "snapshot": plain_snapshot(snapshot)}
        for worker in tuple(self._workers):
            worker.tell(message)

    def worker_said(self, worker: WorkerProcess, message: Message) -> None:
        """A breaker of it has moved: all others follow. What checks hold open is for those that come."""
        self._standing.note(from_plain(Move, message["move"]))
        if message["kind"] == "held":
            return
        for other in tuple(self._workers):
            if other is not worker:
                other.tell({"kind": "move", "move": message["move"]})

    def _do(self, action: str, cluster: Cluster, states: list[EndpointState]) -> None:
        """All workers do it, and those that come later; it is told of once, as somebody's who asked for it once."""
        now = self.clock.monotonic()
        for state in states:
            key = (cluster.name, *state.endpoint.key)
            was_open = key in self._standing.tripped or state.breaker.state is not BreakerState.CLOSED
            if action in HAND_MOVES and (action == "trip" or was_open):
                self._whole.note(cluster.name, state, *HAND_MOVES[action], now)
            self._standing.do(action, key, now)
            state.drained = key in self._standing.drained
        order = plain_order(Order(action, now, cluster.name, tuple(state.endpoint.key for state in states)))
        for worker in tuple(self._workers):
            worker.tell({"kind": "do", "order": order})

    def worker_ended(self, worker: WorkerProcess) -> None:
        """Keep what it counted, and start another if it should be there."""
        self._workers.discard(worker)
        self._readings.bury(worker)
        if worker.values is not None:
            self._whole.bury(worker.values)
        slot = self._slots[worker.slot]
        if slot.worker is not worker:  # it was leaving, or is not in use yet
            return
        slot.worker = None
        if self._stage:
            self._ports.close_slot(slot.number)  # nobody comes to serve its queue any more
            return
        wait = slot.backoff.after(self.clock.monotonic() - worker.started_at)
        self.counts.restarts += 1
        why = worker.ready.result()
        _log.error(
            "worker %d (pid %d) %s%s; starting another%s",
            worker.slot,
            worker.pid,
            worker.end,
            f": {why}" if why else "",
            f" in {wait:g} s" if wait else "",
        )
        slot.timer = asyncio.get_running_loop().call_later(wait, self._restart, slot)

    def _restart(self, slot: _Slot) -> None:
        slot.timer = None
        self._run(self._put_another(slot))

    async def _put_another(self, slot: _Slot) -> None:
        ports = self._ports
        worker = await self._launch(slot.number, lambda: self.settings, ports)
        if ports is not self._ports:  # a reload has filled the place meanwhile
            worker.kill()
        elif worker.ended.done():
            slot.worker = worker
            self.worker_ended(worker)
        else:
            slot.worker = worker

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Being asked

    def explain(self, name: str) -> dict[str, Any]:
        cluster = cluster_called(self.clusters, name)
        present = [slot.worker for slot in self._slots if slot.worker and slot.worker.serves]
        said = [
            (worker.slot, worker.values)
            for worker in present
            if worker.values and name in worker.values["next"]
        ]
        picks = [{"worker": number, **values["next"][name]} for number, values in said]
        spent = [values["gauges"]["upstreams"][name]["budget"] for _, values in said]
        requests, retries = (sum(one) for one in zip(*spent, strict=True)) if spent else (0, 0)
        return explain_view(cluster, self.clock, picks, (requests, retries), self._rate_limit(name))

    async def refresh(self) -> None:
        """Have the clusters show what all workers have counted by now."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.get_running_loop().create_task(self._ask())
        await asyncio.shield(self._asking)

    async def _ask(self) -> None:
        asked = [worker.ask() for worker in self._workers if worker.serves]
        if asked:
            await asyncio.wait(asked, timeout=ASK_TIMEOUT)
        present = [slot.worker for slot in self._slots if slot.worker and slot.worker.serves]
        self.counts.silent = sum(not answer.done() for answer in asked)
        self.counts.running = len(present)
        self.counts.leaving = sum(worker.serves for worker in self._workers) - len(present)
        # A silent one's last word stands in for it: totals never go down.
        said = [worker.values for worker in self._workers if worker.values is not None]
        assert self._context is not None
        self._whole.show(said, self.clusters, self._context, self.counts.configured)

    async def _refresh_history(self, watched: bool) -> None:
        """Bring up to date what the history is made of, and for who watches all that is shown."""
        asked = [worker.ask_readings() for worker in self._workers if worker.serves]
        until = asyncio.get_running_loop().time() + ASK_TIMEOUT
        if watched:
            await self.refresh()  # meanwhile: a worker that is silent is waited for once
        if asked:
            await asyncio.wait(asked, timeout=max(0.0, until - asyncio.get_running_loop().time()))
        self._readings.add_up(self._workers, self.clusters)

    # Reading the configuration again

    async def _switch(self, settings: Settings, found: Difference) -> None:
        if found.listeners or not self._ports.are_reached:
            await self._replace_workers(settings)
        else:
            await self._tell_workers(settings, found)
        self._follow_registries()
        self._whole.forget_all_but(self.clusters)
        if self._recording is not None:
            self._recording.assume(settings.sidecar)
        self._standing.forget_gone(self.clusters)
        if "log_level" in found.process:
            logging.getLogger().setLevel(settings.log_level)
        if "sidecar.watch" in found.process:
            self._follow_watch()

    async def _replace_workers(self, settings: Settings) -> None:
        """Other sockets need other processes. Raises StartError, and those before go on."""
        ports = self._ports.open(settings.upstreams, settings.sidecar.bind)
        try:
            workers = await self._start_workers(settings, ports)
        except BaseException as error:
            ports.close(but=self._ports)
            if self._stage and isinstance(error, StartError):  # which is why they have ended
                raise NotNowError("not reloading: the sidecar is ending") from None
            raise
        if self._stage:  # told to end meanwhile: those before do that
            ports.close(but=self._ports)
            for worker in workers:
                worker.kill()
            raise NotNowError("not reloading: the sidecar is ending")
        before, self._ports = self._ports, ports
        ports.set_modes()
        for slot, worker in zip(self._slots, workers, strict=True):
            slot.cancel()
            slot.backoff = Backoff()
            if slot.worker is not None:
                self._send_away(slot.worker)
            slot.worker = worker
        before.close(but=ports)
        self._show(settings)
        self.listening[:] = ports.listening

    async def _tell_workers(self, settings: Settings, found: Difference) -> None:
        """On the same sockets workers follow by themselves, with all that they have. One that does not is replaced."""
        self._show(settings)  # first: whoever is started from now on is started with it
        message = reload_message(settings, {change.after.name for change in found.changed})
        told = [worker for worker in self._workers if not worker.leaving]
        answers = {worker: worker.reload(message) for worker in told if worker.serves}
        for worker in told:
            if worker not in answers:  # it starts, and does as told then
                worker.reload(message)
        if answers:
            await asyncio.wait(answers.values(), timeout=RELOAD_TIMEOUT)
        for worker, answer in answers.items():
            why = answer.result() if answer.done() else "no answer"
            if why and not worker.ended.done():
                _log.error("worker %d (pid %d) does not reload: %s", worker.slot, worker.pid, why)
                worker.kill()

    def _send_away(self, worker: WorkerProcess) -> None:
        if not worker.serves:
            worker.kill()
            return
        worker.leaving = True
        worker.tell({"kind": "leave"})
        wait = self.settings.sidecar.drain_timeout + GRACE  # of the configuration that it was started with
        asyncio.get_running_loop().call_later(wait, worker.kill)

    # Ending

    def leave(self) -> None:
        for worker in tuple(self._workers):
            worker.leaving = True
            worker.tell({"kind": "leave"})
        super().leave()

    def _hurry(self, stage: int) -> None:
        if not self._stage:
            self._notifier.stopping()
        self._stage = stage
        self._withdraw()
        for slot in self._slots:
            slot.cancel()
        for worker in tuple(self._workers):
            self._tell_stage(worker)
        super()._hurry(stage)

    def _tell_stage(self, worker: WorkerProcess) -> None:
        """How far it is to be in ending: not in the second stage before nobody is sent here any more."""
        stage = 1 if self._stage == 2 and self._withdrawing else self._stage
        if self._stage >= 2 and not worker.ready.done():
            worker.kill()  # it has nothing to finish
        else:
            worker.tell({"kind": "stage", "stage": stage})

    def _stop_accepting(self) -> None:
        self._ports.close()

    async def _drain(self) -> None:
        """Wait until all workers have ended, and end those that do not in time."""
        timeout = self.settings.sidecar.drain_timeout
        deadline = self.clock.monotonic() + timeout
        last_call = deadline - timeout * LAST_CALL
        end = deadline + GRACE
        await self._until_withdrawn()
        for worker in tuple(self._workers):
            self._tell_stage(worker)
        while self._workers:
            now = self.clock.monotonic()
            if self._stage == 1 and all(slot.worker.quiet for slot in self._slots if slot.worker):
                self._stage = 2
                for worker in tuple(self._workers):
                    self._tell_stage(worker)
                self._stop_accepting()
            elif self._stage == 1 and now >= last_call:
                self._hurry(2)
            if self._stage >= 3:
                end = min(end, now + GRACE)
            if now >= end:
                _log.warning("%d of the workers do not end by themselves: killed", len(self._workers))
                for worker in tuple(self._workers):
                    worker.kill()
                await asyncio.wait([worker.ended for worker in self._workers])
            await asyncio.sleep(DRAIN_POLL)

    async def close(self) -> None:
        await self._stop_watching()
        await self._stop_announcing()
        self._stage = self._stage or 3  # from here on nobody is started again
        for slot in self._slots:
            slot.cancel()
        reload = self.reloads.stop()
        tasks = self._tasks if reload is None else self._tasks | {reload}
        # What is under way may start workers yet, which end as soon as they are there.
        while self._workers or not all(task.done() for task in tasks):
            for worker in self._workers:
                worker.kill()
            ends: list[asyncio.Future[Any]] = [*tasks, *(worker.ended for worker in self._workers)]
            await asyncio.wait(ends, timeout=DRAIN_POLL, return_when=asyncio.FIRST_COMPLETED)
        await super().close()
