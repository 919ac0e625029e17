"""The policies of upstreams as Istio's rules: a DestinationRule for each Service, and a VirtualService for http.

https://istio.io/latest/docs/reference/config/networking/destination-rule/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sidecar.export.documents import Document
from sidecar.export.istio_routes import destination, repeated, virtual_service
from sidecar.export.services import Services
from sidecar.export.values import listed, percent, seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sidecar.config.doors import MeshSettings
    from sidecar.config.settings import PolicySettings, Settings, UpstreamSettings
    from sidecar.export.services import Used

__all__ = ["istio_documents"]

_SIMPLE = {
    "round_robin": "ROUND_ROBIN",
    "least_request": "LEAST_REQUEST",
    "random": "RANDOM",
    "peak_ewma": "LEAST_REQUEST",
}
_ABOUT = (
    "Istio's rules for the Services of {origin}, for clients in the mesh that call them without this sidecar. Where "
    "both stand before a call both act: retries multiply."
)
_GATEWAY = {"502", "503", "504"}  # what `consecutiveGatewayErrors` counts
_WHOLE = {"retryBudget": "retry_budget", "proxyProtocol": "proxy_protocol"}  # of no port alone
_WARMED = ("ROUND_ROBIN", "LEAST_REQUEST")  # the balancers that `warmup` is for


def istio_documents(settings: Settings, namespace: str) -> Iterator[Document]:
    """What Istio is told of each Service. namespace: of hosts that name none."""
    services = Services(settings, namespace)
    mesh = settings.mesh if settings.mesh.enabled else type(settings.mesh)()
    places = {one.upstream.name: destination(one) for used in services.of.values() for one in used}
    yield Document(None, _about(settings, services))
    for host, used in services.of.items():
        yield _destination_rule(host, used, mesh, places)
        http = [one for one in used if one.upstream.per_request]
        if http:
            yield virtual_service(host, http, alone=len(used) == 1, places=places)


def _about(settings: Settings, services: Services) -> tuple[str, ...]:
    notes = [_ABOUT.format(origin=settings.origin)]
    notes += [f"Left out: {name}: {why}." for name, why in services.others]
    return tuple(notes)


def _destination_rule(host: str, used: list[Used], mesh: MeshSettings, places: Mapping[str, Any]) -> Document:
    notes: list[str] = []
    policies = []
    for one in used:
        policy, cannot = _traffic_policy(one.upstream, mesh)
        cannot += _others(one.upstream, places)
        if len(used) > 1 and one.port:
            cannot += [f"{said} of one port" for key, said in _WHOLE.items() if policy.pop(key, None)]
        policies.append((one.port, policy))
        notes.append(f"{host}: upstream {one.upstream.name}.")
        if cannot:
            notes.append(f"Istio has nothing for {listed(cannot)}.")
    if len(used) == 1:
        policy = policies[0][1]
    else:
        # A port's settings replace the destination's, and do not mix with them.
        policy = {
            "portLevelSettings": [
                {
                    "port": {"number": port},
                    **own,
                }
                for port, own in policies
                if port
            ]
        }
        policy |= next((own for port, own in policies if not port), {})
    return Document(
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "DestinationRule",
            "metadata": {"name": used[0].name, "namespace": used[0].namespace},
            "spec": {"host": host, "trafficPolicy": policy},
        },
        tuple(notes),
    )


def _traffic_policy(upstream: UpstreamSettings, mesh: MeshSettings) -> tuple[dict[str, Any], list[str]]:
    """The policy, and the keys that it has no words for."""
    policy = upstream.policy
    cannot: list[str] = []
    found: dict[str, Any] = {}
    balancer = _balancer(upstream, mesh, cannot)
    if balancer:
        found["loadBalancer"] = balancer
    found["connectionPool"] = _pool(upstream, cannot)
    if policy.breaker.observe_only:
        cannot.append("circuit_breaker.observe_only (so nothing is ejected)")
    else:
        found["outlierDetection"] = _outliers(upstream, mesh, cannot)
    if upstream.secure:
        found["tls"] = _tls(policy)
    if upstream.per_request and policy.retries:
        found["retryBudget"] = {
            "percent": percent(policy.retry.ratio),
            "minRetryConcurrency": policy.retry.least,
        }
    if policy.proxy_protocol:
        found["proxyProtocol"] = {"version": f"V{policy.proxy_protocol}"}
    return found, cannot


def _balancer(upstream: UpstreamSettings, mesh: MeshSettings, cannot: list[str]) -> dict[str, Any]:
    policy = upstream.policy
    if upstream.strategy == "ring_hash":
        if policy.slow_start:
            cannot.append("slow_start with ring_hash")
        return _consistent_hash(upstream.hash_on, cannot)
    strategy = mesh.load_balancer or upstream.strategy
    if strategy == "peak_ewma":
        cannot.append("strategy peak_ewma (LEAST_REQUEST is nearest)")
    simple = _SIMPLE[strategy]
    found: dict[str, Any] = {"simple": simple}
    if policy.slow_start and simple in _WARMED:
        found["warmup"] = {"duration": seconds(policy.slow_start)}
    elif policy.slow_start:
        cannot.append(f"slow_start with {strategy}")
    return found


def _consistent_hash(hash_on: str, cannot: list[str]) -> dict[str, Any]:
    kind, _, name = hash_on.partition(":")
    if kind == "header":
        return {"consistentHash": {"httpHeaderName": name}}
    if kind == "cookie":
        return {"consistentHash": {"httpCookie": {"name": name}}}
    if kind == "client":
        return {"consistentHash": {"useSourceIp": True}}
    cannot.append(f"hash_on {hash_on}")
    return {}


def _pool(upstream: UpstreamSettings, cannot: list[str]) -> dict[str, Any]:
    policy, limits = upstream.policy, upstream.policy.limits
    tcp: dict[str, Any] = {
        "maxConnections": limits.connections,
        "connectTimeout": seconds(policy.connect_timeout),
    }
    if not upstream.per_request:
        # 0 means never here as there; where nothing is said Istio has an hour.
        tcp["idleTimeout"] = seconds(policy.idle_timeout) if policy.idle_timeout else "0s"
        return {"tcp": tcp}
    http: dict[str, Any] = {"idleTimeout": seconds(policy.idle_timeout)}
    if limits.pending:
        http["http1MaxPendingRequests"] = limits.pending
    else:
        cannot.append("limits.pending 0 (where 0 is as many as there are)")
    if limits.in_flight:
        http["http2MaxRequests"] = limits.in_flight  # of HTTP/1.1 too, whatever its name says
    return {"tcp": tcp, "http": http}


def _outliers(upstream: UpstreamSettings, mesh: MeshSettings, cannot: list[str]) -> dict[str, Any]:
    breaker = upstream.policy.breaker
    found: dict[str, Any] = {}
    statuses = set(breaker.failure_statuses)
    if mesh.consecutive_errors or not upstream.per_request:
        found["consecutive5xxErrors"] = mesh.consecutive_errors or breaker.consecutive_failures
    elif statuses <= _GATEWAY:
        # Each kind of error has a count of its own, and that of all 5xx is 5 unless it is switched off.
        found["consecutiveGatewayErrors"] = breaker.consecutive_failures
        found["consecutive5xxErrors"] = 0
        if statuses != _GATEWAY:
            cannot.append(f"failure_statuses {' '.join(breaker.failure_statuses)} (502 to 504 count)")
    else:
        found["consecutive5xxErrors"] = breaker.consecutive_failures
        if "5xx" not in statuses:
            cannot.append(f"failure_statuses {' '.join(breaker.failure_statuses)} (every 5xx counts)")
    if mesh.interval:
        found["interval"] = seconds(mesh.interval)
    found["baseEjectionTime"] = seconds(mesh.base_ejection_time or breaker.open_for)
    found["maxEjectionPercent"] = mesh.max_ejection_percent or percent(upstream.policy.outlier.max_ejected)
    if breaker.failure_rate:
        cannot.append("circuit_breaker.failure_rate")
    return found


def _tls(policy: PolicySettings) -> dict[str, Any]:
    """Files are looked for in the container of Istio's proxy."""
    tls = policy.tls
    said = {
        "clientCertificate": tls.cert,
        "privateKey": tls.key or tls.cert,  # both may be in one file
        "caCertificates": tls.ca,
        "sni": tls.server_name,
    }
    found: dict[str, Any] = {"mode": "MUTUAL" if tls.cert else "SIMPLE"}
    found |= {key: value for key, value in said.items() if value}
    if tls.identity:
        found["subjectAltNames"] = list(tls.identity)
    if not tls.verify:
        found["insecureSkipVerify"] = True
    return found


