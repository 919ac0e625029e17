"""The answer of `/upstreams` as a picture: a line for the process, a row an upstream, and what is not well."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TextIO

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.text import Text

from sidecar.console import look as looks
from sidecar.console.facts import (
    endpoint_facts,
    is_up,
    mapping_of,
    mappings_of,
    moment_of,
    number_of,
    text_of,
    upstream_facts,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.table import Table

    from sidecar.console.facts import EndpointFacts, UpstreamFacts
    from sidecar.console.look import Look

__all__ = [
    "Column",
    "cells",
    "columns_within",
    "drawn",
    "header",
    "make_console",
    "notes",
    "status_picture",
    "upstreams_table",
]

# Columns of output that goes to a file or a pipe: with names of 253 characters (RFC 1035 2.3.4) no row of ours is
# longer, and nothing there wraps or cuts.
_WIDTH_WITHOUT_TERMINAL = 1000

# Endpoints that are listed because they are not well, of an upstream and of all: more say nothing new to a person, a
# row takes rich 1 ms, and `--json` and `--endpoints` have all.
MAX_ILL = 10
MAX_LISTED = 200

NAME_WIDTH = 16  # columns that a name keeps while other columns can give way


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the upstreams' table. width: in cells; rank: the higher, the earlier it gives way to others."""

    key: str
    title: str
    width: int
    rank: int = 0
    right: bool = True


_COLUMNS = (
    Column("state", "state", 10, right=False),
    Column("rate", "req/s", 5),
    Column("errors", "errors", 6, 1),
    Column("p50", "p50", 7, 6),
    Column("p99", "p99", 7, 2),
    Column("active", "active", 6, 4),
    Column("pending", "pending", 7, 7),
    Column("retries", "retries", 7, 8),
    Column("sent", "sent/s", 8, 9),
    Column("received", "recv/s", 8, 10),
    Column("up", "up", 7, 3, right=False),
)


def make_console(output: TextIO) -> Console:
    """A console on `output`: colours and the terminal's width on a terminal, wide plain text elsewhere."""
    if output.isatty():
        return Console(file=output, highlight=False)
    return Console(file=output, highlight=False, color_system=None, width=_WIDTH_WITHOUT_TERMINAL)


def drawn(picture: RenderableType, console: Console) -> str:
    """The lines that `console` would show, without blanks at their ends, in characters that its output takes."""
    with console.capture() as capture:  # rich itself would end the process on a broken pipe
        console.print(picture)
    text = "\n".join(line.rstrip() for line in capture.get().rstrip("\n").splitlines())
    return text.encode(console.encoding, "replace").decode(console.encoding)


def columns_within(width: int, name_width: int, rows: Iterable[UpstreamFacts]) -> list[Column]:
    """The columns that have room beside names of `name_width` cells; the least important ones give way first."""
    rows = list(rows)
    # A number of endpoints that is cut would be another number.
    up = max((len(_up(row)) for row in rows), default=0)
    shown = [replace(one, width=max(one.width, up)) if one.key == "up" else one for one in _COLUMNS]
    if not any(row.sent or row.received for row in rows):  # no sessions, of which alone bytes are counted
        shown = [column for column in shown if column.key not in ("sent", "received")]
    while sum(column.width + 1 for column in shown) + name_width > width and any(one.rank for one in shown):
        shown.remove(max(shown, key=lambda column: column.rank))
    return shown


def cells(facts: UpstreamFacts, look: Look) -> dict[str, Text]:
    """What stands in each column of an upstream's row, by the column's key."""
    errors = facts.errors or 0.0
    some_down = (
        ""
        if facts.up == facts.total and (facts.total or facts.routes)
        else "yellow"
        if facts.up
        else looks.PANIC
    )
    return {
        "state": look.state(facts.state),
        "rate": Text(looks.figure(facts.rate)),
        "errors": Text(looks.percent(facts.errors), style="red" if errors > 0 else ""),
        "p50": Text(looks.duration(facts.p50)),
        "p99": Text(looks.duration(facts.p99)),
        "active": Text(looks.count(facts.active)),
        "pending": Text(looks.count(facts.pending), style="yellow" if facts.pending else ""),
        "retries": Text(looks.count(facts.retries)),
        "sent": Text(looks.size(facts.sent)),
        "received": Text(looks.size(facts.received)),
        "up": Text(_up(facts), style=some_down),
    }


