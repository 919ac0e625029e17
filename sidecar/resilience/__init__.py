"""What keeps one failing endpoint from being noticed. Sans-I/O: callers pass the time, chance is injected."""

from __future__ import annotations

from sidecar.resilience.backoff import full_jitter
from sidecar.resilience.breaker import VOID, Breaker, BreakerState, Cause, Transition
from sidecar.resilience.outlier import too_few_left
from sidecar.resilience.rate_limit import TokenBucket
from sidecar.resilience.retry_budget import RetryBudget
from sidecar.resilience.window import SlidingWindow

__all__ = [
    "VOID",
    "Breaker",
    "BreakerState",
    "Cause",
    "RetryBudget",
    "SlidingWindow",
    "TokenBucket",
    "Transition",
    "full_jitter",
    "too_few_left",
]
