"""`sidecar top`: a running sidecar's upstreams, live, as top(1) shows processes.

Reading order: `keys` (bytes to keys), `terminal` (the screen, signals), `top_screen` (the picture), here the loop.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Any, Self, TextIO

from sidecar.console import status
from sidecar.console.asking import NoAnswerError, ask
from sidecar.console.keys import ESCAPE_WAIT, Keys
from sidecar.console.look import look_of
from sidecar.console.paths import HISTORY
from sidecar.console.tables import make_console
from sidecar.console.terminal import Signals, Terminal
from sidecar.console.top_screen import TopScreen

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.clock import Clock

__all__ = ["show_top"]

TICK = 1.0  # seconds after which the picture is drawn though nothing was heard: ages and countdowns go on
HISTORY_INTERVAL = 5.0  # seconds: how often the sidecar adds a point


def show_top(
    admin: str,
    clock: Clock,
    *,
    interval: float,
    count: int | None = None,
    output: TextIO | None = None,
    errors: TextIO | None = None,
    pause: Callable[[float], object] | None = None,
) -> int:
    """Show what the sidecar at `admin` says, each `interval` seconds, until `q`, Ctrl-C or SIGTERM.

    Without a terminal, or with `count`, it prints tables one after another, `count` of them. pause: waits that many
    seconds between those.
    Returns the exit code: 0 when the screen was left; of tables that of the last, as `sidecar status`; 2 when `admin`
    is no address.
    """
    output = sys.stdout if output is None else output
    errors = sys.stderr if errors is None else errors
    console = make_console(output)
    terminal = Terminal.of(console) if count is None else None
    if terminal is None:
        pause = Event().wait if pause is None else pause
        return status.print_tables(admin, interval, count, output, errors, pause)
    screen = TopScreen(look_of(console))
    try:
        # The terminal first: signals are heard until it is given back.
        with Signals() as signals, _Asker(admin, clock) as asker, terminal:
            _Loop(screen, terminal, signals, asker, clock, interval).run()
    except ValueError as error:
        print(f"sidecar: {error}", file=errors)
        return 2
    except termios.error as error:
        print(f"sidecar: the terminal cannot be used ({error.args[-1]}); try --count 1", file=errors)
        return 1
    return 0


class _Loop:
    """Waits for keys, signals, answers and time, and draws what has come of them."""

    def __init__(
        self,
        screen: TopScreen,
        terminal: Terminal,
        signals: Signals,
        asker: _Asker,
        clock: Clock,
        interval: float,
    ) -> None:
        self._screen = screen
        self._terminal = terminal
        self._signals = signals
        self._asker = asker
        self._clock = clock
        self._interval = interval
        self._keys = Keys()

    def run(self) -> None:
        """Until the screen has ended, or the terminal is gone. Raises `ValueError` of what is no address."""
        due = self._clock.monotonic()
        while not self._screen.ended:
            now = self._clock.monotonic()
            if now >= due and self._asker.ask():
                due = now + self._interval
            try:
                self._terminal.show(partial(self._screen.picture, now=now))
            except OSError:
                return  # its window was closed
            wait = max(0.0, min(due - now, TICK)) if self._asker.idle else TICK
            if self._keys.pending:
                wait = min(wait, ESCAPE_WAIT)
            self._wait(wait)

    def _wait(self, seconds: float) -> None:
        ready, _, _ = select.select((self._terminal.fd, self._signals.fd, self._asker.fd), (), (), seconds)
        if self._terminal.fd in ready:
            typed = self._terminal.read()
            if not typed:
                self._screen.ended = True
            for key in self._keys.feed(typed):
                self._screen.press(key)
        elif self._keys.pending and not ready:
            for key in self._keys.flush():
                self._screen.press(key)
        if self._signals.fd in ready:
            for number in self._signals.read():
                self._obey(number)
        if self._asker.fd in ready:
            self._hear()

    def _obey(self, number: int) -> None:
        if number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._screen.ended = True
        elif number == signal.SIGTSTP:
            self._terminal.give_back()
            self._signals.stop_here()
            self._terminal.take()
        elif number == signal.SIGCONT:
            self._terminal.retake()
        # SIGWINCH: each picture asks how large the terminal is.

    def _hear(self) -> None:
        now = self._clock.monotonic()
        for answer in self._asker.answers():
            if isinstance(answer, NoAnswerError):
                self._screen.miss(str(answer), now)
            elif isinstance(answer, Exception):
                raise answer
            else:
                view, history = answer
                self._screen.hear(view, now)
                if history is not None:
                    self._screen.remember(history)


class _Asker:
    """Asks in a thread, so that a sidecar that hangs holds up no key. fd: readable when there is an answer."""

    def __init__(self, admin: str, clock: Clock) -> None:
        self._admin = admin
        self._clock = clock
        self._found: SimpleQueue[tuple[dict[str, Any], dict[str, Any] | None] | Exception] = SimpleQueue()
        self._thread: Thread | None = None
        self._history_due = clock.monotonic()
        self._lock = Lock()  # of `_write`
        self.fd, self._write = -1, -1

    def __enter__(self) -> Self:
        self.fd, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            os.close(self._write)
            self._write = -1
        os.close(self.fd)

    @property
    def idle(self) -> bool:
        """Whether no answer is waited for."""
        return self._thread is None

    def ask(self) -> bool:
        """Ask, unless an answer is still to come; whether that was done."""
        if self._thread is not None:
            return False
        # Nobody waits for it at the end: it has the 2 s of a request at most, and the process does not.
        self._thread = Thread(target=self._ask, name="ask", daemon=True)
        self._thread.start()
        return True

    def answers(self) -> list[tuple[dict[str, Any], dict[str, Any] | None] | Exception]:
        """What has come since: the views, with the history where it was asked for too; or why there is none."""
        os.read(self.fd, 64)
        found = []
        with suppress(Empty):
            while True:
                found.append(self._found.get_nowait())
        if found and self._thread is not None:
            self._thread.join()
            self._thread = None
        return found

    def _ask(self) -> None:
        try:
            self._found.put((status.fetch(self._admin), self._history()))
        except Exception as error:
            self._found.put(error)
        with self._lock:
            if self._write >= 0:  # else the end came first
                os.write(self._write, b"\0")

    def _history(self) -> dict[str, Any] | None:
        now = self._clock.monotonic()
        if now < self._history_due:
            return None
        self._history_due = now + HISTORY_INTERVAL
        with suppress(NoAnswerError):
            code, answer = ask(self._admin, HISTORY)
            return answer if code == 200 else None
        return None
