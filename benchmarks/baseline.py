"""Counts that were kept, and what differs from them now."""

import json
import platform
import sysconfig
from dataclasses import dataclass
from pathlib import Path

__all__ = ["TOLERANCE", "Baseline", "Comparison", "compare", "environment", "path_of", "read", "write"]

TOLERANCE = (
    0.05  # of a count: more is a regression. Counts repeat to 0.1 %, so this leaves room for small features
)


@dataclass(frozen=True, slots=True)
class Baseline:
    """environment: what the counts depend on besides the code. instructions: by workload."""

    environment: dict[str, str]
    instructions: dict[str, float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """higher, lower: workloads beyond the tolerance. unknown: those without a count in the baseline.

    comparable: whether both counts are from the same kind of Python; where they are not, a difference says nothing.
    """

    comparable: bool
    higher: list[str]
    lower: list[str]
    unknown: list[str]

    @property
    def failed(self) -> bool:
        """Whether there is a regression."""
        return self.comparable and bool(self.higher or self.unknown)


def environment() -> dict[str, str]:
    """This Python: instructions depend on its version, on what built it, and how."""
    optimised = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
    return {
        "python": platform.python_version(),
        "compiler": platform.python_compiler(),
        "optimised": "yes" if optimised else "no",
        "architecture": platform.machine(),
        "libc": " ".join(platform.libc_ver()),
    }


def path_of(kind: str) -> Path:
    """The file of a kind of build, `compiled` or `pure`."""
    return Path(__file__).resolve().parent / f"baseline-{kind}.json"


def read(path: Path) -> Baseline | None:
    """None where there is none yet."""
    if not path.exists():
        return None
    data = json.loads(path.read_text())
    return Baseline(data["environment"], data["instructions"])


def write(path: Path, baseline: Baseline) -> None:
    """Keep it."""
    counts = {name: round(count) for name, count in baseline.instructions.items()}
    data = {"environment": baseline.environment, "instructions": counts}
    path.write_text(json.dumps(data, indent=2) + "\n")


def compare(baseline: Baseline, now: Baseline) -> Comparison:
    """What of `now` is beyond the tolerance."""
    known = {name: count for name, count in now.instructions.items() if name in baseline.instructions}
    ratios = {name: count / baseline.instructions[name] for name, count in known.items()}
    return Comparison(
        comparable=baseline.environment == now.environment,
        higher=[name for name, ratio in ratios.items() if ratio > 1 + TOLERANCE],
        lower=[name for name, ratio in ratios.items() if ratio < 1 - TOLERANCE],
        unknown=[name for name in now.instructions if name not in known],
    )
