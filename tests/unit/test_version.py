"""Which build it is, as `sidecar --version`, the start and /metrics say it."""

import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
from support.proxy import clean_environment

from sidecar import version
from sidecar.http1 import scan
from sidecar.version import build_name, is_compiled


def test_it_is_what_is_imported() -> None:
    assert is_compiled() == scan.__file__.endswith(tuple(EXTENSION_SUFFIXES))


@pytest.mark.parametrize("compiled", [False, True])
def test_it_has_a_name(compiled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version, "__file__", str(tmp_path / "version.py"))
    (tmp_path / "http1").mkdir()
    (
        tmp_path / "http1" / "scan.cpython-27-elsewhere.so"
    ).touch()  # another Python's, which this one does not load
    if compiled:
        (tmp_path / "http1" / f"scan{EXTENSION_SUFFIXES[0]}").touch()
    assert is_compiled() == compiled
    assert build_name() == ("compiled" if compiled else "pure Python")


def test_to_say_it_the_data_path_is_not_loaded(tmp_path: Path) -> None:
    code = (
        "import atexit, sys, sidecar.cli\n"
        "atexit.register(lambda: print(*(name for name in sys.modules if name.startswith('sidecar'))))\n"
        "sidecar.cli.run(['--version'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    said, _, loaded = done.stdout.partition("\n")
    assert said == f"sidecar {version.__version__} ({build_name()})", done.stderr
    assert set(loaded.split()) == {
        "sidecar",
        "sidecar.cli",
        "sidecar.errors",
        "sidecar.options",
        "sidecar.version",
    }
