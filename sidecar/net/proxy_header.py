"""The header of the PROXY protocol, by which a proxy tells who its client is: read and written, without I/O.

Source: https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, whose sections the comments name. Version 1 is a
line of text, version 2 binary. What is not exactly as it says is refused: whoever may choose its client's address
must not be guessed at (section 2).
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address

from sidecar.net.unix import UNIX

__all__ = ["LOCAL", "MAX_HEADER", "MAX_LINE", "Header", "HeaderError", "Peer", "read_header", "write_header"]

MAX_LINE = 107  # bytes of a version 1 header with its CRLF, the longest that there may be (section 2.1)
# Bytes of a version 2 header. Addresses take 216 at most; the rest are extensions (TLVs), such as a client's
# certificate's name: HAProxy writes some hundred. The format itself ends at 16 + 65535.
MAX_HEADER = 4096

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"  # section 2.2
_FIXED = 16  # bytes of version 2 before the addresses
_LINE = b"PROXY "
_STREAM = 1
_INET, _INET6, _UNIX = 1, 2, 3
_SIZES = {0: 0, _INET: 12, _INET6: 36, _UNIX: 216}  # of the addresses, by family

# What a connection begins with that carries nobody's request, such as a health check: LOCAL of version 2, and the word
# that version 1 has for it (section 2.1: receivers are to use the connection's own addresses).
LOCAL = {0: b"", 1: b"PROXY UNKNOWN\r\n", 2: _SIGNATURE + b"\x20\0\0\0"}

# What a socket says of its ends: (host, port, ...), a path or abstract name, or nothing.
SocketAddress = tuple[object, ...] | str | bytes | None


class HeaderError(Exception):
    """What has come is no such header. Its text says why, in a few words."""


class Peer(tuple[str, int]):  # noqa: SLOT001 - a tuple takes none that hold anything
    """(host, port) of a client. reached: the (host, port) that it connected to."""

    reached: tuple[str, int]


class Header:
    """A header that was read. size: its bytes. peer: None where it names nobody: the connection's own ends count."""

    __slots__ = ("peer", "size")

    def __init__(self, size: int, peer: Peer | None) -> None:
        self.size = size
        self.peer = peer


def read_header(data: bytes) -> Header | None:
    """The header that `data` begins with; None while it has not come whole. Raises HeaderError."""
    if data[:1] == b"P":
        return _read_line(data)
    if not _SIGNATURE.startswith(data[: len(_SIGNATURE)]):
        raise HeaderError("no PROXY header")
    return _read_binary(data)


def write_header(version: int, peer: SocketAddress, reached: SocketAddress) -> bytes:
    """A header of `version` 1 or 2 for a connection from `peer` to `reached`.

    Two IP families become one, as an IPv6 socket shows IPv4 (RFC 4291 2.5.5.2).
    """
    if isinstance(peer, tuple) and isinstance(reached, tuple):
        return _write_addresses(version, _end(peer), _end(reached))
    if version == 1:  # it has no words for others (section 2.1)
        return LOCAL[1]
    if isinstance(reached, str | bytes) and reached:
        paths = _path(peer if isinstance(peer, str | bytes) else b"") + _path(reached)
        return _SIGNATURE + bytes((0x21, _UNIX << 4 | _STREAM)) + len(paths).to_bytes(2, "big") + paths
    return _SIGNATURE + b"\x21\0\0\0"  # section 2.2: UNSPEC, somebody whose address is not known


def _read_line(data: bytes) -> Header | None:
    """Version 1 (section 2.1)."""
    if not data.startswith(_LINE[: len(data)]):
        raise HeaderError("no PROXY header")
    end = data.find(b"\r\n", 0, MAX_LINE)
    if end < 0:
        if len(data) >= MAX_LINE:
            raise HeaderError(f"a line of more than {MAX_LINE} bytes")
        if b"\n" in data or b"\r" in data[:-1]:
            raise HeaderError("a line that does not end in CRLF")
        return None
    line = data[len(_LINE) : end]
    if b"\r" in line or b"\n" in line:
        raise HeaderError("a line that does not end in CRLF")
    if not line.isascii():
        raise HeaderError("a line that is not ASCII")
    words = line.decode("ascii").split(" ")
    if words[0] == "UNKNOWN":  # whatever follows is to be ignored
        return Header(end + 2, None)
    if words[0] not in ("TCP4", "TCP6") or len(words) != 5:
        raise HeaderError("a line that is neither TCP4, TCP6 nor UNKNOWN with what belongs to it")
    six = words[0] == "TCP6"
    peer = Peer((_host(words[1], six), _port(words[3])))
    peer.reached = (_host(words[2], six), _port(words[4]))
    return Header(end + 2, peer)


