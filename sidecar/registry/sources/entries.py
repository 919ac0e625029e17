"""One endpoint, from what somebody else has written: the same rules for all who read such."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sidecar.config.addresses import is_address, parse_authority, parse_host, parse_port
from sidecar.config.findings import meant, shown
from sidecar.config.rules import Unusable, ZoneName
from sidecar.config.socket_rules import parse_unix
from sidecar.model import Endpoint
from sidecar.net.unix import UNIX, is_unix

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["MAX_WEIGHT", "endpoint_from_fields", "endpoint_from_text"]

MAX_WEIGHT: Final = 256  # `Endpoint.weight`
_FIELDS: Final = ("host", "port", "weight", "zone")
_WHOLE: Final = re.compile(r"[-+]?[0-9]{1,18}", re.ASCII)
_ZONE: Final = ZoneName()


def endpoint_from_text(text: str, default_port: int = 0) -> Endpoint:
    """The endpoint of `host:port`, of `unix:PATH`, or of a host alone where there is a default port.

    Raises ValueError.
    """
    text = text.strip()
    if is_unix(text):
        return Endpoint(_unix(text), 0)
    colons = text.count(":")
    alone = not colons or text.endswith("]") or (colons > 1 and is_address(text))
    try:
        if not (alone and default_port):
            return Endpoint(*parse_authority(text))
        return Endpoint(parse_host(text.strip("[]")), default_port)
    except ValueError as error:
        raise ValueError(f"{shown(text)} {error}") from None


def endpoint_from_fields(
    fields: Mapping[str, str], default_port: int, complain: Callable[[str], None]
) -> Endpoint:
    """The endpoint of `host`, and of `port`, `weight` and `zone` where they are. Raises ValueError.

    A weight is brought into 1 to 256. Of an endpoint that is fine otherwise, a weight that is no number, a zone that
    is none and a key that nobody knows are not worth losing it: `complain` is told, and they are left out.
    """
    host, port = fields.get("host", ""), fields.get("port", "")
    if not host:
        raise ValueError("has no host; write {host: ..., port: ...} or host:port")
    if is_unix(host):
        return Endpoint(_unix(host), 0, _weight(fields, complain), _zone(fields, complain))
    try:
        host = parse_host(host)
    except ValueError as error:
        raise ValueError(f"host: {shown(host)} {error}") from None
    if not port and not default_port:
        raise ValueError("has no port; write {host: ..., port: ...} or host:port")
    try:
        number = parse_port(port) if port else default_port
    except ValueError:
        raise ValueError(f"port: {shown(port)} is no port; write a number from 1 to 65535") from None
    for name in fields:
        if name not in _FIELDS:
            complain(f"the key {shown(name)} means nothing here{meant(name, _FIELDS)}")
    return Endpoint(host, number, _weight(fields, complain), _zone(fields, complain))


def _unix(text: str) -> str:
    """`unix:PATH`. Raises ValueError."""
    try:
        return UNIX + parse_unix(text.removeprefix(UNIX))
    except ValueError as error:
        raise ValueError(f"{shown(text)} {error}") from None


def _weight(fields: Mapping[str, str], complain: Callable[[str], None]) -> int:
    written = fields.get("weight", "")
    if not written:
        return 1
    if not _WHOLE.fullmatch(written):
        complain(f"weight: {shown(written)} is no whole number; 1 is used")
        return 1
    return min(max(int(written), 1), MAX_WEIGHT)


def _zone(fields: Mapping[str, str], complain: Callable[[str], None]) -> str:
    written = fields.get("zone", "")
    if not written:
        return ""
    try:
        return _ZONE.accept(written)
    except Unusable as error:
        complain(f"zone: {error}")
        return ""
