"""Where the admin and metrics servers listen: sockets that hold whoever comes early, or one clear line."""

import asyncio
import errno
import socket
from contextlib import ExitStack
from typing import Any

import pytest

from sidecar.admin.bind import bind
from sidecar.errors import StartError


def name_of(*hosts: str) -> Any:
    """A look-up that finds these addresses."""

    async def getaddrinfo(_host: str, port: int, **_: object) -> list[Any]:
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (host, port, 0, 0))
            if ":" in host
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))
            for host in hosts
        ]

    return getaddrinfo


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_who_connects_early_waits_for_the_server(host: str) -> None:
    (bound,) = await bind(host, 0, "admin")
    with bound, socket.create_connection(bound.getsockname()[:2]) as early:
        early.sendall(b"first")
        with bound.accept()[0] as accepted:
            assert accepted.recv(5) == b"first"


async def test_a_name_is_every_address_that_it_has_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = name_of("::1", "127.0.0.1", "127.0.0.1")
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", found)
    with ExitStack() as opened:
        bound = [opened.enter_context(one) for one in await bind("own.example", 0, "admin")]
        assert [one.getsockname()[0] for one in bound] == ["::1", "127.0.0.1"]


async def test_an_address_asks_no_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", None)
    (bound,) = await bind("127.0.0.1", 0, "admin")
    bound.close()


async def test_a_taken_port_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(StartError) as raised:
            await bind("127.0.0.1", port, "admin")
    assert str(raised.value) == (
        f"127.0.0.1:{port} (admin): address already in use; "
        "stop what listens there or set sidecar.admin to another"
    )


async def test_when_one_address_is_taken_none_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", name_of("127.0.0.1", "::1"))
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as other:
        port = other.getsockname()[1]
        with pytest.raises(StartError, match="already in use"):
            await bind("own.example", port, "admin")
        socket.create_server(("127.0.0.1", port)).close()


async def test_a_foreign_address_is_one_clear_line() -> None:
    with pytest.raises(StartError) as raised:
        await bind("192.0.2.1", 9902, "metrics")  # TEST-NET-1: nobody has it
    assert str(raised.value) == (
        "192.0.2.1:9902 (metrics): this machine has no such address; set sidecar.metrics to one it has"
    )


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            PermissionError(errno.EACCES, "error while attempting to bind"),
            "[::1]:80 (admin): permission denied; set sidecar.admin to a port above 1023",
        ),
        (
            OSError(errno.ENETDOWN, "error while attempting to bind"),
            "[::1]:80 (admin): network is down; set sidecar.admin to another address",
        ),
        (
            socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
            "[::1]:80 (admin): Name or service not known; set sidecar.admin to another address",
        ),
        (OSError("no number"), "[::1]:80 (admin): no number; set sidecar.admin to another address"),
    ],
)
async def test_other_failures_to_bind_keep_their_reason(
    monkeypatch: pytest.MonkeyPatch, error: OSError, line: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("sidecar.admin.bind.socket.create_server", fail)
    with pytest.raises(StartError) as raised:
        await bind("::1", 80, "admin")
    assert str(raised.value) == line
