"""Back-pressure: whoever cannot be written to stops the one who is being read from.

A transport's `pause_reading` is a switch, while there can be several reasons to hold one side at once (its
peer's buffer is full, the request has nowhere to go yet, too much is pipelined). A `ReadGate` counts the
reasons and moves the switch only at the first and the last.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import termios
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import Transport

__all__ = ["PEER_FULL", "PIPELINE_FULL", "SPLICE_BYTES", "UNSENT", "ReadGate", "reset", "splice", "unsent"]

_NO_LINGER = struct.pack("ii", 1, 0)  # struct linger: on, no seconds

PEER_FULL = 1  # the other side's write buffer is above its high-water mark (64 KiB, uvloop's default)
UNSENT = 2  # the request's body waits for a connection to an endpoint
PIPELINE_FULL = 4  # enough further requests are held already

SPLICE_BYTES = 131072  # of a body still to come, for it to be worth moving it past this process


class ReadGate:
    """Reading of one transport, held while any reason holds."""

    __slots__ = ("_transport", "reasons")

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.reasons = 0

    def hold(self, reason: int) -> None:
        """Stop reading for `reason`, until it is released."""
        if not self.reasons and not self._transport.is_closing():
            self._transport.pause_reading()
        self.reasons |= reason

    def release(self, reason: int) -> None:
        """`reason` is over (several may be or-ed); reading goes on when it was the last."""
        if self.reasons:
            self.reasons &= ~reason
            if not self.reasons and not self._transport.is_closing():
                self._transport.resume_reading()


def splice(source: Transport, target: Transport, size: int) -> None:
    """Let the next `size` bytes go from one to the other inside the kernel, where the transports can.

    Those of the compiled build (`net.transport`) can; the protocol hears of the progress by `spliced`.
    """
    splice_into = getattr(source, "splice_into", None)
    if splice_into is not None:
        splice_into(target, size)


def reset(transport: Transport) -> None:
    """End a connection so that the other side sees a break (RST), not an end.

    A plain abort sends FIN when everything was read, and what is cut short then looks complete to whoever reads
    until the end (RFC 9112 8: HTTP/1.0, and every opaque session).
    """
    sock = transport.get_extra_info("socket")
    # A transport that is closing still has its socket while something is unsent; one that has closed has not, and
    # the number may be another's by now.
    if sock is not None and (not transport.is_closing() or transport.get_write_buffer_size()):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    transport.abort()


def unsent(transport: Transport) -> int:
    """Bytes that the other side has not taken: those of the transport, and those in the kernel's send queue.

    Who reads slowly empties the kernel's megabytes first, and the transport's own number stands still meanwhile.
    """
    count = transport.get_write_buffer_size()
    sock = transport.get_extra_info("socket")
    if sock is not None and (not transport.is_closing() or count):
        with contextlib.suppress(OSError):
            (queued,) = struct.unpack(
                "i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
            )  # SIOCOUTQ, tcp(7)
            count += queued
    return count
