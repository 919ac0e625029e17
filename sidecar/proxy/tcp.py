"""A connection to a redis or tcp port, and how it gets its endpoint.

The endpoint is chosen once, when the application connects. Until a connection to one stands, what the
application sends is kept (one read's worth; then reading stops), so a refused connect moves on to the next
endpoint without the application noticing. Afterwards it is a `Session` like any other.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from sidecar.errors import Reason
from sidecar.model import CloseReason, Limit, Outcome
from sidecar.pool import Admission
from sidecar.proxy.dial import UNCONNECTED, Dial
from sidecar.proxy.hash_key import client_key
from sidecar.proxy.proxied import greeting
from sidecar.proxy.relay import UNSENT
from sidecar.proxy.session import EndpointSide, Session
from sidecar.proxy.sweep import NEVER
from sidecar.resilience import VOID, full_jitter

if TYPE_CHECKING:
    from asyncio import TimerHandle, Transport

    from sidecar.cluster import Cluster
    from sidecar.model.endpoint import EndpointState
    from sidecar.proxy.context import ProxyContext

__all__ = ["TcpSession"]


# What `Cluster.refusal` is for a session.
_REFUSED = {
    Reason.NO_ENDPOINTS: CloseReason.NO_ENDPOINTS,
    Reason.ALL_OPEN: CloseReason.ALL_OPEN,
    Reason.DRAINING: CloseReason.DRAINING,
}


class TcpSession(Session):
    """A session from the moment that the listener accepts the application's connection."""

    __slots__ = (
        "_began",
        "_delay",
        "_dial",
        "_early",
        "_key",
        "_permit",
        "_retries_left",
        "_tried",
        "_wait_due",
    )

    def __init__(self, context: ProxyContext, cluster: Cluster) -> None:
        super().__init__(context, cluster, cluster.policy.idle_timeout)
        self._dial: Dial | None = None
        self._delay: TimerHandle | None = None  # before the next attempt
        self._early = b""
        self._permit = 0
        self._began = 0.0
        self._key = 0
        self._retries_left = cluster.policy.retries
        self._tried: list[EndpointState] = []
        self._wait_due = NEVER

    def connection_made(self, transport: Transport) -> None:
        """The listener accepted it."""
        self._begin(transport)
        context = self._context
        context.clients += 1
        if context.clients > context.max_clients:
            context.refused += 1
            self._end(CloseReason.OVERFLOW)
        elif self.cluster.front is not None and not self.cluster.front.admits(context.monotonic()):
            self._end(CloseReason.RATE_LIMITED)
        elif self.cluster.limit.max_in_flight and self.cluster.is_overfull:
            self._overflow(Limit.IN_FLIGHT)
        else:
            self._touch()
            if self.cluster.hashes:
                self._key = client_key(transport, self.peer)
            self._connect(context.monotonic())

    def data_received(self, data: bytes) -> None:
        """Bytes for the endpoint, kept while there is none."""
        if self.other is None:
            self._early += data
            self.gate.hold(UNSENT)
        else:
            Session.data_received(self, data)

    # Connecting

    @property
    def where(self) -> EndpointState | None:
        """See `Session.where`."""
        if self._endpoint is None and self._tried:
            return self._tried[-1]
        return self._endpoint

    def _connect(self, now: float) -> None:
        """Dial an endpoint: the picked one, and after failures the ones not tried yet."""
        endpoint = self.cluster.pick(now, self._tried, self._key)
        if endpoint is None:
            if self._tried:
                self._end(CloseReason.CONNECT_FAILED)
            else:
                self._end(_REFUSED[self.cluster.refusal])
            return
        probe = self.cluster.gave_probe
        endpoint = self.cluster.with_room(endpoint, now, self._tried, self._key)
        self._permit = endpoint.breaker.permit if probe or endpoint.breaker.closed else VOID
        self._began = now
        admission = endpoint.pool.admit(self, probe=probe)
        if admission is Admission.OPEN:
            endpoint.in_flight += 1
            self._endpoint = endpoint
            timeout = self.cluster.policy.connect_timeout
            version = self.cluster.proxy_protocol
            hello = greeting(version, self.transport, self.peer) if version else b""
            self._dial = Dial(self._context, endpoint, partial(EndpointSide, self), timeout, self, hello)
            return
        if admission is Admission.WAIT:
            policy = self.cluster.policy
            seconds = min(policy.pending_timeout, policy.timeout)
            self.deadline = min(self._wait_due, self._context.sweep.soon + seconds)
        else:
            self._overflow(self.cluster.limit.reached)

    def _overflow(self, limit: Limit) -> None:
        self.cluster.stats.overflows[limit] += 1
        self._end(CloseReason.OVERFLOW)

    def avoids(self, connection: Any) -> bool:
        """No connection comes free of a session before both have ended."""
        return False

    def proceed(self, connection: Any) -> None:
        """The wait for room to open a connection is over."""
        self._wait_due = self.deadline  # if it has to wait on, that is no new wait
        self._touch()
        self._connect(self._context.monotonic())
        self._wait_due = NEVER

    def on_connected(self, dial: Dial, connection: EndpointSide) -> None:
        """An endpoint accepted: join the two sides."""
        self._dial = None
        self.cluster.stats.connects[0] += 1
        self._report(Outcome.SUCCESS)
        self._join(connection)
        if self._early:
            self.cluster.stats.bytes_sent += len(self._early)
            self.sent += len(self._early)
            connection.transport.write(self._early)
            self._early = b""
        self.gate.release(UNSENT)
        self._touch()
        if self._read_ended:
            connection.transport.write_eof()
        connection.joined()
        self.follow_endpoint()

    def on_connect_failed(self, dial: Dial, outcome: Outcome) -> None:
        """This endpoint did not accept: another one, or the same again while retries are left."""
        self._dial = None
        self._report(outcome)
        self._leave_endpoint(dial.endpoint)
        if outcome is Outcome.LOCAL_SHORTAGE:
            self._overflow(Limit.DESCRIPTORS)
            return
        self.cluster.stats.connects[UNCONNECTED[outcome][1]] += 1
        self._tried.append(dial.endpoint)
        if not self.cluster.has_sound(self._tried):
            if self._retries_left <= 0:
                self._end(CloseReason.CONNECT_FAILED)
                return
            self._retries_left -= 1
            if self._wait_a_moment():
                return
        self._connect(self._context.monotonic())

    def _wait_a_moment(self) -> bool:
        """Whether there is a wait before those that did not accept are asked again."""
        policy = self.cluster.policy
        retry = policy.retries - self._retries_left - 1
        wait = full_jitter(retry, policy.backoff_base, policy.backoff_max, self._context.clock.uniform())
        if wait:
            self._delay = self._context.loop.call_later(wait, self._connect_now)
        return wait > 0.0

    def _connect_now(self) -> None:
        """The wait before an attempt is over."""
        self._delay = None
        self._connect(self._context.monotonic())

    def _report(self, outcome: Outcome) -> None:
        """A session's outcome is its connect: what is said afterwards cannot be judged from outside."""
        assert self._endpoint is not None
        now = self._context.monotonic()
        self.cluster.report(self._endpoint, outcome, now, self._permit, now - self._began)

    def _stop_opening(self) -> None:
        delay, self._delay = self._delay, None
        if delay is not None:
            delay.cancel()
        dial, self._dial = self._dial, None
        if dial is not None:
            dial.cancel()
            self._report(Outcome.CANCELLED)
        else:
            self.cluster.limit.withdraw(self)

    def expire(self) -> None:
        """The wait for an endpoint's connection, or the session's own time-out, is over."""
        if self._delay is not None:
            self._end(CloseReason.CONNECT_FAILED)
        elif self._endpoint is None and not self._ended:
            self._overflow(Limit.PENDING_TIMEOUT)
        else:
            Session.expire(self)
