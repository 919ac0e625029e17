"""An HTTP check: one GET over a connection of its own, read with the strictness of the data path."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.errors import ProtocolError
from sidecar.health.connection import UnwellError, conversation
from sidecar.health.expectations import Expectations
from sidecar.http1.body import ChunkedReader, LengthReader, UntilCloseReader
from sidecar.http1.message import CHUNKED, UNTIL_CLOSE
from sidecar.http1.scan import scan_response
from sidecar.model import Endpoint
from sidecar.model.stats import METHODS
from sidecar.version import __version__

if TYPE_CHECKING:
    from asyncio import StreamReader

    from sidecar.config.settings import HealthSettings
    from sidecar.health.connection import Resolve
    from sidecar.http1.body import BodyReader
    from sidecar.http1.message import ResponseHead
    from sidecar.tls.client import ClientTls

__all__ = ["MAX_BODY", "HttpProbe"]

MAX_BODY = 65536  # bytes of a body that are read: health pages have some hundred
MAX_INTERIMS = 10  # 1xx responses before the final one: a GET without Expect has reason for hardly any
_PIECE = 65536
_GET = METHODS.index("GET")


class HttpProbe:
    """GET `path`. Redirections are not followed: where they lead is not this endpoint.

    host_header: as in `UpstreamPolicy`. There is no application whose Host could be preserved, so that it is the
    endpoint's own then.
    """

    __slots__ = ("_expectations", "_greeting", "_host", "_path")

    def __init__(self, settings: HealthSettings, host_header: str, greeting: bytes = b"") -> None:
        self._greeting = greeting
        self._path = settings.path
        self._host = "" if host_header in ("endpoint", "preserve") else host_header
        self._expectations = Expectations(settings)

    @property
    def question(self) -> str:
        """What it asks, for people."""
        return f"GET {self._path}"

    async def ask(self, host: str, port: int, resolve: Resolve, tls: ClientTls | None = None) -> None:
        """Raises UnwellError, OSError; see `probes.Probe`."""
        authority = self._host or Endpoint(host, port).authority
        request = (
            f"GET {self._path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: sidecar/{__version__} health\r\n"
            "Accept: */*\r\nConnection: close\r\n\r\n"
        )
        async with conversation(host, port, resolve, self._greeting, tls) as (reader, writer):
            writer.write(request.encode("ascii"))
            try:
                head, came = await _read_head(reader)
                self._expectations.judge_status(head.status)
                body, whole = await _read_body(reader, head, came)
            except ProtocolError as error:
                raise UnwellError(f"no valid HTTP: {error}") from None
        self._expectations.judge_body(body, whole=whole)


async def _read_head(reader: StreamReader) -> tuple[ResponseHead, bytes]:
    """The final response's head, and what has come behind it."""
    data = b""
    interims = 0
    while True:
        head = scan_response(data, 0, _GET) if data else None
        if head is None:
            piece = await reader.read(_PIECE)
            if not piece:
                raise UnwellError("closed before it had answered" if data else "closed without an answer")
            data += piece
            continue
        data = data[head.size :]
        if head.status >= 200:
            return head, data
        interims += 1
        if head.status == 101 or interims > MAX_INTERIMS:
            raise UnwellError(f"status {head.status}, which nobody asked for")


async def _read_body(reader: StreamReader, head: ResponseHead, came: bytes) -> tuple[bytes, bool]:
    """The body, `MAX_BODY` bytes at most, and whether that is all of it."""
    follower: BodyReader
    if head.length == CHUNKED:
        follower = ChunkedReader(decode=True)
    elif head.length == UNTIL_CLOSE:
        follower = UntilCloseReader(reframe=False)
    else:
        follower = LengthReader(head.length)
    body = b""
    while True:
        body += follower.feed(came)[0]
        if follower.done:
            return body[:MAX_BODY], len(body) <= MAX_BODY
        if len(body) > MAX_BODY:
            return body[:MAX_BODY], False
        came = await reader.read(_PIECE)
        if not came:
            if isinstance(follower, UntilCloseReader):
                return body, True
            raise UnwellError("closed within its answer")
