"""The proxy's own answers."""

import json

import pytest

from sidecar.errors import Reason
from sidecar.proxy.respond import CLOSE, KEEP_ALIVE, STATUS_BY_REASON, error_response


def test_a_whole_response() -> None:
    head, _, body = error_response(503, Reason.ALL_OPEN, "api").partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 503 Service Unavailable",
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(body),
        b"x-sidecar-error: all_open",
        b"Connection: close",
    ]
    assert json.loads(body) == {
        "error": "all_open",
        "status": 503,
        "upstream": "api",
        "message": "every endpoint's circuit breaker is open",
    }


def test_when_to_ask_again() -> None:
    head, _, body = error_response(429, Reason.RATE_LIMITED, "api", retry_after=7).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
    assert b"\r\nRetry-After: 7\r\n" in head
    assert json.loads(body)["message"] == "the upstream's rate limit is reached"
    assert b"Retry-After" not in error_response(429, Reason.RATE_LIMITED, "api")


@pytest.mark.parametrize("connection", [b"", CLOSE, KEEP_ALIVE])
def test_the_connection_line_is_the_callers(connection: bytes) -> None:
    head, blank, _ = error_response(502, Reason.BAD_RESPONSE, "api", connection=connection).partition(
        b"\r\n\r\n"
    )
    assert (head + blank).endswith(b"x-sidecar-error: bad_response\r\n" + connection + b"\r\n")


def test_a_heads_answer_tells_the_length_of_the_body_it_leaves_out() -> None:
    whole = error_response(504, Reason.REQUEST_TIMEOUT, "api")
    assert error_response(504, Reason.REQUEST_TIMEOUT, "api", bodiless=True) == whole.partition(b"{")[0]


def test_the_message_may_be_the_callers_and_cannot_break_out() -> None:
    data = error_response(400, Reason.BAD_REQUEST, "api", 'a "quote"\r\nSet-Cookie: x')
    assert data.count(b"\r\n\r\n") == 1
    assert b"Set-Cookie" not in data.partition(b"\r\n\r\n")[0]
    assert json.loads(data.partition(b"\r\n\r\n")[2])["message"] == 'a "quote"\r\nSet-Cookie: x'


@pytest.mark.parametrize(
    "reason", [reason for reason in STATUS_BY_REASON if reason is not Reason.CLIENT_GONE]
)
def test_every_reason_that_is_answered_has_a_status_and_says_something(reason: Reason) -> None:
    """16. CLIENT_GONE has nobody to be told; RESET_AFTER_HEADERS has its answer begun already."""
    status = STATUS_BY_REASON[reason]
    told = json.loads(error_response(status, reason, "api").partition(b"\r\n\r\n")[2])
    ours = reason in (Reason.NO_ROUTE, Reason.RATE_LIMITED)  # the client asks for what is not to be had here
    assert (400 if ours else 500) <= status <= (499 if ours else 599)
    assert told["message"] or reason is Reason.RESET_AFTER_HEADERS
