"""One opaque session: whatever the application says on a redis or tcp port, relayed to one endpoint.

The endpoint is chosen once, when the application connects. Until a connection to one stands, what the
application sends is kept (one read's worth; then reading stops), so a refused connect moves on to the next
endpoint without the application noticing. Afterwards the two sides are joined: back-pressure and half-close
pass from one to the other, and the session ends when both directions have.
"""

from __future__ import annotations

import socket
from functools import partial
from typing import TYPE_CHECKING, Any

from sidecar.errors import Reason
from sidecar.model import CloseReason, Outcome
from sidecar.pool import Admission
from sidecar.proxy.dial import Dial
from sidecar.proxy.relay import PEER_FULL, UNSENT, ReadGate, reset, unsent
from sidecar.proxy.sweep import NEVER
from sidecar.resilience import BreakerState

if TYPE_CHECKING:
    from asyncio import Transport

    from sidecar.cluster import Cluster
    from sidecar.model import EndpointState
    from sidecar.proxy.context import ProxyContext

__all__ = ["EndpointSide", "TcpSession"]

# Seconds of silence before the kernel asks whether the other side still lives (behaviour.md), then how often
# and how many times: a vanished host is noticed within a minute, where Linux's own default takes two hours.
KEEPALIVE = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))


class TcpSession:
    """The application's side, and the session's life. other: the endpoint's side, once joined."""

    __slots__ = (
        "_alive",
        "_cluster",
        "_context",
        "_dial",
        "_early",
        "_ended",
        "_endpoint",
        "_permit",
        "_read_ended",
        "_retries_left",
        "_tried",
        "_unsent_before",
        "deadline",
        "gate",
        "other",
        "transport",
    )

    transport: Transport
    gate: ReadGate

    def __init__(self, context: ProxyContext, cluster: Cluster) -> None:
        self._context = context
        self._cluster = cluster
        self._dial: Dial | None = None
        self._alive = 1  # of the two connections
        self._early = b""
        self._ended = False
        self._endpoint: EndpointState | None = None
        self.other: EndpointSide | None = None
        self._permit = 0
        self._read_ended = False
        self._retries_left = cluster.policy.retries
        self._tried: list[EndpointState] = []
        self._unsent_before = 0
        self.deadline = NEVER

    # The application's side

    def connection_made(self, transport: Transport) -> None:
        """The listener accepted it."""
        self.transport = transport
        self.gate = ReadGate(transport)
        keep_alive(transport)
        context = self._context
        context.clients += 1
        context.sweep.members.add(self)
        self._cluster.stats.sessions_active += 1
        if context.clients > context.max_clients:
            context.refused += 1
            self._end(CloseReason.OVERFLOW)
        else:
            self._touch()
            self._connect(context.clock.monotonic())

    def data_received(self, data: bytes) -> None:
        """Bytes for the endpoint."""
        if self.other is None:
            self._early += data
            self.gate.hold(UNSENT)
            return
        self._touch()
        self._cluster.stats.bytes_sent += len(data)
        self.other.transport.write(data)

    def eof_received(self) -> bool:
        """The application will send no more; what the endpoint still says is passed on."""
        self._read_ended = True
        other = self.other
        if other is None:
            return True  # told to the endpoint as soon as there is one
        if other.read_ended:
            self._end(CloseReason.ENDPOINT_CLOSED)  # named after who ended first
        else:
            other.transport.write_eof()
            self._touch()
        return True

    def pause_writing(self) -> None:
        """The application reads slowly."""
        if self.other is not None:
            self.other.gate.hold(PEER_FULL)
            self._touch()

    def resume_writing(self) -> None:
        """The application has caught up."""
        if self.other is not None:
            self.other.gate.release(PEER_FULL)
            self._touch()

    def connection_lost(self, exc: Exception | None) -> None:
        """The application's connection has ended."""
        self._context.clients -= 1
        self._side_lost()
        self._end(CloseReason.CLIENT_RESET if exc is not None else CloseReason.CLIENT_CLOSED)

    def _side_lost(self) -> None:
        self._alive -= 1
        if not self._alive:
            self._context.sweep.members.discard(self)

    # Connecting

    def _connect(self, now: float) -> None:
        """Dial an endpoint: the picked one, and after failures the ones not tried yet."""
        endpoint = self._cluster.pick(now, self._tried)
        if endpoint is None:
            if self._tried:
                self._end(CloseReason.CONNECT_FAILED)
            else:
                empty = self._cluster.refusal is Reason.NO_ENDPOINTS
                self._end(CloseReason.NO_ENDPOINTS if empty else CloseReason.ALL_OPEN)
            return
        self._permit = endpoint.breaker.permit
        admission = endpoint.pool.admit(self, probe=endpoint.breaker.state is BreakerState.HALF_OPEN)
        if admission is Admission.OPEN:
            endpoint.in_flight += 1
            self._endpoint = endpoint
            timeout = self._cluster.policy.connect_timeout
            self._dial = Dial(self._context, endpoint, partial(EndpointSide, self), timeout, self)
            return
        if admission is Admission.WAIT:
            self.deadline = self._context.sweep.soon + self._cluster.policy.timeout
        else:
            self._overflow()

    def _overflow(self) -> None:
        self._cluster.stats.overflows += 1
        self._end(CloseReason.OVERFLOW)

    def proceed(self, connection: Any) -> None:
        """The wait for room to open a connection is over."""
        self.deadline = NEVER
        self._touch()
        self._connect(self._context.clock.monotonic())

    def on_connected(self, dial: Dial, connection: EndpointSide) -> None:
        """An endpoint accepted: join the two sides."""
        self._dial = None
        self._cluster.stats.connects[0] += 1
        self._report(Outcome.SUCCESS)
        self.other = connection
        self._alive += 1
        if self._early:
            self._cluster.stats.bytes_sent += len(self._early)
            connection.transport.write(self._early)
            self._early = b""
        self.gate.release(UNSENT)
        self._touch()
        if self._read_ended:
            connection.transport.write_eof()
        connection.joined()

    def on_connect_failed(self, dial: Dial, outcome: Outcome) -> None:
        """This endpoint did not accept: another one, or the same again while retries are left."""
        self._dial = None
        self._report(outcome)
        self._leave_endpoint(dial.endpoint)
        if outcome is Outcome.LOCAL_SHORTAGE:
            self._overflow()
            return
        self._cluster.stats.connects[2 if outcome is Outcome.CONNECT_TIMEOUT else 1] += 1
        self._tried.append(dial.endpoint)
        if not self._cluster.has_untried(self._tried):
            if self._retries_left <= 0:
                self._end(CloseReason.CONNECT_FAILED)
                return
            self._retries_left -= 1
        self._connect(self._context.clock.monotonic())

    def _report(self, outcome: Outcome) -> None:
        """A session's outcome is its connect: what is said afterwards cannot be judged from outside."""
        assert self._endpoint is not None
        self._cluster.report(self._endpoint, outcome, self._context.clock.monotonic(), self._permit)

    def _leave_endpoint(self, endpoint: EndpointState) -> None:
        self._endpoint = None
        endpoint.in_flight -= 1
        endpoint.pool.release(None)

    # Ending

    def _touch(self) -> None:
        """Something moved: the time-out of what is going on begins again.

        An open, quiet session has only its idle time-out, if any. A side that is not read from (it has said all,
        or the other side is full) may vanish without being noticed, so from then on `timeout` is the bound, as
        HAProxy's `timeout client-fin` is.
        """
        policy = self._cluster.policy
        seconds = policy.idle_timeout or NEVER
        other = self.other
        if other is not None and (
            self._read_ended or other.read_ended or self.gate.reasons or other.gate.reasons
        ):
            seconds = min(seconds, policy.timeout)
        self.deadline = self._context.sweep.soon + seconds

    def _unsent(self) -> int:
        """Bytes that one side has sent and the other has not taken."""
        return unsent(self.transport) + (0 if self.other is None else unsent(self.other.transport))

    def expire(self) -> None:
        """Nothing has moved for the time-out of what is going on."""
        if self._ended:  # one side does not take what is still unsent
            self._abort()
        elif self._endpoint is None:
            self._overflow()
        elif self._unsent() != self._unsent_before:
            self._unsent_before = self._unsent()
            self._touch()  # slow, but it moves
        else:
            self._end(CloseReason.IDLE_TIMEOUT)

    def shut(self) -> None:
        """The process ends now."""
        self._end(CloseReason.DRAINING)
        self._abort()

    def retire(self, now: float) -> bool:
        """The process would like to end: sessions are their applications' to end, until the deadline."""
        return not self._ended or self._unsent() > 0

    def relayed(self, data: bytes) -> None:
        """Bytes from the endpoint."""
        self._touch()
        self._cluster.stats.bytes_received += len(data)
        self.transport.write(data)

    def endpoint_read_ended(self) -> None:
        """The endpoint will send no more."""
        if self._read_ended:
            self._end(CloseReason.CLIENT_CLOSED)
        else:
            self.transport.write_eof()
            self._touch()

    def peer_full(self, full: bool) -> None:
        """The endpoint reads slowly, or has caught up."""
        if full:
            self.gate.hold(PEER_FULL)
        else:
            self.gate.release(PEER_FULL)
        self._touch()

    def endpoint_lost(self, exc: Exception | None) -> None:
        """The endpoint's connection has ended."""
        self._side_lost()
        self._end(CloseReason.ENDPOINT_RESET if exc is not None else CloseReason.ENDPOINT_CLOSED)

    def _end(self, reason: CloseReason) -> None:
        """The end of the session, once: both connections, the endpoint's place, the counters."""
        if self._ended:
            return
        self._ended = True
        self._cluster.stats.sessions_active -= 1
        self._cluster.stats.sessions[reason] += 1
        dial, self._dial = self._dial, None
        if dial is not None:
            dial.cancel()
            self._report(Outcome.CANCELLED)
        else:
            self._cluster.limit.withdraw(self)
        if reason in (CloseReason.CLIENT_CLOSED, CloseReason.ENDPOINT_CLOSED):
            # A clean end sends what is buffered first, within bounds; any other is passed on as a reset.
            self.deadline = self._context.sweep.soon + self._context.idle_timeout
            self.transport.close()
            if self.other is not None:
                self.other.transport.close()
        else:
            self._abort()
        if self._endpoint is not None:
            self._leave_endpoint(self._endpoint)

    def _abort(self) -> None:
        reset(self.transport)
        if self.other is not None:
            reset(self.other.transport)


