"""The answer of `/upstreams` as tables, one row an endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["STATE_STYLES", "make_console", "make_table", "status_picture", "upstreams_table"]

STATE_STYLES = {"closed": "green", "open": "bold red", "half_open": "yellow"}

_HELD = {"checks": "checks", "hand": "by hand"}  # what it waits for instead of a time

# Columns of output that goes to a file or a pipe: no row of ours is longer, and nothing there wraps or cuts.
_WIDTH_WITHOUT_TERMINAL = 240

_FAILURES = frozenset(
    {
        "failure_status",
        "connect_refused",
        "connect_timeout",
        "request_timeout",
        "reset",
        "bad_response",
        "outrun",
    }
)


def make_console(output: TextIO) -> Console:
    """A console on `output`: colours and the terminal's width on a terminal, wide plain text elsewhere."""
    if output.isatty():
        return Console(file=output, highlight=False)
    return Console(file=output, highlight=False, color_system=None, width=_WIDTH_WITHOUT_TERMINAL)


def make_table(*, plain: bool, caption: str | None = None) -> Table:
    """A table as ours look. plain: without lines, for output that is no terminal."""
    return Table(
        box=None,  # its lines would take the columns that a terminal of 80 needs for addresses
        pad_edge=False,
        padding=(0, 2 if plain else 1, 0, 0),
        header_style="" if plain else "bold underline",
        caption=caption,
        caption_justify="left",
        caption_style="" if plain else "dim",
    )


def status_picture(view: Mapping[str, Any], *, plain: bool) -> Group:
    """The table of `view`, and below it a line for each registry that is stale. plain: see `make_table`."""
    # Not its caption, which would be folded to the width of the table.
    notes = [Text(line, style="" if plain else "yellow") for line in _stale(view)]
    return Group(upstreams_table(view, plain=plain), *notes)


def upstreams_table(view: Mapping[str, Any], *, plain: bool) -> Table:
    """Draw `view`, see `admin.views.upstreams_view`. plain: see `make_table`."""
    table = make_table(plain=plain, caption=_workers(view))
    # A narrow terminal folds what identifies a row over two lines rather than cut it.
    table.add_column("upstream", overflow="fold")
    table.add_column("endpoint", overflow="fold")
    table.add_column("breaker", no_wrap=True)
    for name in ("retry", "active", "ok", "failed", "idle/open"):
        table.add_column(name, justify="right")
    for upstream in view["upstreams"]:
        rows = [_endpoint_cells(endpoint) for endpoint in upstream["endpoints"]]
        # Text objects, not strings: rich would take the brackets of an IPv6 address for its mark-up.
        for position, cells in enumerate(rows or [[Text("no endpoints", style="red")]]):
            table.add_row(Text(upstream["name"] if position == 0 else ""), *cells)
    return table


def _stale(view: Mapping[str, Any]) -> list[str]:
    """Which registries err or are silent, for how many upstreams, since when and why."""
    feeds: dict[str, list[Mapping[str, Any]]] = {}
    for upstream in view["upstreams"]:
        for feed in upstream.get("registries", ()):
            feeds.setdefault(feed["source"], []).append(feed)
    lines = []
    for source, all_of_it in feeds.items():
        stale = [feed for feed in all_of_it if feed["stale"]]
        if not stale:
            continue
        ages = [feed["age"] for feed in stale if feed["age"] is not None]
        heard = f"last heard of {max(ages):.0f} s ago" if len(ages) == len(stale) else "not heard of yet"
        error = next((f": {feed['error']}" for feed in stale if feed["error"]), "")
        lines.append(
            f"{source} is stale for {len(stale)} of {len(all_of_it)} upstream{'s' * (len(all_of_it) > 1)},"
            f" {heard}{error}"
        )
    return lines


def _workers(view: Mapping[str, Any]) -> str | None:
    """Whose numbers these are, where it is not one process."""
    workers = view.get("workers")
    if workers is None:
        return None
    text = f"together: {workers['running']} of {workers['configured']} workers"
    for count, words in ((workers["leaving"], "leaving"), (workers["silent"], "silent")):
        text += f", {count} {words}" if count else ""
    return text


def _endpoint_cells(endpoint: Mapping[str, Any]) -> list[Text]:
    breaker = endpoint["breaker"]
    attempts: Mapping[str, int] = endpoint["attempts"]
    connections = endpoint["connections"]
    retry_in = breaker["retry_in"]
    failed = sum(count for outcome, count in attempts.items() if outcome in _FAILURES)
    return [
        Text(endpoint["address"]),
        Text(breaker["state"].replace("_", " "), style=STATE_STYLES.get(breaker["state"], "")),
        Text(_HELD.get(breaker.get("held"), "") if retry_in is None else f"{retry_in:.1f} s"),
        Text(str(endpoint["in_flight"])),
        Text(str(attempts.get("success", 0))),
        Text(str(failed), style="red" if failed else ""),
        Text(f"{connections['idle']}/{connections['open']}"),
    ]
