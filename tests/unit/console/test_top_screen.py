"""What `sidecar top` shows, and what its keys change."""

import io
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console
from support.recorded import HISTORY, IDLE, RECENT, SCENES, endpoint, upstream, view

from sidecar.console.look import Look
from sidecar.console.top_screen import MAX_FILTER, TopScreen

SIZES = ((40, 10), (59, 3), (60, 24), (79, 1), (80, 24), (100, 30), (130, 8), (200, 50))


def screen_of(shown: dict[str, Any], *keys: str, history: dict[str, Any] | None = None) -> TopScreen:
    screen = TopScreen(Look(plain=False))
    screen.hear(shown, 100.0)
    if history is not None:
        screen.remember(history)
    for key in keys:
        screen.press(key)
    return screen


def lines_of(screen: TopScreen, width: int = 100, height: int = 24, now: float = 100.0) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None, highlight=False)
    with console.capture() as capture:
        console.print(screen.picture(width, height, now))
    return capture.get().splitlines()


def names_of(lines: list[str]) -> list[str]:
    """The first word of each upstream's row."""
    title = next(number for number, line in enumerate(lines) if line.startswith("  upstream"))
    return [
        line[2:].split()[0]
        for line in lines[title + 1 : -1]
        if line.strip() and not line[1:].startswith("    ")
    ]


def selected(lines: list[str]) -> str:
    (line,) = (line for line in lines if line.startswith(">"))
    return line[2:].split()[0]


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("keys", [(), ("enter",), ("s", "G", "enter", "/", "a")])
def test_it_fills_the_terminal_and_no_more(
    scene: str, width: int, height: int, keys: tuple[str, ...]
) -> None:
    lines = lines_of(screen_of(SCENES[scene], *keys, history=HISTORY), width, height)
    assert len(lines) == height
    assert max(map(cell_len, lines)) <= width
    assert not any(sign in "".join(lines) for sign in "\x1b\x07\x9b\u202e\t")


def test_before_the_first_answer_it_says_what_it_waits_for() -> None:
    screen = TopScreen(Look(plain=False))
    assert lines_of(screen)[0] == "asking the sidecar"
    screen.miss("nothing answers at 127.0.0.1:9901 (connection refused)", 1.0)
    assert lines_of(screen)[0] == "nothing answers at 127.0.0.1:9901 (connection refused)"


def test_a_line_for_the_process_the_sum_and_a_row_an_upstream() -> None:
    lines = lines_of(screen_of(SCENES["outage"]))
    assert lines[0] == "sidecar 0.1.0, mode distributed"
    assert lines[1] == "3 upstreams: \N{MULTIPLICATION SIGN} 2 failing ▲ 1 degraded; 370 req/s"
    assert lines[2].split()[:3] == ["upstream", "state", "req/s"]
    assert lines[3].split() == [
        ">",
        "api",
        "▲",
        *["degraded", "123", "3.12%", "1.23", "ms", "45.6", "ms", "6", "7", "5", "1/3"],
    ]
    assert lines[-1].startswith("q quit  s sort: rate")


SORTED = view(
    upstream("b", recent={**RECENT, "requests": 5.0, "errors": 0.3, "p99": 0.1}),
    upstream("a", recent=None),
    upstream("d", recent={**RECENT, "requests": 50.0, "errors": 0.1, "p99": 2.0}),
    upstream("c", recent=IDLE),
)


