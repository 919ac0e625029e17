"""A program on a terminal of its own: what it draws there, what is typed, and how it leaves the terminal."""

import fcntl
import io
import os
import re
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from support.waiting import wait_until

__all__ = ["Terminal", "TerminalProcess"]

_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[@-Z\\-_]|\r")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class TerminalProcess:
    """One child process whose controlling terminal is a pseudo terminal (pty(7)), killed at the end of the context.

    output: everything that it has written.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        environ: Mapping[str, str],
        columns: int = 100,
        lines: int = 24,
    ) -> None:
        self._ours, self._theirs = os.openpty()
        self.resize(columns, lines, tell=False)
        self.modes = termios.tcgetattr(self._theirs)
        self.output = ""
        self._seen = 0  # how much of it is not looked at any more
        self.popen = subprocess.Popen(
            ["setsid", "--ctty", *(str(part) for part in command)],
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            env=dict(environ),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.popen.poll() is None:
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()
        os.close(self._ours)
        os.close(self._theirs)

    def resize(self, columns: int, lines: int, *, tell: bool = True) -> None:
        """Give the terminal another size; the kernel tells those who run there (SIGWINCH)."""
        descriptor = self._ours if tell else self._theirs
        fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._ours, text.encode())

    @property
    def fresh(self) -> str:
        """What was written since the last `forget`, as it is."""
        self._read()
        return self.output[self._seen :]

    @property
    def screen(self) -> str:
        """The last whole picture, without colours; what was written since the start where there is none."""
        self._read()
        pictures = self.output[self._seen :].split("\x1b[H")
        return _CONTROL.sub("", pictures[-1])

    def forget(self) -> None:
        """What has been drawn so far is no answer to what follows."""
        self._read()
        self._seen = len(self.output)

    def shows(self, text: str, seconds: float = 15.0) -> str:
        """Wait until the screen has `text`; the screen."""
        return wait_until(
            lambda: self.screen if text in self.screen else "", f"{text!r} on the screen", seconds
        )

    def ended(self, seconds: float = 10.0) -> int:
        """Its exit code, once it has ended."""
        wait_until(self._has_ended, "the end of the program", seconds)
        self._read()
        return self.popen.wait()

    def assert_given_back(self) -> None:
        """The terminal is as it was: its modes, the main screen, the cursor."""
        self._read()
        assert termios.tcgetattr(self._theirs) == self.modes
        assert self.output.rfind("\x1b[?1049l") > self.output.rfind("\x1b[?1049h")
        assert self.output.rfind("\x1b[?25h") > self.output.rfind("\x1b[?25l")

    def assert_taken(self) -> None:
        """Keys come one by one, and the whole screen is drawn on."""
        self._read()
        assert not termios.tcgetattr(self._theirs)[3] & (termios.ICANON | termios.ECHO)
        assert self.output.rfind("\x1b[?1049h") > self.output.rfind("\x1b[?1049l")

    def _has_ended(self) -> bool:
        self._read()  # it may wait for room to write
        return self.popen.poll() is not None

    def _read(self) -> None:
        while select.select((self._ours,), (), (), 0)[0]:
            self.output += os.read(self._ours, 65536).decode(errors="replace")
