"""What header fields of `headers` may be called and hold, also those that a route looks at; see `rules`."""

from __future__ import annotations

import re
from typing import Final

from sidecar.config.findings import shown
from sidecar.config.record import Record
from sidecar.config.rules import Text, Unusable

__all__ = ["MAX_VALUE", "SECRET", "FieldName", "FieldValue", "field_kind"]

MAX_VALUE: Final = 4096  # bytes: what servers take of a line is 8 KiB (nginx's large_client_header_buffers)
_LONGEST_NAME: Final = 128
# RFC 9110 section 5.5, without obs-text: nobody agrees what those bytes mean.
_CONTENT: Final = r"(?:[!-~](?:[!-~ \t]*[!-~])?)?"
_OWN: Final = "x-sidecar-"
# Fields whose value is a secret as a whole.
SECRET: Final = ("authorization", "proxy-authorization")


class FieldName(Record):
    """The name of a header field that is an application's or endpoint's own business, not the proxy's.

    valued: a value for it stands beside it.
    """

    valued: bool = False

    def read(self, value: object, written: str) -> str:
        return self.from_text(_NAME.read(value, written))

    def from_text(self, text: str) -> str:
        name = _NAME.accept(text)
        if self.valued and name.lower() in SECRET:
            raise Unusable(
                "is a secret, which does not belong into a file; write bearer_token_env or bearer_token_file"
            )
        return name


class FieldValue(Text):
    """The value of a header field. It is not repeated: it may be a secret."""

    def accept(self, text: str) -> str:
        if len(text) > MAX_VALUE:
            raise Unusable(f"has {len(text)} characters; {MAX_VALUE} is the most")
        if not re.fullmatch(_CONTENT, text, re.ASCII):
            raise Unusable(
                "is no value of a header; use visible ASCII characters, with spaces between them only"
            )
        return text


def field_kind(text: str, example: str) -> int:
    """What a field called so is to the proxy, see `http1.fields`. Raises Unusable when it is no name."""
    from sidecar.http1.fields import classify  # noqa: PLC0415 - most files have no rules

    kind = classify(text.encode("ascii", "replace"))
    if kind < 0 or len(text) > _LONGEST_NAME:
        raise Unusable(f"{shown(text)} is no name of a header; write for example {example}")
    return kind


class _Name(Text):
    def accept(self, text: str) -> str:
        from sidecar.http1.fields import HOST, ORDINARY  # noqa: PLC0415 - as above

        kind = field_kind(text, "X-Request-Source")
        if kind == HOST:
            raise Unusable(f"{shown(text)} has a key of its own; use host_header")
        if kind != ORDINARY:
            raise Unusable(f"{shown(text)} is the proxy's to write, as it is of one connection; remove it")
        if text.lower().startswith(_OWN):
            raise Unusable(f"{shown(text)} is the sidecar's own; use a name that does not begin with {_OWN}")
        return text


_NAME: Final = _Name()
