"""One request and its response, with all its attempts.

    begin ─► attempt ─► send ─► respond ─► relay… ─► complete
               ▲  │       │        │          │
               │  ▼       ▼        ▼          ▼
               └─ retry ◄─┴── failed before    └─► broken off
                  or fail       the response

Each attempt ends in `_attempt_over` (the endpoint's breaker, counters) and the exchange in `_end` (the
upstream's counters), once each, whatever happens.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from sidecar.errors import ProtocolError, Reason
from sidecar.http1 import BodyReader, ChunkedReader, LengthReader, UntilCloseReader
from sidecar.http1.head import CHUNKED, UNTIL_CLOSE
from sidecar.model import OUTCOME_BY_STATUS, Outcome
from sidecar.pool import Admission
from sidecar.proxy.dial import Dial
from sidecar.proxy.relay import PEER_FULL, UNSENT, unsent
from sidecar.proxy.respond import STATUS_BY_REASON
from sidecar.proxy.upstream import UpstreamConnection
from sidecar.resilience import BreakerState

if TYPE_CHECKING:
    from sidecar.cluster import Cluster
    from sidecar.http1 import RequestHead, ResponseHead
    from sidecar.model import EndpointState
    from sidecar.proxy.context import ProxyContext
    from sidecar.proxy.downstream import DownstreamConnection

__all__ = ["REPLAY_BYTES", "Exchange"]

REPLAY_BYTES = 65536  # of a request body kept for another attempt (behaviour.md; Envoy's default is 1 MiB)


class Exchange:
    """The exchange of one client connection: one object, used for one request after another.

    client: the connection it answers to. head: of the request.
    connection: the endpoint's, while one carries it; endpoint: where the attempt is.
    """

    __slots__ = (
        "_body",
        "_context",
        "_dial",
        "_permit",
        "_raced",
        "_replayable",
        "_request_done",
        "_retries_left",
        "_retry_reason",
        "_reusable",
        "_started",
        "_status",
        "_tried",
        "_unsent",
        "client",
        "cluster",
        "connection",
        "endpoint",
        "head",
    )

    head: RequestHead

    def __init__(self, context: ProxyContext, cluster: Cluster, client: DownstreamConnection) -> None:
        self._context = context
        self.cluster = cluster
        self.client = client
        self.connection: UpstreamConnection | None = None
        self.endpoint: EndpointState | None = None
        self._dial: Dial | None = None
        self._permit = 0

    # The request

    def begin(self, head: RequestHead, body: bytes, done: bool) -> None:
        """Start with a request: its head, what has come of its body, and whether that is all."""
        self.head = head
        self._body = body
        self._request_done = done
        self._replayable = True
        self._raced = False
        self._retry_reason = Reason.NONE
        self._retries_left = self.cluster.policy.retries
        self._status = 0
        self._unsent = 0
        self._tried: list[EndpointState] | tuple[()] = ()
        self._started = self._context.clock.monotonic()
        self.cluster.stats.in_flight += 1
        self._touch()
        self._attempt(self._started)

    def _attempt(self, now: float) -> None:
        """Pick an endpoint and send to it, over an idle connection or a new one."""
        endpoint = self.cluster.pick(now, self._tried)
        if endpoint is None:
            # After a failed attempt that failure says more than that nobody is left to try.
            self._fail(self._retry_reason or self.cluster.refusal)
            return
        self._take_place(endpoint)
        connection = endpoint.pool.take()
        if connection is None:
            self._open(endpoint)
        else:
            self._send(connection)  # type: ignore[arg-type] # an HTTP upstream's pools hold nothing else

    def _take_place(self, endpoint: EndpointState) -> None:
        """An attempt begins at `endpoint`; `_attempt_over` ends it."""
        self.endpoint = endpoint
        endpoint.in_flight += 1
        self._permit = endpoint.breaker.permit

    def _open(self, endpoint: EndpointState) -> None:
        """Open a connection to `endpoint`, or wait for one, or give up."""
        admission = endpoint.pool.admit(self, probe=endpoint.breaker.state is BreakerState.HALF_OPEN)
        if admission is Admission.OPEN:
            policy = self.cluster.policy
            factory = partial(UpstreamConnection, self._context, endpoint, policy.max_response_head)
            self._dial = Dial(self._context, endpoint, factory, policy.connect_timeout, self)
            return
        endpoint.in_flight -= 1
        self.endpoint = None
        if admission is Admission.OVERFLOW:
            self.cluster.stats.overflows += 1
            self._fail(Reason.OVERFLOW)

    def proceed(self, connection: Any) -> None:
        """The wait is over: with a connection that became free, or (None) with room to open one."""
        if connection is None:
            self._attempt(self._context.clock.monotonic())
            return
        self._take_place(connection.endpoint)
        self._send(connection)

    def on_connected(self, dial: Dial, connection: UpstreamConnection) -> None:
        """The endpoint accepted the connection."""
        self._dial = None
        self.cluster.stats.connects[0] += 1
        connection.adopt()
        self._send(connection)

    def on_connect_failed(self, dial: Dial, outcome: Outcome) -> None:
        """The endpoint did not accept the connection: no byte was sent, so any request may try another."""
        self._dial = None
        if outcome is Outcome.LOCAL_SHORTAGE:
            self._attempt_over(outcome, self._context.clock.monotonic())
            dial.endpoint.pool.release(None)
            self.cluster.stats.overflows += 1
            self._fail(Reason.OVERFLOW, message="the proxy has no descriptor left")
            return
        timed_out = outcome is Outcome.CONNECT_TIMEOUT
        self.cluster.stats.connects[2 if timed_out else 1] += 1
        endpoint = dial.endpoint
        now = self._context.clock.monotonic()
        self._attempt_over(outcome, now)
        endpoint.pool.release(None)  # first: at a full bound the next attempt needs this very room
        reason = Reason.CONNECT_TIMEOUT if timed_out else Reason.CONNECT_REFUSED
        self._note_tried(endpoint)
        # Another endpoint is tried whatever `retries` says (behaviour 7); trying the same again spends it.
        if self.cluster.has_untried(self._tried):
            self._retry(reason, now)
        elif self._retries_left > 0:
            self._retries_left -= 1
            self._retry(reason, now)
        else:
            self._fail(reason)

    def _send(self, connection: UpstreamConnection) -> None:
        """Write the head and what has come of the body in one piece."""
        self.connection = connection
        gate = self.client.gate
        if (
            gate.reasons
        ):  # the wait is over, and a slow endpoint that an earlier attempt was at is not this one
            gate.release(UNSENT | PEER_FULL)
        connection.start(self, self.head.render(connection.endpoint.authority, self._body))
        if len(self._body) > REPLAY_BYTES:
            self._replayable = False
            self._body = b""
        self._touch()

    def send_body(self, piece: bytes, *, done: bool) -> None:
        """More of the request body."""
        self._request_done = done
        connection = self.connection
        if connection is None:  # still connecting, or waiting to
            self._body += piece
            if not done and len(self._body) >= REPLAY_BYTES:
                self.client.gate.hold(UNSENT)
            return
        self._touch()
        if piece:
            connection.transport.write(piece)
        if self._replayable:
            if len(self._body) + len(piece) <= REPLAY_BYTES:
                self._body += piece
            else:
                self._replayable = False
                self._body = b""

    # The response

    def relay_interim(self, head: ResponseHead) -> None:
        """Pass a 1xx response on (RFC 9110 15.2); HTTP/1.0 clients would not understand it."""
        if head.status == 101:
            raise ProtocolError("101 without having been asked to switch protocols")
        if self.head.minor:
            self.client.transport.write(head.render(b""))

    def respond(self, head: ResponseHead, data: bytes, at: int) -> None:
        """The final response's head, and in `data` from `at` what has come of its body."""
        client = self.client
        length = head.length
        size = len(data) - at
        self._reusable = head.keep_alive
        if length == size:  # the whole response in one read: what nearly every small one is
            self._status = head.status
            if not self._request_done:
                client.keep_alive = False
            extra = client.connection_line()
            whole = not extra and head.passes_whole and at == head.size
            client.transport.write(data if whole else head.render(extra, data[at:]))
            self._complete(self._context.clock.monotonic())
            return
        reader = self._response_reader(head)
        piece, end = reader.feed(data, at)
        self._status = head.status  # from here on the client has got something
        extra = client.connection_line()
        if length == UNTIL_CLOSE and self.head.minor:
            extra += b"Transfer-Encoding: chunked\r\n"
        client.transport.write(head.render(extra, piece))
        assert self.connection is not None
        self.connection.reader = reader
        endpoint = self.connection.endpoint
        if endpoint.breaker.state is BreakerState.HALF_OPEN and not reader.done:
            # A probe's stream may go on for hours: its head answers the breaker's question already.
            self.cluster.judge(endpoint, self._outcome, self._context.clock.monotonic(), self._permit)
        self._after_piece(done=reader.done, excess=end < len(data))

    def _response_reader(self, head: ResponseHead) -> BodyReader:
        """The reader for a body that did not come whole, and what its framing means for the client's side."""
        if head.length == UNTIL_CLOSE:
            if not self.head.minor:
                self.client.keep_alive = False  # HTTP/1.0 has no other end than the connection's
            return UntilCloseReader(reframe=bool(self.head.minor))
        if head.length != CHUNKED:
            return LengthReader(head.length)
        if self.head.minor:
            return ChunkedReader()
        self.client.keep_alive = False
        head.drop_framing()
        return ChunkedReader(decode=True)

    def relay(self, piece: bytes, *, done: bool, excess: bool) -> None:
        """More of the response body. excess: bytes came behind its end."""
        if piece:
            self.client.transport.write(piece)
        self._after_piece(done=done, excess=excess)

    def _after_piece(self, *, done: bool, excess: bool) -> None:
        if not done:
            self._touch()
            return
        if excess:
            self._reusable = False  # they would answer the next request (response splitting)
        self._complete(self._context.clock.monotonic())

    def _complete(self, now: float) -> None:
        """The response has ended well."""
        connection = self.connection
        assert connection is not None
        self.connection = None
        endpoint = connection.endpoint
        self._attempt_over(self._outcome, now)
        self._end(self._status, Reason.NONE, now)
        if (
            self._reusable
            and self._request_done
            and endpoint.breaker.state is BreakerState.CLOSED
            and not endpoint.removed
            and not connection.write_full
        ):
            connection.rest(self.cluster.policy.idle_timeout)
        else:
            connection.close()
        self.client.exchange_over()

    @property
    def _outcome(self) -> Outcome:
        """What the status says about the endpoint."""
        return OUTCOME_BY_STATUS.get(self._status, Outcome.SUCCESS)

    # Failing

    def connection_ended(self, connection: UpstreamConnection, ending: bytes | None) -> None:
        """The endpoint's connection ended. ending: what completes a body that lasts until close, else None."""
        if ending is not None:
            if ending:
                self.client.transport.write(ending)
            self._complete(self._context.clock.monotonic())
            return
        self.connection = None
        raced = connection.served > 0 and not connection.heard
        now = self._context.clock.monotonic()
        if self._status:
            self._attempt_over(Outcome.RESET, now)
            self._fail(Reason.RESET_AFTER_HEADERS)
            return
        if raced:
            self.cluster.stats.reuse_failures += 1
            self._attempt_over(Outcome.IDLE_RACE, now)
        else:
            self._attempt_over(Outcome.RESET, now)
        if not (self._replayable and self.head.idempotent):
            self._fail(Reason.RESET_BEFORE_HEADERS)
        elif raced and not self._raced:
            # Not the endpoint's fault: once more, at the same place if it is still there, on a fresh connection.
            self._raced = True
            self._retry_fresh(connection.endpoint, now)
        elif self._retries_left > 0:
            self._retries_left -= 1
            self._note_tried(connection.endpoint)
            self._retry(Reason.RESET_BEFORE_HEADERS, now)
        else:
            self._fail(Reason.RESET_BEFORE_HEADERS)

    def _retry_fresh(self, endpoint: EndpointState, now: float) -> None:
        self._retry_reason = Reason.RESET_BEFORE_HEADERS
        if endpoint.removed or endpoint.breaker.state is not BreakerState.CLOSED:
            self._attempt(now)
            return
        self._take_place(endpoint)
        self._open(endpoint)

    def _note_tried(self, endpoint: EndpointState) -> None:
        self._tried = [*self._tried, endpoint]

    def _retry(self, reason: Reason, now: float) -> None:
        self._retry_reason = reason
        self._attempt(now)

    def response_broken(self, error: ProtocolError) -> None:
        """The endpoint's answer is not HTTP."""
        self._drop_connection()
        self._attempt_over(Outcome.BAD_RESPONSE, self._context.clock.monotonic())
        self._fail(Reason.BAD_RESPONSE, message=f"the endpoint's answer is not valid HTTP/1.1: {error}")

    def break_off(self, error: ProtocolError) -> None:
        """The client's request body is not HTTP: the endpoint must not take what it has got for complete."""
        self._give_up(Outcome.CANCELLED)
        self._fail(error.reason, error.status, str(error))

    def abandon(self) -> None:
        """The client has gone: nobody's fault, and nobody to answer."""
        self._give_up(Outcome.CANCELLED)
        self._end(STATUS_BY_REASON[Reason.CLIENT_GONE], Reason.CLIENT_GONE, self._context.clock.monotonic())

    def expire(self) -> None:
        """The time-out passed without progress."""
        if self._drains_slowly():
            self._touch()
            return
        connection = self.connection
        if self.client.write_full:  # it is the client that does not move
            self.abandon()
            self.client.abort()
        elif connection is None and self._dial is None:  # in the queue for a connection
            self._give_up(Outcome.CANCELLED)
            self.cluster.stats.overflows += 1
            self._fail(Reason.OVERFLOW)
        elif connection is not None and not self._request_done and not connection.write_full:
            self._give_up(Outcome.CANCELLED)
            self._fail(Reason.REQUEST_TIMEOUT, 408, "the request body did not arrive in time")
        else:
            self._give_up(Outcome.REQUEST_TIMEOUT)
            self._fail(Reason.REQUEST_TIMEOUT)

    def _drains_slowly(self) -> bool:
        """Whether the side that reads slowly has at least read something since the last look."""
        connection = self.connection
        if connection is None:
            return False
        if self.client.write_full:
            left = unsent(self.client.transport)
        elif connection.write_full:
            left = unsent(connection.transport)
        else:
            return False
        before, self._unsent = self._unsent, left
        return left != before

    # Ending

    def _give_up(self, outcome: Outcome) -> None:
        """End the attempt that is going on, wherever it is: connecting, waiting, or on a connection."""
        dial, self._dial = self._dial, None
        if dial is not None:
            dial.cancel()
        self._drop_connection()
        if self.endpoint is None:
            self.cluster.limit.withdraw(self)
        else:
            self._attempt_over(outcome, self._context.clock.monotonic())
        if dial is not None:
            dial.endpoint.pool.release(None)

    def _drop_connection(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()

    def _attempt_over(self, outcome: Outcome, now: float) -> None:
        """The end of one attempt: the endpoint's counters and breaker, and the retry's result."""
        endpoint = self.endpoint
        assert endpoint is not None
        self.endpoint = None
        endpoint.in_flight -= 1
        self.cluster.report(endpoint, outcome, now, self._permit)
        if self._retry_reason:
            self.cluster.stats.retries[self._retry_reason][outcome is Outcome.SUCCESS] += 1
            self._retry_reason = Reason.NONE

    def _fail(self, reason: Reason, status: int = 0, message: str = "") -> None:
        """Answer for the endpoint that did not, or break off the answer that cannot be completed."""
        now = self._context.clock.monotonic()
        if self._status:
            self._end(self._status, reason, now)
            self.client.abort()  # never a fake clean end
            return
        status = status or STATUS_BY_REASON[reason]
        self.client.answer(status, reason, message)
        self._end(status, reason, now)
        self.client.exchange_over()

    def _end(self, status: int, reason: Reason, now: float) -> None:
        """The end of the exchange, once: the upstream's counters."""
        stats = self.cluster.stats
        stats.in_flight -= 1
        stats.count_request(self.head.method, status, reason, now - self._started)
        self._body = b""
        self._tried = ()

    def _touch(self) -> None:
        """Something moved: the time-out begins again."""
        self.client.deadline = self._context.sweep.soon + self.cluster.policy.timeout
