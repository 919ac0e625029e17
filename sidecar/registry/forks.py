"""What a fork would break: locks that a thread has taken which the child does not have, and threads themselves.

Servers load an application and fork their workers afterwards (gunicorn's `preload_app`), in whatever state its threads
are at that moment. So a fork waits until nobody is in the middle of anything, as that of `logging` does.
"""

from __future__ import annotations

import os
from threading import Lock
from typing import Protocol
from weakref import WeakSet

__all__ = ["Forked", "look_after"]


class Forked(Protocol):
    """Somebody who has to know of forks."""

    def before_fork(self) -> None:
        """Take what nobody may be in the middle of."""

    def after_fork(self, *, in_child: bool) -> None:
        """Let go of it."""


# Of the process, as forks are.
_lock = Lock()  # around all of the following, and held while a fork goes on
_members: WeakSet[Forked] = WeakSet()
_told: list[Forked] = []


def look_after(member: Forked) -> None:
    """Tell `member` of every fork for as long as it lives."""
    with _lock:
        _members.add(member)


def _before() -> None:
    _lock.acquire()
    for member in list(_members):
        member.before_fork()
        _told.append(member)


def _after(*, in_child: bool) -> None:
    while _told:
        _told.pop().after_fork(in_child=in_child)
    _lock.release()


os.register_at_fork(
    before=_before,
    after_in_parent=lambda: _after(in_child=False),
    after_in_child=lambda: _after(in_child=True),
)
