"""What single values of `external_registry`, `source` and `register` may be; see `rules`."""

from __future__ import annotations

import re
from typing import Final

from sidecar.config.addresses import is_address, parse_authority, parse_host
from sidecar.config.findings import shown
from sidecar.config.record import Record
from sidecar.config.rules import Text, Unusable, UpstreamName, described, text_of
from sidecar.config.settings import Address

__all__ = ["PortChoice", "RegistryHost", "ServiceName", "SourceNames"]

_MOST: Final = 16  # sources of one upstream, as many as there may be registries
_PORT_NAME: Final = r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,62})"
# What a registry may call a service: an etcd key's part, a DNS name with its dots, an SRV name with its underscores.
_SERVICE: Final = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}"


class RegistryHost(Record):
    """Where a registry is: `host`, or `host:port`; port 0 stands for its usual one."""

    def read(self, value: object, written: str) -> Address:
        if not isinstance(value, str):
            what = described(value, written)
            raise Unusable(f"must be host or host:port, not {what}; write for example consul.example:8500")
        return self.from_text(value)

    def from_text(self, text: str) -> Address:
        if "://" in text:
            raise Unusable(f"{shown(text)} is a URL; write host:port, and `tls: true` beside it for https")
        bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
        try:
            if is_address(bare) or ":" not in text:
                return Address(parse_host(bare), 0)
            return Address(*parse_authority(text))
        except ValueError as error:
            raise Unusable(f"{shown(text)} {error}") from None


class ServiceName(Text):
    """What a registry calls a service."""

    def accept(self, text: str) -> str:
        if not re.fullmatch(_SERVICE, text, re.ASCII):
            advice = "letters, digits, `.`, `_` and `-`, 253 at most"
            raise Unusable(f"{shown(text)} is no name of a service: {advice}")
        return text


class PortChoice(Record):
    """Which port of several: its number, or its name."""

    def read(self, value: object, written: str) -> str:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise Unusable(f"must be a port's number or name, not {described(value, written)}")
        return self.from_text(written if isinstance(value, int) else value)

    def from_text(self, text: str) -> str:
        if text.isdecimal() and not 1 <= int(text[:6]) <= 65535:
            raise Unusable(f"{shown(text)} is out of range; use 1 to 65535, or a port's name")
        if not re.fullmatch(_PORT_NAME, text, re.ASCII):
            raise Unusable(f"{shown(text)} is no port; write its number, or its name such as http")
        return text


class SourceNames(Record):
    """One name of a source, or a list of them in the order in which they are asked."""

    def read(self, value: object, written: str) -> tuple[str, ...]:
        if isinstance(value, str):
            return self.from_text(value)
        if not isinstance(value, list) or not value:
            what = "an empty list" if value == [] else described(value, written)
            raise Unusable(
                f"must be a source or a list of them, not {what}; write for example [consul, static]"
            )
        if len(value) > _MOST:
            raise Unusable(f"has {len(value)} sources; {_MOST} is the most")
        names = [name for item in value for name in self.from_text(text_of(item, str(item)))]
        for name in names:
            if names.count(name) > 1:
                raise Unusable(f"names {shown(name)} twice; name each source once")
        return tuple(names)

    def from_text(self, text: str) -> tuple[str, ...]:
        return (UpstreamName().accept(text),)
