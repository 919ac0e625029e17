"""What an upstream's requests may cost and take, as plain values: the configuration's decisions, resolved."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["UpstreamPolicy"]


@dataclass(frozen=True)  # without slots=True, which a class with C attributes neither has nor needs
class UpstreamPolicy:
    """The policies of one upstream. Times in seconds; defaults as in behaviour.md and the seed.

    timeout: how long an exchange may go without progress: from its last request byte to the response head,
        and between any two pieces of a body (HAProxy's `timeout server`, nginx's `proxy_read_timeout`).
    connect_timeout: for one connection to one endpoint, name look-up included.
    idle_timeout: of a pooled connection; of a TCP session, where 0 is off.
    continue_timeout: how long a client that sent Expect: 100-continue waits for the endpoint's word before it is
        asked for the body anyway.
    tunnel_idle_timeout: of a connection that has switched protocols, where 0 is off.
    slow_start: how long a new or recovered endpoint takes to get its whole share; 0 is off.
    zone: the own one, whose endpoints are preferred; empty prefers none.
    hash_on: what ring_hash goes by: `path`, `client`, `header:NAME` or `cookie:NAME`; empty for other strategies.
    max_load: see `balance.Balancing`.
    retries: further attempts after the first, for idempotent requests that went wrong as `retry_on_...` says, and
        for any request that never reached an endpoint.
    retry_on_connect, retry_on_reset, retry_on_timeout, retry_statuses: what another attempt is made for.
    per_try_timeout: how long one attempt may take until its response begins; 0 is off. Then it is tried again.
    hedge_after: seconds without an answer after which another endpoint is asked too; 0 is off.
    backoff_base, backoff_max: how long to wait before an endpoint is tried again that has been tried, see
        `resilience.full_jitter`; a base of 0 is not at all.
    retry_ratio, retry_min: see `resilience.RetryBudget`.
    close_on_unhealthy: TCP sessions and tunnels end when their endpoint leaves the rotation.
    deadline_header: the name, in lower case, of the header in which a request says how long it may take; empty is off.
    host_header: `endpoint` (its authority), `preserve` (the application's), or a name to send.
    breaker_threshold and what follows it: see `resilience.Breaker`.
    failure_statuses: responses that are the endpoint's failure.
    observe_only: breakers move and are counted, and endpoints are picked all the same.
    checked: the sidecar asks its endpoints by itself whether they are well.
    check_rise, check_fall: see `resilience.Breaker`.
    max_ejected, min_available, panic_all: see `resilience.outlier`.
    max_connections: open to all endpoints of the upstream together.
    max_connections_per_endpoint: of these to one endpoint; 0 leaves it to max_connections.
    max_pending: exchanges and sessions that wait for one of them.
    pending_timeout: how long one may wait; no longer than `timeout`.
    max_in_flight: exchanges and sessions at once, those that wait included; 0 is off.
    max_request_head, max_response_head: bytes.
    """

    strategy: str = "round_robin"
    slow_start: float = 0.0
    zone: str = ""
    hash_on: str = ""
    max_load: float = 1.25
    timeout: float = 30.0
    connect_timeout: float = 1.0
    idle_timeout: float = 3.0
    continue_timeout: float = 1.0
    tunnel_idle_timeout: float = 0.0
    retries: int = 1
    retry_on_connect: bool = True
    retry_on_reset: bool = True
    retry_on_timeout: bool = False
    retry_statuses: frozenset[int] = frozenset()
    per_try_timeout: float = 0.0
    hedge_after: float = 0.0
    backoff_base: float = 0.025
    backoff_max: float = 0.25
    retry_ratio: float = 0.2
    retry_min: int = 3
    close_on_unhealthy: bool = False
    deadline_header: bytes = b""
    host_header: str = "endpoint"
    breaker_threshold: int = 5
    breaker_open_for: float = 1.0
    breaker_max_open_for: float = 60.0
    breaker_jitter: float = 0.5
    breaker_failure_rate: float = 0.5
    breaker_min_requests: int = 20
    breaker_window: float = 10.0
    failure_statuses: frozenset[int] = frozenset((502, 503, 504))
    observe_only: bool = False
    checked: bool = False
    check_rise: int = 2
    check_fall: int = 3
    max_ejected: float = 0.5
    min_available: int = 1
    panic_all: bool = True
    max_connections: int = 1024
    max_connections_per_endpoint: int = 0
    max_pending: int = 1024
    pending_timeout: float = 1.0
    max_in_flight: int = 0
    max_request_head: int = 65536
    max_response_head: int = 65536
