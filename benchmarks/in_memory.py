"""A data path without sockets: transports that take what is written, and a loop that connects at once.

Only what is measured costs anything here: nothing is kept but a count, and the clock stands still.
"""

from collections.abc import Callable, Coroutine
from itertools import repeat
from typing import Any

from sidecar.clock import Clock
from sidecar.cluster import Cluster
from sidecar.model import Endpoint, Snapshot, UpstreamPolicy
from sidecar.proxy.context import ProxyContext

__all__ = ["NOW", "DataPath", "MemoryTransport"]

NOW = 1000.0  # monotonic seconds, for ever


class MemoryTransport:
    """What a protocol sees of a TCP transport. written: bytes so far."""

    def __init__(self, protocol: Any) -> None:
        self.protocol = protocol
        self.written = 0
        self._closing = False
        protocol.connection_made(self)

    def write(self, data: bytes) -> None:
        """Count it."""
        self.written += len(data)

    def writelines(self, pieces: list[bytes]) -> None:
        """Count them."""
        self.written += sum(map(len, pieces))

    def close(self) -> None:
        """Remember it; `lose` tells the protocol."""
        self._closing = True

    abort = close

    def lose(self) -> None:
        """The connection has ended."""
        self._closing = True
        self.protocol.connection_lost(None)

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self._closing

    def pause_reading(self) -> None:
        """Nothing comes by itself anyway."""

    def resume_reading(self) -> None:
        """Nothing comes by itself anyway."""

    def write_eof(self) -> None:
        """Nobody reads it."""

    def can_write_eof(self) -> bool:
        """TCP can."""
        return True

    def get_write_buffer_size(self) -> int:
        """All was taken at once."""
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """None is needed."""

    def set_protocol(self, protocol: Any) -> None:
        """Hand over."""
        self.protocol = protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """There is no socket to tell of."""
        return default


class _Loop:
    """The loop's methods that the data path uses. transports: of the connections that were opened, in order."""

    def __init__(self) -> None:
        self.transports: list[MemoryTransport] = []
        self._tasks: list[_Task] = []

    def create_task(self, coroutine: Coroutine[Any, Any, None]) -> "_Task":
        """Keep it until `turn`."""
        task = _Task(coroutine)
        self._tasks.append(task)
        return task

    def turn(self) -> None:
        """Run what was created since the last turn, to its end."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.run()

    async def create_connection(
        self, factory: Callable[[], Any], host: str, port: int
    ) -> tuple[MemoryTransport, Any]:
        """Every endpoint accepts at once."""
        protocol = factory()
        transport = MemoryTransport(protocol)
        self.transports.append(transport)
        return transport, protocol

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Nothing may fail here."""
        raise context["exception"]


class _Task:
    """A coroutine that waits for nothing but `create_connection`."""

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._coroutine = coroutine

    def run(self) -> None:
        """To its end."""
        try:
            self._coroutine.send(None)
        except StopIteration:
            return
        raise AssertionError("a task of the data path waited for something")

    def cancel(self) -> None:
        """It will not run."""
        self._coroutine.close()


class DataPath:
    """One upstream with `endpoints` endpoints and default policies."""

    def __init__(self, scheme: str = "http", endpoints: int = 3) -> None:
        clock = Clock(repeat(NOW).__next__, repeat(NOW).__next__, repeat(0.5).__next__)
        self._loop = _Loop()
        self.context = ProxyContext(self._loop, clock)  # type: ignore[arg-type]
        self.cluster = Cluster("origins", scheme, UpstreamPolicy(), clock)
        found = tuple(Endpoint(f"10.0.0.{number}", 80) for number in range(1, endpoints + 1))
        self.cluster.apply(Snapshot("origins", found, "static"))

    def connect(self, protocol: Any) -> MemoryTransport:
        """An application connects."""
        return MemoryTransport(protocol(self.context, self.cluster))

    @property
    def opened(self) -> list[MemoryTransport]:
        """Connections to endpoints, also those that are being opened now."""
        self._loop.turn()
        return self._loop.transports
