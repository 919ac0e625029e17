"""The image is built and run without a container engine: `tests/image.py` looks into everything that it promises."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.requirements import lacking

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.server("buildah", "debootstrap")
@pytest.mark.timeout(
    1200
)  # three minutes of an idle machine, most of it the compiler and a Debian from its packages
def test_the_image_is_built_and_run() -> None:
    if os.geteuid() != 0:
        lacking("only root makes a Debian of its packages")
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "image.py"],
        capture_output=True,
        text=True,
        check=False,
        timeout=1140,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = [line.removeprefix("tests/image.py: ") for line in done.stdout.splitlines()]
    assert said[-1] == "the image is as it should be", done.stdout
    for user in ("10001:10001, without a place to write", "1000730000:0, with a place to write"):
        assert f"running as {user}" in said
    assert sum(line.startswith("the health check succeeds") for line in said) == 2
    assert sum(line.startswith("SIGTERM to process 1 ends it with 0") for line in said) == 2
