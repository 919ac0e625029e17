"""What a configuration file says of TLS; part of `schema`."""

# Annotations are read at run time by the decoder, so they must not be postponed to strings.
import os.path
from typing import Annotated

from sidecar.config.check_rules import FileName, PlainText
from sidecar.config.containers import Several
from sidecar.config.doors import ServerTlsSettings
from sidecar.config.findings import Findings, KeyPath
from sidecar.config.marks import Document
from sidecar.config.record import Record
from sidecar.config.rules import Choice
from sidecar.config.unset import UNSET, UnsetType

__all__ = ["ServerTls", "server_tls"]


class ServerTls(Record):
    """`tls` of a listener."""

    cert: Annotated[str | UnsetType, FileName()] = UNSET
    key: Annotated[str | UnsetType, FileName()] = UNSET
    client_ca: Annotated[str | UnsetType, FileName()] = UNSET
    min_version: Annotated[str | UnsetType, Choice(("1.2", "1.3"))] = UNSET
    identity: Annotated[tuple[str, ...] | UnsetType, Several(PlainText(), 16, "identities")] = UNSET


def server_tls(given: ServerTls, path: KeyPath, document: Document, findings: Findings) -> ServerTlsSettings:
    """What the section at `path` says, its files' paths beside the configuration's."""
    for key in ("cert", "key"):
        if getattr(given, key) is UNSET:
            document.report(findings, path, f"has no {key}; name the file that holds it")
    found: dict[str, object] = {}
    for key in ("cert", "key", "client_ca"):
        file = getattr(given, key)
        if not isinstance(file, UnsetType):
            found[key] = os.path.join(os.path.dirname(document.file), file)
    for key in ("min_version", "identity"):
        if getattr(given, key) is not UNSET:
            found[key] = getattr(given, key)
    return ServerTlsSettings(**found)  # type: ignore[arg-type] # each is what its rule has read
