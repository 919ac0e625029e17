"""Requests that say how long they may take, in the header that `deadline_header` names: milliseconds.

The time counts from the request's first byte and is for all of it: the wait for a connection, every attempt, both
bodies. It shortens what the time-outs allow and lengthens nothing, ends with a 101, and each attempt carries what is
left of it, so that whoever is next knows too. A pipelined request is looked at when its turn has come, and its time
begins then.

That it is over is nobody's failure: a client with 5 ms would open the breaker of an endpoint that is perfectly well.
Nor is a 504 by which the next hop, perhaps a sidecar too, says the same a moment earlier.

Connections of an upstream with that option have a `TimedExchange`; all others never ask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.errors import Reason
from sidecar.http1.state import State
from sidecar.model import Outcome
from sidecar.proxy.exchange import Exchange
from sidecar.proxy.sweep import NEVER

if TYPE_CHECKING:
    from sidecar.cluster import Cluster
    from sidecar.http1.message import RequestHead, ResponseHead
    from sidecar.model.endpoint import EndpointState
    from sidecar.proxy.context import ProxyContext
    from sidecar.proxy.downstream import DownstreamConnection
    from sidecar.proxy.upstream import UpstreamConnection

__all__ = ["TimedExchange"]

# Ten hold 115 days, and what 32 bits do: some clients say the largest number where they mean no bound.
MAX_DIGITS = 10
# What is left goes on in whole milliseconds: who is next may count one less.
ROUNDING = 0.001


class TimedExchange(Exchange):
    """An exchange that ends when its client's time is over."""

    __slots__ = ("_due", "_name", "_place", "_problem", "_ruled")

    _name: bytes
    _place: int  # where the header stands in the head, of a request that has time
    _ruled: bool  # header rules may have moved it since, or taken it out; the upstream may have none any more by now

    def __init__(self, context: ProxyContext, cluster: Cluster, client: DownstreamConnection) -> None:
        super().__init__(context, cluster, client)
        self._due = NEVER
        self._problem = ""  # why it is refused

    def begin(self, head: RequestHead, body: bytes, done: bool) -> None:
        """See `Exchange.begin`."""
        client = self.client
        began, client.head_began = client.head_began, 0.0
        self._due = NEVER
        self._problem = ""
        name = self.cluster.policy.deadline_header
        value = head.field(name) if name else None
        if value is not None:
            head = head.unpacked()
            places = head.places(name)
            milliseconds = _number(value)
            if milliseconds and len(places) == 1:
                self._due = (began or self._context.monotonic()) + milliseconds / 1000.0
                self._name = name
                self._place = places[0]
                self._ruled = self.cluster.front is not None
            else:
                shown = name.decode("ascii")
                self._problem = f"{shown} is repeated, or not a whole number of milliseconds above 0"
        Exchange.begin(self, head, body, done)

    def _attempt(self, now: float) -> None:
        """See `Attempts._attempt`: the first, one more, or one that had to wait."""
        if self._problem:
            self._fail(Reason.BAD_REQUEST, 400, self._problem)
        elif self._due <= now:
            self._run_out()
        else:
            Exchange._attempt(self, now)

    def _send(self, connection: UpstreamConnection) -> None:
        """See `Exchange._send`. The time may have run out while connecting or waiting, and the sweep be yet to come."""
        if self._due < NEVER:
            now = self._context.monotonic()
            if self._due <= now:
                self._leave(connection, now)
                return
            left = b"%d" % max(1, int((self._due - now) * 1000.0))
            if self._ruled:
                for place in self.head.places(self._name)[:1]:
                    self.head.put(place, left)
            else:
                self.head.put(self._place, left)
        Exchange._send(self, connection)

    def _leave(self, connection: UpstreamConnection, now: float) -> None:
        """There is a connection, and no time to use it: another request may."""
        endpoint = connection.endpoint
        self._attempt_over(Outcome.CANCELLED, now)
        if endpoint.in_rotation:
            connection.rest(self.cluster.policy.idle_timeout)
        else:
            connection.close()
        self._run_out()

    def _touch(self) -> None:
        """Something moved, and the client's time goes on."""
        Exchange._touch(self)
        client = self.client
        client.deadline = min(client.deadline, self._due)

    def expire(self) -> None:
        """A time-out has passed; at the same moment as the client's time, the client's comes first."""
        if self._due <= self.client.deadline and self.state != State.DRAINING:
            self._run_out()
        else:
            Exchange.expire(self)

    def _run_out(self) -> None:
        """The client's time is over: end whatever goes on, which fails nobody."""
        self.cluster.stats.deadlines_exceeded += 1
        self._give_up(Outcome.CANCELLED)
        self._fail(Reason.REQUEST_TIMEOUT, 0, "the time that the request's own header gave it is over")

    def _outcome_of(self, status: int) -> Outcome:
        """See `Attempts._outcome_of`. A 504 when the time is over says so for the next hop, which was told of it."""
        return (
            Outcome.CANCELLED
            if status == 504 and not self._has_time()
            else Exchange._outcome_of(self, status)
        )

    def _has_time(self) -> bool:
        """Whether there is any left that is worth another attempt."""
        return self._due - ROUNDING > self._context.monotonic()

    # No other attempt is begun without time; a response that may be tried again passes then, as the better answer.

    def _tries_elsewhere(self, head: ResponseHead, come: int) -> bool:
        """See `Attempts._tries_elsewhere`."""
        return self._has_time() and Exchange._tries_elsewhere(self, head, come)

    def _spend_retry(self, reason: Reason, now: float) -> None:
        """See `Attempts._spend_retry`."""
        if self._due <= now:
            self._run_out()
        else:
            Exchange._spend_retry(self, reason, now)

    def _retry_fresh(self, endpoint: EndpointState, now: float) -> None:
        """See `Attempts._retry_fresh`."""
        if self._due <= now:
            self._run_out()
        else:
            Exchange._retry_fresh(self, endpoint, now)


def _number(value: bytes) -> int:
    """The number that `value` spells in decimal digits; 0 when it is none."""
    return int(value) if value.isdigit() and len(value) <= MAX_DIGITS else 0
