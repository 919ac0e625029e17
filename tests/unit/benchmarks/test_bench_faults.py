"""What is told of a fault: when an endpoint was left alone, and how the load's results are counted."""

import time

import pytest
from faults import WatchfulHAProxy
from laboratory import FAULTS, PacedLoad, Result
from soak import by_class_and_reason
from support.faults import FaultyEndpoint, answering, last_before_silence
from support.http import HttpClient


@pytest.mark.parametrize(
    ("arrivals", "seconds"),
    [
        ([], 0.0),  # a dead endpoint hears of nothing
        ([9.9, 10.1, 10.2, 10.3], 0.3),
        ([10.1, 10.2, 10.3, 10.9], 0.3),  # the last is a probe
        ([10.1, 10.2, 10.3, 10.7, 11.1], 0.7),  # two of them are not
        ([10.0 + number * 0.4 for number in range(13)], None),
        ([10.1, 10.2, 15.5], 0.2),  # after the end of the fault it may come back
    ],
)
def test_an_endpoint_is_ejected_with_the_last_request_before_a_second_of_silence(
    arrivals: list[float], seconds: float | None
) -> None:
    found = last_before_silence(arrivals, 10.0, until=15.0)
    assert found == (None if seconds is None else pytest.approx(seconds))


def test_a_silence_that_the_end_of_the_fault_cuts_short_is_none() -> None:
    assert last_before_silence([10.0, 10.2, 10.4, 10.6], 10.0, until=11.5) is None


def test_results_are_counted_as_the_sidecar_counts_them() -> None:
    results = [
        Result(1.0, 0.1, 200),
        Result(1.0, 0.1, 200, broken="ConnectionResetError"),
        Result(1.0, 0.1, 503),
        Result(1.0, 0.1, 503, reason="all_open"),
    ]
    assert by_class_and_reason(results) == {
        ("2xx", "none"): 1,
        ("2xx", "reset_after_headers"): 1,
        ("5xx", "none"): 1,
        ("5xx", "all_open"): 1,
    }
    assert [result.failed for result in results] == [False, True, True, True]


def test_faults_have_names_of_their_own() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


@pytest.mark.parametrize("retry_on", [False, True])
def test_haproxy_tries_again_only_what_it_is_told(retry_on: bool) -> None:
    settings = WatchfulHAProxy(2.0, retry_on=retry_on).settings
    assert "timeout server 2s\n" in settings
    assert ("retry-on conn-failure" in settings) is retry_on


def test_a_share_of_requests_is_spread_evenly_and_a_health_check_is_not_one() -> None:
    with FaultyEndpoint(unseen="/health") as endpoint, HttpClient(endpoint.port) as client:
        endpoint.suffer(answering(503, 0.5))
        assert [client.request().status for _ in range(6)] == [200, 503] * 3
        assert client.request(target="/health").status == 200
        endpoint.recover()
        assert client.request().status == 200
    assert (len(endpoint.arrivals), len(endpoint.answers), endpoint.spoilt) == (7, 4, 3)


def test_every_request_of_a_paced_load_is_in_the_results_once() -> None:
    with FaultyEndpoint() as endpoint:
        with PacedLoad(endpoint.port, 100.0, connections=2, patience=2.0) as load:
            endpoint.wait_for(lambda seen: len(seen.answers) >= 10, "answers")
            endpoint.suffer(next(fault for fault in FAULTS if fault.name == "die"))
            sent = load.sent
            endpoint.wait_for(lambda _: load.sent >= sent + 10, "requests that nobody answers")
        assert len(load.results) == load.sent
    assert sum(not result.failed for result in load.results) == len(endpoint.answers)
    broken = {result.broken for result in load.results if result.failed}
    assert broken <= {"ConnectionRefusedError", "ConnectionResetError", "IncompleteReadError"}
    assert max(result.ended for result in load.results) <= time.monotonic()
