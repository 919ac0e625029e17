"""Requests that are asked of a second endpoint when the first one is slow: whoever answers first, answers.

    attempt at A ──────── hedge_after ────────► still no answer
         │                                          │
         └─► Rival: goes on at A                    └─► the exchange: attempt at B
                 first head from A or B: the other attempt ends

For idempotent requests that are whole, once, and where `retries` and the budget have one left (gRPC's hedging, Envoy's
`hedge_on_per_try_timeout`). The tail of latency is then that of two endpoints at once (Dean and Barroso, "The tail at
scale").

The endpoint that is outrun has failed as far as its breaker is concerned: one that hangs would otherwise never be
found out, since every request to it is saved in time. Of one that is slow now and then, the failure rate stays below
what opens a breaker. Whoever is asked second and answers second has not failed.

Connections of an upstream with `hedge_after` have a `HedgedExchange`; all others never ask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.errors import Reason
from sidecar.http1.state import State
from sidecar.model import Outcome
from sidecar.proxy.deadline import TimedExchange
from sidecar.proxy.exchange import Exchange
from sidecar.proxy.hedge_timer import SLACK, HedgeTimer
from sidecar.proxy.relay import PEER_FULL
from sidecar.proxy.sweep import NEVER

if TYPE_CHECKING:
    from sidecar.cluster import Cluster
    from sidecar.errors import ProtocolError
    from sidecar.http1.message import RequestHead, ResponseHead
    from sidecar.model import Limit
    from sidecar.model.endpoint import EndpointState
    from sidecar.proxy.context import ProxyContext
    from sidecar.proxy.downstream import DownstreamConnection
    from sidecar.proxy.upstream import UpstreamConnection

__all__ = ["HedgedExchange"]


class HedgedExchange(TimedExchange):
    """An exchange that may have two attempts at once: its own, which is the younger then, and its rival's."""

    __slots__ = ("_hedge_due", "_in_heap", "_undecided", "rival")

    def __init__(self, context: ProxyContext, cluster: Cluster, client: DownstreamConnection) -> None:
        super().__init__(context, cluster, client)
        self._hedge_due = NEVER
        self._in_heap = False
        self._undecided = False  # two were asked, and which one answers is open
        self.rival: Rival | None = None

    # When

    def begin(self, head: RequestHead, body: bytes, done: bool) -> None:
        """See `Exchange.begin`."""
        self._hedge_due = 0.0  # once for each request
        TimedExchange.begin(self, head, body, done)

    def _begin_try(self) -> None:
        """See `Attempts._begin_try`: the endpoint has the whole request."""
        TimedExchange._begin_try(self)
        if self._hedge_due == 0.0 and self.state == State.SENT:
            after = self.cluster.policy.hedge_after
            if after:
                self._hedge_due = self._context.monotonic() + after
                self._await_ring()
            else:  # not any more, since its client connected
                self._hedge_due = NEVER

    def _await_ring(self) -> None:
        if self._in_heap:  # for an earlier request; it will be asked for this one then
            return
        self._in_heap = True
        timers = self._context.hedge_timers
        timer = timers.get(self.cluster.name)
        if timer is None:
            timer = timers[self.cluster.name] = HedgeTimer(self._context)
        timer.add(self, self._hedge_due)

    def ring(self, now: float) -> None:
        """The timer: the request that is going on now may be due, or will be, or there is none."""
        self._in_heap = False
        if self.state != State.SENT:
            return
        if self.connection is None:
            self._hedge_due = 0.0  # it is being tried again: from there on anew
        elif now + SLACK < self._hedge_due < NEVER:
            self._await_ring()
        elif self._hedge_due <= now + SLACK:
            self._hedge_due = NEVER
            if self._may_hedge(now):
                self._hedge(now)

    def awaits_ring(self) -> bool:
        """See `Ringing`: a request that is whole and not answered, wherever it is."""
        self._in_heap = self.state == State.SENT
        return self._in_heap

    def _may_hedge(self, now: float) -> bool:
        """Whether the request is one to ask twice, somebody else could answer it, and it has an attempt left."""
        connection, limit = self.connection, self.cluster.limit
        assert connection is not None
        return (
            self._replayable
            and self.head.idempotent
            and not self.head.extras.upgrade
            and not connection.write_full
            and not connection.heard
            and self._retries_left > 0
            and limit.used < limit.maximum
            and self.cluster.has_untried([*self._tried, connection.endpoint])
            and self._due > now
            and self._affords_retry()
        )

    def _hedge(self, now: float) -> None:
        endpoint = self.endpoint
        assert endpoint is not None
        self._note_tried(endpoint)
        self._retries_left -= 1
        rival = self.rival = Rival(self)
        self._undecided = True
        self._attempt(now)
        if self.rival is rival and self.endpoint is None:
            self.cluster.limit.withdraw(self)  # it would have to wait for a connection: that helps nobody
            self._resume()

    # Who answers

    def respond(self, head: ResponseHead, data: bytes, at: int) -> None:
        """See `Exchange.respond`: the second one asked has answered."""
        rival, self.rival = self.rival, None
        if rival is not None:
            if self.may_be_bettered(head.status):
                self.rival = rival
                self._drop_connection()
                self._attempt_over(self._outcome_of(head.status), self._context.monotonic())
                self._resume()
                return
            rival.drop(Outcome.OUTRUN)
        self._decided(won=True)
        TimedExchange.respond(self, head, data, at)

    def may_be_bettered(self, status: int) -> bool:
        """Whether an answer is none that counts while the other one is still to come: a failure, quick as it is."""
        failed = self._outcome_of(status).is_failure or status in self.cluster.policy.retry_statuses
        return failed and self._has_time()

    def give_way(self) -> None:
        """The rival has answered first: this attempt ends, wherever it is, and the other one is the exchange's own."""
        rival, self.rival = self.rival, None
        assert rival is not None
        self._decided(won=False)
        TimedExchange._give_up(self, Outcome.CANCELLED)
        rival.give_back()

    def rival_failed(self) -> None:
        """The rival will not answer: the exchange has one attempt again, the younger one."""
        self.rival = None

    def note_attempt(self, endpoint: EndpointState, outcome: Outcome, began: float, now: float) -> None:
        """An attempt has ended, its own or its rival's: for who keeps a record of them."""

    def _resume(self) -> None:
        """The younger attempt has failed, and the rival goes on alone."""
        rival, self.rival = self.rival, None
        assert rival is not None
        self._decided(won=False)
        rival.give_back()
        self._touch()

    def _decided(self, *, won: bool) -> None:
        """Whether the one that was asked second was the one to answer, once it is known."""
        if self._undecided:
            self._undecided = False
            self.cluster.stats.hedges[won] += 1

    # Time

    def _touch(self) -> None:
        """See `Exchange._touch`. The rival's own time goes on."""
        TimedExchange._touch(self)
        if self.rival is not None:
            self.client.deadline = min(self.client.deadline, self.rival._try_due)

    def expire(self) -> None:
        """See `Exchange.expire`. The rival's time ends before the younger one's, and alone."""
        rival = self.rival
        if rival is not None and rival._try_due <= self._context.monotonic():
            self.rival_failed()
            rival.drop(Outcome.REQUEST_TIMEOUT)
            self._touch()
        else:
            TimedExchange.expire(self)

    # While there is a rival nothing has failed yet; who ends the exchange gives both up first.

    def _give_up(self, outcome: Outcome) -> None:
        """See `Attempts._give_up`."""
        rival, self.rival = self.rival, None
        self._decided(won=False)
        if rival is not None:
            rival.drop(outcome)
        TimedExchange._give_up(self, outcome)

    def _fail(self, reason: Reason, status: int = 0, message: str = "") -> None:
        """See `Exchange._fail`."""
        if self.rival is None:
            self._decided(won=False)
            TimedExchange._fail(self, reason, status, message)
        else:
            self._resume()

    def _overflow(self, limit: Limit) -> None:
        """See `Attempts._overflow`."""
        if self.rival is None:
            TimedExchange._overflow(self, limit)
        else:
            self._resume()

    def _retry(self, reason: Reason, now: float) -> None:
        """See `Attempts._retry`."""
        if self.rival is None:
            self._decided(won=False)
            TimedExchange._retry(self, reason, now)
        else:
            self._resume()

    def _spend_retry(self, reason: Reason, now: float) -> None:
        """See `Attempts._spend_retry`."""
        if self.rival is None:
            self._decided(won=False)
            TimedExchange._spend_retry(self, reason, now)
        else:
            self._resume()

    def _retry_fresh(self, endpoint: EndpointState, now: float) -> None:
        """See `Attempts._retry_fresh`."""
        if self.rival is None:
            self._decided(won=False)
            TimedExchange._retry_fresh(self, endpoint, now)
        else:
            self._resume()


