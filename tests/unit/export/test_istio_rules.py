"""What Istio is told: the seed's block, every policy that it has a word for, and what it has none for."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.exports import Export
from support.schemas import check_custom

from sidecar.config.doors import ClientTlsSettings
from sidecar.config.load import load_settings
from sidecar.config.settings import DeploymentMode
from sidecar.export.istio import istio_documents

MESH = """
kubernetes:
  service_mesh:
    enabled: true
    type: istio
    traffic_policy:
      load_balancer: round_robin
      circuit_breaker:
        consecutive_errors: 5
        interval: 30s
"""
API = "services: {api: {host: api-service.shop.svc.cluster.local, port: 8001}}\n"


def of(kind: str, documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The specs of this kind; all documents are what Istio takes."""
    for document in documents:
        check_custom(document)
    return [document["spec"] for document in documents if document["kind"] == kind]


def policy(documents: list[dict[str, Any]]) -> dict[str, Any]:
    """The traffic policy of the only DestinationRule."""
    (rule,) = of("DestinationRule", documents)
    found: dict[str, Any] = rule["trafficPolicy"]
    return found


def test_the_block_of_the_seed(exported: Export) -> None:
    text, documents = exported("istio", API + MESH)
    assert documents[0]["metadata"] == {"name": "api-service", "namespace": "shop"}
    assert of("DestinationRule", documents)[0]["host"] == "api-service.shop.svc.cluster.local"
    assert policy(documents) == {
        "loadBalancer": {"simple": "ROUND_ROBIN"},
        "connectionPool": {
            "tcp": {"maxConnections": 1024, "connectTimeout": "1s"},
            "http": {"idleTimeout": "3s", "http1MaxPendingRequests": 1024},
        },
        "outlierDetection": {
            "consecutive5xxErrors": 5,
            "interval": "30s",
            "baseEjectionTime": "1s",
            "maxEjectionPercent": 50,
        },
        "retryBudget": {"percent": 20, "minRetryConcurrency": 3},
    }
    assert text.startswith("# Istio's rules for the Services of")
    assert "Istio has nothing for circuit_breaker.failure_rate." in text


def test_its_other_keys_and_one_that_is_not_enabled(exported: Export) -> None:
    more = "base_ejection_time: 45s\n        max_ejection_percent: 20\n        interval: 30s"
    _, documents = exported("istio", API + MESH.replace("interval: 30s", more))
    assert policy(documents)["outlierDetection"] == {
        "consecutive5xxErrors": 5,
        "interval": "30s",
        "baseEjectionTime": "45s",
        "maxEjectionPercent": 20,
    }
    _, documents = exported("istio", API + MESH.replace("enabled: true", "enabled: false"))
    assert "interval" not in policy(documents)["outlierDetection"]


@pytest.mark.parametrize(
    ("keys", "detection", "said"),
    [
        ("", {"consecutiveGatewayErrors": 5, "consecutive5xxErrors": 0}, ""),
        ("failure_statuses: [5xx]", {"consecutive5xxErrors": 5}, ""),
        ("failure_statuses: ['500']", {"consecutive5xxErrors": 5}, "failure_statuses 500 (every 5xx counts)"),
        (
            "failure_statuses: ['503']",
            {"consecutiveGatewayErrors": 5, "consecutive5xxErrors": 0},
            "failure_statuses 503 (502 to 504 count)",
        ),
        ("consecutive_failures: 9, failure_statuses: [5xx]", {"consecutive5xxErrors": 9}, ""),
    ],
)
def test_an_upstreams_own_breaker(exported: Export, keys: str, detection: dict[str, int], said: str) -> None:
    text, documents = exported("istio", f"{API}defaults: {{circuit_breaker: {{{keys}}}}}\n")
    found = policy(documents)["outlierDetection"]
    assert {key: value for key, value in found.items() if key.startswith("consecutive")} == detection
    assert said in text.replace("\n# ", " ")


def test_what_is_only_observed_ejects_nobody(exported: Export) -> None:
    text, documents = exported("istio", f"{API}defaults: {{circuit_breaker: {{observe_only: true}}}}\n")
    assert "outlierDetection" not in policy(documents)
    assert "observe_only (so nothing is ejected)" in text


