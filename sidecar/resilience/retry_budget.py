"""How many retries an upstream's requests may have among them.

When everything fails, trying again makes the load a multiple of itself just when that helps least. So retries are a
share of the requests of the last seconds, whatever each request's own `retries` say (Finagle's and linkerd's retry
budget). A number of retries at once, as Envoy's, bounds less and spoils more: failures that come at once let each retry
end before the next begins, and an endpoint that dies under load resets all its requests in one moment.
"""

from __future__ import annotations

from sidecar.resilience.window import SlidingWindow

__all__ = ["WINDOW", "RetryBudget"]

WINDOW = 10.0  # seconds (linkerd's `ttl`)

_WINDOW = WINDOW  # as compiled code sees it
_ROUNDING = 1e-6  # retries: 0.29 times 100 is less than 29


class RetryBudget:
    """Retries of the last `WINDOW` seconds are at most a share of the requests that began in it.

    ratio: that share. least: retries per second that are allowed whatever the share is, for upstreams of few requests.
    """

    __slots__ = ("_least", "_ratio", "_window")

    def __init__(self, ratio: float, least: int) -> None:
        self.configure(ratio, least)
        self._window = SlidingWindow(_WINDOW)

    def configure(self, ratio: float, least: int) -> None:
        """Go by these from now on; what the window has counted stays."""
        self._ratio = ratio
        self._least = least * _WINDOW

    def deposit(self, now: float) -> None:
        """A request begins."""
        self._window.count(True, now)

    def totals(self, now: float) -> tuple[int, int]:
        """(requests, retries) of the window."""
        return self._window.totals(now)

    def withdraw(self, now: float) -> bool:
        """Ask for one retry; False when the budget is spent."""
        requests, retries = self._window.totals(now)
        if retries + 1 > max(self._least, self._ratio * requests) + _ROUNDING:
            return False
        self._window.count(False, now)
        return True
