"""The package's version and how it was built; the build reads this without importing anything else of it."""

from __future__ import annotations

import os
from importlib.machinery import EXTENSION_SUFFIXES

__all__ = ["__version__", "build_name", "is_compiled"]

__version__ = "0.1.0"


def is_compiled() -> bool:
    """Whether Python finds the data path's modules compiled.

    They are all compiled or none is, so that one stands for them. It is looked for, not imported: `--version` has no
    need of the data path. Of two files Python takes the extension module (`importlib.machinery.FileFinder`).
    """
    one = os.path.join(os.path.dirname(__file__), "http1", "scan")  # noqa: PTH118, PTH120 - pathlib costs a start time
    return any(os.path.exists(one + suffix) for suffix in EXTENSION_SUFFIXES)  # noqa: PTH110


def build_name() -> str:
    """`compiled` or `pure Python`, as `sidecar --version` and the start say it."""
    return "compiled" if is_compiled() else "pure Python"
