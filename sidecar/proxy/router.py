"""Which upstream a request of a shared listener goes to.

    request ─► first route that fits ─► one of its upstreams, by weight ─► `DownstreamConnection.take`
         └───► none: it stays with the listener's own cluster, whose answer is 404 `no_route`

The target is looked at as it came, byte for byte, up to its query: nothing is decoded, and neither `//` nor `/../` nor
`%2e` means anything here, since what goes on to the endpoint is not changed either. So what a path means may be
understood otherwise by who gets it, and a route keeps nobody out of anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from sidecar.cluster import Cluster
    from sidecar.http1.message import RequestHead
    from sidecar.proxy.downstream import DownstreamConnection

__all__ = ["Route", "Router", "Routes"]

_QUERY = 63  # ?
_SLASH = 47


class Router(Protocol):
    """The routes of one listener, whose own cluster has no endpoints: what fits none of them stays there."""

    routes: list[Route]

    def direct(self, client: DownstreamConnection, head: RequestHead) -> None:
        """Have `client` take the cluster, and an exchange of that, for the request with `head`."""


class Route:
    """One route: what has to be true of a request, and where it goes then.

    host: in lower case, as `authority_host` gives it; one that begins with `*` is any below what follows. Empty is any.
    path: what the target begins with, whole segments of it; `/` is any, also `*` of OPTIONS.
    methods: indices into `METHODS`; empty is any. fields: (name in lower case, value) that the first field of that name
    has. targets: (cluster, weight), of which at least one weighs something.
    """

    __slots__ = (
        "_below",
        "_host",
        "_prefix",
        "_targets",
        "_total",
        "fields",
        "host",
        "methods",
        "path",
        "position",
        "targets",
    )

    def __init__(
        self,
        position: int,
        targets: Sequence[tuple[Cluster, int]],
        host: bytes = b"",
        path: bytes = b"/",
        methods: Collection[int] = (),
        fields: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        self.position = position
        self.targets = tuple(targets)
        self.host = host
        self.path = path
        self.methods = frozenset(methods)
        self.fields = tuple(fields)
        self._below = host.startswith(b"*.")
        self._host = host.removeprefix(b"*")
        self._prefix = path.rstrip(b"/")
        # Those that weigh something, each with the sum up to and with its weight.
        self._targets: list[tuple[int, Cluster]] = []
        self._total = 0
        for cluster, weight in self.targets:
            if weight:
                self._total += weight
                self._targets.append((self._total, cluster))

    def fits(self, head: RequestHead, host: bytes) -> bool:
        """Whether it is the route of a request. host: of it, where any route looks at that."""
        prefix = self._prefix
        if prefix:
            target = head.target
            size = len(prefix)
            if not target.startswith(prefix):
                return False
            if len(target) > size and target[size] != _SLASH and target[size] != _QUERY:
                return False
        if self._host:
            if self._below:
                if not host.endswith(self._host) or len(host) == len(self._host):
                    return False
            elif host != self._host:
                return False
        if self.methods and head.method not in self.methods:
            return False
        for name, value in self.fields:  # noqa: SIM110 - a generator is nothing that Cython makes a C function of
            if head.field(name) != value:
                return False
        return True

    def choose(self, uniform: Callable[[], float]) -> Cluster:
        """Where the next request goes, by chance and weight."""
        targets = self._targets
        if len(targets) > 1:
            point = uniform() * self._total
            for bound, cluster in targets:
                if point < bound:
                    return cluster
        return targets[-1][1]


class Routes:
    """The router of the cluster `home`, whose statistics count where its requests have gone.

    uniform: a float in [0, 1), from the clock.
    """

    __slots__ = ("_counts", "_looks_at_host", "_uniform", "routes")

    def __init__(self, home: Cluster, routes: Sequence[Route], uniform: Callable[[], float]) -> None:
        self.routes = list(routes)
        self._uniform = uniform
        self._looks_at_host = any(route.host for route in routes)
        before = home.stats.routed
        keys = [(route.position, cluster.name) for route in routes for cluster, _ in route.targets]
        self._counts = home.stats.routed = {key: before.get(key, 0) for key in keys}

    def direct(self, client: DownstreamConnection, head: RequestHead) -> None:
        """See `Router.direct`."""
        host = authority_host(head.field(b"host")) if self._looks_at_host else b""
        for route in self.routes:
            if route.fits(head, host):
                cluster = route.choose(self._uniform)
                self._counts[route.position, cluster.name] += 1
                client.take(cluster)
                return


def authority_host(authority: bytes | None) -> bytes:
    """The host of a Host field in lower case, without port and without the dot that a full name may end in."""
    if not authority:
        return b""
    if authority.startswith(b"["):
        return authority[: authority.find(b"]") + 1].lower()
    return authority.partition(b":")[0].lower().removesuffix(b".")
