"""The policies of upstreams as annotations that Linkerd reads, of Services and of HTTPRoutes.

https://linkerd.io/2-edge/reference/circuit-breaking/, .../reference/timeouts/, .../reference/retries/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sidecar.export.documents import Document
from sidecar.export.istio_routes import IDEMPOTENT
from sidecar.export.services import Services
from sidecar.export.values import listed, whole_time

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sidecar.config.doors import MeshSettings
    from sidecar.config.settings import PolicySettings, Settings, UpstreamSettings
    from sidecar.export.services import Used

__all__ = ["linkerd_documents"]

_ACCRUAL = "balancer.linkerd.io/failure-accrual"
_CONNECT = "config.linkerd.io/proxy-outbound-connect-timeout"
_ABOUT = (
    "Linkerd's annotations for the Services of {origin}, which have to be there: `kubectl apply --server-side -f -` "
    "puts them on. They are for clients in the mesh that call the Services without this sidecar. Where both stand "
    "before a call both act."
)


def linkerd_documents(settings: Settings, namespace: str) -> Iterator[Document]:
    """The Services, with annotations alone, and HTTPRoutes of those that are retried by status."""
    services = Services(settings, namespace)
    mesh = settings.mesh if settings.mesh.enabled else type(settings.mesh)()
    yield Document(None, _about(settings, services))
    for host, used in services.of.items():
        service = _service(host, used, mesh)
        if service.data["metadata"]["annotations"]:
            yield service
        for one in used:
            if one.port and one.upstream.per_request and _statuses(one.upstream.policy):
                yield from _routes(one)


def _about(settings: Settings, services: Services) -> tuple[str, ...]:
    connect = max((one.policy.connect_timeout for one in settings.upstreams), default=1.0)
    notes = [
        _ABOUT.format(origin=settings.origin),
        f"The time for connecting is of the clients' pods: {_CONNECT}: {max(1, round(connect * 1000))}ms.",
    ]
    notes += [f"Left out: {name}: {why}." for name, why in services.others]
    return tuple(notes)


def _service(host: str, used: list[Used], mesh: MeshSettings) -> Document:
    """Annotations are of the whole Service: of several ports the first one of http has its say."""
    notes = [f"{host}: {listed(f'upstream {one.upstream.name}' for one in used)}."]
    annotations: dict[str, str] = {}
    opaque = [str(one.port) for one in used if one.port and not one.upstream.per_request]
    if opaque:
        annotations["config.linkerd.io/opaque-ports"] = ",".join(opaque)
        notes.append("Linkerd breaks circuits of http only.")
    first = next((one.upstream for one in used if one.upstream.per_request), None)
    if first is not None:
        annotations |= _policy(first, mesh)
        others = [
            one.upstream.name
            for one in used
            if one.upstream.per_request and _policy(one.upstream, mesh) != _policy(first, mesh)
        ]
        if others:
            notes.append(f"A Service has one policy: that of {first.name}, and not of {listed(others)}.")
        cannot = _cannot(first, mesh)
        notes.append(f"Linkerd has nothing for {listed(cannot)}.")
    data = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": used[0].name, "namespace": used[0].namespace, "annotations": annotations},
    }
    return Document(data, tuple(notes))


def _policy(upstream: UpstreamSettings, mesh: MeshSettings) -> dict[str, str]:
    policy, breaker = upstream.policy, upstream.policy.breaker
    # `timeout` is of time without progress, and so is idle; request and response are of whole streams.
    found = {"timeout.linkerd.io/idle": whole_time(policy.timeout)}
    if breaker.observe_only:
        return found
    least = mesh.base_ejection_time or breaker.open_for
    # Documented to be greater than the least; where the time is fixed it is so by the least there is.
    most = breaker.max_open_for if breaker.max_open_for > least else least + 0.001
    return {
        _ACCRUAL: "consecutive",
        f"{_ACCRUAL}-consecutive-max-failures": str(mesh.consecutive_errors or breaker.consecutive_failures),
        f"{_ACCRUAL}-consecutive-min-penalty": whole_time(least),
        f"{_ACCRUAL}-consecutive-max-penalty": whole_time(most),
        f"{_ACCRUAL}-consecutive-jitter-ratio": f"{breaker.jitter:g}",
        **found,
    }


def _cannot(upstream: UpstreamSettings, mesh: MeshSettings) -> list[str]:
    policy = upstream.policy
    usual = type(policy)()
    strategy = mesh.load_balancer or upstream.strategy
    said = {
        f"strategy {strategy} (it always is peak_ewma)": strategy != "peak_ewma",
        "circuit_breaker.observe_only (so nothing is ejected)": policy.breaker.observe_only,
        f"failure_statuses {' '.join(policy.breaker.failure_statuses)} (every 5xx counts)": not (
            policy.breaker.observe_only or "5xx" in policy.breaker.failure_statuses
        ),
        "circuit_breaker.failure_rate": bool(policy.breaker.failure_rate),
        "outlier": True,
        "limits": True,
        "retry_on connect and reset": policy.retries > 0,
        "retry_budget": policy.retries > 0,
        "health_check": upstream.health.active,
        "hedge_after": bool(policy.hedge_after),
        "slow_start": bool(policy.slow_start),
        "deadline_header": bool(policy.deadline_header),
        "headers": policy.headers != usual.headers,
        "rate_limit": policy.rate_limit != usual.rate_limit,
        "mirror": policy.mirror != usual.mirror,
        "proxy_protocol": bool(policy.proxy_protocol),
        f"{upstream.scheme} (its own mTLS is all there is)": upstream.secure,
    }
    return [key for key, it_does in said.items() if it_does]


def _statuses(policy: PolicySettings) -> list[str]:
    """Statuses alone make Linkerd try again; `limit: 0` would be read as no word about it, which is once."""
    return [one for one in policy.retry.on if one[0].isdigit()] if policy.retries else []


def _routes(used: Used) -> Iterator[Document]:
    """Retries of a Service would be of every method: a route of those that may be repeated has them.

    Where a Service has routes a request that fits none is answered 404, so there is one for all others.
    https://linkerd.io/2-edge/reference/httproute/
    """
    policy = used.upstream.policy
    annotations = {
        "retry.linkerd.io/http": ",".join(_statuses(policy)),
        "retry.linkerd.io/limit": str(policy.retries),
    }
    if policy.per_try_timeout:
        annotations["retry.linkerd.io/timeout"] = whole_time(policy.per_try_timeout)
    # Annotations about time-outs are the Service's as long as the route has none.
    everything = {"path": {"type": "PathPrefix", "value": "/"}}
    repeatable = [{**everything, "method": method} for method in IDEMPOTENT]
    yield Document(_route(used, "idempotent", repeatable, annotations))
    yield Document(_route(used, "others", [everything], {}))


def _route(
    used: Used, what: str, matches: list[dict[str, Any]], annotations: dict[str, str]
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": f"{used.name}-{used.port}-{what}", "namespace": used.namespace}
    if annotations:
        metadata["annotations"] = annotations
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": metadata,
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": used.name, "port": used.port}],
            "rules": [{"matches": matches, "backendRefs": [{"name": used.name, "port": used.port}]}],
        },
    }
