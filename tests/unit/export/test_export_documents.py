"""YAML with comments: what it holds, and that others read the same in it."""

import pytest
import yaml

from sidecar.export.documents import WIDTH, Document, written
from sidecar.export.values import listed, percent, seconds, whole_time


def test_documents_have_lines_between_them_and_comments_above() -> None:
    text = written(
        [
            Document(None, ("of all",)),
            Document({"a": 1}, ("of one",)),
            Document({"b": [1, 2]}),
        ]
    )
    assert text == "# of all\n\n# of one\na: 1\n---\nb:\n  - 1\n  - 2\n"


def test_a_comment_alone_is_all_there_is() -> None:
    assert written([Document(None, ("nothing",))]) == "# nothing\n"


def test_comments_are_wrapped_between_words() -> None:
    text = written([Document({}, ("word " * 60 + "x" * 150,))])
    lines = text.splitlines()[:-1]
    assert all(line.startswith("# ") for line in lines)
    assert all(len(line) <= WIDTH for line in lines[:-1])
    assert lines[-1] == "# " + "x" * 150


@pytest.mark.parametrize(
    "text", ["1e3", "0o17", "10", "1.5", "0x1f", "-3", "true", "yes", "null", "~", "30s", "a: b", "#", ""]
)
def test_text_stays_text(text: str) -> None:
    found = written([Document({"key": text})])
    assert yaml.safe_load(found) == {"key": text}
    if text in ("1e3", "0o17"):  # numbers to YAML 1.2, which PyYAML does not read
        assert found == f'key: "{text}"\n'


def test_lines_stay_lines() -> None:
    content = "a:\n  - b # c\n\n  d: 'e'\n"
    found = written([Document({"file": content})])
    assert found.startswith("file: |\n  a:\n    - b # c\n")
    assert yaml.safe_load(found) == {"file": content}


def test_nothing_is_an_alias() -> None:
    labels = {"a": "b"}
    assert "&" not in written([Document({"one": labels, "two": labels})])


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "1s"), (0.025, "0.025s"), (90.5, "90.5s"), (86400.0, "86400s"), (1e-6, "0.001s")],
)
def test_seconds(value: float, text: str) -> None:
    assert seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1s"),
        (0.25, "250ms"),
        (60.0, "1m"),
        (90.0, "90s"),
        (7200.0, "2h"),
        (86400.0, "1d"),
        (1e-6, "1ms"),
    ],
)
def test_whole_times(value: float, text: str) -> None:
    assert whole_time(value) == text


def test_percent_and_lists() -> None:
    assert [percent(share) for share in (0.0, 0.07, 0.105, 0.5, 1.0)] == [0, 7, 11, 50, 100]
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"


@pytest.mark.parametrize("end", ["\n", "\r", "\x85", "\u2028", "\u2029", "\x0c"])
def test_a_comment_stays_one(end: str) -> None:
    text = written([Document({"a": 1}, (f"of file{end}kind: Secret",))])
    assert text == "# of file kind: Secret\na: 1\n"
