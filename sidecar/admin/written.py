"""A large view as JSON, bit by bit: requests come between.

Of ten thousand endpoints it takes a fifth of a second to look at all and to write it down.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

__all__ = ["Entries", "written"]

PART = 50  # values that are made and written without a pause: about a millisecond for as many endpoints


class Entries:
    """An object that is made key by key. pairs: its keys and values."""

    __slots__ = ("pairs",)

    def __init__(self, pairs: Iterable[tuple[str, Any]]) -> None:
        self.pairs = iter(pairs)


async def written(view: Mapping[str, Any]) -> str:
    """The JSON text of `view`, in which an iterator stands for a list and `Entries` for an object.

    They may be values of the view itself, of its objects, and of what iterators give.
    """
    return "".join([part async for part in _parts(view)])


async def _parts(value: Any, pause: int = 1) -> AsyncIterator[str]:
    """pause: after how many of an iterator's values requests come; those of one within another are smaller."""
    if isinstance(value, Iterator):
        yield "["
        for at, item in enumerate(value):
            yield ", " if at else ""
            async for part in _parts(item, PART):
                yield part
            if at % pause == 0:
                await asyncio.sleep(0)
        yield "]"
    elif isinstance(value, Entries):
        async for part in _object(value.pairs, PART):
            yield part
            await asyncio.sleep(0)
    elif isinstance(value, Mapping) and any(_is_lazy(inner) for inner in value.values()):
        async for part in _object(value.items(), pause):
            yield part
    else:
        yield json.dumps(value)


async def _object(pairs: Iterable[tuple[str, Any]], pause: int) -> AsyncIterator[str]:
    yield "{"
    for at, (key, inner) in enumerate(pairs):
        yield f"{', ' if at else ''}{json.dumps(key)}: "
        async for part in _parts(inner, pause):
            yield part
    yield "}"


def _is_lazy(value: object) -> bool:
    return isinstance(value, Iterator | Entries) or (
        isinstance(value, Mapping) and any(isinstance(inner, Iterator | Entries) for inner in value.values())
    )
