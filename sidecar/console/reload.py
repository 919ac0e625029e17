"""`sidecar reload`: have a running sidecar read its configuration again, and say what came of it."""

from __future__ import annotations

import sys
from typing import TextIO

from sidecar.config.findings import escaped
from sidecar.console.asking import CONTROL, NoAnswerError, ask, no_sidecar
from sidecar.console.paths import RELOAD

__all__ = ["reload"]

# Where other ports are listened on, workers are replaced, which have 30 s to start; and another reload may go on.
TIMEOUT = 90.0  # seconds


def reload(admin: str, output: TextIO | None = None, errors: TextIO | None = None) -> int:
    """Have the configuration read again; a line for each thing that has changed.

    Returns the exit code: 0 done or nothing to do, 1 refused (each finding is a line on `errors`) or no sidecar
    answers, 2 when `admin` is no address.
    """
    output = sys.stdout if output is None else output
    errors = sys.stderr if errors is None else errors
    try:
        status, answer = ask(admin, RELOAD, "POST", CONTROL, TIMEOUT)
        if status in (409, 422) and isinstance(answer.get("findings"), list):
            for finding in answer["findings"]:
                print(f"sidecar: {escaped(str(finding))}", file=errors)
            print(f"sidecar: {answer.get('error')}", file=errors)
            return 1
        if status != 200 or not isinstance(answer.get("changes"), list):
            raise no_sidecar(admin, status)
    except NoAnswerError as error:
        print(f"sidecar: {error}", file=errors)
        return 1
    except ValueError as error:
        print(f"sidecar: {error}", file=errors)
        return 2
    for change in answer["changes"]:
        print(change, file=output)
    print(answer.get("result"), file=output)
    return 0
