"""The books of the connection pools, whatever happens in whatever order."""

from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sidecar.pool import Admission, ConnectionLimit, EndpointPool, PooledConnection

MAXIMUM, MAX_PENDING = 2, 3


class Connection:
    """Leaves the books at once when closed."""

    def __init__(self, machine: "Books", pool: EndpointPool) -> None:
        self.machine = machine
        self.pool = pool

    def close(self) -> None:
        self.machine.open.remove(self)
        self.pool.release(self)


class Waiter:
    """Waits for a connection to `pool`. wants: uses the room that it is woken for."""

    def __init__(self, machine: "Books", pool: EndpointPool, wants: bool) -> None:
        self.machine = machine
        self.pool = pool
        self.wants = wants

    def proceed(self, connection: PooledConnection | None) -> None:
        assert self.machine.queue.popleft() is self, "first come, first served"
        if connection is None:
            assert self.machine.limit.used < MAXIMUM, "it was told that there is room"
            if self.wants:
                self.machine.attempt(self)
        else:
            assert isinstance(connection, Connection)
            self.machine.busy.append(connection)


class Books(RuleBasedStateMachine):
    """Exchanges over some endpoints that share a limit, and what they know to be true."""

    def __init__(self) -> None:
        super().__init__()
        self.limit = ConnectionLimit(MAXIMUM, MAX_PENDING)
        self.pools = [EndpointPool(self.limit) for _ in range(2)]
        self.retired: list[EndpointPool] = []
        self.dialling: list[EndpointPool] = []
        self.busy: list[Connection] = []
        self.open: list[Connection] = []
        self.queue: deque[Waiter] = deque()

    def attempt(self, waiter: Waiter) -> None:
        """What an exchange does: an idle connection, or room for a new one, or the queue."""
        connection = waiter.pool.take()
        if connection is not None:
            assert isinstance(connection, Connection)
            self.busy.append(connection)
            return
        full = self.limit.used == MAXIMUM
        idle = any(pool.idle for pool in self.pools)
        waiting = len(self.queue)
        answer = waiter.pool.admit(waiter)
        if not full or idle:
            assert answer is Admission.OPEN
            self.dialling.append(waiter.pool)
        elif waiting < MAX_PENDING:
            assert answer is Admission.WAIT
            self.queue.append(waiter)
        else:
            assert answer is Admission.OVERFLOW

    @rule(data=st.data(), wants=st.booleans())
    def request(self, data: st.DataObject, wants: bool) -> None:
        """A new exchange."""
        self.attempt(Waiter(self, data.draw(st.sampled_from(self.pools)), wants))

    @precondition(lambda self: self.dialling)
    @rule(data=st.data(), accepted=st.booleans())
    def dial_ends(self, data: st.DataObject, accepted: bool) -> None:
        """An endpoint accepts a connection, or not."""
        pool = data.draw(st.sampled_from(self.dialling))
        self.dialling.remove(pool)
        if accepted:
            connection = Connection(self, pool)
            self.open.append(connection)
            self.busy.append(connection)
        else:
            pool.release(None)

    @precondition(lambda self: self.busy)
    @rule(data=st.data())
    def response_ends(self, data: st.DataObject) -> None:
        """A busy connection is free again; that of a retired endpoint is closed instead."""
        connection = data.draw(st.sampled_from(self.busy))
        self.busy.remove(connection)
        if connection.pool in self.retired:
            connection.close()
        else:
            connection.pool.give_back(connection)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def connection_ends(self, data: st.DataObject) -> None:
        """A connection is closed, whatever it was doing."""
        connection = data.draw(st.sampled_from(self.open))
        if connection in self.busy:
            self.busy.remove(connection)
        connection.close()

    @precondition(lambda self: self.queue)
    @rule(data=st.data())
    def client_leaves(self, data: st.DataObject) -> None:
        """A waiter has gone."""
        waiter = data.draw(st.sampled_from(list(self.queue)))
        self.queue.remove(waiter)
        self.limit.withdraw(waiter)

    @rule(data=st.data())
    def endpoint_fails(self, data: st.DataObject) -> None:
        """Its breaker opens."""
        pool = data.draw(st.sampled_from(self.pools))
        pool.close_idle()
        assert not pool.idle

    @rule(data=st.data())
    def endpoint_is_replaced(self, data: st.DataObject) -> None:
        """A snapshot without it, but with another."""
        at = data.draw(st.integers(0, len(self.pools) - 1))
        gone = self.pools[at]
        self.pools[at] = EndpointPool(self.limit)
        self.retired.append(gone)
        gone.retire()

    @invariant()
    def every_connection_is_in_the_books_once(self) -> None:
        for pool in (*self.pools, *self.retired):
            mine = [connection for connection in self.open if connection.pool is pool]
            assert pool.open == len(mine) + self.dialling.count(pool)
            resting = [connection for connection in mine if connection not in self.busy]
            assert sorted(map(id, pool.idle)) == sorted(map(id, resting))
        assert self.limit.used == sum(pool.open for pool in (*self.pools, *self.retired))

    @invariant()
    def the_bounds_hold(self) -> None:
        assert 0 <= self.limit.used <= MAXIMUM
        assert len(self.limit.pending) <= MAX_PENDING

    @invariant()
    def nobody_waits_while_there_is_room(self) -> None:
        assert list(self.limit.pending) == list(self.queue)
        if self.queue:
            assert self.limit.used == MAXIMUM
            assert not any(pool.idle for pool in self.pools)

    @invariant()
    def the_retired_keep_nothing_idle(self) -> None:
        assert set(map(id, self.limit.pools)) == set(map(id, self.pools))
        assert not any(pool.idle for pool in self.retired)


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=120, stateful_step_count=50, deadline=None, derandomize=True)
