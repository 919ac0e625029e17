"""A worker that is told other settings: it follows them, or says why it does not."""

from dataclasses import replace
from typing import Any

from unit.workers.test_supervisor import OTHER, SETTINGS

from sidecar.config.settings import Settings
from sidecar.workers.wire import reload_message
from sidecar.workers.worker import _follow


class Worker:
    """Remembers what it has followed."""

    def __init__(self, error: Exception | None = None) -> None:
        self.settings = SETTINGS
        self.followed: list[Settings] = []
        self._error = error

    def follow(self, settings: Settings) -> None:
        if self._error is not None:
            raise self._error
        self.followed.append(settings)


def told(worker: Any, settings: Settings) -> str:
    return _follow(worker, reload_message(settings, {"api"}))


def test_what_it_is_told_is_what_it_follows() -> None:
    worker = Worker()
    for settings in (OTHER, replace(SETTINGS, log_level="DEBUG")):
        assert told(worker, settings) == ""
        assert worker.followed[-1] == settings


def test_why_it_does_not_is_one_line() -> None:
    assert told(Worker(KeyError("api")), OTHER) == "KeyError: 'api'"
    worker: Any = Worker()
    assert _follow(worker, {"kind": "reload", "settings": {}, "upstreams": []}) == "KeyError: 'mode'"
