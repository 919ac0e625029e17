"""What `sidecar status` draws of `/upstreams`."""

import io
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console
from support.clock import FakeClock
from support.recorded import HOSTILE, SCENES, endpoint, upstream, view
from support.screens import Terminal

from sidecar.admin.explain import explain_view
from sidecar.admin.views import upstreams_view
from sidecar.cluster import Cluster
from sidecar.console.facts import endpoint_facts, is_fine, mappings_of, upstream_facts
from sidecar.console.look import Look, look_of
from sidecar.console.tables import columns_within, drawn, make_console, status_picture
from sidecar.model import Endpoint, Outcome, Snapshot, UpstreamPolicy, WorkerCounts

WIDTHS = (40, 50, 59, 60, 79, 80, 99, 100, 120, 160, 200)


def plain(shown: dict[str, Any], **options: bool) -> list[str]:
    """The lines in a file or a pipe."""
    console = make_console(io.StringIO())
    return drawn(status_picture(shown, look_of(console), console.width, **options), console).splitlines()


def on_terminal(shown: dict[str, Any], width: int, *, unicode: bool = True) -> list[str]:
    """The lines on a terminal without colours."""
    console = Console(
        file=io.StringIO(), width=width, color_system=None, force_terminal=True, highlight=False
    )
    look = Look(plain=False, unicode=unicode)
    return drawn(status_picture(shown, look, width, every_endpoint=True), console).splitlines()


def row(lines: list[str], name: str) -> str:
    return next(line for line in lines if line.startswith(f"{name} "))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scene", SCENES)
def test_no_line_is_wider_than_the_terminal_and_nothing_gives_it_orders(scene: str, width: int) -> None:
    lines = on_terminal(SCENES[scene], width)
    assert lines
    assert max(map(cell_len, lines)) <= width
    text = "".join(lines)
    assert "\N{HORIZONTAL ELLIPSIS}" not in text  # nothing is cut
    assert not any(sign in text for sign in "\x1b\x07\x9b\u202e\t")


@pytest.mark.parametrize("scene", SCENES)
def test_every_scene_is_told_in_ascii_where_that_is_all_there_is(scene: str) -> None:
    told = on_terminal(SCENES[scene], 120, unicode=False)
    if scene != "hostile":
        assert all(line.isascii() for line in told)


def test_what_the_output_cannot_encode_is_replaced() -> None:
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = make_console(output)
    text = drawn(status_picture(SCENES["hostile"], look_of(console), 240), console)
    print(text, file=output, flush=True)
    assert "[bold red]x[/] ?" in text


def test_a_row_an_upstream_in_plain_text() -> None:
    assert plain(SCENES["healthy"]) == [
        "sidecar 0.1.0, mode distributed",
        "",
        "upstream  state  req/s  errors      p50      p99  active  pending  retries  up",
        "api       well     123      0%  1.23 ms  45.6 ms       6        0        5  2/2",
        "backend   idle       0       -        -        -       0        0        5  2/2",
    ]


def test_who_is_not_well_is_listed_with_why() -> None:
    lines = plain(SCENES["outage"])
    assert row(lines, "api").split() == [
        "api",
        "degraded",
        "123",
        "3.12%",
        "1.23",
        "ms",
        "45.6",
        "ms",
        "6",
        "7",
        "5",
        "1/3",
    ]
    assert row(lines, "down").split() == [
        "down",
        "failing",
        "123",
        "100%",
        "1.23",
        "ms",
        "45.6",
        "ms",
        "6",
        "0",
        "5",
        "0/3",
    ]
    assert row(lines, "empty").split()[:2] == ["empty", "failing"]
    below = lines[lines.index("", 2) + 1 :]
    assert below[0].split() == [
        "not",
        "well",
        "endpoint",
        "state",
        "active",
        "ok",
        "failed",
        "idle/open",
        "why",
    ]
    assert below[1].split(maxsplit=7) == [
        "api",
        "api-02.autobot.prod:8080",
        "open",
        "3",
        "20",
        "5",
        "1/4",
        "breaker open (consecutive failures, the last one reset); a probe in 12.3 s",
    ]
    assert "[fe80::1]:8080" in below[2]
    assert "half open (consecutive failures, the last one reset); the next request is its probe" in below[2]
    assert below[-1].split(maxsplit=1) == ["empty", "no endpoints"]
    assert not any("10.0.0.1:8080" in line for line in below if line.startswith("api"))


def test_all_endpoints_where_that_is_asked_for() -> None:
    assert any("10.0.0.2:8080" in line for line in plain(SCENES["healthy"], every_endpoint=True))
    assert not any("10.0.0.2:8080" in line for line in plain(SCENES["healthy"]))


def test_no_more_than_ten_of_an_upstream_are_listed() -> None:
    ill = [endpoint(f"10.0.0.{number}:1", "open") for number in range(12)]
    lines = plain(view(upstream("api", *ill)))
    assert sum("breaker open" in line for line in lines) == 10
    assert lines[-1].strip() == "and 2 more"


