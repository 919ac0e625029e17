"""Where bodies end (RFC 9112 6.3, 7.1), what of them goes on, and what is refused."""

from collections import deque
from collections.abc import Iterable

import pytest

from sidecar.errors import ProtocolError, Reason
from sidecar.http1 import ChunkedReader, LengthReader, UntilCloseReader
from sidecar.http1.body import MAX_EXTENSION, MAX_TRAILERS

BODY = b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"


def bytewise(data: bytes, *, decode: bool = False) -> bytes:
    """What goes on when every byte comes alone."""
    reader = ChunkedReader(decode=decode)
    return b"".join(reader.feed(data[at : at + 1])[0] for at in range(len(data)))


def consume(calls: Iterable[object]) -> None:
    deque(calls, maxlen=0)


def refusal(*pieces: bytes) -> tuple[int, Reason]:
    """Status and reason of the refusal that the pieces, fed in turn, must meet."""
    reader = ChunkedReader()
    with pytest.raises(ProtocolError) as caught:
        consume(map(reader.feed, pieces))
    return caught.value.status, caught.value.reason


def bytes_of(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


# Content-Length


def test_length_counts_down_to_the_end() -> None:
    reader = LengthReader(5)
    assert reader.feed(b"he") == (b"he", 2)
    assert (reader.left, reader.done) == (3, False)
    assert reader.feed(b"llo") == (b"llo", 3)
    assert (reader.left, reader.done) == (0, True)


def test_length_leaves_what_follows() -> None:
    reader = LengthReader(5)
    assert reader.feed(b"helloGET /") == (b"hello", 5)
    assert reader.done


def test_length_begins_where_it_is_told() -> None:
    whole, begun = LengthReader(5), LengthReader(5)
    assert whole.feed(b"head.helloGET /", 5) == (b"hello", 10)
    assert whole.done
    assert begun.feed(b"head.he", 5) == (b"he", 7)
    assert (begun.left, begun.done) == (3, False)


def test_length_nought_is_done_before_it_begins() -> None:
    reader = LengthReader(0)
    assert reader.done
    assert reader.feed(b"GET /") == (b"", 0)


def test_length_passes_a_whole_piece_without_a_copy() -> None:
    piece = b"x" * 64
    assert LengthReader(100).feed(piece)[0] is piece


def test_what_goes_another_way_counts() -> None:
    reader = LengthReader(5)
    reader.skip(3)
    assert (reader.left, reader.done) == (2, False)
    reader.skip(2)
    assert (reader.left, reader.done) == (0, True)


# Until the connection closes


def test_until_close_takes_everything_and_never_ends() -> None:
    reader = UntilCloseReader(reframe=False)
    assert reader.feed(b"HTTP/1.1 200 OK\r\n\r\nhello", 19) == (b"hello", 24)
    piece = b"x" * 64
    assert reader.feed(piece)[0] is piece
    assert not reader.done
    assert reader.ending == b""


def test_until_close_becomes_chunks() -> None:
    reader = UntilCloseReader(reframe=True)
    assert reader.feed(b"..hello", 2) == (b"5\r\nhello\r\n", 7)
    assert reader.feed(b"x" * 26) == (b"1a\r\n" + b"x" * 26 + b"\r\n", 26)
    assert not reader.done
    assert reader.ending == b"0\r\n\r\n"


def test_nothing_makes_no_chunk_as_that_would_be_the_end() -> None:
    assert UntilCloseReader(reframe=True).feed(b"head", 4) == (b"", 4)


# Chunked


def test_chunks_pass_as_they_came() -> None:
    reader = ChunkedReader()
    assert reader.feed(BODY) == (BODY, len(BODY))
    assert reader.done
    assert bytewise(BODY) == BODY


def test_chunks_leave_what_follows_and_begin_where_they_are_told() -> None:
    reader = ChunkedReader()
    assert reader.feed(b"head" + BODY + b"GET /", 4) == (BODY, 4 + len(BODY))
    assert reader.done
    assert reader.feed(b"GET /") == (b"", 0), "nothing more is taken"


def test_decoding_gives_the_data_alone() -> None:
    reader = ChunkedReader(decode=True)
    body = BODY[:-2] + b"X-Sum: 1\r\n\r\n"
    assert reader.feed(body) == (b"hello world", len(body))
    assert reader.done
    assert bytewise(body, decode=True) == b"hello world"


def test_a_piece_inside_a_chunk_passes_without_a_copy() -> None:
    reader = ChunkedReader()
    assert reader.feed(b"40\r\n") == (b"40\r\n", 4)
    piece = b"x" * 32
    assert reader.feed(piece)[0] is piece


def test_the_end_of_data_may_come_in_two_pieces() -> None:
    reader = ChunkedReader()
    assert reader.feed(b"1\r\na\r") == (b"1\r\na", 5)
    assert reader.feed(b"\n0\r\n") == (b"\r\n0\r\n", 4)
    assert not reader.done
    assert reader.feed(b"\r\n") == (b"\r\n", 2)
    assert reader.done


@pytest.mark.parametrize(
    "line",
    [b"5;name=value", b'5; name="a b"', b"5 ;x", b"5\t \t;x", b'5;a="\xe4\\""', b"5;a;b=c", b"5;a = b ; c"],
)
def test_extensions_are_dropped(line: bytes) -> None:
    body = line + b"\r\nhello\r\n0;last\r\n\r\n"
    assert ChunkedReader().feed(body)[0] == b"5\r\nhello\r\n0\r\n\r\n"
    assert bytewise(body) == b"5\r\nhello\r\n0\r\n\r\n"


@pytest.mark.parametrize("digits", [b"5", b"005", b"000000000000005"])
def test_sizes_keep_their_spelling(digits: bytes) -> None:
    body = digits + b"\r\nhello\r\n00\r\n\r\n"
    reader = ChunkedReader()
    assert reader.feed(body)[0] == digits + b"\r\nhello\r\n0\r\n\r\n"
    assert reader.done


def test_sizes_are_hexadecimal_in_either_case() -> None:
    for digits in (b"1f", b"1F"):
        reader = ChunkedReader(decode=True)
        assert reader.feed(digits + b"\r\n" + b"x" * 31 + b"\r\n0\r\n\r\n")[0] == b"x" * 31


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"x",
        b"-5",
        b"+5",
        b"0x5",
        b"5 ",
        b" 5",
        b"5 5",
        b"5_0",
        b"\xd9\xa5",
        b"5,5",
        b"5;a\rb",
        b"5;a\0b",
        b"5;a\x7fb",
        b"5\r",
        b"1000000000000000",  # 16 digits: 2**60
        b"0000000000000005",
    ],
)
def test_what_is_no_size_is_refused(line: bytes) -> None:
    assert refusal(line + b"\r\n") == (400, Reason.BAD_REQUEST)
    assert refusal(*bytes_of(line + b"\r\n")) == (400, Reason.BAD_REQUEST)


