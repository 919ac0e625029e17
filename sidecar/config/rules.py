"""What a single value may be. One small frozen class per kind; the schema names them beside its keys.

A rule reads a value as YAML gives it, with `written`, how the file spells it, because YAML 1.1 reads
unquoted `on`, `0777` and `1:30` as something else than people mean. The environment's text goes through the
same rules after `from_text`. Both raise `Unusable`.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Protocol, TypeVar

from sidecar.config.addresses import is_address, parse_authority, parse_host
from sidecar.config.findings import meant, shown
from sidecar.config.quantities import DAY, duration, size
from sidecar.config.record import Record
from sidecar.config.settings import Address, DeploymentMode

__all__ = [
    "PORT",
    "Authority",
    "Bytes",
    "Choice",
    "DeadlineHeader",
    "FailureStatus",
    "Flag",
    "HashOn",
    "HostHeader",
    "HostName",
    "IpAddress",
    "Later",
    "Mode",
    "RetryOn",
    "Rule",
    "Seconds",
    "Share",
    "Text",
    "Unusable",
    "UpstreamName",
    "UrlPath",
    "Whole",
    "ZoneName",
    "described",
    "later",
    "text_of",
]

T_co = TypeVar("T_co", covariant=True)

_PLAIN_INT: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]*)", re.ASCII)
_PLAIN_NUMBER: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]*|[0-9]*\.[0-9]*(?:[eE][-+]?[0-9]+)?)", re.ASCII)
_ERROR_STATUS: Final = re.compile(r"[45][0-9][0-9]", re.ASCII)
# RFC 9110 7.6.1; what of them is read is up to the scan.
_OF_ONE_HOP: Final = (
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
)
# And what else the proxy reads, or writes itself.
_OF_THE_PROXY: Final = (
    "content-length",
    "content_length",
    "expect",
    "host",
    "http2-settings",
    "max-forwards",
    "transfer_encoding",
)
_PERCENT: Final = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)\s*%", re.ASCII)
_UPSTREAM: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}", re.ASCII)  # RFC 9110 5.6.2
_PATH: Final = re.compile(r"/[!-~]{0,1023}", re.ASCII)  # visible ASCII: what a request target consists of


class Unusable(Exception):  # noqa: N818 - becomes a finding, is never seen outside this package
    """A value that cannot be used. Its text is what is wrong and what to do, without place and key."""


class Rule(Protocol[T_co]):
    """One kind of value."""

    def read(self, value: object, written: str) -> T_co:
        """The value in the program's terms. Raises `Unusable`."""

    def from_text(self, text: str) -> T_co:
        """The same from an environment variable, where everything is text. Raises `Unusable`."""


def later(what: str, planned: str) -> str:
    """The finding for a thing that the schema knows and the program does not do yet; no `what` is the key."""
    return f"{what} is not supported yet; remove it (planned: {planned})".lstrip()


class Later(Record):
    """A key whose feature comes with a later version. planned: that feature, in about three words."""

    planned: str


