"""What a run of the benchmarks refuses before it has measured for ten minutes."""

import subprocess
import sys
from pathlib import Path

import pytest
from programs import Programs

RUN = Path(__file__).resolve().parents[3] / "benchmarks" / "run.py"


@pytest.mark.parametrize("option", ["--json", "--picture"])
def test_a_folder_that_is_not_there_is_told_first(option: str) -> None:
    done = subprocess.run(
        [sys.executable, RUN, option, "/nonexistent/file"],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2
    assert f"{option}: there is no folder /nonexistent" in done.stderr
    assert not done.stdout


def test_a_congestion_control_that_there_is_not_is_told_first() -> None:
    """Or that only root may have another network."""
    done = subprocess.run(
        [sys.executable, RUN, "--congestion", "no-such"],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("benchmarks/run.py: --congestion no-such: [Errno ")
    assert len(done.stderr.splitlines()) == 1
    assert not done.stdout


def test_a_program_that_cannot_be_started_is_told_by_name(tmp_path: Path) -> None:
    with (
        Programs(tmp_path) as programs,
        pytest.raises(RuntimeError, match=r"proxy cannot be started: .*PATH"),
    ):
        programs.start("proxy", ["no-such-program"], [], set())
