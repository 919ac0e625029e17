"""What an App answers about itself: the servers of its own, and what they show and do.

The data path knows nothing of it. What it needs takes longer to load than all the rest, so that it is loaded once
the upstreams are served.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from sidecar.admin.bind import bind
from sidecar.admin.control import ACTIONS, cluster_called, endpoints_called
from sidecar.admin.explain import explain_view, next_of
from sidecar.admin.views import upstreams_view
from sidecar.version import __version__

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

    from sidecar.admin.events import Events
    from sidecar.admin.server import AdminServer
    from sidecar.clock import Clock
    from sidecar.cluster import Cluster
    from sidecar.config.doors import RateSettings
    from sidecar.config.settings import Address, Settings
    from sidecar.handover import Taken
    from sidecar.model import AdminCounts, EndpointState, WorkerCounts
    from sidecar.model.registry import FeedStatus, Registered, SourceStatus
    from sidecar.observe.history import Read, Refresh, Sampler
    from sidecar.observe.metrics import Metrics
    from sidecar.proxy import ProxyContext
    from sidecar.registry.registration import Announcer
    from sidecar.registry.supervisor import SourceSupervisor
    from sidecar.reload import Reloads

__all__ = ["Answering", "load_servers"]


class Answering(ABC):
    """The part of an `App` that is asked; the rest of it is what is declared here."""

    settings: Settings
    clock: Clock
    clusters: dict[str, Cluster]
    reloads: Reloads
    admin_address: str | None
    metrics_address: str | None
    _started_at: float
    _compiled: bool
    _stage: int
    _sockets: list[socket.socket]  # of the metrics and admin servers
    _metrics_sockets: list[socket.socket]
    _admin_sockets: list[socket.socket]
    _servers: list[AdminServer]
    _asked: AdminCounts
    _sampler: Sampler | None
    _events: Events | None
    _registry: SourceSupervisor | None
    _announcer: Announcer | None
    _taken: Taken | None
    _worker_counts: WorkerCounts | None  # where there are several processes

    @abstractmethod
    def _is_ready(self) -> bool:
        """Whether it takes work."""

    @abstractmethod
    def quit(self) -> None:
        """Finish what is in flight, accept nothing more, end."""

    @abstractmethod
    def _in_flight(self) -> int:
        """How much that is."""

    # Its servers

    async def _bind_own(self) -> None:
        """Bind the metrics and admin servers' sockets: a taken port is to end the start before anything is served."""
        where = self.settings.sidecar
        self._metrics_sockets = await self._bind(where.metrics, "metrics")
        self._admin_sockets = await self._bind(where.admin, "admin")
        self.metrics_address = _address(where.metrics, self._metrics_sockets)
        self.admin_address = _address(where.admin, self._admin_sockets)

    async def _bind(self, address: Address, name: str) -> list[socket.socket]:
        taken = [] if self._taken is None else self._taken.sockets(name, str(address))
        bound = taken or await bind(address.host, address.port, name)
        self._sockets += bound
        return bound

    async def _serve_own(self, context: ProxyContext) -> None:
        """Answer on the metrics and admin sockets.

        What that needs takes longer to load than all the rest, so that it is loaded aside: the upstreams'
        listeners are serving already.
        """
        with ThreadPoolExecutor(1) as aside:
            await context.loop.run_in_executor(aside, load_servers)
        from sidecar.admin.server import AdminServer

        metrics, admin = self._own_apps(context)
        for server, sockets in (
            (AdminServer(metrics, self._asked), self._metrics_sockets),
            (AdminServer(admin, self._asked), self._admin_sockets),
        ):
            self._servers.append(server)
            await server.start(sockets)
        if self._sampler is not None:
            self._sampler.start()

    def _own_apps(self, context: ProxyContext) -> tuple[Any, Any]:
        """What answers on the metrics address, and on the admin address."""
        from sidecar.admin.server import metrics_app

        return (
            metrics_app(self._metrics(context).scrape, self._is_ready),
            self._admin_app(self._watch_upstreams()),
        )

    def _metrics(self, context: ProxyContext) -> Metrics:
        from sidecar.observe.metrics import Metrics

        return Metrics(
            self.clusters,
            context,
            compiled=self._compiled,
            workers=self._worker_counts,
            sources=self._sources,
            registered=self._registered,
            clock=self.clock,
            reload_counts=self.reloads.counts,
            detail=lambda: self.settings.sidecar.metrics_detail,
            admin_counts=self._asked,
        )

    def _admin_app(self, events: Events, refresh: Callable[[], Awaitable[None]] | None = None) -> Any:
        """What answers on the admin address. refresh: see `admin_app`."""
        from sidecar.admin.access import Access
        from sidecar.admin.api import admin_app
        from sidecar.admin.effective import config_view
        from sidecar.admin.server import nothing

        return admin_app(
            partial(self.view, lazy=True),
            self.control,
            self.explain,
            refresh or nothing,
            self._answer_reload,
            events=events,
            upstream=self.view_of,
            config=lambda: config_view(self.settings),
            access=Access(lambda: self.settings.sidecar, self.clock, self._asked),
            finish=self.quit,
            in_flight=self._in_flight,
        )

    def _watch_upstreams(self, refresh: Refresh | None = None, read: Read | None = None) -> Events:
        """The history of the upstreams, and events for whoever watches them. refresh, read: see `Sampler`."""
        from sidecar.admin.events import Events
        from sidecar.admin.live import LiveView
        from sidecar.observe.history import Sampler
        from sidecar.observe.readings import read as read_cluster

        self._sampler = Sampler(self.clusters, self.clock, refresh, read or read_cluster)
        view = LiveView(
            self.clusters,
            self.clock,
            draining=lambda: bool(self._stage),
            recent=self._sampler.recent,
            feeds=self._feeds,
            registered=self._registered,
            workers=self._worker_counts,
        )
        self._events = Events(self._sampler, view, self._hello)
        return self._events

    def _hello(self) -> dict[str, Any]:
        """What a stream of events begins with."""
        control = not self.settings.sidecar.admin_read_only
        return {
            "version": __version__,
            "mode": self.settings.mode.value,
            "compiled": self._compiled,
            "control": control,
            "actions": sorted(ACTIONS) if control else [],
            "interval": 1,
        }

    # What they show, and do

    def _sources(self) -> list[SourceStatus]:
        return [] if self._registry is None else self._registry.sources()

    def _feeds(self, upstream: str) -> list[FeedStatus]:
        return [] if self._registry is None else self._registry.feeds(upstream)

    def _registered(self) -> Registered | None:
        return None if self._announcer is None else self._announcer.registered()

    def view(self, *, lazy: bool = False, only: str | None = None) -> dict[str, Any]:
        """What `/upstreams` shows. lazy: see `upstreams_view`. only: of one upstream; raises `UnknownUpstreamError`."""
        return upstreams_view(
            self.clusters if only is None else {only: cluster_called(self.clusters, only)},
            self.clock,
            mode=self.settings.mode.value,
            compiled=self._compiled,
            started_at=self._started_at,
            draining=bool(self._stage),
            workers=self._worker_counts,
            feeds=self._feeds,
            registered=self._registered(),
            recent=None if self._sampler is None else self._sampler.recent,
            lazy=lazy,
        )

    def view_of(self, name: str) -> dict[str, Any]:
        """What `/upstreams/NAME` shows; its endpoints are an iterator. Raises `UnknownUpstreamError`."""
        view: dict[str, Any] = next(self.view(lazy=True, only=name)["upstreams"])
        return view

    def explain(self, name: str) -> dict[str, Any]:
        """What `/explain/NAME` shows. Raises `UnknownUpstreamError`."""
        cluster = cluster_called(self.clusters, name)
        now = self.clock.monotonic()
        spent = cluster.budget.totals(now)
        return explain_view(cluster, self.clock, [next_of(cluster, now)], spent, self._rate_limit(name))

    def _rate_limit(self, name: str) -> RateSettings | None:
        """That of an upstream; None for one that is not configured any more."""
        found = (one.policy.rate_limit for one in self.settings.upstreams if one.name == name)
        return next(found, None)

    def control(self, action: str, name: str, address: str | None) -> list[str]:
        """Do `action` to the endpoint at `address` of an upstream, or to all; where it was done.

        Raises `UnknownUpstreamError`.
        """
        cluster = cluster_called(self.clusters, name)
        states = endpoints_called(cluster, address)
        self._do(action, cluster, states)
        return [state.endpoint.address for state in states]

    def _do(self, action: str, cluster: Cluster, states: list[EndpointState]) -> None:
        ACTIONS[action](cluster, states, self.clock.monotonic())

    async def _answer_reload(self) -> tuple[int, dict[str, Any]]:
        return (await self.reloads.result()).answer

    async def _stop_watching(self) -> None:
        """No server can end while a stream of events goes on."""
        if self._events is not None:
            await self._events.close()
        if self._sampler is not None:
            await self._sampler.close()


def load_servers() -> None:
    """What answers at them, and takes its time to load."""
    import sidecar.admin.api
    import sidecar.admin.effective
    import sidecar.admin.events
    import sidecar.admin.live
    import sidecar.observe.history
    import sidecar.observe.metrics  # noqa: F401 - loading is all


def _address(asked: Address, bound: list[socket.socket]) -> str:
    """The address as it was configured, with the port that it has."""
    return str(replace(asked, port=bound[0].getsockname()[1]))
