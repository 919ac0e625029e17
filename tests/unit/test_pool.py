"""Connections: reuse, the bounds that an upstream's endpoints share, and the queue."""

from sidecar.model import Limit
from sidecar.pool import Admission, ConnectionLimit, EndpointPool, PooledConnection


class Connection:
    """A connection that leaves the books at once when closed, as the protocol asks."""

    def __init__(self, pool: EndpointPool) -> None:
        self.pool = pool
        self.closed = 0

    def close(self) -> None:
        self.closed += 1
        self.pool.release(self)


class Waiter:
    """Remembers what it was told. opens: reserves room for itself when there is some, as an exchange does."""

    def __init__(self, opens: EndpointPool | None = None, shuns: PooledConnection | None = None) -> None:
        self.shuns = shuns
        self.told: list[PooledConnection | None] = []
        self.admissions: list[Admission] = []
        self._opens = opens

    def avoids(self, connection: PooledConnection) -> bool:
        return connection is self.shuns

    def proceed(self, connection: PooledConnection | None) -> None:
        self.told.append(connection)
        if connection is None and self._opens is not None:
            self.admissions.append(self._opens.admit(self))


def pool_of(maximum: int = 2, max_pending: int = 2) -> EndpointPool:
    return EndpointPool(ConnectionLimit(maximum, max_pending))


def opened(pool: EndpointPool) -> Connection:
    """A busy connection."""
    assert pool.admit(Waiter()) is Admission.OPEN
    return Connection(pool)


def idle(pool: EndpointPool) -> Connection:
    connection = opened(pool)
    pool.give_back(connection)
    return connection


# Reuse


def test_an_empty_pool_has_nothing_to_take() -> None:
    assert pool_of().take() is None


def test_the_newest_idle_connection_is_taken_first() -> None:
    pool = pool_of()
    first, second = opened(pool), opened(pool)
    pool.give_back(first)
    pool.give_back(second)
    assert pool.take() is second
    assert pool.take() is first
    assert pool.take() is None
    assert (pool.open, pool.limit.used) == (2, 2), "idle or busy, open is open"


# Admission


def test_room_is_reserved_up_to_the_maximum() -> None:
    pool = pool_of(maximum=2, max_pending=1)
    waiters = [Waiter() for _ in range(4)]
    answers = [pool.admit(waiter) for waiter in waiters]
    assert answers == [Admission.OPEN, Admission.OPEN, Admission.WAIT, Admission.OVERFLOW]
    assert (pool.open, pool.limit.used) == (2, 2)
    assert list(pool.limit.pending) == [waiters[2]]
    assert not any(waiter.told for waiter in waiters)


def test_without_a_queue_a_full_upstream_overflows_at_once() -> None:
    pool = pool_of(maximum=1, max_pending=0)
    opened(pool)
    assert pool.admit(Waiter()) is Admission.OVERFLOW


def test_endpoints_share_their_upstreams_maximum() -> None:
    limit = ConnectionLimit(2, 1)
    one, two = EndpointPool(limit), EndpointPool(limit)
    opened(one)
    opened(two)
    assert one.admit(Waiter()) is Admission.WAIT
    assert (one.open, two.open, limit.used) == (1, 1, 2)


def test_the_oldest_idle_connection_makes_room_for_another_endpoint() -> None:
    limit = ConnectionLimit(2, 1)
    one, two = EndpointPool(limit), EndpointPool(limit)
    old, new = opened(one), opened(one)
    one.give_back(old)
    one.give_back(new)
    assert two.admit(Waiter()) is Admission.OPEN
    assert (old.closed, new.closed) == (1, 0)
    assert (one.open, two.open, limit.used) == (1, 1, 2)
    assert one.idle == [new]


def test_no_idle_connection_is_closed_while_there_is_room() -> None:
    pool = pool_of(maximum=2)
    resting = idle(pool)
    assert pool.admit(Waiter()) is Admission.OPEN
    assert not resting.closed


def test_there_may_be_none_idle_to_close() -> None:
    pool = pool_of(maximum=1)
    opened(pool)
    assert not pool.limit.close_one_idle()


# Giving back


def test_a_connection_goes_to_whoever_has_waited_longest() -> None:
    pool = pool_of(maximum=1)
    connection = opened(pool)
    first, second = Waiter(), Waiter()
    pool.admit(first)
    pool.admit(second)
    pool.give_back(connection)
    assert (first.told, second.told) == ([connection], [])
    pool.give_back(connection)
    assert second.told == [connection]
    pool.give_back(connection)
    assert pool.idle == [connection]
    assert (pool.open, pool.limit.used) == (1, 1)


