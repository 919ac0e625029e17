"""Bodies: any split of the bytes gives the same result, and what goes on means what came.

Limits are made small here, so that ordinary examples meet them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from unittest import mock

from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar.errors import ProtocolError, Reason
from sidecar.http1 import BodyReader, ChunkedReader, LengthReader, UntilCloseReader
from sidecar.http1 import body as body_module

quick = settings(max_examples=250, deadline=None, derandomize=True)

NAMES = (b"X-Sum", b"grpc-status", b"Content-Length", b"Host", b"Cookie", b"a")


@dataclass(frozen=True)
class Chunked:
    """A valid chunked body: its bytes, its data, and its trailer lines."""

    wire: bytes
    data: bytes
    trailers: tuple[bytes, ...]


@dataclass(frozen=True)
class Reading:
    """What a reader made of some bytes. refused: status and reason. end: offset behind the body."""

    passed: bytes
    done: bool
    end: int
    refused: tuple[int, Reason] | None


@st.composite
def chunked_bodies(draw: st.DrawFn) -> Chunked:
    """Valid bodies, with all the freedom of RFC 9112 7.1: zeros, either case, extensions, trailers."""
    wire, whole = [], []
    sizes = st.tuples(st.integers(0, 3), st.booleans())
    extension = st.sampled_from((b"", b"", b";a", b" ;a=b", b'\t; a="\xe4"'))
    for data in draw(st.lists(st.binary(min_size=1, max_size=20), max_size=4)):
        zeros, upper = draw(sizes)
        digits = b"0" * zeros + (b"%X" if upper else b"%x") % len(data)
        wire.append(digits + draw(extension) + b"\r\n" + data + b"\r\n")
        whole.append(data)
    value = st.binary(max_size=8).map(lambda raw: raw.translate(None, bytes(range(32)) + b"\x7f"))
    trailers = [
        name + b":" + text
        for name, text in draw(st.lists(st.tuples(st.sampled_from(NAMES), value), max_size=3))
    ]
    last = draw(st.sampled_from((b"0", b"000", b"0;end")))
    wire.append(b"\r\n".join((last, *trailers, b"", b"")))
    return Chunked(b"".join(wire), b"".join(whole), tuple(trailers))


@st.composite
def mutated_bodies(draw: st.DrawFn) -> bytes:
    """Bodies with a few bytes put in, taken out or replaced: mostly not valid any more."""
    wire = bytearray(draw(chunked_bodies()).wire)
    piece = st.sampled_from(
        (
            b"",
            b"\r",
            b"\n",
            b"\r\n",
            b"0",
            b"f",
            b";",
            b":",
            b" ",
            b"\0",
            b"\xff",
            b"-",
            b"aaaaaaaaaaaaaaaaaaaaaaaa",
        )
    )
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(wire)))
        wire[at : at + draw(st.integers(0, 2))] = draw(piece)
    return bytes(wire)


class Behind:
    """A reader that finds its bytes behind others, as a body's first ones come behind their head."""

    def __init__(self, reader: BodyReader) -> None:
        self._reader = reader
        self.done = reader.done

    def feed(self, data: bytes, start: int = 0) -> tuple[bytes, int]:
        passed, end = self._reader.feed(b"head" + data, 4 + start)
        self.done = self._reader.done
        return passed, end - 4


def cuts_of(size: int) -> st.SearchStrategy[list[int]]:
    """Where to cut, in order; cuts at one place make an empty piece, which a reader must bear as well."""
    return st.lists(st.integers(0, size), max_size=8).map(sorted)


def read(reader: BodyReader, pieces: Sequence[bytes]) -> Reading:
    """Feed the pieces as the data path does: in turn, none once the body is done."""
    passed = []
    fed = end = 0
    try:
        for piece in pieces:
            if reader.done:
                break
            some, used = reader.feed(piece)
            passed.append(some)
            end = fed + used
            fed += len(piece)
    except ProtocolError as error:
        return Reading(b"".join(passed), False, -1, (error.status, error.reason))
    return Reading(b"".join(passed), reader.done, end, None)


def pieces_of(wire: bytes, cuts: Sequence[int]) -> list[bytes]:
    return [wire[start:end] for start, end in zip((0, *cuts), (*cuts, len(wire)), strict=True)]


