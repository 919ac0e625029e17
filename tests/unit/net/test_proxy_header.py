"""The PROXY protocol's header, held against the examples and the rules of its specification."""

import ipaddress
import socket

import pytest

from sidecar.net.proxy_header import (
    LOCAL,
    MAX_HEADER,
    MAX_LINE,
    Header,
    HeaderError,
    Peer,
    read_header,
    write_header,
)

SIGNATURE = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a"  # section 2.2, byte by byte
PORTS = b"\xdc\x04\x01\xbb"  # 56324 and 443


def v2(command: int, family: int, data: bytes, length: int | None = None) -> bytes:
    size = len(data) if length is None else length
    return SIGNATURE + bytes((command, family)) + size.to_bytes(2, "big") + data


def found(data: bytes) -> Header:
    header = read_header(data)
    assert header is not None
    return header


def ends(data: bytes) -> tuple[tuple[str, int], tuple[str, int]]:
    header = found(data)
    assert header.peer is not None
    assert header.size == len(data)
    return tuple(header.peer), header.peer.reached  # type: ignore[return-value] # a pair


# Version 1


def test_the_examples_of_section_2_1() -> None:
    line = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"
    header = found(line + b"GET / HTTP/1.1\r\nHost: 192.168.0.11\r\n\r\n")
    assert header.size == len(line)
    assert header.peer == ("192.168.0.1", 56324)
    assert header.peer is not None
    assert header.peer.reached == ("192.168.0.11", 443)


@pytest.mark.parametrize(
    "line",
    [
        # "worst cases" of section 2.1
        b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
        b"PROXY TCP6 ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n".replace(
            b"ffff:f...f:ffff", b"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
        ),
    ],
)
def test_the_longest_lines_with_addresses(line: bytes) -> None:
    assert ends(line)[0][1] == 65535
    assert len(line) in (56, 104)


def test_unknown_is_what_the_connection_says_whatever_follows() -> None:
    worst = b"PROXY UNKNOWN " + b"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff " * 2 + b"65535 65535\r\n"
    assert len(worst) == MAX_LINE
    for line in (b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN anything at all\r\n", worst):
        assert found(line).peer is None
        assert found(line + b"x").size == len(line)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"PUT / HTTP/1.1\r\n",
        b"proxy TCP4 1.2.3.4 1.2.3.5 1 2\r\n",
        b"PROXY\tTCP4 1.2.3.4 1.2.3.5 1 2\r\n",
        b"PROXY  TCP4 1.2.3.4 1.2.3.5 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.5 1 2 \r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.5  1 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.5 1\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.5 1 2 3\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.5 1 2\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.5 1\r2\r\n",
        b"PROXY TCP4 1.2.3.4\n1.2.3.5 1 2\r\n",
        b"PROXY UNKNOWN\rx\r\n",
        b"PROXY UNKNOWN \xc3\xa4\r\n",
        b"PROXY UDP4 1.2.3.4 1.2.3.5 1 2\r\n",
        b"PROXY TCP4 ::1 ::2 1 2\r\n",
        b"PROXY TCP6 1.2.3.4 1.2.3.5 1 2\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::2 1 2\r\n",
        b"PROXY TCP4 01.2.3.4 1.2.3.5 1 2\r\n",
        b"PROXY TCP4 1.2.3 1.2.3.5 1 2\r\n",
        b"PROXY TCP4 1.2.3.256 1.2.3.5 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.5 01 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.5 65536 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.5 +1 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.5 1 \r\n",
        b"PROXY UNKNOWN " + b"x" * MAX_LINE,
        b"\r\nGET / HTTP/1.1\r\n",
    ],
)
def test_what_is_no_line_is_refused(data: bytes) -> None:
    with pytest.raises(HeaderError):
        read_header(data)


# Version 2


def test_addresses_of_both_families() -> None:
    four = socket.inet_aton("192.168.0.1") + socket.inet_aton("192.168.0.11") + PORTS
    assert ends(v2(0x21, 0x11, four)) == (("192.168.0.1", 56324), ("192.168.0.11", 443))
    six = ipaddress.ip_address("2001:db8::1").packed + ipaddress.ip_address("::1").packed + PORTS
    assert ends(v2(0x21, 0x21, six)) == (("2001:db8::1", 56324), ("::1", 443))


def test_paths_end_with_a_zero_byte_and_abstract_names_begin_with_one() -> None:
    data = b"/run/a.sock".ljust(108, b"\0") + b"\0name".ljust(108, b"\0")
    assert ends(v2(0x21, 0x31, data)) == (("unix:/run/a.sock", 0), ("unix:@name", 0))
    assert ends(v2(0x21, 0x31, bytes(216)))[0] == ("unix:", 0)


