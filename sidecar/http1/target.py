"""Request targets and authorities (RFC 9112 section 3.2, RFC 3986 section 3.2).

A target in origin-form passes byte for byte. One in absolute-form is what a client sends to a proxy that it
knows of; an endpoint is sent the origin-form of it (RFC 9112 3.2.1), and Host must say the same authority:
where two fields name a host, two programs may believe different ones.
"""

from __future__ import annotations

import re
from functools import lru_cache

from sidecar.errors import ProtocolError

__all__ = ["MAX_AUTHORITY", "is_authority", "origin_form", "same_authority"]

# A reg-name or IPv4 address, then perhaps a port. No user info (RFC 9110 4.2.4), no second colon. Written without
# a group for the port, which the digits of the name make superfluous: that halves what it costs.
_PLAIN = re.compile(rb"[A-Za-z0-9\-._~%!$&'()*+,;=]*:?[0-9]{0,5}").fullmatch
# IPv6, perhaps with a zone (RFC 6874), or an address of the future.
_BRACKETED = re.compile(
    rb"\[(?:[0-9A-Fa-f:.]+(?:%25[A-Za-z0-9\-._~%]+)?|[Vv][0-9A-Fa-f]+\.[A-Za-z0-9\-._~!$&'()*+,;=:]+)\]"
    rb"(?::[0-9]{0,5})?"
).fullmatch
# Bytes above 127 pass, as applications send raw UTF-8 and endpoints read it.
_ABSOLUTE = re.compile(rb"([Hh][Tt][Tt][Pp][Ss]?)://([^/?#@]+)([/?][!-~\x80-\xff]*)?")
MAX_AUTHORITY = 771  # bytes: 3 * 255, and a port
_DEFAULT_PORT = {b"http": b":80", b"https": b":443"}


def is_authority(value: bytes) -> bool:
    """Whether `value` is a host with an optional port; empty is, as a Host of a target without one may be.

    A name of DNS has at most 255 octets (RFC 1035 2.3.4), its escapes in a URL three times that.
    """
    return len(value) <= MAX_AUTHORITY and _is_authority(value)


@lru_cache(maxsize=256)  # what applications call is a handful of names, each in every request
def _is_authority(value: bytes) -> bool:
    if _PLAIN(value) is None and _BRACKETED(value) is None:
        return False
    port = value.rpartition(b":")[2]
    return not port.isdigit() or b":" not in value or int(port) <= 65535 or value.endswith(b"]")


def origin_form(target: bytes, *, options: bool) -> tuple[bytes, bytes, bytes]:
    """Origin-form, authority and scheme of a target in absolute-form.

    options: the method is OPTIONS, whose absolute-form without a path means the server itself, `*` (RFC 9112
    3.2.4). Raises ProtocolError when it is no http or https URL.
    """
    match = _ABSOLUTE.fullmatch(target)
    if match is None or not is_authority(match[2]) or match[2].startswith(b":"):
        raise ProtocolError("the request target is neither a path nor a URL, or holds a forbidden character")
    path = match[3]
    if path is None:
        path = b"*" if options else b"/"
    elif path.startswith(b"?"):
        path = b"/" + path
    return path, match[2], match[1].lower()


def same_authority(one: bytes, other: bytes, scheme: bytes) -> bool:
    """Whether two authorities are one: case does not matter, nor whether the scheme's own port is written."""
    port = _DEFAULT_PORT[scheme]
    return one.lower().removesuffix(port).rstrip(b":") == other.lower().removesuffix(port).rstrip(b":")
