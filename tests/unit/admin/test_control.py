"""What is done by hand: to whom, and what is said when they are not there."""

import pytest
from support.clock import FakeClock
from support.counting import upstream

from sidecar.admin.control import SHOWN, cluster_called, endpoints_called
from sidecar.errors import UnknownUpstreamError


def test_who_is_not_there_is_told_from_some_of_those_who_are() -> None:
    clock = FakeClock()
    clusters = {f"a{number}": upstream(clock, f"a{number}", 1) for number in range(SHOWN + 5)}
    many = upstream(clock, "api", 30)
    with pytest.raises(
        UnknownUpstreamError, match=r"^no upstream is called 'b'; known are: a0, .*, a19 and 5 more$"
    ):
        cluster_called(clusters, "b")
    with pytest.raises(UnknownUpstreamError, match=r"^api has no endpoint 'b:1'; it has: [^a]* and 10 more$"):
        endpoints_called(many, "b:1")
    with pytest.raises(UnknownUpstreamError, match=r"known are: none$"):
        cluster_called({}, "b")
