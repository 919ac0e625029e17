"""`sidecar trip` and `sidecar reset`: have a running sidecar take endpoints out of rotation, or put them back."""

from __future__ import annotations

import sys
from typing import TextIO
from urllib.parse import quote, urlencode

from sidecar.console.asking import CONTROL, ask_about

__all__ = ["act"]

_NOW = {
    "trip": "out of rotation until `sidecar reset`",
    "reset": "back in rotation",
    "drain": "drained until `sidecar enable`",
    "enable": "enabled",
}


def act(
    action: str,
    name: str,
    endpoint: str | None,
    admin: str,
    output: TextIO | None = None,
    errors: TextIO | None = None,
) -> int:
    """Do `action` to one endpoint (host:port) of the upstream `name`, or to all; one line for each.

    Returns the exit code: 0 done, 1 nobody is called so or no sidecar answers, 2 when `admin` is no address.
    """
    output = sys.stdout if output is None else output
    errors = sys.stderr if errors is None else errors
    path = f"/upstreams/{quote(name, safe='')}/{action}"
    if endpoint is not None:
        path += f"?{urlencode({'endpoint': endpoint})}"
    answer = ask_about(admin, path, "endpoints", errors, "POST", CONTROL)
    if isinstance(answer, int):
        return answer
    for address in answer["endpoints"]:
        print(f"{name}: {address} is {_NOW[action]}", file=output)
    return 0
