"""The configuration's decisions as the plain values that the data path takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.model import UpstreamPolicy

if TYPE_CHECKING:
    from sidecar.config.settings import UpstreamSettings

__all__ = ["upstream_policy"]


def upstream_policy(upstream: UpstreamSettings, zone: str) -> UpstreamPolicy:
    """The policies of one upstream, for a sidecar that runs in `zone`."""
    policy = upstream.policy
    return UpstreamPolicy(
        strategy=upstream.strategy,
        close_on_unhealthy=policy.close_on_unhealthy,
        slow_start=policy.slow_start,
        zone=zone,
        hash_on=upstream.hash_on,
        retry_on_connect="connect" in policy.retry.on,
        retry_on_reset="reset" in policy.retry.on,
        retry_on_timeout="timeout" in policy.retry.on,
        retry_statuses=frozenset(int(condition) for condition in policy.retry.on if condition.isdecimal()),
        per_try_timeout=policy.per_try_timeout,
        hedge_after=policy.hedge_after,
        backoff_base=policy.retry.base,
        backoff_max=policy.retry.longest,
        retry_ratio=policy.retry.ratio,
        retry_min=policy.retry.least,
        timeout=policy.timeout,
        connect_timeout=policy.connect_timeout,
        idle_timeout=policy.idle_timeout,
        continue_timeout=policy.continue_timeout,
        tunnel_idle_timeout=policy.tunnel_idle_timeout,
        retries=policy.retries,
        deadline_header=policy.deadline_header.lower().encode("ascii"),
        host_header=policy.host_header,
        breaker_threshold=policy.breaker.consecutive_failures,
        breaker_open_for=policy.breaker.open_for,
        breaker_max_open_for=policy.breaker.max_open_for,
        breaker_jitter=policy.breaker.jitter,
        breaker_failure_rate=policy.breaker.failure_rate,
        breaker_min_requests=policy.breaker.min_requests,
        breaker_window=policy.breaker.window,
        failure_statuses=_statuses(policy.breaker.failure_statuses),
        observe_only=policy.breaker.observe_only,
        max_ejected=policy.outlier.max_ejected,
        min_available=policy.outlier.min_available,
        panic_all=policy.outlier.panic == "all",
        checked=upstream.health.active,
        check_rise=upstream.health.rise,
        check_fall=upstream.health.fall,
        max_connections=policy.limits.connections,
        max_connections_per_endpoint=policy.limits.connections_per_endpoint,
        max_pending=policy.limits.pending,
        pending_timeout=policy.limits.pending_timeout,
        max_in_flight=policy.limits.in_flight,
        max_request_head=policy.limits.request_head,
        max_response_head=policy.limits.response_head,
    )


def _statuses(written: tuple[str, ...]) -> frozenset[int]:
    """Statuses by their numbers; `5xx` is a hundred of them."""
    found: set[int] = set()
    for one in written:
        found.update(range(500, 600) if one == "5xx" else (int(one),))
    return frozenset(found)
