"""A transport without a socket, so that protocols are driven byte by byte and without a loop."""

from typing import Any

__all__ = ["MemoryTransport"]


class MemoryTransport:
    """What an asyncio protocol sees of a TCP transport; what it did is left in the attributes.

    protocol: its `connection_made` is called at once when given here or to `attach`.
    writes: every buffer as it was written, `data` is all of them joined.
    reading: False between `pause_reading` and `resume_reading`. eof_written, closing, aborted: as named.
    lost: `connection_lost` has been called. `close` and `abort` do not call it, as a real loop calls it
    later: the test decides when, with `lose`.
    """

    def __init__(self, protocol: Any = None, **extra: Any) -> None:
        self.extra = {"peername": ("127.0.0.1", 40000), "sockname": ("127.0.0.1", 8080), **extra}
        self.writes: list[bytes] = []
        self.reading = True
        self.eof_written = False
        self.closing = False
        self.aborted = False
        self.lost = False
        self.buffered = 0
        self.limits: tuple[int | None, int | None] = (None, None)
        self.protocol: Any = None
        if protocol is not None:
            self.attach(protocol)

    def attach(self, protocol: Any) -> None:
        """Make the connection of `protocol`."""
        self.protocol = protocol
        protocol.connection_made(self)

    @property
    def data(self) -> bytes:
        """Everything written so far."""
        return b"".join(self.writes)

    def taken(self) -> bytes:
        """Everything written since the last call, and forget it."""
        data = self.data
        self.writes.clear()
        return data

    # What a test does to the protocol

    def feed(self, *pieces: bytes) -> None:
        """Let the peer send. A paused transport would not deliver: that is a mistake of the test."""
        for piece in pieces:
            if not self.reading:
                raise AssertionError(f"reading is paused, {piece[:40]!r} would not be delivered now")
            self.protocol.data_received(piece)

    def feed_eof(self) -> bool:
        """Let the peer half-close. True when the protocol keeps its side open, else it is closing."""
        keep = bool(self.protocol.eof_received())
        if not keep:
            self.closing = True
        return keep

    def fill(self, size: int = 65536) -> None:
        """The peer reads nothing more: the write buffer passes its high-water mark."""
        self.buffered = size
        self.protocol.pause_writing()

    def drain(self) -> None:
        """The peer has read everything again."""
        self.buffered = 0
        self.protocol.resume_writing()

    def lose(self, error: Exception | None = None) -> None:
        """The connection is gone: cleanly (None) or with `error`. Once only, as a real loop does."""
        if self.lost:
            raise AssertionError("connection_lost twice on one transport")
        self.lost = self.closing = True
        self.protocol.connection_lost(error)

    # What a protocol does to its transport

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep a copy. Writing after the end is the mistake that asyncio only warns of."""
        if self.eof_written:
            raise AssertionError(f"write after write_eof: {bytes(data)[:40]!r}")
        if not self.closing:
            self.writes.append(bytes(data))

    def writelines(self, pieces: list[bytes]) -> None:
        """One write of all pieces."""
        self.write(b"".join(pieces))

    def write_eof(self) -> None:
        """Half-close."""
        self.eof_written = True

    def can_write_eof(self) -> bool:
        """TCP can."""
        return True

    def close(self) -> None:
        """Close once everything is sent."""
        self.closing = True

    def abort(self) -> None:
        """Close at once."""
        self.closing = self.aborted = True

    def is_closing(self) -> bool:
        """Whether `close`, `abort` or `lose` was called."""
        return self.closing

    def pause_reading(self) -> None:
        """Deliver nothing until `resume_reading`."""
        self.reading = False

    def resume_reading(self) -> None:
        """Deliver again."""
        self.reading = True

    def is_reading(self) -> bool:
        """Whether data would be delivered."""
        return self.reading and not self.closing

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """peername, sockname, and what the constructor was given."""
        return self.extra.get(name, default)

    def get_write_buffer_size(self) -> int:
        """What `fill` said."""
        return self.buffered

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Remember them."""
        self.limits = (high, low)

    def get_protocol(self) -> Any:
        """The protocol."""
        return self.protocol

    def set_protocol(self, protocol: Any) -> None:
        """Hand over to another protocol, without `connection_made`, as asyncio does."""
        self.protocol = protocol
