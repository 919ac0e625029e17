"""What a request passes before it is sent to an upstream, and its response on the way back, where that is asked for.

    request ─► rate limit ─► (a copy to the mirror) ─► header rules ─► the exchange goes on
                    └─► 429

A copy is made before the rules: they and the bearer token are of this upstream, and the mirror has its own.

An upstream that asks for none of it has no `Front`, and its requests pay one comparison.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Protocol

from sidecar.errors import Reason

if TYPE_CHECKING:
    from sidecar.http1.message import RequestHead, ResponseHead
    from sidecar.proxy.exchange import Exchange

__all__ = ["Front", "HeaderRules", "Mirror", "RateLimit"]


class RateLimit(Protocol):
    """How many requests an upstream takes in a time."""

    def admit(self, now: float) -> bool:
        """Whether one more may pass at `now`, monotonic seconds; it is counted then."""

    def wait(self, now: float) -> float:
        """Seconds until the next may."""


class HeaderRules(Protocol):
    """Header fields that are set, added or removed."""

    def edit_request(self, head: RequestHead) -> RequestHead:
        """The head that goes on."""

    def edit_response(self, head: ResponseHead) -> None:
        """Change a response's head in place."""


class Mirror(Protocol):
    """Somebody who gets copies of a share of the requests, and whose answers nobody reads."""

    def reflect(self, exchange: Exchange) -> None:
        """Send a copy of a request that begins, if it is one of the share."""


class Front:
    """Of one upstream. Each part is None where it is not asked for."""

    __slots__ = ("mirror", "rate", "rules")

    def __init__(
        self,
        rate: RateLimit | None = None,
        rules: HeaderRules | None = None,
        mirror: Mirror | None = None,
    ) -> None:
        self.rate = rate
        self.rules = rules
        self.mirror = mirror

    @property
    def parts(self) -> tuple[RateLimit | None, HeaderRules | None, Mirror | None]:
        """What it consists of."""
        return self.rate, self.rules, self.mirror

    def enter(self, exchange: Exchange) -> bool:
        """A request begins; False when it has been answered and goes no further."""
        if self.rate is not None:
            now = exchange.client.context.monotonic()
            if not self.rate.admit(now):
                exchange.refuse(Reason.RATE_LIMITED, retry_after=max(1, ceil(self.rate.wait(now))))
                return False
        if self.mirror is not None:
            self.mirror.reflect(exchange)
        if self.rules is not None:
            exchange.head = self.rules.edit_request(exchange.head)
        return True

    def admits(self, now: float) -> bool:
        """Whether a session may begin; it is counted then."""
        return self.rate is None or self.rate.admit(now)

    def leave(self, _exchange: Exchange, head: ResponseHead) -> None:
        """A response's final head goes to the client."""
        if self.rules is not None:
            self.rules.edit_response(head)
