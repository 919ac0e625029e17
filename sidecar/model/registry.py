"""What is known of registries, what they said and what they were told, as plain values: for metrics and views."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "REGISTRATION_RESULTS",
    "RESULTS",
    "FeedStatus",
    "Registered",
    "RegistrationStatus",
    "SourceStatus",
]

RESULTS = ("changed", "unchanged", "empty", "error")  # what may come of asking a registry, as metrics call it
REGISTRATION_RESULTS = ("announced", "renewed", "withdrawn", "error")  # the same of telling one what is here


@dataclass(slots=True)
class SourceStatus:
    """One registry.

    updates: counts by position in `RESULTS`. last_success: when all of it had been heard of last, monotonic seconds;
    None before. stale: some of what it said may have changed meanwhile: it errs, or says nothing.
    """

    name: str
    updates: list[int] = field(default_factory=lambda: [0] * len(RESULTS))
    last_success: float | None = None
    stale: bool = True


@dataclass(frozen=True, slots=True)
class FeedStatus:
    """What one registry says of one upstream.

    endpoints: how many; None before its first word. heard_at: its last sign of life, monotonic seconds; None before.
    saved: its word is from the last good file. error: why it cannot be asked now, one line; empty when it can.
    """

    source: str
    endpoints: int | None
    heard_at: float | None
    stale: bool
    saved: bool
    error: str


@dataclass(frozen=True, slots=True)
class RegistrationStatus:
    """One service that is announced while it is well.

    name: of the service. address: host:port where others reach it; empty before that is known.
    state: `announced`; `unwell`, its check fails or has not passed yet; `failing`, the registry errs; `withdrawn`, for
    good. error: why it is not announced, one line. since: of the state, monotonic seconds.
    registered: the registry should know it now: it said so less than a ttl ago.
    """

    name: str
    registry: str
    address: str
    state: str
    error: str
    since: float
    registered: bool


@dataclass(frozen=True, slots=True)
class Registered:
    """All registrations, and what has come of them by registry: counts by position in `REGISTRATION_RESULTS`."""

    statuses: tuple[RegistrationStatus, ...] = ()
    counts: Mapping[str, Sequence[int]] = field(default_factory=dict)
