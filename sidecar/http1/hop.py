"""What belongs to one hop, and what becomes of it on the next (RFC 9110 sections 7.6, 7.8, 10.1).

Connection and the fields it names end here. A few are made anew because this proxy does for the next hop what
they ask for: Upgrade (a tunnel follows 101), TE: trailers (they are passed on), Max-Forwards (one less).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.errors import ProtocolError
from sidecar.http1.fields import (
    CONTENT_LENGTH,
    EXPECT,
    HOST,
    MAX_FORWARDS,
    TE,
    TOKEN,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    classify,
    members,
)
from sidecar.http1.message import Extras
from sidecar.model.stats import METHODS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.http1.message import RequestHead, ResponseHead

__all__ = ["drop_nominated", "read_request_extras", "read_response_extras"]

# A client that nominates Content-Length or Host would change what the endpoint believes the message to be; the
# others are dropped or made anew anyway.
_NOT_BY_NAME = frozenset((CONTENT_LENGTH, HOST, TRANSFER_ENCODING, TE, UPGRADE))
_PLAIN_OPTIONS = frozenset((b"close", b"keep-alive"))
_LIMITED = frozenset((METHODS.index("TRACE"), METHODS.index("OPTIONS")))  # RFC 9110 7.6.2
_PROTOCOL = TOKEN + b"/"
_SWITCHING_PROTOCOLS = 101
_UPGRADE_REQUIRED = 426


def drop_nominated(lines: list[bytes], options: list[bytes], dropped: list[int]) -> None:
    """Add the lines that Connection names to `dropped` (RFC 9110 7.6.1)."""
    names = [option for option in options if option not in _PLAIN_OPTIONS]
    if not names:
        return
    for at in range(1, len(lines)):
        name = lines[at].partition(b":")[0].lower()
        if name in names and at not in dropped and classify(name) not in _NOT_BY_NAME:
            dropped.append(at)


def read_request_extras(
    head: RequestHead,
    lines: list[bytes],
    rare: Sequence[int],
    options: list[bytes],
    dropped: list[int],
    *,
    bodiless: bool,
) -> None:
    """Read the rare fields of a request, which stand at `rare` in `lines`.

    Sets what they say in `head`, rewrites what goes on changed, adds what does not go on to `dropped`.
    bodiless: only such a request may switch protocols. Servers disagree about whose bytes follow a head that has
    both a body and Upgrade; RFC 9110 7.8 lets anybody ignore Upgrade.
    """
    extras = head.extras = Extras()
    again: list[bytes] = []  # options that stand for a field that goes on
    for at in rare:
        name, _, value = lines[at].partition(b":")
        kind = classify(name)
        if kind == UPGRADE:
            may = bodiless and head.minor and b"upgrade" in options
            protocols = _protocols(value) if may else []
            _rewrite(lines, at, name, protocols, dropped)
            extras.upgrade += tuple(protocol.lower() for protocol in protocols)
        elif kind == TE:
            wanted = head.minor == 1 and not extras.takes_trailers and b"trailers" in members(value)
            _rewrite(lines, at, name, [b"trailers"] if wanted else [], dropped)
            extras.takes_trailers = extras.takes_trailers or wanted
        elif kind == EXPECT:
            if not head.minor:  # RFC 9110 10.1.1: to be ignored there, and this goes on as HTTP/1.1
                dropped.append(at)
            elif members(value) == [b"100-continue"]:
                extras.expects = True
        elif kind == TRAILER:
            extras.trailers |= frozenset(members(value))
        elif kind == MAX_FORWARDS and head.method in _LIMITED:
            _count_down(extras, lines, at)
    if extras.upgrade:
        again.append(b"Upgrade")
    if extras.takes_trailers:
        again.append(b"TE")
    if again:
        lines.append(b"Connection: " + b", ".join(again))


def read_response_extras(
    head: ResponseHead, lines: list[bytes], rare: Sequence[int], options: list[bytes], dropped: list[int]
) -> None:
    """The same of a response. Expect and Max-Forwards mean nothing in one and pass."""
    extras = head.extras = Extras()
    for at in rare:
        name, _, value = lines[at].partition(b":")
        kind = classify(name)
        if kind == UPGRADE:
            # 101 is a switch only if it says so in both fields; 426 tells the client what it needs to ask for.
            switches = head.status == _SWITCHING_PROTOCOLS and b"upgrade" in options
            protocols = _protocols(value) if switches or head.status == _UPGRADE_REQUIRED else []
            _rewrite(lines, at, name, protocols, dropped)
            extras.upgrade += tuple(protocol.lower() for protocol in protocols)
        elif kind == TE:
            dropped.append(at)
        elif kind == TRAILER:
            extras.trailers |= frozenset(members(value))
    if extras.upgrade:
        lines.append(b"Connection: Upgrade")
        head.passes_whole = False


def _protocols(value: bytes) -> list[bytes]:
    """The protocols that Upgrade names, spelt as they came, but for another HTTP.

    RFC 9113 3.1 has given h2c up, and a tunnel of it would carry requests that nobody looks at.
    """
    found = [protocol for part in value.split(b",") if (protocol := part.strip(b" \t"))]
    if any(protocol.translate(None, _PROTOCOL) for protocol in found):
        raise ProtocolError("Upgrade is not a list of protocols")
    return [
        protocol for protocol in found if protocol.lower().partition(b"/")[0] not in (b"h2c", b"h2", b"http")
    ]


def _rewrite(lines: list[bytes], at: int, name: bytes, values: list[bytes], dropped: list[int]) -> None:
    """Leave of a line the values that go on; the whole line goes when there is none."""
    if values:
        lines[at] = name + b": " + b", ".join(values)
    else:
        dropped.append(at)


def _count_down(extras: Extras, lines: list[bytes], at: int) -> None:
    """One hop fewer; at 0 the proxy answers itself (RFC 9110 7.6.2)."""
    name, _, value = lines[at].partition(b":")
    value = value.strip(b" \t")
    if extras.max_forwards >= 0 or not value.isdigit() or len(value) > 9:
        raise ProtocolError("Max-Forwards is repeated or not a plain number")
    extras.max_forwards = int(value)
    if extras.max_forwards:
        lines[at] = b"%b: %d" % (name, extras.max_forwards - 1)
