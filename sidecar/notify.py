"""What a service manager is told (systemd's protocol, sd_notify(3)): ready, reloading, ending, alive.

A datagram of `NAME=value` lines to the socket that `NOTIFY_SOCKET` names
(https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html). Whoever has not set it is told nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sidecar.clock import Clock

__all__ = ["Notifier"]

LOOK = 0.05  # seconds between looks whether it is ready

_log = logging.getLogger("sidecar")


class Notifier:
    """Tells whoever started this process. environ: where `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID` are.

    successor: the service is another process until `watch`, and an end before that is not the service's.
    Nothing that fails here is a reason to serve less: it is logged once.
    """

    def __init__(self, environ: Mapping[str, str], clock: Clock, *, successor: bool = False) -> None:
        place = environ.get("NOTIFY_SOCKET", "")
        # A path, or a name in the abstract namespace, which an @ stands for; AF_VSOCK is for virtual machines.
        self._place = "\0" + place[1:] if place.startswith("@") else place if place.startswith("/") else ""
        self._clock = clock
        self._interval = _watchdog(environ) / 2 if self._place else 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._failed = False
        self._ready = False
        self._is_service = not successor

    @property
    def watchdog(self) -> float:
        """Seconds within which it says that it is alive; 0 for never."""
        return self._interval * 2

    def inherit(self, watchdog: float) -> None:
        """Go by the time that the process before had, whom the service manager has told alone."""
        self._interval = self._interval or watchdog / 2

    @property
    def is_told(self) -> bool:
        """Whether there is anybody to tell."""
        return bool(self._place)

    def watch(self, is_ready: Callable[[], bool], status: Callable[[], str], *, main: bool = False) -> None:
        """Say that it is ready once it is, and from now on that it is alive, at half of the time that is asked for.

        main: that this process is the service's now, and not the one that was started as such.
        """
        if not self._place:
            return
        self._is_service = True
        if self._interval:
            self._beat()
        self._look(is_ready, status, main=main)

    def reloading(self) -> None:
        """The configuration is read again; `reloaded` follows, whatever comes of it."""
        if self._ready:
            # Microseconds of CLOCK_MONOTONIC, by which `notify-reload` tells this one from one before its signal.
            self._tell(f"RELOADING=1\nMONOTONIC_USEC={int(self._clock.monotonic() * 1e6)}")

    def reloaded(self, status: str) -> None:
        """It has been."""
        if self._ready:
            self._tell(f"READY=1\nSTATUS={status}")

    def stopping(self) -> None:
        """It ends."""
        self._ready = False
        if self._is_service:
            self._tell("STOPPING=1\nSTATUS=draining")

    def close(self) -> None:
        """Tell nothing more: of an end, or because another process is the service now."""
        self._place = ""
        self._ready = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._interval = 0.0

    def _look(self, is_ready: Callable[[], bool], status: Callable[[], str], *, main: bool) -> None:
        if not self._place:
            return
        if not is_ready():
            asyncio.get_running_loop().call_later(LOOK, lambda: self._look(is_ready, status, main=main))
            return
        self._ready = self._tell(f"READY=1\nSTATUS={status()}" + (f"\nMAINPID={os.getpid()}" if main else ""))
        if not self._ready:  # without it the start would be over in the end, and a failure
            asyncio.get_running_loop().call_later(LOOK, lambda: self._look(is_ready, status, main=main))

    def _beat(self) -> None:
        """The loop turns, which is all that a watchdog is to know: upstreams are nobody's health but their own."""
        self._tell("WATCHDOG=1")
        self._timer = asyncio.get_running_loop().call_later(self._interval, self._beat)

    def _tell(self, lines: str) -> bool:
        """False where it has no room just now, as one that is busy with others."""
        if not self._place:
            return True
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto(lines.encode(), self._place)
        except BlockingIOError:
            return False
        except OSError as error:
            if not self._failed:
                self._failed = True
                why = (error.strerror or str(error)).lower()
                _log.warning("the service manager cannot be told (NOTIFY_SOCKET): %s", why)
        return True


def _watchdog(environ: Mapping[str, str]) -> float:
    """Seconds within which this process is to say that it is alive (sd_watchdog_enabled(3)); 0 for never."""
    asked, of = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not (asked.isascii() and asked.isdigit()) or (of and of != str(os.getpid())):
        return 0.0
    return int(asked) / 1e6
