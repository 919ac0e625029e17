"""A process's own `SourceSupervisor` and `Announcer`: what they need of the process, put together."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sidecar.registry.last_good import LastGood
from sidecar.registry.look_ups import LookUps
from sidecar.registry.registration import Announcer
from sidecar.registry.sources.catalogue import load_source
from sidecar.registry.sources.source import Surroundings
from sidecar.registry.supervisor import SourceSupervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sidecar.clock import Clock
    from sidecar.config.settings import Settings
    from sidecar.model import Snapshot
    from sidecar.registry.last_good import Kept

__all__ = ["announcer", "last_good_of", "load_sources", "source_supervisor", "surroundings_of"]


def surroundings_of(clock: Clock, environ: Mapping[str, str] = os.environ) -> Surroundings:
    """What a process's sources share."""
    return Surroundings(clock, environ, LookUps().resolve)


def source_supervisor(
    settings: Settings,
    clock: Clock,
    apply: Callable[[Snapshot], None],
    environ: Mapping[str, str] = os.environ,
    saved: Kept | None = None,
    *,
    keeps: bool = False,
) -> SourceSupervisor:
    """The supervisor of what `settings` name. It has not begun.

    saved: what was said before; None for what the last good file holds. keeps: and it keeps that file up to date, which
    is for the running sidecar alone.
    """
    last_good = last_good_of(settings, clock)
    return SourceSupervisor(
        settings.upstreams,
        settings.registries,
        surroundings_of(clock, environ),
        apply,
        wait=settings.sidecar.registry_wait,
        saved=last_good.load() if saved is None else saved,
        save=last_good.save if keeps and settings.sidecar.last_good.file else None,
    )


def last_good_of(settings: Settings, clock: Clock) -> LastGood:
    """The file that `settings` name for what was said before."""
    where = settings.sidecar.last_good
    return LastGood(where.file, where.max_age, clock)


def load_sources(settings: Settings) -> None:
    """Load what it takes to ask the registries that `settings` name."""
    for registry in settings.registries:
        load_source(registry.kind)


def announcer(settings: Settings, clock: Clock, environ: Mapping[str, str] = os.environ) -> Announcer:
    """Who announces what `settings` name under `register`. It has not started."""
    return Announcer(settings.registrations, settings.registries, surroundings_of(clock, environ))
