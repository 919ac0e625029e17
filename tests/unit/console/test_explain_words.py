"""`sidecar explain`: what is printed of an answer."""

import io
import json
from typing import Any

import pytest
from support.screens import Terminal

from sidecar.console import asking
from sidecar.console.asking import NoAnswerError
from sidecar.console.explain import show_reasons

ENDPOINT = {
    "address": "[::1]:80",
    "zone": "",
    "weight": 1,
    "in_rotation": True,
    "state": "closed",
    "since": None,
    "why": "in rotation",
    "in_flight": 3,
}
VIEW: dict[str, Any] = {
    "name": "api",
    "scheme": "http",
    "strategy": "round_robin",
    "choice": "the next in a cycle",
    "panic": None,
    "endpoints": [ENDPOINT],
    "next": [{"endpoint": "[::1]:80", "why": "its turn"}],
    "retries": {
        "attempts": 2,
        "on": ["connect", "503"],
        "elsewhere": "elsewhere",
        "per_try_timeout": 0.5,
        "budget": {"ratio": 0.2, "min": 3, "requests": 50, "retries": 4},
    },
    "rate_limit": None,
}


def shown(
    monkeypatch: pytest.MonkeyPatch, answer: tuple[int, Any] | Exception, json: bool = False
) -> tuple[int, str, str]:
    def ask(_address: str, path: str, _method: str, _fields: object) -> tuple[int, Any]:
        assert path == "/v1/explain/my%20api"
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(asking, "ask", ask)
    output, errors = io.StringIO(), io.StringIO()
    code = show_reasons("my api", "127.0.0.1:1", json=json, output=output, errors=errors)
    return code, output.getvalue(), errors.getvalue()


def test_a_router_tries_nothing_again(monkeypatch: pytest.MonkeyPatch) -> None:
    none = {"attempts": 0, "on": [], "elsewhere": "", "per_try_timeout": None, "budget": None}
    code, text, _ = shown(monkeypatch, (200, {**VIEW, "endpoints": [], "retries": none}))
    assert code == 0
    assert "retries" not in text


def test_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    code, text, _ = shown(monkeypatch, (200, VIEW))
    assert code == 0
    assert [line.rstrip() for line in text.splitlines()] == [
        "api (http), round_robin: the next in a cycle.",
        "",
        "endpoint  zone  weight  active  why          since",
        "[::1]:80  -          1       3  in rotation  -",
        "",
        "next: [::1]:80 (its turn)",
        "retries: up to 2 attempts, on connect, 503; elsewhere",
        "each attempt: 0.5 s from the request's end to the response's head",
        "retry budget: 20% of the requests of the last 10 s, at least 3 a second; now 4 for 50 requests",
    ]


@pytest.mark.parametrize(("budget", "beyond"), [({}, "429"), ({"budget": None}, "sessions are closed")])
def test_a_rate_limit_is_told(monkeypatch: pytest.MonkeyPatch, budget: dict[str, Any], beyond: str) -> None:
    rate = {"requests": 100, "per": 0.5, "burst": 200}
    retries = {**VIEW["retries"], **budget}
    _, text, _ = shown(monkeypatch, (200, {**VIEW, "retries": retries, "rate_limit": rate}))
    assert text.splitlines()[-1].rstrip() == f"rate limit: 100 in 0.5 s, 200 at once; beyond it {beyond}"


def test_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    code, text, _ = shown(monkeypatch, (200, VIEW), json=True)
    assert (code, json.loads(text)) == (0, VIEW)


def test_workers_pick_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    picks = [
        {"worker": 0, "endpoint": "a:1", "why": "its turn"},
        {"worker": 1, "endpoint": None, "why": "up to chance"},
    ]
    _, text, _ = shown(monkeypatch, (200, {**VIEW, "next": picks}))
    assert "next, worker 0: a:1 (its turn)\nnext, worker 1: up to chance\n" in text


@pytest.mark.parametrize(
    "change",
    [
        {"panic": "too few"},
        {
            "endpoints": [
                {**ENDPOINT, "in_rotation": False, "state": "open", "since": "2026-01-01T00:00:00.000Z"}
            ]
        },
        {"endpoints": []},
    ],
)
def test_nobody_in_rotation_or_panic_is_not_fine(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    code, text, _ = shown(monkeypatch, (200, {**VIEW, **change}))
    assert code == 1
    assert ("panic: too few." in text) is ("panic" in change)


def test_drained_endpoints_look_drained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("NO_COLOR", raising=False)
    drained = {**ENDPOINT, "in_rotation": False, "why": "drained by hand; until `sidecar enable`"}
    hostile = {**drained, "state": "open", "why": "[red]\x1b]0;title\x07"}
    monkeypatch.setattr(asking, "ask", lambda *_: (200, {**VIEW, "endpoints": [drained, hostile]}))
    output = Terminal()
    assert show_reasons("my api", "127.0.0.1:1", json=False, output=output) == 1
    assert "\x1b[36m◌ drained by hand; until `sidecar enable`" in output.getvalue()
    assert "\N{MULTIPLICATION SIGN} [red]\ufffd]0;title\ufffd" in output.getvalue()


def test_sessions_have_no_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = {"attempts": 1, "on": [], "elsewhere": "nowhere", "per_try_timeout": None, "budget": None}
    _, text, _ = shown(monkeypatch, (200, {**VIEW, "retries": plan}))
    assert text.endswith("retries: up to 1 attempt, on nothing; nowhere\n")


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (
            (404, {"error": "no upstream is called 'x'", "status": 404}),
            1,
            "sidecar: no upstream is called 'x'\n",
        ),
        ((200, {}), 1, "is no sidecar's admin address (status 200)"),
        (NoAnswerError("nothing answers"), 1, "sidecar: nothing answers\n"),
        (ValueError("no address"), 2, "sidecar: no address\n"),
    ],
)
def test_what_is_no_answer(
    monkeypatch: pytest.MonkeyPatch, answer: tuple[int, Any] | Exception, code: int, said: str
) -> None:
    found = shown(monkeypatch, answer)
    assert (found[0], found[1]) == (code, "")
    assert said in found[2]


@pytest.mark.parametrize("json", [False, True])
@pytest.mark.parametrize(
    "changes",
    [
        {"endpoints": [5]},
        {"endpoints": [{}]},
        {"next": None, "endpoints": ["x"]},
        {"retries": [], "endpoints": [{}]},
    ],
)
def test_an_answer_of_another_kind_is_one_line(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], json: bool
) -> None:
    code, text, errors = shown(monkeypatch, (200, VIEW | changes), json)
    assert (code, text) == (1, "")
    assert errors == (
        "sidecar: what answers at 127.0.0.1:1 is no sidecar's admin address (status 200); give --admin HOST:PORT\n"
    )
