"""What counts as an endpoint's failure (behaviour 26), and the words of the metrics."""

import pytest

from sidecar.model import CloseReason, Limit, Outcome


@pytest.mark.parametrize(
    ("outcome", "failure"),
    [
        (Outcome.SUCCESS, False),
        (Outcome.FAILURE_STATUS, True),
        (Outcome.CONNECT_REFUSED, True),
        (Outcome.CONNECT_TIMEOUT, True),
        (Outcome.REQUEST_TIMEOUT, True),
        (Outcome.RESET, True),
        (Outcome.BAD_RESPONSE, True),
        (Outcome.TOO_MANY_REQUESTS, False),
        (Outcome.CANCELLED, False),
        (Outcome.IDLE_RACE, False),
        (Outcome.LOCAL_SHORTAGE, False),
        (Outcome.OUTRUN, True),
    ],
)
def test_who_is_to_blame(outcome: Outcome, failure: bool) -> None:
    assert outcome.is_failure is failure


def test_outcomes_index_arrays_and_are_labels() -> None:
    assert [int(outcome) for outcome in Outcome] == list(range(16))
    assert [outcome.label for outcome in Outcome] == [
        "success",
        "failure_status",
        "connect_refused",
        "connect_timeout",
        "request_timeout",
        "reset",
        "bad_response",
        "too_many_requests",
        "cancelled",
        "idle_race",
        "local_shortage",
        "outrun",
        "tls_expired",
        "tls_wrong_host",
        "tls_unknown_ca",
        "tls_failed",
    ]


def test_close_reasons_index_arrays_and_are_labels() -> None:
    assert [int(reason) for reason in CloseReason] == list(range(len(CloseReason)))
    assert [reason.label for reason in CloseReason] == [
        "client_closed",
        "endpoint_closed",
        "client_reset",
        "endpoint_reset",
        "no_endpoints",
        "all_open",
        "connect_failed",
        "overflow",
        "idle_timeout",
        "draining",
        "endpoint_unhealthy",
    ]


def test_which_sessions_let_their_application_down() -> None:
    assert {reason.label for reason in CloseReason if reason.is_failure} == {
        "endpoint_reset",
        "no_endpoints",
        "all_open",
        "connect_failed",
        "overflow",
        "draining",
    }


def test_limits_index_arrays_and_are_labels() -> None:
    assert [int(limit) for limit in Limit] == list(range(len(Limit)))
    assert [limit.label for limit in Limit] == [
        "connections",
        "connections_per_endpoint",
        "pending",
        "pending_timeout",
        "in_flight",
        "descriptors",
    ]
