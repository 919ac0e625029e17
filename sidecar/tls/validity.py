"""Until when certificates are valid, read off their DER: Python's ssl tells that of a peer only, not of one's own."""

from __future__ import annotations

import re
from base64 import b64decode
from datetime import UTC, datetime

__all__ = ["earliest_end"]

_PEM = re.compile(
    rb"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL
)  # RFC 7468 section 5
_SEQUENCE, _VERSION = 0x30, 0xA0  # tags; the version is [0], and is not there in version 1
_UTC_TIME = 0x17
_BEFORE_VALIDITY = 3  # fields of TBSCertificate behind the version: serialNumber, signature, issuer


def earliest_end(pem: bytes) -> float:
    """When the first of a file's certificates expires, in seconds since 1970; 0 where none can be read."""
    ends = [end for block in _PEM.findall(pem) if (end := _end(block)) is not None]
    return min(ends, default=0.0)


def _end(block: bytes) -> float | None:
    """notAfter (RFC 5280 sections 4.1 and 4.1.2.5); None for what is no certificate."""
    try:
        certificate = _value(b64decode(block), 0, _SEQUENCE)
        tbs = _value(certificate, 0, _SEQUENCE)
        at = _next(tbs, 0) if tbs[0] == _VERSION else 0
        for _ in range(_BEFORE_VALIDITY):
            at = _next(tbs, at)
        validity = _value(tbs, at, _SEQUENCE)
        at = _next(validity, 0)
        tag, text = validity[at], _value(validity, at, validity[at]).decode("ascii")
        if tag == _UTC_TIME:  # two digits: 50 to 99 are of the century before
            text = ("19" if text >= "50" else "20") + text
        return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except (ValueError, IndexError):
        return None


def _span(der: bytes, at: int) -> tuple[int, int]:
    """Where the value of the element at `at` begins and ends (X.690 section 8.1.3)."""
    length, start = der[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        length, start = int.from_bytes(der[start : start + size], "big"), start + size
    if start + length > len(der):
        raise ValueError
    return start, start + length


def _value(der: bytes, at: int, tag: int) -> bytes:
    if der[at] != tag:
        raise ValueError
    start, end = _span(der, at)
    return der[start:end]


def _next(der: bytes, at: int) -> int:
    return _span(der, at)[1]
