"""One request and its response.

    begin ─► attempts ─► send ─► respond ─► relay… ─► complete
                │          │        │         │
                ▼          ▼        ▼         ▼
              fail (the proxy's own answer)  break off      101 ─► a session

How far the request and its answer have come is one state; `http1.state` has the table of what may follow what.
`attempt` has the way to an endpoint. An exchange ends once, in `_end`: the upstream's counters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.errors import ProtocolError, Reason
from sidecar.http1.body import response_reader
from sidecar.http1.message import NO_EXTRAS, UNTIL_CLOSE
from sidecar.http1.state import Event, State, follow
from sidecar.model import Limit, Outcome
from sidecar.net.writing import write_to
from sidecar.proxy.attempt import Attempts
from sidecar.proxy.hash_key import request_key
from sidecar.proxy.relay import PEER_FULL, UNSENT, unsent
from sidecar.proxy.respond import CONTINUE, STATUS_BY_REASON, last_hop_response
from sidecar.proxy.session import Session
from sidecar.proxy.sweep import NEVER
from sidecar.resilience import BreakerState

if TYPE_CHECKING:
    from asyncio import Transport

    from sidecar.cluster import Cluster
    from sidecar.http1.message import RequestHead, ResponseHead
    from sidecar.proxy.context import ProxyContext
    from sidecar.proxy.downstream import DownstreamConnection
    from sidecar.proxy.upstream import UpstreamConnection

__all__ = ["BODY_GRACE", "REPLAY_BYTES", "Exchange"]

REPLAY_BYTES = 65536  # of a request body kept for another attempt (behaviour.md; Envoy's default is 1 MiB)

# What a body may take before `min_body_rate` is asked of it: a slow start is no offence (Kestrel's 5 s).
BODY_GRACE = 5.0  # seconds

# What is left of a request's body once its answer is complete, and is still taken (and thrown away) so that the
# client's connection lives on: clients that send head and body apart are often answered in between, by a 401 say.
DRAIN_BYTES = 65536
DRAIN_SECONDS = 2.0

# Looked up for every request; a name of the module costs a tenth of a class's, and of an Enum's even less.
_DRAINING = State.DRAINING
_IDLE = State.IDLE
_SENT = State.SENT
_NONE = Reason.NONE
_SUCCESS = Outcome.SUCCESS
_FIRST_BAD_STATUS = 429  # no status below says anything bad of an endpoint
_REQUEST_WHOLE = Event.REQUEST_WHOLE
_RESPONSE_WHOLE = Event.RESPONSE_WHOLE

_ANSWER_BEGUN = (State.EARLY, State.ANSWERING)


class Exchange(Attempts):
    """The exchange of one client connection: one object, used for one request after another."""

    __slots__ = (
        "_body_due",
        "_reusable",
        "_started",
        "_status",
        "_unsent",
    )

    def __init__(self, context: ProxyContext, cluster: Cluster, client: DownstreamConnection) -> None:
        super().__init__(context, cluster, client)
        self._body_due = NEVER

    # The request

    def begin(self, head: RequestHead, body: bytes, done: bool) -> None:
        """Start with a request: its head, what has come of its body, and whether that is all."""
        if done:
            self.state = follow(self.state, _REQUEST_WHOLE)
        else:
            waits = head.extras.expects and not body
            self.state = follow(self.state, Event.REQUEST_EXPECT if waits else Event.REQUEST_HEAD)
        self.head = head
        self._body = body
        self._replayable = True
        self._raced = False
        self._retry_reason = _NONE
        self._retries_left = self.cluster.policy.retries
        self._tried = ()
        self._status = 0
        self._unsent = 0
        self._try_due = NEVER
        self._started = self._context.monotonic()
        self.cluster.stats.in_flight += 1
        front = self.cluster.front
        if front is not None:
            if not front.enter(self):
                return
            head = self.head
        self.cluster.budget.deposit(self._started)  # who is turned away before pays for no retries
        self._key = request_key(head, self.client, self.cluster) if self.cluster.hashes else 0
        if self.cluster.limit.max_in_flight and self.cluster.is_overfull:
            self._overflow(Limit.IN_FLIGHT)
        elif head.extras is NO_EXTRAS or head.extras.max_forwards:
            self._attempt(self._started)
        else:
            self._answer_as_last()

    def _send(self, connection: UpstreamConnection) -> None:
        """Write the head and what has come of the body in one piece."""
        upstream = self.connection = connection
        client = self.client
        gate = client.gate
        if gate.reasons:  # the wait is over, and an earlier attempt's slow endpoint is not this one
            gate.release(UNSENT | PEER_FULL)
        upstream.start(self, self.head.render(upstream.endpoint.authority, self._body))
        if client.write_full:  # since an interim response of an earlier attempt
            upstream.gate.hold(PEER_FULL)
        if self.state < _SENT:
            self._set_pace(len(self._body))
        if self._body and len(self._body) > REPLAY_BYTES:
            self._replayable = False
            self._body = b""
        self._begin_try()
        self._touch()

    def splice_target(self) -> Transport | None:
        """Where the rest of the request's body may go past this process; None while it has to be looked at."""
        connection = self.connection
        if connection is None or self._replayable or self.state not in (State.SENDING, State.EARLY):
            return None
        return connection.transport

    def send_body(self, piece: bytes, *, done: bool, spliced: int = 0) -> None:
        """More of the request body. spliced: bytes of it that have gone to the endpoint already."""
        before = self.state
        self.state = follow(before, Event.REQUEST_END if done else Event.REQUEST_DATA)
        if before == _DRAINING:
            if done:
                self.client.exchange_over()
            return
        if before == State.EXPECTING:
            self._set_pace(0)
        if self._context.min_body_rate:
            self._body_due += (len(piece) + spliced) / self._context.min_body_rate
        connection = self.connection
        if connection is None:  # still connecting, or waiting to
            self._body += piece
            if not done and len(self._body) >= REPLAY_BYTES:
                self.client.gate.hold(UNSENT)
            return
        if done:
            self._begin_try()
        self._touch()
        if piece:
            write_to(connection.transport, piece)
        if self._replayable:
            if len(self._body) + len(piece) <= REPLAY_BYTES:
                self._body += piece
            else:
                self._replayable = False
                self._body = b""

    def endpoint_full(self, full: bool) -> None:
        """The endpoint reads slowly, or has caught up; what the client's pace is, cannot be told meanwhile."""
        if self.state != State.EXPECTING:
            self._set_pace(0)
        if full:
            self.client.gate.hold(PEER_FULL)
        else:
            self.client.gate.release(PEER_FULL)
        self._touch()

    def _set_pace(self, brought: int) -> None:
        rate = self._context.min_body_rate
        if self.state == State.EXPECTING:
            self._body_due = self._context.sweep.soon + self.cluster.policy.continue_timeout
        elif rate:
            self._body_due = self._context.sweep.soon + BODY_GRACE + brought / rate
        else:
            self._body_due = NEVER

    def follow_pace(self) -> None:
        """`min_body_rate` is another one: a body that is under way has a slow start's time to keep to it."""
        if self.state in (State.SENDING, State.EARLY) and self.connection is not None:
            self._set_pace(0)
            self._touch()

    def _ask_for_body(self) -> None:
        """The endpoint does not say whether it wants the body: the client waits no longer (RFC 9110 10.1.1)."""
        self.state = follow(self.state, Event.CONTINUE)
        self.client.transport.write(CONTINUE)
        self._set_pace(0)
        self._touch()

    # The response

    def relay_interim(self, head: ResponseHead) -> None:
        """Pass a 1xx response on (RFC 9110 15.2); HTTP/1.0 clients would not understand it."""
        before = self.state
        self.state = follow(before, Event.CONTINUE if head.status == 100 else Event.INTERIM)
        if before != self.state:
            self._set_pace(0)
        if self.head.minor:
            self.client.transport.write(head.render(b""))
        self._touch()

    def respond(self, head: ResponseHead, data: bytes, at: int) -> None:
        """The final response's head, and in `data` from `at` what has come of its body."""
        client = self.client
        self._reusable = head.keep_alive
        if self.cluster.policy.retry_statuses and self._tries_elsewhere(head, len(data) - at):
            return
        if self.state < _SENT:
            self._settle_rest()
        if self.cluster.front is not None:
            self.cluster.front.leave(self, head)
        if not self.head.minor:
            head.drop_coding()
        if head.length != len(data) - at:
            self._respond_in_pieces(head, data, at)
            return
        # The whole response in one read: what nearly every small one is.
        self._status = head.status
        self.state = follow(self.state, _RESPONSE_WHOLE)
        extra = client.connection_line()
        whole = not extra and head.passes_whole and at == head.size
        write_to(client.transport, data if whole else head.render(extra, data, at))
        self._complete(self._context.monotonic())

    def _respond_in_pieces(self, head: ResponseHead, data: bytes, at: int) -> None:
        client = self.client
        self._answered = self._context.monotonic()  # what comes now may last as long as its reader pleases
        reader = response_reader(head, self.head)
        if head.length < 0 and not self.head.minor:  # HTTP/1.0 has no other end for it than the connection's
            client.keep_alive = False
            head.drop_framing()
        broken = None
        try:
            piece, end = reader.feed(data, at)
        except ProtocolError as error:
            # However the bytes were split: the client gets what came before the fault, then the break.
            broken = error
            piece, error.passed, end = error.passed, b"", len(data)
        self._status = head.status  # from here on the client has got something
        self.state = follow(self.state, Event.RESPONSE_HEAD)
        extra = client.connection_line()
        if head.length == UNTIL_CLOSE and self.head.minor:
            extra += b"Transfer-Encoding: chunked\r\n"
        client.transport.write(head.render(extra, piece))
        if broken is not None:
            raise broken
        connection = self.connection
        assert connection is not None
        connection.reader = reader
        endpoint = connection.endpoint
        if endpoint.breaker.state is BreakerState.HALF_OPEN and not reader.done:
            # A probe's stream may go on for hours: its head answers the breaker's question already.
            self.cluster.judge(
                endpoint, self._outcome_of(self._status), self._context.monotonic(), self._permit
            )
        self._after_piece(done=reader.done, excess=end < len(data))

    def relay(self, piece: bytes, *, done: bool, excess: bool, spliced: int = 0) -> None:
        """More of the response body. excess: bytes came behind its end. spliced: so many went past this process."""
        if piece:
            write_to(self.client.transport, piece)
        self._after_piece(done=done, excess=excess)

    def _after_piece(self, *, done: bool, excess: bool) -> None:
        self.state = follow(self.state, Event.RESPONSE_END if done else Event.RESPONSE_DATA)
        if not done:
            self._touch()
            return
        if excess:
            self._reusable = False  # they would answer the next request (response splitting)
        self._complete(self._context.monotonic())

    def _settle_rest(self) -> None:
        """The request is answered before its end: wait for that only where it is near, and say so where it is not.

        What is left is for nobody: an endpoint that answered without reading on may take it for the next request.
        """
        if self.state == State.EXPECTING:
            self._body_due = NEVER  # it may never send the body now, or it may
            self.client.keep_alive = False
        elif self.client.body_left > DRAIN_BYTES:
            self.client.keep_alive = False

    def _complete(self, now: float) -> None:
        """The response has ended well."""
        connection = self.connection
        assert connection is not None
        self.connection = None
        endpoint = connection.endpoint
        self._attempt_over(self._outcome_of(self._status), now)
        self._end(self._status, _NONE, now)
        if self._reusable and self.state == _IDLE and endpoint.in_rotation and not connection.write_full:
            connection.rest(self.cluster.policy.idle_timeout)
        else:
            connection.close()
        client = self.client
        if self.state != _DRAINING:
            client.exchange_over()
        elif client.keep_alive:
            client.gate.release(PEER_FULL | UNSENT)
            client.deadline = self._context.sweep.soon + DRAIN_SECONDS
        else:
            self._stop_draining()

    def _stop_draining(self) -> None:
        """The rest of the request is too long, or does not come."""
        self.state = follow(self.state, Event.GIVE_UP)
        self.client.keep_alive = False
        self.client.exchange_over()

    def _outcome_of(self, status: int) -> Outcome:
        """See `Attempts._outcome_of`."""
        return _SUCCESS if status < _FIRST_BAD_STATUS else self.cluster.outcomes.get(status, _SUCCESS)

    def switch(self, head: ResponseHead, data: bytes, at: int) -> None:
        """101: HTTP has ended on both connections, and what follows is the new protocol's (RFC 9110 7.8).

        data: from `at`, what the endpoint has said in it already.
        """
        switched = head.extras.upgrade
        if not switched or not set(switched).issubset(self.head.extras.upgrade):
            raise ProtocolError("101 to a protocol that was not asked for")
        connection, self.connection = self.connection, None
        assert connection is not None
        self.state = follow(self.state, Event.SWITCH)
        now = self._context.monotonic()
        self._attempt_over(Outcome.SUCCESS, now)
        self._end(head.status, Reason.NONE, now)
        client = self.client
        client.transport.write(head.render(b""))
        early = client.hand_over()
        connection.hand_over()
        session = Session(self._context, self.cluster, self.cluster.policy.tunnel_idle_timeout)
        session.take_over(client, connection)
        if at < len(data):
            session.relayed(data[at:])
        if early:
            session.data_received(early)
        session.follow_endpoint()

    # Failing

    def connection_ended(self, connection: UpstreamConnection, ending: bytes | None) -> None:
        """The endpoint's connection ended. ending: what completes a body that lasts until close, else None."""
        now = self._context.monotonic()
        if ending is not None:
            if ending:
                self.client.transport.write(ending)
            self._after_piece(done=True, excess=False)
            return
        self.connection = None
        if self.state in _ANSWER_BEGUN:
            self._attempt_over(Outcome.RESET, now)
            self._fail(Reason.RESET_AFTER_HEADERS)
        else:
            self._reset_before_response(connection, now)

    def response_broken(self, error: ProtocolError) -> None:
        """The endpoint's answer is not HTTP."""
        if error.passed:  # of a body that is broken further on
            self.client.transport.write(error.passed)
        self._drop_connection()
        self._attempt_over(Outcome.BAD_RESPONSE, self._context.monotonic())
        self._fail(Reason.BAD_RESPONSE, message=f"the endpoint's answer is not valid HTTP/1.1: {error}")

    def break_off(self, error: ProtocolError) -> None:
        """The client's request body is not HTTP: the endpoint must not take what it has got for complete."""
        self._give_up(Outcome.CANCELLED)
        self._fail(error.reason, error.status, str(error))

    def abandon(self) -> None:
        """The client has gone: nobody's fault, and nobody to answer."""
        if self.state == _DRAINING:
            self._stop_draining()
            return
        self._give_up(Outcome.CANCELLED)
        self.state = follow(self.state, Event.BREAK)
        self._end(STATUS_BY_REASON[Reason.CLIENT_GONE], Reason.CLIENT_GONE, self._context.monotonic())

    def expire(self) -> None:
        """The time-out passed without progress."""
        if self.state == _DRAINING:
            self._stop_draining()
            return
        if self._drains_slowly():
            self._touch()
            return
        connection = self.connection
        if self.client.write_full:  # it is the client that does not move
            self.abandon()
            self.client.abort()
        elif connection is None:
            if self._delay is not None:  # before another attempt
                reason = self._retry_reason
                self._give_up(Outcome.CANCELLED)
                self._fail(reason)
            elif self._dial is None:  # in the queue for a connection
                self._give_up(Outcome.CANCELLED)
                self._overflow(Limit.PENDING_TIMEOUT)
            else:
                self._give_up(Outcome.REQUEST_TIMEOUT)
                self._fail(Reason.REQUEST_TIMEOUT)
        elif self.state == State.EXPECTING:
            self._ask_for_body()
        elif self.state < _SENT and not connection.write_full:
            slow = self._body_due <= self._context.monotonic()
            self._give_up(Outcome.CANCELLED)
            message = (
                "the request body comes too slowly" if slow else "the request body did not arrive in time"
            )
            self._fail(Reason.REQUEST_TIMEOUT, 408, message)
        else:
            self._time_out(connection)

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

    def _fail(self, reason: Reason, status: int = 0, message: str = "") -> None:
        """Answer for the endpoint that did not, or break off the answer that cannot be completed."""
        now = self._context.monotonic()
        if self.state in _ANSWER_BEGUN:
            self.state = follow(self.state, Event.BREAK)
            self._end(self._status, reason, now)
            self.client.abort()  # never a fake clean end
            return
        self._answer(status or STATUS_BY_REASON[reason], reason, message, 0, now)

    def refuse(self, reason: Reason, message: str = "", retry_after: int = 0) -> None:
        """Answer a request that has just begun, and is sent to nobody. retry_after: whole seconds, 0 says nothing."""
        self._answer(STATUS_BY_REASON[reason], reason, message, retry_after, self._context.monotonic())

    def _answer(self, status: int, reason: Reason, message: str, retry_after: int, now: float) -> None:
        self._whole()
        self.client.answer(status, reason, message, retry_after)
        self._end(status, reason, now)
        self.client.exchange_over()

    def _whole(self) -> None:
        """A whole response of the proxy's own: the request's end is no longer waited for."""
        self.state = follow(self.state, Event.RESPONSE_WHOLE)
        if self.state == _DRAINING:
            self.state = follow(self.state, Event.GIVE_UP)
        if self.state == State.CUT:
            self.client.keep_alive = False

    def _answer_as_last(self) -> None:
        """Max-Forwards ends here: this proxy is the request's recipient (RFC 9110 7.6.2)."""
        self._whole()
        self.client.transport.write(last_hop_response(self.head, self.client.connection_line()))
        self._end(200, Reason.NONE, self._context.monotonic())
        self.client.exchange_over()

    def _end(self, status: int, reason: Reason, now: float) -> None:
        """The end of the exchange, once: the upstream's counters."""
        stats = self.cluster.stats
        stats.in_flight -= 1
        stats.count_request(self.head.method, status, reason, now - self._started)
        if self._retry_reason is not _NONE:  # it never got to an attempt
            self._end_retry()
        self._body = b""
        self._tried = ()

    def _touch(self) -> None:
        """Something moved: the time-out begins again."""
        client = self.client
        client.deadline = self._context.sweep.soon + self.cluster.policy.timeout
        if self._try_due < client.deadline and self.state == _SENT and self.connection is not None:
            client.deadline = self._try_due
        if self.state < _SENT and self.connection is not None:
            self._bring_forward(self.connection)

    def _bring_forward(self, connection: UpstreamConnection) -> None:
        """What comes before the time-out while the request's body is under way."""
        client = self.client
        if self.state == State.EXPECTING or not connection.write_full:
            client.deadline = min(client.deadline, self._body_due)
