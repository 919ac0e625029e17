"""The rules of config/prometheus: they ask for what there is, and somebody who is woken knows what to do."""

import re

import pytest
import yaml
from support.exposition import exposed
from support.promql import ALERTS, FOLDER, RECORDING, grouping, recorded, rules_of, selectors

from sidecar.model import CloseReason
from sidecar.model.stats import DURATION_BUCKETS

RULES = [*rules_of(RECORDING), *rules_of(ALERTS)]
SHIPPED_ALERTS = list(rules_of(ALERTS))
EXPOSED = exposed()
OF_A_SCRAPE = {"job", "instance", "pod"}  # labels that Prometheus adds, or config/prometheus/prometheus.yml
SECTIONS = re.findall(r"^## (\w+)$", (FOLDER / "RUNBOOKS.md").read_text(), re.MULTILINE)


def name_of(rule: dict[str, str]) -> str:
    return rule.get("alert") or rule["record"]


BY_RULE = pytest.mark.parametrize("rule", RULES, ids=name_of)
BY_ALERT = pytest.mark.parametrize("rule", SHIPPED_ALERTS, ids=name_of)


@BY_RULE
def test_asks_for_metrics_labels_and_values_that_the_sidecar_has(rule: dict[str, str]) -> None:
    known_labels = set(OF_A_SCRAPE)
    for selector in selectors(rule["expr"]):
        if selector.name == "up":
            continue
        if ":" in selector.name:
            assert selector.name in recorded()
            known_labels |= {"upstream", "limit", "source"}
            continue
        labels = EXPOSED[selector.name]
        known_labels |= set(labels)
        for label, _, value in selector.matchers:
            assert set(value.split("|")) <= labels[label], f"{selector.name}: {label} is never {value}"
    assert grouping(rule["expr"]) <= known_labels
    for label in re.findall(r"\$labels\.(\w+)", yaml.safe_dump(rule.get("annotations", {}))):
        assert label in known_labels


@BY_RULE
def test_sums_over_sidecars_leave_out_both_labels_of_one(rule: dict[str, str]) -> None:
    for listed in re.findall(r"\b(?:sum|count) without \(([^)]*)\)", rule["expr"]):
        labels = {label.strip() for label in listed.split(",")}
        assert labels >= OF_A_SCRAPE - {"job"} or labels == {"pod"}


@BY_ALERT
def test_says_how_bad_it_is_what_it_is_and_what_to_do(rule: dict[str, dict[str, str]]) -> None:
    assert rule["labels"]["severity"] in ("page", "ticket")
    annotations = rule["annotations"]
    assert set(annotations) == {"summary", "description", "runbook"}
    assert "$value" in annotations["description"]
    path, _, section = annotations["runbook"].partition("#")
    assert path == "config/prometheus/RUNBOOKS.md"
    assert section == name_of(rule).lower()  # type: ignore[arg-type] # the anchor that a heading has


def test_each_alert_has_a_section_of_the_runbook_and_each_section_an_alert() -> None:
    assert sorted(SECTIONS) == sorted(name_of(rule) for rule in SHIPPED_ALERTS)


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_says_what_it_means_what_to_look_at_and_what_to_do(section: str) -> None:
    text = (FOLDER / "RUNBOOKS.md").read_text().split(f"## {section}\n")[1].split("\n## ")[0]
    assert re.findall(r"^\*\*(.+?)\*\*", text, re.MULTILINE) == ["Means", "Look at", "Do"]


def test_what_is_never_said_at_the_lowest_level_stands_in_the_runbook() -> None:
    at_low = exposed("low")
    text = (FOLDER / "RUNBOOKS.md").read_text()
    for rule in SHIPPED_ALERTS:
        section = text.split(f"## {name_of(rule)}\n")[1].split("\n## ")[0]
        asked = {one.name for one in selectors(rule["expr"]) if ":" not in one.name and one.name != "up"}
        assert (not asked <= set(at_low)) == ("metrics_detail: low" in section), name_of(rule)


def test_the_runbook_names_what_there_is() -> None:
    for selector in selectors((FOLDER / "RUNBOOKS.md").read_text()):
        assert selector.name in EXPOSED or selector.name in recorded() or selector.name == "up"


def test_every_recorded_name_is_read_or_is_for_people() -> None:
    read = {selector.name for rule in RULES for selector in selectors(rule["expr"])}
    assert recorded() - read == {"job_upstream:sidecar_request_duration_seconds:p99_rate5m"}


def test_slow_is_a_bucket_of_the_histogram() -> None:
    bounds = {
        value
        for rule in RULES
        for one in selectors(rule["expr"])
        for label, _, value in one.matchers
        if label == "le"
    }
    assert bounds == {"0.25"}
    assert 0.25 in DURATION_BUCKETS


def test_errors_of_sessions_are_those_of_the_history_and_the_access_log() -> None:
    (rule,) = [rule for rule in RULES if name_of(rule) == "job_upstream:sidecar_session_errors:ratio_rate5m"]
    asked = [
        value
        for one in selectors(rule["expr"])
        for label, _, value in one.matchers
        if label == "close_reason"
    ]
    assert [set(value.split("|")) for value in asked] == [
        {reason.label for reason in CloseReason if reason.is_failure}
    ]
