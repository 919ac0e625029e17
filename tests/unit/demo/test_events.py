"""Breaker journals as lines for a person, in step with a fake clock."""

from support.clock import FakeClock

from sidecar.cluster import Cluster
from sidecar.demo.events import EventFeed
from sidecar.model import Endpoint, EndpointState, Outcome, Snapshot, UpstreamPolicy
from sidecar.resilience import BreakerState


def _cluster(clock: FakeClock) -> tuple[Cluster, EndpointState, EndpointState]:
    policy = UpstreamPolicy(
        breaker_threshold=3, breaker_open_for=2.0, breaker_max_open_for=2.0, breaker_jitter=0.0
    )
    cluster = Cluster("api", "http", policy, clock)
    cluster.apply(Snapshot("api", (Endpoint("127.0.0.1", 1), Endpoint("127.0.0.1", 2)), "static"))
    first, second = cluster.endpoints.values()
    return cluster, first, second


def _fail(cluster: Cluster, state: EndpointState, clock: FakeClock, times: int = 3) -> None:
    for _ in range(times):
        cluster.report(state, Outcome.RESET, clock.monotonic(), state.breaker.permit)


def test_a_whole_illness_in_words() -> None:
    clock = FakeClock()
    cluster, _, second = _cluster(clock)
    feed = EventFeed(cluster, {1: "api-1", 2: "api-2"}, clock.monotonic())
    assert feed.fresh() == []

    clock.advance(5.0)
    _fail(cluster, second, clock)
    (event,) = feed.fresh()
    assert (event.at, event.endpoint, event.state) == (5.0, "api-2", BreakerState.OPEN)
    assert event.text == (
        "api-2: breaker opens after 3 failures in a row, the last a reset; api-2 is left alone for 2.0 s"
    )
    assert feed.fresh() == []

    clock.advance(2.0)
    assert cluster.pick(clock.monotonic()) is second
    cluster.report(second, Outcome.FAILURE_STATUS, clock.monotonic(), second.breaker.permit)
    assert [event.text for event in feed.fresh()] == [
        "api-2: breaker is half open, one request goes through as a probe",
        "api-2: breaker opens again, the probe ended in a failure status; api-2 is left alone for 2.0 s",
    ]

    clock.advance(2.0)
    assert cluster.pick(clock.monotonic()) is second
    cluster.report(second, Outcome.SUCCESS, clock.monotonic(), second.breaker.permit)
    assert [event.text for event in feed.fresh()] == [
        "api-2: breaker is half open, one request goes through as a probe",
        "api-2: breaker closes, the probe succeeded",
    ]
    assert feed.counts == {"open": 2, "half_open": 2, "closed": 1}


def test_events_of_several_endpoints_come_in_order_of_time() -> None:
    clock = FakeClock()
    cluster, first, second = _cluster(clock)
    feed = EventFeed(cluster, {}, clock.monotonic())
    clock.advance(1.0)
    _fail(cluster, second, clock)
    clock.advance(1.0)
    _fail(cluster, first, clock)
    assert [(event.at, event.endpoint) for event in feed.fresh()] == [
        (1.0, "127.0.0.1:2"),
        (2.0, "127.0.0.1:1"),
    ]


def test_of_a_burst_longer_than_a_journal_the_end_is_told_and_all_of_it_is_not_told_twice() -> None:
    clock = FakeClock()
    cluster, _, second = _cluster(clock)
    feed = EventFeed(cluster, {}, clock.monotonic())
    _fail(cluster, second, clock)
    for _ in range(20):
        clock.advance(2.0)
        assert cluster.pick(clock.monotonic()) is second
        cluster.report(second, Outcome.RESET, clock.monotonic(), second.breaker.permit)
    length = second.breaker.journal.maxlen
    assert length is not None
    assert len(feed.fresh()) == length
    assert feed.fresh() == []
