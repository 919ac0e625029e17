"""An endpoint whose every answer is scripted, on a real socket, with one thread for each connection.

A script is a function that is given a `Conversation` and does what it likes with it; when it returns the
connection is closed. The first connection gets the first script, and so on; the last one serves all others.
"""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

from support.ports import free_port
from support.waiting import wait_until

__all__ = ["Conversation", "Received", "Script", "ScriptedEndpoint", "hang", "ok", "respond"]

PIECE = 65536
RESET_AT_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER with no time
MANY_THREADS = 256  # from here on those that have ended are forgotten


@dataclass(slots=True)
class Received:
    """One request as it arrived. line: the request line; headers: raw lines; body: decoded."""

    line: str
    headers: list[str] = field(default_factory=list)
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """The first header of that name, any case."""
        for line in self.headers:
            key, _, value = line.partition(":")
            if key.lower() == name.lower():
                return value.strip()
        return None


class Conversation:
    """One accepted connection, as its script sees it.

    number: 0 for the endpoint's first. answered: requests that its script says it has answered.
    """

    def __init__(self, endpoint: "ScriptedEndpoint", sock: socket.socket, number: int) -> None:
        self.endpoint = endpoint
        self.socket = sock
        self.number = number
        self.answered = 0
        self._buffer = bytearray()

    def read_request(self) -> Received | None:
        """The next request with its body, recorded; None when the peer has closed instead."""
        received = self.read_head()
        if received is not None:
            received.body = self.read_body(received)
        return received

    def read_head(self) -> Received | None:
        """The next request head, recorded; None when the peer has closed instead."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if not self._fill():
                return None
        line, *headers = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        received = Received(line, headers)
        self.endpoint.requests.append(received)
        return received

    def read_body(self, received: Received) -> bytes:
        """The body that the head announces."""
        if (received.header("transfer-encoding") or "").lower() == "chunked":
            return b"".join(self.chunks())
        return self.read_exactly(int(received.header("content-length") or 0))

    def chunks(self) -> Iterator[bytes]:
        """The chunks of a chunked body, as they come."""
        while size := int(self.read_line().partition(b";")[0], 16):
            yield self.read_exactly(size)
            self.read_line()
        while self.read_line():  # trailers
            pass

    def read_line(self) -> bytes:
        """One line without its end."""
        while (end := self._buffer.find(b"\r\n")) < 0:
            if not self._fill():
                raise ConnectionError("closed within a line")
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def read_exactly(self, size: int) -> bytes:
        """So many bytes."""
        while len(self._buffer) < size:
            if not self._fill():
                raise ConnectionError(f"closed {size - len(self._buffer)} bytes early")
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def read_to_end(self) -> bytes:
        """Everything until the peer half-closes."""
        while self._fill():
            pass
        data = bytes(self._buffer)
        self._buffer.clear()
        return data

    def send(self, data: bytes) -> None:
        """Send, and count what the kernel took in the endpoint's `sent`."""
        view = memoryview(data)
        while view:
            count = self.socket.send(view)
            self.endpoint.sent += count
            view = view[count:]

    def half_close(self) -> None:
        """Send no more."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with a TCP reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
        self.socket.close()

    def hang(self) -> None:
        """Do nothing until the peer goes away or the endpoint stops."""
        while self._fill():
            self._buffer.clear()

    def wait_for_end_of_test(self) -> None:
        """Do nothing at all, not even read."""
        self.endpoint.stopping.wait()

    def _fill(self) -> bool:
        data = self.socket.recv(PIECE)
        self.endpoint.received += len(data)
        self._buffer += data
        return bool(data)


Script = Callable[[Conversation], object]


def ok(body: bytes = b"ok\n", extra: str = "") -> bytes:
    """A 200 response with a length. extra: more header lines, each with its CRLF."""
    return f"HTTP/1.1 200 OK\r\n{extra}Content-Length: {len(body)}\r\n\r\n".encode() + body


def respond(*responses: bytes) -> Script:
    """Answer requests with these bytes, in turn; the last one for ever."""

    def script(conversation: Conversation) -> None:
        while conversation.read_request() is not None:
            conversation.send(responses[min(conversation.answered, len(responses) - 1)])
            conversation.answered += 1

    return script


def hang(conversation: Conversation) -> None:
    """Read and never answer."""
    conversation.hang()


class ScriptedEndpoint:
    """See the module. Used as a context manager.

    requests: heads as they came, over all connections. connections: accepted so far. sent, received: bytes.
    released: for a script that waits until the test says go on.
    errors: what scripts raised, other than the peer or the end of the test closing their socket.
    """

    def __init__(self, *scripts: Script, port: int = 0, buffers: int = 0) -> None:
        """buffers: bytes of the kernel's buffers of each connection, where a test counts what fits in."""
        self.scripts = scripts or (respond(ok()),)
        self.port = port or free_port()
        self.requests: list[Received] = []
        self.connections = 0
        self.sent = 0
        self.received = 0
        self.errors: list[BaseException] = []
        self.stopping = threading.Event()
        self.released = threading.Event()
        self._buffers = buffers
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self.errors:
            raise AssertionError(f"a script failed: {self.errors!r}") from self.errors[0]

    @property
    def address(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self.port}"

    def listen(self) -> None:
        """Accept connections."""
        listener = socket.socket()
        self._set_options(listener)
        if self._buffers:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._buffers)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffers)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(1024)
        self._listener = listener
        self._run(self._accept, listener)

    def refuse(self) -> None:
        """Accept no more connections: they are refused; open ones go on."""
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            self._listener.close()
            self._listener = None

    def hang_up(self, *, reset: bool = False) -> None:
        """End every open connection, whatever it is at. reset: by RST, as a machine does that has lost power."""
        for sock in list(self._open):
            with suppress(OSError):  # it may have gone already
                if reset:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
                # Says nothing to the peer by itself, and wakes the script that reads: it closes.
                sock.shutdown(socket.SHUT_RD if reset else socket.SHUT_RDWR)

    def stop(self) -> None:
        """End everything."""
        self.stopping.set()
        self.refuse()
        self.hang_up()
        for thread in self._threads:
            thread.join(5.0)
        self._threads.clear()

    def wait_for(self, condition: Callable[[Self], object], what: str, seconds: float = 10.0) -> None:
        """Wait until `condition` of this endpoint is true."""
        wait_until(lambda: condition(self), f"endpoint {self.address}: {what}", seconds)

    def _set_options(self, listener: socket.socket) -> None:
        """What a listener needs before it is bound."""
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

    def _run(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name=f"endpoint {self.port}", daemon=True)
        thread.start()
        self._threads.append(thread)
        if len(self._threads) > MANY_THREADS:
            ended = [one for one in self._threads if not one.is_alive()]
            for one in ended:
                self._threads.remove(one)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            number = self.connections
            self.connections += 1
            self._open.add(sock)
            self._run(self._converse, sock, number)

    def _converse(self, sock: socket.socket, number: int) -> None:
        try:
            self.scripts[min(number, len(self.scripts) - 1)](Conversation(self, sock, number))
        except OSError:
            pass  # the peer or the end of the test closed the connection
        except BaseException as error:  # kept for the test, whose thread raises it
            self.errors.append(error)
        finally:
            self._open.discard(sock)
            sock.close()
