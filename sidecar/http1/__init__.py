"""HTTP/1.1 without I/O: bytes in, decisions out (RFC 9110, RFC 9112).

Reading order: `fields` (which header fields mean something to a proxy), `target` (request targets and Host),
`head` (request and response heads: one strict scan), `scan` (the scan that the data path calls), `hop` (what
belongs to one hop), `message` (what a scan has found, and the head that goes on to the other side), `body` (where
a body ends), `state` (both directions of an exchange in one table); `trace_context` (traceparent and tracestate).

Anything that is not valid HTTP/1.1 is refused with `ProtocolError`, never repaired: a repair is where a
second, smuggled request hides (RFC 9112 section 11.2).
"""

from __future__ import annotations

from sidecar.http1.body import BodyReader, ChunkedReader, LengthReader, UntilCloseReader
from sidecar.http1.message import RequestHead, ResponseHead
from sidecar.http1.scan import scan_request, scan_response

__all__ = [
    "BodyReader",
    "ChunkedReader",
    "LengthReader",
    "RequestHead",
    "ResponseHead",
    "UntilCloseReader",
    "scan_request",
    "scan_response",
]
