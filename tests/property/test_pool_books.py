"""The books of the connection pools, whatever happens in whatever order."""

from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sidecar.pool import Admission, ConnectionLimit, EndpointPool, PooledConnection

MAXIMUM, MAX_PENDING = 3, 3


class Connection:
    """Leaves the books at once when closed."""

    def __init__(self, machine: "Books", pool: EndpointPool) -> None:
        self.machine = machine
        self.pool = pool

    def close(self) -> None:
        self.machine.open.remove(self)
        if self in self.machine.probing:
            self.machine.probing.remove(self)
        self.pool.release(self)


class Waiter:
    """Waits for a connection to `pool`. wants: uses the room that it is woken for."""

    def __init__(self, machine: "Books", pool: EndpointPool, wants: bool) -> None:
        self.machine = machine
        self.pool = pool
        self.wants = wants

    def avoids(self, connection: PooledConnection) -> bool:
        return False

    def proceed(self, connection: PooledConnection | None) -> None:
        assert self.machine.queue.popleft() is self, "first come, first served"
        if connection is None:
            assert self.machine.has_room(), "it was told that there is room"
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
        self.probing: list[Connection | EndpointPool] = []  # dials and connections let in before the bound
        self.queue: deque[Waiter] = deque()

    @initialize(per_endpoint=st.integers(0, 2))
    def bound_each(self, per_endpoint: int) -> None:
        """Some upstreams have a bound for each endpoint, which may be as large as that for all."""
        self.limit.per_endpoint = per_endpoint

    def fits(self, pool: EndpointPool) -> bool:
        """Whether its own bound allows one more."""
        return not self.limit.per_endpoint or pool.open < self.limit.per_endpoint

    @property
    def picked(self) -> list[EndpointPool]:
        """Those of endpoints whose breakers are closed."""
        return [pool for pool in self.pools if pool.share]

    def has_room(self) -> bool:
        """Whether somebody could open a connection, or would hear that nobody is there to pick."""
        if self.limit.used >= MAXIMUM:
            return False
        return not self.limit.per_endpoint or not self.picked or any(map(self.fits, self.picked))

    def attempt(self, waiter: Waiter) -> None:
        """What an exchange does: an idle connection, or room for a new one there or elsewhere, or the queue."""
        picked = self.picked
        if not picked:
            return  # every breaker is open: it fails
        pool = waiter.pool if waiter.pool in picked else picked[0]
        if not pool.idle and not self.fits(pool):
            pool = next((other for other in picked if other.idle or self.fits(other)), pool)
        connection = pool.take()
        if connection is not None:
            assert isinstance(connection, Connection)
            self.busy.append(connection)
            return
        full = self.limit.used >= MAXIMUM
        idle = any(other.idle for other in self.pools)
        fits = self.fits(pool)
        waiting = len(self.queue)
        answer = pool.admit(waiter)
        if fits and (not full or idle):
            assert answer is Admission.OPEN
            self.dialling.append(pool)
        elif waiting < MAX_PENDING:
            assert answer is Admission.WAIT
            self.queue.append(waiter)
        else:
            assert answer is Admission.OVERFLOW

    @rule(data=st.data(), wants=st.booleans())
    def request(self, data: st.DataObject, wants: bool) -> None:
        """A new exchange."""
        self.attempt(Waiter(self, data.draw(st.sampled_from(self.pools)), wants))

    @rule(number=st.integers(0, 1), times=st.integers(1, MAXIMUM))
    def requests_that_are_accepted_at_once(self, number: int, times: int) -> None:
        """Some more, whose connections stand: so that there is something to be bounded."""
        for _ in range(times):
            self.attempt(Waiter(self, self.pools[number], True))
            while self.dialling:
                self.dialled(self.dialling[-1], True)

    @rule(data=st.data())
    def probe(self, data: st.DataObject) -> None:
        """The one probe of a half-open endpoint; it has no idle connections, for its breaker was open."""
        pool = data.draw(st.sampled_from(self.pools))
        if any(pool in (probe, getattr(probe, "pool", None)) for probe in self.probing):
            return
        pool.close_idle()
        before = [list(other.idle) for other in self.pools]
        assert pool.admit(Waiter(self, pool, False), probe=True) is Admission.OPEN
        assert [list(other.idle) for other in self.pools] == before, "nobody makes room for it"
        self.dialling.append(pool)
        self.probing.append(pool)

    @rule(data=st.data())
    def breakers_move(self, data: st.DataObject) -> None:
        """The cluster shares the bound out anew, among those that are picked; who waits may find other room."""
        for pool in self.pools:
            pool.share = data.draw(st.sampled_from([0, 1, 2, 2, MAXIMUM, MAXIMUM]))
        for pool in self.pools:
            if not pool.share:
                pool.close_idle()
        self.limit.wake()

    @precondition(lambda self: self.dialling)
    @rule(data=st.data(), accepted=st.sampled_from([True, True, True, False]))
    def dial_ends(self, data: st.DataObject, accepted: bool) -> None:
        """An endpoint accepts a connection, or not."""
        self.dialled(data.draw(st.sampled_from(self.dialling)), accepted)

    def dialled(self, pool: EndpointPool, accepted: bool) -> None:
        self.dialling.remove(pool)
        probes = pool in self.probing
        if probes:
            self.probing.remove(pool)
        if accepted:
            connection = Connection(self, pool)
            self.open.append(connection)
            self.busy.append(connection)
            if probes:
                self.probing.append(connection)
        else:
            pool.release(None)

    @precondition(lambda self: self.busy)
    @rule(data=st.data())
    def response_ends(self, data: st.DataObject) -> None:
        """Any of them."""
        self.ended(data.draw(st.sampled_from(self.busy)))

    @precondition(lambda self: self.busy)
    @rule(times=st.integers(1, MAXIMUM))
    def responses_end(self, times: int) -> None:
        """Those that began last: a probe among them, while what was there before goes on."""
        for _ in range(min(times, len(self.busy))):
            self.ended(self.busy[-1])

    def ended(self, connection: Connection) -> None:
        """A busy connection is free again; that of a retired endpoint is closed instead.

        So is one of an endpoint that has more than its share while others wait, and one beyond a bound.
        """
        pool = connection.pool
        self.busy.remove(connection)
        if pool in self.retired or not pool.share:
            connection.close()
            return
        first = self.queue[0] if self.queue else None
        greedy = first is not None and pool.open > pool.share
        beyond = self.limit.used > MAXIMUM or 0 < self.limit.per_endpoint < pool.open
        if connection in self.probing:  # its probe is over, whatever becomes of the connection
            self.probing.remove(connection)
        pool.give_back(connection)
        if greedy or beyond:
            assert connection not in self.open
        else:
            assert connection in self.open
            assert (connection in self.busy) is (first is not None), "handed on, or idle"

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
        gone.share = 0
        gone.retire()
        self.limit.wake()

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
        """But for the probes that are going on, at most one for each endpoint."""
        assert 0 <= self.limit.used <= MAXIMUM + len(self.probing)
        for pool in (*self.pools, *self.retired) if self.limit.per_endpoint else ():
            probes = sum(pool in (probe, getattr(probe, "pool", None)) for probe in self.probing)
            assert pool.open <= self.limit.per_endpoint + probes
        assert len(self.limit.pending) <= MAX_PENDING

    @invariant()
    def nobody_waits_while_there_is_room(self) -> None:
        assert list(self.limit.pending) == list(self.queue)
        if self.queue:
            assert not self.has_room()
            assert not any(pool.idle for pool in self.pools)

    @invariant()
    def the_retired_keep_nothing_idle(self) -> None:
        assert set(map(id, self.limit.pools)) == set(map(id, self.pools))
        assert not any(pool.idle for pool in self.retired)

    def teardown(self) -> None:
        """Everything ends, one by one, and whoever waited has been told by then."""
        while self.dialling or self.open:
            if self.dialling:
                pool = self.dialling.pop()
                if pool in self.probing:
                    self.probing.remove(pool)
                pool.release(None)
            else:
                connection = self.open[0]
                if connection in self.busy:
                    self.busy.remove(connection)
                connection.close()
        assert not self.queue
        assert not self.limit.pending


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=120, stateful_step_count=50, deadline=None, derandomize=True)
