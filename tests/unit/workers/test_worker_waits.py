"""A worker of a process that takes over: it accepts nothing before it is told that the others have stopped to."""

import gc
import resource
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from unit.workers.test_supervisor import SETTINGS

from sidecar.workers.worker import WorkerApp


class Channel:
    def send(self, message: Any) -> None:
        """Nobody hears it."""


@pytest.fixture(autouse=True)
def process_wide() -> Iterator[None]:
    """What a sidecar does to its process is undone."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    gc.unfreeze()


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def worker(listening: socket.socket, *, waits: bool) -> WorkerApp:
    sockets = {"api": [("127.0.0.1", listening.dup().detach())]}
    return WorkerApp(SETTINGS, sockets, [], Channel(), waits=waits)  # type: ignore[arg-type]


@pytest.mark.uvloop
async def test_it_accepts_at_once_unless_it_is_to_wait(listening: socket.socket) -> None:
    app = worker(listening, waits=False)
    await app.start()
    assert list(app._listeners) == ["api"]
    await app.close()


@pytest.mark.uvloop
async def test_it_accepts_when_it_is_told_to(listening: socket.socket) -> None:
    app = worker(listening, waits=True)
    await app.start()
    assert app.ready
    assert app._listeners == {}
    await app.accept()
    assert app._listeners["api"].bound == [("127.0.0.1", listening.getsockname()[1])]
    await app.close()


@pytest.mark.uvloop
async def test_one_that_ends_before_has_accepted_nothing_and_leaves_no_socket(
    listening: socket.socket,
) -> None:
    app = worker(listening, waits=True)
    await app.start()
    app.reach(2)
    await app.accept()
    assert app._listeners == {}
    await app.close()
