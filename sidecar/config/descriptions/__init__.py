"""What each section and key of a configuration file means, in a sentence: for the reference (`config.reference`).

`upstreams` has what services and load balancers say, `doors` what stands before them, `process` all else. A key of the
schema without a sentence here, and a sentence without a key, fail a test.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.config.descriptions.doors import DOORS
from sidecar.config.descriptions.process import PROCESS
from sidecar.config.descriptions.upstreams import UPSTREAMS

if TYPE_CHECKING:
    from sidecar.config.descriptions.about import About

__all__ = ["SECTIONS"]

# By the name of the section's class in `config.schema`.
SECTIONS: dict[str, About] = {**UPSTREAMS, **DOORS, **PROCESS}