def bytes_of(wire: bytes) -> list[bytes]:
    return [wire[at : at + 1] for at in range(len(wire))]


def agree(make: Callable[[], BodyReader], wire: bytes, cuts: Sequence[int]) -> Reading:
    """Read whole, cut, byte by byte, and from the middle of other bytes; all must say the same."""
    whole = read(make(), [wire])
    finest = read(make(), bytes_of(wire))
    for other in (read(make(), pieces_of(wire, cuts)), finest):
        assert other.refused == whole.refused
        if whole.refused is None:
            assert other == whole
        else:  # what went on before the refusal is a beginning of all that could
            assert finest.passed.startswith(other.passed)
    assert read(Behind(make()), [wire]) == whole
    return whole


def decode(wire: bytes) -> tuple[bytes, list[bytes]]:
    """The naive decoder: data and trailer lines of exactly one chunked body without extensions."""
    data = b""
    while True:
        size, _, wire = wire.partition(b"\r\n")
        count = int(size, 16)
        if not count:
            break
        assert wire[count : count + 2] == b"\r\n"
        data, wire = data + wire[:count], wire[count + 2 :]
    lines = wire.split(b"\r\n")
    assert lines[-2:] == [b"", b""]
    assert b"" not in lines[:-2]
    return data, lines[:-2]


def allowed(trailers: Sequence[bytes]) -> list[bytes]:
    return [line for line in trailers if not line.startswith((b"Content-Length", b"Host", b"Cookie"))]


@quick
@given(st.data(), chunked_bodies(), st.binary(max_size=10))
def test_valid_chunked_bodies(data: st.DataObject, body: Chunked, following: bytes) -> None:
    wire = body.wire + following
    cuts = data.draw(cuts_of(len(wire)))
    whole = agree(ChunkedReader, wire, cuts)
    assert (whole.refused, whole.done, whole.end) == (None, True, len(body.wire))
    assert decode(whole.passed) == (body.data, allowed(body.trailers))
    decoded = agree(lambda: ChunkedReader(decode=True), wire, cuts)
    assert (decoded.refused, decoded.done, decoded.end) == (None, True, len(body.wire))
    assert decoded.passed == body.data


@quick
@given(st.data(), mutated_bodies())
@example(None, b"5;aaaaaaaa\r\nhello\r\n0\r\n\r\n")  # a size line at its limit, cut before its LF
@example(None, b"5;aaaaaaaaaaaaaaaaaaaaaa\r\n")
@example(None, b"0\r\na: aaaaaaaaaaaaaaaaaaaaaaa\n")
@example(None, b"0\r\na: aaaaaaa\r\nb: aaaaaaaaaa\r\n\r\n")
def test_any_chunked_body(data: st.DataObject | None, wire: bytes) -> None:
    """Whether it is accepted or refused, and how, does not depend on the split; what is accepted can be decoded."""
    cuts = data.draw(cuts_of(len(wire))) if data else [len(wire) - 1]
    with (
        mock.patch.object(body_module, "MAX_EXTENSION", 10),
        mock.patch.object(body_module, "MAX_TRAILERS", 24),
    ):
        whole = agree(ChunkedReader, wire, cuts)
        decoded = agree(lambda: ChunkedReader(decode=True), wire, cuts)
    assert (decoded.done, decoded.end, decoded.refused) == (whole.done, whole.end, whole.refused)
    if whole.done:
        assert decode(whole.passed)[0] == decoded.passed


@quick
@given(st.data(), st.binary(max_size=40), st.integers(0, 30))
def test_length(data: st.DataObject, wire: bytes, length: int) -> None:
    whole = agree(lambda: LengthReader(length), wire, data.draw(cuts_of(len(wire))))
    assert whole.passed == wire[:length]
    assert whole.done == (len(wire) >= length)
    assert whole.end == min(length, len(wire)) or not wire


@quick
@given(st.data(), st.binary(max_size=40))
def test_until_close(data: st.DataObject, wire: bytes) -> None:
    pieces = pieces_of(wire, data.draw(cuts_of(len(wire))))
    plain = UntilCloseReader(reframe=False)
    assert read(plain, pieces).passed + plain.ending == wire
    chunks = UntilCloseReader(reframe=True)
    assert decode(read(chunks, pieces).passed + chunks.ending) == (wire, [])
