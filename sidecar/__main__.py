"""`python -m sidecar`, and the `sidecar` command."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from typing import NoReturn

__all__ = ["main"]


def main() -> None:
    """Run the command line of this process and exit with its code."""
    # A start makes what is kept; looking for garbage in it takes a twentieth of its time. Commands that last
    # turn collection on again.
    gc.disable()
    from sidecar.cli import run  # noqa: PLC0415 - what it loads is part of the start

    _fill_standard_streams()
    code = run(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    _leave(code)


def _leave(code: int) -> NoReturn:
    # Not sys.exit: libuv waits at exit for look-ups that no name server answers, long after everything has ended.
    os._exit(code)


def _fill_standard_streams() -> None:
    """Give a process that was started with one of its standard streams closed a place to read from or write to.

    Otherwise the first descriptors that it opens take their numbers, and what is printed goes to a socket.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))


if __name__ == "__main__":
    main()
