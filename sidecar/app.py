"""The composition root: the whole sidecar in the order it is put together, and its life from start to drain.

settings ─► a Cluster for each upstream ─► a Snapshot from its source ─► a Listener on its localhost port
                 │                           (a SourceSupervisor follows registries, where there are any)
                 ├─► a Checker asks its endpoints whether they are well
                 │             an Announcer tells registries of local services, where any are to be announced
                 └─► metrics and admin servers read it

Read again, other settings are followed as a difference: what is in both keeps its sockets, connections, breakers and
counts.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from sidecar.answering import Answering, load_servers
from sidecar.clock import Clock
from sidecar.cluster import Cluster
from sidecar.config.resolved import upstream_policy
from sidecar.config.settings import STATIC
from sidecar.doors import Doors
from sidecar.ending import Ending
from sidecar.following import Following
from sidecar.garbage import Garbage
from sidecar.host_limits import descriptors_note, descriptors_wanted, host_notes, read_host_limits
from sidecar.leaving import Leaving
from sidecar.model import AdminCounts, Endpoint, Snapshot
from sidecar.net.network import close_network, new_event_loop, open_network
from sidecar.notify import Notifier
from sidecar.observe.recorder import Recording
from sidecar.proxy import Listener, ProxyContext
from sidecar.registry.threads import in_thread
from sidecar.reload import Reloads
from sidecar.replacing import Replacing
from sidecar.version import build_name, is_compiled

if TYPE_CHECKING:
    import socket
    from collections.abc import Coroutine

    from sidecar.admin.events import Events
    from sidecar.admin.server import AdminServer
    from sidecar.config.settings import Settings, UpstreamSettings
    from sidecar.handover import Offer, Taken
    from sidecar.health.checker import Checker
    from sidecar.model import WorkerCounts
    from sidecar.observe.history import Sampler
    from sidecar.ports import Ports
    from sidecar.registry.last_good import Kept
    from sidecar.registry.registration import Announcer
    from sidecar.registry.supervisor import SourceSupervisor
    from sidecar.reload import Changes, Load

__all__ = ["App", "run_loop"]

SHOWN_ENDPOINTS = 20  # of one upstream, in the log of the start
_log = logging.getLogger("sidecar")


class App(Ending, Answering, Following, Replacing):
    """One sidecar process.

    load: reads the configuration again, raises ConfigurationError; None where there is nothing to read.
    changes: see `reload.Changes`; None where nobody looks.
    taken: what another process has handed over, whose place this one takes.
    leaving: another process has taken its place.
    clusters: by upstream name. listening: (upstream name, "host:port") of every listener.
    admin_address, metrics_address: "host:port" once started.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock | None = None,
        load: Load | None = None,
        changes: Changes | None = None,
        taken: Taken | None = None,
    ) -> None:
        self.settings = settings
        self.clock = clock or Clock()
        self._started_at = self.clock.wall()
        self._compiled = is_compiled()
        self.clusters: dict[str, Cluster] = {}
        self.listening: list[tuple[str, str]] = []
        self.admin_address: str | None = None
        self.metrics_address: str | None = None
        self.ready = False
        self.leaving = False
        self._notifier = Notifier(os.environ, self.clock, successor=taken is not None)
        self.reloads = Reloads(load, self.reload, self._notifier)
        self._taken = taken
        self._in_place = False
        self._offer: Offer | None = None
        self._silence: asyncio.Task[None] | None = None
        self._changes = changes
        self._asked_early = False
        self._context: ProxyContext | None = None
        self._ports = self._taken_ports(settings.sidecar.workers)
        self._listeners: dict[str, Listener] = {}
        self._leaving: Leaving | None = None
        self._doors: Doors | None = None
        self._sockets: list[socket.socket] = []  # of the metrics and admin servers
        self._servers: list[AdminServer] = []
        self._asked = AdminCounts()
        self._sampler: Sampler | None = None
        self._events: Events | None = None
        self._checker: Checker | None = None
        self._registry: SourceSupervisor | None = None
        self._garbage = Garbage(self.clock)
        self._settled = False
        self._saved: Kept | None = None
        self._announcer: Announcer | None = None
        self._worker_counts: WorkerCounts | None = None
        self._recording: Recording | None = None
        self._withdrawal: asyncio.Task[None] | None = None
        self._stage = 0
        self._stage_changed = asyncio.Event()

    # Starting

    async def start(self) -> None:
        """Bind everything and accept. Raises StartError; nothing stays open then.

        Not `ready` afterwards: it was told to end before it had taken another's place, and serves nothing.
        """
        try:
            await self._start()
        except BaseException:
            await self.close()
            raise

    async def _start(self) -> None:
        settings = self.settings
        self._raise_descriptor_limit()
        loop = asyncio.get_running_loop()
        context = self._context = ProxyContext(
            loop,
            self.clock,
            open_network(loop),
            head_timeout=settings.sidecar.head_timeout,
            idle_timeout=settings.sidecar.idle_timeout,
            min_body_rate=settings.sidecar.min_body_rate,
            max_clients=settings.sidecar.max_clients,
        )
        self._leaving = Leaving(context, self._gone)
        self._record(context)
        self._doors = Doors(context, self.clock)
        self._doors.prepare(settings)
        for upstream in settings.upstreams:
            self._add_upstream(upstream)
        self._doors.follow(settings, self.clusters)
        self._ask_registries()
        await self._bind_own()
        before, self._ports = self._ports, self._open_ports()
        before.close(but=self._ports)
        if self._taken is not None:
            await self._until_settled()
            await in_thread("loading of servers", load_servers)
            if not await self._replace():
                return
        for upstream in settings.upstreams:
            await self._listen(upstream.name, self._sockets_for(upstream.name, self._ports))
        self.listening[:] = self._ports.listening
        context.sweep.start()
        self._follow_checks()
        self._in_place = self._taken is not None
        await self._serve_own(context)
        self._register()
        self._offer_sockets()
        self._discard_taken()
        self._begin_reloads()
        self._garbage.begin()

    def _record(self, context: ProxyContext) -> None:
        """Have requests and sessions told of one by one, where that is asked for. Raises StartError."""
        mode = self.settings.mode.value
        recording = self._recording = Recording(self.clock, context.recording, os.environ, mode)
        recording.prepare(self.settings.sidecar)
        recording.switch()
        context.recorder = recording.recorder

    def _raise_descriptor_limit(self) -> None:
        """Allow as many open sockets as the bounds do, or as the system does: a shell's usual 1024 are too few."""
        wanted = self._descriptors_wanted()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard != resource.RLIM_INFINITY and hard < wanted:
            _log.warning("%s", descriptors_note(wanted, hard))
            wanted = hard
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

    def _descriptors_wanted(self) -> int:
        return descriptors_wanted(self.settings)

    def _add_upstream(self, upstream: UpstreamSettings) -> None:
        """The upstream's cluster, with the endpoints that the configuration names unless a registry is to be asked."""
        policy = upstream_policy(upstream, self.settings.sidecar.zone)
        self.clusters[upstream.name] = Cluster(upstream.name, upstream.scheme, policy, self.clock)
        if upstream.source.is_static:
            self._apply_static(upstream)

    def _apply_static(self, upstream: UpstreamSettings) -> None:
        endpoints = tuple(
            Endpoint(found.host, found.port, found.weight, found.zone) for found in upstream.endpoints
        )
        self.clusters[upstream.name].apply(Snapshot(upstream.name, endpoints, STATIC))

    def _forget_applied(self, name: str) -> None:
        """The cluster of `name` is another one: what registries have said of it is applied anew."""
        if self._registry is not None:
            self._registry.forget(name)

    def _ask_registries(self) -> None:
        """Follow the registries of upstreams that have one, from now on until the process ends."""
        if all(upstream.source.is_static for upstream in self.settings.upstreams):
            return
        from sidecar.registry.assembly import source_supervisor

        saved, self._saved = self._saved, None
        self._registry = source_supervisor(self.settings, self.clock, self.apply, saved=saved, keeps=True)
        self._registry.begin()
        self._registry.start()

    async def _prepare(self, settings: Settings) -> None:
        context = self._context
        assert context is not None
        # A supervisor of workers has none of its own, and refuses what they could not load.
        doors = self._doors or Doors(context, self.clock)
        await in_thread("loading of certificates", partial(doors.prepare, settings))
        if self._recording is not None:
            await self._recording.load(settings.sidecar)
            self._recording.prepare(settings.sidecar)
        if all(upstream.source.is_static for upstream in settings.upstreams):
            return
        if self._registry is None or settings.registries != self.settings.registries:
            with suppress(OSError):  # no thread is to be had: it is loaded when it is needed
                self._saved = await in_thread(
                    "loading of registries", partial(self._load_registries, settings)
                )

    def _unprepare(self) -> None:
        if self._recording is not None:
            self._recording.discard()

    def _follow_recording(self) -> bool:
        context, recording = self._context, self._recording
        if context is None or recording is None:
            return False
        recording.switch()
        before, context.recorder = context.recorder, recording.recorder
        return (before is None) is not (context.recorder is None)

    def _load_registries(self, settings: Settings) -> Kept | None:
        """In a thread: modules, and what was known of registries before, which none have been asked for yet."""
        from sidecar.registry.assembly import last_good_of, load_sources

        load_sources(settings)
        return last_good_of(settings, self.clock).load() if self._registry is None else None

    def apply(self, snapshot: Snapshot) -> None:
        """Have an upstream consist of what a registry says."""
        cluster = self.clusters.get(snapshot.upstream)
        if cluster is not None:
            cluster.apply(snapshot)

    def _follow_checks(self) -> None:
        """Check the endpoints of upstreams with `health_check`, from now until nothing is accepted any more."""
        context = self._context
        assert context is not None
        checked = [upstream for upstream in self.settings.upstreams if upstream.health.active]
        if not checked and self._checker is None:
            return
        from sidecar.health.checker import Checker, watch_of

        watches = [
            watch_of(self.clusters[upstream.name], upstream.health, context.resolver.resolve, self.clock)
            for upstream in checked
        ]
        if self._checker is not None:
            self._checker.follow(watches)
        else:
            self._checker = Checker(watches, self.clock, context.checks)
            context.sweep.members.add(self._checker)

    def _register(self) -> None:
        """Announce what `register` names, and nothing else, from now until the end."""
        if self._announcer is not None:
            self._announcer.follow(self.settings.registrations, self.settings.registries)
        elif self.settings.registrations and not self._stage:
            from sidecar.registry.assembly import announcer

            self._announcer = announcer(self.settings, self.clock)
            self._announcer.start()

    def _open_ports(self) -> Ports:
        return self._ports.open(self.settings.upstreams, self.settings.sidecar.bind)

    def _is_ready(self) -> bool:
        # Where another process has just been ready, nobody is to hear otherwise.
        return (self.ready or self._in_place) and self._has_settled() and not self._stage

    def _has_settled(self) -> bool:
        """Whether registries have given their first words, or had their time for that: once, not at each reload."""
        self._settled = self._settled or self._registry is None or self._registry.settled
        return self._settled

    # Reading the configuration again

    def _begin_reloads(self) -> None:
        """It serves. Whoever has asked before may have changed the file since it was read."""
        self.ready = True
        self._follow_watch()
        if self._asked_early:
            self.reloads.ask()

    def _follow_watch(self) -> None:
        """Read the configuration again when its file changes, or no longer, as `sidecar.watch` says."""
        self.reloads.watch(self._changes if self.settings.sidecar.watch else None)

    def _follow_registries(self) -> None:
        """Ask other registries, or for other upstreams, and announce other services."""
        self._has_settled()  # as it is before: what is asked for now makes nobody less ready
        if self._registry is None:
            self._ask_registries()
        else:
            self._registry.follow(self.settings.upstreams, self.settings.registries)
        self._register()

    # Running

    async def run(self) -> None:
        """Start, serve until a signal, drain, close. Raises StartError."""
        loop = asyncio.get_running_loop()
        # Taken over before the first socket is bound and kept until the loop closes: an impatient second signal
        # must find somebody at home at any moment.
        loop.add_signal_handler(signal.SIGTERM, self._on_sigterm)
        loop.add_signal_handler(signal.SIGINT, self._on_sigint)
        loop.add_signal_handler(signal.SIGHUP, self._on_sighup)
        loop.add_signal_handler(signal.SIGUSR1, self._on_sigusr1)
        await self.start()
        try:
            if self.ready:
                self._announce()
                self._notifier.watch(self._is_ready, self._status, main=self._in_place)
                await self._stage_changed.wait()
                await self._drain()
        finally:
            await self.close()
        _log.info("stopped")

    def _announce(self) -> None:
        settings = self.settings
        _log.info(
            "sidecar started from %s, mode %s, %s",
            settings.origin,
            settings.mode.value,
            build_name(),
        )
        for note in settings.notes:
            _log.info("%s", note)
        for note in host_notes(settings, read_host_limits()):
            _log.warning("%s", note)
        places: dict[str, list[str]] = {}
        for name, address in self.listening:
            places.setdefault(name, []).append(address)
        for upstream in settings.upstreams:
            if upstream.skipped:
                _log.warning("%s: not listening: %s", upstream.name, upstream.skipped)
            if upstream.name in places:
                there = [state.endpoint.address for state in self.clusters[upstream.name].endpoints.values()]
                source = "" if upstream.source.is_static else f" ({', '.join(upstream.source.use)})"
                if upstream.routes:
                    there = list(dict.fromkeys(name for route in upstream.routes for name, _ in route.to))
                endpoints = ", ".join(there[:SHOWN_ENDPOINTS]) or "none yet"
                if len(there) > SHOWN_ENDPOINTS:
                    endpoints += f" and {len(there) - SHOWN_ENDPOINTS} more"
                where = " and ".join(places[upstream.name])
                _log.info("%s: %s -> %s%s", upstream.name, where, endpoints, source)
        _log.info("admin: http://%s/", self.admin_address)
        _log.info("metrics: http://%s/metrics", self.metrics_address)

    # Ending

    def _on_sigterm(self) -> None:
        self._hurry(self._stage + 1)

    def _on_sigint(self) -> None:
        self._hurry(max(2, self._stage + 1))

    def _on_sighup(self) -> None:
        if self.ready or self._stage:
            self.reloads.ask()
        else:
            self._asked_early = True

    def _on_sigusr1(self) -> None:
        """Whoever rotates logs has moved the access log's file away."""
        if self._recording is not None:
            self._recording.reopen()

    async def close(self) -> None:
        """Close everything at once, what is announced withdrawn before; safe to call at any time and again."""
        self.ready = self._in_place = False
        self._garbage.end()
        await self._close_replacing()
        await self._stop_watching()
        await self.reloads.close()
        await self._stop_announcing()
        self._stop_accepting()
        if self._doors is not None:
            self._doors.close()
        if self._registry is not None:
            await self._registry.close()
        if self._context is not None:
            self._context.sweep.stop()
            if self._checker is not None:
                await self._checker.close()
            self._context.resolver.close()
            for member in tuple(self._context.sweep.members):
                member.shut()
            # One turn for the transports to tell their protocols, one for what those close in turn.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            close_network(self._context.network)
        await asyncio.gather(*(server.stop() for server in self._servers))
        if self._recording is not None:
            await self._recording.close()
        for one in self._sockets:
            one.close()
        self._servers.clear()
        self._sockets.clear()
        self._listeners.clear()

    async def _stop_announcing(self) -> None:
        announcer, self._announcer = self._announcer, None
        if announcer is None:
            return
        if self._stage < 3:
            await announcer.drain()
        await announcer.close()
        if self._withdrawal is not None:
            await asyncio.wait([self._withdrawal])


def run_loop(main: Coroutine[Any, Any, int]) -> int:
    """Run `main` to its exit code, on the compiled build's own loop or else on uvloop."""
    with asyncio.Runner(loop_factory=_new_event_loop) as runner:
        return runner.run(main)


def _new_event_loop() -> asyncio.AbstractEventLoop:
    loop = new_event_loop()
    if loop is None:
        import uvloop

        loop = uvloop.new_event_loop()
    return loop
