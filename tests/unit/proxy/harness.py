"""A whole data path in the hands of a test: fake time, memory transports, and connecting decided by hand.

Everything between a client's first byte and an endpoint's last is the real thing, `Dial` included; what a
test plays is the kernel (`Connecting`), the clients and the endpoints (`MemoryTransport`).
"""

import json
from collections.abc import Callable
from functools import cache
from typing import Any

from support.clock import FakeClock
from support.transports import MemoryTransport
from unit.proxy.manual_loop import Connecting, ManualLoop

from sidecar.cluster import Cluster
from sidecar.http1 import RequestHead
from sidecar.model import CloseReason, Endpoint, EndpointState, Limit, Snapshot, UpstreamPolicy
from sidecar.proxy.context import ProxyContext
from sidecar.proxy.downstream import DownstreamConnection
from sidecar.proxy.exchange import Exchange
from sidecar.proxy.tcp import TcpSession

__all__ = [
    "Proxy",
    "chunked",
    "error_of",
    "ok",
    "request",
]


class Proxy:
    """One upstream's data path. Further keywords are fields of `UpstreamPolicy`.

    endpoints: how many, 10.0.0.1:80, 10.0.0.2:80 and so on; context: more arguments for `ProxyContext`.
    begun: exchanges that were started. refusals: what a test expects to be refused without an exchange.
    """

    def __init__(
        self,
        endpoints: int = 1,
        scheme: str = "http",
        chances: tuple[float, ...] = (0.5,),
        context: dict[str, Any] | None = None,
        **policy: Any,
    ) -> None:
        self.clock = FakeClock(chances=chances)
        self.loop = ManualLoop()
        self.context = ProxyContext(self.loop, self.clock, **(context or {}))  # type: ignore[arg-type]
        # Without waits between attempts, but where they are what is tested.
        chosen = UpstreamPolicy(**{"backoff_base": 0.0, **policy})
        self.cluster = Cluster("api", scheme, chosen, self.clock)  # type: ignore[arg-type] # a double
        self.clients: list[MemoryTransport] = []
        self.upstreams: list[MemoryTransport] = []
        self.begun = 0
        self.refusals = 0
        self._states: list[EndpointState] = []
        self.serve_by(endpoints)

    # What the test plays

    def serve_by(self, endpoints: int, first: int = 1) -> None:
        """The source names these many endpoints now, from 10.0.0.`first` on."""
        found = tuple(Endpoint(f"10.0.0.{number}", 80) for number in range(first, first + endpoints))
        self.cluster.apply(Snapshot("api", found, "static"))
        self._states += [state for state in self.cluster.endpoints.values() if state not in self._states]

    def client(self, *pieces: bytes) -> MemoryTransport:
        """An application connects, and sends."""
        protocol: Any
        if self.cluster.scheme == "http":
            protocol = DownstreamConnection(self.context, self.cluster)
            protocol.exchange = _counted(type(protocol.exchange))(self, protocol)
        else:
            protocol = TcpSession(self.context, self.cluster)
        transport = MemoryTransport(protocol)
        self.clients.append(transport)
        transport.feed(*pieces)
        return transport

    @property
    def connecting(self) -> list[Connecting]:
        """Connections being opened now, the oldest first."""
        self.loop.turn()
        return [attempt for attempt in self.loop.attempts if not attempt.ended]

    def accept(self) -> MemoryTransport:
        """An endpoint accepts the connection that is being opened for longest."""
        attempt = self.connecting[0]
        transport = attempt.establish()
        self.upstreams.append(transport)
        attempt.hand_over()
        return transport

    def refuse(self) -> str:
        """An endpoint refuses the connection that is being opened for longest; gives its host."""
        attempt = self.connecting[0]
        attempt.refuse()
        return attempt.host

    def exchange(self, asked: bytes, answer: bytes) -> bytes:
        """A new client asks, over one new or idle connection an endpoint answers: what the client has got."""
        client = self.client(asked)
        endpoint = self.accept() if self.connecting else self.busy[-1]
        endpoint.feed(answer)
        return client.data

    @property
    def busy(self) -> list[MemoryTransport]:
        """Endpoint connections that carry an exchange."""
        return [transport for transport in self.upstreams if transport.protocol.exchange is not None]

    def pass_time(self, seconds: float) -> None:
        """Time passes, and the sweep."""
        self.clock.advance(seconds)
        self.context.sweep.run()

    def run_timers(self) -> list[float]:
        """What was to be called later is called, whatever its time; their delays in seconds."""
        timers = [timer for timer in self.loop.timers if not timer.cancelled]
        self.loop.timers.clear()
        for timer in timers:
            timer.callback()
        return [timer.delay for timer in timers]

    def settle(self) -> None:
        """Let the loop tell every protocol whose transport was closed."""
        while closing := [
            transport
            for transport in (*self.clients, *self.upstreams)
            if transport.closing and not transport.lost
        ]:
            for transport in closing:
                transport.lose()

    # What came of it

    @property
    def states(self) -> list[EndpointState]:
        """The endpoints, in the order of their addresses."""
        return list(self.cluster.endpoints.values())

    @property
    def counted(self) -> list[tuple[str, str, str, int]]:
        """(method, code class, reason, count) of every exchange that ended."""
        return self.cluster.stats.request_counts()

    @property
    def sessions(self) -> dict[str, int]:
        """Ended sessions by close reason."""
        counts = self.cluster.stats.sessions
        return {reason.label: counts[reason] for reason in CloseReason if counts[reason]}

    @property
    def overflows(self) -> dict[str, int]:
        """How many were turned away, by the limit that was reached."""
        counts = self.cluster.stats.overflows
        return {limit.label: counts[limit] for limit in Limit if counts[limit]}

    def finish(self) -> None:
        """Everybody leaves; then nothing may be open, booked, waiting or uncounted."""
        for transport in (*self.clients, *self.upstreams):
            transport.closing = True
        self.settle()
        if self.context.hedge_timers:  # nobody is left to ring for
            self.clock.advance(60.0)
            self.run_timers()
        stats, limit = self.cluster.stats, self.cluster.limit
        left = {
            "exchanges in flight": stats.in_flight,
            "retries": stats.retries_active,
            "sessions": stats.sessions_active,
            "clients": self.context.clients,
            "reserved connections": limit.used,
            "waiting": len(limit.pending),
            "members of the sweep": len(self.context.sweep.members),
            "connections being opened": len(self.connecting),
            "timers": sum(not timer.cancelled for timer in self.loop.timers),
            **{f"open to {state.endpoint.host}": state.pool.open for state in self._states},
            **{f"idle at {state.endpoint.host}": len(state.pool.idle) for state in self._states},
            **{f"in flight at {state.endpoint.host}": state.in_flight for state in self._states},
        }
        assert not any(left.values()), {what: count for what, count in left.items() if count}
        counted = sum(stats.requests)
        assert counted == self.begun + self.refusals, f"{self.begun} begun, {self.counted} counted"
        assert counted == sum(stats.durations)
        if self.cluster.scheme != "http":
            assert sum(stats.sessions) == len(self.clients)


