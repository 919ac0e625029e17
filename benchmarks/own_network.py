"""A network namespace of its own for a run, and how TCP in it decides how fast to send.

A machine's choice of that is made for the network and holds for the loopback too: under BBR, which paces, one answer of
1 MiB in a hundred waits 70 ms, whoever proxies it, and the wait is the origin's. Linux's own default is cubic; reno,
which does not pace either, is what every namespace may have.
"""

import ctypes
import fcntl
import os
import socket
import struct
from pathlib import Path

__all__ = ["congestion_control", "enter"]

CONTROL = Path("/proc/sys/net/ipv4/tcp_congestion_control")
ALLOWED = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
CLONE_NEWNET = 0x40000000  # <linux/sched.h>; os.unshare is Python 3.12's
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1  # netdevice(7)
REQUEST = "16sh22x"  # struct ifreq: a name, flags, and the rest of it


def congestion_control() -> str:
    """What connections of this process go by, such as `cubic`; `unknown` where the kernel does not say."""
    try:
        return CONTROL.read_text().strip()
    except OSError:
        return "unknown"


def enter(congestion: str) -> None:
    """Leave the machine's network for one with nothing but a loopback, which goes by `congestion`.

    For this process and all that it starts. Raises OSError: it takes root, and a `congestion` that the kernel knows and
    the machine allows everybody.
    """
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, f"a network namespace: {os.strerror(number)}")
    with socket.socket() as sock:
        name, flags = struct.unpack(REQUEST, fcntl.ioctl(sock, SIOCGIFFLAGS, struct.pack(REQUEST, b"lo", 0)))
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack(REQUEST, name, flags | IFF_UP))
    try:
        CONTROL.write_text(congestion)
    except PermissionError as error:
        allowed = ALLOWED.read_text().strip()
        raise OSError(error.errno, f"only what the machine allows everybody: {allowed}") from None
