"""Copies of requests for another upstream, whose answers nobody reads: a release is tried with real traffic.

    request ─► exchange goes on as ever
       └─ in the loop's next turn, if it is one of the share ─► copy ─► `Nobody`'s exchange at the other upstream

A copy is a request of that upstream like any other: counted there, tried again as its policy says, kept from endpoints
whose breakers are open. Of the request that it is a copy of nothing waits for it, and nothing changes by what becomes
of it. It carries `x-sidecar-mirrored: 1`, so that who gets it can tell, and is not mirrored itself, here or by another
sidecar; its Host is what the other upstream's policy says. (Envoy has `-shadow` behind the host for that, which an
endpoint that looks at Host would refuse.)

It is copied as it came: header rules and the bearer token of the upstream are for its own endpoints, and the mirror has
its own.

Only what has come whole with its head is copied, and no more than `MAX_BODY` of body: a longer one would have to be
kept, at its own pace, for two. Of an answer `MAX_ANSWER` is taken, and then its connection is broken off: nothing slows
down who sends without an end, and reading that would take the time of everybody else's requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sidecar.http1.state import State
from sidecar.proxy.downstream import DownstreamConnection
from sidecar.proxy.relay import ReadGate

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.cluster import Cluster
    from sidecar.errors import Reason
    from sidecar.http1.message import RequestHead
    from sidecar.model.stats import UpstreamStats
    from sidecar.proxy.context import ProxyContext
    from sidecar.proxy.exchange import Exchange

__all__ = ["MARK", "MAX_ANSWER", "MAX_BODY", "Copies"]

MARK = b"x-sidecar-mirrored"
MAX_BODY = 65536  # bytes; as much as is kept for another attempt (`exchange.REPLAY_BYTES`)
MAX_ANSWER = 1 << 18  # bytes; nearly all answers are shorter, and their connections are used again

_SENT, _DROPPED, _SKIPPED = range(3)  # the order of `model.stats.MIRRORED`


class Copies:
    """The mirror of one upstream.

    cluster: of whoever gets them. stats: of the upstream whose requests are copied. share: of them, 0 to 1.
    max_in_flight: copies under way at once; beyond it none are made. in_flight: of these now.
    """

    __slots__ = ("_context", "_stats", "cluster", "in_flight", "max_in_flight", "share")

    def __init__(
        self,
        context: ProxyContext,
        cluster: Cluster,
        stats: UpstreamStats,
        share: float,
        max_in_flight: int,
    ) -> None:
        self._context = context
        self._stats = stats
        self.cluster = cluster
        self.share = share
        self.max_in_flight = max_in_flight
        self.in_flight = 0

    def reflect(self, exchange: Exchange) -> None:
        """See `front.Mirror.reflect`."""
        if self.share < 1.0 and self._context.clock.uniform() >= self.share:
            return
        head = exchange.head
        if head.field(MARK) is not None:
            return
        body = exchange._body
        # An upgrade would ask for a tunnel to nobody.
        whole = exchange.state == State.SENT and len(body) <= MAX_BODY and not head.extras.upgrade
        if not whole or self._context.draining:
            self._stats.mirrored[_SKIPPED] += 1
        elif self.in_flight >= self.max_in_flight:
            self._stats.mirrored[_DROPPED] += 1
        else:
            self._stats.mirrored[_SENT] += 1
            copy = head.copy()
            copy.add(MARK, b"1")
            self.in_flight += 1
            client = Nobody(self._context, self, exchange.client)
            self._context.loop.call_soon(client.ask, copy, body)  # the request itself goes first

    def over(self) -> None:
        """A copy has been answered, or will not be."""
        self.in_flight -= 1
        self._context.copies -= 1


class Nobody(DownstreamConnection):
    """The client of one copy. Whatever it is told is forgotten, and it goes with the end of its exchange."""

    __slots__ = ("_copies", "_over")

    def __init__(self, context: ProxyContext, copies: Copies, original: DownstreamConnection) -> None:
        super().__init__(context, copies.cluster)
        self._copies = copies
        self._over = False
        self.transport = Nowhere(original.transport, self._flooded)  # type: ignore[assignment] # what is called of a transport
        self.gate = ReadGate(self.transport)
        self.peer = original.peer

    def ask(self, head: RequestHead, body: bytes) -> None:
        """Begin."""
        self.context.copies += 1  # with the mirror's own `in_flight`, of which these are taken off
        self.context.sweep.members.add(self)
        self.exchange.begin(head, body, True)

    def answer(self, status: int, reason: Reason, message: str = "", retry_after: int = 0) -> None:
        """See `DownstreamConnection.answer`."""

    def exchange_over(self) -> None:
        """See `DownstreamConnection.exchange_over`."""
        self._leave()

    def abort(self) -> None:
        """The response broke off; its exchange has ended."""
        self._leave()

    def expire(self) -> None:
        """A time-out of the exchange has passed."""
        self.exchange.expire()

    def follow_times(self, longer: float, *, pace: bool) -> None:
        """Times of clients: a copy has its exchange's alone, and is not to count as slow for others."""

    def retire(self, now: float) -> bool:
        """The process would like to end, or the other upstream: nobody waits for the answer."""
        self.shut()
        return False

    def shut(self) -> None:
        """It is not to go on."""
        if not self._over:
            self.exchange.abandon()
            self._leave()

    def _flooded(self) -> None:
        """The answer is too long. Who says so is in the middle of its exchange, which can end a turn later."""
        self.context.loop.call_soon(self.shut)

    def _leave(self) -> None:
        if not self._over:
            self._over = True
            self.context.sweep.members.discard(self)
            self._copies.over()


class Nowhere:
    """A transport that takes everything at once; who the client is, is the original's. flooded: it was `MAX_ANSWER`."""

    __slots__ = ("_flooded", "_left", "_names")

    def __init__(self, original: Any, flooded: Callable[[], None]) -> None:
        self._names = {name: original.get_extra_info(name) for name in ("peername", "sockname")}
        self._flooded = flooded
        self._left = MAX_ANSWER

    def write(self, data: bytes) -> None:
        """Forget it."""
        before = self._left
        self._left = before - len(data)
        if self._left < 0 <= before:
            self._flooded()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Where the original came from and to."""
        return self._names.get(name, default)

    def get_write_buffer_size(self) -> int:
        """Nothing waits."""
        return 0

    def is_closing(self) -> bool:
        """It takes more."""
        return False

    def pause_reading(self) -> None:
        """Nothing is read."""

    def resume_reading(self) -> None:
        """Nothing is read."""

    def abort(self) -> None:
        """There is nothing to end."""

    close = abort
