"""Instructions for each request: `python3 benchmarks/instructions.py [--check] [--write] [--only NAME ...]`.

Counted by valgrind (callgrind) for the functions that every request passes through and for whole exchanges in
memory. A count is the same on a busy machine, so that a regression shows where times would hide it. It says
nothing about the kernel's share, which is most of a proxied request, or about caches: `run.py` measures those.

`baseline-compiled.json` and `baseline-pure.json` hold the counts to compare with. `--check` fails when one is more
than 5 % above its own; under another Python than the baseline's it only prints, as counts differ between those.
`--write` makes the counts of this run the baseline of its kind.

Reading order: this, `counting`, `workloads`, `in_memory`, `baseline`.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from baseline import TOLERANCE, Baseline, compare, path_of, read, write
from counting import once
from peer_sidecar import find_package, interpreter, pure_copy
from peers import UnavailableError
from programs import find

HERE = Path(__file__).resolve().parent
LIMIT = 900.0  # seconds that one count of everything may take; half a minute is usual


def main() -> int:
    """Count; 0 when it was done and the check, if there is one, passed."""
    options = _options()
    before = None
    try:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            directory = Path(folder)
            python = interpreter()
            package = options.package or find_package(python)
            if options.pure:
                package = pure_copy(package, directory)
            kind, now = count(python, package, directory, options.only)
            if options.before:
                _, before = count(python, options.before, directory, options.only)
    except (RuntimeError, UnavailableError) as error:
        print(f"benchmarks/instructions.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    kept = read(path_of(kind))
    print(f"{kind}; " + ", ".join(f"{name} {value}" for name, value in now.environment.items()))
    print(table(now, {"baseline": kept, "before": before}))
    if options.json:
        data = {"kind": kind, "environment": now.environment, "instructions": now.instructions}
        options.json.write_text(json.dumps(data, indent=2) + "\n")
    if options.write:
        write(path_of(kind), now)
        print(f"written to benchmarks/{path_of(kind).name}")
    elif options.check:
        return judge(path_of(kind), kept, now)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", metavar="NAME", help="only this one; may be repeated")
    parser.add_argument("--check", action="store_true", help="fail when a count is above the baseline")
    parser.add_argument("--write", action="store_true", help="make these counts the baseline")
    parser.add_argument("--package", type=Path, metavar="DIR", help="the folder to import the sidecar from")
    parser.add_argument("--pure", action="store_true", help="without what is compiled")
    parser.add_argument("--before", type=Path, metavar="DIR", help="the sidecar of another folder beside it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts to FILE")
    options = parser.parse_args()
    if options.write and options.only:
        parser.error("--write keeps all counts or none: leave --only out")
    return options


def count(python: str, package: Path, directory: Path, only: list[str] | None = None) -> tuple[str, Baseline]:
    """The kind of build that is in the folder `package`, and what it takes. Raises `RuntimeError`."""
    valgrind = find("valgrind")
    if valgrind is None:
        raise RuntimeError("valgrind is not installed (Debian: apt-get install valgrind)")
    path = os.pathsep.join([str(package.resolve()), *filter(None, [os.environ.get("PYTHONPATH")])])
    # Hashes of strings decide where things lie in a dict, and so how long finding them takes.
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    out = directory / "counts"
    command = [valgrind, "--tool=callgrind", f"--callgrind-out-file={out}.%p", python]
    try:
        done = subprocess.run(
            [*command, str(HERE / "counting.py"), *(only or [])],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            timeout=LIMIT,
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"counting did not end within {LIMIT:g} s") from error
    if done.returncode:
        raise RuntimeError(f"counting failed: {done.stderr[-1000:].strip()}")
    kind, environ, *lines = done.stdout.splitlines()
    counts = {}
    for line in lines:
        name, *pids = line.split()
        first, second, third = (read_total(Path(f"{out}.{pid}").read_text()) for pid in pids)
        counts[name] = once((first, second, third))
    return kind, Baseline(json.loads(environ), counts)


def read_total(profile: str) -> int:
    """The instructions of a process, from what callgrind writes of it."""
    found = re.search(r"^(?:summary|totals): (\d+)", profile, re.MULTILINE)
    if not found:
        raise RuntimeError("callgrind wrote no total")
    return int(found[1])


def table(now: Baseline, others: dict[str, Baseline | None]) -> str:
    """A line for each workload; now relative to each of the others."""
    known = {name: other.instructions for name, other in others.items() if other}
    lines = [f"  {'':<20}{'instructions':>14}" + "".join(f"{'x ' + name:>13}" for name in known)]
    for name, instructions in now.instructions.items():
        ratios = [f"{instructions / other[name]:.3f}" if other.get(name) else "-" for other in known.values()]
        lines.append(f"  {name:<20}{instructions:>14,.0f}" + "".join(f"{ratio:>13}" for ratio in ratios))
    return "\n".join(lines)


def judge(path: Path, kept: Baseline | None, now: Baseline) -> int:
    """Say what the check found: 0 when it passed, or cannot tell under this Python."""
    if kept is None:
        print(f"check failed: there is no benchmarks/{path.name}; --write makes it")
        return 1
    found = compare(kept, now)
    if not found.comparable:
        said = ", ".join(f"{name} {value}" for name, value in kept.environment.items())
        print(f"not checked: the baseline is of {said}, and counts depend on that")
        return 0
    if found.lower:
        print(f"note: {', '.join(found.lower)}: lower than the baseline; --write keeps that")
    if found.unknown:
        print(f"check failed: {', '.join(found.unknown)}: not in the baseline; --write takes it in")
    if found.higher:
        print(f"check failed: {', '.join(found.higher)}: more than {TOLERANCE:.0%} above the baseline")
    if not found.failed:
        print("check passed")
    return 1 if found.failed else 0


if __name__ == "__main__":
    sys.exit(main())