def test_extensions_are_passed_over() -> None:
    four = bytes(8) + PORTS
    tlv = b"\x02\x00\x0bexample.org"  # PP2_TYPE_AUTHORITY
    assert found(v2(0x21, 0x11, four + tlv) + b"more").size == 16 + 12 + len(tlv)


@pytest.mark.parametrize("data", [LOCAL[2], v2(0x20, 0x11, bytes(12)), v2(0x20, 0, b"xyz")])
def test_local_is_what_the_connection_says_whatever_follows(data: bytes) -> None:
    assert found(data + b"x").peer is None
    assert found(data + b"x").size == len(data)


@pytest.mark.parametrize(
    "data", [v2(0x21, 0, b""), v2(0x21, 0, b"xyz"), v2(0x21, 0x10, b""), v2(0x21, 0x01, b"")]
)
def test_unspecified_addresses_are_ignored(data: bytes) -> None:
    assert found(data).peer is None


@pytest.mark.parametrize(
    "data",
    [
        v2(0x11, 0x11, bytes(12)),  # version 1 in binary
        v2(0x31, 0x11, bytes(12)),
        v2(0x22, 0x11, bytes(12)),  # a command that nobody has defined
        v2(0x21, 0x41, bytes(216)),  # a family
        v2(0x21, 0x13, bytes(12)),  # a transport
        v2(0x21, 0x12, bytes(12)),  # UDP, over a stream
        v2(0x21, 0x11, bytes(11)),
        v2(0x21, 0x21, bytes(35)),
        v2(0x21, 0x31, bytes(215)),
        v2(0x21, 0x11, b"", MAX_HEADER - 15),
        v2(0x20, 0x00, b"", 65535),
        SIGNATURE[:-1] + b"\n\n",
        SIGNATURE + b"\x11",
        SIGNATURE + b"\x2f",
    ],
)
def test_what_is_no_binary_header_is_refused(data: bytes) -> None:
    with pytest.raises(HeaderError):
        read_header(data)


def test_the_longest_there_may_be() -> None:
    data = v2(0x21, 0x11, bytes(MAX_HEADER - 16))
    assert found(data).size == MAX_HEADER
    assert read_header(data[:-1]) is None


# Written


def test_what_is_written_is_what_the_specification_shows() -> None:
    client, here = ("192.168.0.1", 56324), ("192.168.0.11", 443)
    assert write_header(1, client, here) == b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"
    four = socket.inet_aton("192.168.0.1") + socket.inet_aton("192.168.0.11") + PORTS
    assert write_header(2, client, here) == v2(0x21, 0x11, four)
    assert write_header(1, ("::1", 5, 0, 0), ("::1", 6, 0, 0)) == b"PROXY TCP6 ::1 ::1 5 6\r\n"


def test_two_families_become_one() -> None:
    assert write_header(1, ("10.0.0.1", 5), ("::1", 6)) == b"PROXY TCP6 ::ffff:10.0.0.1 ::1 5 6\r\n"
    assert write_header(1, ("::ffff:10.0.0.1", 5), ("::ffff:10.0.0.2", 6)) == (
        b"PROXY TCP4 10.0.0.1 10.0.0.2 5 6\r\n"
    )
    assert write_header(1, ("fe80::1%eth0", 5), ("fe80::2%eth0", 6)) == b"PROXY TCP6 fe80::1 fe80::2 5 6\r\n"


def test_whoever_has_no_address() -> None:
    for peer, here in [("", "/run/a.sock"), (None, None), ("", b"\0name")]:
        assert write_header(1, peer, here) == b"PROXY UNKNOWN\r\n"
    assert ends(write_header(2, "", "/run/a.sock")) == (("unix:", 0), ("unix:/run/a.sock", 0))
    assert ends(write_header(2, b"\0c", b"\0name")) == (("unix:@c", 0), ("unix:@name", 0))
    assert write_header(2, None, None) == v2(0x21, 0, b"")


def test_a_socket_that_a_header_named_is_passed_on() -> None:
    peer = Peer(("unix:/c.sock", 0))
    peer.reached = ("unix:@name", 0)
    assert ends(write_header(2, peer, peer.reached)) == (("unix:/c.sock", 0), ("unix:@name", 0))
    assert write_header(1, peer, peer.reached) == LOCAL[1]
    assert write_header(2, ("unix:", 0), ("127.0.0.1", 1)) == v2(0x21, 0, b"")


def test_a_path_with_a_percent_sign_is_no_zone() -> None:
    peer = Peer(("unix:/run/a%b.sock", 0))
    header = read_header(write_header(2, peer, ("unix:/run/c%d.sock", 0)))
    assert header is not None
    assert header.peer is not None
    assert (header.peer, header.peer.reached) == (peer, ("unix:/run/c%d.sock", 0))
