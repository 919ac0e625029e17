"""What a PromQL expression asks for, as far as tests of shipped rules and dashboards want to know: names and labels."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from support.proxy import ROOT

__all__ = ["ALERTS", "FOLDER", "RECORDING", "Selector", "grouping", "recorded", "rules_of", "selectors"]

FOLDER = ROOT / "config" / "prometheus"
ALERTS = FOLDER / "alerts.yml"
RECORDING = FOLDER / "recording.yml"

# A metric of the sidecar, or one that rules record: those have colons in their names.
_SELECTOR = re.compile(
    r"(?<![\w:\"])(?P<name>(?:sidecar_\w+|[a-z]\w*:[a-z][\w:]*|up)\b)\s*(?:\{(?P<matchers>[^}]*)\})?"
)
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")


@dataclass(frozen=True, slots=True)
class Selector:
    """One mention of a metric. matchers: (label, operator, value)."""

    name: str
    matchers: tuple[tuple[str, str, str], ...]


def selectors(expression: str) -> list[Selector]:
    """Every mention of a metric, in order."""
    bare = _GROUPING.sub("", expression)  # whose labels are no metrics
    found = []
    for match in _SELECTOR.finditer(bare):
        matchers = tuple(
            (label, operator, value) for label, operator, value in _MATCHER.findall(match["matchers"] or "")
        )
        found.append(Selector(match["name"], matchers))
    return found


def grouping(expression: str) -> set[str]:
    """The labels that it sums, joins or leaves out by."""
    lists = _GROUPING.findall(expression)
    return {label.strip() for listed in lists for label in listed.split(",") if label.strip()}


def rules_of(path: Path) -> Iterator[dict[str, Any]]:
    """Every rule of a file of rules, in order."""
    for group in yaml.safe_load(path.read_text())["groups"]:
        yield from group["rules"]


def recorded() -> set[str]:
    """The names that the shipped rules record."""
    return {rule["record"] for rule in rules_of(RECORDING)}
