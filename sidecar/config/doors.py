"""What stands before upstreams and listeners, as the configuration decides it: TLS, header rules, routes, limits.

Part of `settings`. Paths are resolved; secrets are in no setting.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = [
    "ClientTlsSettings",
    "HeaderEdits",
    "HeaderSettings",
    "ListenerSettings",
    "MeshSettings",
    "MirrorSettings",
    "RateSettings",
    "RouteSettings",
    "ServerTlsSettings",
]


@dataclass(frozen=True, slots=True)
class ClientTlsSettings:
    """How endpoints of an https, rediss or tls upstream are spoken to.

    ca: a file of certificates to trust; empty for the system's. cert, key: files to show to an endpoint that asks;
    empty for none. server_name: for SNI, and what the certificate has to be of; empty for the endpoint's host.
    verify: False takes any certificate. min_version: `1.2` or `1.3`. alpn: protocols to offer; empty is `http/1.1` for
    http and none else. identity: SANs (`spiffe://...` or DNS names) of which the certificate must have one, in place
    of the host name.
    """

    ca: str = ""
    cert: str = ""
    key: str = ""
    server_name: str = ""
    verify: bool = True
    min_version: str = "1.2"
    alpn: tuple[str, ...] = ()
    identity: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServerTlsSettings:
    """How applications speak to a listener. cert: empty for in the clear.

    client_ca: a file of certificates; clients must show one that is signed by it. identity: SANs of which it must have
    one; empty for any.
    """

    cert: str = ""
    key: str = ""
    client_ca: str = ""
    min_version: str = "1.2"
    identity: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """What is true of the listener of one upstream.

    socket: path of a unix domain socket that it listens on too, or `@name`; empty for none. mode: of that file.
    accept_proxy, socket_accept_proxy: connections to the port, to the socket begin with a PROXY header (version 1, 2).
    port_tls, socket_tls: whether `tls` is of those to the port, to the socket.
    """

    socket: str = ""
    mode: int = 0o660
    accept_proxy: bool = False
    socket_accept_proxy: bool = False
    port_tls: bool = False
    socket_tls: bool = False
    tls: ServerTlsSettings = field(default_factory=ServerTlsSettings)


@dataclass(frozen=True, slots=True)
class HeaderEdits:
    """(name, value) of fields to set (all others of the name go) and to add; names of those to remove."""

    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HeaderSettings:
    """Header rules of an upstream. bearer_env, bearer_file: of a token that requests carry in `Authorization`."""

    request: HeaderEdits = field(default_factory=HeaderEdits)
    response: HeaderEdits = field(default_factory=HeaderEdits)
    bearer_env: str = ""
    bearer_file: str = ""


@dataclass(frozen=True, slots=True)
class RateSettings:
    """Requests (or sessions) in `per` seconds, and at once; 0 requests is no limit."""

    requests: int = 0
    per: float = 1.0
    burst: int = 0


@dataclass(frozen=True, slots=True)
class MirrorSettings:
    """The upstream that gets copies, empty for none, and of what share of the requests, 0 to 1.

    max_in_flight: copies that are under way at once; beyond it none are made.
    """

    to: str = ""
    share: float = 1.0
    max_in_flight: int = 64


@dataclass(frozen=True, slots=True)
class MeshSettings:
    """`kubernetes.service_mesh`: what `sidecar export` tells a mesh in the place of the upstreams' own policies.

    enabled: it does. kind: `istio` or `linkerd`; empty where the file has no such section. load_balancer: one of the
    strategies; empty for each upstream's own. consecutive_errors, interval, base_ejection_time (seconds),
    max_ejection_percent: of an endpoint that is left alone; 0 for each upstream's own, or the mesh's.
    """

    enabled: bool = False
    kind: str = ""
    load_balancer: str = ""
    consecutive_errors: int = 0
    interval: float = 0.0
    base_ejection_time: float = 0.0
    max_ejection_percent: int = 0


@dataclass(frozen=True, slots=True)
class RouteSettings:
    """One route of a router; the first that fits is the one.

    host: of the Host field, in lower case and without port, `*.example.org` for any below; empty for any. path: a
    prefix of whole segments. methods: empty for any. headers: (name in lower case, value) of fields that must be there.
    to: (upstream, weight), several share the requests by weight.
    """

    to: tuple[tuple[str, int], ...]
    host: str = ""
    path: str = "/"
    methods: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
