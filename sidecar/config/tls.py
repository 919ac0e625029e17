"""TLS as the configuration decides it: the layers of an upstream's `tls`, and the `tls` of a listener.

No file is opened here. Who wants to know whether they can be used asks `sidecar.tls`, and tells by `tls_place` where
in the configuration each is named.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from sidecar.config.addresses import is_address
from sidecar.config.doors import ClientTlsSettings, ServerTlsSettings
from sidecar.config.schema import Defaults, LoadBalancer
from sidecar.config.settings import PROTOCOLS
from sidecar.config.unset import UNSET, UnsetType

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sidecar.config.findings import Findings, KeyPath
    from sidecar.config.marks import Document
    from sidecar.config.policies import Layer
    from sidecar.config.schema_tls import ServerTls
    from sidecar.config.settings import UpstreamSettings

__all__ = ["client_tls", "client_tls_notes", "server_tls", "tls_place"]

_SECURE: Final = {protocol: scheme for scheme, protocol in PROTOCOLS.items() if scheme != protocol}


def client_tls(
    layers: Iterable[Layer],
    scheme: str,
    host: str | None,
    directory: str,
    document: Document,
    findings: Findings,
) -> ClientTlsSettings:
    """What holds for an upstream of `scheme`; later layers win, key by key, certificate and key as one.

    host: of a service, whose certificate stays its own when a registry gives addresses for the name; None where each
    endpoint has its own. directory: what relative file names start at.
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
        _check_pair(mine, path, document, findings)
        for key in ("ca", "cert", "key"):
            if key in mine:
                mine[key] = os.path.join(directory, str(mine[key]))
        keys |= mine
        _check_client(keys, mine, scheme, path, document, findings)
    if not secure:
        return ClientTlsSettings()
    if "server_name" not in keys and host and not is_address(host):
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
        for key in ("ca", "identity"):
            if key in keys and (key in mine or "verify" in mine):
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


def _check_pair(mine: dict[str, object], path: KeyPath, document: Document, findings: Findings) -> None:
    """A certificate and its key are of one place."""
    if "key" in mine and "cert" not in mine and not document.has((*path, "cert")):
        document.report(findings, (*path, "key"), "needs the certificate that it belongs to; add cert")
    if "cert" in mine and "key" not in mine and not document.has((*path, "key")):
        advice = "add key (the same file, if it holds both)"
        document.report(findings, (*path, "cert"), f"needs its private key; {advice}")


def server_tls(
    given: ServerTls | UnsetType, path: KeyPath, directory: str, document: Document, findings: Findings
) -> ServerTlsSettings:
    """The `tls` of a listener, which stands at `path`; in the clear where there is none."""
    if isinstance(given, UnsetType):
        return ServerTlsSettings()
    keys: dict[str, object] = {key: value for key, value in vars(given).items() if value is not UNSET}
    _check_pair(keys, path, document, findings)
    if not {"cert", "key"} & keys.keys() and not document.has((*path, "cert")):
        document.report(findings, path, "has no certificate to show to clients; add cert and key")
    if "identity" in keys and "client_ca" not in keys:
        problem = "is of certificates that clients are not asked for; add client_ca"
        document.report(findings, (*path, "identity"), problem)
    for key in ("cert", "key", "client_ca"):
        if key in keys:
            keys[key] = os.path.join(directory, str(keys[key]))
    return ServerTlsSettings(**keys)  # type: ignore[arg-type] # the schema has read each as what it is


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
