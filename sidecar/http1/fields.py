"""Header fields that mean something to a proxy, and the character tables of RFC 9110 section 5.

Everything not named here is the endpoints' and applications' own business and passes byte for byte.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "CONNECTION",
    "CONTENT_LENGTH",
    "CONTROLS",
    "DROPPED",
    "EXPECT",
    "HOST",
    "KINDS",
    "LOOKALIKE",
    "MAX_FORWARDS",
    "MAX_LENGTH_DIGITS",
    "ORDINARY",
    "TE",
    "TOKEN",
    "TRAILER",
    "TRANSFER_ENCODING",
    "UPGRADE",
    "classify",
    "members",
]

ORDINARY: Final = 0
HOST: Final = 1
CONTENT_LENGTH: Final = 2
TRANSFER_ENCODING: Final = 3
CONNECTION: Final = 4
DROPPED: Final = 5
# From here on rare, and looked at once the whole head has been seen (`hop`).
UPGRADE: Final = 6
TE: Final = 7
TRAILER: Final = 8
EXPECT: Final = 9
MAX_FORWARDS: Final = 10
# Not what a proxy reads, but what some servers do: CGI and WSGI have one name for `-` and `_` (RFC 3875 4.1.18).
LOOKALIKE: Final = 11

# RFC 9110 5.6.2: the characters of a method or a field name.
TOKEN: Final = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
# RFC 9110 5.5: never inside a line. Horizontal tab is allowed in values; CR and LF only as line ends.
CONTROLS: Final = bytes([*range(9), *range(10, 32), 127])
# 18 digits hold 888 petabytes and stay below 2**63, whatever the other side counts with.
MAX_LENGTH_DIGITS: Final = 18

# RFC 9110 7.6.1: fields of one hop are dropped; RFC 7540 3.2.1 has one more. Those of Upgrade and TE that may
# go on are made anew in `hop`; Transfer-Encoding stays because its framing is passed on with it.
_KINDS_BY_LOWER_NAME: Final = {
    b"host": HOST,
    b"content-length": CONTENT_LENGTH,
    b"transfer-encoding": TRANSFER_ENCODING,
    b"connection": CONNECTION,
    b"http2-settings": DROPPED,
    b"keep-alive": DROPPED,
    b"proxy-connection": DROPPED,
    b"upgrade": UPGRADE,
    b"te": TE,
    b"trailer": TRAILER,
    b"expect": EXPECT,
    b"max-forwards": MAX_FORWARDS,
    b"content_length": LOOKALIKE,
    b"transfer_encoding": LOOKALIKE,
}

# Spellings seen all day, so that they cost one look-up; any other takes the way through `classify`.
KINDS: Final = {
    spelling: _KINDS_BY_LOWER_NAME.get(name.lower(), ORDINARY)
    for name in (
        *_KINDS_BY_LOWER_NAME,
        b"accept",
        b"accept-encoding",
        b"accept-language",
        b"accept-ranges",
        b"authorization",
        b"cache-control",
        b"content-encoding",
        b"content-type",
        b"cookie",
        b"date",
        b"etag",
        b"last-modified",
        b"location",
        b"origin",
        b"referer",
        b"server",
        b"set-cookie",
        b"traceparent",
        b"user-agent",
        b"vary",
        b"x-request-id",
    )
    for spelling in (name, name.title())
}


def classify(name: bytes) -> int:
    """The kind of a field name in any spelling; -1 when it is not a token (space before the colon, folding)."""
    if not name or name.translate(None, TOKEN):
        return -1
    return _KINDS_BY_LOWER_NAME.get(name.lower(), ORDINARY)


def members(value: bytes) -> list[bytes]:
    """The members of a comma-separated field value, lower case, empty ones left out (RFC 9110 5.6.1)."""
    return [member for part in value.lower().split(b",") if (member := part.strip(b" \t"))]
