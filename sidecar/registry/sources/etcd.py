"""etcd: services are listed, then watched from that revision on, and announced under leases.

Reading order: `etcd_gateway` (how it is asked), `etcd_entries` (what it says), `etcd_watch` (at one member), and here
who is asked when a member fails; `etcd_leases` announces.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING

from sidecar.errors import SourceError
from sidecar.registry.sources.etcd_entries import Complaints, Service
from sidecar.registry.sources.etcd_gateway import Gateway, GatewayError, together
from sidecar.registry.sources.etcd_leases import Leases
from sidecar.registry.sources.etcd_watch import LOOK_EVERY, ListAgainError, list_services, watch_services
from sidecar.registry.sources.source import Registrar, Source

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from sidecar.config.settings import RegistrationSettings, RegistrySettings
    from sidecar.model import Snapshot
    from sidecar.registry.sources.source import Surroundings, Wanted

__all__ = ["EtcdSource"]

_log = logging.getLogger("sidecar.registry")

# Listings in a row without a look at the member between them. A history that is compacted faster than it can be
# followed is no history.
MAX_LISTINGS = 5


class EtcdSource(Source, Registrar):
    """The services of an etcd, `<prefix>/<service>/<identity>` each."""

    def __init__(self, settings: RegistrySettings, surroundings: Surroundings) -> None:
        super().__init__(settings.name)
        self._settings = settings
        self._surroundings = surroundings
        self._complaints = Complaints(settings.name)
        self._leases = Leases(settings, surroundings)
        self._first = 0  # position of the member that is asked first: the last one that answered, or the next
        self._every = min(LOOK_EVERY, settings.stale_after / 3)

    async def watch(self, wanted: Sequence[Wanted]) -> AsyncGenerator[Snapshot | None, None]:
        """See `Source.watch`. A member that fails is followed by the next; each may fail once between two looks."""
        services = self._services(wanted)
        async with Gateway(self._settings, self._surroundings) as gateway:
            failures: list[SourceError] = []
            while True:
                at = self._first % len(gateway.members)
                try:
                    async with aclosing(self._follow(gateway, gateway.members[at], services)) as items:
                        async for snapshots in items:
                            if snapshots is None:
                                failures.clear()
                            for snapshot in snapshots or (None,):
                                yield snapshot
                                await asyncio.sleep(
                                    0
                                )  # hundreds are known at once, and taken over one by one
                except SourceError as error:
                    failures.append(error)
                    if isinstance(error, GatewayError) and error.same_at_all:
                        raise
                    self._first = at + 1
                    if len(failures) >= len(gateway.members):
                        raise together(failures) from None
                    _log.warning("%s: %s; the next member is asked", self.name, error)

    async def _follow(
        self, gateway: Gateway, member: str, services: Sequence[Service]
    ) -> AsyncGenerator[tuple[Snapshot, ...] | None, None]:
        """What one member says, for as long as it does; None for each look at it."""
        listings = 0
        while True:
            listings += 1
            if listings > MAX_LISTINGS:
                raise SourceError(f"{member}: its history is compacted faster than it can be followed")
            await list_services(gateway, member, services)
            news = False
            for service in services:
                if known := service.snapshots():
                    news = True
                    yield known
            if not news:
                yield ()
            try:
                watching = watch_services(gateway, member, services, self._surroundings.clock, self._every)
                async with aclosing(watching) as items:
                    async for snapshots in items:
                        if snapshots is None:
                            listings = 0
                        yield snapshots
            except ListAgainError:
                continue

    def _services(self, wanted: Sequence[Wanted]) -> tuple[Service, ...]:
        """Each that is wanted, once, however many upstreams it is for."""
        by_name: dict[str, list[Wanted]] = {}
        for one in wanted:
            by_name.setdefault(one.service, []).append(one)
        return tuple(
            Service(self.name, self._settings.prefix, name, for_them, self._complaints)
            for name, for_them in by_name.items()
        )

    async def announce(self, service: RegistrationSettings) -> None:
        """See `Registrar.announce`."""
        await self._leases.announce(service)

    async def withdraw(self, service: RegistrationSettings) -> None:
        """See `Registrar.withdraw`."""
        await self._leases.withdraw(service)

    async def close(self) -> None:
        """See `Source.close`."""
        await self._leases.close()
