"""Runs workloads under valgrind: `counting.py [NAME ...]`, all or those named, in processes told apart by id.

Prepared and warmed up once, then forked three times, to do the workload a few times, many times, and a few times
again. A child's count holds everything its parent did before, which is the same for all of them, but for the forks
themselves: the mean of the first and the third has as many as the second. So (second - mean) / (many - few) is the
workload once, without start, imports, preparation or forks.
Prints `compiled` or `pure`, the environment as JSON, then `NAME PID PID PID` for each.
"""

import gc
import json
import os
import sys
from collections.abc import Callable

from baseline import environment

__all__ = ["FEW", "MANY", "once"]

WARM_UP = 300  # times; Python has then specialised its bytecode
FEW = 20
MANY = 220


def once(counts: tuple[int, int, int]) -> float:
    """Instructions of a workload once, from those of its three processes."""
    first, second, third = counts
    return (second - (first + third) / 2) / (MANY - FEW)


def main(names: list[str]) -> None:
    """Run these workloads."""
    from workloads import WORKLOADS  # noqa: PLC0415 - `once` must not need the sidecar

    # Chance has no place here: nothing is collected but by reference count.
    gc.disable()
    say(kind())
    say(json.dumps(environment()))
    for workload in WORKLOADS:
        if names and workload.name not in names:
            continue
        try:
            run = workload.prepare()
        except ImportError:  # a package from before there was such a thing
            continue
        run(WARM_UP)
        gc.collect()
        pids = [child(run, times) for times in (FEW, MANY, FEW)]
        say(" ".join([workload.name, *map(str, pids)]))


def child(run: Callable[[int], None], times: int) -> int:
    """Do it in a process of its own; the process id, once it has ended."""
    pid = os.fork()
    if pid == 0:
        run(times)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if status:
        raise RuntimeError(f"a workload's process ended with status {status}")
    return pid


def kind() -> str:
    """How the sidecar that was imported is built."""
    modules = [module for name, module in sys.modules.items() if name.startswith("sidecar.")]
    compiled = any((getattr(module, "__file__", None) or "").endswith(".so") for module in modules)
    return "compiled" if compiled else "pure"


def say(line: str) -> None:
    """Print before the next fork: what is buffered would be printed by a child again."""
    print(line, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
