"""What a request or session hashes to, for the policy that sends the same key to the same endpoint (`ring_hash`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.balance.keys import key_of

if TYPE_CHECKING:
    from asyncio import Transport

    from sidecar.cluster import Cluster
    from sidecar.http1.message import RequestHead
    from sidecar.proxy.downstream import DownstreamConnection

__all__ = ["client_key", "request_key"]


def request_key(head: RequestHead, client: DownstreamConnection, cluster: Cluster) -> int:
    """The key, 0 to 2**64 - 1, of what the policy's `hash_on` names; by chance when the request has none of it."""
    kind, _, name = cluster.policy.hash_on.partition(":")
    if kind == "client":
        return client_key(client.transport, client.peer)
    if kind == "path":
        value: bytes | None = head.target.partition(b"?")[0]
    else:
        value = head.field(name.lower().encode("ascii") if kind == "header" else b"cookie")
        if kind == "cookie" and value is not None:
            value = _cookie(value, name.encode("ascii"))
    return cluster.any_key() if value is None else key_of(value)


def client_key(transport: Transport, peer: tuple[str, int] | None) -> int:
    """The key of the client's address, without its port. peer: as a PROXY header names it.

    Clients of a unix socket have none, and all the same key.
    """
    found = peer or transport.get_extra_info("peername")
    return key_of(str(found[0]).encode() if isinstance(found, tuple) else b"")


def _cookie(value: bytes, name: bytes) -> bytes | None:
    """One cookie's value in a Cookie field (RFC 6265 4.2.1)."""
    for pair in value.split(b";"):
        key, _, found = pair.strip().partition(b"=")
        if key == name:
            return found
    return None
