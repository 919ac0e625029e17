"""Announcing services in etcd: each has a key under a lease of its own, and goes with it.

https://etcd.io/docs/v3.5/learning/api/#lease-api. What holds where nobody keeps a lease alive, not even by mistake, is
that its keys are deleted once its time is over.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from sidecar.errors import SourceError
from sidecar.registry.sources.etcd_entries import Entry, entry_key, entry_value
from sidecar.registry.sources.etcd_gateway import NOT_FOUND, Gateway, GatewayError, number, to_base64
from sidecar.registry.sources.source import ANNOUNCE_WITHIN, WITHDRAW_WITHIN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sidecar.config.settings import RegistrationSettings, RegistrySettings
    from sidecar.registry.sources.source import Surroundings

__all__ = ["Leases"]


@dataclass(frozen=True, slots=True)
class _Lease:
    """identity: etcd's, of 64 bits. seconds: for which it lasts when nobody renews it."""

    identity: int
    seconds: int


class Leases:
    """Those of the services that are announced here. Opens its connections when it first needs them."""

    def __init__(self, settings: RegistrySettings, surroundings: Surroundings) -> None:
        self._settings = settings
        self._surroundings = surroundings
        self._held: dict[tuple[str, str], _Lease] = {}
        self._gateway: Gateway | None = None
        self._users = 0
        self._failed = False

    async def announce(self, service: RegistrationSettings) -> None:
        """See `Registrar.announce`. Raises SourceError."""
        async with self._open() as gateway:
            await self._announce(gateway, service)

    async def _announce(self, gateway: Gateway, service: RegistrationSettings) -> None:
        name = (service.name, service.identity)
        seconds = max(1, ceil(service.ttl))  # etcd has whole ones
        lease = self._held.get(name)
        if lease is None or lease.seconds != seconds or not await _renew(gateway, lease):
            lease = self._held[name] = await _grant(gateway, seconds)
        try:
            await _put(gateway, self._key(service), _value(service), lease)
        except GatewayError as error:
            if error.code == NOT_FOUND:  # it has just ended; the next announcement is to have another
                del self._held[name]
            raise

    async def withdraw(self, service: RegistrationSettings) -> None:
        """See `Registrar.withdraw`. Raises SourceError."""
        async with self._open() as gateway:
            await self._withdraw(gateway, service)

    async def _withdraw(self, gateway: Gateway, service: RegistrationSettings) -> None:
        name = (service.name, service.identity)
        lease = self._held.get(name)
        if lease is not None:
            try:
                await gateway.ask("/v3/lease/revoke", {"ID": str(lease.identity)}, WITHDRAW_WITHIN)
            except GatewayError as error:
                if error.code != NOT_FOUND:
                    raise
            self._held.pop(name, None)
        else:  # of an earlier process, perhaps, whose lease is not known
            await gateway.ask("/v3/kv/deleterange", {"key": self._key(service)}, WITHDRAW_WITHIN)

    async def close(self) -> None:
        """Close the connections. Leases stay until they are withdrawn, or their time is over."""
        if self._gateway is not None:
            gateway, self._gateway = self._gateway, None
            await gateway.close()

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Gateway]:
        """The gateway; after an error another, which reads the files of TLS anew, as soon as nobody uses this one."""
        if self._gateway is None:
            self._gateway = Gateway(self._settings, self._surroundings)
        self._users += 1
        try:
            yield self._gateway
        except SourceError:
            self._failed = True
            raise
        finally:
            self._users -= 1
            if self._failed and not self._users:
                self._failed = False
                await self.close()

    def _key(self, service: RegistrationSettings) -> str:
        return to_base64(entry_key(self._settings.prefix, service.name, service.identity))


async def _grant(gateway: Gateway, seconds: int) -> _Lease:
    answer = await gateway.ask("/v3/lease/grant", {"TTL": str(seconds)}, ANNOUNCE_WITHIN)
    lease = number(answer, "ID")
    if not lease:
        raise SourceError("etcd: a lease that was granted has no ID")
    return _Lease(lease, seconds)


async def _renew(gateway: Gateway, lease: _Lease) -> bool:
    """Whether it is still there, and lasts from now on. One that has ended is said to last for 0 seconds."""
    answer = await gateway.ask("/v3/lease/keepalive", {"ID": str(lease.identity)}, ANNOUNCE_WITHIN)
    return number(answer.get("result"), "TTL") > 0


async def _put(gateway: Gateway, key: str, value: str, lease: _Lease) -> None:
    """Write it unless it is there as it should be: each writing is an event for all who watch."""
    found = (await gateway.ask("/v3/kv/range", {"key": key}, ANNOUNCE_WITHIN)).get("kvs")
    one = found[0] if isinstance(found, list) and found and isinstance(found[0], dict) else {}
    if one.get("value") != value or number(one, "lease") != lease.identity:
        question = {"key": key, "value": value, "lease": str(lease.identity)}
        await gateway.ask("/v3/kv/put", question, ANNOUNCE_WITHIN)


def _value(service: RegistrationSettings) -> str:
    return to_base64(entry_value(Entry(service.host, service.port, service.weight, service.zone)))
