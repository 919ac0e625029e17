"""Who is asked for names, and how: the name servers of the configuration, else what resolv.conf says now."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from sidecar.config.addresses import is_address, parse_host
from sidecar.config.settings import Address
from sidecar.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path
    from typing import Any

    from sidecar.registry.sources.source import Surroundings

__all__ = ["Directions", "NameServers", "Server", "read_resolv_conf"]

PORT = 53
TIMEOUT = (
    2.0  # seconds for one try; resolv.conf's own default of 5 s is longer than readiness waits for a registry
)
LONGEST_TIMEOUT = 10  # seconds, the bound of a whole attempt (`resolver.ATTEMPT`)
TRIES = 2  # of each server: a datagram may be lost (resolv.conf(5) `attempts`)
MOST_TRIES = 5  # resolv.conf(5) has the same bound
MOST_DOTS = 15  # resolv.conf(5) has the same bound
MAX_SERVERS = 3  # of resolv.conf (MAXNS of resolv.conf(5)); those of the configuration are all asked
MAX_SEARCH = 32  # domains, as many as Kubernetes lets a pod have
MAX_FILE = 65536  # bytes of resolv.conf
KEPT = 30.0  # seconds that the addresses of a name server's own name are used


class Server(NamedTuple):
    """Where one name server is, as sockets have it."""

    family: int
    address: tuple[Any, ...]

    def __str__(self) -> str:
        """`host:port`, IPv6 in brackets."""
        return str(Address(self.address[0], self.address[1]))


@dataclass(frozen=True, slots=True)
class Directions:
    """How names are asked for.

    servers: in the order of preference, at least one. search: domains that are tried behind a name with fewer dots than
    ndots. timeout: seconds for one try. tries: of each server.
    """

    servers: tuple[Server, ...]
    search: tuple[str, ...] = ()
    ndots: int = 1
    timeout: float = TIMEOUT
    tries: int = TRIES


class NameServers:
    """The directions of one source. A change of resolv.conf, or of a name server's addresses, is noticed.

    With name servers of the configuration nothing of resolv.conf holds, and every name is complete as it stands.
    """

    def __init__(
        self, hosts: Sequence[Address], timeout: float, surroundings: Surroundings, resolv_conf: Path
    ) -> None:
        self._hosts = tuple(hosts)
        self._timeout = timeout
        self._surroundings = surroundings
        self._file = resolv_conf
        self._seen: object = None  # what resolv.conf was when it was read
        self._now: Directions | None = None
        self._until = 0.0
        self._reading = asyncio.Lock()

    async def now(self) -> Directions:
        """What holds now. Raises SourceError where no name server's name can be resolved."""
        if not self._hosts:
            return self._of_file()
        if self._now is None or self._surroundings.clock.monotonic() >= self._until:
            async with self._reading:
                if self._now is None or self._surroundings.clock.monotonic() >= self._until:
                    self._now = await self._of_hosts(self._now)
                    self._until = self._surroundings.clock.monotonic() + KEPT
        return self._now

    async def _of_hosts(self, before: Directions | None) -> Directions:
        servers: dict[Server, None] = {}
        problems = []
        for host in self._hosts:
            port = host.port or PORT
            if is_address(host.host):
                servers[_server(host.host, port)] = None
                continue
            try:
                async with asyncio.timeout(LONGEST_TIMEOUT):
                    entries = await self._surroundings.resolve(host.host, port)
            except TimeoutError:
                problems.append(f"{host.host}: no answer within {LONGEST_TIMEOUT} s")
            except OSError as error:
                problems.append(f"{host.host}: {(error.strerror or str(error)).lower()}")
            else:
                servers |= {Server(entry[0], entry[4]): None for entry in entries}
        if servers:
            return Directions(tuple(servers), timeout=self._timeout)
        if before is not None:  # they are where they were, as far as anybody knows
            return before
        raise SourceError(f"no name server can be asked: {'; '.join(problems)}")

    def _of_file(self) -> Directions:
        """One `stat` for each look: a container's resolv.conf is replaced when its network changes."""
        try:
            status = self._file.stat()
            seen: object = (status.st_ino, status.st_mtime_ns, status.st_size)
        except OSError as error:
            seen = error.errno
        if self._now is None or seen != self._seen:
            try:
                with self._file.open("rb") as file:
                    text = file.read(MAX_FILE).decode("utf-8", "replace")
            except OSError:
                text = ""
            if self._now is None or text:  # one that is just being replaced says nothing
                self._now = read_resolv_conf(text, self._timeout)
            self._seen = seen
        return self._now


def _server(host: str, port: int) -> Server:
    """Of an address, which may have a zone as `fe80::1%eth0` has."""
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
    )[0]
    return Server(family, address)


def read_resolv_conf(text: str, timeout: float = TIMEOUT) -> Directions:
    """What a file as of resolv.conf(5) says: nameserver, search, domain, and the options ndots, timeout, attempts.

    Lines that cannot be read say nothing, as everywhere. Without a name server it is the one of this machine.
    timeout: seconds, where the file says nothing.
    """
    servers: list[Server] = []
    search: list[str] = []
    options: dict[str, int] = {}
    for line in text.splitlines():
        match line.split():
            case ["nameserver", host, *_] if is_address(host):
                try:
                    servers.append(_server(host, PORT))
                except OSError:  # an interface that is not there
                    continue
            case ["search", *domains]:
                search = domains
            case ["domain", domain, *_]:
                search = [domain]
            case ["options", *words]:
                options |= _numbers(words)
    return Directions(
        servers=tuple(servers[:MAX_SERVERS]) or (_server("127.0.0.1", PORT),),
        search=tuple(domain.rstrip(".") for domain in search[:MAX_SEARCH] if _is_domain(domain)),
        ndots=min(options.get("ndots", 1), MOST_DOTS),
        timeout=float(min(max(options["timeout"], 1), LONGEST_TIMEOUT)) if "timeout" in options else timeout,
        tries=min(max(options.get("attempts", TRIES), 1), MOST_TRIES),
    )


def _numbers(words: Iterable[str]) -> dict[str, int]:
    found = {}
    for word in words:
        name, _, number = word.partition(":")
        if number.isascii() and number.isdigit() and len(number) < 9:
            found[name] = int(number)
    return found


def _is_domain(text: str) -> bool:
    try:
        parse_host(text)
    except ValueError:
        return False
    return not is_address(text)
