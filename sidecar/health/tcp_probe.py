"""A TCP check: whether a connection is accepted, and secured over TLS. What is behind it is not known here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.health.connection import connect, conversation

if TYPE_CHECKING:
    from sidecar.health.connection import Resolve
    from sidecar.tls.client import ClientTls

__all__ = ["TcpProbe"]


class TcpProbe:
    """Connects, and closes at once."""

    __slots__ = ("_greeting",)

    question = "connect"

    def __init__(self, greeting: bytes = b"") -> None:
        self._greeting = greeting

    async def ask(self, host: str, port: int, resolve: Resolve, tls: ClientTls | None = None) -> None:
        """Raises UnwellError, OSError; see `probes.Probe`."""
        if tls is not None:
            async with conversation(host, port, resolve, self._greeting, tls):
                return
        sock = await connect(host, port, resolve, self._greeting)
        sock.close()