def test_the_largest_size_is_taken_and_no_larger() -> None:
    """Beyond it, who counts in 32 bits would see a small chunk and then a request."""
    reader = ChunkedReader()
    assert reader.feed(b"7fffffff\r\nxy") == (b"7fffffff\r\nxy", 12)
    assert not reader.done
    for size in (b"80000000", b"100000005", b"f" * 15):
        assert refusal(size + b"\r\nhello\r\n") == (400, Reason.TOO_LARGE)


@pytest.mark.parametrize("body", [b"5\nhello\r\n", b"5\r\nhello\n", b"0\r\n\n", b"0\r\na: b\n\r\n"])
def test_a_bare_line_feed_is_refused(body: bytes) -> None:
    assert refusal(body) == (400, Reason.BAD_REQUEST)
    assert refusal(*bytes_of(body)) == (400, Reason.BAD_REQUEST)


@pytest.mark.parametrize(
    "body", [b"5\r\nhelloX", b"5\r\nhello!\r\n", b"5\r\nhello\rX", b"5\r\nhello0\r\n\r\n"]
)
def test_data_that_is_longer_than_its_size_is_refused(body: bytes) -> None:
    assert refusal(body) == (400, Reason.BAD_REQUEST)
    assert refusal(*bytes_of(body)) == (400, Reason.BAD_REQUEST)


def test_nothing_is_told_apart_before_it_can_be() -> None:
    reader = ChunkedReader()
    assert reader.feed(b"5\r\nhello\r")[0] == b"5\r\nhello", "an unfinished CRLF is held"
    with pytest.raises(ProtocolError, match="does not end where its size says"):
        reader.feed(b"5")


# Limits of the chunked framing


def test_the_limits() -> None:
    assert (MAX_EXTENSION, MAX_TRAILERS) == (1024, 8192)


