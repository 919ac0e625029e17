"""What `kubernetes.service_mesh` comes to, and where it asks a mesh for what it has not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sidecar.config.doors import MeshSettings
from sidecar.config.schema import Kubernetes, MeshBreaker, ServiceMesh, TrafficPolicy
from sidecar.config.unset import UNSET, UnsetType, or_else

if TYPE_CHECKING:
    from sidecar.config.findings import Findings, KeyPath
    from sidecar.config.marks import Document

__all__ = ["mesh_settings"]


_PATH: Final[KeyPath] = ("kubernetes", "service_mesh")
_BREAKER: Final[KeyPath] = (*_PATH, "traffic_policy", "circuit_breaker")
# https://linkerd.io/2-edge/reference/circuit-breaking/ has failures in a row and penalties, and nothing of these.
_NOT_OF_LINKERD: Final = ("interval", "max_ejection_percent")


def mesh_settings(spec: Kubernetes | UnsetType, document: Document, findings: Findings) -> MeshSettings:
    """A section that is there is enabled unless it says otherwise."""
    mesh = spec.service_mesh if isinstance(spec, Kubernetes) else UNSET
    if not isinstance(mesh, ServiceMesh):
        return MeshSettings()
    if mesh.type is UNSET and not document.has((*_PATH, "type")):
        document.report(findings, _PATH, "has no type; give one: istio or linkerd")
    kind = or_else(mesh.type, "")
    policy = or_else(mesh.traffic_policy, TrafficPolicy())
    breaker = or_else(policy.circuit_breaker, MeshBreaker())
    _check(kind, policy, breaker, document, findings)
    return MeshSettings(
        enabled=or_else(mesh.enabled, True),
        kind=kind,
        load_balancer=or_else(policy.load_balancer, ""),
        consecutive_errors=or_else(breaker.consecutive_errors, 0),
        interval=or_else(breaker.interval, 0.0),
        base_ejection_time=or_else(breaker.base_ejection_time, 0.0),
        max_ejection_percent=or_else(breaker.max_ejection_percent, 0),
    )


def _check(
    kind: str, policy: TrafficPolicy, breaker: MeshBreaker, document: Document, findings: Findings
) -> None:
    """Find what this mesh has no word for."""
    place = (*_PATH, "traffic_policy", "load_balancer")
    if kind == "istio" and policy.load_balancer == "peak_ewma":
        # https://istio.io/latest/docs/reference/config/networking/destination-rule/#LoadBalancerSettings-SimpleLB
        document.report(findings, place, "is not among Istio's; use least_request, which is nearest to it")
    if kind != "linkerd":
        return
    if policy.load_balancer not in (UNSET, "peak_ewma"):
        # https://linkerd.io/2-edge/features/load-balancing/
        problem = "cannot be chosen for Linkerd, which always balances by peak_ewma; remove it"
        document.report(findings, place, problem)
    for name in _NOT_OF_LINKERD:
        if getattr(breaker, name) is not UNSET:
            document.report(findings, (*_BREAKER, name), "means nothing for Linkerd; remove it")
