"""How many may be out of rotation."""

import pytest

from sidecar.resilience import too_few_left


@pytest.mark.parametrize(
    ("endpoints", "most"), [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (10, 5), (1000, 500)]
)
def test_half_of_them_may_be_ejected(endpoints: int, most: int) -> None:
    assert not too_few_left(endpoints, most, 0.5, 1)
    assert too_few_left(endpoints, most + 1, 0.5, 1)


def test_one_may_always_be_ejected() -> None:
    assert not too_few_left(3, 1, 0.1, 1)
    assert too_few_left(3, 2, 0.1, 1)


def test_with_no_share_none_may() -> None:
    assert too_few_left(3, 1, 0.0, 1)
    assert too_few_left(1, 1, 0.0, 0)


def test_so_many_must_be_left() -> None:
    assert not too_few_left(4, 2, 1.0, 2)
    assert too_few_left(4, 3, 1.0, 2)
    assert not too_few_left(4, 4, 1.0, 0)


def test_an_endpoint_without_others_may_be_ejected() -> None:
    assert not too_few_left(1, 1, 0.5, 1)
    assert not too_few_left(1, 1, 1.0, 5)


def test_a_share_that_floats_do_not_have_is_not_less_than_itself() -> None:
    assert not too_few_left(100, 29, 0.29, 1)