def _others(upstream: UpstreamSettings, places: Mapping[str, Any]) -> list[str]:
    """Keys of the upstream that the rules do not have, where they say something. places: upstreams with a Service."""
    policy = upstream.policy
    usual = type(policy)()
    said = {
        "health_check": upstream.health.active,
        "hedge_after": bool(policy.hedge_after),
        "deadline_header": bool(policy.deadline_header),
        "limits.connections_per_endpoint": bool(policy.limits.connections_per_endpoint),
        "close_on_unhealthy": policy.close_on_unhealthy,
        "a bearer token (a secret)": bool(policy.headers.bearer_env or policy.headers.bearer_file),
        "rate_limit": policy.rate_limit != usual.rate_limit,
        f"mirror to {policy.mirror.to} (no Service)": bool(policy.mirror.to)
        and policy.mirror.to not in places,
        "mirror.max_in_flight": policy.mirror.max_in_flight != usual.mirror.max_in_flight,
        "tls.min_version": policy.tls.min_version != usual.tls.min_version,
        "tls.alpn": policy.tls.alpn != usual.tls.alpn,
    }
    found = [key for key, it_does in said.items() if it_does]
    for edits in (policy.headers.request, policy.headers.response):
        found += [f"several values of the header {name}" for name in repeated(edits)]
    return found
