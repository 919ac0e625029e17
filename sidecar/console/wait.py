"""`sidecar wait`: until a running sidecar takes work, for what is to start after it.

It is the startupProbe of a native sidecar
(https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/), which is run again and again, so that it loads
neither the configuration nor an HTTP library: it speaks to a sidecar of its own version.
"""

from __future__ import annotations

import socket
import sys
from contextlib import suppress
from threading import Event
from typing import TYPE_CHECKING, TextIO

from sidecar.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["wait_ready"]

LOOK = 0.05  # seconds between two questions: nothing beside the second that a start may take
ANSWER = 2.0  # seconds for one answer, which is given from memory
MAX_LINE = 1024  # bytes of its first line: whoever says more before a line ends is something else

_NOBODY = "nothing listens there"
_SILENT = "no answer in time"
_NOT_YET = "it says that it is not ready yet"


def wait_ready(
    metrics: str,
    within: float,
    errors: TextIO | None = None,
    clock: Clock | None = None,
    pause: Callable[[float], object] | None = None,
) -> int:
    """Ask `/ready` at `metrics` (host:port, IPv6 in brackets) until it says yes, or so many seconds are over.

    Returns the exit code: 0 ready; 1 not within that time, and a line on `errors` says what it heard last; 2 when
    `metrics` is no address.
    """
    errors = sys.stderr if errors is None else errors
    clock = clock or Clock()
    pause = Event().wait if pause is None else pause
    try:
        host, port = _split(metrics)
    except ValueError:
        said = f"--metrics {metrics!r} is no address; give --metrics HOST:PORT, such as 127.0.0.1:9902"
        print(f"sidecar: {said}", file=errors)
        return 2
    deadline = clock.monotonic() + within
    while True:
        left = deadline - clock.monotonic()
        heard = _ask(host, port, clock, min(ANSWER, max(left, LOOK)))
        if not heard:
            return 0
        if left <= LOOK:
            print(f"sidecar: not ready at {metrics} within {within:g} s: {heard}", file=errors)
            return 1
        pause(LOOK)


def _split(address: str) -> tuple[bytes, int]:
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65536):
        raise ValueError
    bracketed = host.startswith("[") and host.endswith("]")
    if (":" in host) is not bracketed or not (host.isascii() and host.isprintable()) or " " in host:
        raise ValueError
    # As bytes: for text `socket` loads tables of Unicode, and fails in its own way at empty or long labels.
    return host.strip("[]").encode("ascii"), int(port)


def _ask(host: bytes, port: int, clock: Clock, within: float) -> str:
    """Why it is not ready; empty when it is. within: seconds for all of it."""
    deadline = clock.monotonic() + within
    try:
        # Its types know of no host as bytes, which getaddrinfo takes as they are.
        with socket.create_connection((host, port), timeout=within) as connection:  # type: ignore[arg-type]
            connection.sendall(b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            said = b""
            with suppress(ConnectionError):  # as of one that ends
                while b"\n" not in said and len(said) < MAX_LINE:
                    # What comes byte by byte is not to take the time anew with each.
                    connection.settimeout(max(deadline - clock.monotonic(), 0.001))
                    piece = connection.recv(4096)
                    if not piece:
                        break
                    said += piece
    except ConnectionRefusedError:
        return _NOBODY
    except TimeoutError:
        return _SILENT
    except OSError as error:
        return (error.strerror or str(error)).lower()
    version, _, rest = said.partition(b"\n")[0].partition(b" ")
    status = rest[:3] if version.startswith(b"HTTP/1.") else b""
    if status == b"200":
        return ""
    if status == b"503":
        return _NOT_YET
    return "what answers there is no sidecar's metrics address" if said else "it closes without an answer"
