"""TLS over a connection of the network's: a protocol to the transport below, a transport to the protocol above.

    endpoint ── records ──► raw transport ─► TlsTransport.data_received ─► SSLObject.read ─► protocol.data_received
             ◄── records ── raw transport ◄─ SSLObject.write ◄─ TlsTransport.write ◄──────── protocol

OpenSSL works on two buffers in memory (`ssl.MemoryBIO`), which are empty again whenever a call of this class returns
but for the beginning of a record. So there is no queue here: what is unsent is the raw transport's, its back-pressure
passes up, and pausing stops the raw transport. Nothing here waits, and there is no task, future or timer.

It speaks to its protocol as asyncio's transports do, with two differences, both of TLS: a close_notify alert is the
end of what the other side says (RFC 8446 6.1), after which this side may go on, and an end of the connection without
one is an error (`ssl.SSLEOFError` to `connection_lost`), because somebody between the two may have cut it.
"""

from __future__ import annotations

from contextlib import suppress
from errno import ECONNRESET
from ssl import SSL_ERROR_EOF, MemoryBIO, SSLEOFError, SSLWantReadError, SSLZeroReturnError
from typing import TYPE_CHECKING, Any, Protocol

from sidecar.net.receiver import Receiver

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from ssl import SSLObject

__all__ = ["Owner", "TlsTransport"]

# Bytes of plain text in one record at most (RFC 8446 5.1): a read of this size takes all of one.
RECORD = 16384

# Bytes given to OpenSSL at a time. Its buffers keep the size that they once had, so that this, and not what a
# protocol may write at once, is what an idle connection goes on holding.
_PIECE = 65536


class Owner(Protocol):
    """Who has a connection secured. After `TlsTransport.abort` it is told nothing."""

    def connected(self, tls: TlsTransport) -> None:
        """The connection below is there: `start` may be called now, or later."""

    def secured(self, tls: TlsTransport) -> None:
        """The handshake is over: from now on `tls` is a transport, whose protocol is to be set."""

    def unsecured(self, tls: TlsTransport, error: Exception) -> None:
        """The handshake has failed: `ssl.SSLError`, or OSError where the connection has ended. It is closed."""

    def heard(self, tls: TlsTransport) -> None:
        """The first bytes have come after the handshake; by now the session can be resumed by others."""

    def refused(self, tls: TlsTransport, error: Exception) -> None:
        """After the handshake, with no byte come, the other side has ended it (a client's TLS 1.3 is over before the
        server has looked at its certificate)."""


