"""A raw HTTP/1.1 client: sends exactly the bytes it is given and reads exactly one response at a time."""

import json
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Self

__all__ = ["Answer", "HttpClient", "Response", "get"]

PIECE = 65536


@dataclass(frozen=True, slots=True)
class Response:
    """One response. headers: as on the wire, in order, names unchanged; body: decoded."""

    status: int
    reason: str
    version: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """The first header of that name, any case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    @property
    def error(self) -> str | None:
        """The proxy's own reason, when the answer is the proxy's."""
        return self.header("x-sidecar-error")

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class HttpClient:
    """One connection. Reads take up to `timeout` seconds; a connection that ends early is ConnectionError."""

    def __init__(
        self, port: int, host: str = "127.0.0.1", timeout: float = 10.0, receive_buffer: int = 0
    ) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        if receive_buffer:  # must be set before the handshake, which announces the window
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            self.socket.connect((host, port))
        except OSError:
            self.socket.close()
            raise
        self.authority = f"{f'[{host}]' if ':' in host else host}:{port}"
        self._buffer = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it."""
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send these bytes."""
        self.socket.sendall(data)

    def request(
        self,
        method: str = "GET",
        target: str = "/",
        headers: Iterable[tuple[str, str]] = (),
        body: bytes | None = None,
    ) -> Response:
        """Send one request with a Host, and a Content-Length when there is a body, and read its response."""
        self.send_head(
            method, target, [*headers, *([("Content-Length", str(len(body)))] if body is not None else [])]
        )
        if body:
            self.send(body)
        return self.read_response(method)

    def send_head(self, method: str, target: str, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Send a request head alone."""
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self.authority}"]
        lines += [f"{name}: {value}" for name, value in headers]
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

    def send_chunk(self, data: bytes) -> None:
        """Send one chunk of a chunked body; an empty one ends it."""
        self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def read_response(self, method: str = "GET") -> Response:
        """The next response, interim ones (1xx but 101) skipped, with its whole body."""
        status, reason, version, headers = self.read_head()
        while 100 <= status < 200 and status != 101:
            status, reason, version, headers = self.read_head()
        body = b"".join(self.read_body(method, status, headers))
        return Response(status, reason, version, headers, body)

    def read_head(self) -> tuple[int, str, str, tuple[tuple[str, str], ...]]:
        """The next response head: status, reason, version, headers."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            self._fill("a response head")
        first, *rest = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        version, status, *reason = first.split(" ", 2)
        pairs = (line.split(":", 1) for line in rest)
        return int(status), "".join(reason), version, tuple((name, value.strip()) for name, value in pairs)

    def read_body(self, method: str, status: int, headers: tuple[tuple[str, str], ...]) -> Iterator[bytes]:
        """The pieces of a response's body as they come (RFC 9112 section 6.3)."""
        fields = {name.lower(): value for name, value in headers}
        if method == "HEAD" or status < 200 or status in (204, 304):
            return
        if fields.get("transfer-encoding", "").lower() == "chunked":
            yield from self._read_chunked()
        elif "content-length" in fields:
            yield from self._read_exactly(int(fields["content-length"]))
        else:
            while piece := self.take() or self.socket.recv(PIECE):
                yield piece

    def read_line(self) -> bytes:
        """One line without its end."""
        while (end := self._buffer.find(b"\r\n")) < 0:
            self._fill("a line")
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def take(self) -> bytes:
        """What has been received and was not asked for yet."""
        data = bytes(self._buffer)
        self._buffer.clear()
        return data

    def read_end(self) -> bytes:
        """What is left until the peer closes; a reset counts as an end."""
        data = self.take()
        try:
            while piece := self.socket.recv(PIECE):
                data += piece
        except ConnectionResetError:
            pass
        return data

    def _read_chunked(self) -> Iterator[bytes]:
        while size := int(self.read_line().partition(b";")[0], 16):
            yield from self._read_exactly(size)
            self.read_line()
        while self.read_line():  # trailers
            pass

    def _read_exactly(self, size: int) -> Iterator[bytes]:
        while size:
            if not self._buffer:
                self._fill(f"{size} more bytes of a body")
            piece = bytes(self._buffer[:size])
            del self._buffer[:size]
            size -= len(piece)
            yield piece

    def _fill(self, wanted: str) -> None:
        data = self.socket.recv(PIECE)
        if not data:
            raise ConnectionError(
                f"the peer closed while {wanted} was awaited; got {bytes(self._buffer[:80])!r}"
            )
        self._buffer += data


def get(port: int, target: str = "/", host: str = "127.0.0.1", timeout: float = 10.0) -> Response:
    """One GET on a connection of its own."""
    with HttpClient(port, host, timeout) as client:
        return client.request("GET", target, [("Connection", "close")])


class Answer:
    """The bytes of a whole response, taken apart; each name of a field stands for its last line."""

    def __init__(self, raw: bytes) -> None:
        head, _, self.body = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        self.status = int(first.split()[1])
        self.fields = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
        }

    @property
    def json(self) -> Any:
        """The body's value."""
        assert self.fields["content-type"].startswith("application/json")
        return json.loads(self.body)
