"""Names of endpoints to addresses, for those who dial them.

getaddrinfo runs in a pool of a few threads, and a name server that does not answer holds a thread for as long as
the system's resolver has patience. So a name is looked up once at a time however many dial it, the answer is
remembered, and while it is asked for again the last good one serves: one dead name must not keep others waiting.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

from sidecar.net.names import loopback, with_port

if TYPE_CHECKING:
    from sidecar.clock import Clock

__all__ = ["FAILED_FOR", "FRESH_FOR", "Resolver"]

# getaddrinfo tells no TTL. Five seconds follow a moved endpoint within Kubernetes' and Consul's usual TTLs (5 s and
# 0 s) and ask a name server at most as often; HAProxy's `hold valid` is 10 s, nginx takes the record's own.
FRESH_FOR = 5.0
FAILED_FOR = 1.0  # a name that was not found is not asked for again at once


class _Name:
    __slots__ = ("addresses", "fresh_until", "lookup", "problem")

    def __init__(self) -> None:
        self.addresses: list[Any] = []
        self.fresh_until = 0.0
        self.lookup: asyncio.Task[None] | None = None
        self.problem: Exception | None = None


class Resolver:
    """Remembers what each name last resolved to. As large as there are endpoint names."""

    __slots__ = ("_clock", "_loop", "_names")

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock) -> None:
        self._loop = loop
        self._clock = clock
        self._names: dict[str, _Name] = {}

    async def resolve(self, host: str, port: int) -> list[Any]:
        """Entries as getaddrinfo gives them, for TCP and `port`. Raises OSError for a name that has none.

        Waits only for the first answer; later ones are fetched while the last good one serves.
        """
        own = loopback(host, port)
        if own is not None:
            return own
        name = self._names.get(host)
        if name is None:
            name = self._names[host] = _Name()
        if self._clock.monotonic() >= name.fresh_until:
            if name.lookup is None:
                name.lookup = self._loop.create_task(self._look_up(host, name))
            if not name.addresses:
                await asyncio.shield(name.lookup)
        if not name.addresses:
            raise _told(host, name.problem)
        return with_port(name.addresses, port)

    async def _look_up(self, host: str, name: _Name) -> None:
        kept = FRESH_FOR
        try:
            name.addresses = await self._loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:  # a name that cannot be encoded cannot be looked up either
            name.problem = error
            kept = FAILED_FOR
        name.fresh_until = self._clock.monotonic() + kept
        name.lookup = None

    def close(self) -> None:
        """Wait for no answer any more."""
        for name in self._names.values():
            if name.lookup is not None:
                name.lookup.cancel()


def _told(host: str, problem: Exception | None) -> OSError:
    """What a look-up came to, for one more who asks: with its number, by which no such name is told from no answer."""
    if isinstance(problem, socket.gaierror):
        return socket.gaierror(problem.errno, f"{host}: {problem.strerror}")
    return OSError(f"{host}: {problem}")
