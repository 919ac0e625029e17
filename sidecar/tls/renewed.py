"""What is made of certificates and keys, and made anew when their files change: a `rotation.Rotating`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from sidecar.model import UpstreamStats
from sidecar.tls.failures import FailureLog
from sidecar.tls.why import TLS_OUTCOMES

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Hashable, Iterable

    from sidecar.model import Outcome
    from sidecar.tls.contexts import Made

__all__ = ["ENDPOINT", "LISTENER", "Renewed"]

ENDPOINT, LISTENER = 0, 1  # sides: positions in `UpstreamStats.tls_failures` and the like


class Renewed(ABC):
    """Of one side of one upstream. It can be used once `take` has been given what `load` has made.

    name, files, loads, failures: see `rotation.Rotating`. stats: where it counts; `count_in` says which.
    """

    def __init__(self, name: str, side: int, files: Iterable[str], monotonic: Callable[[], float]) -> None:
        self.name = name
        self.files = tuple(file for file in files if file)
        self.stats = UpstreamStats()
        self._side = side
        self._log = FailureLog(monotonic)
        self._made: Made | None = None

    @abstractmethod
    def load(self) -> Made:
        """The files as they are now, in a thread. Raises TlsFileError."""

    def take(self, made: Made) -> None:
        """Go by `made` with the next connection; those that are open go on."""
        self._made = made
        self.stats.tls_expiry[self._side] = made.expires

    def count_in(self, stats: UpstreamStats) -> None:
        """Count there from now on: an upstream's statistics outlive its settings."""
        self.stats = stats
        stats.tls_expiry[self._side] = 0.0 if self._made is None else self._made.expires

    @property
    def made(self) -> Made:
        """What was taken last."""
        assert self._made is not None, "nothing has been loaded yet"
        return self._made

    @property
    def context(self) -> ssl.SSLContext:
        """The present one."""
        return self.made.context

    @property
    def loads(self) -> int:
        return self._counted(0)

    @loads.setter
    def loads(self, count: int) -> None:
        self.stats.tls_reloads[self._side][0] = count

    @property
    def failures(self) -> int:
        return self._counted(1)

    @failures.setter
    def failures(self, count: int) -> None:
        self.stats.tls_reloads[self._side][1] = count

    def _counted(self, result: int) -> int:
        count: int = self.stats.tls_reloads[self._side][result]
        return count

    def _note(self, outcome: Outcome, who: Hashable) -> int | None:
        """A handshake has failed: counted, and None where it is not to be told; see `FailureLog.due`."""
        self.stats.tls_failures[self._side][TLS_OUTCOMES.index(outcome)] += 1
        return self._log.due((who, outcome))