def test_a_connection_goes_to_a_waiter_of_another_endpoint_too() -> None:
    limit = ConnectionLimit(1, 1)
    one, two = EndpointPool(limit), EndpointPool(limit)
    connection = opened(one)
    waiter = Waiter()
    assert two.admit(waiter) is Admission.WAIT
    one.give_back(connection)
    assert waiter.told == [connection]


# Releasing


def test_a_closed_connection_leaves_the_books() -> None:
    pool = pool_of()
    resting, busy = opened(pool), opened(pool)
    pool.give_back(resting)
    resting.close()
    assert (pool.idle, pool.open, pool.limit.used) == ([], 1, 1)
    busy.close()
    assert (pool.open, pool.limit.used) == (0, 0)


def test_a_failed_dial_frees_its_room() -> None:
    pool = pool_of(maximum=1)
    pool.admit(Waiter())
    pool.release(None)
    assert (pool.open, pool.limit.used) == (0, 0)


def test_freed_room_wakes_the_waiters_in_turn_and_no_more_than_fit() -> None:
    pool = pool_of(maximum=2, max_pending=3)
    one, two = opened(pool), opened(pool)
    waiters = [Waiter(opens=pool) for _ in range(3)]
    for waiter in waiters:
        pool.admit(waiter)
    one.close()
    assert [waiter.told for waiter in waiters] == [[None], [], []]
    assert waiters[0].admissions == [Admission.OPEN]
    two.close()
    assert [waiter.told for waiter in waiters] == [[None], [None], []]
    assert (pool.open, pool.limit.used) == (2, 2)


def test_a_waiter_that_does_not_use_its_room_leaves_it_to_the_next() -> None:
    pool = pool_of(maximum=1, max_pending=3)
    connection = opened(pool)
    gone, wants, late = Waiter(), Waiter(opens=pool), Waiter()
    for waiter in (gone, wants, late):
        pool.admit(waiter)
    connection.close()
    assert (gone.told, wants.told, late.told) == ([None], [None], [])
    assert wants.admissions == [Admission.OPEN]
    assert list(pool.limit.pending) == [late]


def test_a_waiter_may_withdraw() -> None:
    pool = pool_of(maximum=1, max_pending=2)
    connection = opened(pool)
    first, second = Waiter(), Waiter()
    pool.admit(first)
    pool.admit(second)
    pool.limit.withdraw(first)
    pool.limit.withdraw(first)  # that it is not there any more is no mistake
    connection.close()
    assert (first.told, second.told) == ([], [None])


# The endpoint goes


def test_closing_the_idle_ones_leaves_the_busy_ones() -> None:
    pool = pool_of(maximum=3)
    busy = opened(pool)
    resting = [opened(pool), opened(pool)]
    for connection in resting:
        pool.give_back(connection)
    pool.close_idle()
    assert [connection.closed for connection in (busy, *resting)] == [0, 1, 1]
    assert (pool.idle, pool.open, pool.limit.used) == ([], 1, 1)


def test_a_retired_pool_closes_what_is_idle_and_counts_what_is_busy() -> None:
    limit = ConnectionLimit(2, 1)
    going, staying = EndpointPool(limit), EndpointPool(limit)
    busy = opened(going)
    resting = idle(going)
    going.retire()
    assert resting.closed
    assert limit.pools == [staying]
    assert (going.open, limit.used) == (1, 1)
    opened(staying)
    waiter = Waiter(opens=staying)
    assert staying.admit(waiter) is Admission.WAIT, "what is busy still takes room"
    busy.close()
    assert waiter.admissions == [Admission.OPEN]
    going.retire()  # twice is no mistake
    assert limit.pools == [staying]


# Probes


def test_a_probe_goes_before_the_bound() -> None:
    limit = ConnectionLimit(1, 0)
    healthy, recovering = EndpointPool(limit), EndpointPool(limit)
    busy = opened(healthy)
    assert recovering.admit(Waiter()) is Admission.OVERFLOW
    assert recovering.admit(Waiter(), probe=True) is Admission.OPEN
    assert (healthy.open, recovering.open, limit.used) == (1, 1, 2)
    assert healthy.admit(Waiter()) is Admission.OVERFLOW, "the others keep to it"
    assert not busy.closed


def test_a_probe_closes_nobodys_idle_connection() -> None:
    limit = ConnectionLimit(1, 0)
    healthy, recovering = EndpointPool(limit), EndpointPool(limit)
    resting = idle(healthy)
    assert recovering.admit(Waiter(), probe=True) is Admission.OPEN
    assert not resting.closed


def test_a_probe_does_not_wait_in_the_queue() -> None:
    limit = ConnectionLimit(1, 5)
    healthy, recovering = EndpointPool(limit), EndpointPool(limit)
    opened(healthy)
    healthy.admit(Waiter())
    assert recovering.admit(Waiter(), probe=True) is Admission.OPEN
    assert len(limit.pending) == 1


