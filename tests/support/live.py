"""A `ServiceRegistry` whose registries say what a test tells them to."""

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

import sidecar.registry.live
from sidecar import ServiceRegistry
from sidecar.config.settings import RegistrySettings
from sidecar.model import Endpoint
from sidecar.registry.assembly import surroundings_of
from sidecar.registry.live import LiveServices
from sidecar.registry.sources.source import Surroundings
from sidecar.registry.supervisor import SourceSupervisor
from support.sources import ScriptedSource
from support.waiting import wait_until

__all__ = [
    "CONSUL",
    "FALLING_BACK",
    "TWO",
    "WEB",
    "Scripted",
    "balancer",
    "live_of",
    "scripted",
    "threads",
    "urls",
]

CONSUL = "external_registry: {type: consul, host: consul.example}\n"
WEB = CONSUL + "services: {web: {}}\nsidecar: {ports: {8000: web}}\n"  # known to consul alone
FALLING_BACK = CONSUL + "services: {web: {host: file.example, port: 80}}\n"
TWO = CONSUL + "services: {web: {}, mail: {}}\nsidecar: {ports: {8000: web, 8001: mail}}\n"


def balancer(policy: str) -> str:
    """A load balancer with this policy, known to consul alone."""
    return f"{CONSUL}load_balancers:\n  web: {{{policy}}}\nsidecar: {{ports: {{8000: web}}}}\n"


def live_of(registry: ServiceRegistry) -> LiveServices:
    """The live half of one that has it."""
    assert registry._live is not None
    return registry._live


class Scripted:
    """sources: by name, those that were made last: a forked process makes its own."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "services.yml"
        self.sources: dict[str, ScriptedSource] = {}
        self.registry: ServiceRegistry

    def start(self, text: str, environ: Mapping[str, str] | None = None) -> ServiceRegistry:
        """A registry of this file."""
        self.file.write_text(text)
        self.registry = ServiceRegistry(self.file, environ=environ or {})
        return self.registry

    def close(self) -> None:
        """End it, if there is one still."""
        if hasattr(self, "registry"):
            self.registry.close()

    def _make(self, settings: RegistrySettings, surroundings: Surroundings) -> ScriptedSource:
        made = self.sources[settings.name] = ScriptedSource(settings, surroundings)
        return made

    def supervisor(self, settings, clock, apply, environ, saved):  # type: ignore[no-untyped-def] # the original's
        """In the place of `assembly.source_supervisor`."""
        return SourceSupervisor(
            settings.upstreams,
            settings.registries,
            surroundings_of(clock, environ),
            apply,
            saved=saved,
            make=self._make,
        )

    def say(self, source: str, name: str, *addresses: str, applied: bool = True) -> None:
        """Have a registry say what a service consists of, and wait until it shows there, unless others hide it."""
        self._call(source, "say", name, *addresses)
        if applied:
            wait_until(lambda: self.addresses(name) == list(addresses), f"{name} at {addresses}")

    def give(self, source: str, name: str, *found: Endpoint) -> None:
        """`say`, with weights and zones."""
        self._call(source, "give", name, found)
        wait_until(lambda: live_of(self.registry).endpoints(name) == found, f"{name} at {found}")

    def fail(self, source: str, name: str, error: Exception) -> None:
        """Have a registry err."""
        self._call(source, "fail", name, error)

    def _call(self, source: str, what: str, *arguments: object) -> None:
        wait_until(lambda: self.sources[source].opened, f"a stream of {source}")
        thread = live_of(self.registry)._thread
        assert thread is not None
        thread.loop.call_soon_threadsafe(getattr(self.sources[source], what), *arguments)

    def addresses(self, name: str) -> list[str]:
        """What a service consists of now."""
        return [endpoint.address for endpoint in live_of(self.registry).endpoints(name)]


@contextmanager
def scripted(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    """Registries that are scripted, of the one `ServiceRegistry` that is made meanwhile. It is closed at the end."""
    found = Scripted(directory)
    monkeypatch.setattr(sidecar.registry.live, "source_supervisor", found.supervisor)
    monkeypatch.setattr("sidecar.registry.supervisor.COALESCE", 0.0)
    try:
        yield found
    finally:
        found.close()


def urls(registry: ServiceRegistry, count: int, path: str = "") -> Counter[str]:
    """How often `web` was at each URL."""
    return Counter(registry.get_service_url("web", path) for _ in range(count))


def threads() -> list[str]:
    """Those that follow registries now."""
    return [thread.name for thread in threading.enumerate() if thread.name == "sidecar registries"]