def _up(facts: UpstreamFacts) -> str:
    if facts.routes:
        return f"{facts.routes} route{'s' * (facts.routes > 1)}"
    return f"{facts.up}/{facts.total}"


def status_picture(view: Mapping[str, Any], look: Look, width: int, *, every_endpoint: bool = False) -> Group:
    """All of `view`, see `admin.views.upstreams_view`, in `width` columns."""
    rows = [upstream_facts(upstream) for upstream in mappings_of(view, "upstreams")]
    parts: list[RenderableType] = [header(view), Text(), upstreams_table(rows, look, width)]
    endpoints = _endpoints(view, rows, look, width, every=every_endpoint)
    if endpoints:
        parts += [Text(), *endpoints]
    below = notes(view, look)
    if below:
        parts += [Text(), *below]
    return Group(*parts)


def header(view: Mapping[str, Any]) -> Text:
    """Which process this is, and whose numbers these are where it is not one."""
    parts = [f"sidecar {text_of(view, 'version')}".rstrip()]
    compiled = view.get("compiled")
    if isinstance(compiled, bool):
        parts.append("compiled" if compiled else "pure Python")
    parts.append(f"mode {text_of(view, 'mode') or 'unknown'}")
    if "workers" in view:
        workers = {
            key: int(number_of(mapping_of(view, "workers"), key) or 0)
            for key in ("running", "configured", "leaving", "silent", "restarts")
        }
        parts.append(f"together: {workers['running']} of {workers['configured']} workers")
        parts += [f"{workers[key]} {key}" for key in ("leaving", "silent", "restarts") if workers[key]]
    started, at = (moment_of(view, key) for key in ("started_at", "at"))
    if started is not None and at is not None:  # by its own clock: ours may be another machine's
        parts.append(f"up {looks.age(at - started)}")
    text = Text(looks.clean(", ".join(parts)), style="bold")
    if view.get("draining") is True:
        text.append(", draining", style=looks.PANIC)
    return text


def upstreams_table(rows: Sequence[UpstreamFacts], look: Look, width: int) -> Table:
    """A row an upstream. A narrow terminal drops columns, and folds names over two lines rather than cut them."""
    longest = max((cell_len(looks.clean(row.name)) for row in rows), default=0)
    shown = columns_within(width, max(8, min(longest, NAME_WIDTH)), rows)
    table = look.table()
    table.add_column("upstream", overflow="fold", min_width=min(8, longest))
    for column in shown:
        table.add_column(
            column.title,
            justify="right" if column.right else "left",
            no_wrap=True,
            min_width=column.width if column.key == "state" and not look.plain else None,
        )
    for row in rows:
        row_cells = cells(row, look)
        name = looks.clean(row.name) + (" (leaving)" if row.leaving else "")
        # Text objects, not strings: rich would take brackets for its mark-up.
        table.add_row(Text(name), *(row_cells[column.key] for column in shown))
    if not rows:
        table.add_row(Text("no upstreams", style="dim"))
    return table


def _endpoints(
    view: Mapping[str, Any], rows: Sequence[UpstreamFacts], look: Look, width: int, *, every: bool
) -> list[RenderableType]:
    """The endpoints that are not well and why, or `every` one."""
    found: list[tuple[str, list[EndpointFacts], int]] = []
    room, left_out = MAX_LISTED, 0
    for upstream, row in zip(mappings_of(view, "upstreams"), rows, strict=True):
        panic = upstream.get("panic") is True
        chosen = row.endpoints if every else [one for one in row.endpoints if not is_up(one)]
        if not chosen and (row.total or row.routes):
            continue
        most = len(chosen) if every else min(MAX_ILL, room)
        if most <= 0 and not every:
            left_out += 1
            continue
        room -= max(1, min(most, len(chosen)))
        told = [endpoint_facts(endpoint, panic=panic) for endpoint in chosen[:most]]
        found.append((looks.clean(row.name), told, len(chosen) - most))
    if not found:
        return []
    parts: list[RenderableType] = []
    if width < 80:
        parts += _endpoint_lines(found, look)
    else:
        parts.append(_endpoint_table(found, look, width, every=every))
    if left_out:
        parts.append(Text(f"and {left_out} more upstreams with endpoints that are not well", style="dim"))
    return parts


