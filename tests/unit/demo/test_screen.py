"""What the demo shows, on both kinds of output."""

import io
import threading

import pytest
from support.screens import Terminal

from sidecar.demo.events import Event
from sidecar.demo.screen import EVENTS_SHOWN, LiveScreen, PlainScreen, Row, make_screen
from sidecar.demo.traffic import Tally
from sidecar.resilience import BreakerState

INTRO = ["first line", "  curl http://localhost:8080/"]
OPENED = Event(5.25, "api-2", BreakerState.OPEN, "api-2: breaker opens")


def _rows() -> list[Row]:
    return [Row("api-1", "127.0.0.1:1", "closed"), Row("api-2", "[::1]:2", "half_open")]


def _tally() -> Tally:
    tally = Tally()
    for name in ("api-1", "api-1", "api-1", "api-2"):
        tally.count_answer(name)
    tally.failures.update({"503": 1, "connection lost": 2})
    tally.lines = 9
    return tally


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal with colours, 110 columns wide."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.setenv("LINES", "40")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


def test_the_output_decides_which_screen(terminal: Terminal) -> None:
    assert isinstance(make_screen(io.StringIO(), INTRO, Tally(), _rows), PlainScreen)
    assert isinstance(make_screen(terminal, INTRO, Tally(), _rows), LiveScreen)


def test_plain_text_is_the_intro_then_a_line_an_event_and_a_line_a_second() -> None:
    output = io.StringIO()
    screen = PlainScreen(output, INTRO, _tally(), _rows)
    screen.open()
    for elapsed in (0.25, 0.99, 1.0, 1.25, 1.99, 2.1):
        screen.refresh(elapsed)
    screen.event(OPENED)
    screen.refresh(4.2)
    screen.close()
    summary = "7 requests, 3 failed; api-1 75% (closed), api-2 25% (half open); 9 lines"
    assert output.getvalue().splitlines() == [
        *INTRO,
        f"  1.0 s  {summary}",
        f"  2.1 s  {summary}",
        "  5.2 s  api-2: breaker opens",
        f"  4.2 s  {summary}",
    ]


def test_the_live_picture_shows_everything_and_gives_the_terminal_back(terminal: Terminal) -> None:
    threads = threading.active_count()
    screen = LiveScreen(terminal, INTRO, _tally(), _rows)
    screen.open()
    assert threading.active_count() == threads
    screen.event(OPENED)
    assert OPENED.text not in terminal.getvalue()
    screen.refresh(6.0)
    screen.close()
    text = terminal.getvalue()
    for part in (
        *INTRO,
        "127.0.0.1:1",
        "[::1]:2",  # no mark-up
        "\x1b[32m● closed",
        "\x1b[33m◐ half open",
        "█" * 18 + " 75%",
        "6.0 s  7 requests, 3 failed (1 x 503, 2 x connection lost); 9 lines echoed over TCP",
        "\x1b[1;31m\N{MULTIPLICATION SIGN}   5.2 s  api-2: breaker opens",
        "Ctrl-C",
    ):
        assert part in text
    assert text.index("\x1b[?25l") < text.index("\x1b[?25h")  # the cursor was hidden, and is shown again


def test_the_live_picture_keeps_the_last_events_only(terminal: Terminal) -> None:
    screen = LiveScreen(terminal, INTRO, Tally(), _rows)
    for number in range(EVENTS_SHOWN + 1):
        screen.event(Event(number, "api-2", BreakerState.CLOSED, f"event number {number}."))
    screen.open()
    screen.close()
    assert "event number 0." not in terminal.getvalue()
    assert "event number 1." in terminal.getvalue()
    assert f"event number {EVENTS_SHOWN}." in terminal.getvalue()
