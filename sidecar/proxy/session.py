"""Two connections joined: what one side says is passed to the other, whatever it is.

    application ── data ──► Session ──► EndpointSide ── data ──► endpoint
                ◄── data ──         ◄──              ◄── data ──

Back-pressure and half-close pass from one side to the other, and the session ends when both directions have.
`tcp` makes one of a connection to a redis or tcp port; `exchange` makes one of an HTTP connection whose
endpoint has switched protocols (101).
"""

from __future__ import annotations

import socket
from ssl import SSLEOFError
from typing import TYPE_CHECKING

from sidecar.model import CloseReason
from sidecar.net.receiver import Receiver
from sidecar.net.writing import write_to
from sidecar.proxy.relay import PEER_FULL, UNSENT, ReadGate, reset, splice, unsent
from sidecar.proxy.sweep import NEVER

if TYPE_CHECKING:
    from asyncio import Transport

    from sidecar.cluster import Cluster
    from sidecar.model.endpoint import EndpointState
    from sidecar.proxy.context import ProxyContext
    from sidecar.proxy.downstream import DownstreamConnection
    from sidecar.proxy.upstream import UpstreamConnection

__all__ = ["EndpointSide", "Session", "keep_alive"]

# Seconds of silence before the kernel asks whether the other side still lives (behaviour.md), then how often
# and how many times: a vanished host is noticed within a minute, where Linux's own default takes two hours.
KEEPALIVE = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))

# A read of this size promises as much again, and so much of it may go on past this process before another look.
LARGE_READ = 65536
AT_ONCE = 1 << 20


