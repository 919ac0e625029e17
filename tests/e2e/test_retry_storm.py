"""Every endpoint fails under load: what is tried again does not add to it, and it ends when the endpoints are back.

The bound on attempts is one for each request, as many more as `ratio` of the requests of the last 10 s (those before
the storm among them), and a constant: a connection that was open before the storm may race once, which is tried again
outside the budget. `min` is 0, the retries of each second that the share is not asked for.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.faults import REFUSE, RESET_BEFORE_HEAD, Fault, answering
from support.laboratory import RATE, Laboratory, laboratory, since
from support.paced import Result, failures, tally
from support.waiting import wait_until

OPEN_FOR = 0.5  # seconds, without jitter
THRESHOLD = 5  # consecutive failures, the default
RATIO = 0.2
STORM = 1.8  # seconds of load
SLACK = 0.4  # seconds that a busy machine may add to a moment that is measured
OPENED_IN = 3 * THRESHOLD / RATE + SLACK
POLICY = f"circuit_breaker_timeout: {OPEN_FOR}, retry_budget: {{ratio: {RATIO:.0%}, min: 0}}"
NEVER_OPEN = "circuit_breaker: {consecutive_failures: 1000000, failure_rate: 0}"
RETRY_503 = 'retry_on: [connect, reset, "503"]'


@dataclass(frozen=True, slots=True)
class Storm:
    """policy: further keys that it takes. moves: attempts outside the budget, until the breakers are open."""

    fault: Fault
    policy: str = "retries: 1"
    moves: int = 0


RESETS = Storm(RESET_BEFORE_HEAD)
# A refused connect goes on to who is expected to serve: nobody, once all are open.
REFUSALS = Storm(REFUSE, moves=3 * THRESHOLD)
UNAVAILABLE = Storm(answering(503), RETRY_503)
STORMS = [RESETS, REFUSALS, UNAVAILABLE]
BY_FAULT = pytest.mark.parametrize("storm", STORMS, ids=lambda storm: storm.fault.name)


@dataclass(frozen=True, slots=True)
class Passed:
    """What a storm was. began, returned: monotonic seconds. attempts: made at the endpoints; bound: on those."""

    began: float
    returned: float
    attempts: int
    bound: float
    results: list[Result]
    journals: list[list[dict[str, Any]]]


def rage(lab: Laboratory, storm: Storm) -> Passed:
    """Let all endpoints fail for a while, and come back."""
    attempts = lab.counted("sidecar_attempts_total")
    pooled = lab.counted("sidecar_connections_active")
    began = time.monotonic()
    for endpoint in lab.endpoints:
        endpoint.suffer(storm.fault)
    lab.let_pass(STORM)
    journals = [breaker["journal"] for breaker in lab.breakers().values()]
    made = lab.counted("sidecar_attempts_total") - attempts
    results = lab.load.due(began)
    returned = time.monotonic()
    for endpoint in lab.endpoints:
        endpoint.recover()
    bound = len(results) + RATIO * lab.load.sent + 2 * pooled + storm.moves
    return Passed(began, returned, made, bound, results, journals)


def opened(passed: Passed) -> float:
    """Seconds after which more than half of the breakers were open, as their journals say."""
    first = [journal[0] for journal in passed.journals if journal]
    assert len(first) >= 2, "most have opened"
    assert {(entry["to"], entry["cause"]) for entry in first} == {("open", "consecutive_failures")}
    return max(since(passed.began, entry) for entry in first)


def served_again(lab: Laboratory, passed: Passed, seconds: float) -> None:
    """From so many seconds after the endpoints' return on nothing fails, and all are sent requests."""
    due = passed.returned + seconds
    wait_until(lambda: len(lab.load.due(due)) >= 50, "answers after the storm")
    assert failures(lab.load.due(due)) == []
    for endpoint in lab.endpoints:
        assert any(at <= due for at in endpoint.answers if at >= passed.returned), "not one was asked in time"


@BY_FAULT
def test_attempts_keep_to_the_budget_and_the_end_is_seen_within_one_open_time(
    tmp_path: Path, storm: Storm
) -> None:
    with laboratory(tmp_path, f"{POLICY}, {storm.policy}") as lab:
        passed = rage(lab, storm)
        assert passed.attempts <= passed.bound, tally(passed.results)
        assert opened(passed) <= OPENED_IN
        served_again(lab, passed, OPEN_FOR + SLACK)


# What the budget does by itself: no breaker helps it


@pytest.mark.parametrize("storm", [RESETS, UNAVAILABLE], ids=lambda storm: storm.fault.name)
def test_attempts_keep_to_the_budget_while_no_breaker_opens(tmp_path: Path, storm: Storm) -> None:
    budget = f"retry_budget: {{ratio: {RATIO:.0%}, min: 0}}"
    with laboratory(tmp_path, f"{NEVER_OPEN}, {budget}, {storm.policy}") as lab:
        passed = rage(lab, storm)
        assert passed.attempts <= passed.bound, tally(passed.results)
        assert passed.attempts >= len(passed.results), "all were tried"
        assert passed.journals == [[], [], []]
        served_again(lab, passed, SLACK)


# What `outlier` says: whether traffic goes on to endpoints that are all open


@BY_FAULT
def test_in_panic_all_endpoints_are_used_within_the_budget(tmp_path: Path, storm: Storm) -> None:
    with laboratory(tmp_path, f"{POLICY}, {storm.policy}, outlier: {{panic: all}}") as lab:
        passed = rage(lab, storm)
        assert len(passed.results) / 2 <= passed.attempts <= passed.bound, tally(passed.results)
        assert "503 all_open" not in tally(passed.results)
        assert opened(passed) <= OPENED_IN
        served_again(lab, passed, OPEN_FOR + SLACK)


@BY_FAULT
def test_without_panic_everything_is_answered_all_open_at_once(tmp_path: Path, storm: Storm) -> None:
    with laboratory(tmp_path, f"{POLICY}, {storm.policy}, outlier: {{panic: fail}}") as lab:
        passed = rage(lab, storm)
        seconds = opened(passed)
        assert seconds <= OPENED_IN
        probes = 3 * (STORM / OPEN_FOR + 1)
        answered = tally(result for result in passed.results if result.due >= passed.began + seconds + 0.1)
        assert answered["503 all_open"] >= answered.total() - probes
        assert passed.attempts <= 4 * 3 * THRESHOLD + 2 * probes, "what opened the breakers, and probes"
        waited = [result.seconds for result in passed.results if result.reason == "all_open"]
        assert sorted(waited)[len(waited) * 9 // 10] <= 0.05
        served_again(lab, passed, OPEN_FOR + SLACK)
