"""How long to wait before the same endpoint is tried again."""

from __future__ import annotations

__all__ = ["full_jitter"]


def full_jitter(retry: int, base: float, most: float, chance: float) -> float:
    """Seconds before the `retry`-th retry, counted from 0: up to `base` doubled each time, and never above `most`.

    Anywhere from nothing to all of that by `chance`, 0 to 1: clients that failed together are not to come back together
    (the AWS builders' library calls it full jitter; Envoy's `retry_back_off` is the same).
    """
    return chance * min(most, base * 2.0 ** min(retry, 64))
