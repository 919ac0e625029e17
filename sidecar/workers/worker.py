"""A worker process: an App on sockets that it inherits, without servers of its own, doing what its supervisor says.

What it is told (`kind`): start, accept, stage, leave, move, do, reload, reopen, snapshot, values, readings. It tells:
ready or failed, then move, held, quiet, reloaded, values, readings. Signals are for the supervisor, which may be in the
same foreground group or control group as its workers and passes on what they mean. A worker whose supervisor has gone
drains by itself, as at SIGTERM, and takes signals then.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from collections import deque
from typing import TYPE_CHECKING, Any

from sidecar.admin.control import ACTIONS
from sidecar.app import App
from sidecar.config.difference import difference
from sidecar.config.settings import Settings
from sidecar.errors import StartError
from sidecar.observe.logs import configure
from sidecar.resilience import BreakerState
from sidecar.version import __version__
from sidecar.workers.channel import Channel
from sidecar.workers.readings import ToldReadings
from sidecar.workers.values import parts, values_of
from sidecar.workers.wire import (
    Move,
    Order,
    from_plain,
    is_followed,
    order_of,
    reloaded_settings,
    snapshot_of,
    to_plain,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.clock import Clock
    from sidecar.cluster import Cluster
    from sidecar.config.settings import UpstreamSettings
    from sidecar.model import EndpointState, Snapshot
    from sidecar.ports import Ports
    from sidecar.proxy import ProxyContext
    from sidecar.workers.channel import Message

__all__ = ["WorkerApp", "inherited", "work"]

# How long the others leave an endpoint to the worker whose probe is out: five times the default connect_timeout. After
# that they take it for lost, with its client or its worker, and one of them sends the next.
HEAD_START = 5.0  # seconds
FAREWELL = 2.0  # seconds for the last counts to reach the supervisor

_BY_HAND = (
    "`sidecar worker` is what `sidecar run` starts when sidecar.workers is above 1, nothing to start by hand"
)


class WorkerApp(App):
    """One worker's part of the sidecar.

    sockets: (host, descriptor) of each listening socket, by upstream. moves: of breakers, before it was there.
    orders: what was done by hand before and still holds. snapshots: the last that registries gave.
    waits: it accepts nothing before it is told to, as others have the sockets.
    alone: the supervisor has gone.
    """

    def __init__(
        self,
        settings: Settings,
        sockets: dict[str, list[tuple[str, int]]],
        moves: list[Move],
        channel: Channel,
        clock: Clock | None = None,
        orders: Sequence[Order] = (),
        snapshots: Sequence[Snapshot] = (),
        *,
        waits: bool = False,
    ) -> None:
        super().__init__(settings, clock)
        self.waits = waits
        self._waiting: list[tuple[str, list[tuple[str, socket.socket]]]] = []
        self._notifier.close()  # the supervisor tells
        self.alone = False
        self._inherited = sockets
        self._moves = moves
        self._orders = orders
        self._snapshots = snapshots
        self._channel = channel
        self.readings = ToldReadings(channel.send)
        self._told_quiet = False
        self._ended = False

    # What an App does otherwise

    def _raise_descriptor_limit(self) -> None:
        """At the start the supervisor has, and limits are inherited."""
        if self.ready:
            super()._raise_descriptor_limit()

    def _add_upstream(self, upstream: UpstreamSettings) -> None:
        super()._add_upstream(upstream)
        self.clusters[upstream.name].watcher = self

    def _ask_registries(self) -> None:
        """The supervisor does, and tells."""
        for snapshot in self._snapshots:
            self.apply(snapshot)

    def apply(self, snapshot: Snapshot) -> None:
        """Not where its configuration names the endpoints: other workers' may be that before a reload, or after it."""
        if is_followed(self.settings, snapshot.upstream):
            super().apply(snapshot)

    def _follow_registries(self) -> None:
        """The same."""

    def _register(self) -> None:
        """The supervisor announces, once for all."""

    async def _bind_own(self) -> None:
        """What is known of endpoints comes before the first request."""
        for move in self._moves:
            self.adopt(move, failing=move.failing)
        for order in self._orders:
            self.do(order)

    async def _serve_own(self, context: ProxyContext) -> None:
        """The supervisor answers for all."""

    def _offer_sockets(self) -> None:
        """They are the supervisor's."""

    def _open_ports(self) -> Ports:
        """The supervisor has."""
        return self._ports

    def _sockets_for(self, name: str, ports: Ports) -> list[tuple[str, socket.socket]]:
        return [
            (host, socket.socket(fileno=descriptor)) for host, descriptor in self._inherited.get(name, ())
        ]

    async def _listen(self, name: str, sockets: list[tuple[str, socket.socket]]) -> None:
        if self.waits:
            self._waiting.append((name, sockets))
        else:
            await super()._listen(name, sockets)

    def _stop_accepting(self) -> None:
        super()._stop_accepting()
        for _, sockets in self._waiting:
            for _, one in sockets:
                one.close()
        self._waiting.clear()

    def _say(self, stage: int) -> None:
        """The supervisor has said it."""

    def _leave_first_stage(self, *, quiet: bool) -> None:
        """The whole is quiet when all workers are, and that is the supervisor's to know."""
        if self.leaving or self.alone:
            super()._leave_first_stage(quiet=quiet)
        elif quiet is not self._told_quiet:
            self._told_quiet = quiet
            self._channel.send({"kind": "quiet", "quiet": quiet})

    # What it is told

    async def accept(self) -> None:
        """Others have stopped to: the sockets are this one's."""
        self.waits = False
        while self._waiting:
            await self._listen(*self._waiting.pop(0))

    def reach(self, stage: int) -> None:
        """Be at least so far in ending, see `App._hurry`."""
        if stage > self._stage:
            self._hurry(stage)

    def reopen(self) -> None:
        """The access log's file has been moved away."""
        self._on_sigusr1()

    def has_to_load(self, settings: Settings) -> bool:
        """Whether `load` comes before `follow`."""
        return self._recording is not None and self._recording.has_to_load(settings.sidecar)

    async def load(self, settings: Settings) -> None:
        """Load aside what `follow` would hold requests up for."""
        assert self._recording is not None
        await self._recording.load(settings.sidecar)

    def follow(self, settings: Settings) -> None:
        """Go by other settings, whose listeners are the same ones."""
        found = difference(self.settings, settings)
        if found:
            assert self._recording is not None
            self._recording.prepare(settings.sidecar)
            self._follow(settings, found)

    def lose_supervisor(self) -> None:
        """Drain alone."""
        self.alone = True
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._on_sigterm)
        loop.add_signal_handler(signal.SIGINT, self._on_sigint)
        self.reach(1)

    def adopt(self, move: Move, *, failing: bool = False) -> None:
        """Another worker's breaker has moved. failing: and its checks stand in for those that are not made here yet."""
        cluster = self.clusters.get(move.upstream)
        if cluster is not None:
            key = (move.host, move.port)
            cluster.adopt(key, move.to, move.at, move.open_until, move.opened_in_a_row, failing)

    def do(self, order: Order) -> None:
        """What somebody has asked the supervisor for."""
        cluster = self.clusters.get(order.upstream)
        if cluster is None:  # its configuration is another one, for the moment of a reload
            return
        states = [cluster.endpoints[key] for key in order.endpoints if key in cluster.endpoints]
        if states:
            ACTIONS[order.action](cluster, states, order.at)

    def values(self) -> dict[str, Any]:
        """Everything counted so far."""
        assert self._context is not None
        return values_of(self.clusters, self._context)

    def end_values(self) -> dict[str, Any]:
        """The same for the last time."""
        self._ended = True
        return self.values()

    def tell_values(self) -> None:
        """The same in parts, one in each turn of the loop: there are requests to serve between them."""
        self._tell_part(parts(self.clusters), 0)

    def _tell_part(self, told: list[dict[str, Cluster]], number: int) -> None:
        if self._ended:  # and has told everything
            return
        assert self._context is not None
        part = values_of(told[number], self._context, first=number == 0)
        more = number + 1 < len(told)
        self._channel.send({"kind": "values", "values": part, "part": number, "more": more})
        if more:
            asyncio.get_running_loop().call_soon(self._tell_part, told, number + 1)

    # What it tells

    def moved(self, cluster: Cluster, state: EndpointState, now: float) -> None:
        """A breaker of its own has moved (`cluster.BreakerWatcher`)."""
        self._tell("move", cluster, state, now)

    def held(self, cluster: Cluster, state: EndpointState, now: float) -> None:
        """Its checks hold one open, or no longer. The others have their own; those that come are told."""
        self._tell("held", cluster, state, now)

    def _tell(self, kind: str, cluster: Cluster, state: EndpointState, now: float) -> None:
        breaker, endpoint = state.breaker, state.endpoint
        until = now + HEAD_START if breaker.state is BreakerState.HALF_OPEN else breaker.open_until
        move = Move(
            cluster.name,
            endpoint.host,
            endpoint.port,
            breaker.state,
            now,
            until,
            breaker.opened_in_a_row,
            breaker.failing,
        )
        self._channel.send({"kind": kind, "move": to_plain(move)})

    async def serve(self) -> None:
        """Until it is told to end, and has."""
        await self._stage_changed.wait()
        await self._drain()


