"""Durations and sizes as configurations write them: `30`, `250ms`, `5m`; `65536`, `64KiB`."""

from __future__ import annotations

import math
import re
from typing import Final

__all__ = ["DAY", "duration", "size"]

DAY: Final = 86400.0

_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*([a-zA-Z]*)", re.ASCII)
_SECONDS: Final = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZE: Final = re.compile(r"([0-9]{1,15})\s*([a-zA-Z]*)", re.ASCII)
# Powers of 1024 alone: `64KB` means 64000 to some and 65536 to others, so it is nobody's here.
_BYTES: Final = {"": 1, "B": 1, "KiB": 1024, "MiB": 1024 * 1024, "GiB": 1024 * 1024 * 1024}


def duration(value: float | str) -> float:
    """Seconds of a number of seconds, or of text such as `250ms`, `30s`, `5m`, `1h`.

    Raises `ValueError`, whose text goes on from the value: `is negative; ...`.
    """
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        if match is None or match[2] not in _SECONDS:
            problem = "is negative; give" if value.strip().startswith("-") else "is no duration; write"
            raise ValueError(f"{problem} a number of seconds or for example `250ms`, `30s`, `5m`, `1h`")
        seconds = float(match[1]) * _SECONDS[match[2]]
    else:
        try:
            seconds = float(value)
        except OverflowError:  # a YAML integer may have hundreds of digits
            seconds = math.inf if value > 0 else -math.inf
    if seconds < 0:
        raise ValueError("is negative; give a time from now on")
    if not math.isfinite(seconds):
        raise ValueError("is no finite time; give a number of seconds")
    return seconds


def size(value: int | str) -> int:
    """Bytes of a number of bytes, or of text such as `64KiB`, `1MiB`. Raises `ValueError` like `duration`."""
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match is None or match[2] not in _BYTES:
            raise ValueError("is no size; write a number of bytes or for example `64KiB`, `1MiB`")
        return int(match[1]) * _BYTES[match[2]]
    if value < 0:
        raise ValueError("is negative; give a number of bytes")
    return value
