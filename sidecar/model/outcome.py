"""How one attempt at an endpoint, or one relayed session, ended."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["CloseReason", "Outcome", "outcomes_by_status"]


class Outcome(IntEnum):
    """How one attempt at one endpoint ended; the `outcome` label of `sidecar_attempts_total`.

    The value indexes `EndpointState.attempts`. `is_failure` says what a breaker counts: connection
    failures, timeouts, resets, malformed responses and 502/503/504 (behaviour 26).
    """

    SUCCESS = 0
    FAILURE_STATUS = 1
    CONNECT_REFUSED = 2
    CONNECT_TIMEOUT = 3
    REQUEST_TIMEOUT = 4
    RESET = 5
    BAD_RESPONSE = 6
    TOO_MANY_REQUESTS = 7
    CANCELLED = 8
    IDLE_RACE = 9
    LOCAL_SHORTAGE = 10
    OUTRUN = 11  # another endpoint, asked later, has answered first (`hedge_after`)
    TLS_EXPIRED = 12  # its certificate is out of date, or not valid yet
    TLS_WRONG_HOST = 13  # its certificate is somebody else's: another host's, or none of `tls.identity`
    TLS_UNKNOWN_CA = 14  # nobody who is trusted has signed it
    TLS_FAILED = 15  # any other end of the handshake

    @property
    def label(self) -> str:
        """The name as metrics and JSON spell it."""
        return self.name.lower()

    @property
    def is_failure(self) -> bool:
        """Whether the endpoint is to blame. 429 fails only a half-open probe; three are not its fault."""
        return Outcome.FAILURE_STATUS <= self <= Outcome.BAD_RESPONSE or self >= Outcome.OUTRUN


def outcomes_by_status(failures: Iterable[int]) -> dict[int, Outcome]:
    """What a response's status says about the endpoint, given those that are failures; any other is a success."""
    return {429: Outcome.TOO_MANY_REQUESTS, **dict.fromkeys(failures, Outcome.FAILURE_STATUS)}


class CloseReason(IntEnum):
    """Why a relayed TCP session ended; the `close_reason` label of `sidecar_tcp_sessions_total`."""

    CLIENT_CLOSED = 0
    ENDPOINT_CLOSED = 1
    CLIENT_RESET = 2
    ENDPOINT_RESET = 3
    NO_ENDPOINTS = 4
    ALL_OPEN = 5
    CONNECT_FAILED = 6
    OVERFLOW = 7
    IDLE_TIMEOUT = 8
    DRAINING = 9
    ENDPOINT_UNHEALTHY = 10
    RATE_LIMITED = 11

    @property
    def label(self) -> str:
        """The name as metrics spell it."""
        return self.name.lower()

    @property
    def is_failure(self) -> bool:
        """Whether the application was let down: it got no endpoint, or the endpoint or the sidecar cut it off."""
        return self in _FAILURES


# All endpoints drained is DRAINING too, as is the end of the sidecar, which resets what is left.
_FAILURES = frozenset(
    (
        CloseReason.ENDPOINT_RESET,
        CloseReason.NO_ENDPOINTS,
        CloseReason.ALL_OPEN,
        CloseReason.CONNECT_FAILED,
        CloseReason.OVERFLOW,
        CloseReason.DRAINING,
        CloseReason.RATE_LIMITED,
    )
)