@cache
def _counted(kind: type[Exchange]) -> Callable[[Proxy, DownstreamConnection], Exchange]:
    """Exchanges of one client of this kind, which tell the harness each time that they begin."""

    class Counted(kind):  # type: ignore[misc, valid-type] # whichever kind the upstream's options ask for
        __slots__ = ("_proxy",)

        def __init__(self, proxy: Proxy, client: DownstreamConnection) -> None:
            super().__init__(client.context, client.cluster, client)
            self._proxy = proxy

        def begin(self, head: RequestHead, body: bytes, done: bool) -> None:
            self._proxy.begun += 1
            super().begin(head, body, done)

    return Counted


def request(line: str = "GET /", *fields: str, version: str = "1.1", body: bytes = b"") -> bytes:
    """A request. line: method and target; fields: after Host, which HTTP/1.1 has; body as it is to be sent."""
    host = ["Host: localhost:8080"] if version == "1.1" else []
    return "\r\n".join([f"{line} HTTP/{version}", *host, *fields, "", ""]).encode("latin-1") + body


def ok(body: bytes = b"ok", *fields: str, status: str = "200 OK", length: bool = True) -> bytes:
    """A response, with Content-Length unless told otherwise."""
    lines = [f"HTTP/1.1 {status}", *fields, *([f"Content-Length: {len(body)}"] if length else [])]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chunked(*pieces: bytes) -> bytes:
    """A chunked body."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def error_of(data: bytes) -> tuple[int, str]:
    """Status and reason of the proxy's own response, which has to be the only one in `data` and well formed."""
    head, _, body = data.partition(b"\r\n\r\n")
    line, *fields = head.decode("ascii").split("\r\n")
    named = dict(field.lower().split(": ", 1) for field in fields)
    told = json.loads(body)
    assert int(named["content-length"]) == len(body)
    assert named["content-type"] == "application/json"
    assert told["upstream"] == "api"
    assert told["message"]
    assert told["error"] == named["x-sidecar-error"]
    assert line.startswith(f"HTTP/1.1 {told['status']} ")
    return told["status"], told["error"]
