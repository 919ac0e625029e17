"""How often the configuration has been read again, and what came of it."""

from __future__ import annotations

__all__ = ["ReloadCounts"]


class ReloadCounts:
    """success, failure, unchanged: how often it was followed, refused, or the same as before.

    last_success: whether the last one was not refused; so it is before the first.
    """

    __slots__ = ("failure", "last_success", "success", "unchanged")

    def __init__(self) -> None:
        self.success = 0
        self.failure = 0
        self.unchanged = 0
        self.last_success = True
