"""How an App ends: in stages, each quicker than the one before, and none that a request has to notice."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sidecar.clock import Clock
    from sidecar.cluster import Cluster
    from sidecar.config.settings import Settings
    from sidecar.leaving import Leaving
    from sidecar.notify import Notifier
    from sidecar.ports import Ports
    from sidecar.proxy import Listener, ProxyContext
    from sidecar.registry.registration import Announcer

__all__ = ["DRAIN_POLL", "LAST_CALL", "Ending"]

# How long no request may have come before a draining sidecar believes that its application has ended.
DRAIN_QUIET = 0.5  # seconds
DRAIN_POLL = 0.05  # seconds between looks at what is still going on

# The share of the drain time that is left for what is in flight when the application does not stop asking.
LAST_CALL = 0.25

_log = logging.getLogger("sidecar")


class Ending(ABC):
    """The part of an `App` that drains and ends; the rest of it is what is declared here."""

    settings: Settings
    clock: Clock
    clusters: dict[str, Cluster]
    _context: ProxyContext | None
    _ports: Ports
    _listeners: dict[str, Listener]
    _leaving: Leaving | None
    _announcer: Announcer | None
    _withdrawal: asyncio.Task[None] | None
    leaving: bool
    _notifier: Notifier
    _stage: int
    _stage_changed: asyncio.Event

    @abstractmethod
    async def close(self) -> None:
        """Close everything at once."""

    def _hurry(self, stage: int) -> None:
        """Stages: 1 drain and go on accepting, 2 finish what is in flight and accept no more, 3 end at once.

        With the first of them what is announced is withdrawn, and the second closes no listener before that is done.
        """
        if not self._stage:
            self._notifier.stopping()
        self._stage = stage
        self._say(stage)
        if self._context is not None:
            self._context.draining = True
        self._withdraw()
        if stage >= 3 or (stage == 2 and not self._withdrawing):
            self._stop_accepting()
        self._stage_changed.set()

    def leave(self) -> None:
        """Others have taken over the sockets: accept no more, finish, end."""
        self.leaving = True
        self._stop_accepting()
        if not self._stage:
            self._hurry(1)

    def quit(self) -> None:
        """Whoever it serves has ended, and says so: the second stage, if it has not come so far."""
        if self._stage < 2:
            self._hurry(2)

    def _withdraw(self) -> None:
        if self._announcer is not None and self._withdrawal is None:
            self._withdrawal = asyncio.get_running_loop().create_task(self._announcer.drain())

    @property
    def _withdrawing(self) -> bool:
        return self._withdrawal is not None and not self._withdrawal.done()

    async def _until_withdrawn(self) -> None:
        """Wait until nobody is sent here any more, and do what has waited for that. `Announcer` bounds its time."""
        while self._withdrawing and self._stage < 3:
            assert self._withdrawal is not None
            await asyncio.wait([self._withdrawal], timeout=DRAIN_POLL)
        if self._stage >= 2:
            self._stop_accepting()

    def _say(self, stage: int) -> None:
        more = "accepting no more" if self.leaving else "once more to accept no new connections"
        said = {
            1: f"draining for up to {self.settings.sidecar.drain_timeout:g} s; {more}",
            2: "finishing what is in flight, accepting no more; once more to end at once",
        }
        _log.info("%s", said.get(stage, "ending at once"))

    def _stop_accepting(self) -> None:
        for listener in self._listeners.values():
            listener.close()
        self._ports.close()

    async def _drain(self) -> None:
        """Wait until there is nothing to finish, at most drain_timeout.

        An outbound sidecar goes on accepting at first: its application is still ending its own work
        (behaviour 2), and has ended it when nothing is in flight and nothing has come for a while.
        """
        timeout = self.settings.sidecar.drain_timeout
        deadline = self.clock.monotonic() + timeout
        last_call = deadline - timeout * LAST_CALL
        await self._until_withdrawn()
        seen, quiet_since = self._handled(), self.clock.monotonic()
        while self._stage < 3:
            now = self.clock.monotonic()
            if now >= deadline:
                _log.warning("drain time is over with %d still in flight", self._in_flight())
                return
            if self._in_flight() or self._handled() != seen:
                seen, quiet_since = self._handled(), now
            if self._stage == 1:
                self._leave_first_stage(quiet=now - quiet_since >= DRAIN_QUIET)
            if self._stage == 1 and now >= last_call:
                self._hurry(2)
            if self._stage == 2 and not self._retire_quiet(now):
                return
            await asyncio.sleep(DRAIN_POLL)

    def _leave_first_stage(self, *, quiet: bool) -> None:
        """Once nothing has come for a while, the application has ended its own work.

        Where others have the sockets a client's idle connection is not closed before the last quarter of the drain
        time: its next request may be on its way, and is answered with `Connection: close`.
        """
        if quiet and not (self.leaving and self._context is not None and self._context.clients):
            self._stage = 2
            self._stop_accepting()

    def _retire_quiet(self, now: float) -> bool:
        """Close what has nothing to finish; whether anything has."""
        if self._context is None:
            return False
        busy = [member for member in tuple(self._context.sweep.members) if member.retire(now)]
        return bool(busy)

    def _in_flight(self) -> int:
        """Requests and sessions that somebody waits for: of those that mirrors get, nobody does."""
        clusters = {*self.clusters.values(), *(self._leaving or ())}
        copies = 0 if self._context is None else self._context.copies
        going_on: int = sum(cluster.stats.in_flight + cluster.stats.sessions_active for cluster in clusters)
        return going_on - copies

    def _handled(self) -> int:
        return sum(
            sum(cluster.stats.requests) + sum(cluster.stats.sessions) for cluster in self.clusters.values()
        )
