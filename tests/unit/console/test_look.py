"""Words, symbols, colours and numbers."""

import io

import pytest
from rich.console import Console

from sidecar.console.look import (
    Look,
    age,
    clean,
    count,
    duration,
    figure,
    look_of,
    percent,
    size,
    word,
)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "-"),
        (float("nan"), "-"),
        (0.0, "0"),
        (0.004, "<0.01"),
        (0.2, "0.20"),
        (1.234, "1.23"),
        (9.996, "10.0"),
        (12.34, "12.3"),
        (99.96, "100"),
        (999.4, "999"),
        (999.6, "1.00k"),
        (12_345, "12.3k"),
        (1e6, "1.00M"),
    ],
)
def test_figures_have_three_digits(value: float | None, said: str) -> None:
    assert figure(value) == said


@pytest.mark.parametrize(("value", "said"), [(None, "-"), (0, "0"), (999, "999"), (1000, "1.00k")])
def test_counts_are_whole_below_a_thousand(value: int | None, said: str) -> None:
    assert count(value) == said


@pytest.mark.parametrize(
    ("ratio", "said"), [(None, "-"), (0.0, "0%"), (0.00001, "<0.01%"), (0.0312, "3.12%"), (1.0, "100%")]
)
def test_percent(ratio: float | None, said: str) -> None:
    assert percent(ratio) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "-"),
        (0.0, "0 ms"),
        (0.000123, "0.12 ms"),
        (0.00123, "1.23 ms"),
        (0.999, "999 ms"),
        (0.9996, "1.00 s"),
        (12.34, "12.3 s"),
        (120.0, "120 s"),
    ],
)
def test_durations(seconds: float | None, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("octets", "said"),
    [(None, "-"), (0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (1536, "1.50 KiB"), (5e9, "4.66 GiB")],
)
def test_sizes(octets: float | None, said: str) -> None:
    assert size(octets) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "-"),
        (-1.0, "0 s"),
        (59.4, "59 s"),
        (60.0, "1 m 0 s"),
        (3599.0, "59 m 59 s"),
        (7500.0, "2 h 5 m"),
        (86400.0 * 3 + 3600 * 4, "3 d 4 h"),
    ],
)
def test_ages(seconds: float | None, said: str) -> None:
    assert age(seconds) == said


def test_a_state_is_a_symbol_and_a_word_and_only_a_word_in_a_file() -> None:
    assert Look(plain=False).state("half_open").plain == "◐ half open"
    assert Look(plain=False, unicode=False).state("half_open").plain == "~ half open"
    assert Look(plain=True).state("half_open").plain == "half open"
    assert Look(plain=False).state("open", "why").plain == "\N{MULTIPLICATION SIGN} why"


def test_a_state_nobody_knows_is_said_as_it_is() -> None:
    assert Look(plain=False).state("new_one").plain == "new one"
    assert word("\x1b[31m") == "\N{REPLACEMENT CHARACTER}[31m"


def test_states_that_are_alike_in_colour_differ_in_symbol() -> None:
    for states in (
        ("well", "idle", "degraded", "drained", "failing", "panic"),
        ("closed", "half_open", "open"),
    ):
        for unicode in (True, False):
            look = Look(plain=False, unicode=unicode)
            assert len({look.state(state).plain[0] for state in states}) == len(states)


def test_a_trend_is_as_high_as_its_highest_point() -> None:
    look = Look(plain=False)
    assert look.trend([None, 0.0, 4.0, 8.0], 10) == " ▁▅█"
    assert look.trend([0.0, 0.0], 10) == "▁▁"
    assert look.trend([8.0, 1.0, 1.0], 2) == "██"
    assert look.trend([1.0], 0) == ""
    assert Look(plain=False, unicode=False).trend([0.0, 8.0], 10) == "_@"


def test_bars() -> None:
    assert Look(plain=False).bar(0.5, 4) == "██"
    assert Look(plain=True, unicode=False).bar(1.0, 3) == "###"


def test_clean_leaves_what_can_be_printed() -> None:
    assert clean("api-1 [::1]:80 測試") == "api-1 [::1]:80 測試"
    assert clean("a\x1b[31m\u202eb\n\x9b\u200b") == "a\ufffd[31m\ufffdb\ufffd\ufffd\ufffd"


def test_the_output_decides_the_look() -> None:
    ascii_terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    assert look_of(Console(file=io.StringIO())) == Look(plain=True, unicode=True)
    assert look_of(Console(file=ascii_terminal, force_terminal=True)) == Look(plain=False, unicode=False)
