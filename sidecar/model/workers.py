"""What the supervisor of several worker processes knows of them, beside what they count themselves."""

from __future__ import annotations

__all__ = ["WorkerCounts"]


class WorkerCounts:
    """configured: how many there should be. running: ready now. leaving: of an older configuration, still finishing.

    silent: did not answer in time when last asked; what they said before stands in for them.
    restarts: of workers that died.
    """

    __slots__ = ("configured", "leaving", "restarts", "running", "silent")

    def __init__(self, configured: int) -> None:
        self.configured = configured
        self.running = 0
        self.leaving = 0
        self.silent = 0
        self.restarts = 0