def test_the_sum_is_of_requests() -> None:
    tcp = SCENES["tcp only"]["upstreams"][0]
    assert lines_of(screen_of(view(upstream("api"), tcp)))[1] == "2 upstreams: ● 2 well; 123 req/s"
    assert lines_of(screen_of(SCENES["tcp only"]))[1] == "1 upstream: ● 1 well"


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        ((), ["d", "b", "c", "a"]),
        (("s",), ["b", "d", "a", "c"]),
        (("s", "s"), ["d", "b", "a", "c"]),
        (("s", "s", "s"), ["a", "b", "c", "d"]),
        (("s", "s", "s", "s"), ["d", "b", "c", "a"]),
    ],
)
def test_s_goes_through_the_orders(keys: tuple[str, ...], names: list[str]) -> None:
    assert names_of(lines_of(screen_of(SORTED, *keys))) == names


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        ((), "d"),
        (("down",), "b"),
        (("j", "j"), "c"),
        (("j", "up"), "d"),
        (("k",), "d"),
        (("end",), "a"),
        (("G", "down"), "a"),
        (("G", "g"), "d"),
        (("page down",), "c"),
        (("end", "page up"), "b"),
    ],
)
def test_a_row_is_selected(keys: tuple[str, ...], name: str) -> None:
    screen = screen_of(SORTED)
    lines_of(screen, 80, 7)  # a page is what was shown less a line
    for key in keys:
        screen.press(key)
    assert selected(lines_of(screen, 80, 7)) == name


def test_the_selection_stays_with_its_upstream() -> None:
    screen = screen_of(SORTED, "down")
    screen.press("s")
    assert selected(lines_of(screen)) == "b"
    screen.hear(view(upstream("x"), upstream("b", recent=None)), 101.0)
    assert selected(lines_of(screen)) == "b"
    screen.hear(view(upstream("x")), 102.0)
    assert selected(lines_of(screen)) == "x"


def test_a_long_list_scrolls_with_the_selection() -> None:
    screen = screen_of(SCENES["many"])
    for number in range(200):
        lines = lines_of(screen, 80, 12)
        assert selected(lines) == f"service-{number:03d}"
        screen.press("j")
    screen.press("g")
    assert selected(lines_of(screen, 80, 12)) == "service-000"


@pytest.mark.parametrize("key", ["enter", " "])
def test_enter_shows_endpoints_with_breaker_evidence_and_countdown(key: str) -> None:
    screen = screen_of(SCENES["outage"], key)
    lines = lines_of(screen, 180, now=102.0)
    assert lines[3].startswith(">-api")
    assert " ".join(lines[4].split()) == (
        "api-02.autobot.prod:8080 \N{MULTIPLICATION SIGN} open 10 s: breaker open (consecutive failures, "
        "the last one reset); a probe in 10.3 s; 3 active, 20 ok, 5 failed, 1 of 4 connections idle"
    )
    assert lines[5].split()[:4] == ["[fe80::1]:8080", "◐", "half", "open"]
    assert lines[6].split()[:4] == ["10.0.0.1:8080", "●", "closed", "3"]
    screen.press(key)
    assert "api-02" not in "".join(lines_of(screen))


def test_an_upstream_that_was_away_comes_back_closed() -> None:
    screen = screen_of(SCENES["outage"], "enter")
    screen.hear(view(upstream("other")), 101.0)
    screen.hear(SCENES["outage"], 102.0)
    assert not any("10.0.0.1:8080" in line for line in lines_of(screen))


def test_a_line_that_has_no_room_says_so() -> None:
    lines = lines_of(screen_of(SCENES["outage"], "enter"), 80)
    assert lines[4].endswith("\N{HORIZONTAL ELLIPSIS}")


def test_one_may_go_through_endpoints_and_close_them_from_there() -> None:
    ill = [endpoint(f"10.0.0.{number}:1") for number in range(100)]
    screen = screen_of(view(upstream("api", *ill)), "enter", "end")
    assert selected(lines_of(screen, 80, 10)) == "10.0.0.99:1"
    screen.press("enter")
    assert selected(lines_of(screen, 80, 10)) == "api"


def test_drained_endpoints_say_so() -> None:
    lines = lines_of(screen_of(SCENES["drained"], "enter"), 120)
    assert any("◌ drained" in line and "until `sidecar enable`" in line for line in lines)


def test_a_filter_leaves_those_whose_name_has_it() -> None:
    screen = screen_of(SCENES["outage"], "/", "D", "o", "x", "backspace")
    assert names_of(lines_of(screen)) == ["down"]
    assert lines_of(screen)[-1].startswith("/Do_")
    screen.press("enter")
    assert "filter: Do" in lines_of(screen)[-1]
    screen.press("q")
    assert screen.ended
    screen.press("escape")
    assert len(names_of(lines_of(screen))) == 3


