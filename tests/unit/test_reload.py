"""Asking for a reload: one at a time, and what is told of it."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from sidecar.errors import ConfigurationError, StartError
from sidecar.reload import Reload, Reloads

SETTINGS: Any = object()


class Sidecar:
    """Follows what it is given. answers: what comes of each, in turn; the last one for ever."""

    def __init__(self, *answers: list[str] | Exception) -> None:
        self.answers: list[list[str] | Exception] = list(answers) or [["api: added"]]
        self.followed = 0
        self.loads = 0
        self.loaded_in: list[str] = []
        self.bad: Exception | None = None
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self.reloads = Reloads(self.load, self.follow)

    def load(self) -> Any:
        self.loads += 1
        self.loaded_in.append(threading.current_thread().name)
        if self.bad is not None:
            raise self.bad
        return SETTINGS

    async def follow(self, settings: Any) -> list[str]:
        assert settings is SETTINGS
        self.followed += 1
        await self.may_go_on.wait()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def counts(self) -> tuple[int, int, int, bool]:
        found = self.reloads.counts
        return found.success, found.failure, found.unchanged, found.last_success


Make = Callable[..., Sidecar]


@pytest_asyncio.fixture
async def make() -> AsyncIterator[Make]:
    made: list[Sidecar] = []

    def make(*answers: list[str] | Exception) -> Sidecar:
        made.append(Sidecar(*answers))
        return made[-1]

    yield make
    for one in made:
        await one.reloads.close()


async def until(look: Callable[[], object]) -> None:
    async with asyncio.timeout(5.0):
        while not look():  # noqa: ASYNC110 - the state of the code under test has no event
            await asyncio.sleep(0.001)


async def test_what_has_changed_is_told_logged_and_counted(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sidecar")
    sidecar = make(["api: added", "web: timeout"], [])
    assert sidecar.counts == (0, 0, 0, True)
    found = await sidecar.reloads.result()
    assert found == Reload("reloaded", ("api: added", "web: timeout"))
    assert found.answer == (200, {"result": "reloaded", "changes": ["api: added", "web: timeout"]})
    assert caplog.messages == ["reloaded: api: added", "reloaded: web: timeout"]
    again = await sidecar.reloads.result()
    assert again.answer == (200, {"result": "unchanged", "changes": []})
    assert sidecar.counts == (1, 0, 1, True)
    assert threading.current_thread().name not in sidecar.loaded_in, "reading is done aside"


@pytest.mark.parametrize(
    ("error", "status", "findings"),
    [
        (ConfigurationError(["a.yml:1: wrong", "a.yml:2: wrong"]), 422, ["a.yml:1: wrong", "a.yml:2: wrong"]),
        (StartError("cannot listen on 127.0.0.1:1"), 409, ["cannot listen on 127.0.0.1:1"]),
        (KeyError("x"), 409, ["the reload itself failed: KeyError: 'x'"]),
    ],
)
async def test_what_is_refused_says_why(
    make: Make, caplog: pytest.LogCaptureFixture, error: Exception, status: int, findings: list[str]
) -> None:
    sidecar = make(error, ["api: added"])
    found = await sidecar.reloads.result()
    error_text = "not reloaded: the configuration before goes on"
    assert found.answer == (status, {"error": error_text, "status": status, "findings": findings})
    assert caplog.messages == [*findings, error_text]
    assert not any(record.exc_info for record in caplog.records)
    assert sidecar.counts == (0, 1, 0, False)
    await sidecar.reloads.result()
    assert sidecar.counts == (1, 1, 0, True)


async def test_a_file_that_cannot_be_used_is_not_followed(make: Make) -> None:
    sidecar = make()
    sidecar.bad = ConfigurationError(["bad"])
    assert (await sidecar.reloads.result()).findings == ("bad",)
    assert (sidecar.loads, sidecar.followed) == (1, 0)


@pytest.mark.parametrize("how", ["stop", "close"])
async def test_a_file_that_is_read_for_ever_holds_up_no_end(make: Make, how: str) -> None:
    """As of a file server that does not answer."""
    sidecar = make()
    read = threading.Event()
    sidecar.reloads._load = read.wait  # type: ignore[assignment]
    asked = sidecar.reloads.ask()
    await until(lambda: sidecar.reloads._reading)
    try:
        async with asyncio.timeout(5.0):
            if how == "close":
                await sidecar.reloads.close()
            else:
                going_on = sidecar.reloads.stop()
                assert going_on
                await asyncio.wait([going_on])
        assert asked.cancelled()
        assert not read.is_set()
    finally:
        read.set()


async def test_many_ask_while_one_goes_on_and_one_more_comes(make: Make) -> None:
    sidecar = make(["one"], ["two"])
    sidecar.may_go_on.clear()
    first = sidecar.reloads.ask()
    await until(lambda: sidecar.followed == 1)
    others = [sidecar.reloads.ask() for _ in range(10)]
    waiting = asyncio.create_task(sidecar.reloads.result())
    await asyncio.sleep(0)
    sidecar.may_go_on.set()
    assert (await first).changes == ("one",)
    assert {(await other).changes for other in others} == {("two",)}
    assert (await waiting).changes == ("two",)
    assert sidecar.loads == 2


async def test_who_is_not_waited_for_any_more_takes_nothing_away(make: Make) -> None:
    sidecar = make(["one"])
    sidecar.may_go_on.clear()
    waiting = asyncio.create_task(sidecar.reloads.result())
    await until(lambda: sidecar.followed)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    sidecar.may_go_on.set()
    await until(lambda: sidecar.counts == (1, 0, 0, True))


async def test_without_anything_to_read_there_is_no_reload() -> None:
    reloads = Reloads(None, Sidecar().follow)
    found = await reloads.result()
    assert found.answer[0] == 409
    assert found.findings == ("there is no configuration to read again; start the sidecar anew",)
    await reloads.close()


# The end


async def test_what_goes_on_at_the_end_is_given_up(make: Make) -> None:
    sidecar = make()
    sidecar.may_go_on.clear()
    one = asyncio.create_task(sidecar.reloads.result())
    await until(lambda: sidecar.followed)
    two = asyncio.create_task(sidecar.reloads.result())
    await asyncio.sleep(0)
    await sidecar.reloads.close()
    for task in (one, two):
        assert (await task).findings == ("not reloaded: the sidecar is ending",)
    assert (await sidecar.reloads.result()).result == "refused"
    assert sidecar.loads == 1
    await sidecar.reloads.close()


async def test_one_that_goes_on_can_be_waited_for(make: Make) -> None:
    sidecar = make()
    sidecar.may_go_on.clear()
    asked = sidecar.reloads.ask()
    await until(lambda: sidecar.followed)
    task = sidecar.reloads.stop()
    assert task is not None
    sidecar.may_go_on.set()
    await task
    assert (await asked).result == "reloaded"
    assert sidecar.reloads.stop() is None


# Changes of the file


class File:
    """What is iterated over: `change` has it go on."""

    def __init__(self, error: Exception | None = None) -> None:
        self.changed = asyncio.Queue[int]()
        self.iterating = 0
        self._error = error

    async def __call__(self) -> AsyncIterator[object]:
        self.iterating += 1
        try:
            while True:
                yield await self.changed.get()
                if self._error is not None:
                    raise self._error
        finally:
            self.iterating -= 1


async def test_each_change_is_a_reload_until_nobody_looks_any_more(make: Make) -> None:
    sidecar, file, other = make(), File(), File()
    sidecar.reloads.watch(file)
    for count in (1, 2):
        file.changed.put_nowait(1)
        await until(lambda count=count: sidecar.counts[0] == count)
    sidecar.reloads.watch(other)
    await until(lambda: (file.iterating, other.iterating) == (0, 1))
    file.changed.put_nowait(1)
    other.changed.put_nowait(1)
    await until(lambda: sidecar.counts[0] == 3)
    sidecar.reloads.watch(None)
    await until(lambda: other.iterating == 0)
    assert file.changed.qsize() == 1
    sidecar.reloads.watch(other)
    await until(lambda: other.iterating == 1)
    await sidecar.reloads.close()
    assert other.iterating == 0


async def test_who_cannot_look_any_more_says_so_once(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    sidecar, file = make(), File(OSError(28, "no watches left"))
    sidecar.reloads.watch(file)
    file.changed.put_nowait(1)
    await until(lambda: caplog.messages)
    assert caplog.messages[0].startswith(
        "the configuration is not watched any more, SIGHUP reads it again: OSError: "
    )
    await until(lambda: sidecar.counts[0] == 1)


async def test_whoever_watches_hears_of_the_beginning_and_of_the_end(make: Make) -> None:
    heard: list[str] = []

    class Watcher:
        def reloading(self) -> None:
            heard.append("begins")

        def reloaded(self, status: str) -> None:
            heard.append(status)

    sidecar = make()
    reloads = Reloads(sidecar.load, sidecar.follow, Watcher())
    await reloads.idle()
    await reloads.result()
    sidecar.bad = ConfigurationError(["bad"])
    await reloads.result()
    assert heard == ["begins", "configuration reloaded", "begins", "configuration refused"]
    await reloads.close()


async def test_idle_is_when_none_goes_on(make: Make) -> None:
    sidecar = make()
    sidecar.may_go_on.clear()
    asked = sidecar.reloads.ask()
    await until(lambda: sidecar.followed)
    waiting = asyncio.ensure_future(sidecar.reloads.idle())
    await asyncio.sleep(0)
    assert not waiting.done()
    sidecar.may_go_on.set()
    await waiting
    assert asked.done()
