"""What `sidecar top` shows and how its keys change that: no terminal is read or written here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Group
from rich.text import Text

from sidecar.console import look as looks
from sidecar.console.facts import endpoint_facts, is_up, mappings_of, text_of, upstream_facts
from sidecar.console.tables import cells, columns_within, header, notes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sidecar.console.facts import EndpointFacts, UpstreamFacts
    from sidecar.console.look import Look
    from sidecar.console.tables import Column

__all__ = ["SORTS", "TopScreen"]

MAX_FILTER = 60  # characters: longer than any name
NAME_WIDTH = 24  # columns at most for a name, in which the well-known services are whole
ADDRESS_WIDTH = 40
TREND_WIDTH = 60  # of the 120 points that are kept: five minutes
NOTES = 3  # lines at most for registries and registrations

_STATES = ("well", "idle", "degraded", "drained", "failing", "panic")


def _downwards(value: float | None) -> float:
    return 1.0 if value is None else -value  # who is not known comes last


# By name, in the order in which `s` goes through them: the smallest key first.
SORTS: dict[str, Callable[[UpstreamFacts], Any]] = {
    "rate": lambda facts: _downwards(facts.rate),
    "errors": lambda facts: _downwards(facts.errors),
    "p99": lambda facts: _downwards(facts.p99),
    "name": lambda facts: facts.name,
}


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of the list. endpoint: its JSON; None where it is the upstream's own line."""

    row: UpstreamFacts
    endpoint: Mapping[str, Any] | None

    @property
    def key(self) -> tuple[str, str]:
        return self.row.name, "" if self.endpoint is None else text_of(self.endpoint, "address")


