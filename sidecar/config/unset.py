"""What a key has that the file leaves out: a value of its own, told apart from every value that can be written."""

from __future__ import annotations

from enum import Enum
from typing import Final, TypeVar

__all__ = ["UNSET", "UnsetType", "or_else"]

T = TypeVar("T")


class UnsetType(Enum):
    """The type of `UNSET`; an enum of one, so that a checker narrows by `is`."""

    UNSET = "unset"


UNSET: Final = UnsetType.UNSET


def or_else(value: T | UnsetType, otherwise: T) -> T:
    """What the file says; `otherwise` where it says nothing."""
    return otherwise if isinstance(value, UnsetType) else value
