"""What holds of endpoints beyond the life of a worker: what is told to those that come.

The last move of each breaker, and what was done by hand and not undone. Each ends with its endpoint.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sidecar.resilience import BreakerState
from sidecar.workers.wire import Order

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sidecar.cluster import Cluster
    from sidecar.workers.wire import Move

__all__ = ["Standing"]

_Key = tuple[str, str, int]  # upstream, host and port


class Standing:
    """Of all endpoints. moves: the last of each. tripped, drained: by hand, and when, and not undone since."""

    __slots__ = ("drained", "moves", "tripped")

    def __init__(self) -> None:
        self.moves: dict[_Key, Move] = {}
        self.tripped: dict[_Key, float] = {}
        self.drained: dict[_Key, float] = {}

    def note(self, move: Move) -> None:
        """A worker's breaker has moved; of two that did the later one counts."""
        key = (move.upstream, move.host, move.port)
        last = self.moves.get(key)
        if last is None or move.at >= last.at:
            self.moves[key] = move

    def do(self, action: str, key: _Key, now: float) -> None:
        """Somebody has had `action` done to an endpoint, see `control.ACTIONS`."""
        if action == "trip":
            self.tripped[key] = now
        elif action == "reset":
            self.tripped.pop(key, None)
            self.moves.pop(key, None)  # what opened it before is not to be told to anybody any more
        elif action == "drain":
            self.drained[key] = now
        else:
            self.drained.pop(key, None)

    def moves_for(self, checked: Iterable[str]) -> list[Move]:
        """What a new worker is to know of breakers. checked: upstreams whose endpoints it will check.

        An endpoint whose probe is out is open to it: nothing goes there until that has had its time. One that checks
        hold open is held open until its own do not: but where none are made, they never would.
        """
        known = set(checked)
        return [
            replace(move, to=BreakerState.OPEN, failing=move.failing and move.upstream in known)
            for move in self.moves.values()
            if move.to is not BreakerState.CLOSED
        ]

    def orders(self) -> list[Order]:
        """What was done by hand, together as it was asked for."""
        found: dict[tuple[str, float, str], list[tuple[str, int]]] = {}
        for action, kept in (("trip", self.tripped), ("drain", self.drained)):
            for (name, host, port), at in kept.items():
                found.setdefault((action, at, name), []).append((host, port))
        return [Order(*asked, tuple(endpoints)) for asked, endpoints in found.items()]

    def show(self, clusters: Mapping[str, Cluster]) -> None:
        """Have the endpoints of `clusters` say that they are drained."""
        for name, host, port in self.drained:
            state = clusters[name].endpoints.get((host, port)) if name in clusters else None
            if state is not None:
                state.drained = True

    def forget_gone(self, clusters: Mapping[str, Cluster], name: str | None = None) -> None:
        """Drop what is known of endpoints that are not there any more, of the upstream `name` or of all."""
        for known in (self.moves, self.tripped, self.drained):
            for key in [key for key in known if name is None or key[0] == name]:
                cluster = clusters.get(key[0])
                if cluster is None or key[1:] not in cluster.endpoints:
                    del known[key]
