"""Where the figures come from: what of the machine and its programs they depend on, and nothing that names it."""

import os
import platform
import re
from pathlib import Path
from typing import Any

from own_network import congestion_control
from peers import told_version
from programs import find

__all__ = ["describe", "words"]

# What is measured with, and the option that makes each tell its version.
TOOLS = {"wrk": "-v", "redis-benchmark": "--version", "redis-server": "--version", "nginx": "-v"}


def describe(proxies: set[int], others: set[int]) -> dict[str, Any]:
    """Processor, kernel, memory, Python and the versions of origins and load generators."""
    return {
        "processor": _processor(),
        "architecture": platform.machine(),
        "cpus": os.cpu_count(),
        "memory_mib": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 1024**2,
        "kernel": _number(platform.release()),
        "congestion_control": congestion_control(),
        "python": platform.python_version(),
        "proxy_cpus": sorted(proxies),
        "other_cpus": sorted(others),
        "tools": {
            name: told_version([path, option]) for name, option in TOOLS.items() if (path := find(name))
        },
    }


def words(machine: dict[str, Any]) -> str:
    """A line of what `describe` found."""
    system = f"Linux {machine['kernel']} ({machine['congestion_control']}), Python {machine['python']}"
    return f"{machine['processor']}, {machine['cpus']} CPUs, {system}"


def _number(release: str) -> str:
    """Of a kernel's release the number alone: what follows may name whose build it is."""
    found = re.match(r"\d+(\.\d+)*", release)
    return found.group() if found else release


def _processor() -> str:
    """The first processor's name as the kernel tells it."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return "unknown"
    found = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return found[1] if found else "unknown"
