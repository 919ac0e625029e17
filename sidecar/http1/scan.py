"""The head scanner that the data path calls. In the compiled build `scan.pyx` takes this module's place.

Pure Python has nothing faster than the strict scan of `head` itself.
"""

from __future__ import annotations

from sidecar.http1.head import scan_request, scan_response

__all__ = ["scan_request", "scan_response"]
