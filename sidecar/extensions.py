"""How the hot modules are compiled: setuptools runs this, nothing else does.

The list of them is in pyproject.toml (`[tool.setuptools] ext-modules`); SIDECAR_EXT says what to do about it:

    auto     compile where there is a C compiler, else install pure Python, which does the same (the default)
    require  a build that cannot compile fails
    skip     pure Python

It is all or nothing: compiled modules find each other's C structures, and one that is missing would keep the
others from being imported. Loaded by its path before anything is installed, so it imports nothing of the package.
"""

from __future__ import annotations

import os
from distutils.errors import CCompilerError, DistutilsError  # of setuptools, which knows no others
from pathlib import Path
from typing import Any

from Cython.Build import cythonize
from Cython.Compiler.Errors import CompileError as CythonError
from setuptools.command.build_ext import build_ext

__all__ = ["BuildExtensions"]

CHOICES = ("auto", "require", "skip")

# annotation_typing: what is typed is said in the .pxd files; Python's annotations stay what they are to mypy.
# nonecheck: a mistake raises AttributeError here too, where the default would end the process.
DIRECTIVES = {
    "annotation_typing": False,
    "language_level": 3,
    "nonecheck": True,
    "embedsignature": False,
}
C_FLAGS = ["-O2", "-g0"]  # without debugging information a module is a third of the size


class BuildExtensions(build_ext):  # type: ignore[misc] # setuptools has no types
    """`build_ext` that follows SIDECAR_EXT."""

    def finalize_options(self) -> None:
        """Read SIDECAR_EXT; two compilers at a time, as one module's C has nothing to do with another's."""
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count() or 1
        self.choice = os.environ.get("SIDECAR_EXT", "auto")
        if self.choice not in CHOICES:
            raise SystemExit(f"SIDECAR_EXT is {self.choice!r}; it takes {', '.join(CHOICES)}")

    def run(self) -> None:
        """Compile all or nothing."""
        if self.choice == "skip":
            self.extensions = []
        try:
            super().run()
        except (CCompilerError, CythonError, DistutilsError) as error:
            if self.choice == "require":
                raise
            self._go_without(error)

    def build_extensions(self) -> None:
        """From Cython to C, in the build folder: the source folder stays as it is."""
        translated = cythonize(
            self.extensions,
            build_dir=str(Path(self.build_temp) / "c"),
            compiler_directives=DIRECTIVES,
            nthreads=self.parallel,
            quiet=True,
        )
        for extension, made in zip(self.extensions, translated, strict=True):
            extension.sources = made.sources
            extension.extra_compile_args += C_FLAGS
        super().build_extensions()

    def _go_without(self, error: Exception) -> None:
        for extension in self.extensions:
            Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)
        self.extensions = []
        print(
            f"sidecar: not compiled, installing pure Python ({type(error).__name__}: {error}); "
            "SIDECAR_EXT=require makes this an error"
        )

    def get_outputs(self) -> list[Any]:
        """What was compiled, which is nothing where it was gone without."""
        return list(super().get_outputs()) if self.extensions else []
