"""Durations and sizes."""

import pytest

from sidecar.config.quantities import duration, size


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0, 0.0),
        (30, 30.0),
        (0.25, 0.25),
        ("30", 30.0),
        ("250ms", 0.25),
        ("30s", 30.0),
        (" 1.5 s ", 1.5),
        (".5s", 0.5),
        ("5m", 300.0),
        ("1h", 3600.0),
    ],
)
def test_durations(value: float | str, seconds: float) -> None:
    assert duration(value) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (-1, "is negative"),
        (-0.5, "is negative"),
        ("-1s", "is negative"),
        (float("nan"), "is no finite time"),
        (float("inf"), "is no finite time"),
        (10**400, "is no finite time"),
        (-(10**400), "is negative"),
        ("9" * 400 + "s", "is no finite time"),
        ("inf", "is no duration"),
        ("1e3", "is no duration"),
        ("5 M", "is no duration"),
        ("1h30m", "is no duration"),
        ("٣s", "is no duration"),
        ("", "is no duration"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_durations_that_are_none(value: float | str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        duration(value)


@pytest.mark.parametrize(
    ("value", "count"),
    [(0, 0), (65536, 65536), ("512", 512), ("64KiB", 65536), ("1 MiB", 1048576), ("7B", 7)],
)
def test_sizes(value: int | str, count: int) -> None:
    assert size(value) == count


@pytest.mark.parametrize("value", [-1, "-1", "64KB", "64k", "1.5MiB", "", "9" * 16])
def test_sizes_that_are_none(value: int | str) -> None:
    with pytest.raises(ValueError, match="is n"):
        size(value)
