"""Work in a thread of its own: what comes back, and what does when nobody waits or no thread is to be had."""

import asyncio
import threading

import pytest

from sidecar.registry import threads
from sidecar.registry.threads import Pauses, in_thread, with_pauses


@pytest.mark.every_loop
async def test_what_it_gives_and_what_it_raises() -> None:
    assert await in_thread("a name", lambda: threading.current_thread().name) == "a name"
    with pytest.raises(ZeroDivisionError):
        await in_thread("a name", lambda: 1 // 0)


@pytest.mark.parametrize("fails", [True, False])
async def test_who_is_cancelled_waits_for_nothing(fails: bool) -> None:
    go_on = threading.Event()
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

    def work() -> None:
        go_on.wait(10.0)
        if fails:
            raise OSError

    task = asyncio.create_task(in_thread("slow", work))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    for thread in threading.enumerate():
        if thread.name == "slow":
            thread.join(10.0)
    await asyncio.sleep(0)  # in which the loop hears of an answer that nobody waits for
    assert not complaints


def test_the_loop_has_ended_meanwhile() -> None:
    go_on = threading.Event()

    async def give_up() -> None:
        task = asyncio.create_task(in_thread("slow", lambda: go_on.wait(10.0)))
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(give_up())
    go_on.set()  # a warning of an exception in a thread would fail the test


async def test_no_thread_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(OSError, match="can't start new thread"):
        await in_thread("refused", lambda: None)


def test_pauses_come_after_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    paused: list[None] = []
    monkeypatch.setattr(threads, "pause", lambda: paused.append(None))
    hook = Pauses(2)
    assert [(hook(item), len(paused)) for item in "abcde"] == [
        ("a", 0),
        ("b", 1),
        ("c", 1),
        ("d", 2),
        ("e", 2),
    ]
    paused.clear()
    assert [(item, len(paused)) for item in with_pauses("abc", 2)] == [("a", 0), ("b", 0), ("c", 1)]
