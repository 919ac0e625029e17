"""The tables, the data and the picture of a run."""

from typing import Any
from xml.etree import ElementTree as ET

import pytest
from load import Turn
from measure import Memory
from picture import draw
from scenarios import SCENARIOS
from table import Result, as_data, render

SCENARIO = {scenario.name: scenario for scenario in SCENARIOS}
SVG = "{http://www.w3.org/2000/svg}"


def _result(scenario: str, proxy: str, *figures: float, p99: float | None = 0.004) -> Result:
    turns = [] if scenario == "idle" else [Turn(1000, 2.0, 0.001, p99) for _ in figures]
    memory = Memory(44 * 1024**2, None)
    return Result(SCENARIO[scenario], proxy, "1.0", list(figures), turns, memory)


def _data(*results: Result) -> dict[str, Any]:
    machine = {
        "processor": "A & B",
        "cpus": 2,
        "kernel": "6.1",
        "python": "3.12.1",
        "congestion_control": "cubic",
    }
    proxies = {result.proxy: result.version for result in results}
    return {
        "date": "2030-01-01",
        "machine": machine,
        "proxies": proxies,
        "turns": 3,
        "results": as_data(list(results)),
    }


def _drawn(*results: Result) -> tuple[list[str], list[float], int]:
    """Texts, lengths of the bars, and how many of them are cut off."""
    picture = ET.fromstring(draw(_data(*results)))
    texts = ["".join(text.itertext()) for text in picture.iter(f"{SVG}text")]
    bars = [float(bar.attrib["width"]) for bar in picture.iter(f"{SVG}rect")]
    return texts, bars, sum(path.get("class") == "cut" for path in picture.iter(f"{SVG}path"))


def test_the_table_compares_medians_with_haproxy() -> None:
    lines = render(
        SCENARIO["small"],
        [_result("small", "HAProxy", 21.0, 20.0, 90.0), _result("small", "sidecar", 14.0, 12.0, 15.0)],
    ).splitlines()
    assert lines[0] == "small: 130-byte answers, 32 connections kept alive"
    assert " ".join(lines[2].split()) == "HAProxy 1.0 21.0 20.0-90.0 1.00 500 1.00 4.00 44.0 -"
    assert " ".join(lines[3].split()) == "sidecar 1.0 14.0 12.0-15.0 0.67 500 1.00 4.00 44.0 -"


def test_the_table_says_what_it_does_not_know() -> None:
    line = render(SCENARIO["small"], [_result("small", "nginx", 16.0, p99=None)]).splitlines()[-1]
    assert " ".join(line.split()) == "nginx 1.0 16.0 16.0-16.0 - 500 1.00 - 44.0 -"
    assert "KiB/connection" in render(SCENARIO["idle"], [_result("idle", "nginx", 0.3)])


def test_the_data_has_every_turn() -> None:
    (entry,) = as_data([_result("small", "nginx", 16.0, 18.0, 17.0)])
    assert entry["figure"] == 17.0
    assert entry["figure_turns"] == [16.0, 18.0, 17.0]
    assert entry["turns"][2] == {"requests": 1000, "seconds": 2.0, "p50": 0.001, "p99": 0.004}
    (idle,) = as_data([_result("idle", "nginx", 0.3)])
    assert "requests_per_second" not in idle


def test_bars_are_as_long_as_their_ratio_to_haproxy() -> None:
    texts, (haproxy, sidecar), cut = _drawn(
        _result("small", "HAProxy", 20.0), _result("small", "sidecar", 15.0)
    )
    assert sidecar / haproxy == pytest.approx(0.75, abs=0.01)
    assert "20.0 µs · 1.00 x" in texts
    assert "15.0 µs · 0.75 x" in texts
    assert not cut


def test_a_long_bar_is_cut_off_and_says_how_long_it_is() -> None:
    texts, (haproxy, envoy), cut = _drawn(_result("idle", "HAProxy", 1.0), _result("idle", "Envoy", 13.0))
    assert envoy / haproxy == pytest.approx(4.0, abs=0.01)
    assert "13.0 KiB · 13.00 x" in texts
    assert cut == 1


def test_without_haproxy_the_longest_bar_is_the_scale() -> None:
    texts, (nginx, sidecar), cut = _drawn(_result("small", "nginx", 20.0), _result("small", "sidecar", 10.0))
    assert sidecar / nginx == pytest.approx(0.5, abs=0.01)
    assert "10.0 µs" in texts
    assert not cut


def test_the_picture_says_where_its_figures_come_from() -> None:
    texts, _, _ = _drawn(_result("small", "HAProxy", 20.0), _result("small", "sidecar", 15.0))
    assert "HAProxy 1.0 · sidecar 1.0" in texts
    assert texts[-1] == (
        "A & B, 2 CPUs, Linux 6.1 (cubic), Python 3.12.1; one worker each, medians of 3 turns in turn, 2030-01-01"
    )
