"""What can go wrong, by phase, and the one `Reason` enum that names it to applications and operators.

`Reason` is a contract: the `x-sidecar-error` header, the access log and the metrics' `reason` label
all use its lower-case names, and nothing else ever appears there.
"""

from __future__ import annotations

import errno
from enum import IntEnum
from typing import Final

__all__ = [
    "OWN_SHORTAGES",
    "ConfigurationError",
    "ExportError",
    "NoEndpointsError",
    "ProtocolError",
    "Reason",
    "SidecarError",
    "SourceError",
    "StartError",
    "UnknownUpstreamError",
    "UnreadableError",
]

# No descriptor or buffer left on this side: nothing that an endpoint did. EADDRNOTAVAIL is not among them: it means
# that the local ports are used up, but also that this host has no address of the endpoint's family.
OWN_SHORTAGES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Reason(IntEnum):
    """Why an exchange ended as it did. The value indexes the statistics arrays, so order only grows at the end."""

    NONE = 0
    NO_ENDPOINTS = 1
    ALL_OPEN = 2
    OVERFLOW = 3
    CONNECT_REFUSED = 4
    CONNECT_TIMEOUT = 5
    REQUEST_TIMEOUT = 6
    RESET_BEFORE_HEADERS = 7
    RESET_AFTER_HEADERS = 8
    BAD_RESPONSE = 9
    BAD_REQUEST = 10
    TOO_LARGE = 11
    CLIENT_GONE = 12
    RETRY_BUDGET = 13
    DRAINING = 14
    TLS_EXPIRED = 15
    TLS_WRONG_HOST = 16
    TLS_UNKNOWN_CA = 17
    TLS_FAILED = 18
    NO_ROUTE = 19
    RATE_LIMITED = 20

    @property
    def label(self) -> str:
        """The name as headers, logs and metrics spell it, for example `all_open`."""
        return self.name.lower()


class SidecarError(Exception):
    """Everything this package raises on purpose. Its text is one line that says what, where and what to do."""


class ConfigurationError(SidecarError):
    """The configuration cannot be used. `findings` holds every problem found, one line each, in file order."""

    def __init__(self, findings: list[str]) -> None:
        super().__init__("\n".join(findings))
        self.findings = findings


class UnreadableError(ConfigurationError):
    """There is no configuration to look into: the file cannot be read at all."""


class UnknownUpstreamError(SidecarError, KeyError):
    """A name that is neither a service nor a load balancer. A `KeyError` too, as a mapping's user expects."""

    def __str__(self) -> str:
        return str(self.args[0])


class SourceError(SidecarError):
    """A registry cannot be asked, or its answer cannot be used. What it said before still holds."""


class NoEndpointsError(SourceError, LookupError):
    """Nobody serves an upstream, as far as is known. problem: without what to do about it."""

    def __init__(self, problem: str, advice: str) -> None:
        super().__init__(f"{problem}; {advice}")
        self.problem = problem


class StartError(SidecarError):
    """The sidecar cannot start: a port is taken, an address does not exist, a permission is missing."""


class ExportError(SidecarError):
    """A configuration cannot be said in the words of what it is exported to."""


class ProtocolError(SidecarError):
    """Bytes on the wire that are not acceptable HTTP/1.1.

    status: the answer they deserve when they came from the application (400, 413, 414, 431, 501, 505).
    reason: `BAD_REQUEST` or `TOO_LARGE`; a malformed response is always answered 502 `BAD_RESPONSE`.
    passed: of a body, what came before the fault with the same bytes and is well formed.
    """

    def __init__(self, message: str, status: int = 400, reason: Reason = Reason.BAD_REQUEST) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.passed = b""
