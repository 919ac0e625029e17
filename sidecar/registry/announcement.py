"""One service that a registry is told of while it is well.

Two tasks: one asks the service whether it is well, the other makes the registry know what follows from it. So a check
that takes its time delays no renewal, and a registry that does delays no check.
"""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from sidecar.config.settings import Address
from sidecar.health.probes import Finding, examine, probe_of
from sidecar.model.registry import REGISTRATION_RESULTS, RegistrationStatus
from sidecar.registry.own_host import own_host
from sidecar.registry.telling import words
from sidecar.resilience.backoff import full_jitter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from typing import Any

    from sidecar.config.settings import RegistrationSettings, RegistrySettings
    from sidecar.health.probes import Probe
    from sidecar.registry.sources.source import Registrar, Surroundings

    Sleep = Callable[[float], Awaitable[None]]

__all__ = ["Announcement"]

# Seconds for one word to the registry, of which the hosts that are silent take `source.ANNOUNCE_WITHIN` each.
ANSWER = 5.0
# Seconds before the registry is told again after a failure: up to the first, doubled each time, at most as long as
# between two renewals: one that is back knows all within that time, and an ailing one is asked for little more than a
# well one.
FIRST_BACKOFF = 0.5
LEAST_BACKOFF = 0.1  # chance may say nothing at all
RENEWALS = 3  # in a ttl: one may be lost, and the next is still in time
# Seconds that a word which is under way gets at the end. If it were given up at once, it could still arrive after the
# withdrawal, and stay for a ttl.
UNDER_WAY = 0.5
# A connection that the registry closed while it was idle fails the first withdrawal and not the second.
TRIES = 2

_ANNOUNCED, _RENEWED, _WITHDRAWN, _ERROR = range(len(REGISTRATION_RESULTS))
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")
_log = logging.getLogger("sidecar.registry")


