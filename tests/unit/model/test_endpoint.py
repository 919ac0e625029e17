"""Endpoints: what they are called, and what is kept about them."""

import dataclasses
from typing import Any

import pytest
from support.clock import FakeClock

from sidecar.model import Endpoint, EndpointState, Outcome, Snapshot
from sidecar.pool import ConnectionLimit, EndpointPool
from sidecar.resilience import Breaker


@pytest.mark.parametrize(
    ("host", "address"), [("a.example", "a.example:80"), ("127.0.0.1", "127.0.0.1:80"), ("::1", "[::1]:80")]
)
def test_an_address_is_what_a_host_header_holds(host: str, address: str) -> None:
    assert Endpoint(host, 80).address == address


def test_the_weight_is_no_part_of_the_identity() -> None:
    assert Endpoint("a", 80, 1).key == Endpoint("a", 80, 9).key == ("a", 80)
    assert Endpoint("a", 80, 1) != Endpoint("a", 80, 9)
    assert Endpoint("a", 80).weight == 1


@pytest.mark.parametrize("decided", [Endpoint("a", 80), Snapshot("api", (), "static")])
def test_what_a_source_said_does_not_change(decided: Any) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(decided, dataclasses.fields(decided)[0].name, "b")


def test_a_state_begins_empty_and_says_who_it_is() -> None:
    breaker = Breaker(1, 1.0, 1.0, 0.0, FakeClock().uniform)
    state = EndpointState(Endpoint("::1", 80), b"x", breaker, EndpointPool(ConnectionLimit(1, 1)))
    assert list(state.attempts) == [0] * len(Outcome)
    assert (state.authority, state.in_flight, state.removed) == (b"x", 0, False)
    assert repr(state) == "<EndpointState [::1]:80 closed>"
    breaker.record(Outcome.RESET, 1.0, breaker.permit)
    assert repr(state) == "<EndpointState [::1]:80 open>"