class Session(Receiver):
    """The application's side, and the session's life. other: the endpoint's side, once joined.

    idle_timeout: seconds that neither side may be silent for; 0 is off.
    peer: as in `DownstreamConnection`.
    started: monotonic seconds. sent: bytes that have gone to the endpoint; received: that have come from it.
    """

    __slots__ = (
        "_alive",
        "_context",
        "_ended",
        "_endpoint",
        "_idle_timeout",
        "_read_ended",
        "_unsent_before",
        "cluster",
        "deadline",
        "gate",
        "other",
        "peer",
        "received",
        "sent",
        "started",
        "transport",
    )

    transport: Transport
    gate: ReadGate

    def __init__(self, context: ProxyContext, cluster: Cluster, idle_timeout: float) -> None:
        self._context = context
        self.cluster = cluster
        self._alive = 1  # of the two connections
        self._ended = False
        self._endpoint: EndpointState | None = None
        self._idle_timeout = idle_timeout or NEVER
        self.other: EndpointSide | None = None
        self.peer: tuple[str, int] | None = None
        self._read_ended = False
        self._unsent_before = 0
        self.deadline = NEVER
        self.started = context.monotonic()
        self.sent = 0
        self.received = 0

    def take_over(self, client: DownstreamConnection, connection: UpstreamConnection) -> None:
        """Join two connections that carried HTTP: they, and their room in the books, are its own from now on."""
        self.peer = client.peer
        self._begin(client.transport)
        client.transport.set_protocol(self)  # type: ignore[arg-type] # duck-typed, as all protocols here
        self._endpoint = connection.endpoint
        self._endpoint.in_flight += 1
        side = EndpointSide(self)
        side.connection_made(connection.transport)
        connection.transport.set_protocol(side)  # type: ignore[arg-type] # the same
        if client.write_full:
            side.gate.hold(PEER_FULL)
        if connection.write_full:
            self.gate.hold(PEER_FULL)
        self._join(side)

    def _begin(self, transport: Transport) -> None:
        """The application's connection is there."""
        self.transport = transport
        self.gate = ReadGate(transport)
        keep_alive(transport)
        self._context.sweep.members.add(self)
        self.cluster.stats.sessions_active += 1

    def _join(self, side: EndpointSide) -> None:
        """The endpoint's connection is there: from now on they are one."""
        self.other = side
        self._alive += 1
        self._touch()

    @property
    def where(self) -> EndpointState | None:
        """The endpoint of the last attempt, for who is told that this has ended."""
        return self._endpoint

    def follow_endpoint(self) -> None:
        """End with the endpoint's place in the rotation, where that is asked for; the last thing of joining."""
        endpoint = self._endpoint
        if endpoint is None or not self.cluster.policy.close_on_unhealthy:
            return
        if self.cluster.keeps_sessions(endpoint):
            endpoint.sessions.add(self)
        else:  # it has left since this one was on its way
            self.endpoint_left()

    def follow_policy(self) -> None:
        """The upstream's policy is another one: its endpoint may be asked to end it from now on."""
        if self.other is not None:
            self.follow_endpoint()

    # The application's side

    def data_received(self, data: bytes) -> None:
        """Bytes for the endpoint."""
        assert self.other is not None
        self._touch()
        size = len(data)
        self.cluster.stats.bytes_sent += size
        self.sent += size
        write_to(self.other.transport, data)
        if size >= LARGE_READ:
            splice(self.transport, self.other.transport, AT_ONCE)

    def spliced(self, size: int) -> None:
        """So much has gone to the endpoint without passing through here."""
        self._touch()
        self.cluster.stats.bytes_sent += size
        self.sent += size

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

    # The endpoint's side, as it tells

    def relayed(self, data: bytes) -> None:
        """Bytes from the endpoint."""
        self._touch()
        size = len(data)
        self.cluster.stats.bytes_received += size
        self.received += size
        write_to(self.transport, data)
        other = self.other
        if other is not None and size >= LARGE_READ:
            splice(other.transport, self.transport, AT_ONCE)

    def relayed_by_splice(self, size: int) -> None:
        """So much has come from the endpoint without passing through here."""
        self._touch()
        self.cluster.stats.bytes_received += size
        self.received += size

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
        if exc is None:
            self._end(CloseReason.ENDPOINT_CLOSED)
        elif self._read_ended and isinstance(exc, SSLEOFError):
            # Redis, for one, answers no close_notify by its own: no failure, as who has ended first has all, as a rule.
            # Who goes on reading learns by a reset that it may not have all.
            self._end(CloseReason.CLIENT_CLOSED, whole=False)
        else:
            self._end(CloseReason.ENDPOINT_RESET)

    def endpoint_left(self) -> None:
        """The endpoint is out of rotation, and the session is not to outlive that."""
        self._end(CloseReason.ENDPOINT_UNHEALTHY)

    # The sweep's callbacks

    def _touch(self) -> None:
        """Something moved: the time-out of what is going on begins again.

        An open, quiet session has only its idle time-out, if any. A side that is not read from (it has said all,
        or the other side is full) may vanish without being noticed, so from then on `timeout` is the bound, as
        HAProxy's `timeout client-fin` is.
        """
        seconds = self._idle_timeout
        other = self.other
        if other is not None and (
            self._read_ended or other.read_ended or self.gate.reasons or other.gate.reasons
        ):
            seconds = min(seconds, self.cluster.policy.timeout)
        self.deadline = self._context.sweep.soon + seconds

    def _unsent(self) -> int:
        """Bytes that one side has sent and the other has not taken."""
        return unsent(self.transport) + (0 if self.other is None else unsent(self.other.transport))

    def expire(self) -> None:
        """Nothing has moved for the time-out of what is going on."""
        if self._ended:  # one side does not take what is still unsent
            self._abort()
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

    # Ending

    def _end(self, reason: CloseReason, *, whole: bool = True) -> None:
        """The end of the session, once: both connections, the endpoint's place, the counters.

        whole: nothing can be missing of what the endpoint has said, where the reason is a clean one.
        """
        if self._ended:
            return
        self._ended = True
        self.cluster.stats.sessions_active -= 1
        self.cluster.stats.sessions[reason] += 1
        if self._context.recorder is not None:
            self._context.recorder.session_over(self, reason, self._context.monotonic())
        self._stop_opening()
        if whole and reason in (CloseReason.CLIENT_CLOSED, CloseReason.ENDPOINT_CLOSED):
            # A clean end sends what is buffered first, within bounds; any other is passed on as a reset.
            self.deadline = self._context.sweep.soon + self._context.idle_timeout
            self.transport.close()
            if self.other is not None:
                self.other.transport.close()
        else:
            self._abort()
        if self._endpoint is not None:
            self._leave_endpoint(self._endpoint)

    def _stop_opening(self) -> None:
        """Whatever was to bring the endpoint's connection is not wanted any more."""

    def _leave_endpoint(self, endpoint: EndpointState) -> None:
        self._endpoint = None
        endpoint.sessions.discard(self)
        endpoint.in_flight -= 1
        endpoint.pool.release(None)

    def _abort(self) -> None:
        reset(self.transport)
        if self.other is not None:
            reset(self.other.transport)


class EndpointSide(Receiver):
    """The endpoint's connection of one session.

    Until it is the session's `other` it keeps what it hears: it may be given up in the very moment it is opened.
    """

    __slots__ = ("_early", "_session", "gate", "read_ended", "transport")

    transport: Transport
    gate: ReadGate

    def __init__(self, session: Session) -> None:
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

    def spliced(self, size: int) -> None:
        """So much has gone to the application without passing through here."""
        self._session.relayed_by_splice(size)

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
    """Let the kernel find out when the other side has vanished without a word; of a unix socket it knows."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
