"""The demo's configuration."""

import errno
import socket

import pytest

from sidecar.config.settings import Address, EndpointSettings, UpstreamKind
from sidecar.demo import plan as module
from sidecar.demo.plan import API, ECHO, plan, preferably


def test_two_upstreams_with_the_usual_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "preferably", lambda port: port)
    settings = plan([1001, 1002, 1003], 1004)
    api, echo = settings.upstreams
    assert (api.name, api.kind, api.per_request, api.listen_port) == (
        API,
        UpstreamKind.LOAD_BALANCER,
        True,
        8080,
    )
    assert api.endpoints == tuple(EndpointSettings("127.0.0.1", port) for port in (1001, 1002, 1003))
    assert (echo.name, echo.kind, echo.per_request, echo.listen_port) == (
        ECHO,
        UpstreamKind.SERVICE,
        False,
        7000,
    )
    assert echo.endpoints == (EndpointSettings("127.0.0.1", 1004),)
    assert settings.sidecar.admin == Address("127.0.0.1", 9901)
    assert settings.sidecar.metrics == Address("127.0.0.1", 9902)


def test_breakers_move_while_one_watches() -> None:
    for upstream in plan([1], 2).upstreams:
        breaker = upstream.policy.breaker
        assert (breaker.consecutive_failures, breaker.open_for, breaker.max_open_for, breaker.jitter) == (
            3,
            2,
            2,
            0,
        )


def test_a_quiet_tcp_session_is_kept_and_an_idle_http_connection_is_not() -> None:
    api, echo = plan([1], 2).upstreams
    assert api.policy.idle_timeout > 0
    assert echo.policy.idle_timeout == 0


def test_a_taken_port_becomes_any_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert preferably(port) == 0
    assert preferably(port) == port


def test_a_port_that_is_taken_on_ipv6_alone_is_taken() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        assert preferably(taken.getsockname()[1]) == 0


def test_a_machine_without_ipv6_is_no_reason_to_give_a_port_up(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnlyIpv4(socket.socket):
        def __init__(self, family: int = socket.AF_INET, *rest: int) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, *rest)

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setattr(socket, "socket", OnlyIpv4)
    assert preferably(port) == port
