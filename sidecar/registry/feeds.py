"""What the supervisor knows: of each registry, of each of its streams, and what it said of each upstream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.model.registry import RESULTS

if TYPE_CHECKING:
    import asyncio

    from sidecar.config.settings import RegistrySettings
    from sidecar.model import Endpoint
    from sidecar.registry.sources.source import Source, Wanted

__all__ = ["Feed", "Registry", "Stream"]


class Feed:
    """What one source says of one upstream.

    endpoints: None before its first word. before: what it said when it was asked for something else.
    heard_at: the last sign of life since, monotonic seconds. saved: its word is from the file, where it was written at
    saved_at, wall seconds.
    """

    __slots__ = ("before", "endpoints", "heard_at", "saved", "saved_at", "stream", "wanted")

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.endpoints: tuple[Endpoint, ...] | None = None
        self.before: tuple[Endpoint, ...] | None = None
        self.heard_at: float | None = None
        self.saved = False
        self.saved_at = 0.0
        self.stream: Stream | None = None  # which it comes by

    @property
    def word(self) -> tuple[Endpoint, ...] | None:
        """What counts: other tags after a reload are to let nobody fall back for the moment until it has spoken."""
        return self.before if self.endpoints is None else self.endpoints


class Stream:
    """One stream of a source, through all its failures.

    began: when it was opened last, heard_at: its last sign of life, monotonic seconds. failures: in a row.
    """

    __slots__ = ("began", "error", "failures", "heard_at", "registry", "task", "wanted")

    def __init__(self, registry: Registry, wanted: tuple[Wanted, ...]) -> None:
        self.registry = registry
        self.wanted = wanted
        self.task: asyncio.Task[None] | None = None
        self.failures = 0
        self.began = 0.0
        self.heard_at: float | None = None
        self.error = ""

    def is_stale(self, now: float) -> bool:
        if self.error or self.heard_at is None:
            return True
        return now - self.heard_at > self.registry.settings.stale_after


class Registry:
    """One source with its streams."""

    __slots__ = ("counts", "settings", "source", "streams")

    def __init__(self, settings: RegistrySettings, source: Source) -> None:
        self.settings = settings
        self.source = source
        self.streams: list[Stream] = []
        self.counts = [0] * len(RESULTS)
