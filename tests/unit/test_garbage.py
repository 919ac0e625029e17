"""What is looked through for garbage, and when."""

import gc
import weakref
from collections.abc import Iterator

import pytest
from support.clock import FakeClock

from sidecar.garbage import WHOLE, Garbage


class Thing:
    """Part of a cycle."""

    def __init__(self) -> None:
        self.own = self


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def garbage(clock: FakeClock) -> Iterator[Garbage]:
    """One that has begun."""
    garbage = Garbage(clock)  # type: ignore[arg-type] # a Clock to all who use it
    garbage.begin()
    yield garbage
    garbage.end()
    gc.unfreeze()


def test_what_outlives_a_collection_is_not_looked_at_by_the_next(garbage: Garbage) -> None:
    thing = Thing()
    gc.collect()
    assert not any(found is thing for found in gc.get_objects())


def test_what_is_newer_is_collected(garbage: Garbage) -> None:
    gone = weakref.ref(Thing())
    gc.collect()
    assert gone() is None


def test_garbage_that_was_set_aside_is_found_in_the_end(garbage: Garbage, clock: FakeClock) -> None:
    thing = Thing()
    gc.collect()
    gone = weakref.ref(thing)
    del thing
    clock.advance(WHOLE - 1.0)
    gc.collect()
    assert gone() is not None
    clock.advance(1.0)
    gc.collect(1)  # which is not about the oldest
    assert gone() is not None
    gc.collect()
    assert gone() is None


def test_the_next_whole_look_is_as_long_after(garbage: Garbage, clock: FakeClock) -> None:
    clock.advance(WHOLE)
    gc.collect()
    thing = Thing()
    gc.collect()
    gone = weakref.ref(thing)
    del thing
    gc.collect()
    assert gone() is not None


def test_afterwards_collections_are_as_they_were(garbage: Garbage) -> None:
    before = list(gc.callbacks)
    garbage.end()
    garbage.end()
    assert len(gc.callbacks) == len(before) - 1
    thing = Thing()
    gc.collect()
    assert any(found is thing for found in gc.get_objects())
