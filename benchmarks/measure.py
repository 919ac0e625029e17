"""What a proxy costs, as the kernel counts it: CPU time and memory of its process and of its workers (proc(5))."""

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Memory", "cpu_seconds", "memory", "pin", "split_cpus"]

TICKS = os.sysconf("SC_CLK_TCK")  # a second; CPU times are counted in these, so a turn needs many of them


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes. resident counts shared pages wholly, proportional (None where unreadable) divides them by users."""

    resident: int
    proportional: int | None


def tree(pid: int) -> list[int]:
    """The process and all its descendants."""
    found = [pid]
    for parent in found:
        for listing in Path(f"/proc/{parent}/task").glob("*/children"):
            found.extend(int(child) for child in listing.read_text().split())
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of the process and its descendants so far."""
    ticks = 0
    for member in tree(pid):
        # The name in parentheses may hold spaces, so count from behind it: utime and stime are fields 14 and 15.
        fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS


def memory(pid: int) -> Memory:
    """Memory of the process and its descendants now."""
    resident, proportional = 0, 0
    readable = True
    for member in tree(pid):
        resident += _kibibytes(Path(f"/proc/{member}/status"), "VmRSS:")
        try:
            proportional += _kibibytes(Path(f"/proc/{member}/smaps_rollup"), "Pss:")
        except OSError:
            readable = False
    return Memory(resident, proportional if readable else None)


def _kibibytes(path: Path, key: str) -> int:
    for line in path.read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    return 0


def split_cpus() -> tuple[set[int], set[int]]:
    """CPUs for the proxies and for everything else: apart where there are two or more, so that neither moves."""
    allowed = sorted(os.sched_getaffinity(0))
    return ({allowed[0]}, set(allowed[1:])) if len(allowed) > 1 else (set(allowed), set(allowed))


def pin(pid: int, cpus: set[int]) -> None:
    """Let every thread of the process run on these CPUs only; what it starts later inherits that."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), cpus)
