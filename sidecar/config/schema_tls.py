"""`tls` of upstreams and of listeners: their keys, what single values of them may be, and what both have to have.

Part of `schema`.
"""

# Annotations are read at run time by the decoder, so they must not be postponed to strings.
import os
import re
from abc import ABC, abstractmethod
from typing import Annotated, Final

from sidecar.config.addresses import is_address, parse_host
from sidecar.config.check_rules import FileName
from sidecar.config.doors import ServerTlsSettings
from sidecar.config.findings import Findings, KeyPath, shown
from sidecar.config.marks import Document
from sidecar.config.record import Record
from sidecar.config.rules import Flag, HostName, Unusable, described, text_of
from sidecar.config.unset import UNSET, UnsetType

__all__ = ["ClientTls", "Identities", "Protocols", "ServerTls", "Words", "beside", "check_pair", "server_tls"]

# Trust domain, then segments none of which is `.` or `..`:
# https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md sections 2.1 to 2.3.
_SPIFFE: Final = r"spiffe://[a-z0-9._-]{1,255}(?:/(?!\.\.?(?:/|\Z))[A-Za-z0-9._-]+)*"
_LONGEST: Final = 2048  # bytes of a SPIFFE ID, section 2.3
# RFC 7301 section 3.1 has 1 to 255 bytes; registered names are visible ASCII, and a comma would part two of them.
_PROTOCOL: Final = r"[!-+.-~-]{1,255}"


class Words(Record, ABC):
    """One word, or a list of up to 16, each once: nobody has more names, or speaks more protocols."""

    def read(self, value: object, written: str) -> tuple[str, ...]:
        if isinstance(value, str):
            return self.from_text(value)
        if not isinstance(value, list) or not value:
            what = "an empty list" if value == [] else described(value, written)
            raise Unusable(f"must be text or a list of it, not {what}; write for example {self.example}")
        if len(value) > 16:
            raise Unusable(f"has {len(value)} entries; 16 is the most")
        return tuple(dict.fromkeys(self.accept(text_of(item, str(item))) for item in value))

    def from_text(self, text: str) -> tuple[str, ...]:
        return (self.accept(text),)

    @property
    @abstractmethod
    def example(self) -> str:
        """For a message."""

    @abstractmethod
    def accept(self, text: str) -> str:
        """`text` when it is acceptable. Raises `Unusable`."""


class Identities(Words):
    """Subject alternative names: SPIFFE IDs or DNS names."""

    @property
    def example(self) -> str:
        return "[spiffe://example.org/api]"

    def accept(self, text: str) -> str:
        if re.fullmatch(_SPIFFE, text, re.ASCII) and len(text) <= _LONGEST:
            return text
        if "/" not in text and not is_address(text):
            try:
                return parse_host(text).lower().rstrip(".")
            except ValueError:
                pass
        advice = "write a SPIFFE ID such as spiffe://example.org/api, or a DNS name"
        raise Unusable(f"{shown(text)} is no identity; {advice}")


class Protocols(Words):
    """Names of protocols as ALPN has them."""

    @property
    def example(self) -> str:
        return "[http/1.1]"

    def accept(self, text: str) -> str:
        if re.fullmatch(_PROTOCOL, text, re.ASCII):
            return text
        raise Unusable(f"{shown(text)} is no name of a protocol; write for example http/1.1")


class TlsVersion(Record):
    """The least version; YAML reads 1.2 as a number."""

    def read(self, value: object, written: str) -> str:
        if isinstance(value, float):
            return self.from_text(written)
        return self.from_text(text_of(value, written))

    def from_text(self, text: str) -> str:
        if text in ("1.2", "1.3"):  # RFC 8996 has done away with those before
            return text
        raise Unusable(f"{shown(text)} is no version that is spoken; use 1.2 or 1.3")


class ClientTls(Record):
    """`tls` of a service, a load balancer or `defaults`."""

    ca: Annotated[str | UnsetType, FileName()] = UNSET
    cert: Annotated[str | UnsetType, FileName()] = UNSET
    key: Annotated[str | UnsetType, FileName()] = UNSET
    server_name: Annotated[str | UnsetType, HostName()] = UNSET
    verify: Annotated[bool | UnsetType, Flag()] = UNSET
    min_version: Annotated[str | UnsetType, TlsVersion()] = UNSET
    alpn: Annotated[tuple[str, ...] | UnsetType, Protocols()] = UNSET
    identity: Annotated[tuple[str, ...] | UnsetType, Identities()] = UNSET


class ServerTls(Record):
    """`tls` of a listener."""

    cert: Annotated[str | UnsetType, FileName()] = UNSET
    key: Annotated[str | UnsetType, FileName()] = UNSET
    client_ca: Annotated[str | UnsetType, FileName()] = UNSET
    min_version: Annotated[str | UnsetType, TlsVersion()] = UNSET
    identity: Annotated[tuple[str, ...] | UnsetType, Identities()] = UNSET


def server_tls(
    given: ServerTls | UnsetType, path: KeyPath, document: Document, findings: Findings
) -> ServerTlsSettings:
    """The `tls` of a listener, which stands at `path`; in the clear where there is none."""
    if isinstance(given, UnsetType):
        return ServerTlsSettings()
    keys: dict[str, object] = {key: value for key, value in vars(given).items() if value is not UNSET}
    check_pair(keys, path, document, findings)
    if not {"cert", "key"} & keys.keys() and not document.has((*path, "cert")):
        document.report(findings, path, "has no certificate to show to clients; add cert and key")
    if "identity" in keys and "client_ca" not in keys:
        problem = "is of certificates that clients are not asked for; add client_ca"
        document.report(findings, (*path, "identity"), problem)
    return ServerTlsSettings(**beside(document, keys))  # type: ignore[arg-type] # the schema has read each as what it is


def check_pair(mine: dict[str, object], path: KeyPath, document: Document, findings: Findings) -> None:
    """Find a certificate without its key, and the other way round: both are of one place."""
    if "key" in mine and "cert" not in mine and not document.has((*path, "cert")):
        document.report(findings, (*path, "key"), "needs the certificate that it belongs to; add cert")
    if "cert" in mine and "key" not in mine and not document.has((*path, "key")):
        advice = "add key (the same file, if it holds both)"
        document.report(findings, (*path, "cert"), f"needs its private key; {advice}")


def beside(document: Document, keys: dict[str, object]) -> dict[str, object]:
    """The same, relative names of files starting where the configuration is."""
    folder = os.path.dirname(document.file)
    files = {
        key: os.path.join(folder, str(keys[key])) for key in keys.keys() & {"ca", "cert", "client_ca", "key"}
    }
    return {**keys, **files}
