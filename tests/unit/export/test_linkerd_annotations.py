"""What Linkerd is told: annotations of Services, and of routes where a method decides."""

from typing import Any

import kubernetes_validate
import pytest
from support.exports import Export
from support.schemas import check_custom

API = "services: {api: {host: api-service.shop.svc.cluster.local, port: 8001}}\n"
MESH = """
kubernetes:
  service_mesh:
    type: linkerd
    traffic_policy:
      circuit_breaker: {consecutive_errors: 3, base_ejection_time: 5s}
"""
ACCRUAL = "balancer.linkerd.io/failure-accrual"


def annotations(documents: list[dict[str, Any]]) -> dict[str, str]:
    """Of the only Service; all documents are what the API takes."""
    found = []
    for document in documents:
        if document["kind"] == "Service":
            kubernetes_validate.validate(document, "1.31", strict=True)
            found.append(document["metadata"])
        else:
            check_custom(document)
    (metadata,) = found
    assert all(isinstance(value, str) for value in metadata["annotations"].values())
    said: dict[str, str] = metadata["annotations"]
    return said


def test_defaults(exported: Export) -> None:
    text, documents = exported("linkerd", API)
    assert documents[0]["metadata"]["name"] == "api-service"
    assert documents[0]["metadata"]["namespace"] == "shop"
    assert annotations(documents) == {
        ACCRUAL: "consecutive",
        f"{ACCRUAL}-consecutive-max-failures": "5",
        f"{ACCRUAL}-consecutive-min-penalty": "1s",
        f"{ACCRUAL}-consecutive-max-penalty": "1m",
        f"{ACCRUAL}-consecutive-jitter-ratio": "0.5",
        "timeout.linkerd.io/idle": "30s",
    }
    flat = text.replace("\n# ", " ")
    assert "kubectl apply --server-side -f -" in flat
    assert "config.linkerd.io/proxy-outbound-connect-timeout: 1000ms" in flat
    assert (
        "Linkerd has nothing for strategy round_robin (it always is peak_ewma), failure_statuses 502 503 504 (every 5xx"
        " counts), circuit_breaker.failure_rate, outlier, limits, retry_on connect and reset and retry_budget."
        in flat
    )


def test_what_stands_before_an_upstream_is_named(exported: Export) -> None:
    keys = "headers: {request: {remove: [Cookie]}}, rate_limit: {requests: 5}, proxy_protocol: v1"
    text, _ = exported("linkerd", f"{API}defaults: {{{keys}}}\n")
    assert "retry_budget, headers, rate_limit and proxy_protocol." in text.replace("\n# ", " ")


@pytest.mark.parametrize(
    ("keys", "least", "most", "jitter"),
    [
        ("circuit_breaker_timeout: 60", "1m", "60001ms", "0"),
        ("circuit_breaker: {open_for: 250ms, max_open_for: 10}", "250ms", "10s", "0.5"),
    ],
)
def test_penalties(exported: Export, keys: str, least: str, most: str, jitter: str) -> None:
    _, documents = exported("linkerd", f"{API}defaults: {{{keys}}}\n")
    found = annotations(documents)
    assert found[f"{ACCRUAL}-consecutive-min-penalty"] == least
    assert found[f"{ACCRUAL}-consecutive-max-penalty"] == most
    assert found[f"{ACCRUAL}-consecutive-jitter-ratio"] == jitter


def test_the_mesh_says_so(exported: Export) -> None:
    _, documents = exported("linkerd", API + MESH)
    found = annotations(documents)
    assert found[f"{ACCRUAL}-consecutive-max-failures"] == "3"
    assert found[f"{ACCRUAL}-consecutive-min-penalty"] == "5s"


def test_what_is_only_observed_ejects_nobody(exported: Export) -> None:
    text, documents = exported("linkerd", f"{API}defaults: {{circuit_breaker: {{observe_only: true}}}}\n")
    assert annotations(documents) == {"timeout.linkerd.io/idle": "30s"}
    assert "observe_only (so nothing is ejected)" in text.replace("\n# ", " ")


def test_retries_by_status_are_of_methods_that_may_be_repeated(exported: Export) -> None:
    keys = "retries: 2, retry_on: [connect, '502', '504'], per_try_timeout: 1500ms"
    _, documents = exported("linkerd", f"{API}defaults: {{{keys}}}\n")
    assert "retry.linkerd.io/http" not in annotations(documents)
    repeatable, others = documents[1:]
    assert repeatable["metadata"] == {
        "name": "api-service-8001-idempotent",
        "namespace": "shop",
        "annotations": {
            "retry.linkerd.io/http": "502,504",
            "retry.linkerd.io/limit": "2",
            "retry.linkerd.io/timeout": "1500ms",
        },
    }
    (rule,) = repeatable["spec"]["rules"]
    methods = [match["method"] for match in rule["matches"]]
    assert methods == ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"]
    assert others["metadata"] == {"name": "api-service-8001-others", "namespace": "shop"}
    assert others["spec"]["rules"][0]["matches"] == [{"path": {"type": "PathPrefix", "value": "/"}}]


@pytest.mark.parametrize("keys", ["retries: 0, retry_on: ['503']", "retries: 3"])
def test_without_statuses_or_retries_there_is_no_route(exported: Export, keys: str) -> None:
    _, documents = exported("linkerd", f"{API}defaults: {{{keys}}}\n")
    assert [document["kind"] for document in documents] == ["Service"]


def test_sessions_are_opaque(exported: Export) -> None:
    text, documents = exported("linkerd", "services: {db: {host: db.shop.svc, port: 5432, scheme: tcp}}\n")
    assert annotations(documents) == {"config.linkerd.io/opaque-ports": "5432"}
    assert "Linkerd breaks circuits of http only." in text


def test_a_service_has_one_policy(exported: Export) -> None:
    both = "services: {one: {host: a.shop.svc, port: 1}, two: {host: a.shop.svc, port: 2, timeout: 9}}\n"
    text, documents = exported("linkerd", both)
    assert annotations(documents)["timeout.linkerd.io/idle"] == "30s"
    assert "A Service has one policy: that of one, and not of two." in text


def test_nothing_is_said_of_what_needs_nothing(exported: Export) -> None:
    text = "external_registry: {type: kubernetes}\nservices: {db: {port: 1, scheme: tcp}}\n"
    found, _ = exported("linkerd", text)
    assert all(not line or line.startswith("#") for line in found.splitlines())
    found, _ = exported("linkerd", "services: {far: {host: a.example, port: 1}}\n")
    assert "Left out: far: a.example is no Service of Kubernetes." in found
