"""A worker that is asked what it has counted: in parts, a turn of the loop for each, and all at once at its end."""

import asyncio
from typing import Any

import pytest
from unit.workers.test_supervisor import SETTINGS
from unit.workers.test_values import Process

from sidecar.admin.control import ACTIONS
from sidecar.workers.channel import Message
from sidecar.workers.wire import Order
from sidecar.workers.worker import WorkerApp


class Heard:
    """What the supervisor hears."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def send(self, message: Message) -> None:
        self.messages.append(message)


def worker(heard: Any) -> WorkerApp:
    """One with three upstreams."""
    app = WorkerApp(SETTINGS, {}, [], heard)
    process = Process(name="one").work()
    for name in ("two", "three"):
        process.clusters |= Process(name=name).work().clusters
    app.clusters = process.clusters
    app._context = process.context
    return app


async def test_each_part_is_a_turn_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.workers.values.PART", 1)
    heard = Heard()
    app = worker(heard)
    app.tell_values()
    for count in (1, 2, 3, 3):
        assert len(heard.messages) == count
        await asyncio.sleep(0)
    assert [(told["part"], told["more"]) for told in heard.messages] == [(0, True), (1, True), (2, False)]
    assert [list(told["values"]["next"]) for told in heard.messages] == [["one"], ["two"], ["three"]]
    assert [told["values"]["counters"].get("refused") for told in heard.messages] == [1, None, None]


async def test_after_the_last_word_there_is_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.workers.values.PART", 1)
    heard = Heard()
    app = worker(heard)
    app.tell_values()
    assert list(app.end_values()["next"]) == ["one", "two", "three"]
    for _ in range(4):
        await asyncio.sleep(0)
    assert len(heard.messages) == 1


def test_an_order_is_done_to_all_at_once_that_are_still_there(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[str, list[tuple[str, int]], float]] = []

    def drain(cluster: Any, states: Any, at: float) -> None:
        done.append((cluster.name, [state.endpoint.key for state in states], at))

    monkeypatch.setitem(ACTIONS, "drain", drain)
    app = worker(Heard())
    there = tuple(app.clusters["two"].endpoints)
    app.do(Order("drain", 1.5, "two", (("gone", 80), *there)))
    app.do(Order("drain", 1.5, "two", (("gone", 80),)))
    app.do(Order("drain", 1.5, "nobody", there))
    assert done == [("two", list(there), 1.5)]
