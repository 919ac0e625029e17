"""How the endpoints of one upstream are spoken to: `proxy.secure.ClientTls`, and the same for health checks."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from sidecar.tls.contexts import Made, client_context
from sidecar.tls.failures import suffix
from sidecar.tls.names import check_identity, expected_name
from sidecar.tls.renewed import ENDPOINT, Renewed
from sidecar.tls.why import Why, why

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Hashable

    from sidecar.config.doors import ClientTlsSettings
    from sidecar.model import Endpoint, Outcome

__all__ = ["ClientTls"]

_log = logging.getLogger("sidecar.tls")


class ClientTls(Renewed):
    """Of one upstream. protocol: `http`, `redis` or `tcp`."""

    def __init__(
        self, upstream: str, settings: ClientTlsSettings, protocol: str, monotonic: Callable[[], float]
    ) -> None:
        files = (settings.ca, settings.cert, settings.key)
        super().__init__(f"{upstream}: tls to its endpoints", ENDPOINT, files, monotonic)
        self.upstream = upstream
        self.settings = settings
        self.protocol = protocol

    def load(self) -> Made:
        """See `Renewed`."""
        return client_context(self.settings, self.protocol)

    @property
    def alike(self) -> Hashable:
        """Whoever is equal in this has a context that is."""
        identity = ("any",) if self.settings.identity else ()
        return replace(self.settings, server_name="", identity=identity), self.protocol

    def server_name(self, host: str) -> str:
        """What is asked for by SNI at an endpoint, where it is a name, and what its certificate has to be of."""
        return expected_name(self.settings.server_name, host)

    def wrap(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, endpoint: Endpoint) -> ssl.SSLObject:
        """See `proxy.secure`."""
        return self.context.wrap_bio(incoming, outgoing, server_hostname=self.server_name(endpoint.host))

    def check(self, tls: ssl.SSLObject) -> None:
        """Raises IdentityError where the other side of a finished handshake is none of `identity`."""
        if self.settings.identity:
            check_identity(tls, self.settings.identity)

    def accept(self, tls: ssl.SSLObject, _endpoint: Endpoint) -> None:
        """See `proxy.secure`."""
        self.check(tls)

    def why(self, host: str, error: Exception) -> Why:
        """What the end of a handshake with an endpoint on `host` means."""
        return why(error, self.server_name(host))

    def failed(self, endpoint: Endpoint, error: Exception) -> Outcome:
        """See `proxy.secure`."""
        found = self.why(endpoint.host, error)
        left_out = self._note(found.outcome, endpoint.key)
        if left_out is not None:
            more = suffix(left_out)
            _log.warning(
                "%s: %s: %s: %s%s", self.upstream, endpoint.address, found.outcome.label, found, more
            )
        return found.outcome
