"""The levels of `sidecar.metrics_detail`: what each tells, and that sums over what a level leaves out are the same."""

from collections import defaultdict
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.clock import FakeClock
from support.metrics import everything, many

from sidecar.cluster import Cluster
from sidecar.model import Endpoint, Outcome, Snapshot, UpstreamPolicy
from sidecar.observe.metrics import Metrics

OF_EACH_ENDPOINT = {
    "sidecar_endpoint_in_flight",
    "sidecar_endpoint_weight",
    "sidecar_endpoint_in_rotation",
    "sidecar_endpoint_drained",
    "sidecar_attempt_duration_seconds_count",
    "sidecar_attempt_duration_seconds_sum",
    "sidecar_breaker_failures",
    "sidecar_health_check_success",
    "sidecar_health_check_duration_seconds",
}


def samples(metrics: Metrics) -> list[tuple[str, dict[str, str], float]]:
    """(name, labels, value) of every series."""
    families = text_string_to_metric_families(metrics.render().decode())
    return [(sample.name, sample.labels, sample.value) for family in families for sample in family.samples]


def labels_of(detail: str) -> dict[str, set[str]]:
    """The labels of each name."""
    return {name: set(labels) for name, labels, _ in samples(everything(detail))}


def test_low_tells_of_upstreams_alone() -> None:
    low, normal = labels_of("low"), labels_of("normal")
    assert not [name for name, labels in low.items() if labels & {"endpoint", "method"}]
    assert normal.keys() - low.keys() == {"sidecar_breaker_state"}
    assert low.keys() <= normal.keys()
    others = {name for name, labels in normal.items() if not labels & {"endpoint", "method"}}
    assert {name: low[name] for name in others} == {name: normal[name] for name in others}


def test_endpoint_tells_more_of_each_and_changes_nothing_else() -> None:
    normal, endpoint = labels_of("normal"), labels_of("endpoint")
    assert endpoint.keys() - normal.keys() == OF_EACH_ENDPOINT
    assert {name: endpoint[name] for name in normal} == normal
    assert all(endpoint[name] == {"upstream", "endpoint"} for name in OF_EACH_ENDPOINT)


def test_a_sum_over_what_low_leaves_out_is_what_low_tells() -> None:
    def sums(detail: str) -> dict[Any, float]:
        found: dict[Any, float] = defaultdict(float)
        for name, labels, value in samples(everything(detail)):
            kept = {key: value for key, value in labels.items() if key not in ("endpoint", "method")}
            found[name, tuple(sorted(kept.items()))] += value
        return found

    low, normal = sums("low"), sums("normal")
    assert low == {key: value for key, value in normal.items() if key[0] != "sidecar_breaker_state"}
    assert [value for (name, _), value in low.items() if name == "sidecar_attempts_total"] == [
        4.0,
        *(1.0,) * (len(Outcome) - 1),
        0.0,
        0.0,
    ]


def test_what_is_told_of_each_endpoint() -> None:
    found = {
        (name, labels["endpoint"]): value
        for name, labels, value in samples(everything("endpoint"))
        if name in OF_EACH_ENDPOINT and labels["upstream"] == "api"
    }
    assert found["sidecar_endpoint_weight", "[fe80::1]:80"] == 1
    assert found["sidecar_endpoint_in_rotation", "[fe80::1]:80"] == 1
    assert found["sidecar_endpoint_in_rotation", "10.0.0.3:80"] == 0
    assert found["sidecar_endpoint_drained", "10.0.0.3:80"] == 1
    assert found["sidecar_endpoint_drained", "10.0.0.1:80"] == 0
    assert found["sidecar_attempt_duration_seconds_count", "[fe80::1]:80"] == 3
    assert found["sidecar_attempt_duration_seconds_sum", "[fe80::1]:80"] == 1.5
    assert found["sidecar_breaker_failures", "10.0.0.1:80"] == 1
    assert found["sidecar_health_check_success", "10.0.0.1:80"] == 0
    assert found["sidecar_health_check_success", "[fe80::1]:80"] == 1
    assert found["sidecar_health_check_duration_seconds", "[fe80::1]:80"] == 0.01
    for name in ("sidecar_health_check_success", "sidecar_health_check_duration_seconds"):
        assert (name, "10.0.0.3:80") not in found, "its check could not be made"


def test_the_level_is_asked_for_at_each_scrape() -> None:
    level = "low"
    cluster = Cluster("api", "http", UpstreamPolicy(), FakeClock())  # type: ignore[arg-type]
    cluster.apply(Snapshot("api", (Endpoint("10.0.0.1", 80),), "static"))
    metrics = Metrics({"api": cluster}, None, compiled=False, detail=lambda: level)
    assert b"endpoint=" not in metrics.render()
    level = "normal"
    assert b"sidecar_breaker_state{" in metrics.render()
    level = "endpoint"
    assert b"sidecar_endpoint_weight{" in metrics.render()


@pytest.mark.parametrize(("detail", "of_each"), [("low", 0), ("normal", 7), ("endpoint", 14)])
def test_how_many_series_an_endpoint_is(detail: str, of_each: int) -> None:
    """Of one without checks, that has succeeded and failed, and whose breaker has moved once."""
    counts = [len(samples(many(2, endpoints, detail))) for endpoints in (10, 20)]
    assert counts[1] - counts[0] == 2 * 10 * of_each


def test_drained_endpoints_are_counted_at_every_level() -> None:
    for detail in ("low", "normal", "endpoint"):
        found = {
            labels["upstream"]: value
            for name, labels, value in samples(everything(detail))
            if name == "sidecar_endpoints_drained"
        }
        assert found == {"api": 1, "redis": 0, "vault": 0}
