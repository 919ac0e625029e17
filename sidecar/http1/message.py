"""What a scan has found: one request or response head, and how it goes on to the other side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sidecar.http1.fields import CONTENT_LENGTH, TRANSFER_ENCODING, classify
from sidecar.model.stats import METHODS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "CHUNKED",
    "HEAD_METHOD",
    "NO_EXTRAS",
    "UNTIL_CLOSE",
    "Extras",
    "RequestHead",
    "ResponseHead",
]

# Values of `length` that are not a number of bytes.
CHUNKED = -1
UNTIL_CLOSE = -2

HEAD_METHOD = METHODS.index("HEAD")
# RFC 9110 9.2.2, by index into METHODS: GET HEAD PUT DELETE OPTIONS TRACE.
_IDEMPOTENT = frozenset(METHODS.index(name) for name in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"))
_FRAMING = frozenset((CONTENT_LENGTH, TRANSFER_ENCODING))
_SECRET = frozenset((b"authorization", b"cookie", b"proxy-authorization"))


class Extras:
    """What the rare fields of a head say (`hop`). Names and protocols in lower case.

    expects: the client waits for 100 (Continue) before it sends the body.
    upgrade: of a request, the protocols it would switch to; of a 101, those it switches to; of a 426, those it
        asks for.
    takes_trailers: the client said TE: trailers. trailers: names that the Trailer fields announce.
    max_forwards: of a TRACE or OPTIONS that has one, else -1; at 0 this proxy is where it ends.
    """

    __slots__ = ("expects", "max_forwards", "takes_trailers", "trailers", "upgrade")

    def __init__(self) -> None:
        self.expects = False
        self.upgrade: tuple[bytes, ...] = ()
        self.takes_trailers = False
        self.trailers: frozenset[bytes] = frozenset()
        self.max_forwards = -1


NO_EXTRAS: Final = Extras()  # shared, and so never changed


class RequestHead:
    """One request head.

    method: index into `METHODS`; target: in origin-form or `*`; minor: 0 or 1 of HTTP/1.x.
    length: bytes of body that follow, or `CHUNKED`.
    size: bytes that the head took of the input, the blank line included.
    keep_alive: the client wants the connection kept.
    extras: what its rare fields say; `NO_EXTRAS` where it has none.
    """

    __slots__ = (
        "_host",
        "_lines",
        "extras",
        "keep_alive",
        "length",
        "method",
        "minor",
        "size",
        "target",
    )

    def __init__(self, lines: list[bytes], method: int, target: bytes, minor: int, size: int) -> None:
        self._lines = lines
        self._host = 0
        self.method = method
        self.target = target
        self.minor = minor
        self.length = 0
        self.size = size
        self.keep_alive = minor == 1
        self.extras = NO_EXTRAS

    @property
    def idempotent(self) -> bool:
        """Whether sending it twice means no more than sending it once (RFC 9110 9.2.2)."""
        return self.method in _IDEMPOTENT

    def echo(self) -> bytes:
        """The head as the answer to a TRACE shows it: without what is secret (RFC 9110 9.3.8)."""
        shown = [line for line in self._lines if line.partition(b":")[0].lower() not in _SECRET]
        return b"\r\n".join([*shown, b"", b""])

    def field(self, name: bytes) -> bytes | None:
        """The value of the first field called `name`, which is in lower case; None when there is none."""
        for line in self._lines[1:]:
            found, _, value = line.partition(b":")
            if found.lower() == name:
                return value.strip(b" \t")
        return None

    def unpacked(self) -> RequestHead:
        """The same head with its lines, for who changes one: itself, but for what the compiled scan has found."""
        return self

    def copy(self) -> RequestHead:
        """The same head, unpacked: of what is changed in it, this one knows nothing."""
        head = RequestHead(list(self._lines), self.method, self.target, self.minor, self.size)
        head._host = self._host
        head.length = self.length
        head.keep_alive = self.keep_alive
        head.extras = self.extras
        return head

    def places(self, name: bytes) -> list[int]:
        """Where the fields called `name`, which is in lower case, stand in an unpacked head."""
        lines = self._lines
        return [at for at in range(1, len(lines)) if lines[at].partition(b":")[0].lower() == name]

    def put(self, at: int, value: bytes) -> None:
        """Give the field at a place another value; its name keeps its spelling."""
        self._lines[at] = b"%b: %b" % (self._lines[at].partition(b":")[0], value)

    def add(self, name: bytes, value: bytes) -> None:
        """Add a field at the end of an unpacked head, so that no other one moves."""
        self._lines.append(b"%b: %b" % (name, value))

    def drop(self, places: list[int]) -> None:
        """Take the fields at these places, in rising order and without Host, out of an unpacked head."""
        for at in reversed(places):
            del self._lines[at]
            if at < self._host:
                self._host -= 1

    def edit(self, fixed: Mapping[bytes, bytes | None], added: Sequence[bytes]) -> None:
        """Change the fields of an unpacked head, see `_edited`. Host is not among them."""
        host = self._lines[self._host]
        self._lines = _edited(self._lines, fixed, added)
        self._host = self._lines.index(host)

    def values(self, places: list[int]) -> list[bytes]:
        """The values of the fields at these places of an unpacked head."""
        return [self._lines[at].partition(b":")[2].strip(b" \t") for at in places]

    def render(self, authority: bytes, body: bytes = b"") -> bytes:
        """The head for an endpoint, followed by what has come of the body, in one piece.

        authority: replaces the value of Host in its place; empty keeps the application's.
        """
        lines = self._lines
        if authority:
            name = lines[self._host].partition(b":")[0]
            lines[self._host] = b"%b: %b" % (name, authority)
        return b"%b\r\n\r\n%b" % (b"\r\n".join(lines), body)


class ResponseHead:
    """One response head.

    status: 100 to 599; length: bytes of body that follow, `CHUNKED` or `UNTIL_CLOSE`.
    size: bytes that the head took of the input; keep_alive: the endpoint lets the connection be used again.
    passes_whole: no line of it belongs to one hop, so its bytes may pass as they came.
    extras: what its rare fields say; `NO_EXTRAS` where it has none.
    """

    __slots__ = (
        "_lines",
        "extras",
        "keep_alive",
        "length",
        "minor",
        "passes_whole",
        "size",
        "status",
    )

    def __init__(self, lines: list[bytes], status: int, minor: int, size: int) -> None:
        self._lines = lines
        self.status = status
        self.minor = minor
        self.size = size
        self.length = 0
        self.keep_alive = minor == 1
        self.passes_whole = minor == 1
        self.extras = NO_EXTRAS

    def edit(self, fixed: Mapping[bytes, bytes | None], added: Sequence[bytes]) -> None:
        """Change its fields, see `_edited`."""
        self._lines = _edited(self._lines, fixed, added)
        self.passes_whole = False

    def drop_coding(self) -> None:
        """Take Transfer-Encoding out: HTTP/1.0 clients know none, also where there is no body (RFC 9112 6.1)."""
        kept = [line for line in self._lines if classify(line.partition(b":")[0]) != TRANSFER_ENCODING]
        if len(kept) != len(self._lines):
            self._lines[:] = kept
            self.passes_whole = False

    def drop_framing(self) -> None:
        """Take Content-Length and Transfer-Encoding out: the body goes on in another framing, or there is none."""
        self.passes_whole = False
        self._lines[1:] = [
            line for line in self._lines[1:] if classify(line.partition(b":")[0]) not in _FRAMING
        ]

    def render(self, extra: bytes, data: bytes = b"", at: int = 0) -> bytes:
        """The head for the client, followed by what has come of the body (`data` from `at`), in one piece.

        extra: header lines of our own hop, each with its line end, for example `Connection: close`.
        """
        return b"%b\r\n%b\r\n%b" % (b"\r\n".join(self._lines), extra, data[at:])


def _edited(lines: list[bytes], fixed: Mapping[bytes, bytes | None], added: Sequence[bytes]) -> list[bytes]:
    """A head's lines with other fields.

    fixed: by name in lower case, the line in place of the first field called so, or at the end where there is none;
    None is no line. added: lines at the end.
    """
    kept = [lines[0]]
    left = dict(fixed)
    for line in lines[1:]:
        name = line.partition(b":")[0].lower()
        if name not in fixed:
            kept.append(line)
            continue
        instead = left.pop(name, None)
        if instead is not None:
            kept.append(instead)
    kept += [line for line in left.values() if line is not None]
    kept += added
    return kept
