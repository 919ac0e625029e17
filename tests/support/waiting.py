"""Waiting for a thing to become true, with a bound, and saying what was awaited when it did not."""

import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["settled", "wait_until"]

T = TypeVar("T")


def wait_until(look: Callable[[], T], what: str, seconds: float = 10.0) -> T:
    """Look every 10 ms until `look` gives something true, and give that. Fails the test after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds:g} s; last seen: {seen!r}")
        time.sleep(0.01)
    return seen


def settled(look: Callable[[], int], what: str, quiet: float = 0.5, seconds: float = 15.0) -> int:
    """The value of `look` once it is above 0 and has not changed for `quiet` seconds."""
    value, since = look(), time.monotonic()
    deadline = since + seconds
    while not value or time.monotonic() - since < quiet:
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: still changing after {seconds:g} s; last seen: {value}")
        time.sleep(0.01)
        now = look()
        if now != value:
            value, since = now, time.monotonic()
    return value
