"""The dashboard of config/grafana: what Grafana needs of it, and that it asks for what there is."""

from itertools import combinations
from typing import Any

import pytest
from support.exposition import exposed
from support.grafana import DASHBOARD, Query, panels, queries, substituted, variables
from support.promql import grouping, selectors

EXPOSED = exposed()
# Of Grafana's units (https://grafana.com/docs/grafana/latest/panels-visualizations/configure-standard-options/#unit)
# those that are used: requests and other things a second, shares, seconds, bytes a second, counts, and states.
UNITS = {"reqps", "ops", "percentunit", "s", "Bps", "short", "none"}
KINDS = {"timeseries", "state-timeline", "stat", "table"}
ROWS = [
    "Overview",
    "Upstreams",
    "Breakers",
    "Retries and hedges",
    "Connections and queues",
    "Health checks",
    "Registries",
    "TCP sessions",
    "Process",
]

BY_PANEL = pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
BY_QUERY = pytest.mark.parametrize("query", [*queries(), *variables()], ids=lambda query: query.title)


def test_the_schema_is_that_of_grafana_10_and_the_data_source_is_chosen() -> None:
    assert DASHBOARD["schemaVersion"] >= 38
    names = [variable["name"] for variable in DASHBOARD["templating"]["list"]]
    assert names == ["datasource", "job", "instance", "upstream"]
    source = DASHBOARD["templating"]["list"][0]
    assert (source["type"], source["query"]) == ("datasource", "prometheus")


def test_rows_are_in_their_order() -> None:
    assert [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"] == ROWS


def test_ids_and_titles_are_unique() -> None:
    for key in ("id", "title"):
        found = [panel[key] for panel in DASHBOARD["panels"]]
        assert len(set(found)) == len(found)


def test_no_panel_lies_on_another_or_beyond_the_edge() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    for place in places:
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)


@BY_PANEL
def test_what_is_counted_in_whole_is_shown_in_whole(panel: dict[str, Any]) -> None:
    """`increase` guesses what was before the first scrape and after the last: of one reload it makes 1.02."""
    if any("increase(" in target["expr"] for target in panel["targets"]):
        assert panel["fieldConfig"]["defaults"]["decimals"] == 0


@BY_PANEL
def test_a_panel_has_a_unit_a_description_and_a_legend(panel: dict[str, Any]) -> None:
    assert panel["type"] in KINDS
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["description"].endswith(".")
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    if panel["type"] in ("timeseries", "state-timeline"):
        assert panel["options"]["legend"]["showLegend"]
    letters = [target["refId"] for target in panel["targets"]]
    assert len(set(letters)) == len(letters) >= 1
    for target in panel["targets"]:
        assert target["legendFormat"]
        assert target["datasource"] == panel["datasource"]


@BY_QUERY
def test_a_query_asks_for_metrics_labels_and_values_that_the_sidecar_has(query: Query) -> None:
    known_labels = {"job", "instance"}
    for selector in selectors(query.expression):
        labels = EXPOSED[selector.name]  # nothing recorded: the dashboard works without the rules
        known_labels |= set(labels)
        for label, _, value in selector.matchers:
            assert label in known_labels
            assert (
                value.startswith("$")
                or label in ("job", "instance")
                or set(value.split("|")) <= labels[label]
            )
    assert selectors(query.expression)
    assert grouping(query.expression) <= known_labels
    assert "$" not in substituted(query.expression)


@BY_QUERY
def test_a_query_keeps_to_what_was_chosen(query: Query) -> None:
    if query.label == "job":
        return
    for selector in selectors(query.expression):
        chosen = {label for label, _, value in selector.matchers if value.startswith("$")}
        wanted = {"job", "instance", "upstream"} & ({"job", "instance"} | set(EXPOSED[selector.name]))
        assert chosen == wanted - {query.label}
