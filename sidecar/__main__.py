"""`python -m sidecar`, and the `sidecar` command."""

from __future__ import annotations

import os
import sys

from sidecar.cli import run

__all__ = ["main"]


def main() -> None:
    """Run the command line of this process and exit with its code."""
    _fill_standard_streams()
    sys.exit(run(sys.argv[1:]))


def _fill_standard_streams() -> None:
    """Give a process that was started with one of its standard streams closed a place to read from or write to.

    Otherwise the first descriptors that it opens take their numbers, and what is printed goes to a socket.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))


if __name__ == "__main__":
    main()
