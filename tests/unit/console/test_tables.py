"""The tables of `/upstreams`."""

import io
from typing import Any

import pytest
from rich.console import Console
from support.clock import FakeClock

from sidecar.admin.views import upstreams_view
from sidecar.cluster import Cluster
from sidecar.console.tables import make_console, status_picture, upstreams_table
from sidecar.model import Endpoint, Outcome, Snapshot, UpstreamPolicy


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def _view(*hosts: str) -> dict[str, Any]:
    """Two failures at the first endpoint, which open its breaker; one success at the second."""
    clock = FakeClock()
    policy = UpstreamPolicy(breaker_threshold=2, breaker_open_for=3.25, breaker_jitter=0.0)
    cluster = Cluster("api", "http", policy, clock)
    cluster.apply(Snapshot("api", tuple(Endpoint(host, 80) for host in hosts), "static"))
    first, second, *_ = [*cluster.endpoints.values(), None, None]
    if first and second:
        cluster.report(first, Outcome.RESET, clock.monotonic(), first.breaker.permit)
        cluster.report(first, Outcome.FAILURE_STATUS, clock.monotonic(), first.breaker.permit)
        cluster.report(second, Outcome.SUCCESS, clock.monotonic(), second.breaker.permit)
        cluster.report(second, Outcome.CANCELLED, clock.monotonic(), second.breaker.permit)
        second.pool.open = 3
        second.pool.idle.append(None)  # type: ignore[arg-type]
    return upstreams_view({"api": cluster}, clock, mode="local", draining=False)


def _draw(view: dict[str, Any], output: io.StringIO, *, plain: bool) -> list[str]:
    make_console(output).print(upstreams_table(view, plain=plain))
    return [line.rstrip() for line in output.getvalue().splitlines()]


def test_one_row_an_endpoint_in_plain_text() -> None:
    assert _draw(_view("10.0.0.1", "b.example"), io.StringIO(), plain=True) == [
        "upstream  endpoint      breaker  retry  active  ok  failed  idle/open",
        "api       10.0.0.1:80   open     3.2 s       0   0       2        0/0",
        "          b.example:80  closed               0   1       0        1/3",
    ]


def test_a_narrow_terminal_cuts_no_address() -> None:
    view = _view("10.0.0.1", "a-rather-long-name.of-an-endpoint.example")
    output = io.StringIO()
    Console(file=output, width=80, color_system=None).print(upstreams_table(view, plain=False))
    drawn = output.getvalue()
    assert "10.0.0.1:80" in drawn
    assert "idle/open" in drawn
    assert "\N{HORIZONTAL ELLIPSIS}" not in drawn


def test_an_upstream_without_endpoints_has_a_row_that_says_so() -> None:
    assert _draw(_view(), io.StringIO(), plain=True)[1] == "api       no endpoints"


def _feed(source: str, age: float | None = 0.5, *, stale: bool = False, error: str = "") -> dict[str, Any]:
    return {
        "source": source,
        "endpoints": None if age is None else 2,
        "heard_at": None if age is None else "2026-01-01T00:00:00.000Z",
        "age": age,
        "stale": stale,
        "saved": False,
        "error": error or None,
    }


def _picture(*registries: list[dict[str, Any]]) -> list[str]:
    """The lines below the table of upstreams that have these registries, and of one that has none."""
    view: dict[str, Any] = {"upstreams": [{"name": "plain", "endpoints": []}]}
    for number, feeds in enumerate(registries):
        view["upstreams"].append({"name": f"u{number}", "endpoints": [], "registries": feeds})
    output = io.StringIO()
    make_console(output).print(status_picture(view, plain=True))
    return output.getvalue().splitlines()[len(view["upstreams"]) + 1 :]


def test_a_registry_that_is_well_has_no_line() -> None:
    assert _picture([_feed("consul"), _feed("dns")]) == []


def test_a_stale_registry_is_named_with_its_age_and_why() -> None:
    refused = "GET http://[::1]:8500/v1/health/service/u1: connection refused"
    lines = _picture(
        [_feed("consul", 41.6, stale=True), _feed("dns")],
        [_feed("consul", 12.0, stale=True, error=refused)],
        [_feed("consul"), _feed("etcd", None, stale=True)],
    )
    assert lines == [
        f"consul is stale for 2 of 3 upstreams, last heard of 42 s ago: {refused}",
        "etcd is stale for 1 of 1 upstream, not heard of yet",
    ]


def test_brackets_of_an_address_are_not_mark_up() -> None:
    lines = _draw(_view("fe80::1", "::1"), io.StringIO(), plain=True)
    assert "[fe80::1]:80" in lines[1]
    assert "[::1]:80" in lines[2]


def test_a_wide_table_is_not_cut_where_there_is_no_terminal() -> None:
    host = "a" * 60 + "." + "b" * 60 + ".example"
    assert f"{host}:80" in _draw(_view(host), io.StringIO(), plain=True)[1]


def test_a_terminal_gets_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("NO_COLOR", raising=False)
    text = "\n".join(_draw(_view("10.0.0.1", "b.example"), Terminal(), plain=False))
    assert "\x1b[1;31mopen" in text
    assert "\x1b[32mclosed" in text


def test_half_open_is_two_words() -> None:
    view = _view("10.0.0.1", "b.example")
    view["upstreams"][0]["endpoints"][0]["breaker"].update(state="half_open", retry_in=None)
    assert "half open" in _draw(view, io.StringIO(), plain=True)[1]


@pytest.mark.parametrize(
    ("leaving", "silent", "said"),
    [
        (0, 0, "together: 3 of 4 workers"),
        (2, 0, "together: 3 of 4 workers, 2 leaving"),
        (1, 1, "together: 3 of 4 workers, 1 leaving, 1 silent"),
    ],
)
def test_several_workers_are_said_below(leaving: int, silent: int, said: str) -> None:
    view = _view("a")
    view["workers"] = {
        "configured": 4,
        "running": 3,
        "leaving": leaving,
        "silent": silent,
        "restarts": 0,
    }
    assert _draw(view, io.StringIO(), plain=True)[-1] == said


@pytest.mark.parametrize(("held", "said"), [("checks", "checks"), ("hand", "by hand"), (None, "")])
def test_what_is_held_open_waits_for_no_time(held: str | None, said: str) -> None:
    view = _view("10.0.0.1", "b.example")
    view["upstreams"][0]["endpoints"][0]["breaker"].update(state="open", retry_in=None, held=held)
    row = _draw(view, io.StringIO(), plain=True)[1]
    assert row.split("open")[1].split("  0")[0].strip() == said
