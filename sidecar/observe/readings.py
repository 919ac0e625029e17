"""What an upstream has counted at one moment, as few integers as figures per second are made of, and those figures.

Counters only grow, so that two readings tell what happened between them, however often anybody looks.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

from sidecar.errors import Reason
from sidecar.model import CloseReason
from sidecar.model.stats import CODE_CLASSES, DURATION_BUCKETS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.cluster import Cluster

__all__ = ["SIZE", "Rates", "between", "quantile", "read"]

# Integers of one reading, the duration buckets last: an array of them is 216 bytes, a list of integers four times that.
REQUESTS, ERRORS, SESSIONS, SENT, RECEIVED, BUCKETS = range(6)

_KINDS = len(DURATION_BUCKETS) + 1
SIZE = BUCKETS + _KINDS
_REASONS = len(Reason)
_SERVER_ERRORS = 5  # the class of 5xx
# Sessions that have failed; of the others one side had enough, or this process ends.
_SESSION_ERRORS = tuple(reason for reason in CloseReason if reason.is_failure)


def read(cluster: Cluster, before: array[int] | None = None) -> array[int]:
    """What `cluster` has counted. Where nothing has been since, it is `before` itself: 1 µs, else 5.

    Errors are 5xx answers and requests that broke off after the head of the response; of an upstream that is proxied
    per connection, sessions that failed (`_SESSION_ERRORS`).
    """
    stats = cluster.stats
    durations = stats.durations  # of each request too, and ten times shorter than `requests`
    requests, sessions = sum(durations), sum(stats.sessions)
    sent, received = stats.bytes_sent, stats.bytes_received
    if (
        before is not None
        and before[REQUESTS] == requests
        and before[SESSIONS] == sessions
        and before[SENT] == sent
        and before[RECEIVED] == received
    ):
        return before
    if cluster.per_request:
        errors = sum(durations[_SERVER_ERRORS * _KINDS : (_SERVER_ERRORS + 1) * _KINDS])
        broken = stats.requests[int(Reason.RESET_AFTER_HEADERS) :: _REASONS]  # by method and class
        errors += sum(broken) - sum(broken[_SERVER_ERRORS::CODE_CLASSES])  # of a 5xx it is counted already
    else:
        errors = sum(stats.sessions[reason] for reason in _SESSION_ERRORS)
    found = array("q", (requests, errors, sessions, sent, received))
    found.extend(sum(durations[bucket::_KINDS]) for bucket in range(_KINDS))
    return found


class Rates:
    """What happened in some seconds.

    seconds: that passed. requests, sessions (ended), sent, received (bytes of sessions and tunnels): per second.
    errors: the ratio that failed, of requests or else of sessions, None where there were none. p50, p99: seconds, None
    where there were no requests.
    """

    __slots__ = ("errors", "p50", "p99", "received", "requests", "seconds", "sent", "sessions")

    def __init__(self, seconds: float, counts: Sequence[int], *, per_request: bool) -> None:
        of = counts[REQUESTS] if per_request else counts[SESSIONS]
        buckets = counts[BUCKETS:]
        self.seconds = seconds
        self.requests = counts[REQUESTS] / seconds
        self.sessions = counts[SESSIONS] / seconds
        self.sent = counts[SENT] / seconds
        self.received = counts[RECEIVED] / seconds
        self.errors = counts[ERRORS] / of if of else None
        self.p50 = quantile(0.50, buckets)
        self.p99 = quantile(0.99, buckets)

    def view(self) -> dict[str, Any]:
        """As `recent` of an upstream in `/upstreams`; rounded, so that what stays the same reads the same."""
        return {
            "seconds": round(self.seconds, 1),
            "requests": round(self.requests, 3),
            "errors": None if self.errors is None else round(self.errors, 6),
            "p50": None if self.p50 is None else round(self.p50, 6),
            "p99": None if self.p99 is None else round(self.p99, 6),
            "sessions": round(self.sessions, 3),
            "bytes_sent": round(self.sent, 1),
            "bytes_received": round(self.received, 1),
        }


_NOTHING = (0,) * SIZE


def between(before: array[int], after: array[int], seconds: float, *, per_request: bool) -> Rates | None:
    """What happened between two readings so many seconds apart; None where a counter has begun again."""
    if before is after:
        return Rates(seconds, _NOTHING, per_request=per_request)
    counts = [new - old for new, old in zip(after, before, strict=True)]
    if min(counts) < 0:
        return None
    return Rates(seconds, counts, per_request=per_request)


def quantile(share: float, buckets: Sequence[int]) -> float | None:
    """The duration that `share` of the requests did not exceed, in seconds; None where there were none.

    buckets: requests in each of `DURATION_BUCKETS`, and above. Within a bucket they are taken to be evenly spread, and
    what is above the last bound is that bound, as Prometheus's histogram_quantile has it:
    https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile
    """
    rank = share * sum(buckets)
    if not rank:
        return None
    low = 0.0
    for high, count in zip(DURATION_BUCKETS, buckets, strict=False):
        if count and rank <= count:
            return low + (high - low) * rank / count
        rank -= count
        low = high
    return DURATION_BUCKETS[-1]
