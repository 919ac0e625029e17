"""What a key has that the file leaves out: a value of its own, told apart from every value that can be written."""

from __future__ import annotations

from enum import Enum
from typing import Final

__all__ = ["UNSET", "UnsetType"]


class UnsetType(Enum):
    """The type of `UNSET`; an enum of one, so that a checker narrows by `is`."""

    UNSET = "unset"


UNSET: Final = UnsetType.UNSET
