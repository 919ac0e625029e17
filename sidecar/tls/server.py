"""How clients of one listener are spoken to: `proxy.secure.ServerTls`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sidecar.tls.contexts import Made, server_context
from sidecar.tls.failures import suffix
from sidecar.tls.names import check_identity
from sidecar.tls.renewed import LISTENER, Renewed
from sidecar.tls.why import why

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from sidecar.config.doors import ServerTlsSettings

__all__ = ["ServerTls"]

_log = logging.getLogger("sidecar.tls")


class ServerTls(Renewed):
    """Of the listener of one upstream. protocol: `http`, `redis` or `tcp`."""

    def __init__(
        self, upstream: str, settings: ServerTlsSettings, protocol: str, monotonic: Callable[[], float]
    ) -> None:
        files = (settings.cert, settings.key, settings.client_ca)
        super().__init__(f"{upstream}: tls of its listener", LISTENER, files, monotonic)
        self.upstream = upstream
        self.settings = settings
        self.protocol = protocol

    def load(self) -> Made:
        """See `Renewed`."""
        return server_context(self.settings, self.protocol)

    def wrap(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> ssl.SSLObject:
        """See `proxy.secure`."""
        return self.context.wrap_bio(incoming, outgoing, server_side=True)

    def accept(self, tls: ssl.SSLObject) -> None:
        """See `proxy.secure`."""
        if self.settings.identity:
            check_identity(tls, self.settings.identity)

    def failed(self, error: Exception) -> None:
        """See `proxy.secure`. Clients are not told apart in the log: anybody who can connect may fail."""
        found = why(error, "", client=True)
        left_out = self._note(found.outcome, None)
        if left_out is not None:
            more = suffix(left_out)
            _log.warning("%s: a client: %s: %s%s", self.upstream, found.outcome.label, found, more)
