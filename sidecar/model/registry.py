"""What is known of registries and what they said, as plain values: for metrics and views."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["RESULTS", "FeedStatus", "SourceStatus"]

RESULTS = ("changed", "unchanged", "empty", "error")  # what may come of asking a registry, as metrics call it


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
