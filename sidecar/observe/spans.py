"""What is traced of one request: a span for it, and one for each attempt at an endpoint.

    caller's span ─► request (CLIENT) ─┬─► attempt 0 (CLIENT) ─► the endpoint's span
                                       └─► attempt 1 (CLIENT) ─► ...

The sidecar speaks for the application, so that the request is a call going out, as in Envoy's egress spans; a SERVER
span would show the sidecar as a service of its own. Each sending is a span of its own, with
`http.request.resend_count`, as https://opentelemetry.io/docs/specs/semconv/http/http-spans/ has it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sidecar.errors import Reason
from sidecar.model import Outcome
from sidecar.model.stats import METHODS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.http1.message import RequestHead
    from sidecar.model.endpoint import EndpointState

__all__ = ["Attempt", "Span", "Trace", "attempt_span", "request_span", "url_of"]

# Of a target, characters: a queue of 2,048 spans has 4 MiB of them at most. What is longer is cut.
MAX_PATH: Final = 2048

# Attempts that are kept of one request: where thousands of endpoints refuse connections, the first ones say it all.
MAX_ATTEMPTS: Final = 64

# A request that is itself wrong is its client's failure, and so is a client that leaves: no error of this span.
_CLIENTS_OWN: Final = frozenset((Reason.NONE, Reason.BAD_REQUEST, Reason.TOO_LARGE, Reason.CLIENT_GONE))
# The methods that have a name; all others are one (semantic conventions: `_OTHER`, and HTTP in the span's name).
_OTHER: Final = len(METHODS) - 1
# Attempts that ended well, or by nobody's fault.
_UNBLAMED: Final = frozenset((Outcome.SUCCESS, Outcome.TOO_MANY_REQUESTS, Outcome.CANCELLED))


@dataclass(slots=True)
class Attempt:
    """One attempt whose request has been sent. number: 0 for the first. connected: 0 on a reused connection."""

    endpoint: EndpointState
    span_id: bytes
    number: int
    connected: float
    peer: str


@dataclass(slots=True)
class Span:
    """One that has ended. Ids are hexadecimal digits, times monotonic seconds.

    parent_id: empty for the root of a trace; remote: it is another process's. state: the tracestate, as it came.
    error: what `error.type` says; empty for none. events: names and times.
    """

    name: str
    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    remote: bool
    flags: int
    state: bytes
    start: float
    end: float
    attributes: dict[str, str | int]
    error: str
    events: list[tuple[str, float]] = field(default_factory=list)


class Trace:
    """A request that is traced, while it goes on.

    trace_id, parent_id: of its caller, or a new one and empty. span_id: the request's own. flags: that go on.
    state: its tracestate. under_way: attempts that have been sent, two at most; ended: spans of those that are over.
    made: attempts so far.
    """

    __slots__ = ("ended", "flags", "made", "parent_id", "span_id", "state", "trace_id", "under_way")

    def __init__(self, trace_id: bytes, parent_id: bytes, span_id: bytes, flags: int, state: bytes) -> None:
        self.trace_id = trace_id
        self.parent_id = parent_id
        self.span_id = span_id
        self.flags = flags
        self.state = state
        self.under_way: list[Attempt] = []
        self.ended: list[Span] = []
        self.made = 0

    def take(self, endpoint: EndpointState) -> Attempt | None:
        """The attempt at `endpoint` that is over; None where nothing was sent there."""
        for attempt in self.under_way:
            if attempt.endpoint is endpoint:
                self.under_way.remove(attempt)
                return attempt
        return None


def attempt_span(
    trace: Trace,
    attempt: Attempt,
    head: RequestHead,
    upstream: str,
    outcome: Outcome,
    status: int,
    times: tuple[float, float, float],
) -> Span:
    """status: of the endpoint's answer, 0 without one. times: of the beginning, the first byte (or 0), the end."""
    began, first_byte, now = times
    endpoint = attempt.endpoint.endpoint
    attributes = _request_attributes(head, upstream)
    attributes["server.address"] = endpoint.host
    attributes["server.port"] = endpoint.port
    attributes["sidecar.attempt.outcome"] = outcome.label
    if attempt.peer:
        attributes["network.peer.address"] = attempt.peer
        attributes["network.peer.port"] = endpoint.port
    if attempt.number:
        attributes["http.request.resend_count"] = attempt.number
    events = []
    if attempt.connected:
        events.append(("sidecar.connected", attempt.connected))
    if first_byte:
        events.append(("sidecar.first_byte", first_byte))
    error = _status_error(status, attributes)
    if not error and outcome not in _UNBLAMED:
        error = outcome.label
    return Span(
        _name(head),
        trace.trace_id,
        attempt.span_id,
        trace.span_id,
        False,
        trace.flags,
        trace.state,
        began,
        now,
        attributes,
        error,
        events,
    )


def request_span(
    trace: Trace,
    head: RequestHead,
    upstream: str,
    port: int,
    status: int,
    reason: Reason,
    start: float,
    now: float,
) -> Span:
    """port: on localhost, 0 when unknown. status: what the client got. reason: why it ended as it did."""
    attributes = _request_attributes(head, upstream)
    attributes["server.address"] = upstream  # what the application called: the port is the upstream's
    if port:
        attributes["server.port"] = port
    attributes["sidecar.reason"] = reason.label
    # Nobody was there to get the 499 that is counted.
    error = _status_error(0 if reason is Reason.CLIENT_GONE else status, attributes)
    if reason not in _CLIENTS_OWN:
        error = reason.label
    return Span(
        _name(head),
        trace.trace_id,
        trace.span_id,
        trace.parent_id,
        True,
        trace.flags,
        trace.state,
        start,
        now,
        attributes,
        error,
    )


def url_of(attributes: Mapping[str, str | int]) -> str:
    """`url.full`, which the conventions want of every client: put together where a span is sent, not where it waits."""
    host, port, path = (attributes.get(key, "") for key in ("server.address", "server.port", "url.path"))
    authority = f"[{host}]" if ":" in str(host) else host
    place = f"{attributes['url.scheme']}://{authority}{f':{port}' if port else ''}"
    return place if path == "*" else f"{place}{path}"


def _name(head: RequestHead) -> str:
    """A span's name has few values: of a target that is the method alone."""
    return "HTTP" if head.method == _OTHER else METHODS[head.method]


def _request_attributes(head: RequestHead, upstream: str) -> dict[str, str | int]:
    """Without the query, where secrets tend to be."""
    path = head.target.partition(b"?")[0][:MAX_PATH]
    return {
        "http.request.method": "_OTHER" if head.method == _OTHER else METHODS[head.method],
        "url.scheme": "http",
        "url.path": path.decode("utf-8", "backslashreplace"),
        "sidecar.upstream": upstream,
    }


def _status_error(status: int, attributes: dict[str, str | int]) -> str:
    """Say the status, if there is one. A 4xx is the application's to judge: no error here."""
    if not status:
        return ""
    attributes["http.response.status_code"] = status
    return str(status) if status >= 500 else ""
