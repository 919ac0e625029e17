"""The Grafana dashboard that is shipped, as its tests read it."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from support.proxy import ROOT

__all__ = ["DASHBOARD", "Query", "panels", "queries", "substituted", "variables"]

DASHBOARD = json.loads((ROOT / "config" / "grafana" / "sidecar.json").read_text())

# What stands in the place of what Grafana puts in: everything, and windows that a test can wait for.
_VALUES = {
    "job": "sidecar",
    "instance": ".+",
    "upstream": ".+",
    "__rate_interval": "3s",
    "__range": "30s",
}
_LABEL_VALUES = re.compile(r"label_values\((.+), (\w+)\)")


@dataclass(frozen=True, slots=True)
class Query:
    """One expression of a panel, or of a variable, whose values are those of `label`."""

    title: str
    expression: str
    label: str = ""


def panels() -> list[dict[str, Any]]:
    """All panels but rows."""
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries() -> Iterator[Query]:
    """Every expression of every panel."""
    for panel in panels():
        for target in panel["targets"]:
            yield Query(panel["title"], target["expr"])


def variables() -> Iterator[Query]:
    """Those that are asked of Prometheus."""
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            match = _LABEL_VALUES.fullmatch(variable["definition"])
            assert match, variable["definition"]
            yield Query(variable["name"], match[1], match[2])


def substituted(expression: str) -> str:
    """The expression as Prometheus is sent it. KeyError for a variable that nobody knows."""
    return re.sub(r"\$(\w+)", lambda match: _VALUES[match[1]], expression)
