"""How an App takes the place of another process, and how it gives its own to one (`handover` is the talk between them).

One process accepts at a time: the new one has everything in hand, tells the old one, and accepts when that has stopped.
"""

from __future__ import annotations

import asyncio
import logging
import os
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from sidecar.ending import DRAIN_POLL
from sidecar.errors import StartError
from sidecar.handover import Offer, listen, name_of
from sidecar.ports import Ports

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from sidecar.admin.server import AdminServer
    from sidecar.config.settings import Settings
    from sidecar.handover import Item, Message, Taken
    from sidecar.notify import Notifier
    from sidecar.registry.registration import Announcer
    from sidecar.reload import Reloads

__all__ = ["Replacing"]

_log = logging.getLogger("sidecar")


class Replacing(ABC):
    """The part of an `App` that comes after another process, or before one; the rest of it is declared here."""

    settings: Settings
    reloads: Reloads
    ready: bool
    _ports: Ports
    _stage: int
    _servers: list[AdminServer]
    _admin_sockets: list[socket.socket]
    _metrics_sockets: list[socket.socket]
    _announcer: Announcer | None
    _withdrawal: asyncio.Task[None] | None
    _taken: Taken | None
    _offer: Offer | None
    _notifier: Notifier
    _silence: asyncio.Task[None] | None

    @abstractmethod
    def leave(self) -> None:
        """Others have the sockets: accept no more, finish, end."""

    @abstractmethod
    def _has_settled(self) -> bool:
        """Whether registries have given their first words, or had their time for that."""

    @abstractmethod
    async def _stop_watching(self) -> None:
        """End what no server can end beside."""

    # Before another

    def _offer_sockets(self) -> None:
        """Let a later process ask for the sockets, from now on."""
        admin = self.settings.sidecar.admin
        if not admin.port:  # nobody could know the name
            return
        found = [] if self._taken is None else self._taken.sockets("takeover")
        if found:
            listening = found[0]
        else:
            try:
                listening = listen(name_of(str(admin)))
            except OSError as error:
                why = (error.strerror or str(error)).lower()
                _log.warning("`sidecar run --takeover` will not find this process: %s", why)
                return
        self._offer = Offer(self, listening)

    async def offered(self, request: Message) -> Sequence[Item]:
        """See `handover.Owner`."""
        await self.reloads.idle()  # none begins from now on, see `Following`
        if self._stage or not self.ready:
            raise StartError(f"it is {'ending' if self._stage else 'starting'}")
        if request.get("workers") != self._ports.slots:
            # Sockets that share a port have queues of their own: fewer would lose what waits in one, and more would
            # lose what has come to those that the new process opens, if it fails.
            raise StartError(
                f"it has sidecar.workers: {self._ports.slots}, and the new one {request.get('workers')!r}; "
                "give it the same number, or stop the running one first"
            )
        assert self._offer is not None
        items: list[Item] = [(["takeover"], self._offer.listening)]
        where = self.settings.sidecar
        items += [(["admin", str(where.admin)], one) for one in self._admin_sockets]
        items += [(["metrics", str(where.metrics)], one) for one in self._metrics_sockets]
        items += [(["port", *what], one) for what, one in self._ports.all_sockets()]
        return items

    def give_way(self, pid: int, word: Message) -> Message:
        """See `handover.Owner`."""
        files = [str(host) for host in word.get("files", ())]
        kept = {tuple(one) for one in word.get("announced", ())}
        watchdog = self._notifier.watchdog
        _log.info("process %d has taken over; finishing what is in flight", pid)
        assert self._offer is not None
        self._offer.stop()
        self._ports.leave_files(files)
        self._notifier.close()  # the service is another process now, whose end this is not
        for server in self._servers:
            server.stop_listening()
        self._silence = asyncio.get_running_loop().create_task(self._stop_answering())
        if self._announcer is not None and self._withdrawal is None:
            self._withdrawal = asyncio.get_running_loop().create_task(self._announcer.drain(kept))
        self.leave()
        return {"watchdog": watchdog}

    async def _stop_answering(self) -> None:
        await self._stop_watching()
        await asyncio.gather(*(server.stop() for server in self._servers))

    # After another

    def _taken_ports(self, slots: int) -> Ports:
        """The places that were handed over."""
        ports = Ports(slots)
        if self._taken is not None:
            ports.adopt(self._taken.ports())
        return ports

    async def _until_settled(self) -> None:
        """Before another is replaced: nobody is to be answered that there are no endpoints, who had some before."""
        while self._taken is not None and not self._has_settled() and not self._stage:  # noqa: ASYNC110 - time settles it too
            await asyncio.sleep(DRAIN_POLL)

    async def _replace(self) -> bool:
        """Have the other process accept no more; from then on it is this one's to do. Raises StartError.

        False where this one has been told to end meanwhile: it begins nothing then, and the other goes on.
        """
        assert self._taken is not None
        if self._stage:
            self._taken.close()
            return False
        pid = self._taken.pid
        announced = [
            [one.registry, one.name, one.port, one.host, one.identity] for one in self.settings.registrations
        ]
        _log.info("ready; process %d is asked to leave", pid)
        answer = await self._taken.replace(announced=announced, files=self._ports.unix)
        watchdog = answer.get("watchdog")
        if isinstance(watchdog, float):
            self._notifier.inherit(watchdog)
        self._ports.take_files()
        _log.info("process %d is taken over from; this is process %d", pid, os.getpid())
        return True

    def _discard_taken(self) -> None:
        """What nobody wants of it is closed."""
        if self._taken is not None:
            self._taken.settle()

    def _status(self) -> str:
        """What a service manager shows of it."""
        count = len(self.settings.upstreams)
        return f"{count} upstream{'' if count == 1 else 's'}, admin at {self.settings.sidecar.admin}"

    async def _close_replacing(self) -> None:
        if self._taken is not None:
            self._taken.close()
        self._notifier.close()
        offer, self._offer = self._offer, None
        if offer is not None:
            await offer.close()
        if self._silence is not None:
            await asyncio.wait([self._silence])
