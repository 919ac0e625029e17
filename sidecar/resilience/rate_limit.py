"""How many requests or sessions an upstream takes in a time: a token bucket.

The bucket holds up to `burst` tokens and gets `requests` more in every `per` seconds, evenly; who passes takes one.
So in any t seconds no more than burst + requests / per * t are admitted, as with Envoy's local rate limit
(https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/local_rate_limit_filter), which fills in
steps where this one flows.
"""

from __future__ import annotations

__all__ = ["TokenBucket"]

_ROUNDING = 1e-9  # tokens: who comes evenly, at just the rate, would be turned away every other time by sums of floats


class TokenBucket:
    """Full at first. requests: tokens that come in `per` seconds. burst: what it holds, at least one."""

    __slots__ = ("_at", "_burst", "_level", "_rate")

    def __init__(self, requests: float, per: float, burst: float, now: float) -> None:
        self._rate = requests / per
        self._burst = max(1.0, burst)
        self._level = self._burst
        self._at = now

    def configure(self, requests: float, per: float, burst: float, now: float) -> None:
        """Go by these from now on; what is in it stays, as far as it holds that."""
        self._fill(now)
        self._rate = requests / per
        self._burst = max(1.0, burst)
        self._level = min(self._level, self._burst)

    def admit(self, now: float) -> bool:
        """Take a token; False when there is none. now: monotonic seconds; what does not go on brings nothing."""
        self._fill(now)
        if self._level < 1.0 - _ROUNDING:
            return False
        self._level -= 1.0
        return True

    def wait(self, now: float) -> float:
        """Seconds until there is a token, 0 when there is one."""
        self._fill(now)
        return max(0.0, 1.0 - self._level) / self._rate

    def _fill(self, now: float) -> None:
        passed = now - self._at
        if passed > 0.0:
            self._at = now
            self._level = min(self._burst, self._level + passed * self._rate)
