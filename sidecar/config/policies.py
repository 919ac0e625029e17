"""Merges the layers of policy keys: `defaults`, then the upstream's own, then the environment's."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from sidecar.config.doors import MirrorSettings
from sidecar.config.front import OF_HTTP, check_front, merge_headers, rate_settings
from sidecar.config.record import Record
from sidecar.config.schema import Breaker, Defaults, LoadBalancer, Policy
from sidecar.config.settings import (
    PROTOCOLS,
    BreakerSettings,
    LimitSettings,
    OutlierSettings,
    PolicySettings,
    RetrySettings,
)
from sidecar.config.unset import UNSET, UnsetType

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sidecar.config.findings import Findings, KeyPath
    from sidecar.config.marks import Document

__all__ = ["Layer", "check_layer", "merge_policy"]

T = TypeVar("T")


class Layer(Record):
    """Policy keys and where they stand in the file; an empty path is the environment."""

    keys: Policy
    path: KeyPath


def check_layer(layer: Layer, document: Document, findings: Findings) -> None:
    """Find keys of one layer that contradict each other: a thing said twice, in two forms."""
    long = layer.keys.circuit_breaker
    pairs = [("host", "host_header", _has(layer, "host") and _has(layer, "host_header"))]
    if not isinstance(long, UnsetType):
        short = _has(layer, "circuit_breaker_threshold")
        pairs.append(
            (
                "circuit_breaker_threshold",
                "consecutive_failures",
                short and long.consecutive_failures is not UNSET,
            )
        )
        timed = _has(layer, "circuit_breaker_timeout")
        pairs.extend(
            ("circuit_breaker_timeout", key, timed and getattr(long, key) is not UNSET)
            for key in ("open_for", "max_open_for")
        )
    check_front(layer.keys, layer.path, document, findings)
    for one, other, both in pairs:
        if both:
            inside = other if other == "host_header" else f"circuit_breaker.{other}"
            problem = f"says the same as {inside} beside it; keep one of the two"
            document.report(findings, (*layer.path, one), problem)


def merge_policy(
    layers: Iterable[Layer], scheme: str, document: Document, findings: Findings
) -> PolicySettings:
    """What holds for an upstream of `scheme`. Later layers win, key by key."""
    http = PROTOCOLS[scheme] == "http"
    policy = PolicySettings() if http else PolicySettings(idle_timeout=0.0)
    for layer in layers:
        keys = layer.keys
        shared = isinstance(keys, Defaults) and not isinstance(keys, LoadBalancer)
        idle = keys.idle_timeout
        if shared and not http:
            # A pool's idle time is a different thing from a session's: five seconds for all would cut off
            # every quiet Redis connection. Sessions get one where their own upstream says so.
            idle = UNSET
        if keys.idle_timeout == 0 and (shared or http):
            problem = "0 leaves no time at all for pooled connections; use a time above zero"
            document.report(findings, (*layer.path, "idle_timeout"), problem)
        for name in (
            "continue_timeout",
            "tunnel_idle_timeout",
            "per_try_timeout",
            "hedge_after",
            "retry_on",
            "retry_budget",
            "deadline_header",
            *OF_HTTP,
            "mirror",
        ):
            if getattr(keys, name) is not UNSET and not http and not shared:
                problem = f"means nothing for {scheme}, which is not read as HTTP; remove it"
                document.report(findings, (*layer.path, name), problem)
        long = keys.circuit_breaker
        if isinstance(long, Breaker) and long.failure_statuses is not UNSET and not http and not shared:
            problem = f"means nothing for {scheme}, which is not read as HTTP; remove it"
            document.report(findings, (*layer.path, "circuit_breaker", "failure_statuses"), problem)
        header = _host_header(keys)
        if not isinstance(header, UnsetType) and not http and not shared:
            name = "host_header" if keys.host_header is not UNSET else "host"
            problem = f"means nothing for {scheme}, which has no Host header; remove it"
            document.report(findings, (*layer.path, name), problem)
        policy = PolicySettings(
            timeout=_last(policy.timeout, keys.timeout),
            connect_timeout=_last(policy.connect_timeout, keys.connect_timeout),
            idle_timeout=_last(policy.idle_timeout, idle),
            continue_timeout=_last(policy.continue_timeout, keys.continue_timeout),
            tunnel_idle_timeout=_last(policy.tunnel_idle_timeout, keys.tunnel_idle_timeout),
            retries=_last(policy.retries, keys.retries),
            host_header=_last(policy.host_header, header),
            close_on_unhealthy=_last(policy.close_on_unhealthy, keys.close_on_unhealthy),
            slow_start=_last(policy.slow_start, keys.slow_start),
            proxy_protocol=_last(policy.proxy_protocol, keys.proxy_protocol),
            hedge_after=_last(policy.hedge_after, keys.hedge_after),
            per_try_timeout=_last(policy.per_try_timeout, keys.per_try_timeout),
            deadline_header=_last(policy.deadline_header, keys.deadline_header),
            retry=_merge_retry(policy.retry, layer, document, findings),
            headers=merge_headers(policy.headers, keys, document.file) if http else policy.headers,
            rate_limit=rate_settings(policy.rate_limit, keys.rate_limit),
            breaker=_merge_breaker(policy.breaker, layer, document, findings),
            outlier=_merge_outlier(policy.outlier, keys),
            limits=_merge_limits(policy.limits, keys),
            mirror=_merge_mirror(policy.mirror, layer, document, findings) if http else policy.mirror,
        )
        _check_times(policy, layer, document, findings)
    return policy


def _check_times(policy: PolicySettings, layer: Layer, document: Document, findings: Findings) -> None:
    """Find times of this layer that never pass, `timeout` being over before."""
    for name in ("per_try_timeout", "hedge_after"):
        seconds = getattr(policy, name)
        if layer.path and getattr(layer.keys, name) is not UNSET and seconds >= policy.timeout:
            problem = (
                f"{seconds:g} s never pass within timeout ({policy.timeout:g} s); lower it, or raise timeout"
            )
            document.report(findings, (*layer.path, name), problem)


def _merge_breaker(
    breaker: BreakerSettings, layer: Layer, document: Document, findings: Findings
) -> BreakerSettings:
    keys = layer.keys
    breaker = replace(
        breaker, consecutive_failures=_last(breaker.consecutive_failures, keys.circuit_breaker_threshold)
    )
    fixed = keys.circuit_breaker_timeout
    if not isinstance(fixed, UnsetType):
        # The seed's breaker retries after exactly this time: no doubling, no spread.
        breaker = replace(breaker, open_for=fixed, max_open_for=fixed, jitter=0.0)
    long = keys.circuit_breaker
    if isinstance(long, Breaker):
        breaker = replace(
            breaker,
            consecutive_failures=_last(breaker.consecutive_failures, long.consecutive_failures),
            failure_rate=_last(breaker.failure_rate, long.failure_rate),
            min_requests=_last(breaker.min_requests, long.min_requests),
            window=_last(breaker.window, long.window),
            failure_statuses=_last(breaker.failure_statuses, long.failure_statuses),
            observe_only=_last(breaker.observe_only, long.observe_only),
        )
        if long.open_for is not UNSET or long.max_open_for is not UNSET:
            breaker = _merge_open_times(breaker, long, layer.path, document, findings)
    return breaker


def _merge_open_times(
    breaker: BreakerSettings, long: Breaker, path: KeyPath, document: Document, findings: Findings
) -> BreakerSettings:
    open_for = _last(breaker.open_for, long.open_for)
    max_open_for = long.max_open_for
    if isinstance(max_open_for, UnsetType):
        max_open_for = max(breaker.max_open_for, open_for)
    elif max_open_for < open_for:
        problem = f"{max_open_for:g} s is less than open_for ({open_for:g} s); raise it, or lower open_for"
        document.report(findings, (*path, "circuit_breaker", "max_open_for"), problem)
    # A long form over another layer's short one is a doubling breaker again, with its spread.
    return replace(breaker, open_for=open_for, max_open_for=max_open_for, jitter=BreakerSettings().jitter)


def _merge_retry(retry: RetrySettings, layer: Layer, document: Document, findings: Findings) -> RetrySettings:
    keys = layer.keys
    retry = replace(retry, on=_last(retry.on, keys.retry_on))
    wait = keys.retry_backoff
    if not isinstance(wait, UnsetType):
        base = _last(retry.base, wait.base)
        longest = wait.max
        if isinstance(longest, UnsetType):
            longest = max(retry.longest, base)
        elif longest < base:
            problem = f"{longest:g} s is less than base ({base:g} s); raise it, or lower base"
            document.report(findings, (*layer.path, "retry_backoff", "max"), problem)
        retry = replace(retry, base=base, longest=longest)
    if isinstance(keys.retry_budget, UnsetType):
        return retry
    return replace(
        retry,
        ratio=_last(retry.ratio, keys.retry_budget.ratio),
        least=_last(retry.least, keys.retry_budget.min),
    )


def _merge_outlier(outlier: OutlierSettings, keys: Policy) -> OutlierSettings:
    if isinstance(keys.outlier, UnsetType):
        return outlier
    return replace(outlier, **{key: value for key, value in vars(keys.outlier).items() if value is not UNSET})


def _merge_limits(limits: LimitSettings, keys: Policy) -> LimitSettings:
    if isinstance(keys.limits, UnsetType):
        return limits
    return replace(limits, **{key: value for key, value in vars(keys.limits).items() if value is not UNSET})


def _merge_mirror(
    mirror: MirrorSettings, layer: Layer, document: Document, findings: Findings
) -> MirrorSettings:
    keys = layer.keys.mirror
    if isinstance(keys, UnsetType):
        return mirror
    to = _last(mirror.to, keys.to)
    if not to and not document.has((*layer.path, "mirror", "to")):
        document.report(findings, (*layer.path, "mirror"), "has no upstream to send to; name one as `to`")
    return MirrorSettings(
        to, _last(mirror.share, keys.share), _last(mirror.max_in_flight, keys.max_in_flight)
    )


def _host_header(keys: Policy) -> str | UnsetType:
    if keys.host_header is UNSET and isinstance(keys, Defaults):
        return keys.host
    return keys.host_header


def _has(layer: Layer, key: str) -> bool:
    # A service's `host` is its address and never the Host policy.
    return (key != "host" or isinstance(layer.keys, Defaults)) and getattr(layer.keys, key) is not UNSET


def _last(before: T, now: T | UnsetType) -> T:
    return before if isinstance(now, UnsetType) else now
