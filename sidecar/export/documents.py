"""YAML documents with comments above them, as one stream."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Document", "written"]

WIDTH: Final = 100  # columns of comments

# Plain text to YAML 1.1 as PyYAML reads it, and a number to readers of YAML 1.2, such as kubectl: `1e3`, `0o17`.
_NUMBER_LIKE: Final = re.compile(r"[-+.]?[0-9][0-9a-fA-FoOxX_]*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Document:
    """data: of plain values; None is a comment alone. notes: paragraphs that stand above it."""

    data: Any
    notes: tuple[str, ...] = ()


class _Dumper(yaml.SafeDumper):
    """Keys in the order in which they are made, lists below their key's column, long text in blocks."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True  # anchors are for programs; a reader wants to see what holds where it holds


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    style = None
    if "\n" in value:
        style = "|"
    elif _NUMBER_LIKE.fullmatch(value):
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def written(documents: Iterable[Document]) -> str:
    """The documents as text, with `---` between them; a comment alone stands above what follows."""
    parts = []
    above = ""
    for document in documents:
        text = above + "".join(_comment(note) for note in document.notes)
        if document.data is None:
            above = f"{text}\n"
            continue
        above = ""
        body = yaml.dump(
            document.data,
            Dumper=_Dumper,
            sort_keys=False,
            default_flow_style=False,
            width=1000,
            allow_unicode=True,
        )
        parts.append(text + body)
    if above:
        parts.append(above.rstrip("\n") + "\n")
    return "---\n".join(parts)


def _comment(paragraph: str) -> str:
    # YAML ends lines, and comments, where textwrap does not: U+0085 and U+2028, which names of files may have.
    text = " ".join(paragraph.split())
    lines = textwrap.wrap(text, WIDTH - 2, break_long_words=False, break_on_hyphens=False)
    return "".join(f"# {line}\n" for line in lines)
