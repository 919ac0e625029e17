"""The sidecar as a container of a pod: a native sidecar, which starts before the application and ends after it.

https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/ (on by default from Kubernetes 1.29 on)
"""

from __future__ import annotations

import math
from ipaddress import ip_address
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

from sidecar.config.addresses import is_address, is_loopback
from sidecar.config.settings import STDOUT, Address
from sidecar.errors import ExportError
from sidecar.export.values import listed
from sidecar.net.unix import is_unix

if TYPE_CHECKING:
    from sidecar.config.settings import Settings

__all__ = [
    "CONFIGURATION",
    "STATE",
    "USER",
    "about_mode",
    "about_volumes",
    "arguments",
    "asked_from_outside",
    "grace_period",
    "keeps_state",
    "metrics_place",
    "pod_security",
    "sidecar_container",
    "state_directory",
]

USER: Final = 10001  # of the image; above the ids that a distribution gives out
CONFIGURATION: Final = "/etc/sidecar"
STATE: Final = "/var/lib/sidecar"  # the one place that is written to
ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"  # where the account's token is in every pod
MODE_VARIABLE: Final = "AUTOBOT_DEPLOYMENT_MODE"
METRICS: Final = "127.0.0.1:9902"  # where commands look without a word
STARTING: Final = (
    30  # seconds for a start, beside those that registries have: an image's first one reads from a cold disk
)
AFTER_DRAIN: Final = (
    10  # seconds from the end of `drain_timeout` to SIGKILL: withdrawals of registries, and closing
)


def sidecar_container(settings: Settings, image: str, *, token: bool) -> dict[str, Any]:
    """token: a registry is asked by the pod's own account."""
    workers = settings.sidecar.workers
    container: dict[str, Any] = {
        "name": "sidecar",
        "image": image,
        "restartPolicy": "Always",
        "args": arguments(settings),
    }
    environment = state_directory(settings)
    if environment:
        container["env"] = [{"name": name, "value": value} for name, value in environment.items()]
    if asked_from_outside(settings):
        container["ports"] = [{"name": "metrics", "containerPort": settings.sidecar.metrics.port}]
    mounts: list[dict[str, Any]] = [{"name": "configuration", "mountPath": CONFIGURATION, "readOnly": True}]
    if keeps_state(settings):
        mounts.append({"name": "state", "mountPath": STATE})
    if token:
        mounts.append({"name": "token", "mountPath": ACCOUNT, "readOnly": True})
    return {
        **container,
        **_probes(settings),
        # What each worker needs at rest; without a limit of CPU, which would hold up every request of the application.
        "resources": {
            "requests": {"cpu": "50m", "memory": f"{64 * workers}Mi"},
            "limits": {"memory": f"{256 * workers}Mi"},
        },
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


def arguments(settings: Settings) -> list[str]:
    """Of the command: with the file's mounted copy, and in the mode that was asked for here."""
    found = ["run", "--config", f"{CONFIGURATION}/sidecar.yml"]
    if settings.mode_reason in ("the mode flag", MODE_VARIABLE):
        found += ["--mode", settings.mode.value]
    return found


def about_mode(settings: Settings) -> list[str]:
    """A sentence about a mode that nobody may have meant for where this will run."""
    if settings.mode_reason != MODE_VARIABLE:
        return []
    return [f"The mode is {settings.mode.value}, as {MODE_VARIABLE} said where this was made."]


def keeps_state(settings: Settings) -> bool:
    """Whether there are last good snapshots, and STATE is where they go."""
    file = settings.sidecar.last_good.file
    if file:
        return PurePath(file).is_relative_to(STATE)
    return any(not one.source.is_static for one in settings.upstreams)


def state_directory(settings: Settings) -> dict[str, str]:
    """As systemd says it: `last_good` is there where no key says otherwise."""
    return {"STATE_DIRECTORY": STATE} if keeps_state(settings) and not settings.sidecar.last_good.file else {}


def about_volumes(settings: Settings, application: str) -> list[str]:
    """A sentence about files beyond STATE that are written, and sockets: a read-only root has no place for them."""
    sidecar = settings.sidecar
    found = [] if keeps_state(settings) else [sidecar.last_good.file]
    found.append("" if sidecar.access_log.file == STDOUT else sidecar.access_log.file)
    for upstream in settings.upstreams:
        found.append(upstream.listener.socket)
        found += [str(one).partition(":")[2] for one in upstream.endpoints if is_unix(one.host)]
    places = [name for name in dict.fromkeys(found) if name and not name.startswith("@")]
    if not places:
        return []
    return [
        (
            f"The root is read-only: mount a volume, which user {USER} may write to, for {listed(places)}; that of a "
            f"socket in {application} too, whose user the socket's mode has to let in."
        )
    ]


def metrics_place(settings: Settings) -> str:
    """Where a command beside the sidecar finds `sidecar.metrics`. Raises ExportError where nobody knows it."""
    host, port = settings.sidecar.metrics.host, settings.sidecar.metrics.port
    if not port:
        raise ExportError(
            f"{settings.origin}: sidecar.metrics has port 0, another one at every start, and probes ask there; "
            "name a port"
        )
    if is_address(host) and ip_address(host).is_unspecified:
        host = "::1" if ":" in host else "127.0.0.1"  # who listens at `::` does not hear IPv4
    return str(Address(host, port))


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
    ports = [one.listen_port or 0 for one in settings.upstreams]
    ports += [settings.sidecar.admin.port, settings.sidecar.metrics.port]
    low = [port for port in ports if 0 < port < 1024]
    if not low:
        return {}
    return {"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": str(min(low))}]}


def _probes(settings: Settings) -> dict[str, Any]:
    where = metrics_place(settings)
    place = [] if where == METRICS else ["--metrics", where]
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
        found["readinessProbe"] = {
            "httpGet": {"path": "/ready", "port": "metrics"},
            "periodSeconds": 5,
            "timeoutSeconds": 2,
        }
        found["livenessProbe"] = {
            "httpGet": {"path": "/live", "port": "metrics"},
            "periodSeconds": 10,
            "timeoutSeconds": 2,
            "failureThreshold": 6,
        }
    else:
        command = ["sidecar", "status", "--ready", *place]
        found["readinessProbe"] = {"exec": {"command": command}, "periodSeconds": 10, "timeoutSeconds": 5}
    return found
