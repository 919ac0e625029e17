"""How things look in a terminal: one word, symbol and colour for each state, one way to write each kind of number.

Colour is never alone: the word says the same, and the symbol does where words are far apart. What comes from outside
(names, addresses, errors) goes through `clean`, so that none of it is taken for an order to the terminal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

__all__ = [
    "DRAINED",
    "PANIC",
    "STALE",
    "Look",
    "age",
    "clean",
    "count",
    "duration",
    "figure",
    "look_of",
    "percent",
    "size",
    "word",
]

NOTHING = "-"  # where a number is not known
PANIC = "bold red"
STALE = "yellow"
DRAINED = "drained by hand; until `sidecar enable`"

_BLOCKS = "▁▂▃▄▅▆▇█"
_BLOCKS_ASCII = "_.-=+*#@"  # the more ink, the more
_THOUSANDS = ("", "k", "M", "G", "T", "P", "E")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


@dataclass(frozen=True, slots=True)
class _Mark:
    word: str
    symbol: str
    ascii: str
    style: str


_MARKS = {
    # upstreams, see `facts`
    "well": _Mark("well", "●", "+", "green"),
    "idle": _Mark("idle", "○", ".", "dim"),
    "degraded": _Mark("degraded", "▲", "~", "yellow"),
    "drained": _Mark("drained", "◌", "-", "cyan"),
    "failing": _Mark("failing", "×", "x", "bold red"),  # noqa: RUF001 - a cross, not a letter
    "panic": _Mark("panic", "‼", "!", PANIC),
    # breakers
    "closed": _Mark("closed", "●", "+", "green"),
    "half_open": _Mark("half open", "◐", "~", "yellow"),
    "open": _Mark("open", "×", "x", "bold red"),  # noqa: RUF001
    # services that `sidecar health` has asked
    "healthy": _Mark("healthy", "●", "+", "green"),
    "unhealthy": _Mark("unhealthy", "×", "x", "bold red"),  # noqa: RUF001
    "circuit_open": _Mark("circuit open", "×", "x", "bold red"),  # noqa: RUF001
    "unknown": _Mark("unknown", "?", "?", "yellow"),
    # registrations
    "announced": _Mark("announced", "●", "+", "green"),
    "unwell": _Mark("unwell", "▲", "~", "yellow"),
    "withdrawn": _Mark("withdrawn", "○", ".", "dim"),
}


@dataclass(frozen=True, slots=True)
class Look:
    """What an output can show. plain: no terminal, so neither colours nor symbols. unicode: more than ASCII."""

    plain: bool
    unicode: bool = True

    def state(self, name: str, text: str | None = None) -> Text:
        """A state by its name in JSON, with its colour and symbol. text: instead of its word."""
        mark = _MARKS.get(name)
        said = word(name) if text is None else clean(text)
        if mark is None:
            return Text(said)
        if self.plain:
            return Text(said, style=mark.style)
        return Text(f"{mark.symbol if self.unicode else mark.ascii} {said}", style=mark.style)

    def table(self, caption: str | None = None) -> Table:
        """A table as ours look: without lines, which take the columns that a terminal of 80 needs for addresses."""
        return Table(
            box=None,
            pad_edge=False,
            padding=(0, 2 if self.plain else 1, 0, 0),
            header_style="" if self.plain else "bold underline",
            caption=caption,
            caption_justify="left",
            caption_style="" if self.plain else "dim",
        )

    def trend(self, points: Sequence[float | None], width: int) -> str:
        """The last `width` points as blocks, the highest of them filling its cell; a gap where nothing is known."""
        blocks = _BLOCKS if self.unicode else _BLOCKS_ASCII
        shown = points[-width:] if width > 0 else []
        top = max((point for point in shown if point is not None), default=0.0)
        return "".join(
            " " if point is None else blocks[min(7, int(max(0.0, point) / top * 8))] if top > 0 else blocks[0]
            for point in shown
        )

    def bar(self, share: float, width: int) -> str:
        """A share of 0 to 1 as a bar, `width` cells for all of it."""
        return ("█" if self.unicode else "#") * round(share * width)


def look_of(console: Console) -> Look:
    """What `console` can show."""
    return Look(plain=not console.is_terminal, unicode=console.encoding.startswith("utf"))


def word(state: str) -> str:
    """The word for a state that JSON spells `half_open`."""
    mark = _MARKS.get(state)
    return clean(state).replace("_", " ") if mark is None else mark.word


def clean(text: str) -> str:
    """`text` with whatever is no printable character replaced: escape sequences, and marks that reorder a line."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )


def figure(value: float | None) -> str:
    """Three significant digits: 0, 0.25, 12.3, 123, 1.23k. Not known: a dash."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if value == 0:
        return "0"
    if abs(value) < 0.01:
        return "<0.01"
    return _digits(*_scaled(value, 1000.0, _THOUSANDS))


def count(value: int | None) -> str:
    """A whole number, with `k`, `M` and so on from a thousand."""
    if value is None:
        return NOTHING
    return str(value) if abs(value) < 1000 else figure(value)


def percent(ratio: float | None) -> str:
    """A ratio of 0 to 1."""
    return NOTHING if ratio is None else f"{figure(ratio * 100.0)}%"


def duration(seconds: float | None) -> str:
    """A short time: milliseconds below one second, seconds from there."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if seconds < 0.9995:
        return f"{figure(seconds * 1000.0)} ms"
    return f"{_three(seconds)} s"


def size(octets: float | None) -> str:
    """So many bytes, in powers of 1024."""
    if octets is None or not math.isfinite(octets):
        return NOTHING
    value, unit = _scaled(octets, 1024.0, _BINARY)
    return f"{round(value) if unit == 'B' else _three(value)} {unit}"


def age(seconds: float | None) -> str:
    """A long time, in its two largest units: 42 s, 3 m 20 s, 2 h 5 m, 3 d 4 h."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    left = max(0, round(seconds))
    if left < 60:
        return f"{left} s"
    if left < 3600:
        return f"{left // 60} m {left % 60} s"
    if left < 86400:
        return f"{left // 3600} h {left % 3600 // 60} m"
    return f"{left // 86400} d {left % 86400 // 3600} h"


def _scaled(value: float, step: float, units: Sequence[str]) -> tuple[float, str]:
    """`value` in the largest unit that leaves it at 1 or more, once it is rounded to three digits."""
    position = 0
    while max(abs(value), float(f"{abs(value):.3g}")) >= step and position + 1 < len(units):
        value /= step
        position += 1
    return value, units[position]


def _digits(value: float, unit: str) -> str:
    return f"{_three(value)}{unit}"


def _three(value: float) -> str:
    rounded = abs(float(f"{value:.3g}"))
    return f"{value:.{0 if rounded >= 100 else 1 if rounded >= 10 else 2}f}"
