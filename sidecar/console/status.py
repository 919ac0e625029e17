"""`sidecar status`: ask a running sidecar's admin address and show what it says."""

from __future__ import annotations

import json as jsonlib
import os
import sys
from threading import Event
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from rich.live import Live
from rich.text import Text

from sidecar.console.asking import NoAnswerError, ask, no_sidecar
from sidecar.console.tables import make_console, status_picture

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["fetch", "show_status"]

REFRESH = 1.0  # seconds between two looks of --watch: as fast as a person reads a table


def fetch(address: str) -> dict[str, Any]:
    """The `/upstreams` document of the sidecar whose admin address is `address`: host:port, IPv6 in brackets.

    Raises `ValueError` when `address` is no such thing, `NoAnswerError` when what listens there is no sidecar
    or nothing does.
    """
    status, view = ask(address, "/v1/upstreams")
    if status != 200 or not isinstance(view.get("upstreams"), list):
        raise no_sidecar(address, status)
    return view


def show_status(
    admin: str,
    *,
    json: bool,
    watch: bool,
    output: TextIO | None = None,
    errors: TextIO | None = None,
    pause: Callable[[float], object] | None = None,
) -> int:
    """Print what the sidecar at `admin` says, as a table or as `json`; once, or with `watch` until Ctrl-C.

    Returns the exit code: 0 when every upstream has an endpoint whose breaker is closed, 1 when one has not
    or no sidecar answers, 2 when `admin` is no address. `pause` waits that many seconds.
    """
    output = sys.stdout if output is None else output
    errors = sys.stderr if errors is None else errors
    pause = Event().wait if pause is None else pause
    printer = _Printer(output, errors, as_json=json, in_one_line=watch)
    try:
        if not watch:
            return _look(admin, printer)
        if json or not output.isatty():
            return _keep_looking(admin, printer, pause)
        # No thread of rich's own: it is drawn when there is something new.
        with Live(console=make_console(output), auto_refresh=False) as live:
            return _keep_looking(admin, _Screen(live), pause)
    except ValueError as error:
        print(f"sidecar: {error}", file=errors)
        return 2
    except BrokenPipeError:  # `sidecar status | head`: the reader has seen enough
        # The interpreter flushes once more when it exits, and would complain then.
        with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - a device, not a path to compute with
            os.dup2(nowhere.fileno(), output.fileno())
        return 0


class _View(Protocol):
    """Where an answer goes, and where its absence."""

    def show(self, view: dict[str, Any]) -> None: ...

    def complain(self, message: str) -> None: ...


class _Printer:
    """One print after another: JSON, or a table in the characters that the output takes."""

    def __init__(self, output: TextIO, errors: TextIO, *, as_json: bool, in_one_line: bool) -> None:
        self._output = output
        self._errors = errors
        self._as_json = as_json
        self._indent = None if in_one_line else 2  # a stream of documents is read line by line

    def show(self, view: dict[str, Any]) -> None:
        if self._as_json:
            text = jsonlib.dumps(view, indent=self._indent)
        else:
            console = make_console(self._output)
            with console.capture() as capture:  # rich itself would end the process on a broken pipe
                console.print(status_picture(view, plain=not console.is_terminal))
            text = capture.get().rstrip("\n")
        print(text, file=self._output, flush=True)

    def complain(self, message: str) -> None:
        print(f"sidecar: {message}", file=self._errors)


class _Screen:
    """One table that is drawn over its last state."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def show(self, view: dict[str, Any]) -> None:
        self._live.update(status_picture(view, plain=False), refresh=True)

    def complain(self, message: str) -> None:
        self._live.update(Text(message, style="red"), refresh=True)


def _look(admin: str, screen: _View) -> int:
    try:
        view = fetch(admin)
    except NoAnswerError as error:
        screen.complain(str(error))
        return 1
    screen.show(view)
    return 0 if all(_has_closed(upstream) for upstream in view["upstreams"]) else 1


def _keep_looking(admin: str, screen: _View, pause: Callable[[float], object]) -> int:
    code = 1
    try:
        while True:
            code = _look(admin, screen)
            pause(REFRESH)
    except KeyboardInterrupt:
        return code


def _has_closed(upstream: dict[str, Any]) -> bool:
    return any(endpoint["breaker"]["state"] == "closed" for endpoint in upstream["endpoints"])