class Whole(Record):
    """A whole number from `lowest` to `highest`."""

    lowest: int
    highest: int

    def read(self, value: object, written: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise Unusable(f"must be a whole number, not {described(value, written)}{_write_instead(value)}")
        if not _PLAIN_INT.fullmatch(written):
            raise Unusable(
                f"{shown(written)} is read by YAML as {shown(value)}; write a plain decimal number"
            )
        if not self.lowest <= value <= self.highest:
            raise Unusable(f"{shown(written)} is out of range; use {_span(self.lowest, self.highest)}")
        return value

    def from_text(self, text: str) -> int:
        # Far longer than any range here, and Python refuses to convert numbers beyond 4300 digits.
        return self.read(int(text) if _PLAIN_INT.fullmatch(text) and len(text) < 20 else text, text)


PORT: Final = Whole(1, 65535)


class Seconds(Record):
    """A duration above zero and up to a day; zero too where it means `off`."""

    zero: bool = False

    def read(self, value: object, written: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise Unusable(f"must be a duration, not {described(value, written)}; {_DURATION_HINT}")
        finite = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
        if finite and not _PLAIN_NUMBER.fullmatch(written):
            problem = f"{shown(written)} is read by YAML as {shown(value)}"
            raise Unusable(f"{problem}; write a plain decimal number or for example `90s`")
        try:
            seconds = duration(value)
        except ValueError as error:
            raise Unusable(f"{shown(written)} {error}") from None
        if seconds > DAY:
            raise Unusable(f"{shown(written)} is more than a day; use a shorter time")
        if seconds == 0 and not self.zero:
            raise Unusable(f"{shown(written)} leaves no time at all; use a time above zero")
        return seconds

    def from_text(self, text: str) -> float:
        return self.read(text, text)


class Flag(Record):
    """`true` or `false`."""

    def read(self, value: object, written: str) -> bool:
        if not isinstance(value, bool):
            raise Unusable(f"must be true or false, not {described(value, written)}")
        return value

    def from_text(self, text: str) -> bool:
        if text.lower() not in ("true", "false"):
            raise Unusable(f"must be true or false, not {shown(text)}")
        return text.lower() == "true"


class Bytes(Record):
    """A size from `lowest` to `highest` bytes."""

    lowest: int
    highest: int

    def read(self, value: object, written: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int | str):
            problem = f"must be a size, not {described(value, written)}"
            raise Unusable(f"{problem}; give a number of bytes or for example `64KiB`, `1MiB`")
        if not isinstance(value, str) and not _PLAIN_INT.fullmatch(written):
            raise Unusable(
                f"{shown(written)} is read by YAML as {shown(value)}; write a plain decimal number"
            )
        try:
            count = size(value)
        except ValueError as error:
            raise Unusable(f"{shown(written)} {error}") from None
        if not self.lowest <= count <= self.highest:
            raise Unusable(f"{shown(written)} is out of range; use {_span(self.lowest, self.highest)} bytes")
        return count

    def from_text(self, text: str) -> int:
        return self.read(text, text)


class Share(Record):
    """A share of a whole, from 0 to 1: `50%`, `0.5`. below: 1 is not one, being above everything."""

    below: bool = False

    def read(self, value: object, written: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise Unusable(f"must be a share, not {described(value, written)}; write for example `50%`")
        if isinstance(value, str):
            match = _PERCENT.fullmatch(value.strip())
            if match is None and _PLAIN_NUMBER.fullmatch(value.strip()):
                match = _PERCENT.fullmatch(f"{float(value) * 100:.6f}%")
            if match is None:
                raise Unusable(
                    f"{shown(written)} is no share; write for example `50%`, or a number from 0 to 1"
                )
            found = float(match[1]) / 100.0
        elif not _PLAIN_NUMBER.fullmatch(written):
            raise Unusable(f"{shown(written)} is read by YAML as {shown(value)}; write for example `50%`")
        else:
            found = float(value)
        if not 0.0 <= found <= 1.0:
            raise Unusable(f"{shown(written)} is out of range; use 0% to 100%, or a number from 0 to 1")
        if found == 1.0 and self.below:
            raise Unusable(f"{shown(written)} is never exceeded; use less, or 0 to look at none")
        return found

    def from_text(self, text: str) -> float:
        return self.read(text, text)


class Text(Record, ABC):
    """Shared by most rules: the value must be text, and `accept` judges it."""

    def read(self, value: object, written: str) -> str:
        return self.accept(text_of(value, written))

    def from_text(self, text: str) -> str:
        return self.accept(text)

    @abstractmethod
    def accept(self, text: str) -> str:
        """`text` when it is acceptable. Raises `Unusable`."""


class HostName(Text):
    """A host name or IP address."""

    def accept(self, text: str) -> str:
        try:
            return parse_host(text)
        except ValueError as error:
            raise Unusable(f"{shown(text)} {error}") from None


class IpAddress(Text):
    """An address to bind to. Names are refused: what they stand for may change, and a socket does not."""

    def accept(self, text: str) -> str:
        if not is_address(text):
            raise Unusable(f'{shown(text)} is no IP address; write for example 127.0.0.1 or "::1"')
        return text


class UpstreamName(Text):
    """The name of an upstream as another key refers to it."""

    def accept(self, text: str) -> str:
        if not _UPSTREAM.fullmatch(text):
            advice = "start with a letter or digit, then up to 62 letters, digits and . _ -"
            raise Unusable(f"{shown(text)} cannot be a name; {advice}")
        return text


class UrlPath(Text):
    """The path of a URL."""

    def accept(self, text: str) -> str:
        if not _PATH.fullmatch(text):
            raise Unusable(f"{shown(text)} is no URL path; begin with / and use visible ASCII characters")
        if "#" in text:
            raise Unusable(f"{shown(text)} has a #, and what follows that is never sent; end it before")
        return text


class HostHeader(Text):
    """The Host policy: `endpoint`, `preserve`, or the very value to send (host or host:port)."""

    def accept(self, text: str) -> str:
        try:
            if ":" in text:
                parse_authority(text)
            else:
                parse_host(text)
        except ValueError as error:
            raise Unusable(f"{shown(text)} {error}, or `endpoint` or `preserve`") from None
        return text


class HashOn(Text):
    """What ring_hash goes by: `path`, `client`, `header:NAME` or `cookie:NAME`."""

    def accept(self, text: str) -> str:
        kind, colon, name = text.partition(":")
        named = kind in ("header", "cookie")
        if kind == "header" and name.lower() in _OF_ONE_HOP:
            raise Unusable(f"{shown(name)} is of one connection and no other; use a header that goes on")
        if (named and _TOKEN.fullmatch(name)) or (kind in ("client", "path") and not colon):
            return text
        raise Unusable(
            f"{shown(text)} is none of: path, client, header:NAME, cookie:NAME (a NAME as in HTTP)"
        )


class DeadlineHeader(Record):
    """The header in which a request says how long it may take; empty for `off`, which YAML reads as false."""

    def read(self, value: object, written: str) -> str:
        return "" if value is False else self.from_text(text_of(value, written))

    def from_text(self, text: str) -> str:
        if text == "off":
            return ""
        if not _TOKEN.fullmatch(text):
            raise Unusable(f"{shown(text)} is no name of a header; write for example x-request-timeout-ms")
        if text.lower() in (*_OF_ONE_HOP, *_OF_THE_PROXY):
            raise Unusable(f"{shown(text)} means something else to HTTP; use a header of your own")
        return text


class RetryOn(Record):
    """What is worth another attempt: `connect`, `reset`, `timeout`, or a status of 400 to 599."""

    def read(self, value: object, written: str) -> str:
        if isinstance(value, int) and not isinstance(value, bool) and _PLAIN_INT.fullmatch(written):
            return self.from_text(str(value))
        return self.from_text(text_of(value, written))

    def from_text(self, text: str) -> str:
        if text in ("connect", "reset", "timeout") or _ERROR_STATUS.fullmatch(text):
            return text
        raise Unusable(f"{shown(text)} is none of: connect, reset, timeout, or a status from 400 to 599")


class FailureStatus(Record):
    """A status that is the endpoint's failure: 500 to 599, or `5xx` for all of them."""

    def read(self, value: object, written: str) -> str:
        if isinstance(value, int) and not isinstance(value, bool) and _PLAIN_INT.fullmatch(written):
            return self.from_text(str(value))
        return self.from_text(text_of(value, written))

    def from_text(self, text: str) -> str:
        if text == "5xx" or (_ERROR_STATUS.fullmatch(text) and text.startswith("5")):
            return text
        raise Unusable(f"{shown(text)} is none of: a status from 500 to 599, or `5xx` for all of them")


class ZoneName(Text):
    """A zone, as the deployment calls it."""

    def accept(self, text: str) -> str:
        if _UPSTREAM.fullmatch(text):
            return text
        raise Unusable(f"{shown(text)} is no name of a zone: letters, digits, `.`, `_` and `-`, 63 at most")


class Choice(Text):
    """One of some words. later: known words that come with a later version, and its feature."""

    choices: tuple[str, ...]
    later: Mapping[str, str] = MappingProxyType({})

    def accept(self, text: str) -> str:
        if text in self.choices:
            return text
        if text in self.later:
            raise Unusable(later(shown(text), self.later[text]))
        hint = meant(text, (*self.choices, *self.later)) or f"; use one of: {' '.join(self.choices)}"
        raise Unusable(f"{shown(text)} is not known{hint}")


class Mode(Record):
    """A deployment mode; case and the hyphen of the file names (`docker-local`) do not matter."""

    def read(self, value: object, written: str) -> DeploymentMode:
        return self.from_text(text_of(value, written))

    def from_text(self, text: str) -> DeploymentMode:
        names = tuple(mode.value for mode in DeploymentMode)
        name = text.lower().replace("-", "_")
        if name not in names:
            Choice(names).accept(text)
        return DeploymentMode(name)


class Authority(Record):
    """A `host:port`. Port 0, any free port, only for the sidecar's own servers."""

    lowest_port: int = 1

    def read(self, value: object, written: str) -> Address:
        if not isinstance(value, str):
            raise Unusable(
                f"must be host:port, not {described(value, written)}; write for example 127.0.0.1:8001"
            )
        return self.from_text(value)

    def from_text(self, text: str) -> Address:
        try:
            return Address(*parse_authority(text, self.lowest_port))
        except ValueError as error:
            raise Unusable(f"{shown(text)} {error}") from None


_DURATION_HINT: Final = "give a number of seconds or for example `250ms`, `30s`, `5m`, `1h`"


def text_of(value: object, written: str) -> str:
    """`value`, which has to be text. Raises `Unusable`."""
    if isinstance(value, str):
        return value
    advice = (
        "put it in quotes if it is a name"
        if isinstance(value, bool | int | float)
        else "give one plain value"
    )
    raise Unusable(f"must be text, not {described(value, written)}; {advice}")


def _span(lowest: int, highest: int) -> str:
    return f"{lowest} to {highest}" if lowest < highest else str(lowest)


def _write_instead(value: object) -> str:
    return (
        "; write it without quotes"
        if isinstance(value, str) and _PLAIN_INT.fullmatch(value)
        else "; give a number"
    )


def described(value: object, written: str) -> str:
    """What stands there instead of what should, for a message."""
    if isinstance(value, list):
        return "a list"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, bool | int | float) and written.lower() != str(value).lower():
        return f"{shown(written)}, which YAML reads as {shown(str(value).lower())}"
    return shown(written)