def test_no_more_than_two_hundred_of_all_are_listed() -> None:
    ill = [endpoint(f"10.0.0.{number}:1", "open") for number in range(10)]
    lines = plain(view(*(upstream(f"u{number}", *ill) for number in range(23))))
    assert sum("breaker open" in line for line in lines) == 200
    assert lines[-1] == "and 3 more upstreams with endpoints that are not well"
    every = plain(view(*(upstream(f"u{number}", *ill) for number in range(23))), every_endpoint=True)
    assert sum("breaker open" in line for line in every) == 230


@pytest.mark.parametrize(
    ("scene", "name", "state"),
    [
        ("healthy", "api", "well"),
        ("healthy", "backend", "idle"),
        ("outage", "api", "degraded"),
        ("outage", "down", "failing"),
        ("outage", "empty", "failing"),
        ("panic", "api", "panic"),
        ("checks", "api", "degraded"),
        ("drained", "api", "well"),
        ("drained", "gone", "drained"),
        ("tcp only", "redis", "well"),
        ("nulls", "api", "well"),
        ("nothing known", "x", "failing"),
    ],
)
def test_each_situation_has_its_word(scene: str, name: str, state: str) -> None:
    found = {
        facts.name: facts.state for facts in map(upstream_facts, mappings_of(SCENES[scene], "upstreams"))
    }
    assert found[name] == state
    if name != "x":
        assert state in row(plain(SCENES[scene]), name)


@pytest.mark.parametrize(
    ("errors", "rate", "state"),
    [
        (0.0099, 50.0, "well"),
        (0.01, 50.0, "degraded"),
        (0.49, 50.0, "degraded"),
        (0.5, 1.0, "failing"),
        (1.0, 0.2, "degraded"),  # one request of five seconds
    ],
)
def test_errors_decide_it_where_endpoints_are_well(errors: float, rate: float, state: str) -> None:
    recent = {"requests": rate, "errors": errors}
    assert upstream_facts(upstream("api", recent=recent)).state == state


def test_sessions_and_their_bytes_are_what_tcp_has() -> None:
    lines = plain(SCENES["tcp only"])
    assert lines[2].split()[-4:] == ["retries", "sent/s", "recv/s", "up"]
    assert " ".join(row(lines, "redis").split()) == "redis well 2.50 0% - - 12 0 5 1.50 KiB 4.77 MiB 2/2"
    assert "sent/s" not in plain(SCENES["healthy"])[2]


def test_what_is_not_known_is_a_dash() -> None:
    assert row(plain(SCENES["nulls"]), "api").split()[:6] == ["api", "well", "-", "-", "-", "-"]


def test_several_workers_draining_and_uptime_are_in_the_first_line() -> None:
    assert plain(SCENES["workers"])[0] == (
        "sidecar 0.1.0, compiled, mode distributed, together: 3 of 4 workers, 1 leaving, 2 restarts, up 2 h 5 m"
    )
    assert plain(SCENES["drained"])[0] == "sidecar 0.1.0, mode distributed, draining"


@pytest.mark.parametrize("said", ["", "today", "2026-01-01T00:00:00.000Z or so", 1767225600, None])
def test_a_start_that_is_no_moment_is_not_known(said: object) -> None:
    shown = {**SCENES["workers"], "started_at": said}
    assert plain(shown)[0].endswith(", 2 restarts")


def test_drained_endpoints_say_who_may_end_it() -> None:
    assert sum("drained by hand; until `sidecar enable`" in line for line in plain(SCENES["drained"])) == 2


def test_stale_registries_and_registrations_are_below() -> None:
    refused = "GET http://[::1]:8500/v1/health/service/api: connection refused"
    assert plain(SCENES["stale registry"])[-2:] == [
        f"consul is stale for 1 of 1 upstream, last heard of 3 m 20 s ago: {refused}",
        "registration backend: unwell in consul as 10.0.0.9:8001: connection refused",
    ]


def _feed(source: str, age: float | None = 0.5, *, stale: bool = False, error: str = "") -> dict[str, Any]:
    return {"source": source, "age": age, "stale": stale, "error": error or None}


def test_a_registry_that_is_well_has_no_line() -> None:
    shown = view(upstream(registries=[_feed("consul"), _feed("dns")]))
    assert not any("consul" in line for line in plain(shown))


def test_a_stale_registry_is_named_with_its_age_and_why() -> None:
    shown = view(
        upstream("a", registries=[_feed("consul", 41.6, stale=True), _feed("dns")]),
        upstream("b", registries=[_feed("consul", 12.0, stale=True, error="refused")]),
        upstream("c", registries=[_feed("consul"), _feed("etcd", None, stale=True)]),
    )
    assert plain(shown)[-2:] == [
        "consul is stale for 2 of 3 upstreams, last heard of 42 s ago: refused",
        "etcd is stale for 1 of 1 upstream, not heard of yet",
    ]


@pytest.mark.parametrize(
    ("width", "gone"),
    [
        (200, set()),
        (95, {"received"}),
        (79, {"received", "sent", "retries"}),
        (59, {"received", "sent", "retries", "pending", "p50"}),
        (40, {"received", "sent", "retries", "pending", "p50", "active", "up", "p99"}),
    ],
)
def test_narrow_terminals_drop_what_matters_least(width: int, gone: set[str]) -> None:
    facts = upstream_facts(SCENES["tcp only"]["upstreams"][0])
    every = {column.key for column in columns_within(1000, 10, [facts])}
    assert every - {column.key for column in columns_within(width, 10, [facts])} == gone


