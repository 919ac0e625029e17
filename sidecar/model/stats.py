"""Plain integers that the data path increments and `observe` reads at scrape time.

Arrays are flat and of fixed size, so that counting is one index computation and one addition, and a
scrape's cost has a bound whatever the traffic was.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import Any

from sidecar.errors import Reason
from sidecar.model.limit import Limit
from sidecar.model.outcome import CloseReason, Outcome

__all__ = ["CODE_CLASSES", "DURATION_BUCKETS", "METHODS", "MIRRORED", "RETRY_REASONS", "UpstreamStats"]

# The nine methods of RFC 9110 section 9 and RFC 5789; any other is OTHER, so that a client cannot make series.
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "OTHER")
CODE_CLASSES = 6  # index = status // 100; 0 stays unused
DURATION_BUCKETS = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    10.0,
)  # seconds, inclusive
# What makes the proxy try again, as the `reason` label of `sidecar_retries_total`.
# Those of TLS are shown of upstreams that have it.
RETRY_REASONS = (
    Reason.CONNECT_REFUSED,
    Reason.CONNECT_TIMEOUT,
    Reason.RESET_BEFORE_HEADERS,
    Reason.REQUEST_TIMEOUT,
    Reason.BAD_RESPONSE,  # a status of `retry_on`
)

# What became of the copy of a request that is to be mirrored: sent; none, as too many were under way; none, as its body
# is long or had not come.
MIRRORED = ("sent", "dropped", "skipped")

_CLASSES = CODE_CLASSES  # what `count_request` reads is the module's own, a C number when compiled
_REASONS = len(Reason)
_QUICK = DURATION_BUCKETS[0]
_BUCKETS = len(DURATION_BUCKETS) + 1  # one for what is above all bounds


def zeros(count: int) -> array[int]:
    """An array of `count` 64-bit integers, which compiled code counts in without making an object."""
    return array("q", bytes(8 * count))


_ROW = CODE_CLASSES * _REASONS  # counts of one method
_EMPTY_ROW = zeros(_ROW)
_LABELS = tuple(reason.label for reason in Reason)


class UpstreamStats:
    """What one upstream has seen since the start. Only ever grows, but for the gauges.

    attempts: at its endpoints, by `Outcome`; also of endpoints that have gone. transitions: of their breakers, by
        (state, cause), the same way.
    requests: flat [method][code class][reason]; read it through `request_counts`.
    durations: flat [code class][bucket of `DURATION_BUCKETS`, and one for what is above]; see `duration_counts`.
    duration_sums: seconds per code class.
    connects: opened connections by result: established, refused, timed out, failed at TLS.
    retries: per `Reason`, [failed, succeeded] attempts that were retries. retries_active: that go on now;
        retries_refused: that were not made, the budget being spent.
    hedges: requests that a second endpoint was asked too, [lost, won] by it.
    reuse_failures: reused connections that closed without a response byte (the idle race).
    overflows: requests and sessions turned away, by the `Limit` that was reached.
    proxy_headers: connections that were to begin with a PROXY header: accepted, with none or a bad one, with none in
        time, closed before its end.
    deadlines_exceeded: requests whose own time, of `deadline_header`, was over before their end.
    sessions: ended TCP sessions, and tunnels that HTTP requests have become, by `CloseReason`; bytes_sent goes to
        endpoints, bytes_received comes back.
    checks: health checks by result: failed, succeeded, could not be made.
    secret_loads: how often its bearer token was read, [failed, succeeded].
    routed: requests of a router by (position of the route, upstream), of those that are configured and no others.
    mirrored: requests that a copy of was to be made of, by `MIRRORED`.
    tls_failures: handshakes that came to nothing, [with endpoints, with clients] by the outcomes of TLS. tls_reloads:
        [renewed, failed to be] of the files of each side. tls_expiry: when the own certificate of each side expires,
        seconds since 1970, a gauge; 0 where there is none.
    in_flight and sessions_active are gauges.
    """

    __slots__ = (
        "_duration_sums",
        "_durations",
        "_requests",
        "attempts",
        "bytes_received",
        "bytes_sent",
        "checks",
        "connects",
        "deadlines_exceeded",
        "duration_sums",
        "durations",
        "hedges",
        "in_flight",
        "mirrored",
        "overflows",
        "proxy_headers",
        "requests",
        "retries",
        "retries_active",
        "retries_refused",
        "reuse_failures",
        "routed",
        "secret_loads",
        "sessions",
        "sessions_active",
        "tls_expiry",
        "tls_failures",
        "tls_reloads",
        "transitions",
    )

    def __init__(self) -> None:
        self.requests = zeros(len(METHODS) * CODE_CLASSES * _REASONS)
        self.durations = zeros(CODE_CLASSES * _BUCKETS)
        self.duration_sums = array("d", bytes(8 * CODE_CLASSES))
        self.attempts = zeros(len(Outcome))
        # The first three as compiled code sees them: memory, without the object around it.
        self._requests = self.requests
        self._durations = self.durations
        self._duration_sums = self.duration_sums
        self.transitions: dict[
            tuple[Any, Any], int
        ] = {}  # the breakers' own enums, which this layer does not know
        self.connects = [0, 0, 0, 0]
        self.retries = [[0, 0] for _ in range(_REASONS)]
        self.retries_active = 0
        self.retries_refused = 0
        self.hedges = [0, 0]
        self.reuse_failures = 0
        self.deadlines_exceeded = 0
        self.overflows = [0] * len(Limit)
        self.proxy_headers = [0, 0, 0, 0]
        self.sessions = [0] * len(CloseReason)
        self.checks = [0, 0, 0]
        self.secret_loads = [0, 0]
        self.routed: dict[tuple[int, str], int] = {}
        self.mirrored = [0] * len(MIRRORED)
        self.tls_failures = [[0, 0, 0, 0], [0, 0, 0, 0]]
        self.tls_reloads = [[0, 0], [0, 0]]
        self.tls_expiry = [0.0, 0.0]
        self.bytes_sent = 0
        self.bytes_received = 0
        self.in_flight = 0
        self.sessions_active = 0

    @property
    def has_sessions(self) -> bool:
        """Whether there is or was any session."""
        return self.sessions_active > 0 or any(self.sessions)

    def count_request(self, method: int, status: int, reason: int, seconds: float) -> None:
        """Record the end of an exchange. method: index into `METHODS`; status: 100 to 599."""
        code_class = status // 100
        bucket = 0 if seconds <= _QUICK else bisect_left(DURATION_BUCKETS, seconds)
        self._requests[(method * _CLASSES + code_class) * _REASONS + reason] += 1
        self._durations[code_class * _BUCKETS + bucket] += 1
        self._duration_sums[code_class] += seconds

    def duration_counts(self, code_class: int) -> list[int]:
        """Exchanges per bucket of `DURATION_BUCKETS`, and of what is above, of one class of status codes."""
        return self.durations[code_class * _BUCKETS : (code_class + 1) * _BUCKETS].tolist()

    def request_counts(self) -> list[tuple[str, str, str, int]]:
        """The requests counted so far: (method, code class such as `2xx`, reason, count), none that is zero."""
        found = []
        for method, name in enumerate(METHODS):
            row = self.requests[method * _ROW : (method + 1) * _ROW]
            if row == _EMPTY_ROW:  # most are: looking at every count of 500 upstreams takes 10 ms
                continue
            for index, count in enumerate(row):
                if count:
                    code_class, reason = divmod(index, _REASONS)
                    found.append((name, f"{code_class}xx", _LABELS[reason], count))
        return found
