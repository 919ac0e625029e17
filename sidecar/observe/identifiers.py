"""Names for requests and spans, by chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["new_request_id", "new_span_id", "new_trace_id"]

# A float of [0, 1) has 53 random bits: no part that is taken of one is longer.


def new_trace_id(uniform: Callable[[], float]) -> bytes:
    """128 random bits, not all zero, as 32 hexadecimal digits."""
    parts = int(uniform() * 0x10000000000), int(uniform() * 0x100000000000), int(uniform() * 0x100000000000)
    return b"%010x%011x%011x" % parts if any(parts) else b"%032x" % 1


def new_span_id(uniform: Callable[[], float]) -> bytes:
    """64 random bits, not all zero, as 16 hexadecimal digits."""
    parts = int(uniform() * 0x100000000), int(uniform() * 0x100000000)
    return b"%08x%08x" % parts if any(parts) else b"%016x" % 1


def new_request_id(uniform: Callable[[], float]) -> bytes:
    """A UUID of version 4: 122 random bits (RFC 9562 5.4)."""
    high, middle, low = int(uniform() * 2**48), int(uniform() * 2**26), int(uniform() * 2**48)
    return b"%08x-%04x-4%03x-%04x-%012x" % (
        high >> 16,
        high & 0xFFFF,
        middle >> 14,
        0x8000 | (middle & 0x3FFF),
        low,
    )
