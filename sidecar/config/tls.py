"""TLS to endpoints as the configuration decides it: the layers of an upstream's `tls`.

No file is opened here. Who wants to know whether they can be used asks `sidecar.tls`, and tells by `tls_place` where
in the configuration each is named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sidecar.config.addresses import is_address
from sidecar.config.doors import ClientTlsSettings
from sidecar.config.schema import Defaults, LoadBalancer
from sidecar.config.schema_tls import beside, check_pair
from sidecar.config.settings import PROTOCOLS
from sidecar.config.unset import UNSET, UnsetType

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sidecar.config.findings import Findings, KeyPath
    from sidecar.config.marks import Document
    from sidecar.config.policies import Layer
    from sidecar.config.settings import UpstreamSettings

__all__ = ["client_tls", "client_tls_notes", "tls_place"]

_TRUST: Final = ("ca", "identity")  # keys that mean nothing without `verify`
_SECURE: Final = {protocol: scheme for scheme, protocol in PROTOCOLS.items() if scheme != protocol}


def client_tls(
    layers: Iterable[Layer],
    scheme: str,
    host: str | None,
    document: Document,
    findings: Findings,
) -> ClientTlsSettings:
    """What holds for an upstream of `scheme`; later layers win, key by key, certificate and key as one.

    host: of a service, whose certificate stays its own when a registry gives addresses for the name; None where each
    endpoint has its own.
    """
    secure = scheme != PROTOCOLS[scheme]
    keys: dict[str, object] = {}
    for layer in layers:
        given = layer.keys.tls
        if isinstance(given, UnsetType):
            continue
        shared = isinstance(layer.keys, Defaults) and not isinstance(layer.keys, LoadBalancer)
        path = (*layer.path, "tls")
        if not secure:
            if not shared:
                advice = f"write scheme: {_SECURE[scheme]}, or remove it"
                document.report(
                    findings, path, f"means nothing for {scheme}, which is in the clear; {advice}"
                )
            continue
        mine = {key: value for key, value in vars(given).items() if value is not UNSET}
        check_pair(mine, path, document, findings)
        if mine.get("verify") is False:  # who is not verified needs nothing of what those before trust
            keys = {key: value for key, value in keys.items() if key not in _TRUST}
        keys |= beside(document, mine)
        _check_client(keys, mine, scheme, path, document, findings)
    if not secure:
        return ClientTlsSettings()
    if "server_name" not in keys and host and not is_address(host) and not host.startswith("unix:"):
        keys["server_name"] = host
    return ClientTlsSettings(**keys)  # type: ignore[arg-type] # the schema has read each as what it is


def _check_client(
    keys: dict[str, object],
    mine: dict[str, object],
    scheme: str,
    path: KeyPath,
    document: Document,
    findings: Findings,
) -> None:
    """Find what contradicts each other in a layer, and in what it makes of those before."""
    if keys.get("verify") is False:
        for key in _TRUST:
            if key in mine:
                place = (*path, "verify" if "verify" in mine else key)
                problem = (
                    f"verify: false takes any certificate, so that {key} means nothing; keep one of the two"
                )
                document.report(findings, place, problem)
    alpn = mine.get("alpn", ())
    assert isinstance(alpn, tuple)
    if PROTOCOLS[scheme] == "http" and not set(alpn) <= {"http/1.1", "http/1.0"}:
        problem = "names a protocol that is not spoken to endpoints of https; only http/1.1 is, which is the default"
        document.report(findings, (*path, "alpn"), f"{problem}; remove it")


def client_tls_notes(upstreams: Iterable[UpstreamSettings]) -> list[str]:
    """What whoever starts it ought to know."""
    return [
        f"{one.name}: certificates are not verified (tls.verify: false), so that anybody may pose as its endpoints"
        for one in upstreams
        if one.secure and not one.policy.tls.verify
    ]


def tls_place(document: Document, upstream: UpstreamSettings, side: str, key: str) -> KeyPath:
    """Where a configuration says `key` of an upstream's TLS. side: `endpoint` or `listener`."""
    if side == "listener":
        return ("sidecar", "ports", str(upstream.listen_port), "tls", key)
    for section in ("services", "load_balancers"):
        own: KeyPath = (section, upstream.name, "tls", key)
        if document.has(own):
            return own
    return ("defaults", "tls", key)
