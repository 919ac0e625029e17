"""What an answer has to be for the endpoint to be well: its status, its body, fields of its JSON."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from sidecar.config.check_rules import regular_expression
from sidecar.config.expressions import SEARCHED
from sidecar.health.connection import UnwellError

if TYPE_CHECKING:
    from sidecar.config.settings import HealthSettings

__all__ = ["Expectations"]

SHOWN = 60  # characters of an answer that a message repeats
_BEGINNING = f"the first {SEARCHED} bytes of the body do not"
_MISSING = object()


class Expectations:
    """The `expect_...` of one upstream, ready to be held against answers. Both methods raise `UnwellError`."""

    __slots__ = ("_fields", "_pattern", "_ranges", "_text")

    def __init__(self, settings: HealthSettings) -> None:
        self._ranges = settings.expect_status
        pattern = regular_expression(settings.expect_body)
        self._pattern = None if pattern is None else re.compile(pattern)
        self._text = settings.expect_body
        self._fields = [
            (field.name, [json.loads(text) for text in field.accepted]) for field in settings.expect_json
        ]

    def judge_status(self, status: int) -> None:
        """The status of the final response."""
        if not any(lowest <= status <= highest for lowest, highest in self._ranges):
            expected = ", ".join(
                str(lowest) if lowest == highest else f"{lowest}-{highest}"
                for lowest, highest in self._ranges
            )
            raise UnwellError(f"status {status}, not {expected}")

    def judge_body(self, body: bytes, *, whole: bool) -> None:
        """The body, or as much of it as was read; a regular expression is looked for in its first 4 KiB only."""
        if self._text:
            self._judge_text(body)
        if self._fields:
            if not whole:
                raise UnwellError(f"the body is too long for an answer ({len(body)} bytes and more)")
            self._judge_document(body)

    def _judge_text(self, body: bytes) -> None:
        if self._pattern is None:
            found = self._text in body.decode("utf-8", "replace")
        else:
            found = self._pattern.search(body[:SEARCHED].decode("utf-8", "replace")) is not None
        if not found:
            where = "the body does not" if self._pattern is None or len(body) <= SEARCHED else _BEGINNING
            raise UnwellError(f"{where} hold {_cut(self._text)}")

    def _judge_document(self, body: bytes) -> None:
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            raise UnwellError(f"the body is no JSON: {_cut(body.decode('utf-8', 'replace'))}") from None
        for name, accepted in self._fields:
            found = _field(document, name)
            if found is _MISSING:
                raise UnwellError(f"the body has no field {_cut(name)}")
            if not any(_same(found, value) for value in accepted):
                expected = " or ".join(json.dumps(value) for value in accepted)
                raise UnwellError(f"{_cut(name)} is {_cut(json.dumps(found))}, not {expected}")


def _field(document: Any, name: str) -> Any:
    """What stands at the dotted way `name`; `_MISSING` where nothing does."""
    found = document
    for part in name.split("."):
        if isinstance(found, dict) and part in found:
            found = found[part]
        elif isinstance(found, list) and part.isdecimal() and int(part) < len(found):
            found = found[int(part)]
        else:
            return _MISSING
    return found


def _same(found: Any, value: Any) -> bool:
    """Whether both are one JSON value. To Python, true is 1."""
    return isinstance(found, bool) is isinstance(value, bool) and bool(found == value)


def _cut(text: str) -> str:
    """`text` as one printable line that is not long."""
    text = text if len(text) <= SHOWN else text[:SHOWN] + "\N{HORIZONTAL ELLIPSIS}"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
