"""How findings are said."""

from sidecar.config.findings import Findings, key_text, meant, shown


def test_order_and_repetition() -> None:
    findings = Findings()
    assert not findings
    findings.add("environment", 0, "A", "late")
    findings.add("f", 9, "b", "second")
    findings.add("f", 2, "a", "first")
    findings.add("f", 2, "a", "first")
    findings.add("f", 0, "", "whole")
    assert findings
    assert findings.lines() == ["f:2: a: first", "f:9: b: second", "environment: A: late", "f: whole"]


def test_a_line_stays_a_line() -> None:
    assert shown("a\nb\x1b") == "`a\\nb\\x1b`"
    assert shown("x" * 41) == "`" + "x" * 40 + "…`"
    assert key_text(("a", "b\n", 0, 1, "c")) == "a.b\\n[0][1].c"


def test_suggestions() -> None:
    assert meant("Stategy", ["scheme", "strategy"]) == "; did you mean `strategy`?"
    assert meant("zzz", ["strategy"]) == ""
    assert meant("strategy" * 20, ["strategy" * 20]) == ""