@pytest.mark.parametrize(
    ("keys", "balancer", "said"),
    [
        ("strategy: least_request", {"simple": "LEAST_REQUEST"}, ""),
        ("strategy: random, slow_start: 5", {"simple": "RANDOM"}, "slow_start with random"),
        ("strategy: peak_ewma", {"simple": "LEAST_REQUEST"}, "peak_ewma (LEAST_REQUEST is nearest)"),
        ("slow_start: 5", {"simple": "ROUND_ROBIN", "warmup": {"duration": "5s"}}, ""),
        ("strategy: ring_hash, hash_on: client", {"consistentHash": {"useSourceIp": True}}, ""),
        ("strategy: ring_hash, hash_on: 'header:x-a'", {"consistentHash": {"httpHeaderName": "x-a"}}, ""),
        ("strategy: ring_hash, hash_on: 'cookie:a'", {"consistentHash": {"httpCookie": {"name": "a"}}}, ""),
        (
            "strategy: ring_hash, hash_on: path, slow_start: 1",
            None,
            "slow_start with ring_hash, hash_on path",
        ),
    ],
)
def test_strategies(exported: Export, keys: str, balancer: dict[str, Any] | None, said: str) -> None:
    text, documents = exported("istio", f"load_balancers: {{api: {{hosts: [a.shop.svc:80], {keys}}}}}\n")
    assert policy(documents).get("loadBalancer") == balancer
    assert said in text.replace("\n# ", " ")


def test_a_mesh_leaves_hashes_alone(exported: Export) -> None:
    hashed = "load_balancers: {api: {hosts: [a.shop.svc:80], strategy: ring_hash, hash_on: client}}\n"
    _, documents = exported("istio", hashed + MESH)
    assert policy(documents)["loadBalancer"] == {"consistentHash": {"useSourceIp": True}}


def test_bounds_and_times(exported: Export) -> None:
    keys = "limits: {connections: 7, pending: 8, in_flight: 9}, connect_timeout: 250ms, idle_timeout: 2"
    _, documents = exported("istio", f"{API}defaults: {{{keys}}}\n")
    assert policy(documents)["connectionPool"] == {
        "tcp": {"maxConnections": 7, "connectTimeout": "0.25s"},
        "http": {"idleTimeout": "2s", "http1MaxPendingRequests": 8, "http2MaxRequests": 9},
    }
    text, documents = exported("istio", f"{API}defaults: {{limits: {{pending: 0}}}}\n")
    assert "http1MaxPendingRequests" not in policy(documents)["connectionPool"]["http"]
    assert "limits.pending 0" in text


def test_sessions_have_neither_routes_nor_retries(exported: Export) -> None:
    text = "services: {db: {host: db.shop.svc, port: 5432, scheme: tcp}}\n"
    _, documents = exported("istio", text)
    assert [document["kind"] for document in documents] == ["DestinationRule"]
    found = policy(documents)
    assert found["connectionPool"] == {
        "tcp": {"maxConnections": 1024, "connectTimeout": "1s", "idleTimeout": "0s"}
    }
    assert found["outlierDetection"]["consecutive5xxErrors"] == 5
    assert "retryBudget" not in found


def test_retries_of_what_may_be_repeated_and_of_the_rest(exported: Export) -> None:
    keys = "retries: 2, retry_on: [connect, reset, timeout, '503'], per_try_timeout: 2, timeout: 9"
    text, documents = exported("istio", f"{API}defaults: {{{keys}}}\n")
    (service,) = of("VirtualService", documents)
    assert service["hosts"] == ["api-service.shop.svc.cluster.local"]
    repeatable, others = service["http"]
    assert repeatable["match"] == [{"method": {"regex": "GET|HEAD|OPTIONS|TRACE|PUT|DELETE"}}]
    assert repeatable["retries"] == {
        "attempts": 2,
        "perTryTimeout": "2s",
        "retryOn": "connect-failure,refused-stream,reset,gateway-error,503",
        "backoff": "0.025s",
    }
    assert "match" not in others
    assert others["retries"]["retryOn"] == "connect-failure,refused-stream"
    assert {route["timeout"] for route in service["http"]} == {"9s"}
    destination = {"host": "api-service.shop.svc.cluster.local", "port": {"number": 8001}}
    assert others["route"] == [{"destination": destination}]
    assert "retry_on timeout is gateway-error" in text


