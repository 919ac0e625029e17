"""What the admin server has been asked."""

from __future__ import annotations

__all__ = ["AdminCounts"]


class AdminCounts:
    """Counts from the start of the process.

    by_class: answers by the first digit of their status, so that `by_class[4]` is that of 4xx.
    denied: requests without the right token. refused: connections closed at once, the bound reached, of the metrics
    address too.
    """

    __slots__ = ("by_class", "denied", "refused")

    def __init__(self) -> None:
        self.by_class = [0] * 6
        self.denied = 0
        self.refused = 0
