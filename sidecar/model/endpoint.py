"""An endpoint: what it is (frozen) and what has become of it (mutable)."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Protocol

from sidecar.model.outcome import Outcome
from sidecar.model.stats import zeros
from sidecar.net.unix import is_unix

if TYPE_CHECKING:
    from array import array

    from sidecar.model.check import CheckResult
    from sidecar.pool import EndpointPool
    from sidecar.resilience.breaker import Breaker

__all__ = ["SAYS_NOTHING", "Endpoint", "EndpointState"]

# Outcomes that tell nothing of how long an endpoint takes to answer.
SAYS_NOTHING = (Outcome.CANCELLED, Outcome.LOCAL_SHORTAGE, Outcome.IDLE_RACE)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One host and port that serves an upstream, as a source names it; or `unix:PATH` (`net.unix`) and 0.

    weight: its share of the requests relative to its neighbours, 1 to 256.
    zone: where it runs, as the deployment calls it; empty when nobody says.
    """

    host: str
    port: int
    weight: int = 1
    zone: str = ""

    @property
    def key(self) -> tuple[str, int]:
        """The identity that statistics and breaker state are kept under while other attributes change."""
        return self.host, self.port

    @property
    def address(self) -> str:
        """`host:port`, IPv6 in brackets, or `unix:PATH`: the metrics' `endpoint` label."""
        if ":" not in self.host:
            return f"{self.host}:{self.port}"
        return self.host if is_unix(self.host) else f"[{self.host}]:{self.port}"

    @property
    def authority(self) -> str:
        """The default Host (RFC 9110 7.2): the address; of a unix socket `localhost`, as curl and nginx send it."""
        return "localhost" if is_unix(self.host) else self.address


class EndingWithIt(Protocol):
    """A session whose endpoint may leave."""

    def endpoint_left(self) -> None:
        """The endpoint is out of rotation, or has gone."""


class EndpointState:
    """Everything that changes about one endpoint of one upstream. Made and dropped by `Cluster.apply` alone.

    authority: what requests to it carry as Host; empty keeps the application's.
    attempts: counts by `Outcome`. attempt_seconds: what those took that say something of it (`timed_attempts`), until
    the head of a response, or a session's connection, was there.
    in_flight: exchanges and sessions that are at this endpoint now.
    drained: somebody wants it out of rotation until it is enabled; what is busy may finish, sessions too while it is
    well.
    removed: the source no longer names it; what is busy may finish, nothing is pooled.
    in_rotation: it may be picked: its breaker lets requests through, or is disregarded. Connections are kept for it.
    weight: what balancing goes by: the endpoint's own, in tenths of it while any of the upstream starts slowly.
    since: when it came, or its breaker closed last, monotonic seconds; minus infinity for those of the start.
    sessions: that end with its place in the rotation (`close_on_unhealthy`).
    last_check: what its last health check found; None before the first, and where none is made.
    tls_session: of its last full handshake, see `proxy.dial`; None before it, and in the clear.
    latency: of its attempts, seconds, as `peak_ewma` has it; 0 before the first. latency_at: when that was.
    """

    __slots__ = (
        "_attempts",
        "_totals",
        "attempt_seconds",
        "attempts",
        "authority",
        "breaker",
        "drained",
        "endpoint",
        "in_flight",
        "in_rotation",
        "last_check",
        "latency",
        "latency_at",
        "pool",
        "removed",
        "sessions",
        "since",
        "tls_session",
        "weight",
    )

    def __init__(
        self,
        endpoint: Endpoint,
        authority: bytes,
        breaker: Breaker,
        pool: EndpointPool,
        totals: array[int] | None = None,
    ) -> None:
        """totals: where attempts are counted too, with those of others."""
        self.endpoint = endpoint
        self.authority = authority
        self.breaker = breaker
        self.pool = pool
        self.attempts = zeros(len(Outcome))
        self._attempts = self.attempts  # as compiled code sees it
        self._totals = zeros(len(Outcome)) if totals is None else totals
        self.attempt_seconds = 0.0
        self.in_flight = 0
        self.drained = False
        self.removed = False
        self.in_rotation = True
        self.sessions: set[EndingWithIt] = set()
        self.weight = endpoint.weight
        self.since = -inf
        self.last_check: CheckResult | None = None
        self.tls_session: object = None
        self.latency = 0.0
        self.latency_at = 0.0

    def resume(self, attempts: array[int], seconds: float) -> None:
        """Count on from `attempts` and their `seconds`: it is an endpoint that was there before."""
        self.attempts = attempts
        self._attempts = attempts
        self.attempt_seconds = seconds

    @property
    def timed_attempts(self) -> int:
        """How many attempts `attempt_seconds` is of."""
        return sum(self.attempts) - sum([self.attempts[outcome] for outcome in SAYS_NOTHING])

    def count(self, outcome: int) -> None:
        """An attempt has ended so."""
        self._attempts[outcome] += 1
        self._totals[outcome] += 1

    def __repr__(self) -> str:
        return f"<EndpointState {self.endpoint.address} {self.breaker.state.label}>"
