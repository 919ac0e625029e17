"""Counting instructions: the arithmetic, the baseline, and that everything that is counted does its work."""

from pathlib import Path

import pytest
from baseline import Baseline, compare, read, write
from counting import FEW, MANY, once
from instructions import judge, read_total, table
from workloads import WORKLOADS, Workload

HERE = {"python": "3.12.1", "architecture": "x86_64"}
KEPT = Baseline(HERE, {"pick": 100.0, "exchange": 10_000.0})


def _now(environment: dict[str, str] = HERE, **counts: float) -> Baseline:
    return Baseline(environment, counts)


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_every_workload_can_be_repeated(workload: Workload) -> None:
    run = workload.prepare()
    run(2)
    run(3)


def test_what_is_the_same_before_and_after_is_not_counted() -> None:
    before, fork, each = 1_000_000, 17_000, 250
    counts = [before + number * fork + times * each for number, times in enumerate((FEW, MANY, FEW))]
    assert once((counts[0], counts[1], counts[2])) == each


def test_callgrind_tells_the_total() -> None:
    assert read_total("events: Ir\nsummary: 123456\n\nfn=(1)\n0 5\ntotals: 123456\n") == 123456
    with pytest.raises(RuntimeError, match="no total"):
        read_total("")


def test_counts_within_the_tolerance_pass(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert judge(tmp_path, KEPT, _now(pick=104.9, exchange=9600.0)) == 0
    assert capsys.readouterr().out == "check passed\n"


def test_a_count_above_the_tolerance_fails(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert judge(tmp_path, KEPT, _now(pick=105.1, exchange=9000.0)) == 1
    told = capsys.readouterr().out
    assert "exchange: lower than the baseline" in told
    assert "check failed: pick: more than 5% above" in told


def test_another_python_is_not_compared(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert judge(tmp_path, KEPT, _now({**HERE, "python": "3.13.0"}, pick=200.0)) == 0
    assert "not checked: the baseline is of python 3.12.1, architecture x86_64" in capsys.readouterr().out


def test_what_is_not_in_the_baseline_fails(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert judge(tmp_path, KEPT, _now(pick=100.0, session=5.0)) == 1
    assert judge(tmp_path / "baseline-compiled.json", None, _now(pick=100.0)) == 1
    told = capsys.readouterr().out
    assert "session: not in the baseline" in told
    assert "no benchmarks/baseline-compiled.json" in told


def test_a_part_can_be_compared() -> None:
    found = compare(KEPT, _now(pick=100.0))
    assert (found.failed, found.higher, found.lower, found.unknown) == (False, [], [], [])


def test_a_baseline_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "baseline.json"
    assert read(file) is None
    write(file, _now(pick=100.4))
    assert read(file) == _now(pick=100)


def test_the_table_has_a_column_for_each_that_is_compared() -> None:
    lines = table(_now(pick=90.0, session=5.0), {"baseline": KEPT, "before": None}).splitlines()
    assert " ".join(lines[0].split()) == "instructions x baseline"
    assert lines[1].split() == ["pick", "90", "0.900"]
    assert lines[2].split() == ["session", "5", "-"]


@pytest.mark.parametrize("kind", ["compiled", "pure"])
def test_the_kept_baselines_have_every_workload(kind: str) -> None:
    kept = read(Path(__file__).resolve().parents[3] / "benchmarks" / f"baseline-{kind}.json")
    assert kept is not None
    assert list(kept.instructions) == [workload.name for workload in WORKLOADS]
