"""Regular expressions that would hold up everything else are refused, and useful ones are not."""

import re
import time
import warnings

import pytest

from sidecar.config.expressions import SEARCHED, check_expression

QUICK = [
    r"fi+ne",
    r"^fine$",
    r"\bup\b",
    r"ok|healthy|up",
    r".*ok",
    r"a*(?:b|c|d)e",
    r"(?:ab)*c",
    r"[ab]{1,20}?c",
    r"(?i)<(!doctype\s+html|html)\b",
    r'"status"\s*:\s*"(ok|healthy)"\s*[,}]',
    r"^\s*ok\s*$",
    r"v\d+\.\d+\.\d+",
    r"[^:]*:[^;]*;",
    r"(?i)[^1]*1[^2b]*b",
    r"a*:b*\n",
    r"[a-f]+-[\w]+-\W*a",
    r"(['\"])ok\1",
    r"(?:ab|cd){3}",
    r"a{5000}",
    r"(?>a*)b",
    r"(a)?(?(1)b|c)",
    r"(a)?(?(1)b)",
]
SLOW = [
    r"(a+)+$",
    r"^(\w+\s?)*$X",
    r"(?:a|ab)*c",
    r"(?:a{0,9}){9}b",
    r"(?:a?){30}a{30}",
    r"a*a*b",
    r".*up.*",
    r"a{1,4000}a{1,4000}b",
    r"\w+\s?\w+X",
    r"(a*)\1b",
    r"(?=a*b)(?=a*c)",
    r"(?>a*)a*b",
    r"(?:a*){2}b",
    r"a*\u00e4a*b",
    r"(?i)[^A]*a.*b",
    r"[^\W]*a\w*!",
    r"\D*x\D*1",
    r"(?i)[^a]*1[^b]*2",
    r"(?:a.)*b(?:a.)*c",
    r"a*(?:|b)(?:|b)(?:|b)c",
]
BODIES = [
    "a" * SEARCHED,
    "ab" * (SEARCHED // 2),
    "a" * 2000 + ":" + "a" * 2000,
    '"status" ' * 400,
    " " * SEARCHED,
]


@pytest.mark.parametrize("pattern", QUICK)
def test_what_is_accepted_is_quick(pattern: str) -> None:
    check_expression(pattern)
    compiled = re.compile(pattern)
    for body in BODIES:
        began = time.process_time()
        compiled.search(body)
        assert time.process_time() - began < 1.0, "a tenth of it, on a slow machine"


@pytest.mark.parametrize("pattern", SLOW)
def test_what_may_be_slow_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"^may take very long to be looked for; use one `\*`"):
        check_expression(pattern)


@pytest.mark.parametrize(
    ("pattern", "error"),
    [
        ("(", "is no regular expression: missing ), unterminated subpattern at position 0; correct it"),
        ("[[a]", "is no regular expression: possible nested set at position 1; correct it"),
        (
            "a{9999999999999999999}",
            "is no regular expression: the repetition number is too large; correct it",
        ),
    ],
)
def test_what_is_no_expression_is_refused_and_nothing_is_printed(pattern: str, error: str) -> None:
    re.purge()
    with warnings.catch_warnings(record=True) as printed, pytest.raises(ValueError, match=re.escape(error)):
        check_expression(pattern)
    assert printed == []
