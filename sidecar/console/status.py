"""`sidecar status`: ask a running sidecar's admin address and show what it says."""

from __future__ import annotations

import itertools
import json as jsonlib
import os
import sys
from contextlib import suppress
from threading import Event
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from rich.live import Live
from rich.text import Text

from sidecar.console.asking import NoAnswerError, ask, no_sidecar
from sidecar.console.facts import is_fine, mappings_of, upstream_facts
from sidecar.console.look import PANIC, clean, look_of
from sidecar.console.paths import UPSTREAMS
from sidecar.console.tables import drawn, make_console, status_picture

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console, Group

__all__ = ["REFRESH", "discard", "fetch", "is_served", "print_tables", "show_status"]

REFRESH = 1.0  # seconds between two looks of --watch: as fast as a person reads a table


def fetch(address: str) -> dict[str, Any]:
    """The `/upstreams` document of the sidecar whose admin address is `address`: host:port, IPv6 in brackets.

    Raises `ValueError` when `address` is no such thing, `NoAnswerError` when what listens there is no sidecar
    or nothing does.
    """
    status, view = ask(address, UPSTREAMS)
    if status != 200 or not isinstance(view.get("upstreams"), list):
        raise no_sidecar(address, status)
    return view


def is_served(view: dict[str, Any]) -> bool:
    """Whether every upstream of `view` is."""
    return all(is_fine(upstream_facts(upstream)) for upstream in mappings_of(view, "upstreams"))


def show_status(
    admin: str,
    *,
    json: bool,
    watch: bool,
    every_endpoint: bool = False,
    output: TextIO | None = None,
    errors: TextIO | None = None,
    pause: Callable[[float], object] | None = None,
) -> int:
    """Print what the sidecar at `admin` says, as a table or as `json`; once, or with `watch` until Ctrl-C.

    every_endpoint: also those that are well. pause: waits that many seconds.
    Returns the exit code: 0 when every upstream is served, 1 when one is failing, in panic or drained, or no sidecar
    answers, 2 when `admin` is no address.
    """
    output = sys.stdout if output is None else output
    errors = sys.stderr if errors is None else errors
    pause = Event().wait if pause is None else pause
    printer = _Printer(output, errors, as_json=json, in_one_line=watch, every_endpoint=every_endpoint)
    try:
        if not watch:
            return _look(admin, printer)
        if json or not output.isatty():
            return _keep_looking(admin, printer, pause)
        # No thread of rich's own: it is drawn when there is something new.
        with Live(console=make_console(output), auto_refresh=False) as live:
            return _keep_looking(admin, _Screen(live, every_endpoint=every_endpoint), pause)
    except ValueError as error:
        print(f"sidecar: {error}", file=errors)
        return 2
    except BrokenPipeError:  # `sidecar status | head`: the reader has seen enough
        # The interpreter flushes once more when it exits, and would complain then.
        discard(output)
        return 0


def discard(output: TextIO) -> None:
    """Let the interpreter's last flush of `output` find a place for what nobody reads."""
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - a device, not a path to compute with
        os.dup2(nowhere.fileno(), output.fileno())


def print_tables(
    admin: str,
    interval: float,
    count: int | None,
    output: TextIO,
    errors: TextIO,
    pause: Callable[[float], object],
) -> int:
    """Print the tables `count` times, `interval` seconds apart, or until Ctrl-C; the exit code of the last."""
    printer = _Printer(output, errors, as_json=False, in_one_line=False, every_endpoint=False)
    try:
        return _keep_looking(admin, printer, pause, interval, count)
    except ValueError as error:
        print(f"sidecar: {error}", file=errors)
        return 2
    except BrokenPipeError:
        discard(output)
        return 0


class _View(Protocol):
    """Where an answer goes, and where its absence."""

    def show(self, view: dict[str, Any]) -> None: ...

    def complain(self, message: str) -> None: ...


class _Printer:
    """One print after another: JSON, or a table in the characters that the output takes."""

    def __init__(
        self, output: TextIO, errors: TextIO, *, as_json: bool, in_one_line: bool, every_endpoint: bool
    ) -> None:
        self._output = output
        self._errors = errors
        self._as_json = as_json
        self._every_endpoint = every_endpoint
        self._indent = None if in_one_line else 2  # a stream of documents is read line by line

    def show(self, view: dict[str, Any]) -> None:
        if self._as_json:
            text = jsonlib.dumps(view, indent=self._indent)
        else:
            console = make_console(self._output)
            text = drawn(_picture(view, console, every_endpoint=self._every_endpoint), console)
        print(text, file=self._output, flush=True)

    def complain(self, message: str) -> None:
        print(f"sidecar: {message}", file=self._errors)


class _Screen:
    """One table that is drawn over its last state."""

    def __init__(self, live: Live, *, every_endpoint: bool) -> None:
        self._live = live
        self._every_endpoint = every_endpoint

    def show(self, view: dict[str, Any]) -> None:
        picture = _picture(view, self._live.console, every_endpoint=self._every_endpoint)
        self._live.update(picture, refresh=True)

    def complain(self, message: str) -> None:
        self._live.update(Text(clean(message), style=PANIC), refresh=True)


def _picture(view: dict[str, Any], console: Console, *, every_endpoint: bool) -> Group:
    return status_picture(view, look_of(console), console.width, every_endpoint=every_endpoint)


def _look(admin: str, screen: _View) -> int:
    try:
        view = fetch(admin)
    except NoAnswerError as error:
        screen.complain(str(error))
        return 1
    screen.show(view)
    return 0 if is_served(view) else 1


def _keep_looking(
    admin: str,
    screen: _View,
    pause: Callable[[float], object],
    interval: float = REFRESH,
    count: int | None = None,
) -> int:
    code = 1
    with suppress(KeyboardInterrupt):
        for number in itertools.count(1):
            code = _look(admin, screen)
            if number == count:
                break
            pause(interval)
    return code
