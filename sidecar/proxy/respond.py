"""The answers that the proxy gives itself.

An error is a status, short JSON, and `x-sidecar-error` naming the reason. Two others are no errors: 100, and the
answer to a request whose Max-Forwards ends here.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING

from sidecar.errors import Reason
from sidecar.model import Limit
from sidecar.model.stats import METHODS

if TYPE_CHECKING:
    from sidecar.http1 import RequestHead

__all__ = [
    "CLOSE",
    "CONTINUE",
    "KEEP_ALIVE",
    "OVERFLOW_MESSAGES",
    "STATUS_BY_REASON",
    "error_response",
    "last_hop_response",
]

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

CLOSE = b"Connection: close\r\n"
_TRACE = METHODS.index("TRACE")
KEEP_ALIVE = b"Connection: keep-alive\r\n"  # what an HTTP/1.0 client needs to be told (RFC 9112 C.2.2)

# From error to synthetic response, as linkerd keeps it in one table. BAD_REQUEST and TOO_LARGE carry their
# own status (`ProtocolError.status`); a request time-out is 408 when it was the client that was slow.
STATUS_BY_REASON = {
    Reason.NO_ENDPOINTS: 503,
    Reason.ALL_OPEN: 503,
    Reason.OVERFLOW: 503,
    Reason.CONNECT_REFUSED: 503,
    Reason.CONNECT_TIMEOUT: 504,
    Reason.REQUEST_TIMEOUT: 504,
    Reason.RESET_BEFORE_HEADERS: 502,
    Reason.RESET_AFTER_HEADERS: 502,
    Reason.BAD_RESPONSE: 502,
    Reason.RETRY_BUDGET: 503,
    Reason.CLIENT_GONE: 499,
    Reason.DRAINING: 503,
    Reason.TLS_EXPIRED: 502,
    Reason.TLS_WRONG_HOST: 502,
    Reason.TLS_UNKNOWN_CA: 502,
    Reason.TLS_FAILED: 502,
    Reason.NO_ROUTE: 404,
    Reason.RATE_LIMITED: 429,
}

_MESSAGES = {
    Reason.NO_ENDPOINTS: "the upstream has no endpoints",
    Reason.ALL_OPEN: "every endpoint's circuit breaker is open",
    Reason.DRAINING: "every endpoint is drained, until somebody enables one",
    Reason.OVERFLOW: "a limit of the upstream is reached",  # `OVERFLOW_MESSAGES` tells which
    Reason.CONNECT_REFUSED: "no endpoint accepted a connection",
    Reason.CONNECT_TIMEOUT: "connecting took too long",
    Reason.TLS_EXPIRED: "the endpoint's certificate is out of date, or not valid yet",
    Reason.TLS_WRONG_HOST: "the endpoint's certificate is of another host or identity",
    Reason.TLS_UNKNOWN_CA: "the endpoint's certificate is signed by nobody who is trusted",
    Reason.TLS_FAILED: "the endpoint and the sidecar could not agree on a TLS connection",
    Reason.NO_ROUTE: "no route fits this request",
    Reason.RATE_LIMITED: "the upstream's rate limit is reached",
    Reason.REQUEST_TIMEOUT: "the time-out passed without progress",
    Reason.RESET_BEFORE_HEADERS: "the endpoint closed the connection without an answer",
    Reason.BAD_RESPONSE: "the endpoint's answer is not valid HTTP/1.1",
    Reason.RETRY_BUDGET: "the attempt failed, and too many others are being tried again already",
}

# What was reached, and by the name of the setting what would have to be more.
OVERFLOW_MESSAGES = {
    Limit.CONNECTIONS: "all of limits.connections are busy, and limits.pending lets nobody wait",
    Limit.CONNECTIONS_PER_ENDPOINT: (
        "every endpoint has limits.connections_per_endpoint busy, and limits.pending lets nobody wait"
    ),
    Limit.PENDING: "the upstream's connections are busy, and limits.pending wait for one already",
    Limit.PENDING_TIMEOUT: "no connection became free in time, see limits.pending_timeout",
    Limit.IN_FLIGHT: "limits.in_flight are being worked on already",
    Limit.DESCRIPTORS: "the proxy has no descriptor left",
}


def error_response(
    status: int,
    reason: Reason,
    upstream: str,
    message: str = "",
    *,
    connection: bytes = CLOSE,
    bodiless: bool = False,
    retry_after: int = 0,
) -> bytes:
    """A whole response.

    connection: the Connection line to send, with its line end, or nothing.
    bodiless: the request was a HEAD: everything but the body.
    retry_after: whole seconds after which it is worth asking again (RFC 9110 section 10.2.3); 0 says nothing.
    """
    body = json.dumps(
        {
            "error": reason.label,
            "status": status,
            "upstream": upstream,
            "message": message or _MESSAGES.get(reason, ""),
        }
    ).encode()
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        "Content-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n"
        f"x-sidecar-error: {reason.label}\r\n"
    )
    if retry_after:
        head += f"Retry-After: {retry_after}\r\n"
    return b"%b%b\r\n%b" % (head.encode(), connection, b"" if bodiless else body)


def last_hop_response(head: RequestHead, connection: bytes) -> bytes:
    """The answer to a TRACE or OPTIONS that goes no further (RFC 9110 7.6.2, 9.3.7, 9.3.8).

    connection: the Connection line to send, with its line end, or nothing.
    """
    if head.method == _TRACE:
        echo = head.echo()
        lines = b"Content-Type: message/http\r\nContent-Length: %d\r\n" % len(echo)
    else:
        echo, lines = b"", b"Content-Length: 0\r\n"
    return b"HTTP/1.1 200 OK\r\n%b%b\r\n%b" % (lines, connection, echo)
