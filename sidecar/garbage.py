"""How often the whole process is looked through for garbage: seldom, because the requests wait for that.

The interpreter would do so each time a quarter has been added, and endpoints that registries change all the time come
as new objects: with 10,000 of them all requests waited for 45 ms, every three seconds.
"""

from __future__ import annotations

import gc
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sidecar.clock import Clock

__all__ = ["Garbage"]

WHOLE = 300.0  # seconds between two looks at everything; garbage that has been set aside is found then
_OLDEST = 2  # generation: all that is not set aside


class Garbage:
    """What has outlived a full collection is set aside, and the next one looks at what is newer."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._whole_at = 0.0

    def begin(self) -> None:
        """The start is over: set aside what is there, and collect from now on. Once."""
        gc.collect()
        gc.freeze()
        self._whole_at = self._clock.monotonic() + WHOLE
        gc.callbacks.append(self._collecting)
        gc.enable()  # the command line turns it off for the start

    def end(self) -> None:
        """Leave collections alone; safe to call at any time and again."""
        with suppress(ValueError):
            gc.callbacks.remove(self._collecting)

    def _collecting(self, phase: str, info: dict[str, int]) -> None:
        if info["generation"] != _OLDEST:
            return
        if phase == "stop":
            gc.freeze()
        elif self._clock.monotonic() >= self._whole_at:
            self._whole_at = self._clock.monotonic() + WHOLE
            gc.unfreeze()
