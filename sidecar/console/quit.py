"""`sidecar quit`: have a running sidecar finish what it does and end, as the last act of a Job."""

from __future__ import annotations

import sys
from typing import TextIO

from sidecar.console.asking import CONTROL, NoAnswerError, ask, no_sidecar
from sidecar.console.paths import QUIT

__all__ = ["ask_to_quit"]


def ask_to_quit(admin: str, output: TextIO | None = None, errors: TextIO | None = None) -> int:
    """Ask at `admin` (host:port); a line says what is still in flight.

    Returns the exit code: 0 it ends, 1 it refuses or no sidecar answers, 2 when `admin` is no address.
    """
    output = sys.stdout if output is None else output
    errors = sys.stderr if errors is None else errors
    try:
        status, answer = ask(admin, QUIT, "POST", CONTROL)
        in_flight = answer.get("in_flight")
        if status != 200 or not isinstance(in_flight, int):
            raise no_sidecar(admin, status)
    except NoAnswerError as error:
        print(f"sidecar: {error}", file=errors)
        return 1
    except ValueError as error:
        print(f"sidecar: {error}", file=errors)
        return 2
    print(f"it ends, with {in_flight} in flight to finish", file=output)
    return 0
