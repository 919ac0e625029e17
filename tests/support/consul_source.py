"""The consul source under test, and what it says."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from sidecar.clock import Clock
from sidecar.config.settings import Address, RegistrySettings
from sidecar.errors import SourceError
from sidecar.model import Endpoint, Snapshot
from sidecar.registry.look_ups import LookUps
from sidecar.registry.sources.consul import ConsulSource
from sidecar.registry.sources.source import Surroundings, Wanted
from support.consul import ConsulAgent

__all__ = ["WEB", "asked", "error_of", "news", "source_of"]

WEB = Wanted("shop", "web")


def source_of(*agents: ConsulAgent, environ: dict[str, str] | None = None, **changed: Any) -> ConsulSource:
    """A source of these agents, in that order. changed: other settings than the defaults."""
    hosts = tuple(Address(agent.host, agent.port) for agent in agents)
    settings = RegistrySettings(name="consul", kind="consul", **{"hosts": hosts} | changed)
    return ConsulSource(settings, Surroundings(Clock(), environ or {}, LookUps().resolve))


async def news(stream: AsyncIterator[Snapshot | None], seconds: float = 10.0) -> tuple[Endpoint, ...] | None:
    """The endpoints of the stream's next snapshot; None for its word that nothing has changed."""
    async with asyncio.timeout(seconds):
        snapshot = await anext(stream)
    return None if snapshot is None else snapshot.endpoints


async def error_of(source: ConsulSource) -> str:
    """What a stream of `WEB` raises in place of its first snapshot, which is a line."""
    async with aclosing(source.watch([WEB])) as stream:
        with pytest.raises(SourceError) as caught:
            await news(stream)
        assert caught.value.__cause__ is None
    text = str(caught.value)
    assert "\n" not in text
    return text


def asked(agent: ConsulAgent) -> str:
    """How messages say what `WEB` was asked for where."""
    return f"GET /v1/health/service/web at {agent.host}:{agent.port}"
