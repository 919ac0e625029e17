"""A TCP check: whether a connection is accepted. What is behind it is not known here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.health.connection import connect

if TYPE_CHECKING:
    from sidecar.health.connection import Resolve

__all__ = ["TcpProbe"]


class TcpProbe:
    """Connects, and closes at once."""

    __slots__ = ("_greeting",)

    question = "connect"

    def __init__(self, greeting: bytes = b"") -> None:
        self._greeting = greeting

    async def ask(self, host: str, port: int, resolve: Resolve) -> None:
        """Raises OSError; see `probes.Probe`."""
        sock = await connect(host, port, resolve, self._greeting)
        sock.close()