def _host(text: str, six: bool) -> str:
    try:
        if not six:
            return str(IPv4Address(text))  # which takes no heading zeroes, as section 2.1 forbids them
        if "%" not in text:
            return str(IPv6Address(text))
    except ValueError:
        pass
    raise HeaderError("an address that is none")


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5) or (text[0] == "0" and text != "0"):
        raise HeaderError("a port that is none")
    if int(text) > 65535:
        raise HeaderError("a port that is none")
    return int(text)


def _read_binary(data: bytes) -> Header | None:
    """Version 2 (section 2.2). Extensions behind the addresses are passed over."""
    if len(data) < _FIXED:
        if len(data) > 12:
            _read_command(data[12])
        return None
    command = _read_command(data[12])
    family, protocol = data[13] >> 4, data[13] & 15
    length = int.from_bytes(data[14:16], "big")
    if family not in _SIZES or protocol > 2:
        raise HeaderError("an address family or a transport that is not known")
    if _FIXED + length > MAX_HEADER:
        raise HeaderError(f"a header of more than {MAX_HEADER} bytes")
    named = (
        command == 1 and family != 0 and protocol != 0
    )  # LOCAL, UNSPEC: what is said of addresses is ignored
    if named and protocol != _STREAM:
        raise HeaderError("a datagram's addresses")
    if named and length < _SIZES[family]:
        raise HeaderError("addresses that are too short for their family")
    size = _FIXED + length
    if len(data) < size:
        return None
    return Header(size, _read_peer(family, data[_FIXED:size]) if named else None)


def _read_command(byte: int) -> int:
    if byte >> 4 != 2:
        raise HeaderError("a version that is not known")
    if byte & 15 > 1:
        raise HeaderError("a command that is not known")
    return byte & 15


def _read_peer(family: int, data: bytes) -> Peer:
    if family == _UNIX:
        peer = Peer((_read_path(data[:108]), 0))
        peer.reached = (_read_path(data[108:216]), 0)
        return peer
    size, kind = (4, socket.AF_INET) if family == _INET else (16, socket.AF_INET6)
    hosts = [socket.inet_ntop(kind, data[at : at + size]) for at in (0, size)]
    ports = [int.from_bytes(data[at : at + 2], "big") for at in (2 * size, 2 * size + 2)]
    peer = Peer((hosts[0], ports[0]))
    peer.reached = (hosts[1], ports[1])
    return peer


def _read_path(data: bytes) -> str:
    """A path up to its end, or an abstract name, which begins with a zero byte (unix(7)); often nothing at all."""
    abstract = data[:1] == b"\0"
    name = data[1:].rstrip(b"\0") if abstract else data.partition(b"\0")[0]
    return UNIX + ("@" if abstract and name else "") + name.decode("utf-8", "backslashreplace")


def _path(name: str | bytes) -> bytes:
    """108 bytes, as in sockaddr_un."""
    data = name.encode("utf-8", "surrogateescape") if isinstance(name, str) else name
    return data[:108].ljust(108, b"\0")


def _end(address: tuple[object, ...]) -> tuple[str, int]:
    """One end as (host, port): a zone is of this machine alone, and an IPv4 address in IPv6's clothes is IPv4."""
    host, port = str(address[0]), address[1]
    assert isinstance(port, int)
    if host.startswith(UNIX):
        return host, port
    host = host.partition("%")[0]
    mapped = IPv6Address(host).ipv4_mapped if ":" in host else None
    return (host if mapped is None else str(mapped)), port


def _write_addresses(version: int, peer: tuple[str, int], reached: tuple[str, int]) -> bytes:
    if peer[0].startswith(UNIX) or reached[0].startswith(UNIX):
        if version == 1:
            return LOCAL[1]
        return write_header(version, _name(peer[0]), _name(reached[0]))
    six = ":" in peer[0] or ":" in reached[0]
    if six:
        peer, reached = ((_as_six(host), port) for host, port in (peer, reached))
    if version == 1:
        ends = f"{peer[0]} {reached[0]} {peer[1]} {reached[1]}"
        return f"PROXY TCP{6 if six else 4} {ends}\r\n".encode("ascii")
    kind = socket.AF_INET6 if six else socket.AF_INET
    hosts = b"".join(socket.inet_pton(kind, host) for host, _ in (peer, reached))
    ports = b"".join(port.to_bytes(2, "big") for _, port in (peer, reached))
    data = hosts + ports
    family = _INET6 if six else _INET
    return _SIGNATURE + bytes((0x21, family << 4 | _STREAM)) + len(data).to_bytes(2, "big") + data


def _as_six(host: str) -> str:
    return host if ":" in host else f"::ffff:{host}"


def _name(host: str) -> bytes:
    """What a unix socket's address is made of; nothing of another's."""
    if not host.startswith(UNIX):
        return b""
    name = host.removeprefix(UNIX)
    return (b"\0" + name[1:].encode() if name[:1] == "@" else name.encode())[:108]
