"""Both forms of a log line, and what cannot break out of one."""

import io
import json
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from support.screens import Terminal

from sidecar.observe.logs import JsonFormatter, TextFormatter, configure


@pytest.fixture(autouse=True)
def _root() -> Iterator[None]:
    """pytest's own handlers and level, put back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def _record(message: str, *args: object, level: int = logging.INFO, **extra: object) -> logging.LogRecord:
    record = logging.getLogger("sidecar.test").makeRecord(
        "sidecar.test", level, __file__, 1, message, args, None, extra=extra or None
    )
    record.created = 1_700_000_000.0625
    return record


def _text(message: str, *args: object, level: int = logging.INFO, **extra: object) -> str:
    line = TextFormatter().format(_record(message, *args, level=level, **extra))
    time, _, rest = line.partition(" ")
    local = datetime.fromtimestamp(1_700_000_000, tz=UTC).astimezone()
    assert time == f"{local:%H:%M:%S}"
    return rest


def _json(message: str, *args: object, **extra: object) -> dict[str, object]:
    line = JsonFormatter().format(_record(message, *args, **extra))
    assert "\n" not in line
    found = json.loads(line)
    assert isinstance(found, dict)
    return found


def test_auto_is_json_lines_where_no_one_reads() -> None:
    stream = io.StringIO()
    configure("INFO", "auto", stream)
    logging.getLogger("sidecar").info("listening on %s", "127.0.0.1:80", extra={"upstream": "api"})
    line = json.loads(stream.getvalue())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {
        "level": "INFO",
        "logger": "sidecar",
        "message": "listening on 127.0.0.1:80",
        "upstream": "api",
    }


def test_auto_is_text_on_a_terminal() -> None:
    stream = Terminal()
    configure("INFO", "auto", stream)
    logging.getLogger("sidecar").info("listening")
    assert re.fullmatch(r"\d\d:\d\d:\d\d INFO  listening\n", stream.getvalue())


@pytest.mark.parametrize(("form", "stream"), [("text", io.StringIO()), ("json", Terminal())])
def test_a_form_that_is_asked_for_is_given_anywhere(form: str, stream: io.StringIO) -> None:
    configure("INFO", form, stream)
    logging.getLogger("sidecar").info("listening")
    assert stream.getvalue().startswith("{") == (form == "json")


def test_the_level_holds_for_every_logger() -> None:
    stream = io.StringIO()
    configure("warning", "text", stream)
    logging.getLogger("sidecar").info("no")
    logging.getLogger("asyncio").warning("yes")
    assert stream.getvalue().count("\n") == 1
    assert "WARN  yes" in stream.getvalue()


def test_configuring_again_replaces_the_stream() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure("INFO", "text", first)
    configure("INFO", "text", second)
    logging.getLogger("sidecar").info("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1


@pytest.mark.parametrize(
    ("level", "form", "message"),
    [
        ("LOUD", "text", "no log level is called 'LOUD'; known are: DEBUG, INFO, WARNING, ERROR, CRITICAL"),
        ("INFO", "xml", "no log format is called 'xml'; known are: auto, text, json"),
    ],
)
def test_unknown_words_are_refused(level: str, form: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        configure(level, form, io.StringIO())


def test_json_time_is_utc_with_milliseconds() -> None:
    assert _json("hello")["time"] == "2023-11-14T22:13:20.062Z"


def test_json_values_stay_what_they_are_where_json_knows_them() -> None:
    found = _json("x", port=80, ratio=0.5, none=None, yes=True, many=("a", 1), inf=float("inf"), other={1})
    expected = {
        "port": 80,
        "ratio": 0.5,
        "none": None,
        "yes": True,
        "many": ["a", 1],
        "inf": "inf",
        "other": "{1}",
    }
    assert {name: found[name] for name in expected} == expected


def test_json_extra_fields_do_not_replace_the_fixed_ones() -> None:
    record = _record("x")
    vars(record).update(level="mine", time="mine")
    found = json.loads(JsonFormatter().format(record))
    assert found["level"] == "INFO"
    assert found["level_"] == "mine"
    assert found["time_"] == "mine"


def test_text_adds_the_extra_fields_and_quotes_what_needs_it() -> None:
    line = _text("breaker opens", upstream="api", why='said "no"', empty="", port=80)
    assert line == r'INFO  breaker opens  upstream=api  why="said \"no\""  empty=""  port=80'


@pytest.mark.parametrize(
    ("level", "word"),
    [
        (logging.DEBUG, "DEBUG "),
        (logging.WARNING, "WARN  "),
        (logging.ERROR, "ERROR "),
        (logging.CRITICAL, "FATAL "),
    ],
)
def test_text_levels_are_five_columns(level: int, word: str) -> None:
    assert _text("x", level=level) == f"{word}x"


@pytest.mark.parametrize("break_out", ["\n", "\r", "\x1b[31m", "\x00", "\x85", "\u2028", "\u202e", "\ud800"])
def test_text_escapes_what_could_break_out_of_the_line(break_out: str) -> None:
    line = _text("bad head from %s", f"a{break_out}12:00:00 INFO  forged", field=f"b{break_out}c")
    assert line.isprintable()
    assert break_out not in line
    assert line.count("\\") >= 2


def test_an_exception_is_one_field_in_json_and_indented_lines_in_text() -> None:
    with pytest.raises(ValueError, match="what") as raised:
        int("what\n12:00:00 INFO  forged")
    record = _record("failed")
    record.exc_info = (raised.type, raised.value, raised.tb)
    record.stack_info = "Stack (most recent call last):"
    found = json.loads(JsonFormatter().format(record))
    assert found["exception"].startswith("Traceback (most recent call last):\n")
    assert "ValueError: invalid literal" in found["exception"]
    assert found["exception"].endswith("Stack (most recent call last):")
    first, *rest = TextFormatter().format(record).split("\n")
    assert first.endswith("INFO  failed")
    assert len(rest) >= 4
    assert all(line.startswith("    ") for line in rest)