def _endpoint_table(
    found: list[tuple[str, list[EndpointFacts], int]], look: Look, width: int, *, every: bool
) -> Table:
    table = look.table()
    table.add_column("upstream" if every else "not well", overflow="fold")
    table.add_column("endpoint", overflow="fold")
    table.add_column("state", no_wrap=True)
    for title in ("active", "ok", "failed", "idle/open") if width >= 110 else ("active",):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("why", overflow="fold")
    for name, told, more in found:
        for position, endpoint in enumerate(told):
            table.add_row(Text(name if position == 0 else ""), *_endpoint_cells(endpoint, look, width))
        if not told:
            table.add_row(Text(name), Text("no endpoints", style=looks.PANIC))
        elif more > 0:
            table.add_row(Text(""), Text(f"and {more} more", style="dim"))
    return table


def _endpoint_cells(endpoint: EndpointFacts, look: Look, width: int) -> list[Text]:
    numbers = [Text(looks.count(endpoint.active))]
    if width >= 110:
        numbers += [
            Text(looks.count(endpoint.ok)),
            Text(looks.count(endpoint.failed), style="red" if endpoint.failed else ""),
            Text(f"{endpoint.idle}/{endpoint.open}"),
        ]
    return [
        Text(looks.clean(endpoint.address)),
        look.state(endpoint.state),
        *numbers,
        Text(looks.clean(endpoint.why)),
    ]


def _endpoint_lines(found: list[tuple[str, list[EndpointFacts], int]], look: Look) -> list[RenderableType]:
    """The same where a table would be all folds."""
    lines: list[RenderableType] = []
    for name, told, more in found:
        if not told:
            lines.append(Text.assemble(f"{name}: ", ("no endpoints", looks.PANIC), overflow="fold"))
        for endpoint in told:
            line = Text(f"{name} {looks.clean(endpoint.address)} ", overflow="fold")
            lines.append(
                line.append_text(look.state(endpoint.state)).append(f": {looks.clean(endpoint.why)}")
            )
        if more > 0:
            lines.append(Text(f"and {more} more", style="dim"))
    return lines


def notes(view: Mapping[str, Any], look: Look) -> list[Text]:
    """A line for each registry that is stale, and for each service that is announced or should be."""
    lines = [Text(looks.clean(line), style=looks.STALE, overflow="fold") for line in _stale(view)]
    for one in mappings_of(view, "registrations"):
        line = Text(f"registration {looks.clean(text_of(one, 'name'))}: ", overflow="fold")
        line.append_text(look.state(text_of(one, "state")))
        line.append(f" in {looks.clean(text_of(one, 'registry'))}")
        address, error = (looks.clean(text_of(one, key)) for key in ("address", "error"))
        line.append(f" as {address}" if address else "").append(f": {error}" if error else "")
        lines.append(line)
    return lines


def _stale(view: Mapping[str, Any]) -> list[str]:
    """Which registries err or are silent, for how many upstreams, since when and why."""
    feeds: dict[str, list[Mapping[str, Any]]] = {}
    for upstream in mappings_of(view, "upstreams"):
        for feed in mappings_of(upstream, "registries"):
            feeds.setdefault(text_of(feed, "source"), []).append(feed)
    lines = []
    for source, all_of_it in feeds.items():
        stale = [feed for feed in all_of_it if feed.get("stale") is True]
        if not stale:
            continue
        ages = [found for found in (number_of(feed, "age") for feed in stale) if found is not None]
        heard = f"last heard of {looks.age(max(ages))} ago" if len(ages) == len(stale) else "not heard of yet"
        error = next((f": {said}" for said in (text_of(feed, "error") for feed in stale) if said), "")
        lines.append(
            f"{source} is stale for {len(stale)} of {len(all_of_it)} upstream{'s' * (len(all_of_it) > 1)},"
            f" {heard}{error}"
        )
    return lines