@pytest.mark.parametrize(
    ("keys", "retries"),
    [
        ("retries: 0", [{"attempts": 0}]),
        ("retries: 0, per_try_timeout: 1", [{"attempts": 0, "perTryTimeout": "1s"}]),
        (
            "retry_on: [reset], retry_backoff: {base: 0}",
            [{"attempts": 1, "retryOn": "reset"}, {"attempts": 0}],
        ),
        (
            "retry_on: [connect], retry_backoff: {base: 0}",
            [{"attempts": 1, "retryOn": "connect-failure,refused-stream"}],
        ),
    ],
)
def test_retries_that_are_none(exported: Export, keys: str, retries: list[dict[str, Any]]) -> None:
    _, documents = exported("istio", f"{API}defaults: {{{keys}}}\n")
    (service,) = of("VirtualService", documents)
    assert [route["retries"] for route in service["http"]] == retries


def test_two_ports_of_one_service(exported: Export) -> None:
    text = """
services:
  one: {host: api.shop.svc, port: 8001, retries: 0, proxy_protocol: v1}
  two: {host: api.shop.svc, port: 8002, retries: 0, slow_start: 3}
  same: {host: api.shop.svc, port: 8002}
  db: {host: api.shop.svc, port: 5432, scheme: tcp}
sidecar: {ports: {8001: one, 8002: two, 5432: db, 8003: same}}
"""
    said, documents = exported("istio", text)
    ports = policy(documents)["portLevelSettings"]
    assert [one["port"]["number"] for one in ports] == [8001, 8002, 5432]
    assert ports[1]["loadBalancer"]["warmup"] == {"duration": "3s"}
    (service,) = of("VirtualService", documents)
    assert [route["match"] for route in service["http"]] == [[{"port": 8001}], [{"port": 8002}]]
    assert "Left out: same: has the Service and the port of two." in said
    assert "proxy_protocol of one port" in said.replace("\n# ", " ")


def test_who_is_no_service_is_left_out_and_named(exported: Export) -> None:
    text = """
services:
  far: {host: api.example.com, port: 80}
  near: {host: 10.0.0.1, port: 81}
  short: {host: web, port: 82}
  here: {host: localhost, port: 83}
  local: {host: "unix:/run/app", port: 84}
  abstract: {host: "unix:@app", port: 85}
  other: {host: my_web, port: 86}
sidecar: {ports: {8000: front}}
routers: {front: {routes: [{to: short}]}}
"""
    said, documents = exported("istio", text)
    assert [document["metadata"] for document in documents if document["kind"] == "DestinationRule"] == [
        {"name": "web", "namespace": "autobot-system"}
    ]
    for name, host in (
        ("far", "api.example.com"),
        ("near", "10.0.0.1"),
        ("here", "localhost"),
        ("local", "unix:/run/app"),
        ("abstract", "unix:@app"),
        ("other", "my_web"),
    ):
        assert f"Left out: {name}: {host} is no Service of Kubernetes." in said
    assert "Left out: front: is a router, and its routes are of this sidecar alone." in said
    _, documents = exported("istio", text, namespace="shop")
    assert documents[0]["metadata"] == {"name": "web", "namespace": "shop"}


@pytest.mark.parametrize(
    ("domain", "namespace"),
    [
        ("shop.svc.corp.example", "shop"),
        ("shop.svc", "shop"),
        ("corp.example", "default"),
        ("localhost", "default"),
    ],
)
def test_the_namespace_of_a_short_name(exported: Export, domain: str, namespace: str) -> None:
    text = f"deployment: {{domain: {domain}}}\nservices: {{web: {{host: web, port: 82}}}}\n"
    _, documents = exported("istio", text)
    assert documents[0]["metadata"]["namespace"] == namespace


def test_services_of_a_registry(exported: Export) -> None:
    text = """
external_registry: [{type: kubernetes, namespace: prod}, {type: dns}]
services:
  plain: {port: 1, source: kubernetes}
  far: {port: 2, source: {use: kubernetes, service: orders.shop, port: "8080"}}
  named: {port: 3, source: {use: kubernetes, service: orders, namespace: ml}}
  asked: {port: 4, source: {use: dns, service: _a._tcp.example}}
"""
    said, documents = exported("istio", text)
    hosts = [one["host"] for one in of("DestinationRule", documents)]
    assert hosts == [f"{name}.svc.cluster.local" for name in ("plain.prod", "orders.shop", "orders.ml")]
    assert "Left out: asked: has no Service of Kubernetes." in said
    routes = [one["http"][-1]["route"][0]["destination"] for one in of("VirtualService", documents)]
    assert [route.get("port") for route in routes] == [None, {"number": 8080}, None]


