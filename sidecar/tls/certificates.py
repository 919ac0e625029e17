"""The TLS of all upstreams and listeners, from one configuration to the next.

What has not changed stays the very same object, and goes on with what it has loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from sidecar.errors import StartError
from sidecar.tls.client import ClientTls
from sidecar.tls.contexts import TlsFileError
from sidecar.tls.server import ServerTls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from sidecar.cluster import Cluster
    from sidecar.config.settings import Settings, UpstreamSettings
    from sidecar.tls.renewed import Renewed

__all__ = ["Certificates", "findings", "wanted"]

_T = TypeVar("_T", ClientTls, ServerTls)


class Certificates:
    """Of one process.

    note: called with what is about to be loaded, so that a change of its files meanwhile is noticed.
    """

    def __init__(self, monotonic: Callable[[], float], note: Callable[[Renewed], None]) -> None:
        self._monotonic = monotonic
        self._note = note
        self._clients: dict[str, ClientTls] = {}
        self._servers: dict[str, ServerTls] = {}
        self._next: tuple[dict[str, ClientTls], dict[str, ServerTls]] = ({}, {})

    def prepare(self, settings: Settings) -> None:
        """Load what is new in `settings`; in a thread. Raises StartError, and nothing has changed then."""
        clients: dict[str, ClientTls] = {}
        servers: dict[str, ServerTls] = {}
        # Contexts of no file of ours hold all authorities of the system, 0.8 MB each: those that are alike are one.
        shared = {one.alike: one.made for one in self._clients.values() if not one.files}
        for one in wanted(settings.upstreams, self._monotonic):
            if isinstance(one, ClientTls):
                known = self._clients.get(one.upstream)
                if known is not None and _alike(known, one):
                    clients[one.upstream] = known
                    continue
                if not one.files and one.alike in shared:
                    one.take(shared[one.alike])
                else:
                    self._load(one)
                if not one.files:
                    shared[one.alike] = one.made
                clients[one.upstream] = one
            else:
                there = self._servers.get(one.upstream)
                servers[one.upstream] = there if there is not None and _alike(there, one) else self._load(one)
        self._next = (clients, servers)

    def _load(self, one: _T) -> _T:
        self._note(one)
        try:
            one.take(one.load())
        except TlsFileError as error:
            raise StartError(f"{one.upstream}: {error}") from None
        return one

    def follow(self, clusters: Mapping[str, Cluster]) -> None:
        """Go by what was prepared last.

        Where settings have changed, idle connections that were made by those before are closed: whoever trusts
        somebody no longer does not want to meet him again. Busy ones finish, and may be used again.
        """
        self._clients, self._servers = self._next
        for name, cluster in clusters.items():
            if not cluster.leaving:
                cluster.stats.tls_expiry[:] = (0.0, 0.0)
                before, cluster.tls = cluster.tls, self._clients.get(name)
                if before is not cluster.tls:
                    for state in cluster.endpoints.values():
                        state.pool.close_idle()
                for one in (self._clients.get(name), self._servers.get(name)):
                    if one is not None:
                        one.count_in(cluster.stats)

    def server_tls(self, name: str) -> ServerTls | None:
        """That of an upstream's listener; None in the clear."""
        return self._servers.get(name)

    def rotating(self) -> list[Renewed]:
        """What is made of files."""
        return [*self._clients.values(), *self._servers.values()]


def wanted(
    upstreams: Iterable[UpstreamSettings], monotonic: Callable[[], float]
) -> Iterator[ClientTls | ServerTls]:
    """All that `upstreams` ask for, nothing of it loaded."""
    for upstream in upstreams:
        if upstream.secure:
            yield ClientTls(upstream.name, upstream.policy.tls, upstream.protocol, monotonic)
        if upstream.listener.tls.cert:
            yield ServerTls(upstream.name, upstream.listener.tls, upstream.protocol, monotonic)


def findings(upstreams: Iterable[UpstreamSettings]) -> Iterator[tuple[UpstreamSettings, str, str, str]]:
    """Files that cannot be used: (upstream, `endpoint` or `listener`, key of `tls`, what is wrong and what to do)."""
    by_name = {upstream.name: upstream for upstream in upstreams}
    for one in wanted(by_name.values(), lambda: 0.0):
        try:
            one.load()
        except TlsFileError as error:
            side = "endpoint" if isinstance(one, ClientTls) else "listener"
            yield by_name[one.upstream], side, error.key, error.problem


def _alike(known: ClientTls | ServerTls, one: ClientTls | ServerTls) -> bool:
    return (known.settings, known.protocol) == (one.settings, one.protocol)
