"""What every connection of one process shares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sidecar.model.check import CheckCounts
from sidecar.model.recording import RecordingCounts
from sidecar.proxy.resolve import Resolver
from sidecar.proxy.sweep import Sweep

if TYPE_CHECKING:
    import asyncio

    from sidecar.clock import Clock
    from sidecar.proxy.hedge_timer import HedgeTimer
    from sidecar.proxy.recording import Recorder

__all__ = ["ProxyContext"]


class ProxyContext:
    """The loop, the clock, the sweep, and what is the same for all listeners.

    network: what listens and connects: the loop, or the compiled build's own (`net.network`).
    pipes_elsewhere: (open, bound) of the pipes for large bodies in the processes that this one speaks for.
    monotonic: the clock's, one look-up nearer.
    head_timeout: seconds in which a request head must arrive once its first byte has.
    idle_timeout: seconds a client connection may stay without a request.
    min_body_rate: bytes per second that a request body must bring; 0 asks for none.
    max_clients: connections accepted at once by all listeners together; clients: of these now;
    refused: closed at once because of it.
    copies: of requests, that mirrors are being sent; nobody waits for them.
    draining: responses close their connections from now on.
    hedge_timers: by upstream. recorder: told of each exchange and session at its end; None where nobody asks.
    recording: what it has counted.
    checks: health checks that go on, and their bound; whoever makes them counts them here.
    resolver: addresses of endpoints' names. listening: (host, port) of every listener, to know itself
    by; of a unix socket (`unix:PATH`, 0).
    """

    __slots__ = (
        "checks",
        "clients",
        "clock",
        "copies",
        "draining",
        "head_timeout",
        "hedge_timers",
        "idle_timeout",
        "listening",
        "loop",
        "max_clients",
        "min_body_rate",
        "monotonic",
        "network",
        "pipes_elsewhere",
        "recorder",
        "recording",
        "refused",
        "resolver",
        "sweep",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        network: Any = None,
        *,
        head_timeout: float = 10.0,
        idle_timeout: float = 60.0,
        min_body_rate: int = 0,
        max_clients: int = 16384,
    ) -> None:
        self.loop = loop
        self.network = loop if network is None else network
        self.clock = clock
        self.monotonic = clock.monotonic
        self.sweep = Sweep(loop, clock)
        self.head_timeout = head_timeout
        self.idle_timeout = idle_timeout
        self.min_body_rate = min_body_rate
        self.max_clients = max_clients
        self.clients = 0
        self.refused = 0
        self.copies = 0
        self.draining = False
        self.checks = CheckCounts()
        self.resolver = Resolver(loop, clock)
        self.listening: set[tuple[str, int]] = set()
        self.pipes_elsewhere = (0, 0)
        self.hedge_timers: dict[str, HedgeTimer] = {}
        self.recorder: Recorder | None = None
        self.recording = RecordingCounts()

    @property
    def pipes(self) -> tuple[int, int]:
        """Pipes open for large bodies to pass through, and the bound on them; 0 in pure Python, which has none."""
        own: tuple[int, int] = getattr(self.network, "pipes", (0, 0))
        return own[0] + self.pipes_elsewhere[0], own[1] + self.pipes_elsewhere[1]
