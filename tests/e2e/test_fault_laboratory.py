"""One of three endpoints fails under a steady load: how much of it the application sees, and for how long.

200 requests a second, due whatever becomes of those before. Where nothing has to be seen, nothing is; where
something must be, as no byte may be sent twice or nobody knows yet, it is what reached the failing endpoint until
its breaker opened, and then one probe for each open time. What a breaker does meanwhile is in its journal.
"""

import math
import time
from pathlib import Path

import pytest
from support.faults import (
    DIE,
    FLAP,
    HANG,
    IDLE_CLOSE,
    REFUSE,
    RESET_AFTER_HEAD,
    RESET_BEFORE_HEAD,
    Fault,
    answering,
    slowed,
)
from support.laboratory import RATE, laboratory, since
from support.paced import failures, tally
from support.waiting import wait_until

SHARE = RATE / 3  # requests a second that are one endpoint's
OPEN_FOR = 0.5  # seconds, without jitter
THRESHOLD = 5  # consecutive failures, the default
# What a busy machine may add to a moment that is measured, seconds, and so to what reaches an endpoint until then.
SLACK = 0.4
IN_FLIGHT = math.ceil(SHARE * SLACK / 2)
# `circuit_breaker_timeout` has no jitter. A stall of this machine makes a burst of retries: their budget is not
# what is looked at here (test_retry_storm.py does).
POLICY = f"circuit_breaker_timeout: {OPEN_FOR}, retry_budget: {{ratio: 100%, min: 100}}"
TOUCHY = "circuit_breaker: {consecutive_failures: 1}"  # where no breaker is to hear of a thing
SHORT = 0.4  # seconds of time-out where somebody hangs
TIME_OUT = SHORT + 0.2  # as late as the sweep may be


def probes(began: float) -> int:
    """How many probes can have gone out since that monotonic time: one in each open time."""
    return math.ceil((time.monotonic() - began) / OPEN_FOR)


# What the application does not see


@pytest.mark.parametrize("fault", [REFUSE, DIE, RESET_BEFORE_HEAD], ids=lambda fault: fault.name)
def test_no_request_fails_when_one_of_three_does(tmp_path: Path, fault: Fault) -> None:
    with laboratory(tmp_path, POLICY) as lab:
        began = lab.bad.suffer(fault)
        opening = lab.opened(2.0)
        assert opening["cause"] == "consecutive_failures"
        # Each reused connection's reset is an idle race first, which is nobody's fault: so twice as many requests.
        assert since(began, opening) <= 2 * THRESHOLD / SHARE + SLACK
        lab.let_pass(1.0)
        assert lab.bad.spoilt <= 2 * THRESHOLD + IN_FLIGHT + probes(began)
        lab.wait_for_next_opening()
        assert lab.back() <= OPEN_FOR + SLACK
    assert tally(lab.load.results) == {"200": lab.load.sent}


def test_no_request_fails_while_an_endpoint_flaps(tmp_path: Path) -> None:
    with laboratory(tmp_path, POLICY) as lab:
        lab.bad.suffer(FLAP)
        lab.opened(2.0)
        answered = len(lab.bad.answers)
        lab.bad.wait_for(lambda bad: len(bad.answers) > answered + 10, "traffic while it lives")
        openings = lab.breaker()["journal"]
        wait_until(lambda: len(lab.breaker()["journal"]) > len(openings), "that it dies again")
        assert lab.back() <= OPEN_FOR + SLACK
    assert tally(lab.load.results) == {"200": lab.load.sent}


def test_no_request_fails_in_the_idle_race_and_no_breaker_hears_of_it(tmp_path: Path) -> None:
    with laboratory(tmp_path, TOUCHY) as lab:
        lab.bad.suffer(IDLE_CLOSE)
        lab.bad.wait_for(lambda bad: bad.spoilt >= 50, "many races")
        assert lab.breaker()["journal"] == []
        wait_until(lambda: lab.counted("sidecar_connection_reuse_failures_total") >= 50, "all are counted")
    assert tally(lab.load.results) == {"200": lab.load.sent}


def test_no_503_is_seen_with_503_in_retry_on(tmp_path: Path) -> None:
    policy = f'{POLICY}, retry_on: [connect, reset, "503"]'
    with laboratory(tmp_path, policy) as lab:
        began = lab.bad.suffer(answering(503))
        opening = lab.opened(2.0)
        assert since(began, opening) <= THRESHOLD / SHARE + SLACK
        lab.let_pass(1.0)
        assert THRESHOLD <= lab.bad.spoilt <= THRESHOLD + IN_FLIGHT + probes(began)
        lab.wait_for_next_opening()
        assert lab.back() <= OPEN_FOR + SLACK
    assert tally(lab.load.results) == {"200": lab.load.sent}


