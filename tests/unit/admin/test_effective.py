"""The configuration as it is followed: as a file it says the same."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from sidecar.admin.effective import config_view
from sidecar.admin.openapi import description
from sidecar.admin.written import Entries, written
from sidecar.config.check_rules import NoSecret
from sidecar.config.load import load_settings
from sidecar.config.record import fields
from sidecar.config.rules import Later
from sidecar.config.schema import Named, Policy, Ports, Root, Section, Several, Short, Sockets
from sidecar.config.settings import Settings

ROOT = Path(__file__).resolve().parents[3]

EVERYTHING = """
services:
  ai-stack: {host: ai.example, port: 8080, timeout: 60, circuit_breaker_threshold: 7, circuit_breaker_timeout: 30,
    health_check: true}
  redis: {host: redis.example, port: 6379, scheme: redis, retries: 3, close_on_unhealthy: true,
    health_check: {password_file: redis.secret, username: me, role: master}}
  orders: {source: {use: [consul, etcd], merge: true, service: orders-v2, port: grpc, tags: [blue], datacenter: eu}}
  pay: {scheme: https, host: pay.example, port: 8443, tls: {ca: ca.pem, cert: c.pem, key: k.pem, server_name: p.example,
    min_version: "1.3", alpn: http/1.1, identity: ["spiffe://example.org/pay", pay.example]}}
load_balancers:
  api:
    hosts: ["a.example:1", {host: "::1", port: 2, weight: 7, zone: here}]
    strategy: ring_hash
    hash_on: header:x-user
    retry_on: [connect, "503"]
    retry_backoff: {base: 1s, max: 2s}
    retry_budget: {ratio: 50%, min: 7}
    circuit_breaker: {failure_rate: 25%, window: 3, min_requests: 4, open_for: 2, max_open_for: 9, observe_only: true,
      failure_statuses: [5xx]}
    outlier: {max_ejected: 10%, min_available: 2, panic: fail}
    limits: {connections: 5, connections_per_endpoint: 2, pending: 0, pending_timeout: 3, in_flight: 9,
      request_head: 2KiB, response_head: 3KiB}
    deadline_header: x-timeout-ms
    per_try_timeout: 2
    hedge_after: 1
    slow_start: 10
    mirror: {to: ai-stack, share: 5%, max_in_flight: 9}
    host_header: preserve
    headers: {request: {set: {X-From: here}, add: {X-A: [a, b], X-B: c}, remove: [Cookie]},
      response: {set: {Cache-Control: no-store}, remove: [Server]}}
    bearer_token_file: api.token
    rate_limit: {requests: 100, per: 2s, burst: 7}
    health_check: {path: /up, interval: 1, timeout: 0.5, rise: 3, fall: 4, expect_status: [204, 200-299],
      expect_body: /ok|fine/, expect_json: {status: [ok, true, 1.5], deep.er: "no"}}
  queue: {hosts: ["q.example:5672"], scheme: tcp, idle_timeout: 5m, health_check: {type: tcp}, proxy_protocol: v1}
  near: {hosts: ["unix:/run/near.sock", {host: "unix:@near", weight: 3}]}
routers:
  front:
    port: 8100
    limits: {request_head: 4KiB}
    routes:
      - {host: "*.Shop.example", path: /v1/, methods: [GET, POST], headers: {X-Canary: "yes"},
         to: {api: 95, ai-stack: 5}}
      - {to: api}
external_registry:
  - {type: consul, host: "consul.example:8500", token_env: CONSUL_TOKEN, stale_after: 30,
     tls: {ca: ca.pem, cert: c.pem, key: k.pem, server_name: consul}}
  - {type: etcd, host: [e1.example, "e2.example:2379"], username: me, password_file: etcd.secret, prefix: /here,
     tls: true}
  - {type: dns}
  - {type: kubernetes, namespace: prod, token_file: k8s.token}
  - {type: file, path: endpoints.yml, name: near, on_empty: keep}
register:
  - {name: web, port: 8000, registry: consul, host: web.example, id: one, weight: 2, zone: b, tags: [x], ttl: 9,
     health_check: /health}
  - {name: raw, port: 8001, registry: etcd}
sidecar:
  bind: [10.0.0.1]
  expose: true
  ports: {8001: {to: api, accept_proxy: true}, 6379: redis, 8080: ai-stack, 7000: orders}
  sockets:
    /run/api.sock: {to: api, mode: "0600", tls: {cert: s.pem, key: k.pem, client_ca: c.pem, min_version: "1.3",
      identity: [web]}}
    "@here": {to: near, accept_proxy: true}
    /run/queue.sock: queue
  admin: 0.0.0.0:9001
  metrics: "[::1]:9002"
  admin_token_file: admin.token
  admin_read_only: true
  workers: 3
  zone: here
  last_good: {file: last.json, max_age: 60}
  access_log: {file: stdout, sample: 10%, errors_only: true, buffer: 128KiB}
  tracing: {endpoint: "http://127.0.0.1:4318", sample: 0.5, token_env: OTLP_TOKEN}
  metrics_detail: low
  request_id: true
  watch: false
kubernetes:
  service_mesh:
    enabled: false
    type: istio
    traffic_policy:
      load_balancer: random
      circuit_breaker: {consecutive_errors: 6, interval: 30s, base_ejection_time: 45, max_ejection_percent: 20}
"""

# What cannot be beside it.
THE_REST = """
deployment: {mode: distributed, domain: corp.example}
defaults: {timeout: 7, health_check: {interval: 3}}
services:
  web: {host: web.example, port: 8080, health_endpoint: /well, connect_timeout: 2, idle_timeout: 44,
    bearer_token_env: WEB_TOKEN, continue_timeout: 3, tunnel_idle_timeout: 9m,
    circuit_breaker: {consecutive_failures: 9}}
  db: {scheme: redis, host: db.example, port: 6379, health_check: {password_env: DB_PASSWORD}}
  vault: {scheme: tls, host: vault.example, port: 8200, tls: {verify: false}}
