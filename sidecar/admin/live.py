"""The view of `/upstreams` as it is told again and again: what has changed since, and nothing that time alone changes.

Where `/upstreams` has seconds from now, there are moments here, which stay what they are. So upstreams that nobody uses
are silent.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from heapq import nsmallest
from typing import TYPE_CHECKING, Any

from sidecar.admin.views import endpoint_view, moment, registrations_view, upstream_view, workers_view
from sidecar.resilience import BreakerState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sidecar.admin.views import Recent
    from sidecar.clock import Clock
    from sidecar.cluster import Cluster
    from sidecar.model import EndpointState, WorkerCounts
    from sidecar.model.registry import FeedStatus, Registered

__all__ = ["MOST_ENDPOINTS", "LiveView"]

# Of each endpoint what its text was made of, and that text.
_Endpoints = dict["EndpointState", tuple[Any, str]]

MOST_ENDPOINTS = 100  # of an upstream: nobody reads more of them on a page
# Endpoints that are looked at without a pause: 0.3 ms when they are as they were, 2 ms when all are others.
PART = 100
HEARD_EVERY = 5.0  # seconds: a registry that is heard of more often changes nothing that is shown
CLOCK_STEP = 0.5  # seconds by which wall time moves against monotonic time before moments are told anew


class LiveView:
    """All upstreams as JSON texts, each with the number of the look that found it changed.

    order: names, as configured. head: all but the upstreams, an object's text; empty before the first look.
    number: of the last look.
    """

    def __init__(
        self,
        clusters: Mapping[str, Cluster],
        clock: Clock,
        *,
        draining: Callable[[], bool],
        recent: Recent,
        feeds: Callable[[str], list[FeedStatus]],
        registered: Callable[[], Registered | None],
        workers: WorkerCounts | None = None,
    ) -> None:
        self._clusters = clusters
        self._clock = clock
        self._draining = draining
        self._recent = recent
        self._feeds = feeds
        self._registered = registered
        self._workers = workers
        self._epoch = clock.wall() - clock.monotonic()
        self._texts: dict[str, tuple[int, str]] = {}
        self._endpoints: dict[str, _Endpoints] = {}  # by upstream
        self._recents: dict[str, dict[str, Any] | None] = {}
        self.order: list[str] = []
        self.head = ""
        self.number = 0

    def forget(self) -> None:
        """Nobody is interested any more."""
        self._texts.clear()
        self._endpoints.clear()
        self._recents.clear()
        self.order = []
        self.head = ""

    def since(self, number: int) -> Iterator[str]:
        """The upstreams that have changed since the look of that number."""
        for name in self.order:
            changed, text = self._texts.get(name, (0, ""))
            if changed > number:
                yield text

    async def look(self) -> None:
        """Find what has changed, in parts."""
        number = self.number + 1
        self._follow_clock()
        looked_at = 0
        order = list(self._clusters)
        for name in order:
            cluster = self._clusters.get(name)
            if cluster is None:  # it has left meanwhile
                continue
            text = self._upstream(cluster)
            if self._texts.get(name, (0, ""))[1] != text:
                self._texts[name] = (number, text)
            looked_at += 1 + min(len(cluster.endpoints), MOST_ENDPOINTS)
            if looked_at >= PART:
                looked_at = 0
                await asyncio.sleep(0)  # requests come first
        for name in [name for name in self._texts if name not in self._clusters]:
            del self._texts[name]
            self._recents.pop(name, None)
            self._endpoints.pop(name, None)
        self.order = order
        self.head = _text(self._head())
        self.number = number

    def _follow_clock(self) -> None:
        """One epoch for all looks: the difference of two clocks is never twice the same to the millisecond."""
        epoch = self._clock.wall() - self._clock.monotonic()
        if abs(epoch - self._epoch) > CLOCK_STEP:
            self._epoch = epoch
            self._endpoints.clear()

    def _head(self) -> dict[str, Any]:
        head: dict[str, Any] = {"at": moment(self._clock.wall()), "draining": self._draining()}
        if self._workers is not None:
            head["workers"] = workers_view(self._workers)
        registered = self._registered()
        if registered is not None and registered.statuses:
            head["registrations"] = registrations_view(registered, self._epoch)
        head["order"] = self.order
        return head

    def _upstream(self, cluster: Cluster) -> str:
        now = self._clock.monotonic()
        feeds = [_heard_seldom(feed) for feed in self._feeds(cluster.name)]
        view = upstream_view(cluster, now, self._epoch, (), feeds, self._figures(cluster.name))
        del view["endpoints"]
        for feed in view.get("registries", ()):
            del feed["age"]
        states = list(cluster.endpoints.values())
        if len(states) > MOST_ENDPOINTS:
            view["endpoints_total"] = len(states)
            view["endpoints_drained"] = sum(state.drained for state in states)
            view["endpoints_serving"] = sum(state.in_rotation and not state.drained for state in states)
            states = nsmallest(MOST_ENDPOINTS, states, key=_wellness)
        known = self._endpoints.get(cluster.name, {})
        kept = self._endpoints[cluster.name] = {}
        for state in states:
            shown = _shown(state)
            before = known.get(state)
            if before is None or before[0] != shown:
                before = (shown, _text(self._endpoint(state, now)))
            kept[state] = before
        texts = [text for _, text in kept.values()]
        return f'{_text(view)[:-1]},"endpoints":[{",".join(texts)}]}}'

    def _figures(self, name: str) -> dict[str, Any] | None:
        """As before where they differ only in the seconds that they are of: those are not five at first."""
        found, before = self._recent(name), self._recents.get(name)
        if found is not None and before is not None and found | {"seconds": before["seconds"]} == before:
            return before
        self._recents[name] = found
        return found

    def _endpoint(self, state: EndpointState, now: float) -> dict[str, Any]:
        """As in `/upstreams`, but of the check only what it says, and `retry_at` alone of when a probe is due."""
        view = endpoint_view(state, now, self._epoch)
        del view["breaker"]["retry_in"]
        check = view["check"]
        view["check"] = None if check is None else {"ok": check["ok"], "error": check["error"]}
        return view


def _text(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))


def _heard_seldom(feed: FeedStatus) -> FeedStatus:
    heard = feed.heard_at
    return feed if heard is None else replace(feed, heard_at=heard // HEARD_EVERY * HEARD_EVERY)


def _wellness(state: EndpointState) -> int:
    """0 for those that are worst off."""
    breaker = state.breaker
    if breaker.state is BreakerState.OPEN:
        return 0
    if breaker.state is BreakerState.HALF_OPEN:
        return 1
    if state.drained:
        return 2
    if state.last_check is not None and not state.last_check.ok:
        return 3
    return 4 if breaker.failures else 5


def _shown(state: EndpointState) -> tuple[Any, ...]:
    """All that an endpoint's view is made of: a fifth of what it takes to make it and write it down."""
    breaker, pool, check = state.breaker, state.pool, state.last_check
    return (
        state.endpoint,
        state.in_rotation,
        state.drained,
        state.in_flight,
        pool.open,
        len(pool.idle),
        state.attempts.tobytes(),
        breaker.state,
        breaker.failures,
        breaker.threshold,
        breaker.probing,
        breaker.open_until,
        breaker.held,
        breaker.journal[-1] if breaker.journal else None,
        len(breaker.journal),
        None if check is None else (check.ok, check.error),
    )
