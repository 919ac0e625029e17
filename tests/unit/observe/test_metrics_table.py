"""The table of metrics, in sidecar/observe/README.md, is complete and current: held against scrapes of everything."""

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.metrics import everything

README = Path(__file__).resolve().parents[3] / "sidecar/observe/README.md"
LEVELS = {"low": ("",), "normal": ("", "normal"), "endpoint": ("", "normal", "endpoint")}


def told(level: str) -> dict[str, set[str]]:
    """The labels of each metric that the table has at a level."""
    section = README.read_text().partition("\n## Metrics\n")[2].partition("\n#")[0]
    found: dict[str, set[str]] = {}
    for line in section.splitlines():
        if not line.startswith("| `"):
            continue
        metrics, of_level, _ = (cell.strip() for cell in line.strip("|").split("|"))
        assert of_level in LEVELS["endpoint"]
        if of_level not in LEVELS[level]:
            continue
        for name, labels in re.findall(r"`(\w+)(?:\{([\w,]+)\})?`", metrics):
            assert name not in found, f"{name} twice"
            found[name] = set(filter(None, labels.split(",")))
    return found


def exported(level: str) -> dict[str, set[str]]:
    """The same of a scrape; of a histogram or a summary the family's name."""
    found = {}
    for family in text_string_to_metric_families(everything(level).render().decode()):
        assert family.samples, f"{family.name} does not occur"
        labels = {label for sample in family.samples for label in sample.labels}
        name = family.name.removeprefix("sidecar_") + ("_total" if family.type == "counter" else "")
        found[name] = labels - {"le"}
    return found


@pytest.mark.parametrize("level", ["normal", "endpoint"])
def test_the_table_has_each_metric_with_its_labels(level: str) -> None:
    assert told(level) == exported(level)


def test_at_the_low_level_endpoint_and_method_are_left_out() -> None:
    assert {name: labels - {"endpoint", "method"} for name, labels in told("low").items()} == exported("low")
