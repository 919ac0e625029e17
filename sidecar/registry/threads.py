"""Work that would hold up the loop, in a thread that neither the loop nor the end of the process waits for.

`asyncio.to_thread` has a pool of them, which `asyncio.run` waits for at its end.
"""

from __future__ import annotations

import asyncio
import errno
from contextlib import suppress
from threading import Event, Thread
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Pauses", "in_thread", "pause", "with_pauses"]

PAUSE = 0.0005  # seconds: enough for a loop that waits for the interpreter to get it
_NEVER = Event()

T = TypeVar("T")
R = TypeVar("R")


async def in_thread(what: str, work: Callable[[], T]) -> T:
    """What `work` gives, or raises, in a thread of its own called `what`.

    Who is cancelled meanwhile does not wait for its end. Raises OSError where there is no thread to be had.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            result = work()
        except Exception as error:
            tell(_fail, error)
        else:
            tell(_succeed, result)

    def tell(settle: Callable[[asyncio.Future[T], R], None], outcome: R) -> None:
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, answer, outcome)

    try:
        Thread(target=run, name=what, daemon=True).start()
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, str(error)) from None
    return await answer


def pause() -> None:
    """Let other threads run.

    One that computes is interrupted once in 5 ms (`sys.getswitchinterval`), which would be the least that each turn of
    the loop waits for meanwhile.
    """
    _NEVER.wait(PAUSE)


def with_pauses(items: Iterable[T], between: int) -> Iterator[T]:
    """The items, with a pause after each `between` of them."""
    for number, item in enumerate(items, 1):
        yield item
        if not number % between:
            pause()


class Pauses:
    """A function that gives what it is given, with a pause after each `between` times: a hook of a JSON decoder."""

    __slots__ = ("_between", "_calls")

    def __init__(self, between: int) -> None:
        self._between = between
        self._calls = 0

    def __call__(self, item: T) -> T:
        self._calls += 1
        if not self._calls % self._between:
            pause()
        return item


def _succeed(answer: asyncio.Future[T], result: T) -> None:
    if not answer.done():
        answer.set_result(result)


def _fail(answer: asyncio.Future[T], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
