"""`sidecar explain NAME`: why the next request of an upstream goes where it goes, as a running sidecar says."""

from __future__ import annotations

import json as jsonlib
import sys
from typing import TYPE_CHECKING, Any, TextIO
from urllib.parse import quote

from rich.table import Table
from rich.text import Text

from sidecar.console.asking import ask_about
from sidecar.console.tables import STATE_STYLES, make_console

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["show_reasons"]


def show_reasons(
    name: str, admin: str, *, json: bool, output: TextIO | None = None, errors: TextIO | None = None
) -> int:
    """Print what the sidecar at `admin` says about the upstream `name`, in words or as `json`.

    Returns the exit code: 0 when somebody is in rotation as it should be, 1 when nobody is, in panic, when nobody is
    called so or no sidecar answers, 2 when `admin` is no address.
    """
    output = sys.stdout if output is None else output
    errors = sys.stderr if errors is None else errors
    view = ask_about(admin, f"/v1/explain/{quote(name, safe='')}", "endpoints", errors)
    if isinstance(view, int):
        return view
    print(jsonlib.dumps(view, indent=2) if json else _drawn(view, output), file=output)
    fine = view["panic"] is None and any(endpoint["in_rotation"] for endpoint in view["endpoints"])
    return 0 if fine else 1


def _drawn(view: Mapping[str, Any], output: TextIO) -> str:
    console = make_console(output)
    plain = not console.is_terminal
    with console.capture() as capture:  # rich itself would end the process on a broken pipe
        console.print(Text(f"{view['name']} ({view['scheme']}), {view['strategy']}: {view['choice']}."))
        if view["panic"]:
            console.print(Text(f"panic: {view['panic']}.", style="bold red"))
        console.print()
        console.print(_endpoints(view["endpoints"], plain=plain))
        console.print()
        for line in (*_next(view["next"]), *_retries(view["retries"])):
            console.print(Text(line))
    return capture.get().rstrip("\n")


def _endpoints(endpoints: list[dict[str, Any]], *, plain: bool) -> Table:
    table = Table(
        box=None,
        pad_edge=False,
        padding=(0, 2 if plain else 1, 0, 0),
        header_style="" if plain else "bold underline",
    )
    table.add_column("endpoint", overflow="fold")
    table.add_column("zone", overflow="fold")
    for name in ("weight", "active"):
        table.add_column(name, justify="right")
    table.add_column("why", overflow="fold")
    table.add_column("since", no_wrap=True)
    for endpoint in endpoints:
        table.add_row(
            Text(endpoint["address"]),
            Text(endpoint["zone"] or "-"),
            Text(str(endpoint["weight"])),
            Text(str(endpoint["in_flight"])),
            Text(endpoint["why"], style=STATE_STYLES.get(endpoint["state"], "")),
            Text(endpoint["since"] or "-"),
        )
    if not endpoints:
        table.add_row(Text("no endpoints", style="red"))
    return table


def _next(picks: list[dict[str, Any]]) -> list[str]:
    lines = []
    for pick in picks:
        who = f"next, worker {pick['worker']}" if "worker" in pick else "next"
        endpoint = pick["endpoint"]
        lines.append(f"{who}: {pick['why']}" if endpoint is None else f"{who}: {endpoint} ({pick['why']})")
    return lines


def _retries(retries: Mapping[str, Any]) -> list[str]:
    attempts = retries["attempts"]
    on = ", ".join(retries["on"]) or "nothing"
    lines = [
        f"retries: up to {attempts} attempt{'s' if attempts > 1 else ''}, on {on}; {retries['elsewhere']}"
    ]
    if retries["per_try_timeout"]:
        lines.append(
            f"each attempt: {retries['per_try_timeout']:g} s from the request's end to the response's head"
        )
    budget = retries["budget"]
    if budget is not None:
        lines.append(
            f"retry budget: {budget['ratio']:.0%} of the requests of the last 10 s, at least {budget['min']} a second; "
            f"now {budget['retries']} for {budget['requests']} requests"
        )
    return lines
