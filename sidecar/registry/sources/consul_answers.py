"""What Consul's answers say of endpoints, one instance at a time.

https://developer.hashicorp.com/consul/api-docs/health#list-service-instances-for-service has the fields.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from sidecar.config.addresses import parse_host
from sidecar.model import Endpoint

if TYPE_CHECKING:
    from sidecar.registry.sources.source import Wanted

__all__ = ["Instances"]

MAX_WEIGHT = 256  # `Endpoint.weight`
_ZONE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)  # as `sidecar.zone` has to be
_WEIGHT = re.compile(r"[0-9]{1,9}", re.ASCII)


class Instances:
    """What an answer says of endpoints, taken one instance after the other, so that none has to be held.

    count: of all. left_out: why some are, by what they are called.
    """

    __slots__ = ("_found", "_wanted", "count", "left_out")

    def __init__(self, wanted: Wanted) -> None:
        self.count = 0
        self.left_out: dict[str, str] = {}
        self._wanted = wanted
        self._found: dict[tuple[str, int], Endpoint] = {}

    def take(self, entry: Any) -> None:
        """The next."""
        self.count += 1
        try:
            endpoint = _endpoint(entry, self._wanted)
        except ValueError as error:
            self.left_out[_name(entry, self.count)] = str(error)
        else:
            self._found.setdefault(endpoint.key, endpoint)

    def endpoints(self) -> tuple[Endpoint, ...]:
        """In the order of their addresses, each once.

        An answer's own order means nothing, and would make two equal ones differ.
        """
        return tuple(self._found[key] for key in sorted(self._found))


def _endpoint(entry: Any, wanted: Wanted) -> Endpoint:
    """One instance. Raises ValueError, which says why not."""
    service, node = _table(entry, "Service"), _table(entry, "Node")
    if not service:
        raise ValueError("it has no Service")
    address, port = _place(service, node, wanted)
    if not address:
        raise ValueError("neither the service nor its node has an address")
    try:
        host = parse_host(address)
    except ValueError:
        raise ValueError(f"its address {address[:80]!r} is no host") from None
    if not 1 <= port <= 65535:
        raise ValueError(f"its port {port} is none between 1 and 65535")
    return Endpoint(host, port, _weight(service), _zone(service, node))


def _place(service: dict[str, Any], node: dict[str, Any], wanted: Wanted) -> tuple[str, int]:
    """Address and port, neither looked at. Raises ValueError.

    A port's number counts whatever the instance says; a name is one of the service's tagged addresses.
    """
    own = _text(service, "Address") or _text(node, "Address")
    if not wanted.port:
        port = _number(service, "Port") or wanted.default_port
        if not port:
            raise ValueError("it has no port, and `port` names none")
        return own, port
    if wanted.port.isascii() and wanted.port.isdigit():
        return own, int(wanted.port[:6])
    tagged = _table(_table(service, "TaggedAddresses"), wanted.port)
    # The API's documentation has both spellings.
    port = _number(tagged, "Port") or _number(tagged, "port")
    if not port:
        raise ValueError(f"none of its TaggedAddresses is called `{wanted.port}` and has a port")
    return _text(tagged, "Address") or _text(tagged, "address") or own, port


def _weight(service: dict[str, Any]) -> int:
    """Its metadata's `weight`, else what Consul's DNS weighs it by while it passes; 1 to 256."""
    said = _text(_table(service, "Meta"), "weight")
    weight = int(said) if _WEIGHT.fullmatch(said) else _number(_table(service, "Weights"), "Passing")
    return max(1, min(weight, MAX_WEIGHT))


def _zone(service: dict[str, Any], node: dict[str, Any]) -> str:
    """The first that is a zone's name: of metadata, which people write, then of Locality."""
    for zone in (
        _text(_table(service, "Meta"), "zone"),
        _text(_table(node, "Meta"), "zone"),
        _text(_table(service, "Locality"), "Zone"),
        _text(_table(node, "Locality"), "Zone"),
    ):
        if _ZONE.fullmatch(zone):
            return zone
    return ""


def _name(entry: Any, number: int) -> str:
    """What a person finds it by."""
    identity = _text(_table(entry, "Service"), "ID")
    node = _text(_table(entry, "Node"), "Node")
    return f"`{identity[:80]}` of node `{node[:80]}`" if identity or node else f"number {number}"


def _table(holder: Any, key: str) -> dict[str, Any]:
    held = holder.get(key) if isinstance(holder, dict) else None
    return held if isinstance(held, dict) else {}


def _text(holder: dict[str, Any], key: str) -> str:
    held = holder.get(key)
    return held if isinstance(held, str) else ""


def _number(holder: dict[str, Any], key: str) -> int:
    held = holder.get(key)
    return held if isinstance(held, int) and not isinstance(held, bool) else 0
