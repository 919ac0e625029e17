"""`sidecar trip` and `sidecar reset`: have a running sidecar take endpoints out of rotation, or put them back."""

from __future__ import annotations

import sys
from typing import TextIO
from urllib.parse import quote, urlencode

from sidecar.console.asking import NoAnswerError, ask, no_sidecar

__all__ = ["act"]

_FIELDS = {"X-Sidecar-Control": "1"}
_NOW = {"trip": "out of rotation until `sidecar reset`", "reset": "back in rotation"}


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
    try:
        status, answer = ask(admin, path, "POST", _FIELDS)
        if status not in (200, 404) or (status == 200) is not isinstance(answer.get("endpoints"), list):
            raise no_sidecar(admin, status)
    except NoAnswerError as error:
        print(f"sidecar: {error}", file=errors)
        return 1
    except ValueError as error:
        print(f"sidecar: {error}", file=errors)
        return 2
    if status == 404:
        print(f"sidecar: {answer.get('error')}", file=errors)
        return 1
    for address in answer["endpoints"]:
        print(f"{name}: {address} is {_NOW[action]}", file=output)
    return 0
