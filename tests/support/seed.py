"""The document that this project began with, and the programs in it, word for word."""

import re
from dataclasses import dataclass
from functools import cache

from support.proxy import ROOT
from support.requirements import lacking

__all__ = ["Block", "about_the_registry", "block", "blocks"]

DIRECTORY = ROOT.parent / "shared" / "seed"
THEIR_MODULE, OURS = "src.utils.service_registry", "sidecar"


@dataclass(frozen=True)
class Block:
    """One block of code. heading: the last one above it. text: as it stands, but for the path to import from."""

    heading: str
    text: str


@cache
def _document() -> str | None:
    found = sorted(DIRECTORY.glob("*.txt")) if DIRECTORY.is_dir() else []
    return "\n".join(path.read_text() for path in found) or None


def blocks(language: str) -> list[Block]:
    """All blocks of a language, in order. Skips the test where the document is not there; in CI that fails it."""
    document = _document()
    if document is None:
        lacking("the seed document is not beside this checkout, under shared/seed")
    found: list[Block] = []
    heading, begun, lines = "", "", []
    for line in document.splitlines():
        if line.startswith("```"):
            if begun == language:
                found.append(Block(heading, "".join(lines).replace(THEIR_MODULE, OURS)))
            begun, lines = ("", []) if begun else (line[3:].strip() or "text", [])
        elif begun:
            lines.append(f"{line}\n")  # a comment of a shell looks like a heading
        elif line.startswith("#"):
            heading = line.lstrip("#").strip()
    return found


def block(heading: str, language: str = "python") -> str:
    """The text of the only block of a language under a heading."""
    (found,) = (one.text for one in blocks(language) if one.heading == heading)
    return found


def about_the_registry(one: Block) -> bool:
    """Whether it uses the Python API, or describes a part of it."""
    return (
        re.search(r"service_registry|\bServiceRegistry\b|\bServiceConfig\b|get_service_url", one.text)
        is not None
    )
