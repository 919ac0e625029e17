"""`sidecar explain NAME`: why the next request of an upstream goes where it goes, as a running sidecar says."""

from __future__ import annotations

import json as jsonlib
import sys
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Group
from rich.text import Text

from sidecar.console.asking import ask_about, no_sidecar
from sidecar.console.look import DRAINED, PANIC, clean, look_of
from sidecar.console.paths import explain_path
from sidecar.console.tables import drawn, make_console

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.table import Table

    from sidecar.console.look import Look

__all__ = ["show_reasons"]


def show_reasons(
    name: str, admin: str, *, json: bool, output: TextIO | None = None, errors: TextIO | None = None
) -> int:
    """Print what the sidecar at `admin` says about the upstream `name`, in words or as `json`.

    Returns the exit code: 0 when somebody is in rotation as it should be, or it is a router, 1 when nobody is, in
    panic, when nobody is called so or no sidecar answers, 2 when `admin` is no address.
    """
    output = sys.stdout if output is None else output
    errors = sys.stderr if errors is None else errors
    view = ask_about(admin, explain_path(name), "endpoints", errors)
    if isinstance(view, int):
        return view
    try:
        text = jsonlib.dumps(view, indent=2) if json else _drawn(view, output)
        serves = any(endpoint["in_rotation"] for endpoint in view["endpoints"]) or _is_router(view)
        fine = view["panic"] is None and serves
    except (LookupError, TypeError, AttributeError, ValueError):  # of another version, or no sidecar's at all
        print(f"sidecar: {no_sidecar(admin, 200)}", file=errors)
        return 1
    print(text, file=output)
    return 0 if fine else 1


def _drawn(view: Mapping[str, Any], output: TextIO) -> str:
    console = make_console(output)
    panic = [Text(f"panic: {view['panic']}.", style=PANIC)] if view["panic"] else []
    plan = [*_next(view["next"]), *([] if _is_router(view) else _retries(view["retries"])), *_rate(view)]
    picture = Group(
        Text(clean(f"{view['name']} ({view['scheme']}), {view['strategy']}: {view['choice']}.")),
        *panic,
        Text(),
        _endpoints(view["endpoints"], look_of(console)),
        Text(),
        *(Text(clean(line)) for line in plan),
    )
    return drawn(picture, console)


def _endpoints(endpoints: list[dict[str, Any]], look: Look) -> Table:
    table = look.table()
    table.add_column("endpoint", overflow="fold")
    table.add_column("zone", overflow="fold")
    for name in ("weight", "active"):
        table.add_column(name, justify="right")
    table.add_column("why", overflow="fold")
    table.add_column("since", no_wrap=True)
    for endpoint in endpoints:
        table.add_row(
            Text(clean(endpoint["address"])),
            Text(clean(endpoint["zone"] or "-")),
            Text(str(endpoint["weight"])),
            Text(str(endpoint["in_flight"])),
            look.state("drained" if endpoint["why"] == DRAINED else endpoint["state"], endpoint["why"]),
            Text(endpoint["since"] or "-"),
        )
    if not endpoints:
        table.add_row(Text("no endpoints", style=PANIC))
    return table


def _next(picks: list[dict[str, Any]]) -> list[str]:
    lines = []
    for pick in picks:
        who = f"next, worker {pick['worker']}" if "worker" in pick else "next"
        endpoint = pick["endpoint"]
        lines.append(f"{who}: {pick['why']}" if endpoint is None else f"{who}: {endpoint} ({pick['why']})")
    return lines


def _is_router(view: Mapping[str, Any]) -> bool:
    """Whether it makes no attempts of its own, see `admin.explain.explain_view`."""
    return not view["retries"]["attempts"]


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


def _rate(view: Mapping[str, Any]) -> list[str]:
    rate = view["rate_limit"]
    if rate is None:
        return []
    beyond = "429" if view["retries"]["budget"] else "sessions are closed"
    return [
        f"rate limit: {rate['requests']} in {rate['per']:g} s, {rate['burst']} at once; beyond it {beyond}"
    ]