class Announcement:
    """What is told `registry`, through `registrar`, of one service.

    counts: by position in `REGISTRATION_RESULTS`, shared by all of a registry.
    """

    def __init__(
        self,
        settings: RegistrationSettings,
        registry: RegistrySettings,
        registrar: Registrar,
        surroundings: Surroundings,
        counts: list[int],
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.settings = settings
        self.registry = registry
        self._registrar = registrar
        self._surroundings = surroundings
        self._clock = surroundings.clock
        self._counts = counts
        self._sleep = sleep
        self._tasks: list[asyncio.Task[None]] = []  # checking, telling
        # The service
        self._well: bool | None = None  # None before the first answer
        self._last: bool | None = None
        self._in_a_row = 0
        self._ailment = "it has not been asked yet"
        self._unknown = ""  # why it could not be asked the last time
        # The registry
        self._service: RegistrationSettings | None = None  # with its host and identity, once they are known
        self._told = False  # it may know it: it was told, whether or not it answered
        self._known_until = 0.0
        self._leaving = False
        self._wake = asyncio.Event()
        # What is shown
        self._state = "unwell"
        self._error = self._ailment
        self._since = self._clock.monotonic()

    # Its life

    def start(self, after: asyncio.Future[None] | None = None) -> None:
        """Check and tell, from now until `leave` or `stop`. after: what the registry has to be told before."""
        self._begin(self._keep_checking())
        self._begin(self._keep_known(after))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work))

    def inherit(self, other: Announcement) -> None:
        """Stand for what `other`, which has stopped, told of the same place."""
        if other._service is not None:
            host, identity = other._service.host, other._service.identity
            self._service = replace(self.settings, host=host, identity=identity)
        self._told = other._told
        self._known_until = other._known_until

    async def leave(self) -> None:
        """Withdraw it, and stop. What goes wrong is told; whoever waits has to bound it in time."""
        await self._finish()
        for _ in range(TRIES):
            if not self._told:
                break
            try:
                await self._withdraw()
            except Exception as error:
                self._fail(error)
        if not self._told:
            self._enter("withdrawn", "")
            return
        _log.warning(
            "%s: %s forgets it when its ttl of %g s is over",
            self.settings.name,
            self.registry.name,
            self.settings.ttl,
        )

    async def stop(self) -> None:
        """Stop, and leave it as the registry has it."""
        await self._finish()

    def cancel(self) -> None:
        """Let not even what is under way end; `stop` then takes no time."""
        for task in self._tasks:
            task.cancel()

    async def _finish(self) -> None:
        """Start nothing more, and let end what is under way."""
        self._leaving = True
        self._wake.set()
        if not self._tasks:
            return
        checking, telling = self._tasks
        checking.cancel()
        try:
            await asyncio.wait([telling], timeout=UNDER_WAY)
        finally:
            telling.cancel()
            await asyncio.wait(self._tasks)
        self._tasks.clear()

    def status(self) -> RegistrationStatus:
        """How it is."""
        settings = self._service or self.settings
        address = str(Address(settings.host, settings.port)) if self._service or settings.host else ""
        registered = self._clock.monotonic() < self._known_until
        name, registry = settings.name, settings.registry
        return RegistrationStatus(name, registry, address, self._state, self._error, self._since, registered)

    # The service

    async def _keep_checking(self) -> None:
        check = self.settings.check
        probe = probe_of(check, "endpoint", self._surroundings.environ)
        while True:
            began = self._clock.monotonic()
            self._take(await self._ask(probe))
            await self._sleep(max(0.0, began + check.interval - self._clock.monotonic()))

    async def _ask(self, probe: Probe) -> Finding:
        settings = self.settings
        try:
            return await examine(
                probe,
                settings.check_host,
                settings.port,
                settings.check.timeout,
                self._surroundings.resolve,
                self._clock.monotonic,
            )
        except Exception as error:
            said = f"the check itself failed: {type(error).__name__}: {error}"
            return Finding(None, 0.0, said, answered=False)

    def _take(self, found: Finding) -> None:
        """Count an answer, and act when there are enough of a kind. What could not be asked says nothing."""
        name = self.settings.name
        if found.ok is None:
            if found.error != self._unknown:
                _log.warning("%s: cannot be checked: %s", name, found.error)
            self._unknown = found.error
            return
        self._unknown = ""
        self._in_a_row = self._in_a_row + 1 if found.ok is self._last else 1
        self._last = found.ok
        if not found.ok:
            self._ailment = found.error
        check = self.settings.check
        enough = self._well is None or self._in_a_row >= (check.rise if found.ok else check.fall)
        if not enough or found.ok is self._well:
            return
        self._well = found.ok
        if found.ok and self._state == "unwell":
            self._enter("unwell", "its check passes, and the registry has not taken it yet")
        if not found.ok:
            when = "any more" if self._told else "yet"
            _log.warning(
                "%s: not announced in %s %s, as its check fails: %s",
                name,
                self.registry.name,
                when,
                found.error,
            )
            self._enter("unwell", found.error)
        self._wake.set()

    # The registry

    async def _keep_known(self, after: asyncio.Future[None] | None) -> None:
        if after is not None:
            await asyncio.wait([after])
        between = self.settings.ttl / RENEWALS
        failures = 0
        while not self._leaving:
            self._wake.clear()
            began = self._clock.monotonic()
            wait: float | None = None
            try:
                if self._well:
                    await self._announce()
                    wait = max(0.0, began + between - self._clock.monotonic())
                elif self._well is False and self._told:
                    await self._withdraw()
                failures = 0
            except Exception as error:
                self._fail(error)
                wait = full_jitter(failures, FIRST_BACKOFF, between, self._clock.uniform())
                wait = max(LEAST_BACKOFF, wait)
                failures += 1
            if not self._leaving:
                await self._rest(wait)

    async def _rest(self, seconds: float | None) -> None:
        """Until `seconds` have passed, or there is something to do."""
        if seconds is None:
            await self._wake.wait()
            return
        loop = asyncio.get_running_loop()
        waits = [loop.create_task(self._wake.wait()), loop.create_task(self._pass(seconds))]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()

    async def _pass(self, seconds: float) -> bool:
        await self._sleep(seconds)
        return True

    async def _announce(self) -> None:
        began = self._clock.monotonic()
        async with asyncio.timeout(ANSWER):
            service = self._service = self._service or await self._complete()
            self._told = True
            await self._registrar.announce(service)
        again = began < self._known_until
        self._known_until = began + service.ttl
        self._counts[_RENEWED if again else _ANNOUNCED] += 1
        if self._state != "announced" and not self._leaving:
            where = Address(service.host, service.port) if service.host else f"port {service.port}"
            _log.info("%s: announced in %s as %s", service.name, self.registry.name, where)
            self._enter("announced" if self._well else "unwell", "" if self._well else self._ailment)

    async def _complete(self) -> RegistrationSettings:
        """The registration with its host and identity."""
        settings = self.settings
        host = settings.host or await own_host(self.registry, self._surroundings)
        parts = [settings.name, *([host] if host else []), str(settings.port)]
        identity = settings.identity or _NOT_IN_NAMES.sub("-", "-".join(parts))
        return replace(settings, host=host, identity=identity)

    async def _withdraw(self) -> None:
        async with asyncio.timeout(ANSWER):
            await self._registrar.withdraw(self._service or await self._complete())
        self._told = False
        self._known_until = 0.0
        self._counts[_WITHDRAWN] += 1
        _log.info("%s: withdrawn from %s", self.settings.name, self.registry.name)
        if not self._leaving:
            self._enter("unwell", self._ailment)

    def _fail(self, error: Exception) -> None:
        """Count and tell it, once while it stays the same."""
        self._counts[_ERROR] += 1
        said = words(error)
        if (self._state, self._error) != ("failing", said):
            what = "announced in" if self._well and not self._leaving else "withdrawn from"
            _log.warning("%s: cannot be %s %s: %s", self.settings.name, what, self.registry.name, said)
        self._enter("failing", said)

    def _enter(self, state: str, error: str) -> None:
        if state != self._state:
            self._since = self._clock.monotonic()
        self._state, self._error = state, error
