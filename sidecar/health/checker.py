"""When which endpoint is asked whether it is well: the schedule, and what follows from the answers.

Every endpoint has a next moment, and a heap gives the first of them. A pass (`expire`, which whoever looks at deadlines
calls) starts what is due, as many as may go on at once; the rest is started as others end, in the order in which it
was due. An endpoint's next moment is found when its check has ended, so that no two of one endpoint ever overlap.

Endpoints come and go in `Cluster.apply`, which makes a new mapping of them each time: a pass sees by that alone whether
there is anything to follow.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from heapq import heapify, heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any

from sidecar.health.probes import Finding, Probe, examine, probe_of
from sidecar.model.check import CheckCounts, CheckResult

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from sidecar.clock import Clock
    from sidecar.cluster import Cluster
    from sidecar.config.settings import HealthSettings
    from sidecar.health.connection import Resolve
    from sidecar.model import EndpointState

    # Asks one endpoint once. What it raises is a mistake of this program.
    Ask = Callable[[EndpointState], Awaitable[Finding]]

__all__ = ["MAX_RUNNING", "Checker", "Watch", "watch_of"]

# Checks at once, over all upstreams. Each holds a descriptor for as long as its endpoint takes: with all of a thousand
# endpoints silent for the usual 2 s of every 5 s, 400 would have to; then a round takes longer instead.
MAX_RUNNING = 128
JITTER = (
    0.2  # of an interval, to either side (behaviour.md): sidecars that started together do not stay in step
)
# Seconds over which an upstream's first checks are spread. The whole interval would be gentler by little, as each
# endpoint is asked once in it anyway, and would leave a sick one among the others for as long.
SOON = 1.0
FOLLOW = 0.5  # seconds until an endpoint that has come or gone is noticed
_FAILED, _SUCCEEDED, _UNKNOWN = 0, 1, 2  # positions in `UpstreamStats.checks`

_log = logging.getLogger("sidecar.health")


class Watch:
    """One upstream whose endpoints are checked.

    interval: seconds. ask: see `Ask`. made_of: two that are equal in it, and not None, check in the same way.
    """

    __slots__ = ("ask", "cluster", "followed", "interval", "made_of", "members")

    def __init__(self, cluster: Cluster, interval: float, ask: Ask, made_of: object = None) -> None:
        self.cluster = cluster
        self.made_of = made_of
        self.interval = interval
        self.ask = ask
        self.followed: object = None  # the mapping of endpoints as it was last looked at
        self.members: dict[EndpointState, _Member] = {}


def watch_of(cluster: Cluster, settings: HealthSettings, resolve: Resolve, clock: Clock) -> Watch:
    """The watch of `cluster` as it is configured. resolve: whoever knows the addresses of names."""
    host, version = cluster.policy.host_header, cluster.proxy_protocol
    probe = probe_of(settings, host, proxy_protocol=version)
    ask = partial(_ask, cluster, probe, settings.timeout, resolve, clock)
    return Watch(cluster, settings.interval, ask, (settings, host, version))


async def _ask(
    cluster: Cluster, probe: Probe, within: float, resolve: Resolve, clock: Clock, state: EndpointState
) -> Finding:
    endpoint = state.endpoint
    tls: Any = cluster.tls  # what `sidecar.tls` has made, and renews
    return await examine(probe, endpoint.host, endpoint.port, within, resolve, clock.monotonic, tls)


class _Member:
    """One endpoint of a watch. task: its check, while that goes on. gone: its source no longer names it."""

    __slots__ = ("gone", "state", "task", "watch")

    def __init__(self, watch: Watch, state: EndpointState) -> None:
        self.watch = watch
        self.state = state
        self.task: asyncio.Task[None] | None = None
        self.gone = False


class Checker:
    """Checks the endpoints of `watches` until it is shut. A member of a sweep, see `proxy.sweep.Expiring`.

    counts: where it says how many checks go on. limit: as many may at once.
    deadline: when it wants its next pass, monotonic seconds.
    """

    def __init__(
        self, watches: Iterable[Watch], clock: Clock, counts: CheckCounts, limit: int = MAX_RUNNING
    ) -> None:
        self.deadline = clock.monotonic()
        self._watches = tuple(watches)
        self._clock = clock
        self._counts = counts
        self._counts.limit = self._limit = limit
        self._due: list[tuple[float, int, _Member]] = []
        self._numbers = count()  # two that are due at once are not compared any further
        self._running: set[asyncio.Task[None]] = set()
        self._shut = False

    def follow(self, watches: Iterable[Watch]) -> None:
        """Check as `watches` say from now on. One that is as before goes on as if nothing had happened.

        What is checked in another way keeps what was found, until the first check that finds something else. What is
        checked no more is not held open either: nobody would let it back.
        """
        if self._shut:
            return
        before = {watch.cluster: watch for watch in self._watches}
        wanted = []
        for watch in watches:
            old = before.get(watch.cluster)
            if old is not None and old.made_of is not None and old.made_of == watch.made_of:
                del before[watch.cluster]
                wanted.append(old)
            else:
                wanted.append(watch)
        self._watches = tuple(wanted)
        checked = {watch.cluster for watch in wanted}
        now = self._clock.monotonic()
        for cluster, watch in before.items():
            self._drop(watch, watch.members)
            if cluster not in checked:
                for state in cluster.endpoints.values():
                    state.last_check = None
                    cluster.release(state, now)
        self._forget_gone()
        self._counts.limit = self._limit if wanted else 0
        self.deadline = now

    # What a sweep calls

    def expire(self) -> None:
        """One pass: follow what has come and gone, start what is due."""
        now = self._clock.monotonic()
        for watch in self._watches:
            if watch.cluster.endpoints is not watch.followed:
                self._follow(watch, now)
        self._start(now)

    def retire(self, now: float) -> bool:
        """The process would like to end, and accepts nothing more: whether an endpoint is well matters no longer."""
        self.shut()
        return False

    def shut(self) -> None:
        """Start nothing more, and end what goes on. `close` waits for that."""
        self._shut = True
        self.deadline = float("inf")
        self._due.clear()
        for task in tuple(self._running):
            task.cancel()

    async def close(self) -> None:
        """Shut, and wait until nothing is left."""
        self.shut()
        if self._running:
            await asyncio.wait(tuple(self._running))

    # The schedule

    def _follow(self, watch: Watch, now: float) -> None:
        """Take in endpoints that have come, and let go of those that have left."""
        present = set(watch.cluster.endpoints.values())
        left = [state for state in watch.members if state not in present]
        if left:
            self._drop(watch, left)
            self._forget_gone()
        new = [state for state in watch.cluster.endpoints.values() if state not in watch.members]
        slot = min(watch.interval, SOON) / max(len(new), 1)
        for position, state in enumerate(new):
            member = watch.members[state] = _Member(watch, state)
            self._plan(member, now + slot * (position + self._clock.uniform()))
        watch.followed = watch.cluster.endpoints

    def _drop(self, watch: Watch, states: Iterable[EndpointState]) -> None:
        """Ask `states` no more, and give up what is being asked."""
        for state in tuple(states):
            member = watch.members.pop(state)
            member.gone = True
            if member.task is not None:
                member.task.cancel()

    def _forget_gone(self) -> None:
        """Keep no more moments of those that have gone than of those that are there.

        Each would be kept until it comes, and endpoints may come and go many times in an interval.
        """
        there = [entry for entry in self._due if not entry[2].gone]
        if 2 * len(there) < len(self._due):
            self._due = there
            heapify(self._due)

    def _plan(self, member: _Member, due: float) -> None:
        heappush(self._due, (due, next(self._numbers), member))

    def _start(self, now: float) -> None:
        """Start what is due, as far as the bound lets it, and say when to look again."""
        if self._shut:
            return
        due = self._due
        while due and (due[0][0] <= now or due[0][2].gone) and len(self._running) < self._limit:
            member = heappop(due)[2]
            if not member.gone:
                self._begin(member, now)
        # At a full bound the next end is what is waited for, and starts by itself.
        full = len(self._running) >= self._limit
        self.deadline = now + FOLLOW if full or not due else min(now + FOLLOW, due[0][0])

    def _begin(self, member: _Member, now: float) -> None:
        task = member.task = asyncio.get_running_loop().create_task(self._check(member, now))
        self._running.add(task)
        self._counts.running = len(self._running)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._counts.running = len(self._running)
        self._start(self._clock.monotonic())

    async def _check(self, member: _Member, began: float) -> None:
        """One check of one endpoint, and its next moment. Whatever goes wrong in it is not the others' trouble."""
        watch, state = member.watch, member.state
        try:
            finding = await watch.ask(state)
        except Exception as error:
            ok: bool | None = None
            seconds = self._clock.monotonic() - began
            said = f"the check itself failed: {type(error).__name__}: {error}"
            _log.exception("%s: %s: the check itself failed", watch.cluster.name, state.endpoint.address)
        else:
            ok, seconds, said = finding.ok, finding.seconds, finding.error
        member.task = None
        now = self._clock.monotonic()
        self._plan(member, max(now, began + self._spread(watch.interval)))
        self._tell(watch.cluster, state, CheckResult(now, ok, seconds, said, 1))

    def _spread(self, interval: float) -> float:
        return interval * (1.0 + JITTER * (2.0 * self._clock.uniform() - 1.0))

    def _tell(self, cluster: Cluster, state: EndpointState, found: CheckResult) -> None:
        """Keep, count and log what was found, and tell the breaker if it says anything of the endpoint."""
        before = state.last_check
        again = before is not None and before.ok is found.ok
        if again:
            assert before is not None
            found = CheckResult(found.at, found.ok, found.seconds, found.error, before.in_a_row + 1)
        state.last_check = found
        name, address = cluster.name, state.endpoint.address
        if found.ok is None:
            cluster.stats.checks[_UNKNOWN] += 1
            if not again:
                _log.warning("%s: %s cannot be checked: %s", name, address, found.error)
            if found.in_a_row >= state.breaker.fall and state.breaker.failing:
                _log.warning("%s: %s is not held open any more, as it cannot be checked", name, address)
                cluster.release(state, found.at)
            return
        cluster.stats.checks[_SUCCEEDED if found.ok else _FAILED] += 1
        if not again and not found.ok:
            _log.warning("%s: %s fails its health checks: %s", name, address, found.error)
        elif not again and before is not None:
            _log.info("%s: %s passes its health checks again", name, address)
        cluster.check(state, found.ok, found.at)