def splits(line: bytes) -> list[list[bytes]]:
    """The splits at which a count goes wrong: none, everywhere, and around the end of the line."""
    return [[line], bytes_of(line), [line[:-1], line[-1:]], [line[:-2], line[-2:]], [line[:9], line[9:]]]


def test_a_size_line_at_its_limit_passes_in_any_split() -> None:
    line = b"5;".ljust(MAX_EXTENSION, b"x") + b"\r\n"
    for pieces in splits(line):
        reader = ChunkedReader()
        assert b"".join(reader.feed(piece)[0] for piece in pieces) == b"5\r\n"


def test_a_size_line_beyond_its_limit_is_too_large_in_any_split() -> None:
    line = b"5;".ljust(MAX_EXTENSION + 1, b"x") + b"\r\n"
    for pieces in splits(line):
        assert refusal(*pieces) == (400, Reason.TOO_LARGE)


def test_a_size_line_that_never_ends_is_too_large() -> None:
    assert refusal(b"5;" + b"x" * MAX_EXTENSION) == (400, Reason.TOO_LARGE)


def test_trailers_at_their_limit_pass_in_any_split() -> None:
    lines = b"a: b\r\n" + b"c: ".ljust(MAX_TRAILERS - 8, b"x") + b"\r\n"
    assert len(lines) == MAX_TRAILERS
    for pieces in splits(lines):
        reader = ChunkedReader()
        passed = [reader.feed(piece)[0] for piece in (b"0\r\n", *pieces, b"\r\n")]
        assert b"".join(passed) == b"0\r\n" + lines + b"\r\n"
        assert reader.done


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_trailers_beyond_their_limit_are_431_in_any_split(end: bytes) -> None:
    one = b"a: ".ljust(MAX_TRAILERS, b"x") + end
    for pieces in splits(one):
        assert refusal(b"0\r\n", *pieces) == (431, Reason.TOO_LARGE)
    for pieces in splits(b"a: b\r\n" + b"c: ".ljust(MAX_TRAILERS - 7, b"x") + b"\r\n"):
        assert refusal(b"0\r\n", *pieces) == (431, Reason.TOO_LARGE), "lines count together"


def test_a_trailer_that_never_ends_is_too_large() -> None:
    assert refusal(b"0\r\n", b"a: " + b"x" * MAX_TRAILERS) == (431, Reason.TOO_LARGE)


# Trailers (RFC 9110 6.5)


def test_trailers_pass_as_they_came() -> None:
    body = b"0\r\nX-Sum: a\tb \xff\r\nx-sum:\r\ngrpc-status: 0\r\n\r\n"
    assert ChunkedReader().feed(body) == (body, len(body))
    assert bytewise(body) == body


@pytest.mark.parametrize(
    "name",
    [
        b"Content-Length",
        b"transfer-encoding",
        b"Host",
        b"Connection",
        b"TE",
        b"Upgrade",
        b"Keep-Alive",
        b"Expect",
        b"Trailer",
        b"AUTHORIZATION",
        b"Set-Cookie",
        b"Cookie",
        b"Content-Type",
        b"Content-Encoding",
        b"Content-Range",
        b"Cache-Control",
        b"Max-Forwards",
        b"If-Match",
        b"If-None-Match",
        b"If-Modified-Since",
        b"If-Unmodified-Since",
        b"If-Range",
        b"Range",
        b"Proxy-Authorization",
        b"Proxy-Authenticate",
        b"WWW-Authenticate",
    ],
)
def test_fields_that_may_not_come_late_are_dropped(name: bytes) -> None:
    body = b"0\r\nA: 1\r\n" + name + b": 5\r\nB: 2\r\n\r\n"
    assert ChunkedReader().feed(body)[0] == b"0\r\nA: 1\r\nB: 2\r\n\r\n"
    assert bytewise(body) == b"0\r\nA: 1\r\nB: 2\r\n\r\n"


@pytest.mark.parametrize(
    "line",
    [b"no colon", b": no name", b"space : x", b" folded: x", b"a: x\0", b"a: x\ry", b"a: \x7f", b"\ta"],
)
def test_what_is_no_trailer_is_refused(line: bytes) -> None:
    assert refusal(b"0\r\n" + line + b"\r\n\r\n") == (400, Reason.BAD_REQUEST)
    assert refusal(*bytes_of(b"0\r\n" + line + b"\r\n\r\n")) == (400, Reason.BAD_REQUEST)
