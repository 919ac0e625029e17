"""What the data path asks for an endpoint: the base of every policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from sidecar.model.endpoint import EndpointState
    from sidecar.model.stats import UpstreamStats

__all__ = ["Balancing", "Picker"]


class Balancing:
    """What policies are given beside the endpoints: the same for every picker of one upstream.

    uniform: a float in [0, 1); chance. stats: of the upstream, whose `in_flight` is all of its load.
    max_load: with ring_hash, what one endpoint may have in flight, as a multiple of its share of all.
    members: all endpoints of the snapshot, whether they may be picked or not; another list for each snapshot.
    ring: that ring_hash has laid out over them, or over those of the snapshot before.
    """

    __slots__ = ("max_load", "members", "ring", "stats", "uniform")

    def __init__(self, uniform: Callable[[], float], stats: UpstreamStats, max_load: float = 1.25) -> None:
        self.uniform = uniform
        self.stats = stats
        self.max_load = max_load
        self.members: list[EndpointState] = []
        self.ring: object = None


class Picker:
    """Built over the endpoints that may be picked, asked once per attempt: no allocation, no I/O.

    endpoints: those, in source order. observes: `observe` wants to hear how long attempts took.
    """

    __slots__ = ("_uniform", "endpoints", "observes")

    def __init__(
        self, endpoints: Sequence[EndpointState], previous: Picker | None, balancing: Balancing
    ) -> None:
        self.endpoints = list(endpoints)
        self.observes = False
        self._uniform = balancing.uniform

    def pick(self, key: int, now: float) -> EndpointState | None:
        """The endpoint for the next attempt; None only when built from no endpoints.

        key: what the request hashes to, 0 to 2**64 - 1; policies but ring_hash do not look at it.
        now: monotonic seconds; policies but peak_ewma do not look at it.
        """
        raise NotImplementedError

    def pick_untried(self, key: int, now: float, tried: Collection[EndpointState]) -> EndpointState | None:
        """One that is not in `tried`; any, when all are."""
        picked = self.pick(key, now)
        for _ in range(len(self.endpoints) * 4):  # weights may repeat a tried one
            if picked not in tried:
                return picked
            picked = self.pick(key, now)
        # Heavily uneven weights, or a policy that insists: any of the others.
        endpoints = self.endpoints
        start = int(self._uniform() * len(endpoints))
        for index in range(len(endpoints)):
            state = endpoints[(start + index) % len(endpoints)]
            if state not in tried:
                return state
        return picked

    def peek(self) -> EndpointState | None:
        """What `pick` would give now, when that is certain: neither up to chance nor to the key. Changes nothing."""
        return self.endpoints[0] if len(self.endpoints) == 1 else None

    def observe(self, state: EndpointState, seconds: float, failed: bool, now: float) -> None:
        """An attempt at `state` took so long until it ended, well or not."""
