"""A source that says what a test tells it to, and the settings of upstreams that use it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from sidecar.config.settings import (
    EndpointSettings,
    PolicySettings,
    RegistrySettings,
    SourceSettings,
    UpstreamKind,
    UpstreamSettings,
)
from sidecar.model import Endpoint, Snapshot
from sidecar.registry.sources.source import Source, Surroundings, Wanted

__all__ = ["ScriptedSource", "endpoints", "registry", "upstream"]


def endpoints(*addresses: str) -> tuple[Endpoint, ...]:
    """`host:port` each."""
    parts = (address.rpartition(":") for address in addresses)
    return tuple(Endpoint(host, int(port)) for host, _, port in parts)


def registry(name: str, kind: str = "consul", **values: object) -> RegistrySettings:
    """One entry of external_registry."""
    return replace(RegistrySettings(name, kind), **values)  # type: ignore[arg-type] # the fields' own types


def upstream(name: str, *use: str, static: Sequence[str] = (), **source: object) -> UpstreamSettings:
    """One that uses these sources, and has these endpoints in the file."""
    settings = replace(SourceSettings(use or ("static",)), **source)  # type: ignore[arg-type] # as above
    named = tuple(EndpointSettings(one.host, one.port) for one in endpoints(*static))
    return UpstreamSettings(
        name=name,
        kind=UpstreamKind.LOAD_BALANCER,
        scheme="http",
        endpoints=named,
        strategy="round_robin",
        health_endpoint="/health",
        listen_port=None,
        skipped=None,
        policy=PolicySettings(),
        source=settings,
    )


class ScriptedSource(Source):
    """Its streams give what `say`, `live`, `fail` and `end` put into them.

    each: one stream for each upstream. opened: what was asked for, by stream. open: streams that are open now.
    """

    def __init__(self, settings: RegistrySettings, surroundings: Surroundings, *, each: bool = False) -> None:
        super().__init__(settings.name)
        self.each = each
        self.opened: list[tuple[Wanted, ...]] = []
        self.open = 0
        self.closed = False
        self.changed = asyncio.Event()  # a stream has been opened or has ended
        self._said: dict[tuple[str, ...], asyncio.Queue[object]] = {}

    def streams(self, wanted: Sequence[Wanted]) -> list[tuple[Wanted, ...]]:
        return [(one,) for one in wanted] if self.each else super().streams(wanted)

    def _queue(self, name: str) -> "asyncio.Queue[object]":
        return next(queue for names, queue in self._said.items() if name in names)

    def say(self, name: str, *addresses: str) -> None:
        self.give(name, endpoints(*addresses))

    def give(self, name: str, found: tuple[Endpoint, ...]) -> None:
        self._queue(name).put_nowait(Snapshot(name, found, self.name))

    def live(self, name: str) -> None:
        self._queue(name).put_nowait(None)

    def fail(self, name: str, error: Exception) -> None:
        self._queue(name).put_nowait(error)

    def end(self, name: str) -> None:
        self._queue(name).put_nowait(StopAsyncIteration)

    async def watch(self, wanted: Sequence[Wanted]) -> AsyncIterator[Snapshot | None]:
        self.opened.append(tuple(wanted))
        queue = self._said.setdefault(tuple(one.upstream for one in wanted), asyncio.Queue())
        self.open += 1
        self.changed.set()
        try:
            while (said := await queue.get()) is not StopAsyncIteration:
                if isinstance(said, Exception):
                    raise said
                assert said is None or isinstance(said, Snapshot)
                yield said
        finally:
            self.open -= 1
            self.changed.set()

    async def close(self) -> None:
        self.closed = True
