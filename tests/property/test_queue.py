"""Who waits for a connection is served as soon as one could be, whatever endpoints and breakers do meanwhile."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.clock import FakeClock

from sidecar.balance import POLICIES
from sidecar.cluster import Cluster
from sidecar.model import Endpoint, EndpointState, Outcome, Snapshot, UpstreamPolicy
from sidecar.pool import Admission, PooledConnection
from sidecar.resilience import VOID

HOSTS = "abcd"


class Request:
    """As an exchange gets its connection, and what has become of it: `went` says where it is."""

    def __init__(self, machine: "Queue") -> None:
        self.machine = machine
        self.connection: Connection | None = None
        self.endpoint: EndpointState | None = None
        self.permit = 0
        self.went = ""

    def attempt(self) -> None:
        """Pick, and go there: over an idle connection, over a new one, or into the queue."""
        cluster, now = self.machine.cluster, self.machine.clock.monotonic()
        endpoint = cluster.pick(now, (), 7)
        if endpoint is None:
            self.went = "failed"
            return
        probe = cluster.gave_probe
        connection = endpoint.pool.take()
        if connection is None:
            endpoint = cluster.with_room(endpoint, now, (), 7)
            connection = endpoint.pool.take()
        if connection is not None:
            self.carry(connection, probe)
            return
        self.permit = endpoint.breaker.permit if probe or endpoint.breaker.closed else VOID
        answer = endpoint.pool.admit(self, probe=probe)
        self.went = {
            Admission.OPEN: "dialling",
            Admission.WAIT: "waiting",
            Admission.OVERFLOW: "failed",
        }[answer]
        self.endpoint = endpoint if answer is Admission.OPEN else None

    def carry(self, connection: PooledConnection, probe: bool = False) -> None:
        """It has a connection."""
        assert isinstance(connection, Connection)
        self.connection, self.endpoint, self.went = connection, connection.state, "busy"
        breaker = connection.state.breaker
        self.permit = breaker.permit if probe or breaker.closed else VOID

    def avoids(self, connection: PooledConnection) -> bool:
        return False

    def proceed(self, connection: PooledConnection | None) -> None:
        """What the queue calls."""
        assert self.went == "waiting", "once"
        if connection is None:
            self.attempt()
            assert self.went != "waiting", "woken in vain"
        else:
            self.carry(connection)


class Connection:
    """Leaves the books at once when closed."""

    def __init__(self, state: EndpointState) -> None:
        self.state = state
        self.pool = state.pool

    def close(self) -> None:
        self.pool.release(self)


class Queue(RuleBasedStateMachine):
    """Requests, endpoints that come, fail and go, and bounds of both kinds."""

    requests: list[Request]
    clock: FakeClock
    cluster: Cluster

    @initialize(
        strategy=st.sampled_from(sorted(POLICIES)),
        maximum=st.integers(2, 6),
        per_endpoint=st.sampled_from([0, 1, 1, 2]),
        max_pending=st.integers(1, 6),
        zone=st.sampled_from(["", "even"]),
    )
    def begin(self, strategy: str, maximum: int, per_endpoint: int, max_pending: int, zone: str) -> None:
        self.clock = FakeClock(chances=[0.1, 0.7, 0.3, 0.9, 0.5])
        duck: Any = self.clock
        policy = UpstreamPolicy(
            strategy=strategy,
            zone=zone,
            max_connections=maximum,
            max_connections_per_endpoint=per_endpoint,
            max_pending=max_pending,
            breaker_threshold=1,
            breaker_open_for=10.0,
            breaker_jitter=0.0,
        )
        self.cluster = Cluster("api", "http", policy, duck)
        self.requests = []
        self.snapshot("ab")

    @rule(hosts=st.sets(st.sampled_from(HOSTS)).map(sorted))
    def snapshot(self, hosts: Any) -> None:
        """A source says who serves now."""
        endpoints = [Endpoint(host, 80, zone="even" if host in "bd" else "odd") for host in hosts]
        self.cluster.apply(Snapshot("api", tuple(endpoints), "static"))

    @rule()
    def ask(self) -> None:
        """A new request."""
        request = Request(self)
        self.requests.append(request)
        request.attempt()

    @rule(times=st.integers(2, 6))
    def many_ask(self, times: int) -> None:
        """And whom they reach accepts: so that there is something to wait for."""
        for _ in range(times):
            self.ask()
        for request in self.those("dialling"):
            self.connected(request, True)

    @rule(seconds=st.sampled_from([0.5, 11.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def those(self, went: str) -> list[Request]:
        return [request for request in self.requests if request.went == went]

    @precondition(lambda self: self.those("dialling"))
    @rule(data=st.data(), accepted=st.sampled_from([True, True, False]))
    def connect_ends(self, data: st.DataObject, accepted: bool) -> None:
        self.connected(data.draw(st.sampled_from(self.those("dialling"))), accepted)

    def connected(self, request: Request, accepted: bool) -> None:
        endpoint = request.endpoint
        assert endpoint is not None
        if accepted:
            request.connection, request.went = Connection(endpoint), "busy"
            return
        request.went = "failed"
        self.cluster.report(endpoint, Outcome.CONNECT_REFUSED, self.clock.monotonic(), request.permit)
        endpoint.pool.release(None)

    @precondition(lambda self: self.those("busy"))
    @rule(
        data=st.data(),
        outcome=st.sampled_from([Outcome.SUCCESS, Outcome.SUCCESS, Outcome.RESET, Outcome.CANCELLED]),
    )
    def response_ends(self, data: st.DataObject, outcome: Outcome) -> None:
        self.ended(data.draw(st.sampled_from(self.those("busy"))), outcome)

    def ended(self, request: Request, outcome: Outcome) -> None:
        connection, endpoint = request.connection, request.endpoint
        assert connection is not None
        assert endpoint is not None
        request.went = "done"
        self.cluster.report(endpoint, outcome, self.clock.monotonic(), request.permit)
        if endpoint.in_rotation and outcome is Outcome.SUCCESS:
            connection.pool.give_back(connection)
        else:
            connection.close()

    @rule()
    def one_fails_and_comes_back(self) -> None:
        """The next that is asked breaks off, and when its open time is over its probe is answered."""
        for outcome in (Outcome.RESET, Outcome.SUCCESS):
            self.ask()
            request = self.requests[-1]
            if request.went == "dialling":
                self.connected(request, True)
            self.many_ask(3)
            if request.went == "busy":
                self.ended(request, outcome)
            self.clock.advance(11.0)

    @precondition(lambda self: self.those("waiting"))
    @rule(data=st.data())
    def client_leaves(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(self.those("waiting")))
        request.went = "left"
        self.cluster.limit.withdraw(request)

    @invariant()
    def nobody_waits_for_what_is_there(self) -> None:
        if not hasattr(self, "cluster"):
            return
        limit = self.cluster.limit
        assert list(limit.pending) == [one for one in limit.pending if one.went == "waiting"]  # type: ignore[attr-defined] # all are `Request`s
        assert len(limit.pending) == len(self.those("waiting"))
        if not limit.pending:
            return
        rotation = [one for one in self.cluster.endpoints.values() if one.in_rotation]
        assert not any(one.pool.idle for one in rotation)
        if limit.used < limit.maximum:
            assert rotation, "or they would have heard that nobody is there"
            assert limit.per_endpoint
            assert all(one.pool.open >= limit.per_endpoint for one in rotation)

    @invariant()
    def an_endpoint_has_no_more_than_it_may(self) -> None:
        if not hasattr(self, "cluster") or not self.cluster.limit.per_endpoint:
            return
        for state in self.cluster.endpoints.values():
            # One that went, and came again as another, has what it had.
            probes = 1 + sum(cause.label == "open_time_over" for _, cause in state.breaker.transitions)
            assert state.pool.open <= self.cluster.limit.per_endpoint + probes

    def teardown(self) -> None:
        """All that goes on ends: then nobody can be waiting."""
        if not hasattr(self, "cluster"):
            return
        while (dialling := self.those("dialling")) or (busy := self.those("busy")):
            if dialling:
                self.connected(dialling[0], False)
            else:
                self.ended(busy[0], Outcome.CANCELLED)
        assert not self.those("waiting")
        assert self.cluster.limit.used == sum(
            len(state.pool.idle) for state in self.cluster.endpoints.values()
        )


TestQueue = Queue.TestCase
TestQueue.settings = settings(max_examples=150, stateful_step_count=50, deadline=None, derandomize=True)