def test_what_it_has_nothing_for_is_named(exported: Export) -> None:
    keys = (
        "health_check: /up, hedge_after: 1, deadline_header: x-t, limits: {connections_per_endpoint: 3}, "
        "close_on_unhealthy: true"
    )
    said, _ = exported("istio", f"{API}defaults: {{{keys}}}\n")
    flat = said.replace("\n# ", " ")
    assert (
        "Istio has nothing for circuit_breaker.failure_rate, health_check, hedge_after, deadline_header, "
        "limits.connections_per_endpoint and close_on_unhealthy." in flat
    )


def test_what_stands_before_an_upstream(exported: Export) -> None:
    text = """
services:
  api:
    host: api.shop.svc
    port: 8001
    host_header: api.example
    mirror: {to: next, share: 2.5%}
    proxy_protocol: v2
    headers:
      request: {set: {X-Source: "100%"}, add: {X-More: a, X-Two: [b, c]}, remove: [Cookie]}
      response: {remove: [Server]}
    bearer_token_env: TOKEN
    rate_limit: {requests: 5}
  next: {host: next.shop.svc, port: 8002, mirror: {to: far}}
  far: {host: far.example, port: 8003}
"""
    said, documents = exported("istio", text)
    flat = said.replace("\n# ", " ")
    rules = {rule["host"]: rule["trafficPolicy"] for rule in of("DestinationRule", documents)}
    assert rules["api.shop.svc.cluster.local"]["proxyProtocol"] == {"version": "V2"}
    assert "proxyProtocol" not in rules["next.shop.svc.cluster.local"]
    api, following = of("VirtualService", documents)
    assert len(api["http"]) == 2
    for route in api["http"]:
        assert route["mirror"] == {"host": "next.shop.svc.cluster.local", "port": {"number": 8002}}
        assert route["mirrorPercentage"] == {"value": 2.5}
        assert route["rewrite"] == {"authority": "api.example"}
        assert route["headers"] == {
            "request": {"set": {"X-Source": "100%%"}, "add": {"X-More": "a"}, "remove": ["Cookie"]},
            "response": {"remove": ["Server"]},
        }
    for route in following["http"]:
        assert not {"mirror", "mirrorPercentage", "rewrite", "headers"} & set(route)
    assert (
        "failure_rate, a bearer token (a secret), rate_limit and several values of the header X-Two." in flat
    )
    assert "mirror to far (no Service)" in flat
    assert "TOKEN" not in said


@pytest.mark.parametrize(
    ("tls", "said"),
    [
        (ClientTlsSettings(), {"mode": "SIMPLE"}),
        (
            ClientTlsSettings(ca="ca.pem", server_name="api", identity=("spiffe://a/b",)),
            {"mode": "SIMPLE", "caCertificates": "ca.pem", "sni": "api", "subjectAltNames": ["spiffe://a/b"]},
        ),
        (ClientTlsSettings(verify=False), {"mode": "SIMPLE", "insecureSkipVerify": True}),
        (
            ClientTlsSettings(cert="c.pem", key="k.pem"),
            {"mode": "MUTUAL", "clientCertificate": "c.pem", "privateKey": "k.pem"},
        ),
        (
            ClientTlsSettings(cert="both.pem"),
            {"mode": "MUTUAL", "clientCertificate": "both.pem", "privateKey": "both.pem"},
        ),
    ],
)
def test_tls(tmp_path: Path, tls: ClientTlsSettings, said: dict[str, Any]) -> None:
    file = tmp_path / "sidecar.yml"
    file.write_text(API)
    settings = load_settings(file, environ={}, mode=DeploymentMode.KUBERNETES, container=True)
    (api,) = settings.upstreams
    secure = replace(api, scheme="https", policy=replace(api.policy, tls=tls))
    found = [one.data for one in istio_documents(replace(settings, upstreams=(secure,)), "shop")]
    assert policy(found[1:])["tls"] == said
    assert found[2]["kind"] == "VirtualService"
    assert "tls" not in policy([one.data for one in istio_documents(settings, "shop")][1:])
