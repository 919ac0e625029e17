"""Messages between the supervisor and a worker: four bytes of length, then one JSON object.

Both ends trust each other, being one program; what is bounded is for the mistakes. A frame that is too long or no
JSON object ends the channel, and with it the worker.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Callable

__all__ = ["MAX_FRAME", "Channel", "Message"]

# The settings or the counters of the largest configuration that is accepted are some 20 MiB.
MAX_FRAME = 64 * 1024 * 1024

_LENGTH = 4

Message = dict[str, Any]


class Channel:
    """One end, an asyncio protocol.

    receive: called with each message. lost: called once, when the other end has gone.
    """

    def __init__(self, receive: Callable[[Message], None], lost: Callable[[], None]) -> None:
        self._receive = receive
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()

    async def open(self, loop: asyncio.AbstractEventLoop, end: socket.socket) -> None:
        """Take over `end` of a socket pair."""
        protocol: Any = self  # a protocol in all but its base class
        await loop.create_connection(lambda: protocol, sock=end)

    @property
    def unsent(self) -> int:
        """Bytes that the other end has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def send(self, message: Message) -> None:
        """Send a message; into the void when the other end has gone. `ValueError` when it is too long."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame(message))

    def close(self) -> None:
        """Close once everything is sent; `lost` follows."""
        if self._transport is not None:
            self._transport.close()

    # What the loop calls

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        while len(received) >= _LENGTH:
            end = _LENGTH + int.from_bytes(received[:_LENGTH])
            if end > _LENGTH + MAX_FRAME:
                self._break_off()
                return
            if len(received) < end:
                return
            try:
                message = json.loads(bytes(received[_LENGTH:end]))
            except ValueError:
                message = None
            del received[:end]
            if not isinstance(message, dict):
                self._break_off()
                return
            self._receive(message)

    def eof_received(self) -> None:
        """The other end has gone: close."""

    def pause_writing(self) -> None:
        """What is not taken is bounded by whoever sends: see `unsent`."""

    def resume_writing(self) -> None:
        """See `pause_writing`."""

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._lost()

    def _break_off(self) -> None:
        self._received.clear()
        if self._transport is not None:
            self._transport.abort()


def frame(message: Message) -> bytes:
    """A message as it is sent."""
    body = json.dumps(message, separators=(",", ":")).encode()
    if len(body) > MAX_FRAME:
        raise ValueError(f"a message of {len(body)} bytes; at most {MAX_FRAME} are sent")
    return len(body).to_bytes(_LENGTH) + body
