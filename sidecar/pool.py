"""Connections to endpoints: idle ones kept for reuse, and the bounds that all of an upstream share.

Every method changes state and returns; none performs I/O beyond closing an idle connection. The newest idle
connection is taken first (LIFO), so that a burst's extra connections grow old and are closed.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Protocol

from sidecar.model.limit import Limit

__all__ = ["Admission", "ConnectionLimit", "EndpointPool", "PooledConnection", "Waiter"]


class PooledConnection(Protocol):
    """What the pool sees of a connection."""

    pool: EndpointPool

    def close(self) -> None:
        """Close it. It leaves the books of its pool at once, not when the socket has gone."""


class Waiter(Protocol):
    """An exchange or a session that waits for a connection."""

    def avoids(self, connection: PooledConnection) -> bool:
        """Whether it would rather go on without this connection, than with it."""

    def proceed(self, connection: PooledConnection | None) -> None:
        """Go on: with this connection, or (None) because there is room to open one."""


class Admission(Enum):
    """The answer to `EndpointPool.admit`."""

    OPEN = "open"  # room is reserved: open a connection, and `release` it once closed or failed
    WAIT = "wait"  # all are busy: the waiter is in the queue
    OVERFLOW = "overflow"  # the queue is full as well


class ConnectionLimit:
    """The bounds on one upstream's connections, and the queue of those who wait for one.

    maximum: connections open or being opened, to all endpoints together; used: of these now.
    per_endpoint: to each of them; 0 is no other bound than `maximum`.
    max_pending: length of the queue.
    max_in_flight: exchanges and sessions of the upstream, which they themselves keep to; 0 is off.
    """

    __slots__ = ("max_in_flight", "max_pending", "maximum", "pending", "per_endpoint", "pools", "used")

    def __init__(self, maximum: int, max_pending: int, per_endpoint: int = 0, max_in_flight: int = 0) -> None:
        self.configure(maximum, max_pending, per_endpoint, max_in_flight)
        self.used = 0
        self.pending: deque[Waiter] = deque()
        self.pools: list[EndpointPool] = []

    def configure(self, maximum: int, max_pending: int, per_endpoint: int, max_in_flight: int) -> None:
        """Have these bounds from now on; `wake` when there may be more room.

        What is open or waits beyond a lower one goes on. Connections beyond it close when they are given back.
        """
        self.maximum = maximum
        self.max_pending = max_pending
        self.per_endpoint = per_endpoint
        self.max_in_flight = max_in_flight

    def withdraw(self, waiter: Waiter) -> None:
        """Take a waiter out of the queue, if it is in it."""
        if waiter in self.pending:
            self.pending.remove(waiter)

    @property
    def has_room(self) -> bool:
        """Whether who waits could open a connection, or (there is nobody to pick) should hear that it cannot."""
        if self.used >= self.maximum:
            return False
        if not self.per_endpoint:
            return True
        picked = [pool for pool in self.pools if pool.share]
        return not picked or any(pool.has_room for pool in picked)

    @property
    def reached(self) -> Limit:
        """The bound that turns away whom `admit` refuses."""
        if self.max_pending:
            return Limit.PENDING
        return Limit.CONNECTIONS if self.used >= self.maximum else Limit.CONNECTIONS_PER_ENDPOINT

    def wake(self) -> None:
        """Let waiters go on while there is room to open connections for them.

        To be called whenever there may be: a connection has gone, or an endpoint has come or may be picked again.
        """
        while self.pending and self.has_room:
            waiter = self.pending.popleft()
            waiter.proceed(None)
            if self.pending and self.pending[-1] is waiter:
                # Not for this one, whatever it looked like: it keeps its turn, and nobody spins.
                self.pending.rotate(1)
                return

    def hand_on(self, connection: PooledConnection) -> None:
        """Give a connection to the first who waits for one like it; it is closed when all want to go elsewhere."""
        for index, waiter in enumerate(self.pending):
            if not waiter.avoids(connection):
                del self.pending[index]
                waiter.proceed(connection)
                return
        connection.close()

    def close_one_idle(self) -> bool:
        """Close an idle connection to make room for one to another endpoint; False when none is idle."""
        for pool in self.pools:
            if pool.idle:
                pool.idle.pop(0).close()
                return True
        return False


class EndpointPool:
    """The connections of one endpoint.

    open: all that are open or being opened, idle ones included.
    share: how many of the upstream's connections are this endpoint's when they are all taken; 0 while it is not
        to be picked.
    """

    __slots__ = ("idle", "limit", "open", "share")

    def __init__(self, limit: ConnectionLimit) -> None:
        self.limit = limit
        self.idle: list[PooledConnection] = []
        self.open = 0
        self.share = limit.maximum
        limit.pools.append(self)

    @property
    def has_room(self) -> bool:
        """Whether its own bound lets it have one more; the upstream's may not."""
        return not self.limit.per_endpoint or self.open < self.limit.per_endpoint

    def take(self) -> PooledConnection | None:
        """The idle connection that was used last; None when there is none."""
        idle = self.idle
        return idle.pop() if idle else None

    def admit(self, waiter: Waiter, *, probe: bool = False) -> Admission:
        """Reserve room for one more connection, or queue `waiter` for one of any endpoint.

        At this endpoint's own bound another may have room: the caller asks for that one (`Cluster.with_room`).
        probe: a half-open endpoint's one probe goes before the bounds: behind a queue of requests that are served
        by the connections of other endpoints it would never be sent, and the endpoint never come back.
        """
        limit = self.limit
        if probe or (self.has_room and (limit.used < limit.maximum or limit.close_one_idle())):
            limit.used += 1
            self.open += 1
            return Admission.OPEN
        if len(limit.pending) < limit.max_pending:
            limit.pending.append(waiter)
            return Admission.WAIT
        return Admission.OVERFLOW

    def give_back(self, connection: PooledConnection) -> None:
        """A connection whose response is complete: to the first waiter that takes it, else to the idle ones.

        Unless this endpoint has more than its share while others wait: closing makes room for one that the
        balancing chooses, where handing on would keep all queued requests at whoever was there first. And unless
        a probe went beyond a bound: then this is the connection too many.
        """
        limit = self.limit
        beyond = limit.used > limit.maximum or 0 < limit.per_endpoint < self.open
        if beyond or (limit.pending and self.open > self.share):
            connection.close()
        elif limit.pending:
            limit.hand_on(connection)
        else:
            self.idle.append(connection)

    def release(self, connection: PooledConnection | None) -> None:
        """A connection was closed, or (None) one that was being opened failed: its room is free."""
        if connection is not None and connection in self.idle:
            self.idle.remove(connection)
        self.open -= 1
        self.limit.used -= 1
        if self.limit.pending:
            self.limit.wake()

    def close_idle(self) -> None:
        """Close every idle connection: the endpoint has gone or was ejected."""
        while self.idle:
            self.idle.pop().close()

    def retire(self) -> None:
        """The endpoint has gone for good: close what is idle; busy connections keep counting until they end."""
        if self in self.limit.pools:  # first: nobody is to be woken for room here
            self.limit.pools.remove(self)
        self.close_idle()
