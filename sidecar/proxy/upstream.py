"""The endpoint's connection: it carries one exchange at a time and reads its response."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.errors import ProtocolError
from sidecar.http1.body import BodyReader, LengthReader, UntilCloseReader
from sidecar.http1.scan import scan_response
from sidecar.http1.state import IllegalEventError
from sidecar.net.receiver import Receiver
from sidecar.net.writing import write_to
from sidecar.proxy.relay import PEER_FULL, SPLICE_BYTES, ReadGate, splice
from sidecar.proxy.sweep import NEVER

if TYPE_CHECKING:
    from asyncio import Transport

    from sidecar.model.endpoint import EndpointState
    from sidecar.pool import EndpointPool
    from sidecar.proxy.context import ProxyContext
    from sidecar.proxy.exchange import Exchange

__all__ = ["UpstreamConnection"]


# 1xx responses before the final one. Go's client takes 5; servers that report progress by 102 send more of them.
MAX_INTERIMS = 100


class UpstreamConnection(Receiver):
    """One connection to one endpoint.

    exchange: the one it carries; None while it is idle in the pool.
    proxied: it began with a PROXY header, and so is its client's and nobody else's.
    served: exchanges it has carried to their end. heard: bytes have come for the one it carries now.
    reader: of the response body, once the head has come and the body did not come whole with it.
    deadline: for the sweep; only an idle connection has one, a busy one's exchange has its own.
    """

    __slots__ = (
        "_booked",
        "_context",
        "_held",
        "_interims",
        "_limit",
        "deadline",
        "endpoint",
        "exchange",
        "gate",
        "heard",
        "pool",
        "proxied",
        "reader",
        "served",
        "transport",
        "write_full",
    )

    transport: Transport
    gate: ReadGate

    def __init__(self, context: ProxyContext, endpoint: EndpointState) -> None:
        self._context = context
        self._limit = 0  # of a head, bytes; as its exchange's upstream has it
        self._held = b""  # a head that has begun
        self._booked = False
        self._interims = 0
        self.endpoint = endpoint
        self.pool: EndpointPool = endpoint.pool
        self.exchange: Exchange | None = None
        self.reader: BodyReader | None = None
        self.served = 0
        self.heard = False
        self.proxied = False
        self.write_full = False
        self.deadline = NEVER

    def connection_made(self, transport: Transport) -> None:
        """The endpoint accepted it."""
        self.transport = transport
        self.gate = ReadGate(transport)

    def adopt(self) -> None:
        """The room that was reserved in the pool for opening it is its own from now on.

        And a place in the sweep, which its `Dial` has had until now: one that is cancelled in the moment it is made
        is never told of its end by uvloop.
        """
        self._booked = True
        self._context.sweep.members.add(self)

    def start(self, exchange: Exchange, request: bytes) -> None:
        """Carry `exchange`: send what has come of its request."""
        self.exchange = exchange
        self._limit = exchange.cluster.policy.max_response_head
        self.heard = False
        self._interims = 0
        self.deadline = NEVER
        write_to(self.transport, request)

    def rest(self, idle_timeout: float) -> None:
        """The exchange is over and the connection may be used again: into the pool, or to who waits for it."""
        if self.proxied or (self.exchange is not None and self.exchange.cluster.proxy_protocol):
            self.close()
            return
        self.exchange = None
        self.reader = None
        self.served += 1
        self.deadline = self._context.sweep.soon + idle_timeout
        if self.gate.reasons:
            self.gate.release(PEER_FULL)
        self.pool.give_back(self)

    def data_received(self, data: bytes) -> None:
        """Bytes of the response."""
        exchange = self.exchange
        if exchange is None:
            self.close()  # bytes nobody asked for: what they would answer cannot be told
            return
        try:
            if self.reader is None:
                self._receive_head(exchange, data)
            else:
                piece, end = self.reader.feed(data)
                exchange.relay(piece, done=self.reader.done, excess=end < len(data))
            if self.reader is not None and exchange is self.exchange:
                self._splice_rest(exchange)
        except ProtocolError as error:
            exchange.response_broken(error)
        except (
            IllegalEventError
        ):  # no fault of the endpoint's, and nothing to try again when its connection ends
            self.exchange = None
            exchange.client.shut()
            raise

    def _splice_rest(self, exchange: Exchange) -> None:
        reader = self.reader
        if isinstance(reader, LengthReader) and reader.left >= SPLICE_BYTES:
            splice(self.transport, exchange.client.transport, reader.left)

    def spliced(self, size: int) -> None:
        """So much of the response's body has gone to the client."""
        exchange, reader = self.exchange, self.reader
        if exchange is not None and isinstance(reader, LengthReader):
            reader.skip(size)
            excess = reader.done and self.transport.has_more()  # type: ignore[attr-defined] # one that splices has it
            exchange.relay(b"", done=reader.done, excess=excess, spliced=size)

    def _receive_head(self, exchange: Exchange, data: bytes) -> None:
        if self._held:
            # No head ends without a line end, and once its beginning is right there is nothing else to see.
            told = b"\n" in data or b"\r" in data or len(self._held) <= 7 or self._held.endswith(b"\r")
            if not told and len(self._held) + len(data) <= self._limit:
                self._held += data
                return
            data = self._held + data
            self._held = b""
        self.heard = True
        at = 0
        while True:
            head = scan_response(data, at, exchange.head.method, self._limit)
            if head is None:
                self._held = data[at:]
                return
            at += head.size
            if head.status >= 200:
                break
            if head.status == 101:
                exchange.switch(head, data, at)
                return
            self._interims += 1
            if self._interims > MAX_INTERIMS:
                raise ProtocolError(f"more than {MAX_INTERIMS} interim responses")
            exchange.relay_interim(head)
        exchange.respond(head, data, at)

    def hand_over(self) -> None:
        """HTTP has ended on this connection: what holds its room in the pool is another's from now on."""
        self.exchange = None
        self._booked = False
        self._context.sweep.members.discard(self)
        self.gate.release(PEER_FULL)

    def close(self) -> None:
        """Leave the books and close at once: idle, or no longer wanted."""
        self.exchange = None
        self._leave()
        self.transport.abort()

    shut = expire = close  # the sweep's callbacks: an idle connection has grown old, or the process ends now

    def retire(self, now: float) -> bool:
        """The process would like to end."""
        # What was just opened is about to carry one: closed now, it would look like a refused connect.
        if self.exchange is not None or not self._booked:
            return True
        self.close()
        return False

    def _leave(self) -> None:
        self._context.sweep.members.discard(self)
        if self._booked:
            self._booked = False
            self.pool.release(self)

    def eof_received(self) -> bool:
        """The endpoint will send no more: the end of any exchange, whatever of its request is still unsent."""
        self._over(clean=True)
        self.transport.abort()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended, whoever ended it."""
        self._over(clean=exc is None)

    def _over(self, *, clean: bool) -> None:
        exchange, self.exchange = self.exchange, None
        self._leave()  # first: at a full bound the next attempt needs this very room
        if exchange is not None:
            reader = self.reader
            ending = reader.ending if clean and isinstance(reader, UntilCloseReader) else None
            exchange.connection_ended(self, ending)

    def pause_writing(self) -> None:
        """The endpoint reads slowly: stop reading from the client."""
        self.write_full = True
        if self.exchange is not None:
            self.exchange.endpoint_full(True)

    def resume_writing(self) -> None:
        """The endpoint has caught up."""
        self.write_full = False
        if self.exchange is not None:
            self.exchange.endpoint_full(False)
