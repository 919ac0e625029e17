"""How a request gets to an endpoint: picking one, a connection to it, and trying again.

    attempt ─► pick ─► idle connection ──────────────► send
                   └─► room for one ─► dial ─────────► send
                                   └─► wait ─► proceed ─┘
    refused, reset before the response, too slow, a status of `retry_on` ─► retry ─► attempt
                                   (at once elsewhere; at the same endpoint after a while)

What an attempt costs and what came of it is told once, in `_attempt_over`: the endpoint's breaker and counters.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from sidecar.errors import Reason
from sidecar.http1.state import State
from sidecar.model import Limit, Outcome
from sidecar.pool import Admission
from sidecar.proxy.dial import UNCONNECTED, Dial
from sidecar.proxy.proxied import greeting
from sidecar.proxy.respond import OVERFLOW_MESSAGES
from sidecar.proxy.sweep import NEVER
from sidecar.proxy.upstream import UpstreamConnection
from sidecar.resilience import VOID, full_jitter

if TYPE_CHECKING:
    from asyncio import TimerHandle

    from sidecar.cluster import Cluster
    from sidecar.http1.message import RequestHead, ResponseHead
    from sidecar.model.endpoint import EndpointState
    from sidecar.proxy.context import ProxyContext
    from sidecar.proxy.downstream import DownstreamConnection

__all__ = ["Attempts"]

_NONE = Reason.NONE  # for every request; an Enum's member costs ten times as much as a name here
_SENT = State.SENT
_VOID = VOID


class Attempts:
    """The attempts of an exchange, one after another; `Exchange` is what is made of it.

    client: the connection it answers to. head: of the request. state: see `http1.state`.
    connection: the endpoint's, while one carries it; endpoint: where the attempt is.
    """

    __slots__ = (
        "_answered",
        "_began",
        "_body",
        "_context",
        "_delay",
        "_dial",
        "_key",
        "_permit",
        "_raced",
        "_replayable",
        "_retries_left",
        "_retry_reason",
        "_tried",
        "_try_due",
        "_wait_due",
        "client",
        "cluster",
        "connection",
        "endpoint",
        "head",
        "state",
    )

    head: RequestHead
    _answered: float
    _began: float
    _body: bytes
    _key: int
    _raced: bool
    _replayable: bool
    _retries_left: int
    _retry_reason: Reason
    _tried: list[EndpointState] | tuple[()]

    def __init__(self, context: ProxyContext, cluster: Cluster, client: DownstreamConnection) -> None:
        self._context = context
        self.cluster = cluster
        self.client = client
        self.connection: UpstreamConnection | None = None
        self.endpoint: EndpointState | None = None
        self._dial: Dial | None = None
        self._delay: TimerHandle | None = None  # before the next attempt
        self._permit = 0
        self._try_due = NEVER
        self._wait_due = NEVER
        self.state = State.IDLE

    def _fail(self, reason: Reason, status: int = 0, message: str = "") -> None:
        """No attempt has brought a response, and there will be no other."""
        raise NotImplementedError

    def _send(self, connection: UpstreamConnection) -> None:
        """There is a connection: the request goes over it."""
        raise NotImplementedError

    def _touch(self) -> None:
        """Something moved: the time-out begins again."""
        raise NotImplementedError

    def _outcome_of(self, status: int) -> Outcome:
        """What a response's status says about the endpoint."""
        raise NotImplementedError

    # Getting there

    def _attempt(self, now: float) -> None:
        """Pick an endpoint and send to it, over an idle connection or a new one."""
        endpoint = self.cluster.pick(now, self._tried, self._key)
        if endpoint is None:
            # After a failed attempt that failure says more than that nobody is left to try.
            self._fail(self._retry_reason or self.cluster.refusal)
            return
        probe = self.cluster.gave_probe
        connection = endpoint.pool.take()
        if connection is None:
            endpoint = self.cluster.with_room(endpoint, now, self._tried, self._key)
            connection = endpoint.pool.take()
        self._take_place(endpoint, now, probe)
        if connection is None:
            self._open(endpoint, probe=probe)
        else:
            self._send(connection)  # type: ignore[arg-type] # an HTTP upstream's pools hold nothing else

    def _take_place(self, endpoint: EndpointState, now: float, probe: bool) -> None:
        """An attempt begins at `endpoint`; `_attempt_over` ends it."""
        self.endpoint = endpoint
        self._began = now
        self._answered = 0.0
        endpoint.in_flight += 1
        breaker = endpoint.breaker
        self._permit = breaker.permit if probe or breaker.closed else _VOID

    def _open(self, endpoint: EndpointState, *, probe: bool = False) -> None:
        """Open a connection to `endpoint`, or wait for one, or give up."""
        self._touch()
        admission = endpoint.pool.admit(self, probe=probe)
        if admission is Admission.OPEN:
            factory = partial(UpstreamConnection, self._context, endpoint)
            timeout = self.cluster.policy.connect_timeout
            version = self.cluster.proxy_protocol
            hello = greeting(version, self.client.transport, self.client.peer) if version else b""
            self._dial = Dial(self._context, endpoint, factory, timeout, self, hello)
            return
        endpoint.in_flight -= 1
        self.endpoint = None
        if admission is Admission.OVERFLOW:
            self._overflow(self.cluster.limit.reached)
            return
        due = self._context.sweep.soon + self.cluster.policy.pending_timeout
        self.client.deadline = min(self.client.deadline, self._wait_due, due)

    def _overflow(self, limit: Limit) -> None:
        """A bound is reached, and that is the exchange's end."""
        self.cluster.stats.overflows[limit] += 1
        self._fail(Reason.OVERFLOW, message=OVERFLOW_MESSAGES[limit])

    def avoids(self, connection: Any) -> bool:
        """Whether its endpoint has been tried, and another one has not."""
        return connection.endpoint in self._tried and self.cluster.has_untried(self._tried)

    def proceed(self, connection: Any) -> None:
        """The wait is over: with a connection that became free, or (None) with room to open one."""
        if connection is None:
            self._wait_due = self.client.deadline  # if it has to wait on, that is no new wait
            self._attempt(self._context.monotonic())
            self._wait_due = NEVER
            return
        self._take_place(connection.endpoint, self._context.monotonic(), False)
        self._send(connection)

    def on_connected(self, dial: Dial, connection: UpstreamConnection) -> None:
        """The endpoint accepted the connection."""
        self._dial = None
        self.cluster.stats.connects[0] += 1
        connection.adopt()
        connection.proxied = bool(dial.greeting)
        self._send(connection)

    def on_connect_failed(self, dial: Dial, outcome: Outcome) -> None:
        """The endpoint did not accept the connection: no byte was sent, so any request may try another."""
        self._dial = None
        if outcome is Outcome.LOCAL_SHORTAGE:
            self._attempt_over(outcome, self._context.monotonic())
            dial.endpoint.pool.release(None)
            self._overflow(Limit.DESCRIPTORS)
            return
        reason, result = UNCONNECTED[outcome]
        self.cluster.stats.connects[result] += 1
        endpoint = dial.endpoint
        now = self._context.monotonic()
        self._attempt_over(outcome, now)
        endpoint.pool.release(None)  # first: at a full bound the next attempt needs this very room
        self._note_tried(endpoint)
        # Another endpoint is tried whatever `retries` and the budget say (behaviour 7): it costs nobody anything.
        if not self.cluster.policy.retry_on_connect:
            self._fail(reason)
        elif self.cluster.has_sound(self._tried):
            self._retry(reason, now)
        else:
            self._spend_retry(reason, now)

    # Trying again

    def _reset_before_response(self, connection: UpstreamConnection, now: float) -> None:
        """The connection ended before a response: once more where that is safe, else the end."""
        raced = connection.served > 0 and not connection.heard
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
        elif not self.cluster.policy.retry_on_reset:
            self._fail(Reason.RESET_BEFORE_HEADERS)
        else:
            self._note_tried(connection.endpoint)
            self._spend_retry(Reason.RESET_BEFORE_HEADERS, now)

    def _tries_elsewhere(self, head: ResponseHead, come: int) -> bool:
        """Whether the response is one that another endpoint may better: then nobody sees it.

        come: bytes of its body. At the endpoint that gave it nothing else is to be expected so soon.
        """
        connection = self.connection
        assert connection is not None
        endpoint = connection.endpoint
        if (
            head.status not in self.cluster.policy.retry_statuses
            or not (self._replayable and self.head.idempotent)
            or self._retries_left <= 0
            or not self.cluster.has_untried([*self._tried, endpoint])
            or not self._affords_retry()
        ):
            return False
        now = self._context.monotonic()
        self.connection = None
        self._attempt_over(self._outcome_of(head.status), now)
        if (
            head.keep_alive
            and endpoint.in_rotation
            and head.length == come
            and self.state == _SENT
            and not connection.write_full
        ):
            connection.rest(self.cluster.policy.idle_timeout)
        else:
            connection.close()
        self._retries_left -= 1
        self._note_tried(endpoint)
        self._retry(Reason.BAD_RESPONSE, now)
        return True

    def _time_out(self, connection: UpstreamConnection) -> None:
        """The endpoint has not answered in time, or stopped in the middle."""
        now = self._context.monotonic()
        tries = self._try_due <= now or self.cluster.policy.retry_on_timeout
        begun = self.state in (State.EARLY, State.ANSWERING)
        self._give_up(Outcome.REQUEST_TIMEOUT)
        if tries and not begun and self._replayable and self.head.idempotent:
            self._note_tried(connection.endpoint)
            self._spend_retry(Reason.REQUEST_TIMEOUT, now)
        else:
            self._fail(Reason.REQUEST_TIMEOUT)

    def _begin_try(self) -> None:
        """From the request's end on the endpoint has `per_try_timeout`: before it, the client may be the slow one."""
        per_try = self.cluster.policy.per_try_timeout
        self._try_due = self._context.sweep.soon + per_try if per_try and self.state == _SENT else NEVER

    def _spend_retry(self, reason: Reason, now: float) -> None:
        """Try again if `retries` and the budget allow; else that was the end."""
        if self._retries_left <= 0:
            self._fail(reason)
        elif not self._affords_retry():
            self._fail(Reason.RETRY_BUDGET)
        else:
            self._retries_left -= 1
            self._retry_in_time(reason, now)

    def _retry_in_time(self, reason: Reason, now: float) -> None:
        """Try again: at once where nobody has been asked yet, else when those that failed have had a moment."""
        policy = self.cluster.policy
        wait = 0.0
        if policy.backoff_base and not self.cluster.has_untried(self._tried):
            retry = policy.retries - self._retries_left - 1
            wait = full_jitter(retry, policy.backoff_base, policy.backoff_max, self._context.clock.uniform())
        self._begin_retry(reason)
        if wait:
            self._touch()
            self._delay = self._context.loop.call_later(wait, self._retry_now)
        else:
            self._attempt(now)

    def _retry_now(self) -> None:
        """The wait before an attempt is over."""
        self._delay = None
        self._attempt(self._context.monotonic())

    def _affords_retry(self) -> bool:
        """Whether the upstream's budget has one more retry; it is spent then."""
        if self.cluster.budget.withdraw(self._context.monotonic()):
            return True
        self.cluster.stats.retries_refused += 1
        return False

    def _retry_fresh(self, endpoint: EndpointState, now: float) -> None:
        self._begin_retry(Reason.RESET_BEFORE_HEADERS)
        if not endpoint.in_rotation:
            self._attempt(now)
            return
        self._take_place(endpoint, now, False)
        self._open(endpoint)

    def _note_tried(self, endpoint: EndpointState) -> None:
        self._tried = [*self._tried, endpoint]

    def _retry(self, reason: Reason, now: float) -> None:
        self._begin_retry(reason)
        self._attempt(now)

    def _begin_retry(self, reason: Reason) -> None:
        self._retry_reason = reason
        self.cluster.stats.retries_active += 1

    def _end_retry(self) -> None:
        self._retry_reason = _NONE
        self.cluster.stats.retries_active -= 1

    # Ending

    def _give_up(self, outcome: Outcome) -> None:
        """End the attempt that is going on, wherever it is: connecting, waiting, or on a connection."""
        delay, self._delay = self._delay, None
        if delay is not None:
            delay.cancel()
        dial, self._dial = self._dial, None
        if dial is not None:
            dial.cancel()
        self._drop_connection()
        if self.endpoint is None:
            self.cluster.limit.withdraw(self)
        else:
            self._attempt_over(outcome, self._context.monotonic())
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
        self.cluster.report(endpoint, outcome, now, self._permit, (self._answered or now) - self._began)
        if self._retry_reason is not _NONE:
            self.cluster.stats.retries[self._retry_reason][outcome is Outcome.SUCCESS] += 1
            self._end_retry()
