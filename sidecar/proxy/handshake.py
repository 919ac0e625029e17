"""The TLS handshake with an endpoint, between the moment that a `Dial` has connected and its protocol's start.

The one with a client is `entrance`'s.
"""

from __future__ import annotations

from contextlib import suppress
from ssl import SSLError
from typing import TYPE_CHECKING, Any

from sidecar.model import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.model import EndpointState
    from sidecar.net.tls import TlsTransport
    from sidecar.proxy.secure import ClientTls

__all__ = ["ToEndpoint"]


class ToEndpoint:
    """An `Owner` (see `net.tls`).

    The session of the endpoint's last full handshake is offered (RFC 8446 2.2, RFC 5077): one for each endpoint, and
    only by the `ClientTls` that it was made with, as another one may trust or be somebody else. A server that does not
    want it makes a full handshake, after which that one's session is kept instead.

    told: called once, with the protocol and SUCCESS or with None and what `ClientTls.failed` says; not after `cancel`.
    """

    __slots__ = ("_endpoint", "_factory", "_secure", "_tls", "_told")

    def __init__(
        self,
        secure: ClientTls,
        endpoint: EndpointState,
        factory: Callable[[], Any],
        told: Callable[[Any, Outcome], None],
    ) -> None:
        self._secure = secure
        self._endpoint = endpoint
        self._factory: Callable[[], Any] | None = factory
        self._told: Callable[[Any, Outcome], None] | None = told
        self._tls: TlsTransport | None = None  # from the start to the end of the handshake

    def start(self, tls: TlsTransport) -> None:
        """The connection below stands, and all has been said that is said before TLS."""
        self._tls = tls
        try:
            made = self._secure.wrap(tls.incoming, tls.outgoing, self._endpoint.endpoint)
        except (OSError, ValueError) as error:  # a host that can be no name of a certificate, say
            tls.abort()
            self.unsecured(tls, error)
            return
        kept: Any = self._endpoint.tls_session
        if kept is not None and kept[0] is self._secure:
            with suppress(ValueError):  # the context has been renewed since
                made.session = kept[1]
        tls.start(made)

    def cancel(self) -> None:
        """Nobody wants it any more."""
        tls, self._tls = self._tls, None
        self._factory = self._told = None
        if tls is not None:
            tls.abort()

    # What the transport tells

    def connected(self, tls: TlsTransport) -> None:
        """The `Dial` says when to start."""

    def secured(self, tls: TlsTransport) -> None:
        """The handshake is over: whose certificate is it?"""
        factory, told = self._factory, self._told
        assert factory is not None
        assert told is not None
        try:
            self._secure.accept(tls.get_extra_info("ssl_object"), self._endpoint.endpoint)
        except SSLError as error:
            tls.close()
            self.unsecured(tls, error)
            return
        self._tls = self._factory = self._told = None
        protocol = factory()
        tls.set_protocol(protocol)
        protocol.connection_made(tls)
        told(protocol, Outcome.SUCCESS)

    def unsecured(self, tls: TlsTransport, error: Exception) -> None:
        """The handshake has failed. One that has not been started is its Dial's to find."""
        told, self._told = self._told, None
        if self._tls is not None and told is not None:
            self._tls = self._factory = None
            told(None, self._secure.failed(self._endpoint.endpoint, error))

    def heard(self, tls: TlsTransport) -> None:
        """With its first bytes, or before, a TLS 1.3 server has sent what its sessions are resumed by (a ticket)."""
        made = tls.get_extra_info("ssl_object")
        if not made.session_reused:
            session = made.session
            if session is not None and (session.has_ticket or (session.id and made.version() == "TLSv1.2")):
                self._endpoint.tls_session = (self._secure, session)

    def refused(self, tls: TlsTransport, error: Exception) -> None:
        """It does not want this sidecar's certificate, as a rule: the exchange sees a reset, and the log says why."""
        self._secure.failed(self._endpoint.endpoint, error)
