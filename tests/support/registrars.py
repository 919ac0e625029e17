"""A registry that services are announced in, as a test has it behave."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest

from sidecar.clock import Clock
from sidecar.config.settings import HealthSettings, RegistrationSettings, RegistrySettings, Settings
from sidecar.model import Snapshot
from sidecar.registry import assembly
from sidecar.registry.registration import Announcer
from sidecar.registry.sources.source import Registrar, Source, Surroundings, Wanted

__all__ = ["ScriptedRegistrar", "announce_in", "registration"]


def registration(name: str = "api", port: int = 8080, **values: object) -> RegistrationSettings:
    """One entry of register: announced in `etcd` after one success, withdrawn after two failures."""
    check = HealthSettings(kind="tcp", active=True, interval=1.0, timeout=1.0, rise=1, fall=2)
    settings = RegistrationSettings(name, "etcd", "10.0.0.7", port, "", check)
    return replace(settings, **values)  # type: ignore[arg-type] # the fields' own types


class ScriptedRegistrar(Source, Registrar):
    """Keeps what it is told. known: by identity. told: (`announce` or `withdraw`, identity) of every call.

    errors: what the next calls raise. answers: while it is clear, calls wait for it.
    """

    def __init__(self, settings: RegistrySettings, surroundings: Surroundings | None = None) -> None:
        super().__init__(settings.name)
        self.settings = settings
        self.known: dict[str, RegistrationSettings] = {}
        self.told: list[tuple[str, str]] = []
        self.errors: list[Exception] = []
        self.error: Exception | None = None  # of all calls, while it is set
        self.answers = asyncio.Event()
        self.answers.set()
        self.asked = asyncio.Event()  # a call has come
        self.cancelled = 0
        self.closed = False

    async def announce(self, service: RegistrationSettings) -> None:
        await self._called("announce", service)
        self.known[service.identity] = service

    async def withdraw(self, service: RegistrationSettings) -> None:
        await self._called("withdraw", service)
        self.known.pop(service.identity, None)

    async def _called(self, what: str, service: RegistrationSettings) -> None:
        assert not self.closed
        self.told.append((what, service.identity))
        self.asked.set()
        try:
            await self.answers.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.errors:
            raise self.errors.pop(0)
        if self.error is not None:
            raise self.error

    async def watch(self, wanted: Sequence[Wanted]) -> AsyncIterator[Snapshot | None]:
        raise AssertionError("nobody is followed here")
        yield None

    async def close(self) -> None:
        self.closed = True


def announce_in(registrar: ScriptedRegistrar, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have whoever announces do so in `registrar`, whatever registries its settings name."""

    def announcer(made: Settings, clock: Clock) -> Announcer:
        surroundings = assembly.surroundings_of(clock, {})
        return Announcer(made.registrations, made.registries, surroundings, make=lambda *_: registrar)

    monkeypatch.setattr(assembly, "announcer", announcer)