class TlsTransport(Receiver):
    """One connection.

    incoming, outgoing: what its SSLObject is to be made with. peer: (host, port) of the other side as a PROXY header
    names it, for the protocol that its owner makes; None without one.
    """

    __slots__ = (
        "_closing",
        "_error",
        "_established",
        "_held",
        "_loop",
        "_owner",
        "_protocol",
        "_raw",
        "_read_ended",
        "_reading",
        "_receiver",
        "_tls",
        "_write_ended",
        "incoming",
        "outgoing",
        "peer",
    )

    def __init__(self, loop: AbstractEventLoop, owner: Owner) -> None:
        self._loop = loop
        self._owner: Owner | None = owner  # until it has heard something, or the end
        self._raw: Any = None
        self._tls: Any = None  # the SSLObject, from `start` on
        self._protocol: Any = None
        self._receiver: Receiver | None = None  # the protocol, when it is one
        self._error: Exception | None = None
        self._held = b""  # plain text that came while reading was paused
        self._closing = False
        self._established = False
        self._reading = True
        self._read_ended = False  # by close_notify
        self._write_ended = False
        self.incoming = MemoryBIO()
        self.outgoing = MemoryBIO()
        self.peer: tuple[str, int] | None = None

    # The handshake

    def connection_made(self, transport: Any) -> None:
        """The connection below is there."""
        self._raw = transport
        if self._owner is not None:
            self._owner.connected(self)

    def start(self, tls: SSLObject) -> None:
        """Begin the handshake. tls: made with `incoming` and `outgoing`."""
        self._tls = tls
        if not tls.server_side or self.incoming.pending:
            self._shake()

    def _shake(self) -> None:
        owner = self._owner
        assert owner is not None
        try:
            self._tls.do_handshake()
        except SSLWantReadError:
            self._flush()
            return
        except (OSError, ValueError) as error:
            self._shake_failed(error)
            return
        self._established = True
        # What has come with the end of the handshake is decrypted first: its protocol may have nothing to say but
        # goodbye, and see `_say_goodbye`.
        plain = self._decrypt(b"") if self.incoming.pending else b""
        owner.secured(self)
        if not self._closing:
            self._flush()  # what its protocol has said at once has left together with the end of the handshake
            self._pass_on(plain)

    def _shake_failed(self, error: Exception) -> None:
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.unsecured(self, error)
        if not self._closing:
            self._flush()  # an alert that says why
            self._closing = True
            self._raw.close()

    def close_in_clear(self, data: bytes) -> None:
        """Say `data` as it is, and close: to who has begun with something else than TLS."""
        self._closing = True
        self._raw.write(data)
        self._raw.close()

    # Reading

    def data_received(self, data: bytes) -> None:
        """Bytes of the other side, with what OpenSSL has of it already."""
        if not self._established:
            if not self._closing:
                self.incoming.write(data)
                if self._tls is not None:
                    self._shake()
            return
        if self._closing or self._read_ended:  # RFC 8446 6.1: what comes behind close_notify is ignored
            return
        self._pass_on(self._decrypt(data))

    def _pass_on(self, plain: bytes) -> None:
        """Deliver, or hold, what was decrypted, and its end."""
        if plain:
            if self._owner is not None:
                owner, self._owner = self._owner, None
                owner.heard(self)
            if self._reading and not self._held:
                self._deliver(plain)
            else:
                self._held += (
                    plain  # also where reading goes on, and what is held is delivered with the next turn
                )
        if self._read_ended or self._error is not None:
            self._end_reading()

    def _decrypt(self, data: bytes) -> bytes:
        """All plain text that there is now; sets `_read_ended` or `_error` where there will be no more."""
        incoming, tls = self.incoming, self._tls
        if len(data) > _PIECE:
            return self._decrypt_pieces(data)
        chunks = None
        first = b""
        try:
            if data:
                incoming.write(data)
            first = tls.read(RECORD)
            # Nothing is left in OpenSSL after a read of a whole record. So that an empty buffer means that there is
            # nothing to read, and the usual read ends without an exception.
            while incoming.pending:
                if chunks is None:
                    chunks = [first]
                chunks.append(tls.read(RECORD))
                if not chunks[-1]:
                    break
            self._read_ended = not (first if chunks is None else chunks[-1])
        except SSLWantReadError:  # the rest is to come, or it was a ticket, or an update of keys
            self._flush()
        except SSLZeroReturnError:  # close_notify, where this side has sent its own
            self._read_ended = True
        except (OSError, ValueError) as error:
            self._error = error
        return first if chunks is None else b"".join(chunks)

    def _decrypt_pieces(self, data: bytes) -> bytes:
        found = []
        for at in range(0, len(data), _PIECE):
            found.append(self._decrypt(data[at : at + _PIECE]))
            if self._read_ended or self._error is not None:
                break
        return b"".join(found)

    def _deliver(self, data: bytes) -> None:
        receiver = self._receiver  # held: it may hand over to another one while it is at work
        if receiver is not None:
            receiver.data_received(data)
        elif self._protocol is not None:
            self._protocol.data_received(data)

    def _deliver_held(self) -> None:
        """Reading was resumed."""
        if not self._reading or self._closing or not self._held:
            return
        held, self._held = self._held, b""
        self._deliver(held)
        if self._read_ended or self._error is not None:
            self._end_reading()

    def _end_reading(self) -> None:
        """There will be no more plain text: because the other side has said so, or by a fault."""
        if self._closing or self._held or self._protocol is None:
            return
        if self._error is not None:
            self._break()
        elif not self._protocol.eof_received():
            self.close()

    def _break(self) -> None:
        """What has come is no TLS, or not what the other side has sent: that is the end of this connection."""
        owner, self._owner = self._owner, None
        if owner is not None and self._error is not None:
            owner.refused(self, self._error)
        self._closing = True
        self._reading = False
        if self._raw.get_write_buffer_size():
            self._raw.abort()
        else:
            self._flush()  # an alert that says why
            self._raw.close()

    def eof_received(self) -> bool:
        """The connection below has ended, as far as the other side sends."""
        if self._read_ended:
            return not self._closing
        if not self._established:
            self._shake_failed(
                ConnectionResetError(ECONNRESET, "the connection was closed during the handshake")
            )
        elif not self._closing:
            self._error = SSLEOFError(SSL_ERROR_EOF, "the connection was closed without close_notify")
            self._closing = True
            self._raw.abort()
        return False

    def pause_reading(self) -> None:
        """Deliver nothing until `resume_reading`."""
        self._reading = False
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        """Deliver again."""
        if self._closing:
            return
        self._reading = True
        self._raw.resume_reading()
        if self._held:
            self._loop.call_soon(self._deliver_held)

    def is_reading(self) -> bool:
        """Whether data would be delivered."""
        return self._reading and not self._closing

    # Writing

    def write(self, data: bytes) -> None:
        """Send. After the end it is nothing."""
        size = len(data)
        if self._closing or self._write_ended or not size:
            return
        if size > _PIECE:
            self._write_pieces(data)
            return
        try:
            done = self._tls.write(data)
            while done < size:
                done += self._tls.write(data[done:])
        except (OSError, ValueError) as error:
            self._error = error
            self._break()
            return
        self._raw.write(self.outgoing.read())

    def _write_pieces(self, data: bytes) -> None:
        for at in range(0, len(data), _PIECE):
            self.write(data[at : at + _PIECE])

    def _flush(self) -> None:
        if self.outgoing.pending:
            self._raw.write(self.outgoing.read())

    def write_eof(self) -> None:
        """Send close_notify: this side has said all, and goes on reading."""
        if not self._closing and not self._write_ended:
            self._say_goodbye()
            self._raw.write_eof()

    def can_write_eof(self) -> bool:
        """TLS can."""
        return True

    def _say_goodbye(self) -> None:
        """Send close_notify.

        All that has come was decrypted before: `unwrap` looks for the other side's close_notify as well, and takes data
        for a fault.
        """
        if self._established and not self._write_ended:
            self._write_ended = True
            with suppress(OSError, ValueError):  # as a rule: the other side's close_notify has not come
                self._tls.unwrap()
            self._flush()

    def pause_writing(self) -> None:
        """The connection below is full."""
        if self._protocol is not None:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """The connection below has caught up."""
        if self._protocol is not None:
            self._protocol.resume_writing()

    def get_write_buffer_size(self) -> int:
        """Bytes that the socket has not taken yet, encrypted."""
        size: int = self._raw.get_write_buffer_size()
        return size

    # Ending

    def close(self) -> None:
        """Send what is unsent and close_notify, then close."""
        if not self._closing:
            self._closing = True
            self._reading = False
            self._say_goodbye()
            self._raw.close()

    def abort(self) -> None:
        """Close at once, and without close_notify: what is cut short must not look complete."""
        self._closing = True
        self._reading = False
        self._owner = None
        self._raw.abort()

    def is_closing(self) -> bool:
        """Whether it ends, or has ended."""
        return self._closing or bool(self._raw.is_closing())

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection below is gone."""
        if not self._established and not self._closing:
            error = exc or ConnectionResetError(ECONNRESET, "the connection ended during the handshake")
            self._shake_failed(error)
        self._closing = True
        self._held = b""
        self._owner = None
        # Whoever holds a protocol for long holds this too: OpenSSL's part of it is 17 KiB, and goes at once.
        self._tls = None
        self.incoming = self.outgoing = None  # type: ignore[assignment] # nobody asks any more
        protocol, self._protocol, self._receiver = self._protocol, None, None
        if protocol is not None:
            protocol.connection_lost(self._error or exc)

    # Everything else

    def set_protocol(self, protocol: Any) -> None:
        """Hand over to another protocol."""
        self._protocol = protocol
        self._receiver = protocol if isinstance(protocol, Receiver) else None

    def get_protocol(self) -> Any:
        """The protocol."""
        return self._protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """`ssl_object`, and what the connection below tells: `socket`, `peername`, `sockname`."""
        if name == "ssl_object":
            return self._tls
        return self._raw.get_extra_info(name, default)
