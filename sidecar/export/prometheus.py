"""The rules of config/prometheus, which the package has a copy of, as Prometheus or its Operator takes them."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import yaml

from sidecar.export.documents import Document

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["RULES", "rules_documents"]

RULES: Final = ("recording.yml", "alerts.yml")  # first what is recorded, which alerts read


def rules_documents(
    name: str, namespace: str, labels: Mapping[str, str], *, plain: bool
) -> Iterator[Document]:
    """A PrometheusRule, or with `plain` one file for `rule_files`. labels: that the Operator selects it by.

    https://prometheus-operator.dev/docs/api-reference/api/#monitoring.coreos.com/v1.PrometheusRule
    """
    groups: list[Any] = []
    for file in RULES:
        text = files("sidecar.export").joinpath("rules", file).read_text(encoding="utf-8")
        groups += yaml.safe_load(text)["groups"]
    about = (
        "The rules for sidecars. Every alert has a section in config/prometheus/RUNBOOKS.md of the project."
    )
    if plain:
        yield Document({"groups": groups}, (about,))
        return
    metadata: dict[str, Any] = {"name": name}
    if namespace:
        metadata["namespace"] = namespace
    if labels:
        metadata["labels"] = dict(labels)
    notes = (
        about,
        "The Operator takes what its Prometheus selects by ruleSelector: --label KEY=VALUE adds a label.",
    )
    yield Document(
        {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PrometheusRule",
            "metadata": metadata,
            "spec": {"groups": groups},
        },
        notes if not labels else (about,),
    )