def test_a_probe_that_failed_makes_room_for_nobody() -> None:
    """It was beyond the bound; who waits still has none."""
    limit = ConnectionLimit(1, 5)
    healthy, recovering = EndpointPool(limit), EndpointPool(limit)
    opened(healthy)
    waiter = Waiter()
    healthy.admit(waiter)
    recovering.admit(Waiter(), probe=True)
    recovering.release(None)
    assert waiter.told == []
    assert (recovering.open, limit.used) == (0, 1)


def test_the_room_beyond_the_bound_is_given_back_after_the_probe() -> None:
    """Else every outage would leave the upstream with one connection more, busy for as long as there is load."""
    limit = ConnectionLimit(1, 5)
    healthy, recovering = EndpointPool(limit), EndpointPool(limit)
    busy = opened(healthy)
    assert recovering.admit(Waiter(), probe=True) is Admission.OPEN
    probe = Connection(recovering)
    recovering.give_back(probe)
    healthy.give_back(busy)
    assert limit.used == 1
    assert len(healthy.idle) + len(recovering.idle) == 1
    assert healthy.take() or healthy.admit(Waiter()) is Admission.OPEN
    assert limit.used == 1


# Shares


def test_an_endpoint_alone_has_everything() -> None:
    assert pool_of(maximum=7).share == 7


def test_who_has_more_than_its_share_makes_room_while_others_wait() -> None:
    """For one that the balancing chooses: the waiter goes on without a connection, and opens its own."""
    limit = ConnectionLimit(2, 2)
    first, late = EndpointPool(limit), EndpointPool(limit)
    one, two = opened(first), opened(first)
    waiter, next_one = Waiter(opens=late), Waiter()
    first.admit(waiter)
    first.admit(next_one)
    first.share = late.share = 1
    first.give_back(one)

    assert one.closed == 1
    assert waiter.told == [None]
    assert waiter.admissions == [Admission.OPEN]
    assert (first.open, late.open, limit.used) == (1, 1, 2)
    first.give_back(two)
    assert next_one.told == [two], "its share is its own to hand on"
    assert two.closed == 0


def test_nobody_is_cut_to_its_share_while_nobody_waits() -> None:
    pool = pool_of(maximum=2)
    one, two = opened(pool), opened(pool)
    pool.share = 1
    pool.give_back(one)
    pool.give_back(two)
    assert pool.idle == [one, two]


# An endpoint's own bound


def test_an_endpoint_at_its_own_bound_lets_nobody_more_in() -> None:
    limit = ConnectionLimit(10, 5, per_endpoint=1)
    one, other = EndpointPool(limit), EndpointPool(limit)
    assert one.has_room
    opened(one)
    assert not one.has_room
    assert one.admit(Waiter()) is Admission.WAIT
    assert other.admit(Waiter()) is Admission.OPEN
    assert (one.open, other.open, limit.used) == (1, 1, 2)


def test_nobodys_idle_connection_is_closed_for_an_endpoint_without_room() -> None:
    limit = ConnectionLimit(2, 5, per_endpoint=1)
    one, other = EndpointPool(limit), EndpointPool(limit)
    opened(one)
    resting = idle(other)
    assert one.admit(Waiter()) is Admission.WAIT
    assert not resting.closed


def test_room_at_any_endpoint_wakes_who_waits() -> None:
    limit = ConnectionLimit(10, 5, per_endpoint=1)
    one, other = EndpointPool(limit), EndpointPool(limit)
    opened(one)
    second = opened(other)
    waiter, next_one = Waiter(opens=other), Waiter()
    one.admit(waiter)
    one.admit(next_one)
    second.close()
    assert waiter.admissions == [Admission.OPEN]
    assert next_one.told == [], "there was room for one"


def test_room_at_an_endpoint_that_is_not_picked_wakes_nobody() -> None:
    """Its breaker is open: who is woken would find nothing, and wait again."""
    limit = ConnectionLimit(10, 5, per_endpoint=1)
    one, failing = EndpointPool(limit), EndpointPool(limit)
    opened(one)
    waiter = Waiter()
    one.admit(waiter)
    failing.share = 0
    limit.wake()
    assert waiter.told == []
    failing.share = 1
    limit.wake()
    assert waiter.told == [None]


def test_with_nobody_to_pick_who_waits_is_told() -> None:
    """It will hear that every breaker is open, which is better than a time-out."""
    limit = ConnectionLimit(10, 5, per_endpoint=1)
    pool = EndpointPool(limit)
    opened(pool)
    waiter = Waiter()
    pool.admit(waiter)
    pool.share = 0
    limit.wake()
    assert waiter.told == [None]


