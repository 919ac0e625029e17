"""The circuit breaker of one endpoint.

    state      what happens                                     next       cause
    ---------  -----------------------------------------------  ---------  --------------------
    closed     consecutive failures reach the threshold         open       consecutive_failures
    closed     too many of the window's attempts have failed    open       failure_rate
    open       asked for a probe after the open time            half_open  open_time_over
    half_open  the probe succeeds                               closed     probe_succeeded
    half_open  the probe fails (429 included)                   open       probe_failed
    closed     another worker's breaker opens                   open       shared
    half_open  another worker's breaker opens                   open       shared
    open       another worker's breaker closes                  closed     shared
    half_open  another worker's breaker closes                  closed     shared
    closed     `fall` checks in a row were bad, or the first    open       check_failed
    half_open  `fall` checks in a row were bad                  open       check_failed
    open       `rise` checks in a row were good                 closed     check_passed
    half_open  `rise` checks in a row were good                 closed     check_passed
    any        tripped by hand                                  open       tripped
    open       reset by hand                                    closed     reset
    half_open  reset by hand                                    closed     reset

Nothing else moves it. While it is half open exactly one probe is out; a probe that ended without telling
anything about the endpoint (its client left) is given back and the next request takes its place.

The failure rate is for an endpoint that fails now and then, which consecutive failures never see: it opens when more
than `failure_rate` of the attempts in the window failed, and those are at least `min_requests`, so that one of two
failing at night trips nothing. What was counted before it opened is forgotten when it closes.

Rows of cause `shared` are `adopt`: the breakers of one endpoint in the workers of one sidecar are one breaker as far
as messages allow. Of two moves the later counts, wherever it was made, so that all come to the same end in whatever
order they hear of them. One that is open stays so when it hears of another opening or of another's probe; only the
moment of its own probe changes. Nothing adopted is told on. One that its own checks hold open does not close with
another's: that may be a request that has succeeded before the other's checks have failed as often.

Health checks are its second input. While an endpoint fails them it is held open: no request is sent to see whether it
has recovered, which is what the checks are there for. Without that the requests' successes would close it again and
again against the word of an endpoint that asks to be left alone. And `rise` good checks in a row after it opened close
it, whatever opened it and however much of its open time is left (as Envoy's
`successful_active_health_check_uneject_host`). Where checks can no longer be made at all (`release`) nobody would ever
bring it back: then it is held no longer, its open time counts, and a request is its probe.

Tripped by hand it stays open until it is reset by hand: neither probes nor checks nor other workers close it.

Every attempt carries the permit it was let through with, and each move makes those before it void: requests
that hung since before it opened tell nothing about the endpoint that has recovered meanwhile.

The open time starts at `open_for` and doubles with each opening in a row up to `max_open_for`. A row ends with the
first attempt that succeeds after it has closed: a probe whose answer begins well closes it, and may break then. It is
spread by `jitter` so that the sidecars of a fleet do not probe in step (AWS builders' library, "Timeouts, retries and
backoff with jitter"). The seed's fixed `circuit_breaker_timeout` is `open_for == max_open_for`, no jitter.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from sidecar.model.outcome import Outcome
from sidecar.resilience.window import SlidingWindow

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["VOID", "Breaker", "BreakerState", "Cause", "Transition"]

VOID = -1  # the permit of an attempt that is to tell nothing: sent where a probe is out, in panic

_NEVER = float("inf")
_ROUNDING = 1e-6  # attempts: 0.29 times 100 is less than 29

JOURNAL_LENGTH = 16  # transitions kept as evidence: some minutes of a flapping endpoint


class BreakerState(IntEnum):
    """Closed lets everything through, open nothing, half open one probe at a time."""

    CLOSED = 0
    OPEN = 1
    HALF_OPEN = 2

    @property
    def label(self) -> str:
        """The name as metrics and JSON spell it."""
        return self.name.lower()


class Cause(IntEnum):
    """Why a breaker moved; the `cause` label of `sidecar_breaker_transitions_total`."""

    CONSECUTIVE_FAILURES = 0
    OPEN_TIME_OVER = 1
    PROBE_SUCCEEDED = 2
    PROBE_FAILED = 3
    SHARED = 4
    FAILURE_RATE = 5
    CHECK_FAILED = 6
    CHECK_PASSED = 7
    TRIPPED = 8
    RESET = 9

    @property
    def label(self) -> str:
        """The name as metrics and JSON spell it."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Transition:
    """One entry of the journal.

    at: monotonic seconds. failures: consecutive failures then. evidence: the outcome that decided it, None when time,
    a check, somebody's hand or another worker did. open_for: seconds it will stay open at
    least, 0 unless it opened for a time.
    good, bad: attempts in the window then; 0 without a failure rate.
    """

    at: float
    to: BreakerState
    cause: Cause
    failures: int
    evidence: Outcome | None
    open_for: float
    good: int = 0
    bad: int = 0


