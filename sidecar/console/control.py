"""`sidecar trip`, `reset`, `drain`, `enable`: have a running sidecar leave endpoints alone, or use them again."""

from __future__ import annotations

import sys
from typing import TextIO

from sidecar.console.asking import CONTROL, ask_about
from sidecar.console.look import clean
from sidecar.console.paths import action_path

__all__ = ["act"]

# What is true of an endpoint then. What resets a breaker does not enable, nor the other way round.
_NOW = {
    "trip": "is out of rotation until `sidecar reset`",
    "reset": "is back in rotation",
    "drain": "is drained until `sidecar enable`",
    "enable": "is enabled",
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

    Returns the exit code: 0 done, 1 nobody is called so, or the sidecar does not do it or does not answer, 2 when
    `admin` is no address.
    """
    output = sys.stdout if output is None else output
    errors = sys.stderr if errors is None else errors
    answer = ask_about(admin, action_path(name, action, endpoint), "endpoints", errors, "POST", CONTROL)
    if isinstance(answer, int):
        return answer
    for address in answer["endpoints"]:
        print(clean(f"{name}: {address} {_NOW[action]}"), file=output)
    if not answer["endpoints"]:
        print(clean(f"{name} has no endpoints"), file=output)
    return 0
