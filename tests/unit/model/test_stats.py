"""Counting: flat arrays in, labelled counts out."""

import pytest

from sidecar.errors import Reason
from sidecar.model import CloseReason, Limit, UpstreamStats
from sidecar.model.stats import DURATION_BUCKETS, METHODS, RETRY_REASONS


def test_everything_begins_at_nought() -> None:
    stats = UpstreamStats()
    assert stats.request_counts() == []
    assert not any(stats.requests)
    assert stats.sessions == [0] * len(CloseReason)
    assert stats.retries == [[0, 0]] * len(Reason)
    assert stats.connects == [0, 0, 0, 0]
    assert stats.overflows == [0] * len(Limit)
    gauges = (stats.reuse_failures + stats.deadlines_exceeded, stats.bytes_sent, stats.bytes_received)
    assert gauges == (0, 0, 0)
    assert (stats.in_flight, stats.sessions_active) == (0, 0)


def test_a_request_is_counted_under_its_method_code_class_and_reason() -> None:
    stats = UpstreamStats()
    get, other = METHODS.index("GET"), METHODS.index("OTHER")
    stats.count_request(get, 200, Reason.NONE, 0.1)
    stats.count_request(get, 299, Reason.NONE, 0.1)
    stats.count_request(get, 503, Reason.ALL_OPEN, 0.1)
    stats.count_request(other, 599, Reason.DRAINING, 0.1)
    stats.count_request(0, 100, Reason.NONE, 0.1)
    assert sorted(stats.request_counts()) == [
        ("GET", "1xx", "none", 1),
        ("GET", "2xx", "none", 2),
        ("GET", "5xx", "all_open", 1),
        ("OTHER", "5xx", "draining", 1),
    ]


def test_no_two_label_sets_share_a_counter() -> None:
    stats = UpstreamStats()
    wanted = set()
    for method, name in enumerate(METHODS):
        for code_class in range(1, 6):
            for reason in Reason:
                stats.count_request(method, code_class * 100, reason, 0.0)
                wanted.add((name, f"{code_class}xx", reason.label, 1))
    assert set(stats.request_counts()) == wanted
    assert len(stats.request_counts()) == len(wanted)


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [(0.0, 0), (0.001, 0), (0.0011, 1), (0.25, 7), (1.0, 9), (10.0, 11), (10.001, 12), (1e9, 12)],
)
def test_durations_fall_into_inclusive_buckets(seconds: float, bucket: int) -> None:
    stats = UpstreamStats()
    stats.count_request(0, 404, Reason.NONE, seconds)
    assert [index for index, count in enumerate(stats.duration_counts(4)) if count] == [bucket]
    assert stats.duration_sums[4] == seconds
    assert sum(stats.durations) == 1, "in its code class alone"


def test_durations_add_up_per_code_class() -> None:
    stats = UpstreamStats()
    stats.count_request(0, 200, Reason.NONE, 0.25)
    stats.count_request(5, 204, Reason.NONE, 0.5)
    assert list(stats.duration_sums) == [0.0, 0.0, 0.75, 0.0, 0.0, 0.0]


def test_the_tables_are_the_contract() -> None:
    assert METHODS[-1] == "OTHER"
    assert len(METHODS) == 10
    assert DURATION_BUCKETS == (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
    assert [reason.label for reason in RETRY_REASONS] == [
        "connect_refused",
        "connect_timeout",
        "reset_before_headers",
        "request_timeout",
        "bad_response",
    ]


def test_upstreams_do_not_share_counters() -> None:
    one, two = UpstreamStats(), UpstreamStats()
    one.count_request(0, 200, Reason.NONE, 0.1)
    one.retries[0][0] += 1
    assert two.request_counts() == []
    assert two.retries[0] == [0, 0]
    assert one.retries[1] == [0, 0]
