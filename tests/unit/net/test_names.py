"""From addresses to a connection: whoever answers first, without a resolver, and without anything left behind."""

import asyncio
import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from support.ports import has_ipv6
from support.requirements import lacking

from sidecar.net.names import connect, loopback, with_port


class Resolverless:
    """The running loop without all that asks a resolver: uvloop's `sock_connect` does, whatever the address."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.create_future = loop.create_future
        self.add_writer = loop.add_writer
        self.remove_writer = loop.remove_writer


async def connected(*addresses: tuple[Any, ...]) -> socket.socket:
    entries = [
        (socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_STREAM, 6, "", address)
        for address in addresses
    ]
    duck: Any = Resolverless()
    return await connect(entries, duck)


@pytest.fixture
def refused() -> tuple[str, int]:
    """An address where nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return "127.0.0.1", port


@pytest.fixture
def silent() -> Iterator[tuple[str, int]]:
    """An address that answers nothing: its listener's queue is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        yield listener.getsockname()


@pytest.mark.every_loop
async def test_an_address_that_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, await connected(listener.getsockname()) as sock:
        assert sock.getpeername() == listener.getsockname()
        assert not sock.getblocking()


@pytest.mark.every_loop
async def test_an_ipv6_address_that_answers() -> None:
    if not has_ipv6():
        lacking("no IPv6 here")
    with (
        socket.create_server(("::1", 0), family=socket.AF_INET6) as listener,
        await connected(listener.getsockname()) as sock,
    ):
        assert sock.getpeername()[:2] == listener.getsockname()[:2]


@pytest.mark.every_loop
async def test_a_refusal_has_its_number(refused: tuple[str, int]) -> None:
    with pytest.raises(ConnectionRefusedError) as caught:
        await connected(refused)
    assert caught.value.errno == errno.ECONNREFUSED


@pytest.mark.every_loop
async def test_the_next_address_is_tried_when_one_refuses_or_is_silent(
    refused: tuple[str, int], silent: tuple[str, int]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for first in (refused, silent):
            with await connected(first, listener.getsockname()) as sock:
                assert sock.getpeername() == listener.getsockname()


@pytest.mark.every_loop
async def test_one_that_is_given_up_leaves_nothing(silent: tuple[str, int]) -> None:
    """The test's own check for leaks sees a socket that stays open; a writer that stays is told of here."""
    for addresses in ([silent], [silent, silent]):
        task = asyncio.create_task(connected(*addresses))
        for _ in range(5):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    with socket.create_server(("127.0.0.1", 0)) as listener, await connected(listener.getsockname()) as sock:
        assert not asyncio.get_running_loop().remove_writer(sock), "its number was one of those before"


def test_localhost_is_known() -> None:
    assert loopback("db.example", 80) is None
    for name in ("localhost", "LocalHost."):
        found = loopback(name, 80)
        assert found is not None
        assert [address for *_, address in found] == [("127.0.0.1", 80), ("::1", 80, 0, 0)]


def test_a_port_for_addresses() -> None:
    entries = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1", 0, 0, 3))]
    assert with_port(entries, 80) == [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1", 80, 0, 3))]
