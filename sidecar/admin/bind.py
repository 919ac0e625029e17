"""Where the process's own servers listen, found out before anything is served.

Apart from `server` because it is wanted before aiohttp, which takes longer to load than all the rest: who
connects meanwhile waits in the socket's backlog.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import Any

from sidecar.errors import StartError

__all__ = ["bind"]

BACKLOG = (
    128  # connections that wait to be accepted, as aiohttp has it; these are scrapers, probes and people
)

# Seconds that whoever asks may leave an answer unread, or not acknowledge it, until the kernel closes the connection
# (RFC 5482; tcp(7)): it would stay for good, and a few of those keep everybody else out.
UNREAD = 30.0

_ADVICE = {
    errno.EADDRINUSE: "address already in use; stop what listens there or set sidecar.{name} to another",
    errno.EADDRNOTAVAIL: "this machine has no such address; set sidecar.{name} to one it has",
    errno.EACCES: "permission denied; set sidecar.{name} to a port above 1023",
}


async def bind(host: str, port: int, name: str) -> list[socket.socket]:
    """A listening socket on every address of `host`; port 0 takes a free one.

    name: `admin` or `metrics`, as the configuration calls it, for messages. Raises `StartError` with the
    address and the remedy; nothing stays open then.
    """
    bound: list[socket.socket] = []
    try:
        for family, address in await _addresses(host, port):
            bound.append(socket.create_server(address, family=family, backlog=BACKLOG))
            if hasattr(socket, "TCP_USER_TIMEOUT"):  # what is accepted has it from here
                bound[-1].setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNREAD * 1000))
    except OSError as error:
        for opened in bound:
            opened.close()
        raise StartError(_explain(error, host, port, name)) from error
    return bound


async def _addresses(host: str, port: int) -> list[tuple[int, Any]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:  # a name, which may take its time
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys((int(family), address) for family, _, _, _, address in found))


def _explain(error: OSError, host: str, port: int, name: str) -> str:
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    number = error.errno or 0
    advice = _ADVICE.get(number, "{reason}; set sidecar.{name} to another address")
    # Python words its own message around the address; the number's own words are shorter.
    reason = os.strerror(number).lower() if number in errno.errorcode else (error.strerror or str(error))
    return f"{address} ({name}): {advice.format(name=name, reason=reason)}"
