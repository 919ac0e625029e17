"""Free ports of this machine."""

import itertools
import os
import socket

__all__ = ["free_port", "has_ipv6", "is_free", "listening_socket", "ports_in_use"]

# Below Linux's ephemeral range (32768 and up), so that no outgoing connection of a test takes a port between
# the moment it was found free and the moment a server binds it. The process id spreads concurrent test runs.
_FIRST, _LAST = 20000, 32000
_candidates = itertools.cycle(range(_FIRST, _LAST))
for _ in range(os.getpid() * 97 % (_LAST - _FIRST)):
    next(_candidates)


def free_port() -> int:
    """A TCP port that nobody uses on either loopback; never the same one twice in a row."""
    return next(port for port in _candidates if is_free(port))


def is_free(port: int) -> bool:
    """Whether both loopback addresses could be bound to `port` now."""
    return not ports_in_use([port])


def ports_in_use(ports: list[int]) -> list[int]:
    """Those of `ports` that cannot be bound on 127.0.0.1 or ::1."""
    taken = []
    for port in ports:
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            try:
                with socket.socket(family) as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind((host, port))
            except OSError as error:
                if error.errno == 98:  # EADDRINUSE; a machine without IPv6 says something else
                    taken.append(port)
                    break
    return taken


def listening_socket(host: str = "127.0.0.1") -> socket.socket:
    """A socket that listens on a free port, and does not block."""
    made = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    made.setblocking(False)
    return made


def has_ipv6() -> bool:
    """Whether ::1 exists here."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
