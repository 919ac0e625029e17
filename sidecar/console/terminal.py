"""A terminal whose keys are read one by one, and that is given back as it was, whatever ends the program."""

from __future__ import annotations

import os
import signal
import sys
import termios
import tty
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from rich.live import Live

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from rich.console import Console, RenderableType

__all__ = ["Signals", "Terminal"]

_HEARD = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGTSTP,
    signal.SIGCONT,
    signal.SIGWINCH,
)


class Signals:
    """While it is entered, signals do nothing but make `fd` readable; only in the main thread.

    Python's own handlers would raise in the middle of whatever is drawn or restored.
    """

    __slots__ = ("_old", "_old_fd", "_write", "fd")

    def __enter__(self) -> Self:
        self.fd, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # Before the handlers: none of them is to have nowhere to tell.
        self._old_fd = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._old: dict[signal.Signals, Any] = {
            number: signal.signal(number, lambda _number, _frame: None) for number in _HEARD
        }
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_fd)
        os.close(self.fd)
        os.close(self._write)

    def read(self) -> list[int]:
        """The signals that have come, each once for each time."""
        try:
            return list(os.read(self.fd, 4096))
        except BlockingIOError:
            return []

    def stop_here(self) -> None:
        """Stop this process as Ctrl-Z does, and return when it is continued."""
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, handler)


class Terminal:
    """The whole screen of a terminal while it is entered; typed keys are not shown and need no Enter.

    Ctrl-C and Ctrl-Z go on being signals. fd: where keys are read.
    """

    __slots__ = ("_attributes", "_console", "_live", "fd")

    def __init__(self, fd: int, console: Console) -> None:
        self.fd = fd
        self._console = console
        self._attributes: list[Any] | None = None
        self._live: Live | None = None

    def __enter__(self) -> Self:
        self.take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What cannot be given back is gone: its window was closed.
        with suppress(OSError, termios.error):
            self.give_back()

    def take(self) -> None:
        """The keys and the alternate screen."""
        if self._attributes is None:
            self._attributes = termios.tcgetattr(self.fd)
        tty.setcbreak(self.fd, termios.TCSANOW)
        if self._live is None:
            # No thread of rich's own, and what others print is none of its business.
            live = Live(
                console=self._console,
                screen=True,
                auto_refresh=False,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            try:
                live.start()
            except BaseException:
                self.give_back()
                raise
            self._live = live

    def retake(self) -> None:
        """Take it again, whatever has been done to it while this process was stopped."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()
        self.take()

    def give_back(self) -> None:
        """The screen and the keys as they were."""
        live, self._live = self._live, None
        attributes, self._attributes = self._attributes, None
        try:
            if live is not None:
                live.stop()
        finally:
            if attributes is not None:
                termios.tcsetattr(self.fd, termios.TCSANOW, attributes)

    def show(self, picture: Callable[[int, int], RenderableType]) -> None:
        """Draw what `picture` gives for so many columns and lines."""
        if self._live is not None:
            width, height = self._console.size
            self._live.update(picture(width, height), refresh=True)

    def read(self) -> bytes:
        """What was typed; empty when the terminal is gone."""
        try:
            return os.read(self.fd, 1024)
        except OSError:
            return b""

    @staticmethod
    def of(console: Console) -> Terminal | None:
        """The terminal that `console` and standard input are; None where one is not, or cannot draw over itself."""
        if not console.is_terminal or console.is_dumb_terminal:
            return None
        try:
            fd = sys.stdin.fileno()
        except (AttributeError, OSError, ValueError):  # none at all, closed, or a stand-in
            return None
        return Terminal(fd, console) if os.isatty(fd) else None
