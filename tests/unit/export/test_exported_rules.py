"""The rules that the package has are those of config/prometheus, and the Operator takes them."""

from importlib.resources import files
from typing import Any

import pytest
import yaml
from support.exports import Export
from support.promql import FOLDER
from support.schemas import check_custom

from sidecar.export.prometheus import RULES


@pytest.mark.parametrize("name", RULES)
def test_the_copies_in_the_package_are_those_of_the_folder(name: str) -> None:
    copy = files("sidecar.export").joinpath("rules", name).read_bytes()
    assert copy == (FOLDER / name).read_bytes(), f"cp config/prometheus/{name} sidecar/export/rules/"


def groups() -> list[Any]:
    return [group for name in RULES for group in yaml.safe_load((FOLDER / name).read_text())["groups"]]


def test_a_rule_of_the_operator(exported: Export) -> None:
    text, (document,) = exported("prometheus-rules")
    check_custom(document)
    assert document["spec"]["groups"] == groups()
    assert document["metadata"] == {"name": "sidecar"}
    assert "ruleSelector" in text


def test_its_place_and_labels(exported: Export) -> None:
    wishes = {"name": "proxies", "namespace": "monitoring", "label": ("release=prometheus", "a.b/c=")}
    text, (document,) = exported("prometheus-rules", **wishes)
    assert document["metadata"] == {
        "name": "proxies",
        "namespace": "monitoring",
        "labels": {"release": "prometheus", "a.b/c": ""},
    }
    assert "ruleSelector" not in text


def test_a_file_for_prometheus(exported: Export) -> None:
    _, (document,) = exported("prometheus-rules", plain=True)
    assert document == {"groups": groups()}
