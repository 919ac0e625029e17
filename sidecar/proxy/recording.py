"""Exchanges that somebody wants to hear of one by one: whoever writes an access log, traces, or gives requests a name.

Connections have a `RecordedExchange` while `ProxyContext.recorder` is there; all others keep counts and nothing else,
and never ask. What is kept are plain numbers, for one exchange at a time; the recorder reads them at its end, at once,
as the object's next exchange begins with them anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from sidecar.http1.message import RequestHead
from sidecar.proxy.exchange import Exchange
from sidecar.proxy.hedge import HedgedExchange

if TYPE_CHECKING:
    from sidecar.cluster import Cluster
    from sidecar.errors import ProtocolError, Reason
    from sidecar.http1.message import ResponseHead
    from sidecar.model import CloseReason, Outcome
    from sidecar.model.endpoint import EndpointState
    from sidecar.proxy.context import ProxyContext
    from sidecar.proxy.dial import Dial
    from sidecar.proxy.downstream import DownstreamConnection
    from sidecar.proxy.session import Session
    from sidecar.proxy.upstream import UpstreamConnection

__all__ = ["RecordedExchange", "Recorder"]

SWITCHED: Final = 101  # the one final answer that is no response to relay


_NO_HEAD = RequestHead([], 0, b"", 1, 0)


class Recorder(Protocol):
    """Who is told. Nothing of it may raise or wait: it is called between a response and the next request.

    identifies: `identify` is to be asked for each request.
    """

    identifies: bool

    def identify(self, exchange: RecordedExchange, head: RequestHead) -> RequestHead:
        """The head that goes on, with names added to it; may set `exchange.trace` and `exchange.request_id`."""

    def sending(self, exchange: RecordedExchange, connection: UpstreamConnection) -> None:
        """An attempt is about to be sent, of an exchange with a `trace`; `exchange.head` may still change."""

    def attempt_over(
        self, exchange: RecordedExchange, endpoint: EndpointState, outcome: Outcome, began: float, now: float
    ) -> None:
        """An attempt has ended, of an exchange with a `trace`."""

    def exchange_over(self, exchange: RecordedExchange, status: int, reason: Reason, now: float) -> None:
        """An exchange has ended. status: what the client got."""

    def refused(self, client: DownstreamConnection, method: int, error: ProtocolError, now: float) -> None:
        """What came was no request. method: index into `METHODS`."""

    def session_over(self, session: Session, reason: CloseReason, now: float) -> None:
        """A session has ended, or never got an endpoint."""


class RecordedExchange(HedgedExchange):
    """An exchange that remembers how it went until it is told.

    Times are monotonic seconds, 0 for what did not happen.
    tries: attempts that have ended. where: the endpoint of the last one that has, or that is going on.
    connected: when the connection was there that was opened for the attempt that is going on. connect_time: how long
        that took, of the last attempt that opened one; below 0 where all found one.
    answer: the status of the endpoint's answer to what was sent last, also where the client does not get it; 0 before.
    first_byte: when its head was there; at the end: when that of what the client got was.
    request_bytes, response_bytes: of the bodies, as they came from client and endpoint, chunk sizes included.
    request_id: what names it, empty where nothing does. trace: what the tracer keeps of it; None when it is not traced.
    """

    __slots__ = (
        "answer",
        "connect_time",
        "connected",
        "first_byte",
        "request_bytes",
        "request_id",
        "response_bytes",
        "trace",
        "tries",
        "where",
    )

    def __init__(self, context: ProxyContext, cluster: Cluster, client: DownstreamConnection) -> None:
        super().__init__(context, cluster, client)
        self.request_id = b""
        self.trace: Any = None
        self.where: EndpointState | None = None

    @property
    def started(self) -> float:
        """When the request's head had come, monotonic seconds."""
        return self._started

    def begin(self, head: RequestHead, body: bytes, done: bool) -> None:
        """See `Exchange.begin`."""
        self.tries = 0
        self.where = None
        self.connected = 0.0
        self.connect_time = -1.0
        self.answer = 0
        self.first_byte = 0.0
        self.request_bytes = len(body)
        self.response_bytes = 0
        recorder = self._context.recorder
        if recorder is not None and recorder.identifies:
            self.request_id = b""
            self.trace = None
            head = recorder.identify(self, head)
        HedgedExchange.begin(self, head, body, done)

    def send_body(self, piece: bytes, *, done: bool, spliced: int = 0) -> None:
        """See `Exchange.send_body`."""
        self.request_bytes += len(piece) + spliced
        HedgedExchange.send_body(self, piece, done=done, spliced=spliced)

    def on_connected(self, dial: Dial, connection: UpstreamConnection) -> None:
        """See `Attempts.on_connected`."""
        self.connected = self._context.monotonic()
        self.connect_time = self.connected - self._began
        HedgedExchange.on_connected(self, dial, connection)

    def _send(self, connection: UpstreamConnection) -> None:
        """See `Exchange._send`."""
        self.where = connection.endpoint
        self.answer = 0
        recorder = self._context.recorder
        if self.trace is not None and recorder is not None:
            recorder.sending(self, connection)
        HedgedExchange._send(self, connection)

    def _attempt_over(self, outcome: Outcome, now: float) -> None:
        """See `Attempts._attempt_over`."""
        endpoint, began = self.endpoint, self._began
        assert endpoint is not None
        HedgedExchange._attempt_over(self, outcome, now)
        self.note_attempt(endpoint, outcome, began, now)

    def note_attempt(self, endpoint: EndpointState, outcome: Outcome, began: float, now: float) -> None:
        """See `HedgedExchange.note_attempt`."""
        self.tries += 1
        self.where = endpoint
        recorder = self._context.recorder
        if self.trace is not None and recorder is not None:
            recorder.attempt_over(self, endpoint, outcome, began, now)
        self.connected = 0.0

    def switch(self, head: ResponseHead, data: bytes, at: int) -> None:
        """See `Exchange.switch`."""
        self.answer = head.status
        self.first_byte = self._context.monotonic()
        HedgedExchange.switch(self, head, data, at)

    def respond(self, head: ResponseHead, data: bytes, at: int) -> None:
        """See `Exchange.respond`."""
        self.answer = head.status
        self.first_byte = self._context.monotonic()
        come = len(data) - at
        self.response_bytes = come if head.length < 0 else min(come, head.length)
        HedgedExchange.respond(self, head, data, at)

    def relay(self, piece: bytes, *, done: bool, excess: bool, spliced: int = 0) -> None:
        """See `Exchange.relay`."""
        self.response_bytes += len(piece) + spliced
        HedgedExchange.relay(self, piece, done=done, excess=excess, spliced=spliced)

    def _end(self, status: int, reason: Reason, now: float) -> None:
        """See `Exchange._end`."""
        Exchange._end(self, status, reason, now)
        if not self._status and status != SWITCHED:  # the proxy's own: nothing of the endpoint's has passed
            self.first_byte = 0.0
            self.response_bytes = 0
        recorder = self._context.recorder
        if recorder is not None:
            recorder.exchange_over(self, status, reason, now)
        self.head = (
            _NO_HEAD  # its lines, taken apart for names, are not to be kept while the connection is idle
        )
