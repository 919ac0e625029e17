"""How `sidecar top` asks: in a thread, the history less often, and what it does with what is no answer."""

import io
import select
import threading
from typing import Any

import pytest
from support.clock import FakeClock
from support.recorded import HISTORY, SCENES

from sidecar.console import status, top
from sidecar.console.asking import NoAnswerError
from sidecar.console.top import _Asker, show_top


def heard(asker: _Asker) -> list[Any]:
    """The answers to one question."""
    assert asker.ask()
    assert not asker.ask()  # one at a time
    assert select.select((asker.fd,), (), (), 10.0)[0]
    return asker.answers()


def test_the_history_is_asked_for_each_five_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    monkeypatch.setattr(status, "fetch", lambda _address: SCENES["healthy"])
    monkeypatch.setattr(top, "ask", lambda _address, _path: (200, HISTORY))
    threads = threading.active_count()
    with _Asker("127.0.0.1:1", clock) as asker:
        assert heard(asker) == [(SCENES["healthy"], HISTORY)]
        clock.advance(4.9)
        assert heard(asker) == [(SCENES["healthy"], None)]
        clock.advance(0.1)
        assert heard(asker) == [(SCENES["healthy"], HISTORY)]
    assert threading.active_count() == threads


@pytest.mark.parametrize("answer", [(404, {"error": "Not Found"}), NoAnswerError("no object")])
def test_a_sidecar_without_history_has_none(
    monkeypatch: pytest.MonkeyPatch, answer: tuple[int, Any] | Exception
) -> None:
    def ask(_address: str, _path: str) -> tuple[int, Any]:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(status, "fetch", lambda _address: SCENES["healthy"])
    monkeypatch.setattr(top, "ask", ask)
    with _Asker("127.0.0.1:1", FakeClock()) as asker:
        assert heard(asker) == [(SCENES["healthy"], None)]


def test_what_goes_wrong_is_an_answer_too(monkeypatch: pytest.MonkeyPatch) -> None:
    error = NoAnswerError("nothing answers")

    def fail(_address: str) -> None:
        raise error

    monkeypatch.setattr(status, "fetch", fail)
    with _Asker("127.0.0.1:1", FakeClock()) as asker:
        assert heard(asker) == [error]


def test_an_answer_after_the_end_goes_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    answered, ended = threading.Event(), threading.Event()

    def fetch(_address: str) -> dict[str, Any]:
        assert ended.wait(10.0)
        return SCENES["healthy"]

    monkeypatch.setattr(status, "fetch", fetch)
    monkeypatch.setattr(top, "ask", lambda _address, _path: (answered.set(), (404, {}))[1])
    with _Asker("127.0.0.1:1", FakeClock()) as asker:
        assert asker.ask()
        thread = asker._thread
    assert thread is not None
    ended.set()
    thread.join(10.0)
    assert answered.is_set()


def test_without_a_terminal_it_is_tables_and_the_last_one_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [SCENES["healthy"], SCENES["panic"], SCENES["healthy"], SCENES["panic"]]
    monkeypatch.setattr(status, "fetch", lambda _address: answers.pop(0))
    output, pauses = io.StringIO(), []
    for count, code in ((1, 0), (3, 1)):
        found = show_top(
            "127.0.0.1:1", FakeClock(), interval=0.5, count=count, output=output, pause=pauses.append
        )
        assert found == code
    assert output.getvalue().count("sidecar 0.1.0") == 4
    assert pauses == [0.5, 0.5]


def test_what_is_no_address_is_a_usage_error_without_a_terminal_too() -> None:
    errors = io.StringIO()
    assert show_top("x", FakeClock(), interval=1.0, output=io.StringIO(), errors=errors) == 2
    assert errors.getvalue().startswith("sidecar: 'x' is no admin address")
