"""What the log says of an upstream that a registry changes."""

import logging

import pytest
from support.sources import endpoints

from sidecar.model import Endpoint, Snapshot
from sidecar.registry.telling import tell


def snapshot(*addresses: str) -> Snapshot:
    return Snapshot("api", endpoints(*addresses), "consul")


HEAVY = Snapshot("api", (Endpoint("a", 1, 9),), "consul")


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (None, snapshot("b:1", "a:1"), "api: 2 endpoints from consul (+a:1 b:1)"),
        (snapshot("a:1", "b:1"), snapshot("b:1", "c:1"), "api: 2 endpoints from consul (+c:1, -a:1)"),
        (snapshot("a:1"), snapshot("a:1"), "api: 1 endpoint from consul"),
        (snapshot("a:1"), HEAVY, "api: 1 endpoint from consul"),
        (HEAVY, HEAVY, "api: 1 endpoint from consul"),
        (snapshot("a:1"), snapshot(), "api: 0 endpoints from consul (-a:1)"),
        (
            snapshot("x:1"),
            snapshot("a:1", "b:1", "c:1", "d:1"),
            "api: 4 endpoints from consul (+4 of them, -x:1)",
        ),
    ],
)
def test_what_has_changed(
    before: Snapshot | None, now: Snapshot, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sidecar.registry")
    tell(before, now)
    assert caplog.messages == [said]
    assert caplog.records[0].levelname == ("INFO" if now.endpoints else "WARNING")


def test_those_that_are_the_same_objects_are_not_among_them(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sidecar.registry")
    one, two, three = endpoints("a:1", "b:1", "c:1")
    tell(Snapshot("api", (one, two), "etcd"), Snapshot("api", (two, three), "etcd"))
    assert caplog.messages == ["api: 2 endpoints from etcd (+c:1, -a:1)"]
