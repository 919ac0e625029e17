"""The package's version, alone in its module so that the build reads it without importing anything else."""

from __future__ import annotations

__version__ = "0.1.0"
