"""Starting and ending real programs: by id, bounded in time, their output kept for the failure message."""

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from support.waiting import wait_until

__all__ = ["Process", "find_program"]

# Debian puts servers where an ordinary user's PATH does not look.
_PLACES = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def find_program(name: str) -> str | None:
    """The program's path; None when it is not installed."""
    return shutil.which(name, path=_PLACES)


class Process:
    """One child process in its own session. Its output goes to files in `directory`: no pipe fills up."""

    def __init__(
        self,
        command: Sequence[str | Path],
        directory: Path,
        environ: Mapping[str, str] | None = None,
        name: str = "process",
    ) -> None:
        self.name = name
        self._out = directory / f"{name}.stdout"
        self._err = directory / f"{name}.stderr"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.popen = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=None if environ is None else dict(environ),
                cwd=directory,
                start_new_session=True,  # a Ctrl-C at the terminal reaches the tests alone, which then end it
            )

    @property
    def pid(self) -> int:
        """Its id."""
        return self.popen.pid

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return self._out.read_text(errors="replace")

    @property
    def stderr(self) -> str:
        """What it has complained about so far."""
        return self._err.read_text(errors="replace")

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.popen.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.popen.send_signal(number)

    def wait(self, seconds: float = 10.0) -> int:
        """Its exit code, negative for a signal. Fails the test when it has not ended within `seconds`."""
        wait_until(lambda: not self.running, f"the end of {self.name} (pid {self.pid})", seconds)
        return self.popen.wait()

    def stop(self, seconds: float = 5.0) -> None:
        """SIGTERM, and SIGKILL after `seconds`; nothing when it has ended already."""
        if self.running:
            self.popen.terminate()
            try:
                self.popen.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill()
        self.popen.wait()

    def kill(self) -> None:
        """SIGKILL to it and to the workers of its session, as a machine that loses power."""
        if self.running:
            os.killpg(self.pid, signal.SIGKILL)
        self.popen.wait()
