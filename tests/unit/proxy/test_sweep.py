"""Deadlines: one pass over everything that can expire."""

from collections.abc import Callable

import pytest
from support.clock import FakeClock
from unit.proxy.harness import Proxy, error_of, ok, request
from unit.proxy.manual_loop import ManualLoop

from sidecar.proxy.sweep import INTERVAL, NEVER, Sweep

MakeProxy = Callable[..., Proxy]


class Member:
    """Counts how often it expired, and does what the test says then."""

    def __init__(self, sweep: Sweep, deadline: float, then: Callable[[], object] = lambda: None) -> None:
        self.deadline = deadline
        self.expired = 0
        self._then = then
        sweep.members.add(self)

    def expire(self) -> None:
        self.expired += 1
        self.deadline = NEVER
        self._then()

    def retire(self, now: float) -> bool:
        raise AssertionError("not the sweep's business")

    def shut(self) -> None:
        raise AssertionError("not the sweep's business")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(now=100.0)


@pytest.fixture
def sweep(clock: FakeClock) -> Sweep:
    return Sweep(ManualLoop(), clock)  # type: ignore[arg-type] # the part of a loop that it uses


def test_what_is_due_expires_and_nothing_else(sweep: Sweep, clock: FakeClock) -> None:
    due, later, never = Member(sweep, 101.0), Member(sweep, 101.1), Member(sweep, NEVER)
    clock.advance(1.0)
    sweep.run()
    assert [due.expired, later.expired, never.expired] == [1, 0, 0]


def test_soon_is_never_before_now_until_the_next_pass(sweep: Sweep, clock: FakeClock) -> None:
    """A deadline counted from `soon` is late by at most two intervals, and never early."""
    for _ in range(3):
        assert sweep.soon == clock.monotonic() + INTERVAL
        clock.advance(INTERVAL)
        sweep.run()


def test_it_passes_every_interval_until_it_is_stopped(sweep: Sweep) -> None:
    loop: ManualLoop = sweep._loop  # type: ignore[assignment]
    sweep.start()
    assert [timer.delay for timer in loop.timers] == [INTERVAL]
    loop.timers[0].callback()
    assert [timer.delay for timer in loop.timers] == [INTERVAL] * 2

    sweep.stop()
    assert loop.timers[1].cancelled
    sweep.stop()  # again is nothing


def test_one_that_left_during_the_pass_does_not_expire(sweep: Sweep, clock: FakeClock) -> None:
    """Ending one thing ends what belongs to it, which may be due in the same pass."""
    members: list[Member] = []

    def leave_alone() -> None:
        sweep.members.difference_update(members)

    members += [Member(sweep, 101.0, leave_alone) for _ in range(5)]
    clock.advance(1.0)
    sweep.run()
    assert sum(member.expired for member in members) == 1


def test_one_that_was_given_more_time_during_the_pass_does_not_expire(sweep: Sweep, clock: FakeClock) -> None:
    members: list[Member] = []

    def give_more_time() -> None:
        for member in members:
            member.deadline = 200.0

    members += [Member(sweep, 101.0, give_more_time) for _ in range(5)]
    clock.advance(1.0)
    sweep.run()
    assert sum(member.expired for member in members) == 1


def test_time_outs_go_on_after_a_mistake_in_one_of_them(sweep: Sweep, clock: FakeClock) -> None:
    """One exchange's trouble must not take every other's time-out away; it ends, and does not come back."""

    def fail() -> None:
        raise RuntimeError("a mistake")

    shut: list[Member] = []
    mistaken = [Member(sweep, 101.0, fail) for _ in range(3)]
    for member in mistaken:
        member.shut = lambda member=member: shut.append(member)  # type: ignore[method-assign,misc]
    due = Member(sweep, 101.0)
    clock.advance(1.0)
    sweep.start()
    sweep.run()

    loop: ManualLoop = sweep._loop  # type: ignore[assignment]
    assert len(loop.timers) == 1, "the next pass comes"
    assert due.expired == 1
    assert [member.expired for member in mistaken] == [1, 1, 1]
    assert len(shut) == 3
    assert [str(problem) for problem in loop.problems] == ["a mistake"] * 3


# The real members, when several are due in one pass: there is no order among them, so each is tried often.


@pytest.mark.parametrize("_attempt", range(8))
def test_request_and_connect_time_out_in_one_pass(make_proxy: MakeProxy, _attempt: int) -> None:
    """`timeout: 1s` equals the default connect time-out: both are due at once."""
    proxy = make_proxy(timeout=1.0, connect_timeout=1.0, retries=0)
    clients = [proxy.client(request()) for _ in range(8)]
    assert len(proxy.connecting) == 8
    proxy.pass_time(1.2)

    for client in clients:
        status, reason = error_of(client.data)
        assert (status, reason) in {(504, "connect_timeout"), (504, "request_timeout")}
        assert not client.closing, "the connection was answered on and may be used again"
    assert len(proxy.connecting) == 0


@pytest.mark.parametrize("_attempt", range(8))
def test_a_session_and_its_connect_time_out_in_one_pass(make_proxy: MakeProxy, _attempt: int) -> None:
    proxy = make_proxy(scheme="tcp", idle_timeout=1.0, connect_timeout=1.0, retries=0)
    clients = [proxy.client() for _ in range(8)]
    assert len(proxy.connecting) == 8
    proxy.pass_time(1.2)
    assert all(client.aborted for client in clients)


@pytest.mark.parametrize("_attempt", range(8))
def test_an_idle_connection_that_is_due_but_taken_in_the_same_pass(
    make_proxy: MakeProxy,
    _attempt: int,
) -> None:
    """A request that waited for its time-out makes room for the next pipelined one, which takes the connection."""
    proxy = make_proxy(timeout=3.0, idle_timeout=3.0)
    proxy.client(request())
    idle = proxy.accept()
    slow = proxy.client(request("GET /slow"), request("GET /next"))
    proxy.accept()
    idle.feed(ok())  # both deadlines are now 3 s away: of the slow exchange, and of this idle connection
    idle.taken()
    proxy.pass_time(3.2)

    if not idle.closing:
        assert idle.data.startswith(b"GET /next ")
        idle.feed(ok(b"next"))
    else:
        assert idle.data == b"", "closed while it carried a request"
        proxy.accept().feed(ok(b"next"))
    assert slow.data.endswith(ok(b"next"))