def test_a_filter_may_be_a_state() -> None:
    assert names_of(lines_of(screen_of(SCENES["outage"], "/", *"degraded"))) == ["api"]


def test_letters_are_letters_while_a_filter_is_typed() -> None:
    screen = screen_of(SCENES["outage"], "/", *"qs jk", "up")
    assert not screen.ended
    assert lines_of(screen)[-1].startswith("/qs jk_")
    assert "no upstream matches" in "".join(lines_of(screen))
    screen.press("escape")
    assert len(names_of(lines_of(screen))) == 3


def test_a_filter_has_an_end() -> None:
    screen = screen_of(SCENES["outage"], "/", *"x" * (MAX_FILTER + 5))
    assert lines_of(screen, 200)[-1].startswith("/" + "x" * MAX_FILTER + "_")


def test_the_last_picture_stays_greyed_while_there_is_no_answer() -> None:
    screen = screen_of(SCENES["outage"])
    screen.miss("nothing answers at 127.0.0.1:9901 (connection refused)", 112.0)
    lines = lines_of(screen, 120, now=112.0)
    assert lines[0].startswith("no answer for 12 s; asking again. nothing answers at 127.0.0.1:9901")
    assert names_of(lines) == ["api", "down", "empty"]
    console = Console(file=io.StringIO(), width=120, height=24, force_terminal=True, color_system="standard")
    with console.capture() as capture:
        console.print(screen.picture(120, 24, 112.0))
    row = next(line for line in capture.get().splitlines() if "down" in line)
    assert row.startswith("\x1b[2m  down")
    screen.hear(SCENES["healthy"], 113.0)
    assert lines_of(screen, now=113.0)[0] == "sidecar 0.1.0, mode distributed"


def test_the_trend_is_drawn_where_it_has_room() -> None:
    wide = lines_of(screen_of(SCENES["healthy"], history=HISTORY), 160)
    assert "last 5 m 0 s" in wide[2]
    assert wide[3].endswith("▁" * 8 + "▂" * 7 + "▃" * 8 + "▄" * 7 + "▅" * 7 + "▆" * 8 + "▇" * 7 + "█" * 8)
    narrow = lines_of(screen_of(SCENES["healthy"], history=HISTORY), 80)
    assert "█" not in "".join(narrow)
    without = lines_of(screen_of(SCENES["healthy"]), 160)
    assert "last" not in without[2]


@pytest.mark.parametrize("history", [{}, {"upstreams": 3}, {"upstreams": {"api": 3, "b": {"requests": "x"}}}])
def test_a_history_that_is_none_is_none(history: dict[str, Any]) -> None:
    assert "last" not in lines_of(screen_of(SCENES["healthy"], history=history), 160)[2]


@pytest.mark.parametrize(
    ("width", "titles"),
    [
        (100, "upstream state req/s errors p50 p99 active pending retries up"),
        (79, "upstream state req/s errors p50 p99 active pending up"),
        (59, "upstream state req/s errors p99 active up"),
        (40, "upstream state req/s errors"),
    ],
)
def test_narrow_terminals_drop_what_matters_least(width: int, titles: str) -> None:
    assert " ".join(lines_of(screen_of(SCENES["healthy"]), width)[2].split()) == titles


@pytest.mark.parametrize("width", [80, 100, 200])
def test_thousands_of_endpoints_are_counted_in_full(width: int) -> None:
    many = [endpoint(f"10.0.{number // 250}.{number % 250}:80") for number in range(5000)]
    lines = lines_of(screen_of(view(upstream("huge", *many), upstream("api"))), width)
    title, huge, api = (
        next(line for line in lines if line[2:].startswith(word)) for word in ("upstream ", "huge", "api")
    )
    assert huge.split()[-1] == "5000/5000"
    assert huge.index("5000/") == api.index("2/2") == title.index("up ")


def test_registries_and_registrations_are_below() -> None:
    lines = lines_of(screen_of(SCENES["stale registry"]))
    assert lines[-3].startswith("consul is stale for 1 of 1 upstream")
    assert lines[-2].startswith("registration backend: ▲ unwell in consul")
