"""EndpointSlices as the Kubernetes API gives them, read into what is needed of them, with every part looked at. Pure.

What cannot be used comes back as a problem, one line each, beside what can.

The objects: https://kubernetes.io/docs/reference/kubernetes-api/service-resources/endpoint-slice-v1/.
"""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from sidecar.config.addresses import is_address, parse_host
from sidecar.config.findings import shown
from sidecar.config.rules import Unusable, ZoneName

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["SERVICE_LABEL", "Slice", "SliceEndpoint", "SlicePort", "read_slice", "slice_name"]

# The label by which a slice says whose it is; also on those that are mirrored from Endpoints.
SERVICE_LABEL = "kubernetes.io/service-name"
_FAMILIES = ("IPv4", "IPv6", "FQDN")
_ZONES = ZoneName()
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class SlicePort:
    """One TCP port of a slice. name: empty where a Service has only one. number: 0 is every port."""

    name: str
    number: int


@dataclass(frozen=True, slots=True)
class SliceEndpoint:
    """One endpoint of a slice, without a port.

    family: the slice's `addressType`. draining: it still serves while it terminates. hints: zones that it is to
    serve. target: the uid of its pod; empty where nobody says.
    """

    host: str
    family: str
    ready: bool
    draining: bool
    zone: str = ""
    hints: tuple[str, ...] = ()
    target: str = ""

    @property
    def rank(self) -> int:
        """Of two that say different things of one address, the higher is believed."""
        return 2 if self.ready else int(self.draining)


@dataclass(frozen=True, slots=True)
class Slice:
    """One EndpointSlice. ports: those of TCP. has_ports: it defines some, if only of other protocols."""

    name: str
    service: str
    ports: tuple[SlicePort, ...]
    has_ports: bool
    endpoints: tuple[SliceEndpoint, ...]


class _MalformedError(Exception):
    """Part of a slice is not what the API says it is. Its text says what, without saying where."""


def read_slice(item: Any) -> tuple[Slice | None, list[str]]:
    """One object of a list or an event, and what in it cannot be used; None where nothing can."""
    try:
        name = slice_name(item)
        if not name:
            return None, ["an EndpointSlice without a name is left out"]
        return _slice(item, name)
    except _MalformedError as error:
        return None, [f"an EndpointSlice is left out: {error}"]


def slice_name(item: Any) -> str:
    """What a slice is called in its namespace; empty for what has no name."""
    metadata = item.get("metadata") if isinstance(item, dict) else None
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return name if isinstance(name, str) else ""


def _slice(item: dict[str, Any], name: str) -> tuple[Slice, list[str]]:
    where = f"EndpointSlice {shown(name)}"
    problems: list[str] = []
    try:
        service = _service(item)
        family = _family(item)
        ports = _sequence(item.get("ports"), "ports")
        endpoints = _sequence(item.get("endpoints"), "endpoints")
    except _MalformedError as error:
        raise _MalformedError(f"{where}: {error}") from None
    return (
        Slice(
            name,
            service,
            tuple(_each(ports, _port, f"{where}: a port", problems)),
            bool(ports),
            tuple(_each(endpoints, partial(_endpoint, family), f"{where}: an endpoint", problems)),
        ),
        problems,
    )


def _each(
    items: list[Any], read: Callable[[dict[str, Any]], _T | None], what: str, problems: list[str]
) -> Iterator[_T]:
    """What `read` makes of each, without those that are malformed, or of which it makes None."""
    for item in items:
        try:
            made = read(_mapping(item, "description"))
        except _MalformedError as error:
            problems.append(f"{what} is left out: {error}")
        else:
            if made is not None:
                yield made


def _service(item: dict[str, Any]) -> str:
    labels = _mapping(_mapping(item.get("metadata"), "metadata").get("labels") or {}, "metadata.labels")
    service = _text(labels.get(SERVICE_LABEL), SERVICE_LABEL)
    if not service:
        raise _MalformedError(f"it has no label {SERVICE_LABEL}")
    return service


def _family(item: dict[str, Any]) -> str:
    family = item.get("addressType")
    if family not in _FAMILIES:
        raise _MalformedError(f"its addressType {shown(family)} is none of {', '.join(_FAMILIES)}")
    return str(family)


def _port(item: dict[str, Any]) -> SlicePort | None:
    """None for one of another protocol than TCP, which is the usual one."""
    if (item.get("protocol") or "TCP") != "TCP":
        return None
    number = item.get("port")
    if number is None:  # every port is meant
        number = 0
    elif type(number) is not int or not 1 <= number <= 65535:
        raise _MalformedError(f"its number {shown(number)} is none from 1 to 65535")
    return SlicePort(_text(item.get("name"), "name"), number)


def _endpoint(family: str, item: dict[str, Any]) -> SliceEndpoint:
    addresses = _sequence(item.get("addresses"), "addresses")
    if not addresses:
        raise _MalformedError("it has no address")
    # Several are all the same endpoint, "and clients may choose to only use the first element", as kube-proxy does.
    host = _host(addresses[0], family)
    conditions = _mapping(item.get("conditions") or {}, "conditions")
    ready = _flag(conditions, "ready")
    if ready is None:  # unknown, which is to be read as ready
        ready = True
    serving = _flag(conditions, "serving")
    if serving is None:  # from before there was such a condition
        serving = ready
    hints = _mapping(item.get("hints") or {}, "hints")
    zones = [
        _mapping(zone, "hint").get("name") for zone in _sequence(hints.get("forZones"), "hints.forZones")
    ]
    target = item.get("targetRef")
    uid = target.get("uid") if isinstance(target, dict) else None
    return SliceEndpoint(
        host,
        family,
        ready,
        serving and bool(_flag(conditions, "terminating")),
        _zone(item.get("zone")),
        tuple(zone for zone in map(_zone, zones) if zone),
        uid if isinstance(uid, str) else "",
    )


def _host(address: Any, family: str) -> str:
    """An address in its one spelling."""
    if isinstance(address, str):
        with suppress(ValueError):
            if family == "IPv4":
                return str(ipaddress.IPv4Address(address))
            if family == "IPv6":
                return str(ipaddress.IPv6Address(address))
            if not is_address(address):
                return parse_host(address).lower()
    raise _MalformedError(f"its address {shown(address)} is no {family} address")


def _flag(conditions: dict[str, Any], name: str) -> bool | None:
    value = conditions.get(name)
    if value is None or isinstance(value, bool):
        return value
    raise _MalformedError(f"its condition {name} is neither true nor false")


def _zone(value: Any) -> str:
    """A zone as the configuration may name it too; empty for what is none, as it decides nothing but a preference."""
    if isinstance(value, str):
        with suppress(Unusable):
            return _ZONES.accept(value)
    return ""


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise _MalformedError(f"its {what} is no object")


def _sequence(value: Any, what: str) -> list[Any]:
    """A list, which the API also writes as null when it is empty."""
    if value is None:
        return []
    if isinstance(value, list):
        return value
    raise _MalformedError(f"its {what} is no list")


def _text(value: Any, what: str) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    raise _MalformedError(f"its {what} is no text")
