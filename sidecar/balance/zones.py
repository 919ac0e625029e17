"""Zone preference: the own zone first, and the others for what it cannot carry.

A request that stays in its zone is quicker and costs nothing; a zone that has lost endpoints must not be crushed for
it. So the own zone gets all while enough of its endpoints may be picked, and less in proportion below that: 1.4 times
the share that may be picked, Envoy's overprovisioning factor, which lets a zone of ten lose two before anything spills.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.balance.picker import Picker

if TYPE_CHECKING:
    from collections.abc import Collection

    from sidecar.balance.picker import Balancing
    from sidecar.model.endpoint import EndpointState

__all__ = ["OVERPROVISIONING", "ZonePreference", "own_share"]

OVERPROVISIONING = 1.4

_SPREAD = 0x9E3779B9  # 2**32 over the golden ratio: Fibonacci hashing


def own_share(usable: int, known: int) -> float:
    """The share of requests that stays in the own zone, `usable` of whose `known` endpoints may be picked."""
    return min(1.0, OVERPROVISIONING * usable / known) if known else 0.0


class ZonePreference(Picker):
    """Gives `share` of the picks to the picker `own`, the rest to `others`.

    Evenly spread, not by chance; or by key (hashes), so that a key stays on its side. `previous` hands over what is
    owed: rebuilt again and again, a small share would otherwise never have its turn.
    """

    __slots__ = ("_hashes", "_owed", "_share", "others", "own")

    def __init__(
        self,
        own: Picker,
        others: Picker,
        share: float,
        balancing: Balancing,
        *,
        hashes: bool = False,
        previous: Picker | None = None,
    ) -> None:
        Picker.__init__(self, [*own.endpoints, *others.endpoints], None, balancing)
        self.own = own
        self.others = others
        self.observes = own.observes
        self._share = share
        self._hashes = hashes
        # Of a pick, to the own zone.
        self._owed: float = previous._owed if isinstance(previous, ZonePreference) else 0.5

    def pick(self, key: int, now: float) -> EndpointState | None:
        """One of the own zone, or of the others when it is their turn."""
        return self.own.pick(key, now) if self._is_own(key) else self.others.pick(key, now)

    def pick_untried(self, key: int, now: float, tried: Collection[EndpointState]) -> EndpointState | None:
        """One that is not in `tried`, of whose turn it is if it has one."""
        first, second = (self.own, self.others) if self._is_own(key) else (self.others, self.own)
        picked = first.pick_untried(key, now, tried)
        if picked is None or picked in tried:
            other = second.pick_untried(key, now, tried)
            if other is not None and other not in tried:
                return other
        return picked

    def peek(self) -> EndpointState | None:
        """Of whose turn it is; with keys nobody can tell."""
        if self._hashes:
            return None
        return (self.own if self._owed + self._share >= 1.0 else self.others).peek()

    def _is_own(self, key: int) -> bool:
        if self._hashes:  # by bits that say little of its place on the ring
            return (key * _SPREAD >> 40 & 0xFFFFFF) < self._share * 0x1000000
        self._owed += self._share
        if self._owed < 1.0:
            return False
        self._owed -= 1.0
        return True

    def observe(self, state: EndpointState, seconds: float, failed: bool, now: float) -> None:
        """Whichever picker it is of: what is learnt is the endpoint's."""
        self.own.observe(state, seconds, failed, now)
