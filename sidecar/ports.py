"""The listening sockets of a sidecar, which outlive whoever accepts from them: a reload opens and closes what differs.

For each address and port there is one for every worker's slot, which is one where one process does all. The kernel
spreads new connections over sockets that share a port (SO_REUSEPORT), by a hash of the addresses. The supervisor keeps
all of them open and a worker inherits those of its slot, so that connections in a slot's queue wait there while its
worker is replaced. A unix socket has one queue, from which all slots accept: the kernel knows no sharing of a path.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sidecar.config.addresses import is_loopback
from sidecar.errors import StartError
from sidecar.net import unix_sockets
from sidecar.net.unix import UNIX, is_unix
from sidecar.proxy.listener import BACKLOG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sidecar.config.doors import ListenerSettings
    from sidecar.config.settings import UpstreamSettings
    from sidecar.net.unix_sockets import Identity

__all__ = ["Place", "Ports", "cannot_listen"]

_HINTS = {
    errno.EADDRINUSE: "stop what listens there, or give the upstream another port under sidecar.ports",
    errno.EACCES: "ports below 1024 need a privilege; give the upstream another port under sidecar.ports",
    errno.EADDRNOTAVAIL: "this host has no such address; see sidecar.bind",
}
_SOCKET_HINTS = {
    errno.EADDRINUSE: "stop what listens there, or give the socket another path under sidecar.sockets",
    errno.EACCES: "the directory has to be writable for the sidecar's user",
    errno.EPERM: "the directory has to be writable for the sidecar's user",
    errno.EROFS: "mount a directory there that can be written to, such as an emptyDir",
    errno.ENOENT: "create its directory first",
    errno.ENOTDIR: "what should be its directory is none",
    errno.EEXIST: "remove it, or give the socket another path under sidecar.sockets",
}
_log = logging.getLogger("sidecar")
_NO_FAMILY = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

# How connections of applications on this host are sent to, which they inherit from the socket that accepts them: what
# the host has for the network may pace (BBR) what never leaves its memory. This one every Linux has, for everybody.
LOOPBACK_CONGESTION = b"reno"

# host and port as configured; where the port is 0 each upstream has its own, so that its name stands for it.
_Key = tuple[str, int | str]


@dataclass(frozen=True, slots=True)
class Place:
    """One address and port, or `unix:PATH` and 0, with the sockets of all slots, in order.

    file: what a unix socket's file is known by. owned: it is this process's to remove.
    """

    host: str
    port: int
    sockets: tuple[socket.socket, ...]
    file: Identity = None
    owned: bool = True

    @property
    def address(self) -> str:
        """`host:port`, an IPv6 host in brackets; or `unix:PATH`."""
        return _address(self.host, self.port)

    @property
    def is_reached(self) -> bool:
        """Whether its file, if it has one, is where it was made: nobody has removed it, or put another there."""
        return self.file is None or unix_sockets.identity(self.host.removeprefix(UNIX)) == self.file

    def close(self) -> None:
        """Connections that nobody has accepted yet are reset, unless a worker still has the socket open.

        The file goes first: who finds none is told so at once, and does not wait in a queue that nobody serves.
        """
        if self.owned:
            unix_sockets.remove(self.host.removeprefix(UNIX), self.file)
        for found in self.sockets:
            found.close()


class Ports:
    """All places that are listened on, by upstream.

    slots: how many workers there are. by_upstream: the places of each upstream that listens.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.by_upstream: dict[str, list[Place]] = {}
        self._places: dict[_Key, Place] = {}
        self._modes: dict[str, int] = {}  # of files, by path

    def open(self, upstreams: Iterable[UpstreamSettings], addresses: Sequence[str]) -> Ports:
        """The places for another configuration: those that are open already are the same, others are opened.

        Nothing of `self` changes, and no file that is there already: `set_modes` is for when the configuration holds.
        Raises StartError, and nothing stays open then that was not before.
        """
        found = Ports(self.slots)
        try:
            for upstream in upstreams:
                places = []
                if upstream.listen_port is not None and not upstream.skipped:
                    places = self._places_of(upstream.name, upstream.listen_port, addresses, found)
                if upstream.listener.socket:
                    places.append(self._socket_of(upstream.name, upstream.listener, found))
                if places:
                    found.by_upstream[upstream.name] = places
        except BaseException:
            found.close(but=self)
            raise
        return found

    def _places_of(self, name: str, port: int, addresses: Sequence[str], found: Ports) -> list[Place]:
        places: list[Place] = []
        wanted = port
        for host in addresses:
            key = (host, port or name)
            place = self._places.get(key)
            if place is None:
                try:
                    place = Place(*_listen(host, wanted, self.slots))
                except OSError as error:
                    if places and has_no_such_family(host, error):
                        continue
                    raise cannot_listen(name, host, wanted, error) from None
            found._places[key] = place
            places.append(place)
            wanted = place.port
        return places

    def _socket_of(self, name: str, listener: ListenerSettings, found: Ports) -> Place:
        host = UNIX + listener.socket
        place = self._places.get((host, 0))
        if place is None or not place.is_reached:
            try:
                place = _listen_at(host, listener, self.slots)
            except OSError as error:
                raise _cannot_listen_at(name, host, error) from None
        found._places[host, 0] = place
        found._modes[host] = listener.mode
        return place

    def set_modes(self) -> None:
        """Have the files of unix sockets that were open already the permissions that are configured now."""
        for place in self._places.values():
            if place.file is not None and place.is_reached:
                try:
                    Path(place.host.removeprefix(UNIX)).chmod(self._modes[place.host])
                except OSError as error:
                    _log.warning("%s keeps its mode: %s", place.host, error.strerror)

    def all_sockets(self) -> list[tuple[list[str | int], socket.socket]]:
        """Each with what tells `adopt`, of another process, which one it is."""
        return [
            ([*key, place.host, place.port, slot, *(place.file or ())], one)
            for key, place in self._places.items()
            for slot, one in enumerate(place.sockets)
        ]

    def adopt(self, found: Iterable[tuple[Sequence[Any], socket.socket]]) -> None:
        """Have these places, as `all_sockets` names them, for `open` to choose from."""
        sockets: dict[tuple[Any, ...], dict[int, socket.socket]] = {}
        for (host, port, at, number, slot, *file), one in found:
            sockets.setdefault((host, port, at, number, *file), {})[slot] = one
        for (host, port, at, number, *file), slots in sockets.items():
            known = (file[0], file[1]) if file else None
            place = Place(at, number, tuple(one for _, one in sorted(slots.items())), known, owned=False)
            self._places[host, port] = place

    @property
    def are_reached(self) -> bool:
        """Whether the files of all unix sockets are where they were made."""
        return all(place.is_reached for place in self._places.values())

    @property
    def unix(self) -> list[str]:
        """`unix:PATH` of all unix sockets."""
        return [place.host for place in self._places.values() if is_unix(place.host)]

    def leave_files(self, hosts: Iterable[str]) -> None:
        """Files of these unix sockets (`unix:PATH`) are another process's to remove."""
        left = set(hosts)
        self._own(lambda place: place.host not in left)

    def take_files(self) -> None:
        """Files of all unix sockets are this process's, whoever has made them: to remove, and to give their modes."""
        self._own(lambda _: True)
        self.set_modes()

    def _own(self, owned: Callable[[Place], bool]) -> None:
        """Have files be this process's to remove as `owned` says of each unix socket."""
        others = {
            place: replace(place, owned=owned(place))
            for place in self._places.values()
            if is_unix(place.host)
        }
        self._places = {key: others.get(place, place) for key, place in self._places.items()}
        for name, places in self.by_upstream.items():
            self.by_upstream[name] = [others.get(place, place) for place in places]

    @property
    def listening(self) -> list[tuple[str, str]]:
        """(upstream, address) of all places."""
        return [(name, place.address) for name, places in self.by_upstream.items() for place in places]

    def close(self, but: Ports | None = None) -> None:
        """Close all, but for those that `but` has too."""
        kept = {} if but is None else but._places
        for key, place in self._places.items():
            if kept.get(key) is not place:
                place.close()

    def close_slot(self, slot: int) -> None:
        """Close the sockets of one slot: the kernel gives its share of new connections to the others."""
        for place in self._places.values():
            place.sockets[slot].close()


