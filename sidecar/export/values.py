"""How others spell what settings hold."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["listed", "percent", "seconds", "whole_time"]

_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "m"), (1.0, "s"))


def seconds(value: float) -> str:
    """A duration of Protocol Buffers' JSON, `1.5s`, which Go's `time.ParseDuration` reads too; at least 1 ms.

    https://protobuf.dev/reference/protobuf/google.protobuf/#duration
    """
    text = f"{max(value, 0.001):.3f}".rstrip("0").rstrip(".")
    return f"{text}s"


def whole_time(value: float) -> str:
    """A duration of Linkerd's annotations: a whole number of ms, s, m, h or d; at least 1 ms.

    https://linkerd.io/2-edge/reference/circuit-breaking/#configuring-failure-accrual
    """
    for unit, name in _UNITS:
        if value >= unit and value % unit == 0:
            return f"{value / unit:.0f}{name}"
    return f"{max(1, round(value * 1000))}ms"


def percent(share: float) -> int:
    """A share of 0 to 1 in whole percent, rounded up: what is said to be something is not nothing."""
    return math.ceil(round(share * 100, 6))


def listed(words: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *before, last = words
    return f"{', '.join(before)} and {last}" if before else last
