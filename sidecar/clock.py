"""Time and chance. The only module that reads either; everything else is handed a `Clock`.

Tests hand over a fake with the same four attributes, so that no test waits for time or depends on luck.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Clock"]


@dataclass(frozen=True, slots=True)
class Clock:
    """Where time and chance come from.

    monotonic: seconds from an arbitrary start, never backwards; deadlines and durations.
    wall: seconds since the Unix epoch; only for what a person or another machine reads.
    uniform: a float in [0, 1); jitter.
    """

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    uniform: Callable[[], float] = random.random
