"""The sidecar as a container of a pod: a native sidecar, which starts before the application and ends after it.

https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/ (on by default from Kubernetes 1.29 on)
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from sidecar.config.addresses import is_loopback

if TYPE_CHECKING:
    from sidecar.config.settings import Settings

__all__ = [
    "CONFIGURATION",
    "STATE",
    "USER",
    "asked_from_outside",
    "grace_period",
    "pod_security",
    "sidecar_container",
]

USER: Final = 10001  # of the image; above the ids that a distribution gives out
CONFIGURATION: Final = "/etc/sidecar"
STATE: Final = "/var/lib/sidecar"  # the one place that is written to
METRICS_PORT: Final = 9902  # where commands look without a word
STARTING: Final = (
    30  # seconds for a start, beside those that registries have: an image's first one reads from a cold disk
)
AFTER_DRAIN: Final = (
    10  # seconds from the end of `drain_timeout` to SIGKILL: withdrawals of registries, and closing
)


def sidecar_container(settings: Settings, image: str, *, keeps: bool) -> dict[str, Any]:
    """keeps: there are last good snapshots to be written."""
    container: dict[str, Any] = {
        "name": "sidecar",
        "image": image,
        "restartPolicy": "Always",
        "args": ["run", "--config", f"{CONFIGURATION}/sidecar.yml"],
    }
    if keeps:
        # As systemd says it: `last_good` is there where no key says otherwise.
        container["env"] = [{"name": "STATE_DIRECTORY", "value": STATE}]
    if asked_from_outside(settings):
        container["ports"] = [{"name": "metrics", "containerPort": settings.sidecar.metrics.port}]
    mounts: list[dict[str, Any]] = [{"name": "configuration", "mountPath": CONFIGURATION, "readOnly": True}]
    if keeps:
        mounts.append({"name": "state", "mountPath": STATE})
    return {
        **container,
        **_probes(settings),
        # What it needs at rest; without a limit of CPU, which would hold up every request of the application.
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": mounts,
    }


def asked_from_outside(settings: Settings) -> bool:
    """Whether the kubelet and Prometheus reach `sidecar.metrics`."""
    return not is_loopback(settings.sidecar.metrics.host)


def grace_period(settings: Settings) -> int:
    """Seconds from SIGTERM to SIGKILL."""
    return math.ceil(settings.sidecar.drain_timeout) + AFTER_DRAIN


def pod_security(settings: Settings) -> dict[str, Any]:
    """What the pod needs so that its user may listen on ports below 1024; nothing where there are none.

    The sysctl is one of those that are safe: https://kubernetes.io/docs/tasks/administer-cluster/sysctl-cluster/
    """
    low = [one.listen_port for one in settings.upstreams if one.listen_port and one.listen_port < 1024]
    if not low:
        return {}
    return {"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": str(min(low))}]}


def _probes(settings: Settings) -> dict[str, Any]:
    metrics = settings.sidecar.metrics
    place = [] if metrics.port == METRICS_PORT else ["--metrics", f"127.0.0.1:{metrics.port}"]
    found: dict[str, Any] = {
        # The application starts when this has succeeded. Each try waits for a second by itself.
        "startupProbe": {
            "exec": {"command": ["sidecar", "wait", "--timeout", "1", *place]},
            "periodSeconds": 1,
            "timeoutSeconds": 5,
            "failureThreshold": STARTING + math.ceil(settings.sidecar.registry_wait),
        }
    }
    if asked_from_outside(settings):
        found["readinessProbe"] = {"httpGet": {"path": "/ready", "port": "metrics"}, "periodSeconds": 5}
        found["livenessProbe"] = {
            "httpGet": {"path": "/live", "port": "metrics"},
            "periodSeconds": 10,
            "failureThreshold": 6,
        }
    else:
        command = ["sidecar", "status", "--ready", *place]
        found["readinessProbe"] = {"exec": {"command": command}, "periodSeconds": 10, "timeoutSeconds": 5}
    return found
