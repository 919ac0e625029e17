"""The defaults are the table of behaviour.md and the seed."""

import dataclasses

import pytest

from sidecar.model import UpstreamPolicy


def test_defaults() -> None:
    assert dataclasses.asdict(UpstreamPolicy()) == {
        "strategy": "round_robin",
        "slow_start": 0.0,
        "zone": "",
        "hash_on": "",
        "max_load": 1.25,
        "timeout": 30.0,
        "connect_timeout": 1.0,
        "idle_timeout": 3.0,
        "continue_timeout": 1.0,
        "tunnel_idle_timeout": 0.0,
        "retries": 1,
        "retry_on_connect": True,
        "retry_on_reset": True,
        "retry_on_timeout": False,
        "retry_statuses": frozenset(),
        "per_try_timeout": 0.0,
        "hedge_after": 0.0,
        "backoff_base": 0.025,
        "backoff_max": 0.25,
        "retry_ratio": 0.2,
        "retry_min": 3,
        "close_on_unhealthy": False,
        "deadline_header": b"",
        "host_header": "endpoint",
        "breaker_threshold": 5,
        "breaker_open_for": 1.0,
        "breaker_max_open_for": 60.0,
        "breaker_jitter": 0.5,
        "breaker_failure_rate": 0.5,
        "breaker_min_requests": 20,
        "breaker_window": 10.0,
        "failure_statuses": frozenset((502, 503, 504)),
        "observe_only": False,
        "checked": False,
        "check_rise": 2,
        "check_fall": 3,
        "max_ejected": 0.5,
        "min_available": 1,
        "panic_all": True,
        "max_connections": 1024,
        "max_connections_per_endpoint": 0,
        "max_pending": 1024,
        "pending_timeout": 1.0,
        "max_in_flight": 0,
        "max_request_head": 65536,
        "max_response_head": 65536,
    }


def test_what_is_decided_does_not_change() -> None:
    policy = UpstreamPolicy()
    with pytest.raises(AttributeError):
        policy.retries = 2  # type: ignore[misc] # that it may not is what is tested
