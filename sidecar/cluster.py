"""The joint between those who know what an upstream consists of and those who send requests to it.

A source hands a `Snapshot` to `Cluster.apply`; the data path asks `Cluster.pick` and tells `Cluster.report`
how it went. Between them stands the picker: built over the endpoints in rotation, and replaced whole when an endpoint
comes, goes, or its breaker moves, so that picking itself looks at nothing else.

In rotation are the endpoints whose breakers are closed. When too few are left (`resilience.outlier`) it is all of them,
breakers or not: that is panic, and a retry still goes to a closed one if there is any.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Protocol

from sidecar.balance import POLICIES, ZonePreference, own_share
from sidecar.balance.picker import Balancing
from sidecar.errors import Reason
from sidecar.model.endpoint import SAYS_NOTHING, EndpointState
from sidecar.model.outcome import Outcome, outcomes_by_status
from sidecar.model.stats import UpstreamStats
from sidecar.pool import ConnectionLimit, EndpointPool
from sidecar.resilience import Breaker, BreakerState, too_few_left
from sidecar.resilience.retry_budget import RetryBudget

if TYPE_CHECKING:
    from array import array
    from collections.abc import Collection, Iterable

    from sidecar.balance.picker import Picker
    from sidecar.clock import Clock
    from sidecar.model import Endpoint, Snapshot
    from sidecar.model.policy import UpstreamPolicy
    from sidecar.proxy.front import Front
    from sidecar.proxy.router import Router
    from sidecar.proxy.secure import ClientTls

__all__ = ["BreakerWatcher", "Cluster"]

_NEVER = float("inf")

# While an endpoint starts slowly: how many times its weight grows, and the least that it has (Envoy's
# `min_weight_percent`), as much as makes one request in ten of its share.
_SLOW_STEPS = 10
# Endpoints that have left, of which it is still known what was counted (behaviour 22): as many as an upstream has when
# it is large, so that a registry that forgets all of them for a moment resets no counter. Each is some hundred bytes.
REMEMBERED = 1000
_SUCCESS = Outcome.SUCCESS  # for every request; an Enum's member costs ten times as much as a name here


class BreakerWatcher(Protocol):
    """Somebody who wants to know of breakers that move by themselves: the other workers of this sidecar do."""

    def moved(self, cluster: Cluster, state: EndpointState, now: float) -> None:
        """The breaker of `state` has opened or closed, or its probe goes out (it is half open then)."""

    def held(self, cluster: Cluster, state: EndpointState, now: float) -> None:
        """Health checks hold the breaker of `state`, which was open already, or no longer do; it stays open."""


class Cluster:
    """The live object of one upstream.

    name, scheme, policy: as configured. per_request: it is proxied request by request, not session by session.
    endpoints: by (host, port), in the order of the snapshot. source: who gave the last snapshot.
    outcomes: what a response's status says of its endpoint; those that are not there say nothing bad.
    picker: over the endpoints in rotation. limit: the bound on its connections.
    gave_probe: the last pick is a probe.
    panic: too few endpoints are left whose breakers are closed.
    hashes: picks go by a key of the request (ring_hash).
    budget: of its retries.
    stats: what has happened since the start; survives every snapshot.
    watcher: told of every breaker that moves, but of those that `adopt` moves; None as a rule.
    leaving: its upstream is not configured any more, so that responses close their clients' connections.
    front: what its requests and responses pass first (`proxy.front`); None, as a rule, is nothing.
    router: of a listener that shares its requests out among other upstreams (`proxy.router`); None for all others.
    tls: how its endpoints are spoken to (`proxy.secure`); None in the clear.
    proxy_protocol: version of the header (1 or 2) that tells its endpoints who the client is; 0 is none.
    """

    __slots__ = (
        "_balancing",
        "_clock",
        "_left",
        "_look_at",
        "_probe_at",
        "_ramp_at",
        "_sound",
        "budget",
        "endpoints",
        "front",
        "gave_probe",
        "hashes",
        "leaving",
        "limit",
        "name",
        "outcomes",
        "panic",
        "per_request",
        "picker",
        "policy",
        "proxy_protocol",
        "router",
        "scheme",
        "source",
        "stats",
        "tls",
        "watcher",
    )

    def __init__(self, name: str, scheme: str, policy: UpstreamPolicy, clock: Clock) -> None:
        self.name = name
        self.scheme = scheme
        self.per_request = scheme in ("http", "https")
        self.policy = policy
        self.endpoints: dict[tuple[str, int], EndpointState] = {}
        self.source = ""
        self.stats = UpstreamStats()
        self.watcher: BreakerWatcher | None = None
        self.budget = RetryBudget(policy.retry_ratio, policy.retry_min)
        self.limit = ConnectionLimit(
            policy.max_connections,
            policy.max_pending,
            policy.max_connections_per_endpoint,
            policy.max_in_flight,
        )
        self._clock = clock
        self._left: dict[tuple[str, int], tuple[array[int], float]] = {}
        self._balancing = Balancing(clock.uniform, self.stats, policy.max_load)
        self._probe_at = _NEVER  # when a breaker may be probed
        self._ramp_at = _NEVER  # when weights of slowly starting endpoints grow
        self._look_at = _NEVER  # the sooner of the two
        self.hashes = policy.strategy == "ring_hash"
        self.outcomes = outcomes_by_status(policy.failure_statuses)
        self.leaving = False
        self.front: Front | None = None
        self.router: Router | None = None
        self.tls: ClientTls | None = None
        self.proxy_protocol = 0
        self.gave_probe = False
        self.panic = False
        self.picker: Picker = POLICIES[policy.strategy]([], None, self._balancing)
        self._sound: Picker | None = None  # in panic: over the closed ones, for retries

    def apply(self, snapshot: Snapshot) -> None:
        """Make the endpoints those of `snapshot`: new ones start closed, known ones keep everything, others go.

        One that was there before counts on from where it was; its breaker knows nothing of then.
        """
        before = self.endpoints
        now = self._clock.monotonic()
        # Nobody of the first snapshot starts slowly: there is nobody to carry the others' share (behaviour 23).
        since = now if self.source else -_NEVER
        self.endpoints = {}
        for endpoint in snapshot.endpoints:
            # Named twice, it is still one endpoint: the last mention's attributes are its own.
            state = before.pop(endpoint.key, None) or self.endpoints.get(endpoint.key)
            if state is None:
                state = self._new_state(endpoint)
                state.since = since
                counted = self._left.pop(endpoint.key, None)
                if counted is not None:
                    state.resume(*counted)
            else:
                state.endpoint = endpoint
            self.endpoints[endpoint.key] = state
        self.source = snapshot.source
        for state in before.values():
            state.removed = True
            state.in_rotation = False
            self._left[state.endpoint.key] = (state.attempts, state.attempt_seconds)
        while len(self._left) > REMEMBERED:
            del self._left[next(iter(self._left))]
        self._balancing.members = list(self.endpoints.values())
        self._rebuild(now)
        for state in before.values():
            state.pool.retire()
            self._end_sessions(state)
        self.limit.wake()

    def reconfigure(self, policy: UpstreamPolicy) -> None:
        """Go by `policy` from now on. Endpoints, connections, breakers and counts stay as they are.

        What is under way keeps what it began with where it says so itself: an idle connection its time, a session its
        idle time-out. Who waits for a connection goes on if there is room now.
        """
        self.policy = policy
        self.budget.configure(policy.retry_ratio, policy.retry_min)
        self.limit.configure(
            policy.max_connections,
            policy.max_pending,
            policy.max_connections_per_endpoint,
            policy.max_in_flight,
        )
        self.hashes = policy.strategy == "ring_hash"
        self.outcomes = outcomes_by_status(policy.failure_statuses)
        self._balancing.max_load = policy.max_load
        if not self.hashes:
            self._balancing.ring = None
        for state in self.endpoints.values():
            state.authority = self._authority(state.endpoint)
            state.breaker.configure(
                policy.breaker_threshold,
                policy.breaker_open_for,
                policy.breaker_max_open_for,
                policy.breaker_jitter,
                policy.breaker_failure_rate,
                policy.breaker_min_requests,
                policy.breaker_window,
                policy.check_rise,
                policy.check_fall,
            )
            if not policy.close_on_unhealthy:
                state.sessions.clear()
        self._rebuild(self._clock.monotonic())
        self.limit.wake()

    def pick(self, now: float, tried: Collection[EndpointState] = (), key: int = 0) -> EndpointState | None:
        """The endpoint for the next attempt, or None (see `refusal`).

        tried: endpoints this exchange has been at; they are picked again only when no other is left.
        An endpoint whose open time is over is given out as the one probe (`gave_probe`): its breaker is then half
        open, and `report` with its permit must follow. Others that are sent there meanwhile, in panic, have none.
        key: what the request hashes to, where the policy `hashes`.
        """
        self.gave_probe = False
        if now >= self._look_at:
            return self._pick_with_care(now, tried, key)
        if tried:
            return self._pick_again(now, tried, key)
        return self.picker.pick(key, now)

    def _pick_with_care(self, now: float, tried: Collection[EndpointState], key: int) -> EndpointState | None:
        """A pick while a breaker may be probed, or weights grow."""
        if now >= self._ramp_at:
            self._rebuild(now)
        # A retry is no probe while there is somebody to expect more of: it may be the last that its request has.
        if not self.policy.observe_only and not (tried and self.has_sound(tried)):
            probe = self._pick_probe(now, tried)
            if probe is not None:
                return probe
        picked = self._pick_again(now, tried, key) if tried else self.picker.pick(key, now)
        if self.policy.observe_only and picked is not None and picked.breaker.probe_at <= now:
            self._probe(picked, now)  # whoever has its turn anyway
        return picked

    def _pick_again(self, now: float, tried: Collection[EndpointState], key: int) -> EndpointState | None:
        """A pick for a retry: in panic one whose breaker is closed, if there is any that is not tried."""
        picker = self.picker
        if self._sound is not None and self.has_sound(tried):
            picker = self._sound
        return picker.pick_untried(key, now, tried)

    def has_sound(self, tried: Collection[EndpointState]) -> bool:
        """Whether an endpoint that is expected to serve, and has room, is not in `tried`.

        In rotation, and in panic with its breaker closed: of the others each would be asked by each request in vain.
        """
        return _has_other(self.picker if self._sound is None else self._sound, tried)

    def peek(self, now: float) -> tuple[EndpointState | None, str]:
        """The next pick and why it is that one, or None and why nobody can tell or nobody is. Changes nothing."""
        if now >= self._ramp_at:
            self._rebuild(now)  # as the next pick does
        due = min(self._enabled(), key=lambda state: state.breaker.probe_at, default=None)
        if due is not None and due.breaker.probe_at <= now and not self.policy.observe_only:
            return due, "its probe is due"
        if self.router is not None:
            return None, "up to the request's route"
        if not self.picker.endpoints:
            return None, "nobody is in rotation" if self.endpoints else "it has no endpoints"
        state = self.picker.peek()
        if state is None:
            return None, "up to the request's key" if self.hashes else "up to chance"
        return state, "alone in rotation" if len(self.picker.endpoints) == 1 else "its turn"

    def with_room(
        self, picked: EndpointState, now: float, tried: Collection[EndpointState], key: int
    ) -> EndpointState:
        """Where to go, `picked` having no idle connection: there, or, if it has all that it may, where there is room.

        `picked` itself when there is none anywhere: who waits does so for all of them. The picker chooses among
        those with room, one that is not in `tried` if it can.
        """
        if picked.pool.has_room or self.gave_probe:
            return picked
        full = {state for state in self.endpoints.values() if not (state.pool.has_room or state.pool.idle)}
        for avoided in ({*full, *tried}, full):
            other = self.picker.pick_untried(key, now, avoided)
            if other is not None and other not in avoided:
                return other
        return picked

    def has_untried(self, tried: Collection[EndpointState]) -> bool:
        """Whether an endpoint in rotation, and with room, is not in `tried`."""
        return _has_other(self.picker, tried)

    @property
    def is_overfull(self) -> bool:
        """Whether more is in flight than an upstream with such a limit may have; a tunnel still is a request."""
        return self.stats.in_flight + self.stats.sessions_active > self.limit.max_in_flight

    def any_key(self) -> int:
        """A key by chance, for a request that has nothing to hash."""
        return int(self._clock.uniform() * (1 << 64))

    @property
    def refusal(self) -> Reason:
        """Why `pick` gave None: nobody serves this upstream, all are drained, or every breaker is open.

        A listener that shares its requests out has no endpoints itself: what is left to it fits none of its routes.
        """
        if not self.endpoints:
            return Reason.NO_ENDPOINTS if self.router is None else Reason.NO_ROUTE
        drained = all(state.drained for state in self.endpoints.values())
        return Reason.DRAINING if drained else Reason.ALL_OPEN

    def report(
        self, state: EndpointState, outcome: Outcome, now: float, permit: int, seconds: float = 0.0
    ) -> None:
        """Tell how an attempt at `state` ended: counted, fed to its breaker, and the picker follows.

        permit: `state.breaker.permit` when the attempt began. seconds: from then until the endpoint answered, or to now
        if it did not; what its response takes to come is its reader's business.
        """
        state.count(outcome)
        if outcome is _SUCCESS or outcome not in SAYS_NOTHING:
            state.attempt_seconds += seconds
            if state.removed:
                self._credit(state, seconds)
            if self.picker.observes:
                self.picker.observe(state, seconds, outcome.is_failure, now)
        breaker = state.breaker
        if outcome is not _SUCCESS or breaker.failures or not breaker.closed:
            self.judge(state, outcome, now, permit)
        elif permit == breaker.permit:  # as is usual
            breaker.succeed(now)

    def _credit(self, gone: EndpointState, seconds: float) -> None:
        """What an attempt took that ends after its endpoint has gone; its count is in an array that it left behind."""
        key = gone.endpoint.key
        heir = self.endpoints.get(key)
        if heir is not None:
            if heir.attempts is gone.attempts:  # else it was forgotten meanwhile, and its count with it
                heir.attempt_seconds += seconds
            return
        attempts, before = self._left.get(key, (None, 0.0))
        if attempts is gone.attempts:
            self._left[key] = (
                attempts,
                before + seconds,
            )  # an heir of its may have gone too, and taken longer

    def judge(self, state: EndpointState, outcome: Outcome, now: float, permit: int) -> None:
        """Feed the breaker alone: of a probe that goes on, as a stream may for hours."""
        breaker = state.breaker
        moved = breaker.record(outcome, now, permit)
        if state.removed:
            return
        if moved:
            self._follow(now, state)
            if self.watcher is not None:
                self.watcher.moved(self, state, now)
        elif breaker.state is BreakerState.HALF_OPEN:
            self._find_next_probe()

    def adopt(
        self,
        key: tuple[str, int],
        to: BreakerState,
        at: float,
        open_until: float,
        opened_in_a_row: int,
        failing: bool = False,
    ) -> None:
        """Follow what another worker's breaker of the endpoint `key` did, see `Breaker.adopt`."""
        state = self.endpoints.get(key)
        if state is None:  # its configuration is another one, for the moment of a reload
            return
        if state.breaker.adopt(to, at, open_until, opened_in_a_row, failing):
            self._follow(at, state)
        else:
            self._find_next_probe()

    def check(self, state: EndpointState, good: bool, now: float) -> None:
        """A health check of `state` went well or badly: the second input of its breaker."""
        if state.removed:
            return
        was = state.breaker.failing
        if state.breaker.check(good, now):
            self._follow(now, state)
            if self.watcher is not None:
                self.watcher.moved(self, state, now)
        else:
            self._find_next_probe()  # a check may hold it open, or no longer
            if self.watcher is not None and state.breaker.failing != was:
                self.watcher.held(self, state, now)

    def release(self, state: EndpointState, now: float) -> None:
        """Health checks of `state` can no longer be made: what they hold open is its breaker's own business again."""
        if state.breaker.release():
            self._find_next_probe()
            if self.watcher is not None:
                self.watcher.held(self, state, now)

    def trip(self, states: Iterable[EndpointState], now: float) -> None:
        """Take `states` out of rotation until `reset`, whatever their requests and checks say."""
        for state in states:
            state.breaker.trip(now)
        self._follow(now)

    def reset(self, states: Iterable[EndpointState], now: float) -> None:
        """Put `states` back into rotation, with breakers that know nothing of before."""
        chosen = tuple(states)
        for state in chosen:
            state.breaker.reset(now)
        self._follow(now, *chosen)

    def drain(self, states: Iterable[EndpointState], now: float) -> None:
        """Send nothing new to `states` until `enable`. What is under way finishes, sessions too; breakers stay.

        Sessions with `close_on_unhealthy` end all the same when a breaker would take their endpoint out of rotation.
        """
        for state in states:
            state.drained = True
        self._follow(now)

    def enable(self, states: Iterable[EndpointState], now: float) -> None:
        """Send to `states` again, which start slowly where there is `slow_start`."""
        for state in states:
            if state.drained:
                state.drained = False
                state.since = now
        self._follow(now)

    def _new_state(self, endpoint: Endpoint) -> EndpointState:
        policy = self.policy
        breaker = Breaker(
            policy.breaker_threshold,
            policy.breaker_open_for,
            policy.breaker_max_open_for,
            policy.breaker_jitter,
            self._clock.uniform,
            policy.breaker_failure_rate,
            policy.breaker_min_requests,
            policy.breaker_window,
            policy.check_rise,
            policy.check_fall,
        )
        breaker.totals = self.stats.transitions
        pool = EndpointPool(self.limit)
        return EndpointState(endpoint, self._authority(endpoint), breaker, pool, self.stats.attempts)

    def _authority(self, endpoint: Endpoint) -> bytes:
        """What requests to it carry as Host, see `EndpointState`."""
        chosen = self.policy.host_header
        if chosen == "endpoint":
            chosen = endpoint.authority
        elif chosen == "preserve":
            chosen = ""
        return chosen.encode("ascii")

    def _pick_probe(self, now: float, tried: Collection[EndpointState]) -> EndpointState | None:
        # The breaker that has waited longest is asked first (behaviour 27).
        for state in sorted(self._enabled(), key=lambda state: state.breaker.probe_at):
            if state.breaker.probe_at > now:
                break
            if state not in tried and self._probe(state, now):
                return state
        return None

    def _probe(self, state: EndpointState, now: float) -> bool:
        """Whether the pick of `state` is its breaker's probe."""
        if not state.breaker.take_probe(now):
            return False
        self.gave_probe = True
        self._find_next_probe()
        if self.watcher is not None:
            self.watcher.moved(self, state, now)
        return True

    def _follow(self, now: float, *moved: EndpointState) -> None:
        """Breakers have moved: what is picked has changed, and with it where there is room."""
        for state in moved:
            if state.breaker.closed and not state.in_rotation:
                state.since = now  # of one that only seemed to be away there is nothing to start slowly
        self._rebuild(now)
        self.limit.wake()

    def _rebuild(self, now: float) -> None:
        """A new picker, over the endpoints that are in rotation now."""
        policy = self.policy
        # One that is tripped or drained is not there at all: neither counted among the ejected nor used in panic.
        there = [state for state in self._enabled() if not state.breaker.tripped]
        closed = [state for state in there if state.breaker.state is BreakerState.CLOSED]
        ejected = len(there) - len(closed)
        self.panic = ejected > 0 and too_few_left(
            len(there), ejected, policy.max_ejected, policy.min_available
        )
        all_used = self.panic and policy.panic_all and not policy.observe_only
        rotation = there if all_used or policy.observe_only else closed
        self._weigh(rotation, now)
        weights = sum(state.weight for state in rotation)
        for state in self.endpoints.values():
            state.in_rotation = False
            state.pool.share = 0
        for state in rotation:
            state.in_rotation = True
            state.pool.share = ceil(self.limit.maximum * state.weight / weights)
        self.picker = self._new_picker(rotation)
        self._sound = POLICIES[policy.strategy](closed, None, self._balancing) if all_used else None
        self._find_next_probe()
        for state in self.endpoints.values():
            if not state.in_rotation:
                state.pool.close_idle()  # connections of a failing endpoint are not worth a later retry
                if not self.keeps_sessions(state):
                    self._end_sessions(state)

    def keeps_sessions(self, state: EndpointState) -> bool:
        """Whether sessions at `state` go on: it is in rotation, or would be if nobody had drained it."""
        if state.in_rotation or not state.drained:
            return state.in_rotation
        breaker = state.breaker
        if state.removed or breaker.tripped:
            return False
        return breaker.closed or self._sound is not None or self.policy.observe_only

    def _end_sessions(self, state: EndpointState) -> None:
        """End what does not outlive its endpoint's place in the rotation. Last: it makes room, and others go on."""
        for session in tuple(state.sessions):
            session.endpoint_left()

    def _weigh(self, closed: list[EndpointState], now: float) -> None:
        """Give every endpoint its weight: the configured one, or so much of it as it has come to."""
        slow_start = self.policy.slow_start
        # Another worker may have closed a breaker a moment after now.
        starting = [state for state in closed if slow_start and now - state.since < slow_start]
        self._ramp_at = now + slow_start / _SLOW_STEPS if starting else _NEVER
        for state in closed:
            state.weight = state.endpoint.weight * (_SLOW_STEPS if starting else 1)
        for state in starting:
            share = max((now - state.since) / slow_start, 1.0 / _SLOW_STEPS)
            state.weight = max(1, int(state.weight * share))

    def _new_picker(self, closed: list[EndpointState]) -> Picker:
        make = POLICIES[self.policy.strategy]
        zone = self.policy.zone
        before: Picker | None = self.picker
        own = [state for state in closed if state.endpoint.zone == zone] if zone else []
        if not own or len(own) == len(closed):
            return make(closed, None if isinstance(before, ZonePreference) else before, self._balancing)
        known = sum(state.endpoint.weight for state in self.endpoints.values() if state.endpoint.zone == zone)
        if self._ramp_at < _NEVER:  # weights are in tenths
            known *= _SLOW_STEPS
        share = own_share(sum(state.weight for state in own), known)
        others = [state for state in closed if state.endpoint.zone != zone]
        was = before if isinstance(before, ZonePreference) else None
        return ZonePreference(
            make(own, was.own if was else None, self._balancing),
            make(others, was.others if was else None, self._balancing),
            share,
            self._balancing,
            hashes=self.hashes,
            previous=was,
        )

    def _enabled(self) -> list[EndpointState]:
        """Those that may be sent to, now or when their breakers say so."""
        return [state for state in self.endpoints.values() if not state.drained]

    def _find_next_probe(self) -> None:
        self._probe_at = min((state.breaker.probe_at for state in self._enabled()), default=_NEVER)
        self._look_at = min(self._probe_at, self._ramp_at)


def _has_other(picker: Picker, tried: Collection[EndpointState]) -> bool:
    return any(state not in tried and (state.pool.has_room or state.pool.idle) for state in picker.endpoints)
