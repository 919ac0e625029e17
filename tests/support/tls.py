"""TLS of a test's own: certificates made on the spot, peers in memory, and what stands for the sidecar's contexts."""

import contextlib
import ssl
from collections.abc import Callable
from functools import cache
from ssl import MemoryBIO, SSLObject
from typing import Any

import trustme

from sidecar.model import Endpoint, Outcome

__all__ = ["ANY_NAME", "ClientDouble", "ServerDouble", "TlsPeer", "client_context", "server_context"]

ANY_NAME = "service.example"


@cache
def _authority(name: str) -> trustme.CA:
    return trustme.CA(organization_name=name)


@cache
def client_context(*, authority: str = "test", version: str = "", own: str = "") -> ssl.SSLContext:
    """Trusts `authority`. version: `1.2` is the highest then. own: who signs the certificate that it shows."""
    context = ssl.create_default_context()
    context.options |= ssl.OP_NO_RENEGOTIATION
    _authority(authority).configure_trust(context)
    if own:
        _authority(own).issue_cert("client.example").configure_cert(context)
    if version == "1.2":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


@cache
def server_context(*, authority: str = "test", version: str = "", clients: str = "") -> ssl.SSLContext:
    """Of `service.example` and 127.0.0.1, signed by `authority`. clients: who has to have signed theirs."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _authority(authority).issue_cert(ANY_NAME, "127.0.0.1", "localhost").configure_cert(context)
    if version == "1.2":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    if clients:
        context.verify_mode = ssl.CERT_REQUIRED
        _authority(clients).configure_trust(context)
    return context


class ClientDouble:
    """A `proxy.secure.ClientTls`. failures: (endpoint, error) as they came. refuse: what `accept` raises."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.context = context or client_context()
        self.failures: list[tuple[Endpoint, Exception]] = []
        self.wrapped: list[SSLObject] = []
        self.refuse: ssl.SSLError | None = None

    def wrap(self, incoming: MemoryBIO, outgoing: MemoryBIO, endpoint: Endpoint) -> SSLObject:
        made = self.context.wrap_bio(incoming, outgoing, server_hostname=ANY_NAME)
        self.wrapped.append(made)
        return made

    def accept(self, tls: SSLObject, endpoint: Endpoint) -> None:
        if self.refuse is not None:
            raise self.refuse

    def failed(self, endpoint: Endpoint, error: Exception) -> Outcome:
        self.failures.append((endpoint, error))
        if isinstance(error, ssl.SSLCertVerificationError):
            return Outcome.TLS_UNKNOWN_CA
        return Outcome.TLS_FAILED


class ServerDouble:
    """A `proxy.secure.ServerTls`."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.context = context or server_context()
        self.failures: list[Exception] = []
        self.refuse: ssl.SSLError | None = None

    def wrap(self, incoming: MemoryBIO, outgoing: MemoryBIO) -> SSLObject:
        return self.context.wrap_bio(incoming, outgoing, server_side=True)

    def accept(self, tls: SSLObject) -> None:
        if self.refuse is not None:
            raise self.refuse

    def failed(self, error: Exception) -> None:
        self.failures.append(error)


class TlsPeer:
    """The other side of a connection in memory, without a transport: records go in and out.

    received: plain text so far. ended: it has been told the end (close_notify).
    """

    def __init__(self, *, server: bool, context: ssl.SSLContext | None = None) -> None:
        self._incoming, self._outgoing = MemoryBIO(), MemoryBIO()
        context = context or (server_context() if server else client_context())
        name = None if server else ANY_NAME
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server, server_hostname=name)
        self.established = False
        self.received = b""
        self.ended = False

    def take(self, records: bytes) -> None:
        """Records of the other side."""
        self._incoming.write(records)
        try:
            if not self.established:
                self.tls.do_handshake()
                self.established = True
            while not self.ended:
                piece = self.tls.read(65536)
                self.received += piece
                self.ended = not piece
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True

    def records(self) -> bytes:
        """What it has to say."""
        return self._outgoing.read()

    def says(self, data: bytes) -> bytes:
        """`data`, and whatever else was to be said, as records."""
        while data:
            data = data[self.tls.write(data) :]
        return self.records()

    def bids_farewell(self) -> bytes:
        """close_notify, as a record."""
        with contextlib.suppress(ssl.SSLError):
            self.tls.unwrap()
        return self.records()


def hands_shaken(transport: Any, peer: TlsPeer, split: Callable[[bytes], list[bytes]] | None = None) -> None:
    """Let a `MemoryTransport`, whose protocol is a TLS one, and its peer finish their handshake.

    split: how what the peer says is cut.
    """
    for _ in range(4):
        peer.take(transport.taken())
        said = peer.records()
        for piece in split(said) if split else [said]:
            if piece:
                transport.feed(piece)
    peer.take(transport.taken())
    assert peer.established
