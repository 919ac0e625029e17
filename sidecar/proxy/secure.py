"""TLS on the data path: what the connections of endpoints and listeners know of certificates.

The contexts behind these are made and renewed elsewhere (`sidecar.tls`); nothing here reads a file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ssl import MemoryBIO, SSLObject

    from sidecar.model import Endpoint, Outcome

__all__ = ["ClientTls", "ServerTls"]


class ClientTls(Protocol):
    """How the endpoints of one upstream are spoken to."""

    def wrap(self, incoming: MemoryBIO, outgoing: MemoryBIO, endpoint: Endpoint) -> SSLObject:
        """One connection's TLS, by the present context: SNI and expected name are those for `endpoint`."""

    def accept(self, tls: SSLObject, endpoint: Endpoint) -> None:
        """Called after the handshake. Raises ssl.SSLError when the endpoint is not one of `tls.identity`."""

    def failed(self, endpoint: Endpoint, error: Exception) -> Outcome:
        """A handshake has ended so: TLS_EXPIRED, TLS_WRONG_HOST, TLS_UNKNOWN_CA or TLS_FAILED. Noted, and logged."""


class ServerTls(Protocol):
    """How clients of one listener are spoken to."""

    def wrap(self, incoming: MemoryBIO, outgoing: MemoryBIO) -> SSLObject:
        """One connection's TLS, by the present context."""

    def accept(self, tls: SSLObject) -> None:
        """Called after the handshake. Raises ssl.SSLError when the client is not one of those that may come."""

    def failed(self, error: Exception) -> None:
        """A handshake has ended so. Noted, and logged."""