load_balancers:
  pods: {source: {use: [here], namespace: shop, port: "8080"}, circuit_breaker_threshold: 6,
    circuit_breaker_timeout: 8}
external_registry:
  - {type: kubernetes, name: here, kubeconfig: kube.yml, context: prod}
  - {type: consul, name: agent, host: c.example, datacenter: eu, token_file: consul.token, on_empty: drop,
    tls: {verify: false}}
  - {type: etcd, name: kv, host: e.example, username: me, password_env: ETCD_PASSWORD}
register: [{name: web, port: 8000, registry: kv, host: web.example, check_host: 127.0.0.2, health_check: {type: tcp}}]
sidecar:
  ports: {8000: {to: pods, accept_proxy: true, tls: {cert: s.pem, key: k.pem}}}
  admin_token_env: ADMIN_TOKEN
  head_timeout: 4
  idle_timeout: 33
  drain_timeout: 6
  max_clients: 321
  min_body_rate: 2KiB
  registry_wait: 0
  access_log: {file: access.jsonl, query: true}
  tracing: {endpoint: "https://c.example", queue: 100, service: shop, token_file: otlp.token}
"""


def _load(text: str, directory: Path, **environ: str) -> Settings:
    path = directory / "sidecar.yml"
    path.write_text(text)
    return load_settings(path, environ=environ, container=False)


def _shown(settings: Settings) -> dict[str, Any]:
    view: dict[str, Any] = json.loads(asyncio.run(written(config_view(settings))))
    shape = description(set(), token=False)
    Draft202012Validator({"$ref": "#/components/schemas/Config", **shape}).validate(view)
    return view


def _again(view: dict[str, Any], directory: Path) -> Settings:
    return _load(json.dumps(view["settings"]), directory)


@pytest.mark.parametrize(
    "text",
    [
        EVERYTHING,
        THE_REST,
        "",
        *(path.read_text() for path in sorted((ROOT / "config/deployment").glob("*.yml"))),
    ],
    ids=lambda text: text.strip()[:20] or "built-ins",
)
def test_as_a_file_it_says_the_same(text: str, tmp_path: Path) -> None:
    settings = _load(text, tmp_path)
    again = _again(_shown(settings), tmp_path)
    assert again.upstreams == settings.upstreams
    assert again.sidecar == settings.sidecar
    assert again.registries == settings.registries
    assert again.registrations == settings.registrations
    assert again.mesh == settings.mesh
    assert (again.mode, again.domain) == (settings.mode, settings.domain)


def test_nothing_that_a_file_may_say_is_left_out() -> None:
    """The test before this one would not see that a key is shown as it is by default."""
    for text in (EVERYTHING, THE_REST):
        _look(Root, yaml.safe_load(text))
    left = {f"{kind}.{name}" for kind, names in _MAY_BE.items() for name in names - _SAID.get(kind, set())}
    assert left == set()


_MAY_BE: dict[str, set[str]] = {}
_SAID: dict[str, set[str]] = {}


def _look(kind: type[Any], said: Any) -> None:
    """Note what may be in a section, and what is."""
    name = "upstream" if issubclass(kind, Policy) else kind.__name__
    rules = {key: annotation.__metadata__[0] for key, annotation in fields(kind).items()}
    _MAY_BE.setdefault(name, set()).update(
        key for key, rule in rules.items() if not isinstance(rule, NoSecret | Later)
    )
    if not isinstance(said, dict):
        return  # the short form
    _SAID.setdefault(name, set()).update(said)
    for key, value in said.items():
        rule = rules[key]
        inner = rule.item if isinstance(rule, Several) else rule
        if not isinstance(inner, Section | Named | Short | Ports | Sockets):
            continue
        by_key = isinstance(rule, Named | Ports | Sockets)
        several = value if isinstance(rule, Several) else value.values() if by_key else [value]
        for one in several:
            _look(inner.kind, one)


def test_what_the_environment_says_is_in_it_and_named(tmp_path: Path) -> None:
    settings = _load("services: {redis: {scheme: redis}}", tmp_path, REDIS_HOST="10.0.0.9", REDIS_PORT="7000")
    view = _shown(settings)
    assert view["settings"]["services"]["redis"]["host"] == "10.0.0.9"
    assert view["settings"]["services"]["redis"]["port"] == 7000
    assert sorted(view["overrides"]) == ["REDIS_HOST", "REDIS_PORT"]
    assert view["origin"] == str(tmp_path / "sidecar.yml")


def test_why_one_does_not_listen(tmp_path: Path) -> None:
    view = _shown(_load("services: {api: {host: 127.0.0.1, port: 80}}", tmp_path))
    assert "api" in view["not_listening"]


async def test_requests_come_between_upstreams(tmp_path: Path) -> None:
    hosts = ", ".join(f"u{number}: {{host: a.example, port: {8000 + number}}}" for number in range(120))
    view = config_view(_load(f"services: {{{hosts}}}", tmp_path))
    turns: list[None] = []
    seen: list[int] = []
    services = view["settings"]["services"]

    def watched() -> Any:
        for pair in services.pairs:
            asyncio.get_running_loop().call_soon(turns.append, None)
            seen.append(len(turns))
            yield pair

    view["settings"]["services"] = Entries(watched())
    text = await written(view)
    assert len(json.loads(text)["settings"]["services"]) == 120
    assert seen[-1] >= 100, "all but the last part had their turn before the end"