def has_no_such_family(host: str, error: OSError) -> bool:
    """Whether an IPv6 address could not be bound because this host has no IPv6 (behaviour 9)."""
    return ":" in host and error.errno in _NO_FAMILY


def cannot_listen(upstream: str, host: str, port: int, error: OSError) -> StartError:
    """What to tell about an address that cannot be bound."""
    number = error.errno or 0
    said = os.strerror(number).lower() if number in errno.errorcode else error.strerror
    hint = _HINTS.get(number, "see sidecar.bind and sidecar.ports")
    return StartError(f"cannot listen on {_address(host, port)} for {upstream}: {said}; {hint}")


def _cannot_listen_at(upstream: str, host: str, error: OSError) -> StartError:
    said = error.strerror or str(error)
    hint = _SOCKET_HINTS.get(error.errno or 0, "see sidecar.sockets")
    return StartError(f"cannot listen on {host} for {upstream}: {said[0].lower()}{said[1:]}; {hint}")


def _address(host: str, port: int) -> str:
    if is_unix(host):
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _listen(host: str, port: int, count: int) -> tuple[str, int, tuple[socket.socket, ...]]:
    """The first socket listens alone, which fails as it always did when anybody else listens there.

    Only then may it be shared. To look first whether the port is free, and bind shared sockets then, would let two
    sidecars that start at the same moment share it.
    """
    sockets: list[socket.socket] = []
    try:
        for number in range(count):
            sockets.append(_bind(host, port, shared=number > 0))
            port = sockets[0].getsockname()[1]
            if number == 0 and count > 1:
                sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except BaseException:
        for made in sockets:
            made.close()
        raise
    return host, port, tuple(sockets)


def _listen_at(host: str, listener: ListenerSettings, count: int) -> Place:
    """A unix socket, which all slots share."""
    first, file = unix_sockets.bind(listener.socket, listener.mode, BACKLOG)
    sockets = [first]
    try:
        while len(sockets) < count:
            sockets.append(first.dup())
    except BaseException:
        Place(host, 0, tuple(sockets), file).close()
        raise
    return Place(host, 0, tuple(sockets), file)


def _bind(host: str, port: int, *, shared: bool) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST | socket.AI_PASSIVE
    )[0]
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(address)
        if is_loopback(host):
            with suppress(OSError):  # it costs less, and changes nothing else
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, LOOPBACK_CONGESTION)
        made.listen(BACKLOG)
        made.setblocking(False)
    except BaseException:
        made.close()
        raise
    return made