def test_no_request_fails_at_an_endpoint_that_hangs_with_a_time_for_each_try(tmp_path: Path) -> None:
    policy = f"{POLICY}, per_try_timeout: {SHORT}"
    with laboratory(tmp_path, policy) as lab:
        began = lab.bad.suffer(HANG)
        opening = lab.opened(3.0)
        assert since(began, opening) <= TIME_OUT + THRESHOLD / SHARE + SLACK
        assert lab.back() <= TIME_OUT + OPEN_FOR + SLACK, "a probe that hangs already is waited for"
    assert tally(lab.load.results) == {"200": lab.load.sent}
    assert max(result.seconds for result in lab.load.results) <= TIME_OUT + SLACK


def test_a_slow_endpoint_fails_nothing_and_peak_ewma_leaves_it_to_itself(tmp_path: Path) -> None:
    with laboratory(tmp_path, f"{POLICY}, strategy: peak_ewma") as lab:
        began = lab.bad.suffer(slowed(0.3))
        lab.let_pass(2.0)
        share = sum(at >= began for at in lab.bad.arrivals) / len(lab.load.due(began))
        assert share <= 0.1, "a third would be even"
        assert lab.breaker()["journal"] == []
    assert tally(lab.load.results) == {"200": lab.load.sent}
    assert max(result.seconds for result in lab.load.results) <= 0.3 + SLACK


# What it must see, and how little of it


def test_a_hanging_endpoint_costs_what_it_is_sent_until_the_first_time_outs(tmp_path: Path) -> None:
    with laboratory(tmp_path, f"{POLICY}, timeout: {SHORT}") as lab:
        began = lab.bad.suffer(HANG)
        opening = lab.opened(3.0)
        taken = since(began, opening)
        assert taken <= TIME_OUT + THRESHOLD / SHARE + SLACK
        lab.let_pass(0.7)
        assert lab.back() <= TIME_OUT + OPEN_FOR + SLACK, "a probe that hangs already is waited for"
        sent_there = SHARE * taken + IN_FLIGHT + probes(began)
    failed = failures(lab.load.results)
    assert tally(failed) == {"504 request_timeout": lab.bad.spoilt}
    assert THRESHOLD <= lab.bad.spoilt <= sent_there
    assert max(result.seconds for result in failed) <= TIME_OUT + SLACK


def test_a_broken_answer_is_passed_on_as_broken_until_the_breaker_opens(tmp_path: Path) -> None:
    """A probe's head closes the breaker, as a stream may go on for hours: each open time costs as much again."""
    with laboratory(tmp_path, POLICY) as lab:
        began = lab.bad.suffer(RESET_AFTER_HEAD)
        opening = lab.opened(2.0)
        assert since(began, opening) <= THRESHOLD / SHARE + SLACK
        assert lab.bad.spoilt <= THRESHOLD + IN_FLIGHT
        lab.let_pass(1.0)
        assert lab.back() <= OPEN_FOR + SLACK
        sent_there = (1 + THRESHOLD) * (1 + probes(began)) + IN_FLIGHT
    failed = failures(lab.load.results)
    assert len(failed) == lab.bad.spoilt
    assert THRESHOLD <= lab.bad.spoilt <= sent_there
    assert all(result.status == 200 and result.broken for result in failed), tally(failed)


def test_a_share_of_503_is_seen_until_the_window_decides(tmp_path: Path) -> None:
    """4 of 5 are never 5 in a row: of n requests after g good ones 0.8 n > 0.5 (g + n), so n is 5 / 3 g."""
    breaker = (
        "circuit_breaker: {consecutive_failures: 100, failure_rate: 50%, min_requests: 20, open_for: 0.5}"
    )
    with laboratory(tmp_path, f"{breaker}, retry_budget: {{ratio: 100%, min: 100}}") as lab:
        good = len(lab.bad.answers)
        began = lab.bad.suffer(answering(503, 0.8))
        opening = lab.opened(5.0)
        assert opening["cause"] == "failure_rate"
        needed = 5 / 3 * good
        assert since(began, opening) <= needed / SHARE + SLACK
        assert lab.bad.spoilt <= 0.8 * needed + IN_FLIGHT
        lab.let_pass(0.2)
        seen = lab.bad.spoilt
        lab.bad.recover()
        wait_until(lambda: lab.breaker()["state"] == "closed", "the breaker to close", 3.0)
    assert tally(failures(lab.load.results)) == {"503": lab.bad.spoilt}
    assert seen == lab.bad.spoilt


def test_500_is_the_applications_own_and_nobody_is_ejected_for_it(tmp_path: Path) -> None:
    with laboratory(tmp_path, TOUCHY) as lab:
        began = lab.bad.suffer(answering(500, 0.5))
        lab.let_pass(1.5)
        lab.bad.recover()
        assert lab.breaker()["journal"] == []
        share = sum(at >= began for at in lab.bad.arrivals) / len(lab.load.due(began))
        assert abs(share - 1 / 3) <= 0.03, "it has its share all the time"
    assert tally(failures(lab.load.results)) == {"500": lab.bad.spoilt}
    assert abs(lab.bad.spoilt - 1.5 * SHARE / 2) <= IN_FLIGHT