class Breaker:
    """One endpoint's breaker: the table above.

    threshold: consecutive failures that open it, at least 1.
    open_for, max_open_for: seconds, 0 < open_for <= max_open_for.
    jitter: 0 to 1; the open time is spread evenly over ±jitter of itself.
    uniform: a float in [0, 1).
    failure_rate: 0 to 1, above which share of failures it opens; 0 looks at none. min_requests, window: of how many
        attempts at least, in how many seconds.
    rise, fall: how many good checks in a row close it, how many bad ones open it.
    failing: checks hold it open. tripped: somebody's hand does.
    transitions: counts of its moves. totals: where they are counted too, with those of others; None for nowhere.
    closed: whether it is. permit: what an attempt that begins now is to bring back to `record`, if it is closed or the
        attempt is the probe; any other brings `VOID`.
    """

    __slots__ = (
        "_checked",
        "_checks_in_a_row",
        "_jitter",
        "_max_open_for",
        "_open_for",
        "_opened_in_a_row",
        "_uniform",
        "closed",
        "failing",
        "failure_rate",
        "failures",
        "fall",
        "journal",
        "min_requests",
        "open_until",
        "permit",
        "probing",
        "rise",
        "state",
        "threshold",
        "totals",
        "transitions",
        "tripped",
        "window",
    )

    def __init__(
        self,
        threshold: int,
        open_for: float,
        max_open_for: float,
        jitter: float,
        uniform: Callable[[], float],
        failure_rate: float = 0.0,
        min_requests: int = 20,
        window: float = 10.0,
        rise: int = 2,
        fall: int = 3,
    ) -> None:
        self._uniform = uniform
        self.window: SlidingWindow | None = None
        self.configure(
            threshold, open_for, max_open_for, jitter, failure_rate, min_requests, window, rise, fall
        )
        self.state = BreakerState.CLOSED
        self.closed = True
        self.failing = False
        self.tripped = False
        self._checks_in_a_row = 0  # good ones above 0, bad ones below
        self._checked = False
        self.failures = 0
        self.open_until = 0.0
        self.permit = 0
        self.probing = False
        self.journal: deque[Transition] = deque(maxlen=JOURNAL_LENGTH)
        self.transitions: dict[tuple[BreakerState, Cause], int] = {}
        self.totals: dict[tuple[BreakerState, Cause], int] | None = None
        self._opened_in_a_row = 0

    def configure(
        self,
        threshold: int,
        open_for: float,
        max_open_for: float,
        jitter: float,
        failure_rate: float,
        min_requests: int,
        window: float,
        rise: int,
        fall: int,
    ) -> None:
        """Go by these from now on. Where it is, until when, and what it has counted stay.

        A window of another length starts empty: what the old one's buckets held cannot be told apart any finer.
        """
        self.threshold = threshold
        self._open_for = open_for
        self._max_open_for = max_open_for
        self._jitter = jitter
        self.failure_rate = failure_rate
        self.min_requests = min_requests
        if not failure_rate:
            self.window = None
        elif self.window is None or self.window.seconds != window:
            self.window = SlidingWindow(window)
        self.rise = rise
        self.fall = fall

    def record(self, outcome: Outcome, now: float, permit: int) -> bool:
        """Take the outcome of an attempt and the permit that it began with. True when the state moved."""
        if permit != self.permit:
            return False
        if self.state is BreakerState.CLOSED:
            if outcome is Outcome.SUCCESS:
                self.succeed(now)
            elif outcome.is_failure:
                return self._fail(outcome, now)
            return False
        if self.state is BreakerState.OPEN:  # nothing is let through now, so nothing can tell anything
            return False
        self.probing = False
        if outcome is Outcome.SUCCESS:
            self.failures = 0
            self._move(BreakerState.CLOSED, Cause.PROBE_SUCCEEDED, outcome, now, 0.0)
            return True
        if outcome.is_failure or outcome is Outcome.TOO_MANY_REQUESTS:
            self.failures += 1
            self._open(Cause.PROBE_FAILED, outcome, now)
            return True
        return False  # cancelled: the permission is free again

    def succeed(self, now: float) -> None:
        """An attempt that began while it was closed, which it is, has succeeded: what nearly every one does."""
        self.failures = 0
        self._opened_in_a_row = 0
        if self.window is not None:
            self.window.count(True, now)

    def _fail(self, outcome: Outcome, now: float) -> bool:
        self.failures += 1
        if self.window is not None:
            self.window.count(False, now)
        if self.failures >= self.threshold:
            self._open(Cause.CONSECUTIVE_FAILURES, outcome, now)
            return True
        if self.window is not None:
            good, bad = self.window.totals(now)
            if good + bad >= self.min_requests and bad > self.failure_rate * (good + bad) + _ROUNDING:
                self._open(Cause.FAILURE_RATE, outcome, now)
                return True
        return False

    def take_probe(self, now: float) -> bool:
        """Ask to send the one probe. True gives the permission; `record` with the permit gives it back."""
        if self.failing or self.tripped:
            return False
        if self.state is BreakerState.OPEN and now >= self.open_until:
            self._move(BreakerState.HALF_OPEN, Cause.OPEN_TIME_OVER, None, now, 0.0)
        elif self.state is not BreakerState.HALF_OPEN or self.probing:
            return False
        self.probing = True
        return True

    def adopt(
        self,
        to: BreakerState,
        at: float,
        open_until: float,
        opened_in_a_row: int,
        failing: bool = False,
    ) -> bool:
        """Follow another worker's breaker of this endpoint. True when the state moved.

        to: where that one is. at: when it got there, on the clock that all workers have in common.
        open_until: when a probe may be sent, if `to` is open; when one that is out has had its time, if half open.
        failing: checks hold that one open. To be said to a breaker that has had no checks yet, which is held open too
            then, until its own say otherwise; one that has had some has them to go by.
        """
        if self.tripped or (self.journal and at < self.journal[-1].at):
            return False  # what has happened here since is newer
        if to is BreakerState.HALF_OPEN:  # one probe at a time: its own has to wait
            if self.state is BreakerState.OPEN and open_until > self.open_until:
                self.open_until = open_until
            return False
        if to is BreakerState.OPEN:
            self.open_until = open_until
            self._opened_in_a_row = opened_in_a_row
            self.failing = self.failing or failing
            if self.state is BreakerState.OPEN:
                return False
            self.probing = False
            self._move(to, Cause.SHARED, None, at, open_until - at)
            return True
        return not self.failing and self._close(Cause.SHARED, at)

    def check(self, good: bool, now: float) -> bool:
        """Take the result of a health check. True when the state moved.

        The first of all counts for as many as are asked for, if it is bad: an endpoint that is ill from the start is
        not to get a request first (HAProxy's `fastinter` and Envoy's initial state do the same for a start).
        """
        row = self._checks_in_a_row
        if not good and not self._checked:
            row = 1 - self.fall
        self._checked = True
        self._checks_in_a_row = row = max(row, 0) + 1 if good else min(row, 0) - 1
        if good:
            if row < self.rise:
                return False
            self.failing = False
            return not self.tripped and self._close(Cause.CHECK_PASSED, now)
        if row > -self.fall:
            return False
        self.failing = True
        if self.state is BreakerState.OPEN:
            return False
        self.probing = False
        self._open(Cause.CHECK_FAILED, None, now)
        return True

    def release(self) -> bool:
        """Checks cannot be made any more: they hold it open no longer. True when they did."""
        was, self.failing = self.failing, False
        self._checks_in_a_row = 0
        return was

    def trip(self, now: float) -> None:
        """Open it until `reset`; one that is open already has this as its reason now."""
        self.tripped = True
        self.probing = False
        self.open_until = now
        self._move(BreakerState.OPEN, Cause.TRIPPED, None, now, 0.0)

    def reset(self, now: float) -> bool:
        """Close it and begin anew, whatever opened it. True when the state moved."""
        self.tripped = False
        self.failing = False
        self._checks_in_a_row = 0
        self._opened_in_a_row = 0
        self.failures = 0
        if self.window is not None:
            self.window.clear()
        return self._close(Cause.RESET, now)

    @property
    def held(self) -> str:
        """What keeps it open without end: `hand`, `checks`, or empty."""
        return "hand" if self.tripped else "checks" if self.failing else ""

    @property
    def opened_in_a_row(self) -> int:
        """How often it has opened since an attempt last succeeded while it was closed."""
        return self._opened_in_a_row

    @property
    def probe_at(self) -> float:
        """When a probe may be asked for, monotonic seconds; infinity while there is nothing to ask."""
        if self.failing or self.tripped:
            return _NEVER
        if self.state is BreakerState.OPEN:
            return self.open_until
        if self.state is BreakerState.HALF_OPEN and not self.probing:
            return 0.0
        return _NEVER

    def _close(self, cause: Cause, now: float) -> bool:
        """Close it without a probe's success, if it is not closed."""
        if self.state is BreakerState.CLOSED:
            return False
        self.failures = 0
        self.probing = False
        self.failing = False
        self._move(BreakerState.CLOSED, cause, None, now, 0.0)
        return True

    def _open(self, cause: Cause, evidence: Outcome | None, now: float) -> None:
        # 2.0**64 is already far beyond any cap; the bound keeps the power from overflowing after a long outage.
        seconds = min(self._open_for * 2.0 ** min(self._opened_in_a_row, 64), self._max_open_for)
        seconds *= 1.0 + self._jitter * (2.0 * self._uniform() - 1.0)
        self._opened_in_a_row += 1
        self.open_until = now + seconds
        self._move(BreakerState.OPEN, cause, evidence, now, seconds)

    def _move(
        self, to: BreakerState, cause: Cause, evidence: Outcome | None, now: float, open_for: float
    ) -> None:
        if to is BreakerState.OPEN and self._checks_in_a_row > 0:
            self._checks_in_a_row = (
                0  # good ones before it opened, be it by its probe, say nothing of it since
            )
        self.state = to
        self.closed = to is BreakerState.CLOSED
        self.permit += 1
        self.transitions[to, cause] = self.transitions.get((to, cause), 0) + 1
        if self.totals is not None:
            self.totals[to, cause] = self.totals.get((to, cause), 0) + 1
        good, bad = (0, 0) if self.window is None else self.window.totals(now)
        self.journal.append(Transition(now, to, cause, self.failures, evidence, open_for, good, bad))
        if to is BreakerState.CLOSED and self.window is not None:
            self.window.clear()
