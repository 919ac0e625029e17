"""`python -m sidecar`, and the `sidecar` command."""

from __future__ import annotations

import sys

from sidecar.cli import run

__all__ = ["main"]


def main() -> None:
    """Run the command line of this process and exit with its code."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
