"""What becomes of what is told of requests one by one: lines of the access log, and spans."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["RecordingCounts"]


@dataclass(slots=True)
class RecordingCounts:
    """Plain integers, since the start of the process.

    lines_written: of the access log; lines_dropped: there was no room for them in its buffer, or nowhere to write to.
    log_errors: writes that failed. spans_exported: that the collector has taken; spans_dropped: there was no room in
    the queue; spans_failed: that the collector has not taken.
    """

    lines_written: int = 0
    lines_dropped: int = 0
    log_errors: int = 0
    spans_exported: int = 0
    spans_dropped: int = 0
    spans_failed: int = 0
