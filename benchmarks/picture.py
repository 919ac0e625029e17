"""The figures as an SVG of bars: `python3 benchmarks/picture.py results.json results.svg`.

A block for each scenario, a bar for each proxy, all in one scale: the ratio to HAProxy, whose bar ends at the thin
line. The background stays clear, and the colours are such that light and dark pages both show them; where the
viewer tells which it is, the text follows.
"""

import json
import sys
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

from machine import words

__all__ = ["draw"]

WIDTH = 900
MARGIN = 12
GUTTER = 36  # between the columns
TOP = 62
NAME = 84  # for the name of a proxy
LABEL = 128  # for the figures behind the longest bar
BAR = 11
LINE = 16
HEAD = 22  # for the title of a scenario
GAP = 14  # below a scenario
FOOT = 17
CUT = 4.0  # times HAProxy: a longer bar is cut off, and its figure says how long it is

COLOURS = {
    "sidecar": "#2f81f7",
    "pure Python": "#7aa7e0",
    "before": "#c08a3e",
    "HAProxy": "#8b949e",
    "nginx": "#3fa45b",
    "Envoy": "#a371c9",
    "floor": "#57606a",
}
REFERENCE = "HAProxy"
STYLE = """text{font:12px system-ui,-apple-system,"Segoe UI",Helvetica,Arial,sans-serif;fill:#6e7781}
.title{font-size:15px;font-weight:600}.head{font-weight:600}.own{font-weight:600}.line{stroke:#8b949e;stroke-width:1}
.cut{stroke:#fff;stroke-width:2}
@media(prefers-color-scheme:light){text{fill:#424a53}.title,.head,.own{fill:#1f2328}}
@media(prefers-color-scheme:dark){text{fill:#9da7b3}.title,.head,.own{fill:#f0f6fc}.cut{stroke:#0d1117}}"""


def draw(data: dict[str, Any]) -> str:
    """The picture of what `run.py --json` writes."""
    blocks: dict[str, list[dict[str, Any]]] = {}
    for entry in data["results"]:
        blocks.setdefault(entry["scenario"], []).append(entry)
    middle = (len(blocks) + 1) // 2
    columns = [list(blocks.values())[:middle], list(blocks.values())[middle:]]
    width = (WIDTH - 2 * MARGIN - GUTTER) / 2
    shapes: list[str] = []
    bottom = TOP
    for number, column in enumerate(columns):
        y = TOP
        for block in column:
            y = _block(block, MARGIN + number * (width + GUTTER), y, width, shapes)
        bottom = max(bottom, y)
    feet = _feet(data)
    for line in feet:
        bottom += FOOT
        shapes.append(_text(MARGIN, bottom, line))
    height = bottom + MARGIN
    view = f'viewBox="0 0 {WIDTH} {height}"'
    title = "Cost of a request through each proxy, relative to HAProxy (shorter is better)"
    about = "CPU time of the proxy's process for each request; for idle connections, memory for each."
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" {view} role="img">',
            f"<title>{escape(title)}</title>",
            f"<desc>{escape(' '.join([about, *_told(blocks)]))}</desc>",
            f"<style>{STYLE}</style>",
            _text(MARGIN, 24, title, "title"),
            _text(MARGIN, 43, about),
            *shapes,
            "</svg>",
            "",
        ]
    )


def _block(block: list[dict[str, Any]], x: float, y: float, width: float, shapes: list[str]) -> float:
    """Draw one scenario; gives where the next one begins."""
    reference = _reference(block)
    unit = block[0]["unit"]
    shapes.append(_text(x, y + 12, block[0]["title"], "head"))
    y += HEAD
    room = width - NAME - LABEL
    # Without HAProxy the bars are relative to the longest.
    scale = room / CUT if reference else room / max(entry["figure"] for entry in block)
    start = y
    for entry in block:
        name = entry["proxy"]
        ratio = entry["figure"] / reference if reference else entry["figure"]
        length = max(1.0, min(ratio * scale, room))
        colour = COLOURS.get(name, COLOURS["before"])
        own = "own" if name == "sidecar" else ""
        shapes.append(_text(x, y + BAR - 1, name, own))
        shapes.append(
            f'<rect x="{x + NAME:.1f}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2" fill="{colour}"/>'
        )
        if ratio * scale > room:
            at = x + NAME + room - 12
            shapes.append(f'<path class="cut" d="M{at:.1f} {y + BAR + 1}l4 {-BAR - 2}m3 0l-4 {BAR + 2}"/>')
        label = _figure(entry["figure"], unit) + (f" · {ratio:.2f} x" if reference else "")
        behind = max(length, scale) if reference else length  # not across the thin line
        shapes.append(_text(x + NAME + behind + 6, y + BAR - 1, label, own))
        y += LINE
    if reference:
        at = x + NAME + scale
        shapes.append(f'<path class="line" d="M{at:.1f} {start - 3}V{y - 1}"/>')
    return y + GAP


def _reference(block: list[dict[str, Any]]) -> float | None:
    return next((entry["figure"] for entry in block if entry["proxy"] == REFERENCE), None)


def _figure(value: float, unit: str) -> str:
    digits = 0 if value >= 100 else 1
    return f"{value:,.{digits}f} {'KiB' if unit.startswith('KiB') else 'µs'}"


def _told(blocks: dict[str, list[dict[str, Any]]]) -> Iterable[str]:
    """The figures in words, for who does not see the bars."""
    for block in blocks.values():
        figures = ", ".join(f"{entry['proxy']} {_figure(entry['figure'], entry['unit'])}" for entry in block)
        yield f"{block[0]['title']}: {figures}."


def _feet(data: dict[str, Any]) -> list[str]:
    versions = " · ".join(f"{name} {version}" for name, version in data["proxies"].items())
    how = f"one worker each, medians of {data['turns']} turns in turn, {data['date']}"
    return [versions, f"{words(data['machine'])}; {how}"]


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{named}>{escape(text)}</text>'


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python3 benchmarks/picture.py RESULTS.json PICTURE.svg")
    Path(sys.argv[2]).write_text(draw(json.loads(Path(sys.argv[1]).read_text())))
