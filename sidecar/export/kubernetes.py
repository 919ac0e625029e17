"""An application with the sidecar in its pod, as manifests for `kubectl apply`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

from sidecar.errors import ExportError
from sidecar.export.documents import Document
from sidecar.export.pod import (
    CONFIGURATION,
    about_mode,
    about_volumes,
    asked_from_outside,
    grace_period,
    keeps_state,
    pod_security,
    sidecar_container,
)
from sidecar.export.values import listed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sidecar.config.settings import RegistrySettings, Settings

__all__ = ["Workload", "kubernetes_documents", "named_files"]

# https://kubernetes.io/docs/concepts/configuration/configmap/: "cannot exceed 1 MiB"; the rest of the object is small.
MAX_TEXT: Final = 1024 * 1024 - 4096

_NATIVE: Final = (
    "restartPolicy makes the init container a native sidecar (Kubernetes 1.29 or newer): it is ready before the "
    "application starts, and drains after it has ended."
)
_ABOUT: Final = (
    "Made of {origin} by `sidecar export kubernetes`. A change of the ConfigMap is followed by running sidecars, "
    "without a restart."
)


@dataclass(frozen=True, slots=True)
class Workload:
    """name, namespace: of what is made; an empty namespace is whichever kubectl is told. images: by name."""

    name: str
    namespace: str
    image: str
    application: str
    pod_monitor: bool = False


def kubernetes_documents(settings: Settings, text: str, workload: Workload) -> Iterator[Document]:
    """text: of the configuration file. Raises ExportError where it cannot be said."""
    if len(text.encode()) > MAX_TEXT:
        raise ExportError(
            f"{settings.origin}: is larger than a ConfigMap may be (1 MiB); split it over several sidecars"
        )
    if workload.pod_monitor and not asked_from_outside(settings):
        raise ExportError(
            f"Prometheus does not reach sidecar.metrics at {settings.sidecar.metrics}; "
            f"write for example `metrics: 0.0.0.0:{settings.sidecar.metrics.port}`, or leave --pod-monitor out"
        )
    asked = _asked_in_pod(settings)
    yield Document(_config_map(text, workload), _about(settings))
    if asked:
        yield from _access(asked, workload)
    yield Document(
        _deployment(settings, workload, account=bool(asked)),
        (
            "The application: its image, ports, probes and resources are placeholders.",
            _NATIVE,
        ),
    )
    if workload.pod_monitor:
        yield Document(
            _pod_monitor(workload), ("For the Prometheus Operator. The alerts ask for the job of this name.",)
        )


def named_files(settings: Settings) -> list[str]:
    """Files beside the configuration that it names and reads, in order; those in its folder by their names there."""
    found = []
    for one in settings.registries:
        tls = one.tls
        found += [tls.ca, tls.cert, tls.key, one.token_file, one.password_file, one.kubeconfig, one.path]
    for upstream in settings.upstreams:
        policy, door = upstream.policy, upstream.listener.tls
        found += [policy.tls.ca, policy.tls.cert, policy.tls.key, policy.headers.bearer_file]
        found += [door.cert, door.key, door.client_ca, upstream.health.password_file]
    found += [one.check.password_file for one in settings.registrations]
    found += [settings.sidecar.admin_token_file, settings.sidecar.tracing.token_file]
    folder = PurePath(settings.origin).parent
    names = [PurePath(name) for name in dict.fromkeys(found) if name]
    return [str(name.relative_to(folder) if name.is_relative_to(folder) else name) for name in names]


def _about(settings: Settings) -> tuple[str, ...]:
    metrics = settings.sidecar.metrics
    notes = [_ABOUT.format(origin=settings.origin)]
    if not asked_from_outside(settings):
        notes.append(
            f"Nobody outside of the pod reaches sidecar.metrics at {metrics}: the kubelet asks by commands, and "
            f"Prometheus not at all. With `metrics: 0.0.0.0:{metrics.port}` both ask it."
        )
    files = named_files(settings)
    if files:
        notes.append(
            f"The configuration names {listed(files)}: mount what is a secret from a Secret; a relative name is one in "
            f"{CONFIGURATION}."
        )
    notes += about_mode(settings)
    notes += about_volumes(settings, "the application's container")
    if settings.overrides:
        notes.append(
            f"Not in here: what {listed(settings.overrides)} said where this was made; the sidecar's container needs "
            "it in its env."
        )
    return tuple(notes)


def _asked_in_pod(settings: Settings) -> list[tuple[RegistrySettings, str]]:
    """Registries that are asked by the pod's own account, and the namespace; empty for the pod's."""
    found: list[tuple[RegistrySettings, str]] = []
    for one in settings.registries:
        if one.kind != "kubernetes" or one.hosts or one.kubeconfig:
            continue
        for upstream in settings.upstreams:
            source = upstream.source
            if one.name in source.use:
                named = source.namespace or (source.service or upstream.name).partition(".")[2]
                found.append((one, named or one.namespace))
    return found


def _config_map(text: str, workload: Workload) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(workload, f"{workload.name}-sidecar"),
        "data": {"sidecar.yml": text},
    }


def _access(asked: list[tuple[RegistrySettings, str]], workload: Workload) -> Iterator[Document]:
    """An account that may list and watch EndpointSlices, and nothing else, where they are asked for."""
    name = f"{workload.name}-sidecar"
    yield Document(
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": _metadata(workload, name),
            "automountServiceAccountToken": False,
        },
        (
            "The sidecar alone is given its token. Replace it where the application has an account of its own.",
        ),
    )
    for namespace in dict.fromkeys(namespace or workload.namespace for _, namespace in asked):
        metadata = _metadata(workload, name)
        if namespace:
            metadata["namespace"] = namespace
        yield Document(
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "Role",
                "metadata": metadata,
                "rules": [
                    {
                        "apiGroups": ["discovery.k8s.io"],
                        "resources": ["endpointslices"],
                        "verbs": ["list", "watch"],
                    }
                ],
            }
        )
        yield Document(
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": metadata,
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
                # kubectl puts its own namespace into metadata, and never into a subject.
                "subjects": [
                    {"kind": "ServiceAccount", "name": name, "namespace": workload.namespace or "default"}
                ],
            },
            ()
            if workload.namespace
            else ("The account's namespace has to be named: --namespace says another.",),
        )


def _deployment(settings: Settings, workload: Workload, *, account: bool) -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": workload.name}
    security = pod_security(settings)
    pod: dict[str, Any] = {
        "enableServiceLinks": False,  # variables such as REDIS_PORT=tcp://10.0.0.1:6379 are for nobody here
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": grace_period(settings),
    }
    if account:
        pod["serviceAccountName"] = f"{workload.name}-sidecar"
    if security:
        pod["securityContext"] = security
    volumes: list[dict[str, Any]] = [
        {"name": "configuration", "configMap": {"name": f"{workload.name}-sidecar"}}
    ]
    if keeps_state(settings):
        volumes.append({"name": "state", "emptyDir": {"sizeLimit": "64Mi"}})
    if account:
        volumes.append(_token())
    pod["initContainers"] = [sidecar_container(settings, workload.image, token=account)]
    pod["containers"] = [{"name": "application", "image": workload.application}]
    pod["volumes"] = volumes
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(workload, workload.name),
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def _token() -> dict[str, Any]:
    """What `automountServiceAccountToken` would give every container of the pod."""
    return {
        "name": "token",
        "projected": {
            "sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {
                    "downwardAPI": {
                        "items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]
                    }
                },
            ]
        },
    }


def _pod_monitor(workload: Workload) -> dict[str, Any]:
    """https://prometheus-operator.dev/docs/api-reference/api/#monitoring.coreos.com/v1.PodMonitor"""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": _metadata(workload, f"{workload.name}-sidecar"),
        "spec": {
            "selector": {"matchLabels": {"app.kubernetes.io/name": workload.name}},
            "podMetricsEndpoints": [
                {
                    "port": "metrics",
                    "path": "/metrics",
                    "relabelings": [{"targetLabel": "job", "replacement": "sidecar"}],
                }
            ],
        },
    }


def _metadata(workload: Workload, name: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name}
    if workload.namespace:
        metadata["namespace"] = workload.namespace
    return {**metadata, "labels": {"app.kubernetes.io/name": workload.name}}
