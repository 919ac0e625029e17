"""`sidecar demo`: the real sidecar between invented services and an invented application, to watch it work.

Reading order: `script` (when an endpoint is ill), `upstreams` (the services), `traffic` (the application),
`plan` (a configuration such as a file would give), `events` and `screen` (what is shown), `run` (all of it).
"""

from __future__ import annotations

from sidecar.demo.run import run_demo

__all__ = ["run_demo"]
