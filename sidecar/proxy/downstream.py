"""The application's connection: one request after another, answered in order.

state    means                                        deadline       what arrives is
-------  -------------------------------------------  -------------  -----------------------------------
IDLE     between requests                             idle_timeout   the next head
HEAD     a head has begun                             head_timeout   more of it
BUSY     an exchange is going on                      its timeout    its body, then held for later
LINGER   the last response is written, input is not   2 s            thrown away
         read to its end
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sidecar.errors import ProtocolError, Reason
from sidecar.http1.body import BodyReader, LengthReader, request_reader
from sidecar.http1.head import too_large
from sidecar.http1.message import HEAD_METHOD
from sidecar.http1.scan import scan_request
from sidecar.http1.state import State
from sidecar.model.stats import METHODS
from sidecar.net.receiver import Receiver
from sidecar.proxy.deadline import TimedExchange
from sidecar.proxy.exchange import Exchange
from sidecar.proxy.hedge import HedgedExchange
from sidecar.proxy.recording import RecordedExchange
from sidecar.proxy.relay import PEER_FULL, PIPELINE_FULL, SPLICE_BYTES, UNSENT, ReadGate, reset, splice
from sidecar.proxy.respond import CLOSE, KEEP_ALIVE, error_response

if TYPE_CHECKING:
    from asyncio import Transport

    from sidecar.cluster import Cluster
    from sidecar.http1.message import RequestHead
    from sidecar.proxy.context import ProxyContext

__all__ = ["DownstreamConnection"]

IDLE = 0
HEAD = 1
BUSY = 2
LINGER = 3

# How long and how much a client may go on sending after its answer, so that the close does not destroy the
# answer on its way (RFC 9112 9.6): HAProxy and nginx wait for seconds too (nginx lingering_timeout is 5 s).
LINGER_SECONDS = 2.0
LINGER_BYTES = 1 << 20

# How long a connection is to have been quiet before it is closed for the process to end: a request that is on its
# way would be lost, and behind a busy loop it may have been waiting in the socket for some time.
RETIRE_QUIET = 0.2  # seconds

# Empty lines before a request, which RFC 9112 2.2 asks a server to overlook: old clients send one behind a body.
MAX_EMPTY_LINES = 16

# Exchanges that a connection keeps beside home's own, where home has a router: a client that alternates between a few
# upstreams needs no new one for each request. Each is some 400 bytes, for as long as the connection is open.
MAX_ROUTED = 4

_CR = 13
_LF = 10
_OTHER_METHOD = len(METHODS) - 1
_NOTHING_OPEN = State.IDLE  # of the exchange; looked up for every request, where a class's name costs more


class DownstreamConnection(Receiver):
    """One client connection to one upstream's port.

    home: the cluster of the port. cluster, exchange: of the request that is going on; another's than home's only where
    home has a router, and only until it is over.
    peer: (host, port) of the client as a PROXY header names it; None where the transport's own is the one.
    keep_alive: the connection may live on after the exchange that is going on.
    deadline: for the sweep. write_full: the client does not read as fast as it is written to.
    head_began: when the first byte came of a head that did not come whole, monotonic seconds; 0 for any other.
    outdated: the upstream's options ask for another kind of exchange since this one was made.
    """

    __slots__ = (
        "_empty_lines",
        "_held",
        "_lingered",
        "_parked",
        "_reader",
        "_routed",
        "_starting",
        "cluster",
        "context",
        "deadline",
        "exchange",
        "gate",
        "head_began",
        "home",
        "keep_alive",
        "outdated",
        "peer",
        "state",
        "transport",
        "write_full",
    )

    transport: Transport
    gate: ReadGate

    def __init__(self, context: ProxyContext, cluster: Cluster) -> None:
        self.context = context
        self.home = cluster
        self.cluster = cluster
        self.exchange = _exchange_kind(context, cluster)(context, cluster, self)
        self.head_began = 0.0
        self.outdated = False
        self.peer: tuple[str, int] | None = None
        self.state = IDLE
        self.keep_alive = True
        self.write_full = False
        self.deadline = context.sweep.soon + context.idle_timeout
        self._held = b""  # input that is not consumed yet: a begun head, or requests to come
        self._reader: BodyReader | None = None  # of the request body, while it has not ended
        self._starting = False
        self._empty_lines = 0  # before the request that comes next
        self._lingered = 0
        self._parked: Exchange | None = None  # home's own exchange, while another cluster's goes on
        self._routed: list[Exchange] = []  # of other clusters, the last used at the end

    # Reading

    def connection_made(self, transport: Transport) -> None:
        """The listener accepted it."""
        self.transport = transport
        self.gate = ReadGate(transport)
        context = self.context
        context.clients += 1
        context.sweep.members.add(self)
        if context.clients > context.max_clients:
            context.refused += 1
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Bytes of a head, of a body, or of requests that have to wait."""
        state = self.state
        if state == BUSY:
            if self._reader is not None:
                self._receive_body(data)
            else:
                self._hold(data)
        elif state == LINGER:
            self._lingered += len(data)
            if self._lingered > LINGER_BYTES:
                self.transport.abort()
        elif state == HEAD and b"\n" not in data and b"\r" not in data and not self._held.endswith(b"\r"):
            # No head ends without a line end: looking again would make one sent byte by byte quadratic.
            self._held += data
            self._check_held_head()
        else:
            self._start_requests(self._held + data if self._held else data)

    def is_asked(self) -> bool:
        """Whether the client waits: its request is whole, and not answered yet."""
        return self.state == BUSY and self._reader is None

    def _start_requests(self, data: bytes) -> None:
        """Begin the exchange of the first request in `data`, and of the next ones while answers come at once."""
        at = 0
        size = len(data)
        limit = self.home.policy.max_request_head
        while at < size and not self.write_full:
            if data[at] == _CR:
                if size - at == 1:
                    self._begin_head(b"\r")
                    return
                if data[at + 1] == _LF and self._empty_lines < MAX_EMPTY_LINES:
                    self._empty_lines += 1
                    at += 2
                    continue
            try:
                head = scan_request(data, at, limit)
            except ProtocolError as error:
                self._refuse(error, _OTHER_METHOD)
                return
            if head is None:
                self._begin_head(data[at:] if at else data)
                return
            at += head.size
            try:
                at = self._start_exchange(head, data, at)
            except ProtocolError as error:
                self._refuse(error, head.method)
                return
            if self.state != IDLE:
                return
        if at < size:  # nobody reads the answers: the rest waits until `resume_writing`
            self._held = data[at:]
            self._hold(b"")
        else:
            self._held = b""
            if self.state == HEAD:  # what had begun was but an empty line
                self.state = IDLE
                self.head_began = 0.0
                self.deadline = self.context.sweep.soon + self.context.idle_timeout

    def _start_exchange(self, head: RequestHead, data: bytes, at: int) -> int:
        """Hand one request to the exchange; the offset of what follows what has come of it."""
        length = head.length
        size = len(data)
        if not length:
            body = b""
        elif 0 < length <= size - at:
            body = data[at : at + length]
            at += length
        else:
            reader = request_reader(head)
            body, at = reader.feed(data, at)
            if not reader.done:
                self._reader = reader
        self._held = data[at:] if at < size else b""
        self._empty_lines = 0
        self.state = BUSY
        self.keep_alive = head.keep_alive
        if self.outdated:
            self._renew_exchange()
        if self.home.router is not None:
            self.home.router.direct(self, head)  # may `take` another cluster
        self._starting = True
        self.exchange.begin(head, body, self._reader is None)
        self._starting = False
        return at

    def _receive_body(self, data: bytes) -> None:
        reader = self._reader
        assert reader is not None
        try:
            piece, end = reader.feed(data)
        except ProtocolError as error:
            self.exchange.break_off(error)
            return
        if reader.done:
            self._reader = None
        self.exchange.send_body(piece, done=reader.done)
        if isinstance(reader, LengthReader) and reader.left >= SPLICE_BYTES:
            target = self.exchange.splice_target()
            if target is not None:
                splice(self.transport, target, reader.left)
        if end < len(data):
            if self.state == BUSY:
                self._hold(data[end:])
            elif self.state == IDLE:  # it was the rest of a request that had been answered
                self._start_requests(data[end:])

    def spliced(self, size: int) -> None:
        """So much of the request's body has gone to the endpoint."""
        reader = self._reader
        if isinstance(reader, LengthReader):
            reader.skip(size)
            if reader.done:
                self._reader = None
            self.exchange.send_body(b"", done=reader.done, spliced=size)

    def _hold(self, data: bytes) -> None:
        """Keep requests that came before their turn, up to the size of one head."""
        self._held += data
        if len(self._held) >= self.home.policy.max_request_head:
            self.gate.hold(PIPELINE_FULL)

    def _begin_head(self, begun: bytes) -> None:
        """Keep what has come of a head that has not ended."""
        self._held = begun
        if self.state == IDLE:
            self.state = HEAD
            self.head_began = self.context.monotonic()
            self.deadline = self.context.sweep.soon + self.context.head_timeout
        self._check_held_head()

    def _check_held_head(self) -> None:
        limit = self.home.policy.max_request_head
        if len(self._held) > limit:
            self._refuse(too_large(self._held, 0, limit), _OTHER_METHOD)

    # Another cluster than home's

    def take(self, cluster: Cluster) -> None:
        """The request that begins now is for `cluster`: called by home's router, between two exchanges.

        Whoever calls may be called by an exchange at its end, so that one that is let go lives a turn longer.
        """
        kind = _exchange_kind(self.context, cluster)
        routed = self._routed
        found = None
        for exchange in routed:
            if exchange.cluster is cluster:
                found = exchange
                break
        if found is not None and routed[-1] is not found:
            routed.remove(found)
            routed.append(found)
        if found is None or type(found) is not kind:
            if found is not None:
                self.context.loop.call_soon(_let_go, routed.pop())
            elif len(routed) == MAX_ROUTED:
                self.context.loop.call_soon(_let_go, routed.pop(0))
            found = kind(self.context, cluster, self)
            routed.append(found)
        self._parked = self.exchange
        self.exchange = found
        self.cluster = cluster

    def _go_home(self) -> None:
        own = self._parked
        assert own is not None
        self._parked = None
        self.exchange = own
        self.cluster = self.home

    # Answering

    @property
    def body_left(self) -> float:
        """Bytes of the request's body that have not come; infinity when nobody knows."""
        reader = self._reader
        return reader.left if isinstance(reader, LengthReader) else math.inf

    def connection_line(self) -> bytes:
        """The Connection line of a response that begins now, and the decision it tells."""
        if self.context.draining or self.home.leaving:
            self.keep_alive = False
        if self.exchange.head.minor:
            return b"" if self.keep_alive else CLOSE
        return KEEP_ALIVE if self.keep_alive else b""

    def answer(self, status: int, reason: Reason, message: str = "", retry_after: int = 0) -> None:
        """Answer the exchange that is going on with the proxy's own response. retry_after: see `error_response`."""
        connection = self.connection_line()
        bodiless = self.exchange.head.method == HEAD_METHOD
        self.transport.write(
            error_response(
                status,
                reason,
                self.cluster.name,
                message,
                connection=connection,
                bodiless=bodiless,
                retry_after=retry_after,
            )
        )

    def exchange_over(self) -> None:
        """The exchange has ended and its response is written: the next request, or the end."""
        if self.gate.reasons:
            self.gate.release(PEER_FULL | UNSENT)
        if not self.keep_alive or self.exchange.state != _NOTHING_OPEN:
            self._finish()
            return
        if self._parked is not None:
            self._go_home()
        self.state = IDLE
        self.deadline = self.context.sweep.soon + self.context.idle_timeout
        if self._held and not self._starting:
            self._go_on()

    def _go_on(self) -> None:
        """Start what was held."""
        held, self._held = self._held, b""
        self._start_requests(held)
        if len(self._held) < self.home.policy.max_request_head:
            self.gate.release(PIPELINE_FULL)

    def _refuse(self, error: ProtocolError, method: int) -> None:
        """Answer bytes that are no request, and close: what follows them cannot be told apart."""
        self.cluster.stats.count_request(method, error.status, error.reason, 0.0)
        if self.context.recorder is not None:
            self.context.recorder.refused(self, method, error, self.context.monotonic())
        bodiless = method == HEAD_METHOD
        self.transport.write(
            error_response(error.status, error.reason, self.cluster.name, str(error), bodiless=bodiless)
        )
        self._linger()

    def _finish(self) -> None:
        """Close after the last response, gently when the client may still be sending."""
        if self._reader is not None or self._held:
            self._linger()
        else:
            self._enter_linger()
            self.transport.close()

    def _linger(self) -> None:
        self._enter_linger()
        self._held = b""
        self._reader = None
        if not self.transport.is_closing():
            self.transport.write_eof()
            self.gate.release(PEER_FULL | UNSENT | PIPELINE_FULL)

    def _enter_linger(self) -> None:
        # What is still unsent gets the time that a quiet connection has; a client that has it all gets less.
        unsent = self.transport.get_write_buffer_size()
        self.state = LINGER
        self.deadline = self.context.sweep.soon + (self.context.idle_timeout if unsent else LINGER_SECONDS)

    def hand_over(self) -> bytes:
        """HTTP has ended on this connection, which is a session's from now on: what came behind the request."""
        self.context.sweep.members.discard(self)
        self.gate.release(PEER_FULL | UNSENT | PIPELINE_FULL)
        early, self._held = self._held, b""
        return early

    def abort(self) -> None:
        """Break the connection: the client must not take what it has got for a complete response."""
        self.state = LINGER
        reset(self.transport)

    # Another configuration

    def follow_policy(self) -> None:
        """The upstream's policy is another one, or who wants to know: from the next request on."""
        own = self.exchange if self._parked is None else self._parked
        self.outdated = type(own) is not _exchange_kind(self.context, self.home)

    def _renew_exchange(self) -> None:
        """Between two requests. The exchange before may be who calls, at its end, so that it lives a turn longer."""
        self.context.loop.call_soon(_let_go, self.exchange)
        self.exchange = _exchange_kind(self.context, self.cluster)(self.context, self.cluster, self)
        self.outdated = False

    def follow_times(self, longer: float, *, pace: bool) -> None:
        """The context's times have changed: a quiet connection has so many seconds more, a body another pace."""
        if self.state == IDLE:
            self.deadline += longer
        elif self.state == BUSY and pace:
            self.exchange.follow_pace()

    # The transport's other callbacks

    def pause_writing(self) -> None:
        """The client reads slowly: stop reading from the endpoint."""
        self.write_full = True
        connection = self.exchange.connection
        if connection is not None:
            connection.gate.hold(PEER_FULL)

    def resume_writing(self) -> None:
        """The client has caught up."""
        self.write_full = False
        connection = self.exchange.connection
        if connection is not None:
            connection.gate.release(PEER_FULL)
        if self.state == IDLE and self._held:
            self._go_on()

    def eof_received(self) -> bool:
        """The client will send no more: it has gone (as nginx, Envoy and Go see it; HAProxy waits)."""
        self._leave()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended, whoever ended it."""
        self.context.clients -= 1
        self.context.sweep.members.discard(self)
        self._leave()

    def _leave(self) -> None:
        state = self.state
        self._enter_linger()
        if state == BUSY:
            self.exchange.abandon()

    # The sweep's callbacks

    def expire(self) -> None:
        """The deadline of the state has passed."""
        if self.state == BUSY:
            self.exchange.expire()
        elif self.state == HEAD:
            error = ProtocolError("the request head did not arrive in time", 408, Reason.REQUEST_TIMEOUT)
            self._refuse(error, _OTHER_METHOD)
        elif self.state == IDLE and not self._held:
            self._enter_linger()
            self.transport.close()
        else:
            self.shut()

    def retire(self, now: float) -> bool:
        """The process would like to end."""
        if self.state == LINGER:
            return self.transport.get_write_buffer_size() > 0
        if self.state != IDLE or self._held or now < self.deadline - self.context.idle_timeout + RETIRE_QUIET:
            return True
        self._enter_linger()
        self.transport.close()
        return False

    def shut(self) -> None:
        """The process ends now, or the client did not take its answer: what it lacks must not look complete."""
        if self.state == BUSY or self.transport.get_write_buffer_size():
            reset(self.transport)
        else:
            self.transport.abort()


def _let_go(_exchange: Exchange) -> None:
    """Whoever holds this call holds the exchange."""


def _exchange_kind(context: ProxyContext, cluster: Cluster) -> type[Exchange]:
    """The plainest that does what the upstream's options ask for."""
    if context.recorder is not None:
        return RecordedExchange
    if cluster.policy.hedge_after:
        return HedgedExchange
    return TimedExchange if cluster.policy.deadline_header else Exchange
