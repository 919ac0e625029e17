"""What the demo shows: one live picture on a terminal, lines anywhere else."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TextIO

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sidecar.console.look import look_of, word
from sidecar.console.tables import make_console

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sidecar.demo.events import Event
    from sidecar.demo.traffic import Tally

__all__ = ["LiveScreen", "PlainScreen", "Row", "Screen", "make_screen"]

EVENTS_SHOWN = 8  # the last whole illness: opening, some probes, closing
BAR = 24  # columns for a share of 100 %


@dataclass(frozen=True, slots=True)
class Row:
    """One endpoint now. state: its breaker's, as JSON spells it."""

    name: str
    address: str
    state: str


class Screen(Protocol):
    """Where the demo's news go."""

    def open(self) -> None:
        """Show what does not change."""

    def event(self, event: Event) -> None:
        """A breaker moved."""

    def refresh(self, elapsed: float) -> None:
        """Some time has passed: `elapsed` seconds since the demo began."""

    def close(self) -> None:
        """Give the terminal back."""


def make_screen(output: TextIO, intro: Sequence[str], tally: Tally, rows: Callable[[], list[Row]]) -> Screen:
    """The screen that suits `output`. intro: lines that stay; rows: asked at each refresh."""
    if output.isatty():
        return LiveScreen(output, intro, tally, rows)
    return PlainScreen(output, intro, tally, rows)


class PlainScreen:
    """A line for each event and one each second: for a log, a pipe, or a test."""

    def __init__(
        self, output: TextIO, intro: Sequence[str], tally: Tally, rows: Callable[[], list[Row]]
    ) -> None:
        self._output = output
        self._intro = intro
        self._tally = tally
        self._rows = rows
        self._said = 0  # the whole second that was last summed up

    def open(self) -> None:
        """Print the intro."""
        for line in self._intro:
            self._print(line)

    def event(self, event: Event) -> None:
        """Print it at once."""
        self._print(f"{event.at:5.1f} s  {event.text}")

    def refresh(self, elapsed: float) -> None:
        """Print the summary if a second has begun."""
        if int(elapsed) <= self._said:
            return
        self._said = int(elapsed)
        tally = self._tally
        shares = ", ".join(
            f"{row.name} {tally.recent_share(row.name):.0%} ({word(row.state)})" for row in self._rows()
        )
        self._print(
            f"{elapsed:5.1f} s  {tally.requests} requests, {tally.failed} failed; {shares}; {tally.lines} lines"
        )

    def close(self) -> None:
        """Nothing to give back."""

    def _print(self, line: str) -> None:
        print(line, file=self._output, flush=True)


class LiveScreen:
    """One picture that is drawn again at each refresh; it stays when the demo ends."""

    def __init__(
        self, output: TextIO, intro: Sequence[str], tally: Tally, rows: Callable[[], list[Row]]
    ) -> None:
        self._intro = intro
        self._tally = tally
        self._rows = rows
        self._events: deque[Event] = deque(maxlen=EVENTS_SHOWN)
        # No thread of rich's own: `refresh` draws, in step with what there is to show.
        console = make_console(output)
        self._live = Live(console=console, auto_refresh=False)
        self._look = look_of(console)

    def open(self) -> None:
        """Take the terminal's lines."""
        self._live.start()
        self.refresh(0.0)

    def event(self, event: Event) -> None:
        """Keep it for the next refresh."""
        self._events.append(event)

    def refresh(self, elapsed: float) -> None:
        """Draw."""
        self._live.update(self._picture(elapsed), refresh=True)

    def close(self) -> None:
        """Show the cursor again."""
        self._live.stop()

    def _picture(self, elapsed: float) -> RenderableType:
        tally = self._tally
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("endpoint", "address", "breaker", "answers", "share now"):
            table.add_column(column, justify="right" if column == "answers" else "left")
        for row in self._rows():
            share = tally.recent_share(row.name)
            table.add_row(
                Text(row.name),
                Text(row.address),
                self._look.state(row.state),
                Text(str(tally.answers[row.name])),
                Text(f"{self._look.bar(share, BAR)} {share:.0%}"),
            )
        failures = ", ".join(f"{count} x {name}" for name, count in sorted(tally.failures.items()))
        return Group(
            *(Text(line) for line in self._intro),
            Text(),
            table,
            Text(),
            Text(
                f"{elapsed:5.1f} s  {tally.requests} requests, {tally.failed} failed"
                f"{f' ({failures})' if failures else ''}; {tally.lines} lines echoed over TCP"
            ),
            *(
                self._look.state(event.state.label, f"{event.at:5.1f} s  {event.text}")
                for event in self._events
            ),
            Text("Ctrl-C ends it.", style="dim"),
        )
