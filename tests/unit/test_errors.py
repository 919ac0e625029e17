"""Reasons are a contract, and errors carry what their catchers need."""

import pytest

from sidecar.errors import ConfigurationError, ProtocolError, Reason, SidecarError, UnknownUpstreamError


def test_reasons_are_the_contract_in_its_order() -> None:
    assert [reason.label for reason in Reason] == [
        "none",
        "no_endpoints",
        "all_open",
        "overflow",
        "connect_refused",
        "connect_timeout",
        "request_timeout",
        "reset_before_headers",
        "reset_after_headers",
        "bad_response",
        "bad_request",
        "too_large",
        "client_gone",
        "retry_budget",
        "draining",
        "tls_expired",
        "tls_wrong_host",
        "tls_unknown_ca",
        "tls_failed",
        "no_route",
        "rate_limited",
    ]
    assert [int(reason) for reason in Reason] == list(range(21)), "the values index arrays"


def test_configuration_error_shows_every_finding() -> None:
    error = ConfigurationError(["a.yml:1: first", "a.yml:2: second"])
    assert error.findings == ["a.yml:1: first", "a.yml:2: second"]
    assert str(error) == "a.yml:1: first\na.yml:2: second"


def test_unknown_upstream_reads_as_a_sentence_and_is_a_key_error() -> None:
    error = UnknownUpstreamError("no upstream is called 'x'; did you mean 'y'?")
    assert str(error) == "no upstream is called 'x'; did you mean 'y'?"  # a plain KeyError would quote it
    with pytest.raises(KeyError):
        raise error


def test_protocol_error_is_a_bad_request_unless_it_says_otherwise() -> None:
    plain = ProtocolError("what")
    assert (str(plain), plain.status, plain.reason) == ("what", 400, Reason.BAD_REQUEST)
    large = ProtocolError("what", 431, Reason.TOO_LARGE)
    assert (large.status, large.reason) == (431, Reason.TOO_LARGE)
    assert isinstance(large, SidecarError)