class EndpointSide:
    """The endpoint's connection of one session.

    Until it is the session's `other` it keeps what it hears: it may be given up in the very moment it is opened.
    """

    __slots__ = ("_early", "_session", "gate", "read_ended", "transport")

    transport: Transport
    gate: ReadGate

    def __init__(self, session: TcpSession) -> None:
        self._early = b""
        self._session = session
        self.read_ended = False

    def connection_made(self, transport: Transport) -> None:
        """The endpoint accepted it."""
        self.transport = transport
        self.gate = ReadGate(transport)
        keep_alive(transport)

    def joined(self) -> None:
        """It is the session's other side now: what it has heard already is passed on."""
        if self._early:
            self.gate.release(UNSENT)
            self._session.relayed(self._early)
            self._early = b""
        if self.read_ended:
            self._session.endpoint_read_ended()

    @property
    def _is_joined(self) -> bool:
        return self._session.other is self

    def data_received(self, data: bytes) -> None:
        """Bytes for the application."""
        if self._is_joined:
            self._session.relayed(data)
        else:
            self._early += data
            self.gate.hold(UNSENT)

    def eof_received(self) -> bool:
        """The endpoint will send no more; what the application still says is passed on."""
        self.read_ended = True
        if self._is_joined:
            self._session.endpoint_read_ended()
        return True

    def pause_writing(self) -> None:
        """The endpoint reads slowly."""
        if self._is_joined:
            self._session.peer_full(True)

    def resume_writing(self) -> None:
        """The endpoint has caught up."""
        if self._is_joined:
            self._session.peer_full(False)

    def connection_lost(self, exc: Exception | None) -> None:
        """The endpoint's connection has ended."""
        if self._is_joined:
            self._session.endpoint_lost(exc)


def keep_alive(transport: Transport) -> None:
    """Let the kernel find out when the other side has vanished without a word."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
