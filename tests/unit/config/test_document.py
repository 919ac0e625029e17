"""YAML with lines."""

import pytest
import yaml

from sidecar.config import document
from sidecar.config.document import MAX_BYTES, read_document
from sidecar.config.findings import Findings
from sidecar.config.marks import Document


def _read(text: str | bytes) -> Document:
    findings = Findings()
    content = text if isinstance(text, bytes) else text.encode()
    read = read_document("f.yml", content, findings)
    assert findings.lines() == []
    assert read is not None
    return read


def _refused(content: bytes) -> list[str]:
    findings = Findings()
    assert read_document("f.yml", content, findings) is None
    return findings.lines()


def test_every_path_has_its_line() -> None:
    read = _read("a:\n  b: [1,\n    2]\n\nc: {d: x}\n")
    assert read.data == {"a": {"b": [1, 2]}, "c": {"d": "x"}}
    lines = {path: mark.line for path, mark in read.marks.items()}
    assert lines == {
        (): 1,
        ("a",): 1,
        ("a", "b"): 2,
        ("a", "b", 0): 2,
        ("a", "b", 1): 3,
        ("c",): 5,
        ("c", "d"): 5,
    }
    assert read.line(("a", "b", 1, "deeper")) == 3
    assert read.line(("elsewhere",)) == 0
    assert read.written(("a", "b", 1)) == "2"
    assert read.has(("c",))
    assert not read.has(("d",))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("0x10", 16),
        ("1.5", 1.5),
        ("on", True),
        ("~", None),
        ("null", None),
        ("2001-01-01", "2001-01-01"),
        ("=", "="),
        ("<<", "<<"),
        ("'1'", "1"),
        ("!!int x", "x"),
        ("!!bool x", "x"),
        ("!!float ''", ""),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_scalars(text: str, value: object) -> None:
    assert _read(f"k: {text}").data == {"k": value}


def test_whole_numbers_are_keys_as_text() -> None:
    assert _read("{6379: redis, 0: x}").data == {"6379": "redis", "0": "x"}


def test_aliases_and_merges() -> None:
    read = _read(
        "base: &base {a: 1, b: 2}\n"
        "more: &more\n"
        "  <<: *base\n"
        "  b: 3\n"
        "both:\n"
        "  <<: [*more, {a: 9, c: 4}]\n"
        "  d: 5\n"
        "same: *base\n"
    )
    assert read.data == {
        "base": {"a": 1, "b": 2},
        "more": {"b": 3, "a": 1},
        "both": {"d": 5, "b": 3, "a": 1, "c": 4},
        "same": {"a": 1, "b": 2},
    }
    assert read.line(("both", "b")) == 4
    assert read.line(("both", "c")) == 6


def test_nothing_in_the_file() -> None:
    assert _read("# only a comment\n").data is None
    assert _read(b"").data is None
    assert _read("\ufeffa: 1").data == {"a": 1}


def test_too_large() -> None:
    assert _refused(b"#" * (MAX_BYTES + 1)) == [
        "f.yml: is larger than 4 MiB; a configuration is not, check the file name"
    ]


def test_not_utf8() -> None:
    assert _refused(b"a: 1\nb: \xff\n") == ["f.yml:2: is not UTF-8 text; save the file as UTF-8"]


def test_deep_nesting_does_not_reach_the_composer() -> None:
    # A hundred thousand levels overrun the C stack of libyaml's composer.
    assert _refused(b"[" * 100_000) == [
        "f.yml:1: nests deeper than 32 levels; nothing in a configuration does, flatten it"
    ]


def test_many_merges_are_bounded() -> None:
    keys = ", ".join(f"k{n}: 1" for n in range(500))
    lines = ["m0: &m0 {" + keys + "}"]
    lines += [f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 30)}]}}" for n in range(1, 5)]
    (line,) = _refused("\n".join(lines).encode())
    assert "holds more than 200000 values" in line


def test_the_pure_python_loader_reads_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "_LOADER", yaml.SafeLoader)
    assert _read("a:\n  b: [1]\n").line(("a", "b", 0)) == 2
    (line,) = _refused(b"a: 1\nb: \x01\n")
    assert line == "f.yml:2: is not valid YAML: special characters are not allowed; remove the character"
    (line,) = _refused(b"a: [1\n")
    assert line.startswith("f.yml:2: is not valid YAML: while parsing a flow sequence")


def test_an_error_without_a_mark_is_told_without_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise yaml.MarkedYAMLError(problem="it is broken")

    monkeypatch.setattr(yaml, "compose", fail)
    assert _refused(b"a: 1")[0].startswith("f.yml: is not valid YAML: it is broken; check")
