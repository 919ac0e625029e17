"""The process's log on one stream: text for a person at a terminal, JSON lines for whatever collects it.

What a message interpolates may come from the wire, so neither form lets it break out of its line: JSON
escapes by itself, text escapes everything that is not printable (CWE-117).
"""

from __future__ import annotations

import json
import logging
import math
from datetime import UTC, datetime
from typing import TextIO

__all__ = ["FORMS", "LEVELS", "JsonFormatter", "TextFormatter", "configure"]

FORMS = ("auto", "text", "json")
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

_SHORT = {"WARNING": "WARN", "CRITICAL": "FATAL"}  # five columns, so that messages line up
# What every record has; whatever else is on one was given as `extra`.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_RESERVED = frozenset({"time", "level", "logger", "message", "exception"})


def configure(level: str, form: str, stream: TextIO) -> None:
    """Send everything logged at `level` or above to `stream`, and nowhere else.

    level: one of `LEVELS`, any case. form: one of `FORMS`; auto is text when `stream` is a terminal, else
    JSON. Raises `ValueError` naming the known ones for any other word.
    """
    if level.upper() not in LEVELS:
        raise ValueError(f"no log level is called {level!r}; known are: {', '.join(LEVELS)}")
    if form not in FORMS:
        raise ValueError(f"no log format is called {form!r}; known are: {', '.join(FORMS)}")
    handler = logging.StreamHandler(stream)
    readable = form == "text" or (form == "auto" and stream.isatty())
    handler.setFormatter(TextFormatter() if readable else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, the extra fields, and exception if there is one.

    time: RFC 3339, UTC, milliseconds. An extra field whose name is taken gets an underscore appended; values
    that JSON does not know are strings.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its newline."""
        at = datetime.fromtimestamp(record.created, tz=UTC)
        entry: dict[str, object] = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in _extra(record):
            entry[f"{name}_" if name in _RESERVED else name] = _plain(value)
        exception = _exception(self, record)
        if exception:
            entry["exception"] = exception
        return json.dumps(entry)


class TextFormatter(logging.Formatter):
    """`12:00:01 INFO  message  key=value`, in local time; an exception follows on indented lines."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its newline; more lines only when there is an exception."""
        at = datetime.fromtimestamp(record.created, tz=UTC).astimezone()
        level = _SHORT.get(record.levelname, record.levelname)
        parts = [f"{at:%H:%M:%S} {level:<5} {_escape(record.getMessage())}"]
        parts += [f"{_escape(name)}={_quote(value)}" for name, value in _extra(record)]
        line = "  ".join(parts)
        exception = _exception(self, record)
        if exception:
            # Indented, so that no line of it can pass for a record of its own.
            line += "".join(f"\n    {_escape(part)}" for part in exception.splitlines())
        return line


def _extra(record: logging.LogRecord) -> list[tuple[str, object]]:
    return [(name, value) for name, value in vars(record).items() if name not in _OWN]


def _exception(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = []
    if record.exc_info:
        parts.append(formatter.formatException(record.exc_info))
    if record.stack_info:
        parts.append(record.stack_info)
    return "\n".join(parts)


def _plain(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no infinity (RFC 8259 section 6)
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return str(value)


def _quote(value: object) -> str:
    text = str(value)
    if text and not any(char in ' "=' for char in text):
        return _escape(text)
    return '"' + _escape(text).replace('"', r"\"") + '"'


def _escape(text: str) -> str:
    if text.isprintable():  # the usual case
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )
