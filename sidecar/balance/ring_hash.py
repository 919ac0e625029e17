"""Ring hash: the same key goes to the same endpoint, as far as endpoints come and go and are not overloaded.

Every endpoint stands at many points of a ring of 64 bits, which depend on its address and weight alone; a key goes to
the next point clockwise (Karger et al. 1997, and Ketama's many points). So an endpoint that comes or goes moves its own
share of the keys and no other, and every sidecar sends a key to the same place (up to `MAX_POINTS`). What may not be
picked now is passed over, and so is an endpoint with more in flight than `max_load` times its share of everything in
flight (Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2016; Envoy's
`hash_balance_factor`): a hot key spills over to the next endpoints instead of drowning one.
"""

from __future__ import annotations

from bisect import bisect_left
from hashlib import shake_256
from struct import unpack
from typing import TYPE_CHECKING

from sidecar.balance.picker import Picker

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sidecar.balance.picker import Balancing
    from sidecar.model.endpoint import EndpointState

__all__ = ["MAX_POINTS", "POINTS", "Ring", "RingHash"]

POINTS = 128  # for each unit of weight: shares are even to about a tenth
# Of the ring; beyond it all have half as many points, or a quarter. To lay out as many takes some 12 ms, in which
# nothing else is done. A thousand endpoints have 32 each then, twice HAProxy's 16: shares are even to a sixth.
MAX_POINTS = 32768

_FEWEST = 8  # of one endpoint, however many others there are

# How many times as many endpoints as may be picked the ring may have: beyond it, it is laid out over those alone, as
# passing over all the others would take longer with every pick.
_SPARSE = 8

# In flight at one endpoint, below which it is not overloaded whatever the others have: with next to nothing to do,
# two requests of one key at a time are no reason to part them.
_NOT_HOT = 8

# Points of overloaded endpoints that are passed over before the key's own endpoint has to take it: the bound makes
# more than a few of them in a row rare, and a walk around the whole ring would cost more than it spreads.
_PATIENCE = 64


class Ring:
    """The points of some endpoints, sorted; immutable, and shared by the pickers that leave out some of them.

    of: the endpoints that it was laid out over. members: those by index, and some that have left meanwhile.
    counts: how many points each has, 0 of one that has left. points: the upper bits of a hash, and below them, where
    `mask` has its bits, the index into `members`.
    """

    __slots__ = ("counts", "mask", "members", "of", "points")

    def __init__(self, of: Sequence[EndpointState], previous: Ring | None = None) -> None:
        """previous: the ring of before, whose points are taken over as far as they stay where they are."""
        self.of = of
        # Of its own weight alone, so that nobody else's moves its keys: a gcd would.
        counts = [POINTS * state.endpoint.weight for state in of]
        while sum(counts) > max(MAX_POINTS, _FEWEST * len(counts)):
            counts = [max(_FEWEST, count // 2) for count in counts]
        self.mask = (1 << max(len(of) - 1, 1).bit_length()) - 1
        self.members: list[EndpointState] = []
        self.counts: list[int] = []
        self.points: list[int] = []
        wanted = dict(zip(of, counts, strict=True))
        free: list[int] = []
        if previous is not None and previous.mask == self.mask:
            free = self._take_over(previous, wanted)
        for state, count in wanted.items():
            index = free.pop() if free else len(self.members)
            if index == len(self.members):
                self.members.append(state)
                self.counts.append(count)
            else:
                self.members[index], self.counts[index] = state, count
            mask = self.mask
            self.points += [point & ~mask | index for point in _points(state.endpoint.address, count)]
        self.points.sort()  # of what has been taken over there is nothing to sort

    def _take_over(self, previous: Ring, wanted: dict[EndpointState, int]) -> list[int]:
        """Have the points of before, but of those that have left; take those that stay out of `wanted`. Free indices.

        To lay out a thousand endpoints takes some twelve milliseconds, in which nothing else is done; most of the time
        only a few of them come and go.
        """
        self.members, self.counts = list(previous.members), list(previous.counts)
        stays = bytearray(len(self.members))
        for index, state in enumerate(self.members):
            if wanted.get(state) == self.counts[index]:
                stays[index] = 1
                del wanted[state]
            else:
                self.counts[index] = 0  # nobody's, until somebody comes: also not of one that comes back
        mask = self.mask
        self.points = [point for point in previous.points if stays[point & mask]]
        return [index for index, kept in enumerate(stays) if not kept]


def _points(address: str, count: int) -> Sequence[int]:
    """The first `count` points of an endpoint, 64 bits each."""
    return unpack(f">{count}Q", shake_256(address.encode()).digest(8 * count))


class RingHash(Picker):
    """Picks by key over the ring of all endpoints of the snapshot, passing over those that may not be picked."""

    __slots__ = ("_bound", "_live", "_ring", "_stats", "_weights")

    _ring: Ring

    def __init__(
        self, endpoints: Sequence[EndpointState], previous: Picker | None, balancing: Balancing
    ) -> None:
        Picker.__init__(self, endpoints, previous, balancing)
        members = balancing.members
        if len(members) > _SPARSE * len(endpoints) or not set(members).issuperset(endpoints):
            ring = Ring(endpoints)
        else:
            # A breaker that opens or closes leaves the ring as it is: laying it out takes time, passing over does not.
            before = balancing.ring
            if isinstance(before, Ring) and before.of is members:
                ring = before
            else:
                ring = balancing.ring = Ring(members, before if isinstance(before, Ring) else None)
        self._ring = ring
        may = set(endpoints)
        self._live = bytearray(state in may for state in ring.members)
        self._stats = balancing.stats
        self._bound = balancing.max_load
        self._weights = sum(state.weight for state in endpoints)

    def pick(self, key: int, now: float) -> EndpointState | None:
        """The first one clockwise that may be picked and has room; None when there is none."""
        return self._walk(key, ())

    def pick_untried(self, key: int, now: float, tried: Collection[EndpointState]) -> EndpointState | None:
        """The next one clockwise that is not in `tried`; the key's own, when all are."""
        return self._walk(key, tried) or self._walk(key, ())

    def _walk(self, key: int, tried: Collection[EndpointState]) -> EndpointState | None:
        points, members, live = self._ring.points, self._ring.members, self._live
        size = len(points)
        mask = self._ring.mask
        start = bisect_left(points, key)
        # As much as one may have in flight for each unit of weight, with what is to be placed.
        load = self._stats.in_flight + self._stats.sessions_active + 1
        room = self._bound * load / self._weights if self._weights else 0.0
        full: EndpointState | None = None
        seen = 0
        for step in range(size):
            at = start + step
            index = points[at if at < size else at - size] & mask
            if not live[index]:
                continue
            state = members[index]
            if tried and state in tried:
                continue
            if state.in_flight < _NOT_HOT or state.in_flight < room * state.weight:
                return state
            if full is None:
                full = state
            seen += 1
            if seen > _PATIENCE:
                break
        return full
