"""How the hot modules are compiled: setuptools runs this, nothing else does.

The list of them is in pyproject.toml (`[tool.setuptools] ext-modules`); SIDECAR_EXT says what to do about it:

    auto     compile where there is a C compiler, else install pure Python, which does the same (the default);
             an editable install stays pure, because what is compiled would not follow the next edit
    require  a build that cannot compile fails
    skip     pure Python

It is all or nothing: compiled modules find each other's C structures, and one that is missing would keep the
others from being imported. Loaded by its path before anything is installed, so it imports nothing of the package.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from Cython.Build import cythonize
from Cython.Compiler.Errors import CompileError as CythonError
from Cython.Shadow import __version__ as cython_version
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

if TYPE_CHECKING:
    from collections.abc import Collection

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
# Where CFLAGS says nothing else. Without debugging information a module is a third of the size.
C_FLAGS = ["-O2", "-g0"]


class BuildExtensions(build_ext):  # type: ignore[misc] # setuptools has no types
    """`build_ext` that follows SIDECAR_EXT."""

    extensions: list[Any]
    force: bool
    parallel: int

    def finalize_options(self) -> None:
        """Read SIDECAR_EXT; as many compilers at a time as there are processors."""
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count() or 1
        self.choice = os.environ.get("SIDECAR_EXT") or "auto"
        self.built_in = "." if self.editable_mode else self.build_lib
        if self.choice not in CHOICES:
            raise SystemExit(f"sidecar: SIDECAR_EXT is {self.choice!r}; it takes {', '.join(CHOICES)}")

    def run(self) -> None:
        """Compile all or nothing."""
        if self.choice == "skip":
            self._leave_pure("SIDECAR_EXT=skip")
        elif self.choice == "auto" and self.editable_mode:
            self._leave_pure("an editable install follows edits; SIDECAR_EXT=require compiles it in place")
        else:
            # A module that is compiled no longer would go into the wheel, and find structures that have changed.
            self._remove_compiled(
                self.built_in, but={self.get_ext_filename(one.name) for one in self.extensions}
            )
            try:
                super().run()
            except (CCompilerError, CythonError, BaseError) as error:
                if self.choice == "require":
                    raise SystemExit(f"sidecar: cannot compile, and SIDECAR_EXT=require: {error}") from error
                self._leave_pure(f"cannot compile: {error}; SIDECAR_EXT=require makes this an error")

    def build_extensions(self) -> None:
        """From Cython to C in the build folder, the source folder stays as it is; then from C."""
        self._try_compiler()
        # What is older than its sources is built again, and everything where something else has changed.
        flags = [] if "CFLAGS" in os.environ else C_FLAGS
        kept = Path(self.build_temp, "recipe")
        recipe = f"{cython_version} {DIRECTIVES} {flags or os.environ['CFLAGS']}"
        self.force = self.force or not kept.exists() or kept.read_text() != recipe
        kept.unlink(missing_ok=True)
        translated = cythonize(  # type: ignore[no-untyped-call] # Cython has few types
            self.extensions,
            build_dir=str(Path(self.build_temp, "c")),
            compiler_directives=DIRECTIVES,
            force=self.force,
            nthreads=self.parallel,
            quiet=True,
        )
        for extension, made in zip(self.extensions, translated, strict=True):
            extension.sources = made.sources
            extension.extra_compile_args += flags
        super().build_extensions()
        kept.write_text(recipe)

    def _try_compiler(self) -> None:
        """Raise CompileError without a compiler or Python's headers, before Cython takes half a minute."""
        trial = Path(self.build_temp, "trial.c")
        trial.parent.mkdir(parents=True, exist_ok=True)
        trial.write_text("#include <Python.h>\n")
        self.compiler.compile([str(trial)], output_dir=self.build_temp)

    def _leave_pure(self, reason: str) -> None:
        """The package without extension modules, in a wheel for any platform."""
        print(f"sidecar: stays pure Python: {reason}")
        self.extensions = []
        self.distribution.ext_modules = None
        wheel = self.distribution.get_command_obj("bdist_wheel", create=False)
        if wheel is not None:
            wheel.root_is_pure = True
        self._remove_compiled(self.built_in)

    def _remove_compiled(self, root: str, but: Collection[str] = ()) -> None:
        """Remove what earlier builds have compiled, which Python would import instead of the source beside it."""
        for path in Path(root, "sidecar").rglob("*.so"):
            if str(path.relative_to(root)) not in but:
                path.unlink()
