"""What a file holds and where each thing stands in it; made by `document`, or of nothing without a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sidecar.config.findings import key_text
from sidecar.config.record import Record

if TYPE_CHECKING:
    from sidecar.config.findings import Findings, KeyPath

__all__ = ["Document", "Mark"]


class Mark(NamedTuple):
    """Where a value stands. line: of its key, from 1. written: a scalar as the file spells it, else empty."""

    line: int
    written: str = ""


class Document(Record):
    """One file. data: its values, None when it holds nothing. marks: a `Mark` for every path in `data`."""

    file: str
    data: object
    marks: dict[KeyPath, Mark]

    def line(self, path: KeyPath) -> int:
        """The line of `path`, or of the nearest thing around it that the file has; 0 outside of any."""
        if not path:
            return self.marks[()].line
        for length in range(len(path), 0, -1):
            mark = self.marks.get(path[:length])
            if mark is not None:
                return mark.line
        return 0

    def written(self, path: KeyPath) -> str:
        """How the file spells the scalar at `path`."""
        return self.marks[path].written

    def has(self, path: KeyPath) -> bool:
        """True when the file has something at `path`, usable or not."""
        return path in self.marks

    def report(self, findings: Findings, path: KeyPath, problem: str) -> None:
        """Add a finding about `path`."""
        findings.add(self.file, self.line(path), key_text(path), problem)
