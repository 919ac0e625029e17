"""What single values about unix sockets and the PROXY protocol may be; see `rules`."""

from __future__ import annotations

import posixpath
import re
from typing import Final

from sidecar.config.addresses import parse_host
from sidecar.config.findings import shown
from sidecar.config.record import Record
from sidecar.config.rules import Text, Unusable, described
from sidecar.net.unix import MAX_PATH, UNIX, is_unix

__all__ = ["EndpointHost", "FileMode", "ProxyVersion", "SocketPath", "parse_unix", "plain_path"]

# No comma, which separates hosts in a variable, and nothing that a label, a log line or a shell would have to escape.
_PATH: Final = r"/[A-Za-z0-9._/:@+=~%-]*[A-Za-z0-9._:@+=~%-]"
_ABSTRACT: Final = r"@[A-Za-z0-9._/:@+=~%-]+"
_MODE: Final = r"0?o?([0-7]{3})"


def parse_unix(text: str) -> str:
    """The path of a unix socket, or `@name`, without `unix:`. Raises `ValueError` that says what to write."""
    if not re.fullmatch(f"{_PATH}|{_ABSTRACT}", text, re.ASCII):
        raise ValueError(
            "is no path of a unix socket; write a whole path such as /run/app.sock, or @name, of plain characters"
        )
    if len(text) > MAX_PATH:
        raise ValueError(
            f"has {len(text)} characters; a unix socket's path has {MAX_PATH} at most, use a shorter one"
        )
    return text


def plain_path(path: str) -> str:
    """The shortest spelling of a path; of an abstract name itself, which has no parts."""
    return path if path.startswith("@") else "/" + posixpath.normpath(path).lstrip("/")


class EndpointHost(Text):
    """Where an endpoint is: a host name, an IP address, or `unix:PATH`."""

    def accept(self, text: str) -> str:
        try:
            return UNIX + parse_unix(text.removeprefix(UNIX)) if is_unix(text) else parse_host(text)
        except ValueError as error:
            raise Unusable(f"{shown(text)} {error}") from None


class SocketPath(Text):
    """A unix socket to listen on."""

    def accept(self, text: str) -> str:
        try:
            path = parse_unix(text)
        except ValueError as error:
            raise Unusable(f"{shown(text)} {error}") from None
        plain = plain_path(path)
        if path != plain:  # two spellings of one place would be two listeners
            raise Unusable(f"{shown(text)} has parts that lead nowhere; write {shown(plain)}")
        return path


class FileMode(Record):
    """The permissions of a file as `chmod` takes them: three octal digits, however YAML reads a leading zero."""

    def read(self, value: object, written: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise Unusable(f'must be a mode, not {described(value, written)}; write for example "0660"')
        return self.from_text(value if isinstance(value, str) else written)

    def from_text(self, text: str) -> int:
        match = re.fullmatch(_MODE, text, re.ASCII)
        if match is None:
            raise Unusable(f'{shown(text)} is no mode; write three octal digits, for example "0660"')
        return int(match[1], 8)


class ProxyVersion(Record):
    """The version of a PROXY header: `v1`, `v2`, or 0 for `off`, which YAML reads as false."""

    def read(self, value: object, written: str) -> int:
        if value is False:
            return 0
        if not isinstance(value, str):
            raise Unusable(f"must be v1, v2 or off, not {described(value, written)}")
        return self.from_text(value)

    def from_text(self, text: str) -> int:
        if text not in ("v1", "v2", "off"):
            raise Unusable(f"{shown(text)} is no version; use v1 (text), v2 (binary) or off")
        return 0 if text == "off" else int(text[1:])