def test_a_narrow_terminal_cuts_no_address() -> None:
    lines = on_terminal(
        view(upstream("api", endpoint("a-rather-long-name.of-an-endpoint.example:80", "open"))), 50
    )
    assert "a-rather-long-name.of-an-endpoint.example:80" in "".join(lines)


def test_a_wide_table_is_not_cut_where_there_is_no_terminal() -> None:
    host = "a" * 60 + "." + "b" * 60 + ".example"
    assert any(f"{host}:80" in line for line in plain(view(upstream("api", endpoint(f"{host}:80", "open")))))


def test_names_are_no_mark_up() -> None:
    assert "[bold red]x[/]" in "".join(plain(SCENES["hostile"]))
    assert HOSTILE not in "".join(plain(SCENES["hostile"]))


def test_a_terminal_gets_colours_and_symbols(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    console = make_console(Terminal())
    text = drawn(status_picture(SCENES["outage"], look_of(console), 120), console)
    assert "\x1b[33m\N{BLACK UP-POINTING TRIANGLE} degraded" in text
    assert "\x1b[1;31m\N{MULTIPLICATION SIGN} open" in text


def test_without_colours_the_symbols_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    console = make_console(Terminal())
    text = drawn(status_picture(SCENES["outage"], look_of(console), 120), console)
    assert "\N{BLACK UP-POINTING TRIANGLE} degraded" in text
    assert "\x1b[33m" not in text


# The real thing


def _cluster(clock: FakeClock, **policy: Any) -> Cluster:
    """Its first endpoint's breaker is open, its second is drained, its third tripped, its fourth has failed once."""
    settings = UpstreamPolicy(breaker_threshold=2, breaker_open_for=3.25, breaker_jitter=0.0, **policy)
    cluster = Cluster("api", "http", settings, clock)
    hosts = ("10.0.0.1", "b.example", "::1", "d.example", "e.example", "f.example", "g.example", "h.example")
    cluster.apply(Snapshot("api", tuple(Endpoint(host, 80) for host in hosts), "static"))
    first, second, third, fourth, *_ = cluster.endpoints.values()
    now = clock.monotonic()
    for state, outcomes in ((first, [Outcome.RESET, Outcome.FAILURE_STATUS]), (fourth, [Outcome.RESET])):
        for outcome in outcomes:
            cluster.report(state, outcome, now, state.breaker.permit)
    cluster.drain([second], now)
    cluster.trip([third], now)
    return cluster


@pytest.mark.parametrize("observe_only", [False, True])
@pytest.mark.parametrize("later", [0.0, 2.0, 4.0])
def test_why_is_what_explain_says(later: float, observe_only: bool) -> None:
    clock = FakeClock()
    cluster = _cluster(clock, observe_only=observe_only)
    clock.advance(later)
    said = _answered(cluster, clock)["upstreams"][0]
    explained = explain_view(cluster, clock, [], (0, 0))["endpoints"]
    assert [endpoint_facts(one).why for one in said["endpoints"]] == [one["why"] for one in explained]
    assert any("in a row" in one["why"] for one in explained)


def test_the_countdown_goes_on_between_answers() -> None:
    one = endpoint("10.0.0.1:80", "open")
    assert endpoint_facts(one, passed=2.0).why.endswith("; a probe in 10.3 s")
    assert endpoint_facts(one, passed=20.0).why.endswith("; the next request is its probe")


def _answered(cluster: Cluster, clock: FakeClock) -> dict[str, Any]:
    return upstreams_view(
        {"api": cluster},
        clock,
        mode="local",
        compiled=True,
        started_at=0.0,
        draining=False,
        workers=WorkerCounts(1),
    )


def test_what_is_recorded_has_the_shape_of_what_is_answered() -> None:
    answered = _answered(_cluster(FakeClock()), FakeClock())
    real = answered["upstreams"][0]
    ill = endpoint("a:1", "open")
    for recorded, told in (
        (view(), answered),
        (SCENES["workers"], answered),
        (upstream(), real),
        (ill, real["endpoints"][0]),
        (ill["breaker"], real["endpoints"][0]["breaker"]),
        (ill["breaker"]["journal"][0], real["endpoints"][0]["breaker"]["journal"][0]),
    ):
        assert set(recorded) - {"recent"} <= set(told)


def test_a_router_has_routes_and_lacks_no_endpoints() -> None:
    shown = view(upstream("api"), {**upstream("front"), "endpoints": [], "routes": [{}, {}]})
    lines = plain(shown)
    assert "2 routes" in row(lines, "front")
    assert "failing" not in row(lines, "front")
    assert not [line for line in lines if "no endpoints" in line]
    assert is_fine(upstream_facts({**upstream("front"), "endpoints": [], "routes": [{}]}))
    assert not is_fine(upstream_facts({**upstream("front"), "endpoints": []}))
