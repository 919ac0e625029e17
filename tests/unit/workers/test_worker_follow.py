"""A worker that is told other settings: it follows them, or says why it does not."""

import asyncio
from dataclasses import replace
from typing import Any

from unit.workers.test_supervisor import OTHER, SETTINGS

from sidecar.config.settings import Settings
from sidecar.workers.channel import Message
from sidecar.workers.wire import reload_message
from sidecar.workers.worker import _Conversation


class Worker:
    """Remembers what it has followed, and what else it was told. loads: first it has to wait for what it needs."""

    def __init__(self, error: Exception | None = None, *, loads: bool = False) -> None:
        self.settings = SETTINGS
        self.followed: list[Settings] = []
        self.did: list[str] = []
        self.loaded = asyncio.Event()
        self._error = error
        self._loads = loads

    def has_to_load(self, settings: Settings) -> bool:
        return self._loads

    async def load(self, settings: Settings) -> None:
        await self.loaded.wait()

    def follow(self, settings: Settings) -> None:
        if self._error is not None:
            raise self._error
        self.followed.append(settings)
        self.did.append("follow")

    def reopen(self) -> None:
        self.did.append("reopen")

    def reach(self, stage: int) -> None:
        self.did.append(f"stage {stage}")

    def lose_supervisor(self) -> None:
        self.did.append("lose supervisor")


class Talk:
    """A conversation with a worker, and what the supervisor hears of reloads."""

    def __init__(self, worker: Any) -> None:
        self._conversation = _Conversation()
        self._channel: Any = self._conversation.channel
        self._channel.send = self._hear
        self.answers: list[str] = []
        self._conversation.hand_over(worker)

    def _hear(self, message: Message) -> None:
        assert message["kind"] == "reloaded"
        self.answers.append(message["why"])

    def tell(self, *messages: Message) -> None:
        for message in messages:
            self._conversation._receive(message)

    def lose(self) -> None:
        self._conversation._lost()

    async def loading(self) -> None:
        assert self._conversation._loading is not None
        await self._conversation._loading


def to(settings: Settings) -> Message:
    return reload_message(settings, {"api"})


async def test_what_it_is_told_is_what_it_follows() -> None:
    worker = Worker()
    talk = Talk(worker)
    for settings in (OTHER, replace(SETTINGS, log_level="DEBUG")):
        talk.tell(to(settings))
        assert worker.followed[-1] == settings
    assert talk.answers == ["", ""]


async def test_why_it_does_not_is_one_line() -> None:
    talk = Talk(Worker(KeyError("api")))
    talk.tell(to(OTHER), {"kind": "reload", "settings": {}, "upstreams": []})
    assert talk.answers == ["KeyError: 'api'", "KeyError: 'mode'"]


async def test_what_it_is_told_while_it_loads_comes_after() -> None:
    worker = Worker(loads=True)
    talk = Talk(worker)
    talk.tell(to(OTHER), {"kind": "reopen"}, to(SETTINGS), {"kind": "stage", "stage": 1})
    assert (worker.did, talk.answers) == ([], [])
    worker.loaded.set()
    while len(talk.answers) < 2:
        await talk.loading()
    assert worker.did == ["follow", "reopen", "follow", "stage 1"]
    assert worker.followed == [OTHER, SETTINGS]


async def test_one_that_cannot_follow_what_it_has_loaded_says_so_and_goes_on() -> None:
    worker = Worker(OSError("no"), loads=True)
    talk = Talk(worker)
    talk.tell(to(OTHER), {"kind": "reopen"})
    talk.lose()
    assert worker.did == []
    worker.loaded.set()
    await talk.loading()
    assert talk.answers == ["OSError: no"]
    assert worker.did == ["reopen", "lose supervisor"]
