"""Where others reach this machine, for what is announced without saying so.

A pod is told (`POD_IP`, by the downward API, https://kubernetes.io/docs/concepts/workloads/pods/downward-api/).
Elsewhere it is the address that packets to the registry come from: whoever asks that registry is likely to be on its
side.
"""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sidecar.config.addresses import is_address
from sidecar.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.config.settings import RegistrySettings
    from sidecar.registry.sources.source import Surroundings

    # The local address of the route to an address, of a family. Raises OSError where there is no route.
    Route = Callable[[int, Any], str]

__all__ = ["own_host", "source_address"]

# Any will do: no packet is sent. This one is nobody's (the discard service, RFC 863).
_PORT = 9


async def own_host(registry: RegistrySettings, surroundings: Surroundings, route: Route | None = None) -> str:
    """The address of this machine that is announced in `registry`; empty for the one that its agent has.

    A loopback address where all of the registry is on the loopback, whose readers are on this machine too; but a Consul
    agent there is the machine's part of a datacenter, and knows the machine's address itself.
    Raises SourceError, and OSError when no host of the registry is found.
    """
    told = surroundings.environ.get("POD_IP", "").strip()
    if told:
        if not _is_reachable(told):
            raise SourceError(
                "POD_IP is no address that others reach; correct it, or say host under register"
            )
        return told
    near = ""
    trouble: OSError | None = None
    for host in registry.hosts:
        try:
            entries = await surroundings.resolve(host.host, _PORT)
        except OSError as error:
            trouble = error
            continue
        for family, _, _, _, address in entries:
            with suppress(OSError):  # no route, or no such family here: another of its addresses may have one
                found = (route or source_address)(family, address)
                if _is_reachable(found):
                    return found
                near = near or (found if ipaddress.ip_address(found).is_loopback else "")
    if near:
        return "" if registry.kind == "consul" else near
    if trouble is not None:
        raise trouble
    raise SourceError(f"no address of this machine leads to {registry.name}; say host under register")


def source_address(family: int, address: Any) -> str:
    """Which address of this machine packets to `address` come from. None is sent. Raises OSError."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(
            address
        )  # of a datagram socket: the kernel looks the route up, and that is all (udp(7))
        return str(probe.getsockname()[0])


def _is_reachable(text: str) -> bool:
    """Whether an address can mean this machine elsewhere: a link-local one means another machine on each link."""
    if not is_address(text):
        return False
    address = ipaddress.ip_address(text)
    return not (
        address.is_loopback or address.is_unspecified or address.is_link_local or address.is_multicast
    )
