"""`sidecar status --ready`: whether a running sidecar takes work, for a container's health check.

It asks `/ready` at the metrics address, as a cluster would, and loads no more than that takes.
"""

from __future__ import annotations

import http.client
import sys
from typing import TextIO

from sidecar.config.addresses import parse_authority

__all__ = ["show_ready"]

TIMEOUT = 2.0  # seconds: as of the admin address


def show_ready(
    metrics: str, output: TextIO | None = None, errors: TextIO | None = None, timeout: float | None = None
) -> int:
    """Ask at `metrics` (host:port, IPv6 in brackets). timeout: seconds without a word, `TIMEOUT` unless it is given.

    Returns the exit code: 0 ready, 1 not ready or no answer, 2 when `metrics` is no address.
    """
    output = sys.stdout if output is None else output
    errors = sys.stderr if errors is None else errors
    try:
        host, port = parse_authority(metrics)
    except ValueError as error:
        print(f"sidecar: --metrics {metrics!r} {error}", file=errors)
        return 2
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT if timeout is None else timeout)
    try:
        connection.request("GET", "/ready")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        print(
            f"sidecar: no answer at {metrics} ({why.lower()}); is `sidecar run` running, "
            "or is sidecar.metrics another address? Give --metrics HOST:PORT",
            file=errors,
        )
        return 1
    finally:
        connection.close()
    if status not in (200, 503):
        print(
            f"sidecar: what answers at {metrics} is no sidecar's metrics address (status {status}); "
            "give --metrics HOST:PORT",
            file=errors,
        )
        return 1
    print("ready" if status == 200 else "not ready", file=output)
    return 0 if status == 200 else 1
