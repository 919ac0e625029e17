"""Unix sockets among the endpoints that registries name, and beside them in the file."""

from dataclasses import replace

import pytest
from support.sources import upstream

from sidecar.config.settings import EndpointSettings
from sidecar.model import Endpoint
from sidecar.registry.combine import combined, wanted_of
from sidecar.registry.sources.entries import endpoint_from_fields, endpoint_from_text


def complain(problem: str) -> None:
    raise AssertionError(problem)


def test_as_text_and_as_fields() -> None:
    assert endpoint_from_text(" unix:/run/a.sock ", 80) == Endpoint("unix:/run/a.sock", 0)
    fields = {"host": "unix:@a", "port": "0", "weight": "3", "zone": "b"}
    assert endpoint_from_fields(fields, 80, complain) == Endpoint("unix:@a", 0, 3, "b")


@pytest.mark.parametrize("host", ["unix:run/a.sock", "unix:", "unix:@", "unix:/run/"])
def test_what_is_no_path_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="is no path of a unix socket"):
        endpoint_from_text(host)
    with pytest.raises(ValueError, match="is no path of a unix socket"):
        endpoint_from_fields({"host": host}, 80, complain)


def test_names_are_looked_up_and_sockets_are_not() -> None:
    endpoints = (EndpointSettings("unix:/run/a.sock", 0), EndpointSettings("a.example", 80))
    found = replace(upstream("api", "dns"), endpoints=endpoints)
    wanted = wanted_of(found, "dns")
    assert (wanted.endpoints, wanted.default_port) == ((Endpoint("a.example", 80),), 80)


def test_another_port_for_all_is_none_for_a_socket() -> None:
    found = upstream("api", "file", override_port=81)
    snapshot = combined(found, {"file": (Endpoint("unix:/run/a.sock", 0), Endpoint("a.example", 80))})
    assert snapshot is not None
    assert snapshot.endpoints == (Endpoint("unix:/run/a.sock", 0), Endpoint("a.example", 81))