def test_who_finds_no_room_after_all_keeps_its_turn_and_nobody_spins() -> None:
    limit = ConnectionLimit(10, 5, per_endpoint=1)
    busy, free = EndpointPool(limit), EndpointPool(limit)
    opened(busy)
    stubborn, next_one = Waiter(opens=busy), Waiter()
    busy.admit(stubborn)
    busy.admit(next_one)
    assert free.has_room
    limit.wake()
    assert stubborn.admissions == [Admission.WAIT]
    assert (stubborn.told, next_one.told) == ([None], [])
    assert list(limit.pending) == [stubborn, next_one]


def test_a_probe_goes_before_its_endpoints_own_bound_and_is_closed_again() -> None:
    limit = ConnectionLimit(10, 5, per_endpoint=1)
    pool = EndpointPool(limit)
    stream = opened(pool)
    assert pool.admit(Waiter(), probe=True) is Admission.OPEN
    probe = Connection(pool)
    pool.give_back(probe)
    assert probe.closed == 1
    pool.give_back(stream)
    assert pool.idle == [stream], "at the bound, not beyond it"


def test_a_connection_of_a_bounded_endpoint_is_handed_on_too() -> None:
    pool = EndpointPool(ConnectionLimit(10, 5, per_endpoint=1))
    connection = opened(pool)
    waiter = Waiter()
    pool.admit(waiter)
    pool.give_back(connection)
    assert waiter.told == [connection]


def test_nobody_is_woken_for_the_room_of_an_endpoint_that_goes() -> None:
    limit = ConnectionLimit(10, 5, per_endpoint=2)
    going, staying = EndpointPool(limit), EndpointPool(limit)
    opened(going)
    idle(going)
    staying.admit(Waiter())
    staying.admit(Waiter())
    waiter = Waiter()
    limit.pending.append(waiter)
    going.retire()
    assert waiter.told == []


# Which bound it was


def test_what_is_reached_is_the_queue_where_there_is_one() -> None:
    assert ConnectionLimit(1, 1).reached is Limit.PENDING


def test_what_is_reached_without_a_queue() -> None:
    limit = ConnectionLimit(2, 0, per_endpoint=1)
    one, other = EndpointPool(limit), EndpointPool(limit)
    opened(one)
    assert one.admit(Waiter()) is Admission.OVERFLOW
    assert limit.reached is Limit.CONNECTIONS_PER_ENDPOINT
    opened(other)
    assert limit.reached is Limit.CONNECTIONS


def test_who_would_rather_go_elsewhere_is_passed_over() -> None:
    pool = pool_of(maximum=1)
    connection = opened(pool)
    shy, other = Waiter(shuns=connection), Waiter()
    for waiter in (shy, other):
        assert pool.admit(waiter) is Admission.WAIT
    pool.give_back(connection)
    assert (shy.told, other.told) == ([], [connection])
    assert list(pool.limit.pending) == [shy]


def test_when_all_would_its_room_is_free_for_them() -> None:
    pool = pool_of(maximum=1)
    connection = opened(pool)
    shy = Waiter(shuns=connection)
    pool.admit(shy)
    pool.give_back(connection)
    assert shy.told == [None]
    assert (pool.open, pool.idle) == (0, [])


# Another configuration


def test_more_room_is_for_those_who_wait_once_they_are_woken() -> None:
    pool = pool_of(maximum=1)
    opened(pool)
    waiter = Waiter(opens=pool)
    pool.admit(waiter)
    pool.limit.configure(2, 5, 0, 7)
    assert (pool.limit.used, pool.open, waiter.told) == (1, 1, [])
    pool.limit.wake()
    assert waiter.admissions == [Admission.OPEN]
    assert (pool.limit.used, pool.limit.max_in_flight) == (2, 7)


def test_connections_beyond_a_lower_bound_go_on_and_close_when_they_are_given_back() -> None:
    pool = pool_of(maximum=3)
    kept, busy, last = opened(pool), opened(pool), opened(pool)
    pool.limit.configure(1, 2, 0, 0)
    assert pool.limit.used == 3
    pool.give_back(busy)
    pool.give_back(last)
    pool.give_back(kept)
    assert (busy.closed, last.closed, kept.closed) == (True, True, False)
    assert pool.limit.used == 1


def test_who_waits_beyond_a_shorter_queue_keeps_the_place() -> None:
    pool = pool_of(maximum=1, max_pending=2)
    connection = opened(pool)
    waiters = [Waiter(), Waiter()]
    for waiter in waiters:
        pool.admit(waiter)
    pool.limit.configure(1, 1, 0, 0)
    assert list(pool.limit.pending) == waiters
    assert pool.admit(Waiter()) is Admission.OVERFLOW
    pool.give_back(connection)
    assert waiters[0].told == [connection]
