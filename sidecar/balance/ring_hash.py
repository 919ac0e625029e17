"""Ring hash: the same key goes to the same endpoint, as far as endpoints come and go and are not overloaded.

Every endpoint stands at many points of a ring of 64 bits, which depend on its address alone; a key goes to the next
point clockwise (Karger et al. 1997, and Ketama's many points). So an endpoint that comes or goes moves its own share
of the keys and no other, and every sidecar sends a key to the same place. What may not be picked now is passed over,
and so is an endpoint with more in flight than `max_load` times its share of everything in flight (Mirrokni, Thorup and
Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2016; Envoy's `hash_balance_factor`): a hot key spills over to
the next endpoints instead of drowning one.
"""

from __future__ import annotations

from bisect import bisect_left
from hashlib import blake2b
from math import gcd
from struct import Struct
from typing import TYPE_CHECKING

from sidecar.balance.picker import Picker

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sidecar.balance.picker import Balancing
    from sidecar.model.endpoint import EndpointState

__all__ = ["MAX_POINTS", "POINTS", "Ring", "RingHash"]

POINTS = 128  # of an endpoint of the lowest weight: shares are even to about a tenth
MAX_POINTS = 131072  # of the ring (1 MiB); beyond it weights count for less

_DIGEST = Struct(">8Q")  # of blake2b: eight points of eight bytes
_PER_DIGEST = 8
_INDEX_BITS = 10  # of a point, its lowest: which endpoint; 1,000 is the most that an upstream has
_INDEX_MASK = (1 << _INDEX_BITS) - 1

# In flight at one endpoint, below which it is not overloaded whatever the others have: with next to nothing to do,
# two requests of one key at a time are no reason to part them.
_NOT_HOT = 8

# Points of overloaded endpoints that are passed over before the key's own endpoint has to take it: the bound makes
# more than a few of them in a row rare, and a walk around the whole ring would cost more than it spreads.
_PATIENCE = 64


class Ring:
    """The points of some endpoints, sorted; immutable, and shared by the pickers that leave out some of them.

    points: the upper bits of a hash, and below them the index into `members`.
    """

    __slots__ = ("members", "points")

    def __init__(self, members: Sequence[EndpointState]) -> None:
        self.members = list(members)
        weights = [state.endpoint.weight for state in members]
        divisor = gcd(*weights) if weights else 1
        counts = [POINTS * weight // divisor for weight in weights]
        total = sum(counts)
        if total > MAX_POINTS:
            counts = [max(_PER_DIGEST, count * MAX_POINTS // total) for count in counts]
        points: list[int] = []
        for index, (state, count) in enumerate(zip(members, counts, strict=True)):
            points += [
                point & ~_INDEX_MASK | index for point in _points(state.endpoint.address.encode(), count)
            ]
        points.sort()
        self.points = points


def _points(address: bytes, count: int) -> list[int]:
    """The first `count` points of an endpoint, 64 bits each."""
    found: list[int] = []
    for number in range(-(-count // _PER_DIGEST)):
        found += _DIGEST.unpack(blake2b(b"%b %d" % (address, number)).digest())
    return found[:count]


class RingHash(Picker):
    """Picks by key over a `Ring`. `previous` hands over its ring while all of `endpoints` stand in it."""

    __slots__ = ("_bound", "_live", "_ring", "_stats", "_weights")

    _ring: Ring

    def __init__(
        self, endpoints: Sequence[EndpointState], previous: Picker | None, balancing: Balancing
    ) -> None:
        Picker.__init__(self, endpoints, previous, balancing)
        ring = previous._ring if isinstance(previous, RingHash) else Ring(())
        # A breaker that opens or closes leaves the ring as it is: laying it out takes time, passing over does not.
        known = {id(state): index for index, state in enumerate(ring.members)}
        if any(id(state) not in known for state in endpoints) or any(state.removed for state in ring.members):
            ring = Ring(endpoints)
            known = {id(state): index for index, state in enumerate(ring.members)}
        self._ring = ring
        self._live = bytearray(len(ring.members))
        for state in endpoints:
            self._live[known[id(state)]] = 1
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
        start = bisect_left(points, key)
        # As much as one may have in flight for each unit of weight, with what is to be placed.
        load = self._stats.in_flight + self._stats.sessions_active + 1
        room = self._bound * load / self._weights if self._weights else 0.0
        full: EndpointState | None = None
        seen = 0
        for step in range(size):
            at = start + step
            index = points[at if at < size else at - size] & _INDEX_MASK
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
