"""What single values of `health_check` may be, and names of files, variables and the like; see `rules`."""

from __future__ import annotations

import re
from typing import Final

from sidecar.config.findings import shown
from sidecar.config.record import Record
from sidecar.config.rules import Text, Unusable, UrlPath, described

__all__ = [
    "BodyText",
    "CollectorUrl",
    "FileName",
    "HealthShort",
    "JsonValue",
    "NoSecret",
    "PlainText",
    "Statuses",
    "VariableName",
    "regular_expression",
]

# Compiled at first use, which most configurations have none of.
_PLAIN_NUMBER: Final = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?"
_STATUS: Final = r"([1-5])(?:xx|([0-9][0-9]))(?:-([1-5][0-9][0-9]))?"
_VARIABLE: Final = r"[A-Za-z_][A-Za-z0-9_]{0,127}"
_COLLECTOR: Final = r"https?://([!-.0-~]+?)(?::([0-9]{1,5}))?(/[!-~]*)?"
_DIGITS: Final = 300  # of a number: more are none of a double's, as which most read JSON
_LONGEST: Final = 1024  # characters of a text: a path, a name, what to look for


class HealthShort(Record):
    """What may stand for a whole `health_check`: the path to ask for, or whether to check at all."""

    def read(self, value: object, written: str) -> str | bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.startswith("/"):
            return UrlPath().accept(value)
        raise Unusable(
            f"must be a path, true, false or a mapping, not {described(value, written)}; "
            "write for example `/health`, `{type: tcp}`, or `false` for no checks"
        )

    def from_text(self, text: str) -> str | bool:
        return self.read(text, text)


class Statuses(Record):
    """One status, a class such as `2xx`, or a range such as `200-399`: (lowest, highest)."""

    def read(self, value: object, written: str) -> tuple[int, int]:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise Unusable(f"must be a status, not {described(value, written)}; {_STATUS_HINT}")
        return self.from_text(value if isinstance(value, str) else written)

    def from_text(self, text: str) -> tuple[int, int]:
        match = re.fullmatch(_STATUS, text, re.ASCII)
        if match is None or (match[3] and match[2] is None):
            raise Unusable(f"{shown(text)} is no status; {_STATUS_HINT}")
        if match[1] == "1":
            raise Unusable(f"{shown(text)} holds interim statuses, which no answer ends with; begin at 200")
        if match[2] is None:
            return int(match[1]) * 100, int(match[1]) * 100 + 99
        lowest = int(match[1] + match[2])
        highest = int(match[3] or lowest)
        if highest < lowest:
            raise Unusable(f"{shown(text)} ends before it begins; write the lower status first")
        return lowest, highest


class BodyText(Text):
    """Text that a body has to hold, or a regular expression between slashes that is quick to be looked for."""

    def accept(self, text: str) -> str:
        if not 0 < len(text) <= _LONGEST:
            raise Unusable(f"has {len(text)} characters; use 1 to {_LONGEST}")
        pattern = regular_expression(text)
        if pattern is not None:
            from sidecar.config.expressions import check_expression  # noqa: PLC0415 - most have none

            try:
                check_expression(pattern)
            except ValueError as error:
                raise Unusable(f"{shown(text)} {error}") from None
        return text


class JsonValue(Record):
    """One value that a field of a JSON document may have, as the text that JSON has for it."""

    def read(self, value: object, written: str) -> str:
        if isinstance(value, dict | list):
            what = "a list" if isinstance(value, list) else "a mapping"
            raise Unusable(
                f"must be a plain value, not {what}; reach into an object with dots, `database.status`"
            )
        if isinstance(value, str):
            return self.from_text(value)
        if isinstance(value, bool):
            plain = written.lower() in ("true", "false")
        else:
            plain = len(written) <= _DIGITS and re.fullmatch(_PLAIN_NUMBER, written, re.ASCII) is not None
        if not plain:
            advice = "put it in quotes if it is text, or write a plain number, true or false"
            raise Unusable(f"{shown(written)} is read by YAML as {shown(str(value).lower())}; {advice}")
        return written.lower()

    def from_text(self, text: str) -> str:
        from json import dumps  # noqa: PLC0415 - nobody who asks for a URL is to load it

        if len(text) > _LONGEST:
            raise Unusable(f"has {len(text)} characters; {_LONGEST} is the most")
        return dumps(text)


class PlainText(Text):
    """A name as it goes over the wire."""

    def accept(self, text: str) -> str:
        if not 0 < len(text) <= _LONGEST or not text.isprintable():
            raise Unusable(f"must be 1 to {_LONGEST} printable characters; write the name")
        return text


class VariableName(Text):
    """The name of an environment variable. What it is not is not repeated: it may be the secret itself."""

    def accept(self, text: str) -> str:
        if not re.fullmatch(_VARIABLE, text, re.ASCII):
            raise Unusable("is no name of a variable; write the name alone, such as REDIS_PASSWORD")
        return text


class FileName(Text):
    """A file that holds a secret; see `VariableName`."""

    def accept(self, text: str) -> str:
        if not 0 < len(text) <= _LONGEST or not text.isprintable():
            raise Unusable("is no name of a file; write its path, such as /run/secrets/redis")
        return text


class CollectorUrl(Text):
    """The base URL of a collector, without a slash at its end. Whatever might be a password in it is not repeated."""

    def accept(self, text: str) -> str:
        match = re.fullmatch(_COLLECTOR, text, re.ASCII) if len(text) <= _LONGEST else None
        if match is None or not 0 < int(match[2] or 1) <= 65535 or set("?#") & set(text):
            raise Unusable("is no URL of a collector; write for example http://127.0.0.1:4318")
        if "@" in text:
            raise Unusable("a URL is no place for a password; write token_env or token_file beside it")
        return text.rstrip("/")


class NoSecret(Record):
    """A key that must not be there: its value is a secret, and is not repeated."""

    what: str = "password"

    def read(self, value: object, written: str) -> str:
        instead = f"{self.what}_env: NAME of a variable, or {self.what}_file: PATH"
        raise Unusable(f"does not belong into a file; write {instead}")

    def from_text(self, text: str) -> str:
        return self.read(text, text)


def regular_expression(text: str) -> str | None:
    """What stands between the slashes of `/.../`; None for any other text."""
    return text[1:-1] if len(text) > 2 and text[0] == text[-1] == "/" else None


_STATUS_HINT: Final = "write for example 204, `2xx` or `200-399`"
