"""Who an endpoint or a client has to be: what is asked for by name, and which of a certificate's names decide."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

from sidecar.config.addresses import is_address

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["IdentityError", "check_identity", "expected_name", "names_of"]

_SPIFFE = "spiffe://"


class IdentityError(ssl.SSLError):
    """A certificate is signed by who is trusted, and is somebody else's. certificate: as `getpeercert` has it."""

    def __init__(self, problem: str, certificate: Mapping[str, Any]) -> None:
        super().__init__(1, problem)
        self.certificate = certificate


def expected_name(server_name: str, host: str) -> str:
    """What is asked for by SNI, where it is a name (RFC 6066 section 3), and what the certificate has to be of.

    A dot at the end is no part of either, nor is the zone of a link-local address (RFC 4007 section 11). What is
    reached by a path is `localhost`, as it is to nginx (`proxy_ssl_name` of `proxy_pass https://unix:...`).
    """
    name = server_name or ("localhost" if host.startswith("unix:") else host)
    return name.partition("%")[0] if is_address(name) else name.rstrip(".")


def check_identity(tls: ssl.SSLObject, wanted: Iterable[str]) -> None:
    """Whether the peer of a verified handshake is one of `wanted`, SPIFFE IDs or DNS names. Raises IdentityError.

    Of URIs an X.509-SVID has exactly one:
    https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md sections 2 and 5.2.
    """
    found: Mapping[str, Any] = tls.getpeercert() or {}
    uris, names = names_of(found, "URI"), [name.lower() for name in names_of(found, "DNS")]
    for one in wanted:
        if one.startswith(_SPIFFE):
            if uris == [one]:
                return
        elif any(_fits(name, one) for name in names):
            return
    problem = "its certificate is none of tls.identity"
    if len(uris) > 1:
        problem = f"its certificate has {len(uris)} URIs, and so is no SPIFFE identity"
    raise IdentityError(problem, found)


def names_of(certificate: Mapping[str, Any], kind: str = "") -> list[str]:
    """Subject alternative names of one kind, or of those that say who somebody is."""
    kinds = (kind,) if kind else ("URI", "DNS", "IP Address")
    return [name for what, name in certificate.get("subjectAltName", ()) if what in kinds]


def _fits(pattern: str, name: str) -> bool:
    """Whether a certificate of `pattern` is one of `name`; `*` is the first label, and all of it (RFC 9525 6.3)."""
    return pattern == name or (pattern.startswith("*.") and pattern[2:] == name.partition(".")[2])
