"""A process's own `SourceSupervisor`: what it needs of the process, put together."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sidecar.registry.look_ups import LookUps
from sidecar.registry.sources.source import Surroundings
from sidecar.registry.supervisor import SourceSupervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sidecar.clock import Clock
    from sidecar.config.settings import Settings
    from sidecar.model import Snapshot
    from sidecar.registry.supervisor import Saved

__all__ = ["source_supervisor", "surroundings_of"]


def surroundings_of(clock: Clock, environ: Mapping[str, str] = os.environ) -> Surroundings:
    """What a process's sources share."""
    return Surroundings(clock, environ, LookUps().resolve)


def source_supervisor(
    settings: Settings,
    clock: Clock,
    apply: Callable[[Snapshot], None],
    environ: Mapping[str, str] = os.environ,
    saved: Saved | None = None,
) -> SourceSupervisor:
    """The supervisor of what `settings` name. It has not begun. saved: what was said before."""
    return SourceSupervisor(
        settings.upstreams,
        settings.registries,
        surroundings_of(clock, environ),
        apply,
        wait=settings.sidecar.registry_wait,
        saved=saved,
    )
