"""What is wrong with a configuration: single findings, the list that collects them, and how they quote.

One finding is one line, `FILE:LINE: key.path: what is wrong; what to do`, whatever the input contains.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.config.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["SHOWN", "Finding", "Findings", "KeyPath", "escaped", "key_text", "meant", "shown"]

SHOWN = 40  # characters of a value that a message repeats: enough to recognise it, too few for most secrets

# Mapping keys are strings, list positions integers.
KeyPath = tuple[str | int, ...]


class Finding(Record):
    """One problem. source: the file's name or `environment`; line: from 1, 0 where there is none."""

    source: str
    line: int
    key: str
    problem: str

    def __str__(self) -> str:
        place = f"{escaped(self.source)}:{self.line}" if self.line else escaped(self.source)
        return f"{place}: {self.key}: {self.problem}" if self.key else f"{place}: {self.problem}"


class Findings:
    """Collects findings; the same one twice counts once (a default's fault shows in every upstream)."""

    __slots__ = ("_found",)

    def __init__(self) -> None:
        self._found: dict[Finding, None] = {}

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, source: str, line: int, key: str, problem: str) -> None:
        """Record a problem."""
        self._found[Finding(source, line, key, problem)] = None

    def lines(self) -> list[str]:
        """Every finding as text: those of a line of the file first and in its order, then all others."""
        ordered = sorted(self._found, key=lambda finding: (finding.line == 0, finding.line))
        return [str(finding) for finding in ordered]


def key_text(path: KeyPath) -> str:
    """A path as people write it: `load_balancers.api.hosts[1]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{_cut(part)}" if text else _cut(part)
    return text


def shown(value: object) -> str:
    """A value in backticks, on one line and cut to `SHOWN` characters."""
    return f"`{_cut(str(value))}`"


def meant(word: str, known: Iterable[str]) -> str:
    """`; did you mean ...?` when one of `known` is close to `word`, else nothing.

    Bounded, because difflib takes time quadratic in the words: no suggestion for long words, and only the
    first 200 known ones are looked at.
    """
    from difflib import get_close_matches  # noqa: PLC0415 - five milliseconds that only a mistake is worth

    candidates: Sequence[str] = list(known)[:200]
    close = get_close_matches(word.lower(), candidates, n=1, cutoff=0.6) if len(word) <= 64 else []
    return f"; did you mean `{close[0]}`?" if close else ""


def escaped(text: str) -> str:
    """`text` with everything that is not printable spelt as an escape, so that it stays on its line."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _cut(text: str) -> str:
    # What stands before an @ may be a password, as in the userinfo of a URL (RFC 3986 section 3.2.1). Looked for in all
    # of the text, since the @ may be behind what is shown.
    before, at, after = text.rpartition("@")
    if at:
        scheme, slashes, _ = before.partition("//")
        text = f"{scheme}{slashes}…@{after}" if slashes else f"…@{after}"
    return escaped(text) if len(text) <= SHOWN else escaped(text[:SHOWN]) + "…"