class _Conversation:
    """What is said before there is an App, or while it loads what it needs, and by whom it is heard then."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.channel = Channel(self._receive, self._lost)
        self.start: asyncio.Future[Message | None] = loop.create_future()  # None: the supervisor has gone
        self.lost = asyncio.Event()
        self._app: WorkerApp | None = None
        self._held: deque[Message] = deque()
        self._loading: asyncio.Task[None] | None = None
        self._accepting: asyncio.Task[None] | None = None

    def hand_over(self, app: WorkerApp) -> None:
        """Let `app`, which has started, do all that it is told."""
        self._app = app
        while self._held and self._app is not None:
            self._do(app, self._held.popleft())
        if self.lost.is_set() and self._app is not None:
            app.lose_supervisor()

    def part(self) -> None:
        """Its App has ended."""
        self._app = None

    def _receive(self, message: Message) -> None:
        if message["kind"] == "start" and not self.start.done():
            self.start.set_result(message)
        elif self._app is None:
            self._held.append(message)
        else:
            self._do(self._app, message)

    def _do(self, app: WorkerApp, message: Message) -> None:
        kind = message["kind"]
        if kind == "move":
            app.adopt(from_plain(Move, message["move"]))
        elif kind == "do":
            app.do(order_of(message["order"]))
        elif kind == "snapshot":
            app.apply(snapshot_of(message["snapshot"]))
        elif kind == "values":
            app.tell_values()
        elif kind == "readings":
            app.readings.tell(app.clusters)
        elif kind == "reload":
            self._reload(app, message)
        elif kind == "stage":
            app.reach(message["stage"])
        elif kind == "reopen":
            app.reopen()
        elif kind == "leave":
            app.leave()
        elif kind == "accept":
            self._accepting = asyncio.get_running_loop().create_task(app.accept())

    def _reload(self, app: WorkerApp, message: Message) -> None:
        """Have `app` go by other settings, and say so or why not. What is told meanwhile waits until then."""
        try:
            settings = reloaded_settings(message, app.settings)
            if app.has_to_load(settings):
                self._app = None
                self._loading = asyncio.get_running_loop().create_task(self._reload_loaded(app, settings))
                return
            app.follow(settings)
        except Exception as error:  # whatever it is: the supervisor says it, and starts another one
            self._tell_reloaded(error)
        else:
            self._tell_reloaded()

    async def _reload_loaded(self, app: WorkerApp, settings: Settings) -> None:
        try:
            await app.load(settings)
            app.follow(settings)
        except Exception as error:  # the same
            self._tell_reloaded(error)
        else:
            self._tell_reloaded()
        self.hand_over(app)

    def _tell_reloaded(self, error: Exception | None = None) -> None:
        why = "" if error is None else f"{type(error).__name__}: {error}"
        self.channel.send({"kind": "reloaded", "why": why})

    def _lost(self) -> None:
        self.lost.set()
        if not self.start.done():
            self.start.set_result(None)
        if self._app is not None:
            self._app.lose_supervisor()


def inherited(descriptor: int) -> socket.socket:
    """The worker's end of its channel. Raises StartError when it is none.

    To be called before there is an event loop, whose own sockets are of the same kind.
    """
    try:
        end = socket.socket(fileno=descriptor)
    except (OSError, ValueError, OverflowError):
        raise StartError(_BY_HAND) from None
    if end.family != socket.AF_UNIX:
        raise StartError(_BY_HAND)
    return end


async def work(end: socket.socket) -> int:
    """Be a worker that is told what to do over `end`; the exit code. Raises StartError."""
    conversation = _Conversation()
    channel = conversation.channel
    await channel.open(asyncio.get_running_loop(), end)
    code = 0
    message = await conversation.start
    if message is not None:
        try:
            app = _app(message, channel)
            await app.start()
        except Exception as error:
            # Whatever it is: the supervisor says it in one line, and may have an older configuration to go on with.
            why = str(error) if isinstance(error, StartError) else f"{type(error).__name__}: {error}"
            channel.send({"kind": "failed", "why": why})
            code = 1
        else:
            channel.send({"kind": "ready"})
            conversation.hand_over(app)
            try:
                await app.serve()
            finally:
                await app.close()
            conversation.part()
            channel.send({"kind": "values", "values": app.end_values()})
    channel.close()
    try:
        await asyncio.wait_for(conversation.lost.wait(), FAREWELL)
    except TimeoutError:
        return code
    return code


def _app(message: Message, channel: Channel) -> WorkerApp:
    """What the start message asks for."""
    if message["version"] != __version__:
        was = f"version {message['version']} has become {__version__} while it runs"
        raise StartError(f"{was}; start the sidecar anew")
    settings = from_plain(Settings, message["settings"])
    configure(settings.log_level, message["log_format"], sys.stderr)
    logging.getLogger().handlers[0].addFilter(_Mark(message["slot"]))
    sockets: dict[str, list[tuple[str, int]]] = {}
    for name, host, descriptor in message["sockets"]:
        sockets.setdefault(name, []).append((host, descriptor))
    moves = [from_plain(Move, move) for move in message["moves"]]
    orders = [order_of(order) for order in message["orders"]]
    snapshots = [snapshot_of(snapshot) for snapshot in message["snapshots"]]
    waits = message["waits"]
    return WorkerApp(settings, sockets, moves, channel, orders=orders, snapshots=snapshots, waits=waits)


class _Mark(logging.Filter):
    """Which worker says it."""

    def __init__(self, slot: int) -> None:
        super().__init__()
        self._slot = slot

    def filter(self, record: logging.LogRecord) -> bool:
        """Mark and pass everything."""
        record.worker = self._slot
        return True
