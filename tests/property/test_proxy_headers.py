"""PROXY headers: written and read again they say the same, and any split of the bytes gives the same result."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sidecar.net.proxy_header import HeaderError, read_header, write_header

PORT = st.integers(0, 65535)
FOUR = st.tuples(st.ip_addresses(v=4).map(str), PORT)
SIX = st.tuples(
    st.ip_addresses(v=6).filter(lambda one: one.ipv4_mapped is None).map(str),  # type: ignore[union-attr] # of v6
    PORT,
)
PAIRS = st.one_of(st.tuples(FOUR, FOUR), st.tuples(SIX, SIX))
VERSION = st.sampled_from([1, 2])

PIECES = st.lists(
    st.sampled_from(
        [
            b"PROXY ",
            b"TCP4 ",
            b"UNKNOWN",
            b"1.2.3.4 ",
            b"1.2.3.5 ",
            b"80 ",
            b"81",
            b"\r",
            b"\n",
            b"\r\n",
            b"\r\n\r\n\0\r\nQUIT\n",
            b"\x21\x11\0\x0c",
            b"\x20\0\0\0",
            b"\x21\x11\x10\0",
            bytes(12),
        ]
    )
    | st.binary(max_size=4),
    max_size=9,
).map(b"".join)


def told(data: bytes) -> Any:
    """What comes of it: size and ends, that it is refused, or that more is needed."""
    try:
        header = read_header(data)
    except HeaderError:
        return "refused"
    if header is None:
        return None
    peer = header.peer
    return header.size, peer, None if peer is None else peer.reached


@given(VERSION, PAIRS, st.binary(max_size=40))
def test_what_is_written_is_read(
    version: int, pair: tuple[tuple[str, int], tuple[str, int]], behind: bytes
) -> None:
    peer, reached = pair
    data = write_header(version, peer, reached)
    assert told(data + behind) == (len(data), peer, reached)
    assert all(told(data[:size]) is None for size in range(len(data)))


@given(PIECES)
def test_no_split_changes_the_result(data: bytes) -> None:
    """Byte by byte: the first result there is, is the result of the whole."""
    first = next((found for size in range(len(data) + 1) if (found := told(data[:size])) is not None), None)
    assert first == told(data)