class TopScreen:
    """The picture and where in it one is."""

    def __init__(self, look: Look) -> None:
        self._look = look
        # What was said last, and when, in monotonic seconds.
        self._view: Mapping[str, Any] | None = None
        self._said_at = 0.0
        self._problem = ""
        self._history: Mapping[str, list[float | None]] = {}
        # What the keys have chosen.
        self._sort = "rate"
        self._filter = ""
        self._typing = False
        self._selected = ("", "")  # the upstream, and the endpoint's address or nothing
        self._expanded: set[str] = set()
        # Of the last picture.
        self._rows: list[UpstreamFacts] = []
        self._first = 0  # the first line of the list that is shown
        self._page = 1
        self.ended = False

    def hear(self, view: Mapping[str, Any], now: float) -> None:
        """A new answer."""
        self._view, self._said_at, self._problem = view, now, ""
        self._rows = [upstream_facts(upstream) for upstream in mappings_of(view, "upstreams")]
        self._expanded &= {row.name for row in self._rows}

    def miss(self, problem: str, now: float) -> None:
        """No answer, and why. The last one stays, greyed."""
        if self._view is None:
            self._said_at = now
        self._problem = problem

    def remember(self, history: Mapping[str, Any]) -> None:
        """The answer of `/history`: the rates of the last minutes."""
        upstreams = history.get("upstreams")
        self._history = {
            name: [number if isinstance(number, (int, float)) else None for number in points]
            for name, series in (upstreams.items() if isinstance(upstreams, dict) else ())
            if isinstance(series, dict) and isinstance(points := series.get("requests"), list)
        }

    # Keys

    def press(self, key: str) -> None:
        """Do what `key` means, see `keys.Keys`; nothing for others."""
        if self._typing:
            self._type(key)
            return
        lines = self._lines()
        position = self._position(lines)
        if key == "q":
            self.ended = True
        elif key == "s":
            names = list(SORTS)
            self._sort = names[(names.index(self._sort) + 1) % len(names)]
        elif key == "/":
            self._typing = True
        elif key == "escape":
            self._filter = ""
        elif key in ("enter", " "):
            if lines:
                name = lines[position].row.name
                self._expanded ^= {name}
                self._selected = (name, "")
        else:
            moved = {
                "up": position - 1,
                "k": position - 1,
                "down": position + 1,
                "j": position + 1,
                "page up": position - self._page,
                "page down": position + self._page,
                "home": 0,
                "g": 0,
                "end": len(lines) - 1,
                "G": len(lines) - 1,
            }.get(key)
            if moved is not None and lines:
                self._selected = lines[min(max(0, moved), len(lines) - 1)].key

    def _type(self, key: str) -> None:
        if key == "enter":
            self._typing = False
        elif key == "escape":
            self._typing, self._filter = False, ""
        elif key == "backspace":
            self._filter = self._filter[:-1]
        elif len(key) == 1 and len(self._filter) < MAX_FILTER:
            self._filter += key

    def _shown(self) -> list[UpstreamFacts]:
        """The upstreams that the filter lets through, in the order of the sort."""
        wanted = self._filter.casefold()
        found = [row for row in self._rows if wanted in row.name.casefold() or wanted == row.state]
        return sorted(found, key=SORTS[self._sort])

    def _lines(self) -> list[_Line]:
        """What the list consists of: the upstreams, and below each expanded one its endpoints, the ill ones first."""
        lines: list[_Line] = []
        for row in self._shown():
            lines.append(_Line(row, None))
            if row.name in self._expanded:
                lines += [_Line(row, endpoint) for endpoint in sorted(row.endpoints, key=is_up)]
        return lines

    def _position(self, lines: Sequence[_Line]) -> int:
        return next((place for place, line in enumerate(lines) if line.key == self._selected), 0)

    # The picture

    def picture(self, width: int, height: int, now: float) -> Group:
        """`height` lines of `width` columns. now: monotonic seconds."""
        head = self._head(now)
        foot = [self._foot()]
        said = notes(self._view, self._look)[:NOTES] if self._view is not None else []
        shown = self._shown()
        columns, name_width, trend_width = self._columns(shown, width)
        head.append(self._titles(columns, name_width, trend_width))
        # However few lines there are, one is an upstream's, and notes are the first to go.
        room = max(1, height - len(head) - len(foot) - len(said))
        if room < 5:
            said, room = [], max(1, height - len(head) - len(foot))
        lines = self._lines()
        at = self._position(lines)
        self._first = min(max(0, self._first, at - room + 1), max(0, len(lines) - room))
        self._first = min(self._first, at)
        self._page = max(1, room - 1)
        body = self._body(lines[self._first : self._first + room], columns, name_width, trend_width, now)
        if lines:
            body[at - self._first].stylize("reverse")
            body[at - self._first].plain = ">" + body[at - self._first].plain[1:]
        elif self._view is not None:
            body.append(Text("  no upstream matches" if self._rows else "  no upstreams", style="dim"))
        body += [Text()] * (room - len(body))
        if self._problem:
            for line in (*body, *said):
                line.stylize("dim")
        every = [*head, *body, *said, *foot][:height]
        for line in every:
            line.truncate(width, overflow="ellipsis" if self._look.unicode else "crop")
            line.no_wrap, line.overflow = True, "crop"
        return Group(*every)

    def _head(self, now: float) -> list[Text]:
        if self._view is None:
            problem = Text(looks.clean(self._problem or "asking the sidecar"), style="bold")
            return [problem, Text()]
        first = header(self._view)
        if self._problem:
            first = Text(
                f"no answer for {looks.age(now - self._said_at)}; asking again. {looks.clean(self._problem)}",
                style=looks.PANIC,
            )
        return [first, self._sum()]

    def _sum(self) -> Text:
        rows = self._rows
        text = Text(f"{len(rows)} upstream{'s' * (len(rows) != 1)}:")
        for state in reversed(_STATES):
            many = sum(1 for row in rows if row.state == state)
            if many:
                text.append(" ").append_text(self._look.state(state, f"{many} {looks.word(state)}"))
        rates = [row.rate for row in rows if row.rate is not None and row.scheme in ("http", "https")]
        if rates:
            text.append(f"; {looks.figure(sum(rates))} req/s")
        return text

    def _foot(self) -> Text:
        if self._typing:
            return Text(f"/{looks.clean(self._filter)}_  (Enter keeps it, Esc drops it)", style="bold")
        chosen = f"  filter: {looks.clean(self._filter)} (Esc drops it)" if self._filter else ""
        return Text(
            f"q quit  s sort: {self._sort}  j/k select  Enter endpoints  / filter{chosen}", style="dim"
        )

    def _columns(self, shown: Sequence[UpstreamFacts], width: int) -> tuple[list[Column], int, int]:
        """Which columns there are, how wide the name is, and how wide the trend; 0 where it has no room."""
        longest = max((cell_len(looks.clean(row.name)) for row in shown), default=0)
        wanted = min(max(8, longest), NAME_WIDTH)
        columns = columns_within(width - 2, min(wanted, 16), shown)
        taken = sum(column.width + 1 for column in columns) + 2
        name_width = max(4, min(wanted, width - taken))
        left = width - taken - name_width - 1
        return columns, name_width, min(TREND_WIDTH, left) if left >= 10 and self._history else 0

    def _titles(self, columns: Sequence[Column], name_width: int, trend_width: int) -> Text:
        text = Text("  ", style="bold underline").append("upstream".ljust(name_width))
        for column in columns:
            text.append(" ").append(
                column.title.rjust(column.width) if column.right else column.title.ljust(column.width)
            )
        if trend_width:
            text.append(" ").append(f"last {looks.age(trend_width * 5.0)}".ljust(trend_width)[:trend_width])
        return text

    def _body(
        self,
        lines: Sequence[_Line],
        columns: Sequence[Column],
        name_width: int,
        trend_width: int,
        now: float,
    ) -> list[Text]:
        """Those lines that are shown."""
        passed = max(0.0, now - self._said_at)
        told = {
            line.key: endpoint_facts(line.endpoint, panic=line.row.state == "panic", passed=passed)
            for line in lines
            if line.endpoint is not None
        }
        longest = max((cell_len(looks.clean(one.address)) for one in told.values()), default=0)
        return [
            self._upstream(line.row, columns, name_width, trend_width)
            if line.endpoint is None
            else self._endpoint(told[line.key], min(ADDRESS_WIDTH, longest))
            for line in lines
        ]

    def _upstream(
        self,
        row: UpstreamFacts,
        columns: Sequence[Column],
        name_width: int,
        trend_width: int,
    ) -> Text:
        text = Text(" -" if row.name in self._expanded else "  ")
        text.append_text(self._cell(Text(looks.clean(row.name)), name_width, right=False))
        found = cells(row, self._look)
        for column in columns:
            text.append(" ")
            text.append_text(self._cell(found[column.key], column.width, right=column.right))
        if trend_width:
            trend = self._look.trend(self._history.get(row.name, []), trend_width)
            text.append(" ").append(trend.rjust(trend_width), style="blue")
        return text

    def _endpoint(self, endpoint: EndpointFacts, width: int) -> Text:
        text = Text("     ")
        text.append_text(self._cell(Text(looks.clean(endpoint.address)), width, right=False)).append(" ")
        text.append_text(self._cell(self._look.state(endpoint.state), 11, right=False)).append(" ")
        if endpoint.probe_in is not None:
            text.append(f"{endpoint.probe_in:.0f} s: " if endpoint.probe_in else "now: ", style="bold")
        if not endpoint.well or endpoint.why != "in rotation":
            text.append(f"{looks.clean(endpoint.why)}; ")
        text.append(
            f"{looks.count(endpoint.active)} active, {looks.count(endpoint.ok)} ok, "
            f"{looks.count(endpoint.failed)} failed, {endpoint.idle} of {endpoint.open} connections idle",
            style="dim",
        )
        return text

    def _cell(self, text: Text, width: int, *, right: bool) -> Text:
        cell = text.copy()
        cell.truncate(width, overflow="ellipsis" if self._look.unicode else "crop")
        cell.align("right" if right else "left", width)
        return cell
