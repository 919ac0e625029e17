"""What an App does when its configuration is another one: it goes from one to the other, and what is in both stays.

The listeners are here too, since they are what may fail: sockets are kept apart from who accepts on them (`ports`).
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from sidecar.config.difference import as_far_as_possible, difference
from sidecar.config.resolved import upstream_policy
from sidecar.ending import LAST_CALL
from sidecar.errors import StartError
from sidecar.net.unix import is_unix
from sidecar.ports import Ports, cannot_listen
from sidecar.proxy import Listener
from sidecar.proxy.follow import follow_policy, follow_times
from sidecar.reload import NotNowError

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable

    from sidecar.cluster import Cluster
    from sidecar.config.difference import Difference
    from sidecar.config.settings import Settings, UpstreamSettings
    from sidecar.doors import Doors
    from sidecar.handover import Offer
    from sidecar.leaving import Leaving
    from sidecar.proxy import ProxyContext

__all__ = ["Following"]

_log = logging.getLogger("sidecar")


class Following(ABC):
    """The part of an `App` that follows other settings; the rest of it is what is declared here."""

    settings: Settings
    clusters: dict[str, Cluster]
    listening: list[tuple[str, str]]
    ready: bool
    _context: ProxyContext | None
    _ports: Ports
    _listeners: dict[str, Listener]
    _leaving: Leaving | None
    _doors: Doors | None
    _offer: Offer | None
    _stage: int

    @abstractmethod
    def _add_upstream(self, upstream: UpstreamSettings) -> None:
        """A cluster for `upstream`."""

    @abstractmethod
    async def _prepare(self, settings: Settings) -> None:
        """Open what may fail, and load aside what takes its time, while requests are served. Raises SidecarError."""

    @abstractmethod
    def _unprepare(self) -> None:
        """What was prepared is not wanted after all."""

    @abstractmethod
    def _follow_recording(self) -> bool:
        """Tell others of requests and sessions; whether connections have to be of another kind from now on."""

    @abstractmethod
    def _forget_applied(self, name: str) -> None:
        """The cluster of `name` is another one: what registries have said of it is applied anew."""

    @abstractmethod
    def _apply_static(self, upstream: UpstreamSettings) -> None:
        """The endpoints that the configuration names."""

    @abstractmethod
    def _descriptors_wanted(self) -> int:
        """How many descriptors the bounds add up to."""

    @abstractmethod
    def _raise_descriptor_limit(self) -> None:
        """Allow as many as are wanted, if the system does."""

    @abstractmethod
    def _follow_checks(self) -> None:
        """Check the health of what is configured now."""

    @abstractmethod
    def _follow_registries(self) -> None:
        """Ask other registries, and announce other services."""

    @abstractmethod
    def _follow_watch(self) -> None:
        """Watch the file, or no longer."""

    @abstractmethod
    def _stop_accepting(self) -> None:
        """Accept no more."""

    # Listening

    def _sockets_for(self, name: str, ports: Ports) -> list[tuple[str, socket.socket]]:
        """(host, socket) of each place of the upstream `name`: of sockets that stay open when these are closed.

        Raises StartError, and leaves none of them open then.
        """
        made: list[tuple[str, socket.socket]] = []
        for place in ports.by_upstream.get(name, ()):
            try:
                made.append((place.host, place.sockets[0].dup()))
            except OSError as error:  # no descriptor is left
                _close(made)
                raise cannot_listen(name, place.host, place.port, error) from None
        return made

    async def _listen(self, name: str, sockets: list[tuple[str, socket.socket]]) -> None:
        """Accept for the upstream `name`, on sockets that are its listener's from now on."""
        if not sockets:
            return
        assert self._context is not None
        listener = self._listeners[name] = Listener(self._context, self.clusters[name])
        settings = self.settings.upstream(name).listener
        while sockets:
            host, one = sockets.pop(0)
            unix = is_unix(host)
            secured = self._doors is not None and (settings.socket_tls if unix else settings.port_tls)
            await listener.adopt(
                host,
                one,
                accept_proxy=settings.socket_accept_proxy if unix else settings.accept_proxy,
                tls=self._doors.server_tls(name) if self._doors is not None and secured else None,
            )

    # Another configuration

    async def reload(self, wanted: Settings) -> list[str]:
        """Go by `wanted` from now on, as far as a running sidecar can; a line for each thing that has changed.

        Raises SidecarError, and nothing has changed then.
        """
        self._must_serve()
        settings, warnings = as_far_as_possible(self.settings, wanted)
        for warning in warnings:
            _log.warning("%s", warning)
        found = difference(self.settings, settings)
        if found:
            try:
                await self._prepare(settings)
                self._must_serve()
                await self._switch(settings, found)
            finally:
                self._unprepare()
            for note in settings.notes:
                _log.info("%s", note)
        return found.lines

    def _must_serve(self) -> None:
        if self._offer is not None and self._offer.busy:
            raise NotNowError("not reloading: another process is taking over")
        if self._stage or not self.ready:
            raise NotNowError(f"not reloading: the sidecar is {'ending' if self._stage else 'starting'}")

    async def _switch(self, settings: Settings, found: Difference) -> None:
        """What may fail comes first: then there is nothing to undo but what was opened for it."""
        before, after = self._ports, self._ports.open(settings.upstreams, settings.sidecar.bind)
        opened: dict[str, list[tuple[str, socket.socket]]] = {}
        try:
            for name in _other_listeners(before, after, found):
                opened[name] = self._sockets_for(name, after)
        except StartError:
            for sockets in opened.values():
                _close(sockets)
            after.close(but=before)
            raise
        self._ports = after
        after.set_modes()
        self._follow(settings, found)
        # Who connects meanwhile waits in the queue of a socket that is open all the time, if the port stays.
        for name in opened:
            if name in self._listeners:
                self._listeners.pop(name).close()
        try:
            for name, sockets in opened.items():
                await self._listen(name, sockets)
        finally:
            for sockets in opened.values():  # of a reload that is given up
                _close(sockets)
            before.close(but=after)
            self.listening[:] = after.listening
            if self._stage >= 2:  # told to end meanwhile
                self._stop_accepting()

    def _follow(self, settings: Settings, found: Difference) -> None:
        """All of a reload but for the listeners."""
        wanted_before = self._descriptors_wanted()
        self.settings = settings
        if self._descriptors_wanted() > wanted_before:
            self._raise_descriptor_limit()
        drain = settings.sidecar.drain_timeout
        for upstream in found.removed:
            self._dismiss(upstream.name, drain)
        for change in found.changed:
            if change.scheme:
                # Its clients come back, and are to find the new one: until late nobody is cut off between two requests.
                self._dismiss(change.after.name, drain, drain * (1.0 - LAST_CALL))
                self._add_upstream(change.after)
                self._forget_applied(change.after.name)
            elif (change.endpoints or change.source) and change.after.source.is_static:
                self._apply_static(change.after)
        for upstream in found.added:
            self._add_upstream(upstream)
        self._order()
        if self._doors is not None:
            self._doors.follow(settings, self.clusters)
        self._follow_policies()
        self._follow_registries()
        self._follow_checks()
        self._follow_process(found)

    def _dismiss(self, name: str, within: float, quiet: float = 0.0) -> None:
        assert self._leaving is not None
        self._leaving.add(self.clusters[name], within, quiet)

    def _gone(self, cluster: Cluster) -> None:
        """Nothing of an upstream that is not configured any more is left."""
        assert self._context is not None
        if self.clusters.get(cluster.name) is cluster:
            del self.clusters[cluster.name]
            self._context.hedge_timers.pop(cluster.name, None)

    def _order(self) -> None:
        """Show the clusters as they are configured, then those that leave; whoever reads them has this very mapping."""
        known = dict(self.clusters)
        self.clusters.clear()
        for upstream in self.settings.upstreams:
            self.clusters[upstream.name] = known.pop(upstream.name)
        self.clusters.update(known)

    def _follow_policies(self) -> None:
        assert self._context is not None
        changed = []
        for upstream in self.settings.upstreams:
            cluster = self.clusters[upstream.name]
            policy = upstream_policy(upstream, self.settings.sidecar.zone)
            if policy != cluster.policy:
                cluster.reconfigure(policy)
                changed.append(cluster)
        if self._follow_recording():
            changed = list(self.clusters.values())
        if changed:
            follow_policy(self._context, changed)

    def _follow_process(self, found: Difference) -> None:
        context, sidecar = self._context, self.settings.sidecar
        assert context is not None
        follow_times(
            context,
            head=sidecar.head_timeout,
            idle=sidecar.idle_timeout,
            body_rate=sidecar.min_body_rate,
        )
        context.max_clients = sidecar.max_clients
        if "log_level" in found.process:
            logging.getLogger().setLevel(self.settings.log_level)
        if "sidecar.watch" in found.process:
            self._follow_watch()


def _other_listeners(before: Ports, after: Ports, found: Difference) -> list[str]:
    """Upstreams whose listener comes, goes, or is another one."""
    other = {change.after.name for change in found.changed if change.scheme or change.listener}
    return [
        name
        for name in {**before.by_upstream, **after.by_upstream}
        if name in other or before.by_upstream.get(name) != after.by_upstream.get(name)
    ]


def _close(sockets: Iterable[tuple[str, socket.socket]]) -> None:
    for _, one in sockets:
        one.close()
