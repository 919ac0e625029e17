"""Built as pip builds it, with and without a C compiler, for each SIDECAR_EXT.

That the compiled wheel works is not said here: tests/run.py builds it and runs every test over it.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from support.proxy import ROOT

# As setuptools' own back end is called by pip. argv: the hook, and the folder that the result goes to.
BACKEND = """
import sys
from setuptools import build_meta
print("built", getattr(build_meta, sys.argv[1])(sys.argv[2]))
"""
NO_COMPILER = {"CC": "/nonexistent/cc"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the checkout's package, to build in."""
    copy = tmp_path / "source"
    unwanted = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(ROOT / "sidecar", copy / "sidecar", ignore=unwanted)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    return copy


def build(
    source: Path, environ: Mapping[str, str], hook: str = "build_wheel"
) -> subprocess.CompletedProcess[str]:
    """Call one hook of the back end; what it makes is in `source`/dist."""
    (source / "dist").mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-P", "-c", BACKEND, hook, "dist"],
        cwd=source,
        env={"PATH": os.environ["PATH"], **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def built(source: Path, environ: Mapping[str, str], hook: str = "build_wheel") -> Path:
    """The file that the hook has made."""
    done = build(source, environ, hook)
    assert done.returncode == 0, done.stdout + done.stderr
    return source / "dist" / done.stdout.splitlines()[-1].removeprefix("built ")


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as packed:
        return set(packed.namelist())


def sources(root: Path) -> set[Path]:
    """What the package's folder holds, but for what Python leaves there."""
    found = (path.relative_to(root) for path in (root / "sidecar").rglob("*") if path.is_file())
    return {path for path in found if path.suffix != ".pyc"}


def installed_says(wheel: Path, directory: Path) -> str:
    """`sidecar --version` of what the wheel holds."""
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(directory)
    command = [sys.executable, "-P", "-m", "sidecar", "--version"]
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(directory)}
    return subprocess.check_output(command, cwd=directory, env=environ, text=True, timeout=20)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"SIDECAR_EXT": "skip"}, "sidecar: stays pure Python: SIDECAR_EXT=skip"),
        ({"SIDECAR_EXT": "auto", **NO_COMPILER}, "sidecar: stays pure Python: cannot compile: "),
        (NO_COMPILER, "; SIDECAR_EXT=require makes this an error"),
    ],
    ids=["skip", "auto", "unset"],
)
def test_a_pure_wheel_is_for_any_platform(
    source: Path, environ: Mapping[str, str], said: str, tmp_path: Path
) -> None:
    # What an earlier build has left here, compiled from other sources, does not come with it.
    suffix = f"linux-x86_64-cpython-{sys.version_info.major}{sys.version_info.minor}"
    stale = source / "build" / f"lib.{suffix}" / "sidecar" / "pool.cpython-311-x86_64-linux-gnu.so"
    stale.parent.mkdir(parents=True)
    stale.touch()
    done = build(source, environ)
    assert done.returncode == 0, done.stdout + done.stderr
    assert said in done.stdout
    (wheel,) = (source / "dist").glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    held = names(wheel)
    assert {"sidecar/pool.py", "sidecar/pool.pxd", "sidecar/http1/scan.pyx", "sidecar/py.typed"} <= held
    page = {str(path.relative_to(source)) for path in (source / "sidecar/admin/page").iterdir()}
    assert {"sidecar/admin/page/index.html", "sidecar/admin/page/page.js"} <= page <= held
    assert not [name for name in held if name.endswith((".so", ".c"))]
    assert installed_says(wheel, tmp_path / "installed").endswith(" (pure Python)\n")


@pytest.mark.parametrize("hook", ["build_wheel", "build_editable"])
def test_require_fails_without_a_compiler(source: Path, hook: str) -> None:
    done = build(source, {"SIDECAR_EXT": "require", **NO_COMPILER}, hook)
    assert done.returncode != 0
    assert "sidecar: cannot compile, and SIDECAR_EXT=require: " in done.stderr.splitlines()[-1]
    assert "/nonexistent/cc" in done.stderr.splitlines()[-1]
    assert not list((source / "dist").glob("*.whl"))


def test_an_unknown_word_is_one_line(source: Path) -> None:
    done = build(source, {"SIDECAR_EXT": "maybe"})
    assert done.returncode != 0
    said = "sidecar: SIDECAR_EXT is 'maybe'; it takes auto, require, skip"
    assert done.stderr.splitlines()[-1] == said


def test_an_editable_install_stays_pure_and_makes_the_source_so(source: Path) -> None:
    stale = source / "sidecar" / "pool.cpython-311-x86_64-linux-gnu.so"
    stale.touch()
    done = build(source, {}, "build_editable")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SIDECAR_EXT=require compiles it in place" in done.stdout
    assert not list(source.rglob("*.so"))


def test_a_source_distribution_is_all_that_a_build_needs(source: Path, tmp_path: Path) -> None:
    packed = built(source, {}, "build_sdist")
    with tarfile.open(packed) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert sources(unpacked) == sources(source)
    assert names(built(unpacked, {"SIDECAR_EXT": "skip"})) == names(built(source, {"SIDECAR_EXT": "skip"}))
