"""Records behave as the frozen dataclasses that a type checker takes them for."""

from typing import Any

import pytest

from sidecar.config.record import Record, fields


class Point(Record):
    x: int
    y: int = 2


class Named(Point):
    name: str = ""


def test_values_come_by_place_by_name_or_by_default() -> None:
    point = Named(1, name="a")
    assert (point.x, point.y, point.name) == (1, 2, "a")
    assert Named(x=1, y=2, name="a") == point
    assert fields(Named) == {"x": int, "y": int, "name": str}
    assert fields(Point) == {"x": int, "y": int}


@pytest.mark.parametrize(
    ("places", "names", "problem"),
    [
        ((), {}, "Point needs x"),
        ((1,), {"x": 1}, "Point does not take x, or not twice"),
        ((1,), {"z": 1}, "Point does not take z"),
        ((1, 2, 3), {}, "Point takes 2 values, not 3"),
    ],
)
def test_wrong_values_are_refused(places: Any, names: Any, problem: str) -> None:
    with pytest.raises(TypeError, match=problem):
        Point(*places, **names)


def test_a_record_is_frozen() -> None:
    point: Any = Point(1)
    with pytest.raises(AttributeError, match="Point is frozen, y stays"):
        point.y = 3
    with pytest.raises(AttributeError, match="Point is frozen, x stays"):
        del point.x
    assert point == Point(1, 2)


def test_equal_are_records_of_one_class_and_the_same_values() -> None:
    assert Point(1) == Point(1, 2)
    assert hash(Point(1)) == hash(Point(1, 2))
    assert Point(1) != Point(2)
    assert Named(1) != Point(1)
    assert Point(1) != (1, 2)


def test_a_record_says_what_it_holds() -> None:
    assert repr(Named(1, name="a")) == "Named(x=1, y=2, name='a')"
