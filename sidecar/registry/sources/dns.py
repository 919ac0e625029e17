"""DNS as a registry: the addresses of host names (RFC 1035, RFC 3596), or the places of a service (SRV, RFC 2782).

Each upstream is a stream of its own, and is asked for again when the least TTL of what was said is over. All or
nothing: a snapshot is made where every name of it has an answer, be it that there is no such name.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sidecar.config.addresses import parse_host, parse_port
from sidecar.errors import SourceError
from sidecar.model import Endpoint, Snapshot
from sidecar.registry.dns.answer import by_number, serves_nobody
from sidecar.registry.dns.client import Client
from sidecar.registry.dns.directions import TIMEOUT, NameServers
from sidecar.registry.dns.resolver import Resolver
from sidecar.registry.sources.source import MAX_ENDPOINTS, Source
from sidecar.resilience.backoff import full_jitter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

    from sidecar.config.settings import RegistrySettings
    from sidecar.registry.dns.resolver import Located
    from sidecar.registry.sources.source import Surroundings, Wanted

__all__ = ["DnsSource"]

SHORTEST, LONGEST = (
    1.0,
    30.0,
)  # seconds until a name is asked for again, whatever its TTL (behaviour.md, Defaults)
JITTER = 0.1  # by which the wait may be shorter: what was asked for together is not to be asked for together ever after
AT_ONCE = 128  # upstreams that are asked for at the same moment; a round's seconds begin when it is its turn
MAX_WEIGHT = 256  # of an endpoint
MAX_TOLD = (
    1000  # entries left out that are remembered as told; after that they are forgotten, and told once more
)

_log = logging.getLogger("sidecar.registry")


class _Found(NamedTuple):
    """What one round has found. ttl: seconds."""

    endpoints: tuple[Endpoint, ...]
    ttl: float


class DnsSource(Source):
    """Asks the name servers in `settings.hosts`, or those of resolv.conf.

    sleep: how to wait until a name is asked for again. timeout: seconds for one try at one server, unless resolv.conf
    says it. resolv_conf: where that file is.
    """

    def __init__(
        self,
        settings: RegistrySettings,
        surroundings: Surroundings,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        timeout: float = TIMEOUT,
        resolv_conf: Path = Path("/etc/resolv.conf"),
    ) -> None:
        super().__init__(settings.name)
        self._clock = surroundings.clock
        self._sleep = sleep
        self._name_servers = NameServers(settings.hosts, timeout, surroundings, resolv_conf)
        self._client = Client(self._name_servers, surroundings.clock)
        # Two signs of life in the time after which there would have to be one.
        self._longest = max(SHORTEST, min(LONGEST, settings.stale_after / 2))
        self._rounds = asyncio.Semaphore(AT_ONCE)
        self._told: set[tuple[str, str]] = set()

    def streams(self, wanted: Sequence[Wanted]) -> list[tuple[Wanted, ...]]:
        """One for each: names have TTLs of their own, and fail alone."""
        return [(one,) for one in wanted]

    async def watch(self, wanted: Sequence[Wanted]) -> AsyncIterator[Snapshot | None]:
        """As `Source.watch`, of one upstream. No such name is an empty snapshot, and so is one without addresses.

        Failures are SourceErrors that name the name, each server and what it did.
        """
        (one,) = wanted
        resolver = Resolver(self._client, self._name_servers, self._clock)
        last: Snapshot | None = None
        empty = 0
        while True:
            async with self._rounds:
                resolver.begin()
                found = await self._find(one, resolver)
            snapshot = Snapshot(one.upstream, found.endpoints, self.name)
            changed = snapshot != last
            last = snapshot
            yield snapshot if changed else None
            empty = 0 if found.endpoints else empty + 1
            await self._sleep(self._pause(found.ttl, empty))

    def _pause(self, ttl: float, empty: int) -> float:
        """Seconds until the next round. empty: how many rounds have found nothing in a row.

        Nobody says how long there will be nothing, so that this is a back-off.
        """
        chance = self._clock.uniform()
        if empty:
            most = self._longest - SHORTEST
            return SHORTEST + full_jitter(empty - 1, SHORTEST, most, chance)
        return min(max(ttl, SHORTEST), self._longest) * (1.0 - JITTER * chance)

    async def _find(self, wanted: Wanted, resolver: Resolver) -> _Found:
        if wanted.service.startswith("_") or wanted.port == "srv":
            found = await self._services(wanted, resolver)
        elif wanted.service:
            endpoint = Endpoint(_host(wanted), _port(wanted))
            found = await self._hosts(wanted, (endpoint,), resolver)
        elif wanted.endpoints:
            found = await self._hosts(wanted, wanted.endpoints, resolver)
        else:
            raise SourceError(
                f"{wanted.upstream}: there is no name to ask for; write `service:`, or hosts with names"
            )
        if len(found.endpoints) > MAX_ENDPOINTS:
            self._tell(
                wanted, "too many", f"only {MAX_ENDPOINTS} of {len(found.endpoints)} endpoints are used"
            )
        return found._replace(endpoints=found.endpoints[:MAX_ENDPOINTS])

    async def _hosts(self, wanted: Wanted, hosts: Sequence[Endpoint], resolver: Resolver) -> _Found:
        """Each address is an endpoint like its host; of two hosts with one address and port the first holds."""
        names = sorted({endpoint.host for endpoint in hosts})
        located = await resolver.together([resolver.addresses(name) for name in names])
        by_name = dict(zip(names, located, strict=True))
        endpoints = [
            Endpoint(address, host.port, host.weight, host.zone)
            for host in hosts
            for address in self._usable(wanted, host.host, by_name[host.host].found)
        ]
        ttl = min((addresses.ttl for addresses in located if addresses.found), default=0)
        return _Found(_in_order(endpoints), ttl)

    async def _services(self, wanted: Wanted, resolver: Resolver) -> _Found:
        services = await resolver.services(_host(wanted))
        for target in services.missing:
            self._tell(wanted, target, f"the target {target} of {wanted.service} (SRV) has no address")
        usable = []
        for place in services.found:
            if not place.record.port:
                self._tell(wanted, place.record.target, f"the target {place.record.target} (SRV) has port 0")
                continue
            addresses = self._usable(wanted, place.record.target, place.addresses)
            if addresses:
                usable.append(place._replace(addresses=tuple(addresses)))
        weights = _weights(usable)
        endpoints = [
            Endpoint(address, place.record.port, weight)
            for place, weight in zip(usable, weights, strict=True)
            for address in place.addresses
        ]
        return _Found(_in_order(endpoints), services.ttl)

    def _usable(self, wanted: Wanted, name: str, addresses: Iterable[str]) -> list[str]:
        """Those that one can connect to: 0.0.0.0, which filters answer for names that they block, is this machine."""
        usable = []
        for address in addresses:
            if serves_nobody(address):
                self._tell(
                    wanted, f"{name} {address}", f"{name} has the address {address}, which serves nobody"
                )
            else:
                usable.append(address)
        return usable

    def _tell(self, wanted: Wanted, entry: str, words: str) -> None:
        """Warn that an entry is left out, once for each."""
        key = wanted.upstream, entry
        if key in self._told:
            return
        if len(self._told) >= MAX_TOLD:
            self._told.clear()
        self._told.add(key)
        _log.warning("%s: %s: %s; left out", self.name, wanted.upstream, words)


def _host(wanted: Wanted) -> str:
    if not wanted.service:
        raise SourceError(
            f"{wanted.upstream}: `port: srv` asks for SRV records, of a name that `service:` has to say"
        )
    try:
        return parse_host(wanted.service)
    except ValueError as error:
        raise SourceError(f"{wanted.upstream}: service `{wanted.service}` {error}") from None


def _port(wanted: Wanted) -> int:
    if not wanted.port:
        if wanted.default_port:
            return wanted.default_port
        raise SourceError(
            f"{wanted.upstream}: DNS tells no port of {wanted.service}; write `port:` with its number, or `srv`"
        )
    try:
        return parse_port(wanted.port)
    except ValueError:
        raise SourceError(
            f"{wanted.upstream}: port `{wanted.port}` is neither a number from 1 to 65535 nor `srv`, all that DNS knows"
        ) from None


def _weights(places: Sequence[Located]) -> list[int]:
    """Of each address of each target, so that targets share as their records say (RFC 2782, Weight).

    0 is 1: next to others that is the very small chance that the RFC wants. Where targets have several addresses, those
    share their target's weight. What is above 256 makes all smaller in proportion.
    """
    most = max((len(place.addresses) for place in places), default=1)
    shares = [max(place.record.weight, 1) * most / len(place.addresses) for place in places]
    scale = min(1.0, MAX_WEIGHT / max(shares, default=1.0))
    return [max(1, round(share * scale)) for share in shares]


def _in_order(endpoints: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
    """By address and port, each once: the first of those with the same."""
    by_key: dict[tuple[str, int], Endpoint] = {}
    for endpoint in endpoints:
        by_key.setdefault(endpoint.key, endpoint)
    place = {address: position for position, address in enumerate(by_number(host for host, _ in by_key))}
    return tuple(by_key[key] for key in sorted(by_key, key=lambda key: (place[key[0]], key[1])))
