"""What the machine, or the container, allows this process, beside what its configuration may come to use.

Read once, at the start and by `sidecar check`: each that is too small is a note with figures and what to do. Nothing
fails because of it: bounds are what may be used, and seldom is.
"""

from __future__ import annotations

import math
import resource
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, NamedTuple

from sidecar.proxy.listener import BACKLOG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sidecar.config.settings import Settings

__all__ = [
    "CHECK_DESCRIPTORS",
    "OWN_DESCRIPTORS",
    "HostLimits",
    "descriptors_note",
    "descriptors_wanted",
    "host_notes",
    "read_host_limits",
]

# For listeners, files, the event loop, two for each pipe, and `admin.server.MAX_CLIENTS` at each of the own servers.
OWN_DESCRIPTORS: Final = 512
CHECK_DESCRIPTORS: Final = 128  # `health.checker.MAX_RUNNING`, which is not loaded where nothing is checked

# Measured on CPython 3.11: 48 MiB of a process at rest, and 2 KiB of each client that has had an answer; as much again
# for the kernel's part of its socket. What is under way comes on top: 80 KiB for each slow reader at most.
AT_REST: Final = 48 * 1024 * 1024
A_CLIENT: Final = 4 * 1024

_UNLIMITED: Final = 1 << 60  # cgroup v1 says the highest number of pages there is, some 2**63 bytes
_MIB: Final = 1024 * 1024


class HostLimits(NamedTuple):
    """0 is no limit, or none that can be read.

    descriptors: the hard limit of this process. memory: bytes, of all processes together. cpus: cores' worth of time.
    backlog: connections that may wait at a listener.
    """

    descriptors: int = 0
    memory: int = 0
    cpus: float = 0.0
    backlog: int = 0


def read_host_limits(
    root: Path = Path("/"), limit: Callable[[int], tuple[int, int]] = resource.getrlimit
) -> HostLimits:
    """The limits of this process. root: where /proc and /sys are.

    Of control groups the lowest limit counts of the group and those around it, version 2 (`memory.max`, `cpu.max`:
    https://docs.kernel.org/admin-guide/cgroup-v2.html) or 1 (`memory.limit_in_bytes`, `cpu.cfs_quota_us`:
    https://docs.kernel.org/admin-guide/cgroup-v1/memory.html, https://docs.kernel.org/scheduler/sched-bwc.html).
    """
    hard = limit(resource.RLIMIT_NOFILE)[1]
    memory = [
        *_numbers(root, "", "memory.max"),
        *_numbers(root, "memory", "memory.limit_in_bytes"),
    ]
    return HostLimits(
        descriptors=0 if hard == resource.RLIM_INFINITY else hard,
        memory=min((size for size in memory if 0 < size < _UNLIMITED), default=0),
        cpus=min(_cpus(root), default=0.0),
        backlog=next(iter(_number(_read(root / "proc/sys/net/core/somaxconn"))), 0),
    )


def descriptors_wanted(settings: Settings) -> int:
    """How many descriptors the bounds of one process add up to."""
    served = [upstream for upstream in settings.upstreams if not upstream.routes]
    connections = sum(upstream.policy.limits.connections for upstream in served)
    checks = CHECK_DESCRIPTORS if any(upstream.health.active for upstream in settings.upstreams) else 0
    return settings.sidecar.max_clients + connections + checks + OWN_DESCRIPTORS


def descriptors_note(wanted: int, allowed: int) -> str:
    """Why requests may be refused for want of a descriptor."""
    return (
        f"the bounds on connections add up to {wanted} open files, and the system allows {allowed}: raise the hard "
        "limit (`ulimit -Hn`, LimitNOFILE= of the unit, --ulimit nofile= of the container), or lower "
        "sidecar.max_clients and limits.connections"
    )


def host_notes(settings: Settings, limits: HostLimits) -> Iterator[str]:
    """A sentence for each limit that is below what the configuration may use, but for that of descriptors."""
    own = settings.sidecar
    buffers = own.access_log.buffer if own.access_log.file else 0
    needed = own.workers * (AT_REST + own.max_clients * A_CLIENT + buffers)
    if 0 < limits.memory < needed:
        yield (
            f"the control group allows {limits.memory // _MIB} MiB of memory, and {own.workers * own.max_clients} idle "
            f"clients (sidecar.max_clients{' of each worker' if own.workers > 1 else ''}) alone take some "
            f"{math.ceil(needed / _MIB)} MiB: raise the limit, or lower sidecar.max_clients"
        )
    if own.workers > 1 and 0 < limits.cpus < own.workers:
        fitting = max(1, math.floor(limits.cpus))
        yield (
            f"the control group allows {limits.cpus:g} cores, which {own.workers} workers use up together and then "
            f"stand still: set sidecar.workers to {fitting}, or raise the limit"
        )
    if 0 < limits.backlog < BACKLOG:
        yield (
            f"net.core.somaxconn lets {limits.backlog} connections wait at a port, of the {BACKLOG} asked for: in a "
            f"burst others are not heard; raise it with `sysctl -w net.core.somaxconn={BACKLOG}`"
        )


def _cpus(root: Path) -> Iterator[float]:
    for place in _places(root, ""):
        quota, _, period = _read(place / "cpu.max").partition(" ")
        yield from _share(quota, period)
    for place in _places(root, "cpu"):
        yield from _share(_read(place / "cpu.cfs_quota_us"), _read(place / "cpu.cfs_period_us"))


def _share(quota: str, period: str) -> Iterator[float]:
    """Cores of a quota of microseconds in a period; nothing for `max`, and for -1."""
    for one in _number(quota):
        for whole in _number(period):
            if one > 0 and whole > 0:
                yield one / whole


def _numbers(root: Path, controller: str, name: str) -> Iterator[int]:
    for place in _places(root, controller):
        yield from _number(_read(place / name))


def _places(root: Path, controller: str) -> Iterator[Path]:
    """Where the process's group is, then those around it. controller: of version 1, empty for 2.

    In a container they may be the host's names, which are not there: its own group is the outermost then.
    https://man7.org/linux/man-pages/man7/cgroups.7.html, "/proc/pid/cgroup"
    """
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller in controllers.split(","):
            group = PurePosixPath(path.lstrip("/"))
            for one in (group, *group.parents):
                yield root / "sys/fs/cgroup" / controller / one
            return


def _number(text: str) -> Iterator[int]:
    """The number that the text is; nothing for other text."""
    if text.isascii() and text.isdigit() and len(text) < 20:
        yield int(text)


def _read(path: Path) -> str:
    """What a small file says; empty where it cannot be read."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except (OSError, ValueError):
        return ""
