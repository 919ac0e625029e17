"""The readings that the history of several workers is made of: each tells its own, and their sum is the whole's.

What `values` holds would do, but most of that is endpoints: of 500 upstreams with 20 each, asking two workers every
five seconds took 9 % of a core while nothing happened, and takes 0.4 % like this.
"""

from __future__ import annotations

import asyncio
from array import array
from typing import TYPE_CHECKING, Any

from sidecar.observe.readings import SIZE, read

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from sidecar.cluster import Cluster
    from sidecar.workers.channel import Message
    from sidecar.workers.process import WorkerProcess

__all__ = ["SummedReadings", "ToldReadings"]

PART = 100  # upstreams of one message, each up to 10 µs to read and to write down


class ToldReadings:
    """A worker's side: what it has told of each upstream. send: to the supervisor."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        self._send = send
        self._told: dict[str, array[int]] = {}

    def tell(self, clusters: Mapping[str, Cluster]) -> None:
        """Tell what has changed, in parts, one in each turn of the loop; the last says that it is."""
        _keep(self._told, clusters)
        self._tell_part(list(clusters.values()), 0)

    def _tell_part(self, clusters: list[Cluster], first: int) -> None:
        changed: dict[str, list[int]] = {}
        for cluster in clusters[first : first + PART]:
            before = self._told.get(cluster.name)
            found = read(cluster, before)
            if found is not before:
                self._told[cluster.name] = found
                changed[cluster.name] = found.tolist()
        more = first + PART < len(clusters)
        self._send({"kind": "readings", "readings": changed, "more": more})
        if more:
            asyncio.get_running_loop().call_soon(self._tell_part, clusters, first + PART)


class SummedReadings:
    """The supervisor's side. Readings of dead workers stay in the sums, so that these never go down."""

    def __init__(self) -> None:
        self._past: dict[str, list[int]] = {}
        self._sums: dict[str, array[int]] = {}
        self._changed: set[str] = set()

    def read(self, cluster: Cluster, before: array[int] | None = None) -> array[int]:
        """As `observe.readings.read`, of all workers by what they have told last."""
        found = self._sums.get(cluster.name)
        if found is None:
            found = array("q", bytes(8 * SIZE))
        return before if before == found else found

    def add_up(self, workers: Iterable[WorkerProcess], names: Collection[str]) -> None:
        """Bring up to date what `workers`, all that have not ended, have told of. names: of the upstreams there are."""
        workers = tuple(workers)
        _keep(self._past, names)
        _keep(self._sums, names)
        for worker in workers:
            _keep(worker.readings, names)
            self._changed |= worker.reread
            worker.reread.clear()
        changed, self._changed = self._changed, set()
        for name in changed:
            if name in names:
                parts = [worker.readings[name] for worker in workers if name in worker.readings]
                past = self._past.get(name)
                sums = zip(*parts, *([past] if past else []), strict=True)
                self._sums[name] = array("q", map(sum, sums))

    def bury(self, worker: WorkerProcess) -> None:
        """Keep what a worker that has ended had told."""
        for name, counts in worker.readings.items():
            past = self._past.get(name)
            self._past[name] = counts if past is None else [*map(sum, zip(past, counts, strict=True))]
        self._changed |= worker.reread


def _keep(known: dict[str, Any], names: Collection[str]) -> None:
    for name in [name for name in known if name not in names]:
        del known[name]
