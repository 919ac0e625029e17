"""Loads every module of the sidecar once, in the image that will run it: what it needs is there, and has bytecode.

The official Python images have none of the standard library, and a sidecar that may write nothing makes none.
"""

import importlib
import importlib.util
import pkgutil

import sidecar
from sidecar.version import is_compiled

BUILDING = {"sidecar.__main__", "sidecar.extensions"}  # would run the sidecar; needs setuptools
EXTRA = {"sidecar.observe.collector", "sidecar.observe.span_export"}  # of requirements-otel.txt

left_out = BUILDING | (set() if importlib.util.find_spec("opentelemetry") else EXTRA)
for module in pkgutil.walk_packages(sidecar.__path__, "sidecar."):
    if module.name not in left_out:
        importlib.import_module(module.name)
if not is_compiled():
    raise SystemExit("the sidecar of this image is not compiled")
