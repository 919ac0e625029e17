"""How unix domain sockets (unix(7)) are written in the place of a host: `unix:/run/app.sock`.

`unix:@name` is one in Linux's abstract namespace.
"""

from __future__ import annotations

__all__ = ["MAX_PATH", "UNIX", "address_of", "is_unix", "spelt"]

UNIX = "unix:"
MAX_PATH = 107  # bytes: sun_path has 108, of which the last, or an abstract name's first, is zero (unix(7))


def is_unix(host: str) -> bool:
    """Whether `host` is a unix socket."""
    return host.startswith(UNIX)


def address_of(path: str) -> str | bytes:
    """What a socket connects and binds to. path: with or without `unix:`."""
    path = path.removeprefix(UNIX)
    return b"\0" + path[1:].encode() if path.startswith("@") else path


def spelt(address: object) -> str:
    """The way back: of what a socket says of one of its ends; empty where that has no name, or is no unix socket."""
    if isinstance(address, bytes):
        address = address.decode("utf-8", "surrogateescape")
    if not isinstance(address, str) or not address:
        return ""
    return f"{UNIX}@{address[1:]}" if address[0] == "\0" else UNIX + address