class Rival(Exchange):
    """The older attempt of an exchange that has begun a younger one; what its connection says comes here."""

    __slots__ = ("_main",)

    def __init__(self, main: HedgedExchange) -> None:
        super().__init__(main._context, main.cluster, main.client)
        self._main = main
        self.head = main.head
        self.state = State.SENT
        self._hand(main, self)

    def give_back(self) -> None:
        """The exchange has one attempt again, this one."""
        connection, main = self.connection, self._main
        self._hand(self, main)
        if main.client.write_full and connection is not None:  # by interim responses of the other
            connection.gate.hold(PEER_FULL)

    @staticmethod
    def _hand(giver: Exchange, taker: Exchange) -> None:
        """An attempt that is going on is another object's from now on."""
        connection = taker.connection = giver.connection
        assert connection is not None
        connection.exchange = taker
        taker.endpoint = giver.endpoint
        taker._permit = giver._permit
        taker._began = giver._began
        taker._answered = giver._answered
        taker._try_due = giver._try_due
        taker._retry_reason = giver._retry_reason
        giver.connection = None
        giver.endpoint = None
        giver._retry_reason = Reason.NONE

    def drop(self, outcome: Outcome) -> None:
        """It will not answer, or too late."""
        self._drop_connection()
        self._attempt_over(outcome, self._context.monotonic())

    def _attempt_over(self, outcome: Outcome, now: float) -> None:
        """See `Attempts._attempt_over`."""
        endpoint, began = self.endpoint, self._began
        assert endpoint is not None
        Exchange._attempt_over(self, outcome, now)
        self._main.note_attempt(endpoint, outcome, began, now)

    # What the connection says

    def relay_interim(self, head: ResponseHead) -> None:
        """Of two endpoints' progress the client hears one."""

    def respond(self, head: ResponseHead, data: bytes, at: int) -> None:
        """It answers first, after all; unless with what the other is to better."""
        main = self._main
        if main.may_be_bettered(head.status):
            main.rival_failed()
            self.drop(main._outcome_of(head.status))
        else:
            main.give_way()
            main.respond(head, data, at)

    def response_broken(self, error: ProtocolError) -> None:
        """Its answer is not HTTP: of the head, or of what came with it."""
        if self.connection is None:  # given back by then
            self._main.response_broken(error)
        else:
            self._main.rival_failed()
            self.drop(Outcome.BAD_RESPONSE)

    def connection_ended(self, connection: UpstreamConnection, ending: bytes | None) -> None:
        """It ended without an answer."""
        raced = connection.served > 0 and not connection.heard
        self.connection = None
        if raced:
            self.cluster.stats.reuse_failures += 1
        self._main.rival_failed()
        self._attempt_over(Outcome.IDLE_RACE if raced else Outcome.RESET, self._context.monotonic())

    def endpoint_full(self, full: bool) -> None:
        """It has all of the request."""
