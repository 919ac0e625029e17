"""Taking a terminal, and giving it back whatever happens."""

import io
import os
import signal
import sys
import termios
from collections.abc import Iterator

import pytest
from rich.console import Console
from rich.text import Text

from sidecar.console.terminal import Signals, Terminal

TAKEN = "\x1b[?1049h"
GIVEN_BACK = "\x1b[?1049l"


@pytest.fixture
def descriptor() -> Iterator[int]:
    """One end of a terminal."""
    ours, theirs = os.openpty()
    yield theirs
    os.close(ours)
    os.close(theirs)


def console_on(output: io.StringIO) -> Console:
    return Console(file=output, force_terminal=True, width=40, height=5, legacy_windows=False)


def test_it_is_given_back_after_an_exception(descriptor: int) -> None:
    output = io.StringIO()
    before = termios.tcgetattr(descriptor)

    def draw() -> None:
        with Terminal(descriptor, console_on(output)) as terminal:
            assert not termios.tcgetattr(descriptor)[3] & (termios.ICANON | termios.ECHO)
            terminal.show(lambda width, height: Text("x" * (width // (height - height))))

    with pytest.raises(ZeroDivisionError):
        draw()
    assert termios.tcgetattr(descriptor) == before
    assert output.getvalue().rfind(GIVEN_BACK) > output.getvalue().rfind(TAKEN) >= 0
    assert output.getvalue().endswith(("\x1b[?25h" + GIVEN_BACK, GIVEN_BACK + "\x1b[?25h"))


def test_it_is_given_back_when_the_screen_cannot_be_taken(
    descriptor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = termios.tcgetattr(descriptor)
    console = console_on(io.StringIO())

    def fail(*_: object) -> None:
        raise OSError("gone")

    monkeypatch.setattr(console, "set_alt_screen", fail)
    with pytest.raises(OSError, match="gone"), Terminal(descriptor, console):
        pass
    assert termios.tcgetattr(descriptor) == before


def test_one_that_is_gone_says_nothing(descriptor: int) -> None:
    with Terminal(descriptor, console_on(io.StringIO())) as terminal:
        terminal.fd = os.open(os.devnull, os.O_RDONLY)
        assert terminal.read() == b""
    os.close(terminal.fd)


@pytest.mark.parametrize("stand_in", [None, io.StringIO()])
def test_only_terminals_are_terminals(monkeypatch: pytest.MonkeyPatch, stand_in: io.StringIO | None) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdin", stand_in)
    assert Terminal.of(console_on(io.StringIO())) is None
    assert Terminal.of(Console(file=io.StringIO())) is None


def test_a_dumb_terminal_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert Terminal.of(console_on(io.StringIO())) is None


def test_signals_are_read_and_their_handlers_come_back() -> None:
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    with Signals() as signals:
        assert signals.read() == []
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.read() == [signal.SIGTERM, signal.SIGINT]
    assert [signal.getsignal(number) for number in numbers] == before
