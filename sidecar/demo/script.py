"""When one of the demo's endpoints is ill, and how."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["ALWAYS_WELL", "Health", "Script"]


class Health(Enum):
    """How an endpoint treats a request."""

    WELL = "well"  # answers it
    UNAVAILABLE = "unavailable"  # answers 503, which is passed on: it is an answer, and counts as a failure
    DROPPING = "dropping"  # closes the connection without a byte, which the sidecar hides by trying another


@dataclass(frozen=True, slots=True)
class Script:
    """One illness that comes again and again. Times in seconds from the start of the demo.

    ill_from, well_from: within each period; never ill when they are equal.
    """

    period: float
    ill_from: float
    well_from: float

    def health(self, elapsed: float, suffered: int) -> Health:
        """How the endpoint treats a request `elapsed` seconds into the demo.

        suffered: how many requests it has met since it fell ill. Its symptoms take turns, two dropped
        connections to one 503, so that an application sees that most of it is made good and some is not.
        """
        if not self.ill_from <= elapsed % self.period < self.well_from:
            return Health.WELL
        return Health.UNAVAILABLE if suffered % 3 == 2 else Health.DROPPING


ALWAYS_WELL = Script(period=1.0, ill_from=0.0, well_from=0.0)
