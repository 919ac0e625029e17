"""Who announces the local services that `register` names: each while it is well, until the sidecar ends."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, cast

from sidecar.model.registry import REGISTRATION_RESULTS, Registered
from sidecar.registry.announcement import UNDER_WAY, Announcement
from sidecar.registry.sources.catalogue import make_source

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Sequence
    from typing import Any

    from sidecar.config.settings import RegistrationSettings, RegistrySettings
    from sidecar.registry.announcement import Sleep
    from sidecar.registry.sources.source import Registrar, Source, Surroundings

    Make = Callable[[RegistrySettings, Surroundings], Source]

__all__ = ["Announcer"]

# Seconds for all withdrawals at the end. A registry in reach takes milliseconds; one that is not forgets by itself.
GRACE = 2.0

_log = logging.getLogger("sidecar.registry")


class _Registry:
    """A registry that something is announced in."""

    __slots__ = ("settings", "source")

    def __init__(self, settings: RegistrySettings, source: Source) -> None:
        self.settings = settings
        self.source = source

    @property
    def registrar(self) -> Registrar:
        """The same source: the configuration lets no other kind pass."""
        return cast("Registrar", self.source)


class Announcer:
    """Announces `registrations` in those of `registries` that they name."""

    def __init__(
        self,
        registrations: Sequence[RegistrationSettings],
        registries: Sequence[RegistrySettings],
        surroundings: Surroundings,
        *,
        make: Make = make_source,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._counts: dict[str, list[int]] = {}  # they only grow, whatever is followed
        self._surroundings = surroundings
        self._make = make
        self._sleep = sleep
        self._first = (registrations, registries)
        self._registries: dict[str, _Registry] = {}
        self._announcements: dict[tuple[str, str, int], Announcement] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # of what leaves
        self._draining: asyncio.Task[None] | None = None

    # Its life

    def start(self) -> None:
        """Check and announce, from now until `drain` or `close`."""
        self.follow(*self._first)

    def follow(
        self, registrations: Sequence[RegistrationSettings], registries: Sequence[RegistrySettings]
    ) -> None:
        """Go by another configuration: what is the same goes on, what has gone is withdrawn, what is new announced."""
        if self._draining is not None:
            return
        registries_before, self._registries = self._registries, self._wanted(registrations, registries)
        before, self._announcements = self._announcements, {}
        for settings in registrations:
            key = (settings.registry, settings.name, settings.port)
            if key in self._announcements:
                continue  # it is there already; the configuration lets none pass twice
            registry = self._registries[settings.registry]
            old = before.pop(key, None)
            same = old is not None and registries_before.get(settings.registry) is registry
            if old is not None and same and old.settings == settings:
                self._announcements[key] = old
                continue
            new = self._announcements[key] = Announcement(
                settings,
                registry.settings,
                registry.registrar,
                self._surroundings,
                self._counts.setdefault(settings.registry, [0] * len(REGISTRATION_RESULTS)),
                self._sleep,
            )
            after: asyncio.Task[None] | None = None
            if old is not None:
                # In the same place the new one is told over the old one, and nobody misses it for a moment.
                in_place = same and _place(old.settings) == _place(settings)
                after = self._run(self._hand_over(old, new) if in_place else self._dismiss([old]))
            new.start(after)
        gone = list(before.values())
        unused = [one for one in registries_before.values() if one not in self._registries.values()]
        if gone or unused:
            self._run(self._retire(gone, unused, tuple(self._tasks)))

    def _wanted(
        self, registrations: Sequence[RegistrationSettings], registries: Sequence[RegistrySettings]
    ) -> dict[str, _Registry]:
        """The registries that are told something, those of before where they are the same."""
        used = {one.registry for one in registrations}
        found = {}
        for settings in registries:
            if settings.name in used:
                old = self._registries.get(settings.name)
                kept = old is not None and old.settings == settings
                found[settings.name] = (
                    old
                    if kept and old is not None
                    else _Registry(settings, self._make(settings, self._surroundings))
                )
        return found

    def _run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _hand_over(self, old: Announcement, new: Announcement) -> None:
        await old.stop()
        new.inherit(old)

    async def _dismiss(self, announcements: Sequence[Announcement]) -> None:
        """Withdraw them all, within `GRACE`."""
        loop = asyncio.get_running_loop()
        leaving = {loop.create_task(one.leave()): one for one in announcements}
        if not leaving:
            return
        try:
            _, late = await asyncio.wait(leaving, timeout=GRACE)
        except asyncio.CancelledError:
            await _end(leaving)
            raise
        await _end(late)
        for task in late:
            settings = leaving[task].settings
            _log.warning(
                "%s: %s has not answered its withdrawal within %g s; it is forgotten when its ttl of %g s is over",
                settings.name,
                settings.registry,
                GRACE,
                settings.ttl,
            )

    async def _part(self, gone: Sequence[Announcement], stay: Sequence[Announcement]) -> None:
        await asyncio.gather(self._dismiss(gone), *(one.stop() for one in stay))

    async def _retire(
        self, gone: Sequence[Announcement], unused: Sequence[_Registry], before: Sequence[asyncio.Task[None]]
    ) -> None:
        """Withdraw what has gone, and close what nothing is announced in any more, once that is through."""
        await self._dismiss(gone)
        if before:
            await asyncio.wait(before)
        for registry in unused:
            await registry.source.close()

    async def drain(self, kept: Collection[tuple[Any, ...]] = ()) -> None:
        """Withdraw everything, within `GRACE`, and stop; nothing when that has been done.

        kept: (registry, name, port, host, identity) of what another process announces from now on: it stays.
        """
        if self._draining is None:
            gone = [one for one in self._announcements.values() if _identity(one.settings) not in kept]
            stay = [one for one in self._announcements.values() if one not in gone]
            self._draining = self._run(self._part(gone, stay))
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=GRACE + UNDER_WAY)

    async def close(self) -> None:
        """End what goes on, and close the registries. What has not been withdrawn is forgotten after its ttl."""
        if self._draining is None:
            self._draining = self._run(_nothing())
        await _end(tuple(self._tasks))
        for announcement in self._announcements.values():
            announcement.cancel()
        await asyncio.gather(*(one.stop() for one in self._announcements.values()))
        for registry in self._registries.values():
            await registry.source.close()
        self._registries.clear()

    # Being asked

    def registered(self) -> Registered:
        """How each registration is, in their order, and what has come of all."""
        return Registered(tuple(one.status() for one in self._announcements.values()), self._counts)


def _identity(settings: RegistrationSettings) -> tuple[Any, ...]:
    return settings.registry, settings.name, settings.port, settings.host, settings.identity


def _place(settings: RegistrationSettings) -> tuple[str, str]:
    """What, beside its name and port, makes it the same entry of a registry."""
    return settings.host, settings.identity


async def _end(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel them, and wait until they have ended."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


async def _nothing() -> None:
    """Nothing is to be withdrawn."""
