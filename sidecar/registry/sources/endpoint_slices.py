"""From the EndpointSlices of a service to the endpoints of an upstream: which of them, and at which port. Pure.

What is left out comes back as a problem, one line each, beside what is used.

Which endpoints: https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/ and, for those that are
terminating, https://kubernetes.io/docs/tutorials/services/pods-and-endpoint-termination-flow/.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.config.findings import shown
from sidecar.model import Endpoint
from sidecar.registry.sources.slice_objects import SliceEndpoint
from sidecar.registry.sources.source import MAX_ENDPOINTS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sidecar.registry.sources.slice_objects import Slice, SlicePort
    from sidecar.registry.sources.source import Wanted

__all__ = ["SliceSet", "endpoints_of"]

NAMED = 10  # ports that a message names: a slice may have a hundred


class SliceSet:
    """The slices of one namespace, those heard of last behind the others."""

    def __init__(self) -> None:
        self._slices: dict[str, Slice] = {}

    def __len__(self) -> int:
        return len(self._slices)

    def replace(self, slices: Iterable[Slice]) -> None:
        """These, and no others."""
        self._slices = {one.name: one for one in slices}

    def put(self, one: Slice) -> set[str]:
        """A slice has come or changed; gives the services that it was or is of."""
        services = self.remove(one.name)
        self._slices[one.name] = one
        return services | {one.service}

    def remove(self, name: str) -> set[str]:
        """A slice has gone; gives the service that it was of."""
        before = self._slices.pop(name, None)
        return set() if before is None else {before.service}

    def of(self, service: str) -> list[Slice]:
        """Those of one service."""
        return [one for one in self._slices.values() if one.service == service]


def endpoints_of(slices: Iterable[Slice], wanted: Wanted) -> tuple[tuple[Endpoint, ...], list[str]]:
    """What an upstream consists of, by address, and what is left out and why. slices: all of its service, newest last.

    An address in several slices counts once, as it does while the controller moves it from one to another. Ready
    endpoints are used, and only where there are none those that serve while they terminate, as kube-proxy does it.
    Weights are 1: Kubernetes has none.
    """
    slices = list(slices)
    # A headless Service may have no ports at all. Where some slices have ports, one without is of pods that lack the
    # port which their Service names.
    portless = not any(one.has_ports for one in slices)
    found: dict[tuple[str, int], SliceEndpoint] = {}
    problems: list[str] = []
    for one in slices:
        port, problem = _configured(wanted) if portless else _chosen(one, wanted)
        if problem and one.endpoints and problem not in problems:
            problems.append(problem)
        if not port:
            continue
        for endpoint in one.endpoints:
            before = found.get((endpoint.host, port))
            if before is None or endpoint.rank >= before.rank:
                found[endpoint.host, port] = endpoint
    usable = {key: one for key, one in found.items() if one.ready}
    if not usable:
        usable = {key: one for key, one in found.items() if one.draining}
    usable = _once_each(usable)
    # As kube-proxy has it, hints are followed when every endpoint has some: else a change of them is under way.
    hinted = all(one.hints for one in usable.values())
    endpoints = [Endpoint(*key, 1, _zone_of(usable[key], hinted)) for key in sorted(usable)]
    if len(endpoints) > MAX_ENDPOINTS:
        problems.append(f"{_whose(wanted)}: all but the first {MAX_ENDPOINTS} endpoints are left out")
    return tuple(endpoints[:MAX_ENDPOINTS]), problems


_Usable = dict[tuple[str, int], SliceEndpoint]


def _once_each(usable: _Usable) -> _Usable:
    """Without IPv6 addresses of pods that have an IPv4 one: a dual-stack Service has slices of both for every pod.

    Counted twice, a pod would have two breakers and twice its share of health checks.
    """
    pods = {one.target for one in usable.values() if one.family == "IPv4" and one.target}
    return {key: one for key, one in usable.items() if one.family != "IPv6" or one.target not in pods}


def _zone_of(one: SliceEndpoint, hinted: bool) -> str:
    """Where an endpoint counts as being.

    Topology-aware routing gives each endpoint a zone to serve, so that every zone has its share. One zone is as good
    as being there. With several a sidecar would have to know its own here, so they are not followed.
    """
    return one.hints[0] if hinted and len(one.hints) == 1 else one.zone


def _configured(wanted: Wanted) -> tuple[int, str]:
    """The port that the configuration names, where Kubernetes leaves it open; 0 and why, where none is named."""
    if _is_number(wanted.port):
        return int(wanted.port), ""
    if wanted.port:
        return 0, f"{_whose(wanted)} has no port called {shown(wanted.port)}: it defines none; name a number"
    if wanted.default_port:
        return wanted.default_port, ""
    return 0, f"{_whose(wanted)} defines no port and is left out; name one under `port`"


def _chosen(one: Slice, wanted: Wanted) -> tuple[int, str]:
    """The port of a slice that is meant; 0 and why, where none is. Numbers are pods' ports, not the Service's."""
    if not one.ports:
        return 0, f"{_whose(wanted)} has no TCP port and is left out" if one.has_ports else ""
    if _is_number(wanted.port):
        number = int(wanted.port)
        if any(port.number in (number, 0) for port in one.ports):
            return number, ""
        return 0, f"{_whose(wanted)} has no port {number}: it has {_names(one.ports)}"
    if wanted.port:
        named = [port.number for port in one.ports if port.name == wanted.port]
        if not named:
            return 0, f"{_whose(wanted)} has no port called {shown(wanted.port)}: it has {_names(one.ports)}"
        return _open(named[0], wanted)
    numbers = {port.number for port in one.ports}
    if len(numbers) == 1:
        return _open(numbers.pop(), wanted)
    if wanted.default_port in numbers:
        return _open(wanted.default_port, wanted)
    for port in one.ports:
        if port.name == "http":
            return _open(port.number, wanted)
    return (
        0,
        f"{_whose(wanted)} has several ports and is left out: {_names(one.ports)}; name one under `port`",
    )


def _open(number: int, wanted: Wanted) -> tuple[int, str]:
    """A number, or the upstream's own where every port is meant."""
    if number or wanted.default_port:
        return number or wanted.default_port, ""
    return 0, f"{_whose(wanted)} leaves its port open and is left out; name a number under `port`"


def _is_number(port: str) -> bool:
    return port.isascii() and port.isdecimal()


def _names(ports: tuple[SlicePort, ...]) -> str:
    """Ports as a message names them."""
    names = [
        f"{shown(port.name)} {port.number or 'any'}" if port.name else str(port.number) for port in ports
    ]
    return ", ".join(names[:NAMED]) + (" and others" if len(names) > NAMED else "")


def _whose(wanted: Wanted) -> str:
    return f"upstream {shown(wanted.upstream)}: service {shown(wanted.service or wanted.upstream)}"
