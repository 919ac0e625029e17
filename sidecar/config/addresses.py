"""Hosts, `host:port` pairs and which of them are the same place."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["WILDCARDS", "is_address", "is_loopback", "overlap", "parse_authority", "parse_host", "parse_port"]

WILDCARDS: Final = ("0.0.0.0", "::")

# RFC 1123 section 2.1, and the underscore that container names and many internal zones have.
_NAME: Final = re.compile(
    r"(?=.{1,253}\.?\Z)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
    r"(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*\.?"
)
_PORT: Final = re.compile(r"[0-9]{1,5}", re.ASCII)
# What `localhost` stands for (RFC 6761 section 6.3); both, because callers try both.
_LOCALHOST: Final = ("127.0.0.1", "::1")


def parse_host(text: str) -> str:
    """A host name or an IP address, IPv6 without brackets. Raises `ValueError` that says what to write."""
    if _NAME.fullmatch(text) or is_address(text):  # names first: they are the most, and the quicker to tell
        return text
    if text.startswith("["):
        raise ValueError("is no host; write an IPv6 address without brackets")
    if "://" in text or "/" in text:
        raise ValueError("is no host; write the host name or address alone, without scheme and path")
    if ":" in text:
        raise ValueError("is no host; write the host name or address alone, the port has its own key")
    raise ValueError("is no host; write a host name (letters, digits, - _ and .) or an IP address")


def parse_port(text: str, lowest: int = 1) -> int:
    """A port from `lowest` to 65535. Raises `ValueError`."""
    if not _PORT.fullmatch(text) or not lowest <= int(text) <= 65535:
        raise ValueError(f"has no port between {lowest} and 65535; write host:port")
    return int(text)


def parse_authority(text: str, lowest_port: int = 1) -> tuple[str, int]:
    """Host and port of `host:port` or `[ipv6]:port`. Raises `ValueError`."""
    host, colon, port = text.strip().rpartition(":")
    if not colon or not host:
        raise ValueError("is not host:port; write for example api-01.example:8001 or [::1]:8001")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ":" not in host or not is_address(host):
            raise ValueError("has no IPv6 address between its brackets; write for example [::1]:8001")
    elif ":" in host:
        raise ValueError("is not host:port; put an IPv6 address in brackets, for example [::1]:8001")
    return parse_host(host), parse_port(port, lowest_port)


def is_address(text: str) -> bool:
    """True for an IPv4 or IPv6 literal."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """True when `host` can be reached from this machine alone."""
    return all(is_address(one) and ipaddress.ip_address(one).is_loopback for one in _places([host]))


def overlap(one: Iterable[str], other: Iterable[str]) -> bool:
    """True when a server on one of `one` and one of `other` would be at the same place, the port being equal.

    A wildcard covers every address of its family. `::` does not cover IPv4: asyncio's servers are IPv6 only.
    """
    places = _places(other)
    return any(_covers(mine, theirs) or _covers(theirs, mine) for mine in _places(one) for theirs in places)


def _places(hosts: Iterable[str]) -> list[str]:
    """Hosts in one spelling, `localhost` as the addresses it means."""
    places: list[str] = []
    for host in hosts:
        if host.lower().rstrip(".") == "localhost":
            places.extend(_LOCALHOST)
        else:
            places.append(str(ipaddress.ip_address(host)) if is_address(host) else host.lower())
    return places


def _covers(wide: str, narrow: str) -> bool:
    if wide == narrow:
        return True
    if not is_address(narrow):
        return False
    return (wide == "0.0.0.0" and ":" not in narrow) or (wide == "::" and ":" in narrow)
