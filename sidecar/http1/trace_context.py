"""Trace context in headers: who called, in which trace (W3C Trace Context, level 2).

    traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03
                 │  trace id, 16 bytes               │ parent id, 8    └ flags
                 └ version

https://www.w3.org/TR/trace-context-2/ is the source of all of it. Ids stay as the hexadecimal digits that the wire has.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

__all__ = [
    "MAX_MEMBERS",
    "RANDOM",
    "SAMPLED",
    "TRACEPARENT",
    "TRACESTATE",
    "TraceParent",
    "read_trace_id",
    "read_traceparent",
    "read_tracestate",
    "render_traceparent",
]

TRACEPARENT: Final = b"traceparent"
TRACESTATE: Final = b"tracestate"

# Section 3.2.2.5: the flags that level 2 knows. All others are sent as 0.
SAMPLED: Final = 0x01  # the caller may have recorded it
RANDOM: Final = 0x02  # the last seven bytes of the trace id are random
_KNOWN: Final = SAMPLED | RANDOM

MAX_MEMBERS: Final = 32  # of a tracestate (section 3.3.1.1)

# Upper case is malformed (3.2.2.1 to 3.2.2.5), ff is no version, and no id is all zeros. Of a version after 00, what
# follows the flags is for others (3.2.3).
_FORM: Final = re.compile(
    rb"(?!ff|00.{53}.)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?",
    re.DOTALL,
)

# Section 3.3.1.3: a key, and a value of printable ASCII without comma and equals sign that ends in no space.
_MEMBER: Final = re.compile(rb"([a-z0-9][a-z0-9_\-*/@]{0,255})=([ !-+\--<>-~]{0,255}[!-+\--<>-~])")


@dataclass(frozen=True, slots=True)
class TraceParent:
    """What a valid traceparent says. trace_id: 32 digits, parent_id: 16; flags: those that level 2 knows."""

    trace_id: bytes
    parent_id: bytes
    flags: int

    @property
    def sampled(self) -> bool:
        """Whether the caller may have recorded its part of the trace."""
        return bool(self.flags & SAMPLED)


def read_traceparent(value: bytes) -> TraceParent | None:
    """Read the value of a traceparent, without white space around it; None: it is invalid, and a new trace begins."""
    match = _FORM.fullmatch(value)
    if match is None:
        return None
    trace_id, parent_id, flags = match.groups()
    return TraceParent(trace_id, parent_id, int(flags, 16) & _KNOWN)


def read_trace_id(value: bytes) -> bytes | None:
    """The trace id of `read_traceparent` alone, in a third of its time: for who logs every request."""
    match = _FORM.fullmatch(value)
    return None if match is None else match[1]


def render_traceparent(trace_id: bytes, parent_id: bytes, flags: int) -> bytes:
    """The value that goes on, in the version that is written here."""
    return b"00-%b-%b-%02x" % (trace_id, parent_id, flags)


def read_tracestate(values: list[bytes]) -> list[tuple[bytes, bytes]] | None:
    """The members of all tracestate fields of a request, in order; None: they are invalid.

    Invalid is a member that is malformed, a key that stands twice, or more than `MAX_MEMBERS` of them.
    """
    members: list[tuple[bytes, bytes]] = []
    for value in values:
        for text in value.split(b","):
            member = text.strip(b" \t")
            if not member:  # empty ones are allowed (3.3.1.1)
                continue
            match = _MEMBER.fullmatch(member)
            if match is None or len(members) == MAX_MEMBERS:
                return None
            members.append((match[1], match[2]))
    if len({key for key, _ in members}) != len(members):
        return None
    return members
