"""What lies between two readings of an upstream's counters."""

import pytest
from support.clock import FakeClock
from support.counting import answer, upstream

from sidecar.errors import Reason
from sidecar.model import CloseReason
from sidecar.model.stats import DURATION_BUCKETS
from sidecar.observe.readings import Rates, between, quantile, read

NO_REQUESTS = [0] * (len(DURATION_BUCKETS) + 1)


def counted(**buckets: int) -> list[int]:
    """Requests by position of their bucket: `b0=3`."""
    found = list(NO_REQUESTS)
    for name, count in buckets.items():
        found[int(name[1:])] = count
    return found


def test_where_nothing_has_happened_the_reading_is_the_one_before() -> None:
    cluster = upstream(FakeClock())
    first = read(cluster)
    assert read(cluster, first) is first
    answer(cluster, 1)
    second = read(cluster, first)
    assert second is not first
    assert read(cluster, second) is second


@pytest.mark.parametrize("counter", ["bytes_sent", "bytes_received"])
def test_bytes_alone_are_something_that_happened(counter: str) -> None:
    cluster = upstream(FakeClock(), scheme="tcp")
    first = read(cluster)
    setattr(cluster.stats, counter, 10)
    found = between(first, read(cluster, first), 2.0, per_request=False)
    assert found is not None
    assert (found.sent, found.received) == ((5.0, 0.0) if counter == "bytes_sent" else (0.0, 5.0))


def rates(cluster_scheme: str, *ended: tuple[int, Reason]) -> Rates:
    cluster = upstream(FakeClock(), scheme=cluster_scheme)
    first = read(cluster)
    for status, reason in ended:
        answer(cluster, 1, status, reason=reason)
    found = between(first, read(cluster, first), 2.0, per_request=True)
    assert found is not None
    return found


def test_requests_are_per_second() -> None:
    assert rates("http", *[(200, Reason.NONE)] * 5).requests == 2.5


@pytest.mark.parametrize(
    ("status", "reason", "ratio"),
    [
        (200, Reason.NONE, 0.0),
        (404, Reason.NONE, 0.0),
        (499, Reason.CLIENT_GONE, 0.0),
        (500, Reason.NONE, 0.5),
        (503, Reason.ALL_OPEN, 0.5),
        (200, Reason.RESET_AFTER_HEADERS, 0.5),
        (500, Reason.RESET_AFTER_HEADERS, 0.5),  # once, though it is an error twice
    ],
)
def test_errors_are_answers_of_5xx_and_what_breaks_off(status: int, reason: Reason, ratio: float) -> None:
    assert rates("http", (200, Reason.NONE), (status, reason)).errors == ratio


@pytest.mark.parametrize("reason", list(CloseReason))
def test_sessions_fail_by_what_the_endpoint_or_the_lack_of_one_does(reason: CloseReason) -> None:
    cluster = upstream(FakeClock(), scheme="tcp")
    first = read(cluster)
    cluster.stats.sessions[reason] += 1
    cluster.stats.sessions[CloseReason.CLIENT_CLOSED] += 1
    found = between(first, read(cluster, first), 2.0, per_request=False)
    assert found is not None
    assert (found.sessions, found.errors) == (1.0, 0.5 if reason.is_failure else 0.0)


def test_of_nothing_there_is_no_ratio_and_no_quantile() -> None:
    found = rates("http")
    assert (found.requests, found.errors, found.p50, found.p99) == (0.0, None, None, None)


def test_counters_that_begin_again_tell_nothing() -> None:
    cluster, other = upstream(FakeClock()), upstream(FakeClock())
    answer(cluster, 5)
    answer(other, 4)
    assert between(read(cluster), read(other), 1.0, per_request=True) is None


@pytest.mark.parametrize(
    ("share", "buckets", "seconds"),
    [
        (0.5, NO_REQUESTS, None),
        (0.5, counted(b0=4), 0.0005),  # evenly from 0 on
        (0.5, counted(b1=4), 0.001 + 0.0015 / 2),
        (0.99, counted(b0=100), 0.00099),
        (0.5, counted(b0=1, b2=1), 0.001),  # the end of the first
        (0.75, counted(b0=1, b2=1), 0.0025 + 0.0025 / 2),
        (0.99, counted(b3=98, b11=2), 2.5 + 7.5 / 2),
        (0.99, counted(b0=1, b12=1), 10.0),  # above the last bound is that bound
    ],
)
def test_quantiles_are_those_of_histogram_quantile(
    share: float, buckets: list[int], seconds: float | None
) -> None:
    assert quantile(share, buckets) == (None if seconds is None else pytest.approx(seconds))
