"""How one process asks another for its sockets, and what each does where the other is not as it should be."""

import asyncio
import errno
import itertools
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import pytest_asyncio

import sidecar.handover as module
from sidecar.errors import StartError
from sidecar.handover import Item, Offer, Taken, listen, name_of, take
from sidecar.registry.threads import in_thread

T = TypeVar("T")


async def aside(work: Callable[..., T], *arguments: Any) -> T:
    """In a thread that ends with it: what blocks as the other process does."""
    return await in_thread("the other process", partial(work, *arguments))


_numbers = itertools.count()


class Process:
    """The one that is there. items: what it has; refusal: why it gives none. left: who has taken its place."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.refusal = ""
        self.left: list[dict[str, Any]] = []
        self.requests: list[dict[str, Any]] = []

    async def offered(self, request: dict[str, Any]) -> Sequence[Item]:
        self.requests.append(request)
        if self.refusal:
            raise StartError(self.refusal)
        return self.items

    def give_way(self, pid: int, word: dict[str, Any]) -> dict[str, Any]:
        assert pid == os.getpid()
        self.left.append(word)
        return {"watchdog": 2.5}


class Place:
    """Where it is asked. admin: its address, as good as any."""

    def __init__(self) -> None:
        self.admin = f"test-{os.getpid()}-{next(_numbers)}:1"
        self.process = Process()
        self.offer = Offer(self.process, listen(name_of(self.admin)))

    async def take(self) -> Taken | None:
        return await aside(take, self.admin, 1)

    def connect(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        made.settimeout(5.0)
        made.connect(name_of(self.admin))
        return made


@pytest_asyncio.fixture
async def place() -> AsyncIterator[Place]:
    made = Place()
    yield made
    await made.offer.close()
    for _, one in made.process.items:
        one.close()


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


async def started(place: Place) -> Taken:
    taken = await place.take()
    assert taken is not None
    return taken


@pytest.mark.every_loop
async def test_the_very_sockets_come_with_what_they_are(place: Place) -> None:
    place.process.items = [
        (["port", "127.0.0.1", number], socket.create_server(("127.0.0.1", 0))) for number in range(250)
    ]
    place.process.items.append((["admin", "127.0.0.1:9901"], socket.create_server(("127.0.0.1", 0))))
    taken = await started(place)
    try:
        found = {tuple(what): one.getsockname() for what, one in taken.items}
        assert found == {tuple(what): one.getsockname() for what, one in place.process.items}
        assert taken.pid == os.getpid()
        assert place.process.requests == [{"takeover": 1, "workers": 1}]
        assert not any(one.get_inheritable() for _, one in taken.items)
        (admin,) = taken.sockets("admin", "127.0.0.1:9901")
        assert taken.sockets("admin", "127.0.0.1:9901") == []
        admin.close()
        ports = taken.ports()
        assert [what for what, _ in ports] == [["127.0.0.1", number] for number in range(250)]
        assert taken.items == []
        for _, one in ports:
            one.close()
        assert await taken.replace(announced=[]) == {"left": True, "watchdog": 2.5}
        assert place.process.left == [{"ready": True, "announced": []}]
    finally:
        taken.close()


async def test_nobody_there_is_nobody() -> None:
    assert take("nobody.test:1", 1) is None


async def test_who_refuses_says_why(place: Place) -> None:
    place.process.refusal = "it is starting"
    with pytest.raises(StartError, match="the running sidecar is not taken over: it is starting"):
        await place.take()
    assert not place.offer.busy


async def test_one_at_a_time(place: Place) -> None:
    first = await started(place)
    assert place.offer.busy
    with pytest.raises(StartError, match="another process is taking over just now"):
        await place.take()
    first.close()
    async with asyncio.timeout(5):
        while place.offer.busy:  # noqa: ASYNC110 - it hears of the end in a turn of the loop
            await asyncio.sleep(0.001)
    (await started(place)).close()
    assert place.process.left == []


async def test_more_than_a_few_who_ask_are_not_heard(place: Place) -> None:
    asking = [place.connect() for _ in range(module.MAX_TALKS)]
    async with asyncio.timeout(5):
        while len(place.offer._talks) < module.MAX_TALKS:  # noqa: ASYNC110 - turns of the loop
            await asyncio.sleep(0.001)
    with pytest.raises(StartError):
        await place.take()
    for one in asking:
        one.close()


async def test_another_user_is_not_heard(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_peer", lambda _connection: (1, os.geteuid() + 1))
    with place.connect() as connection:
        assert await aside(connection.recv, 100) == b""
    assert "refused to be taken over by user id" in caplog.text
    with pytest.raises(StartError, match="has the running sidecar; start this one as the same user"):
        await place.take()


async def test_another_version_is_told_to_be_stopped(place: Place) -> None:
    with place.connect() as connection:
        connection.send(b'{"takeover": 2}')
        assert b"it has another version; stop it" in await aside(connection.recv, 1000)


@pytest.mark.parametrize("said", [b"no JSON", b"[]", b"\xff"])
async def test_what_is_not_understood_ends_the_talk(
    place: Place, caplog: pytest.LogCaptureFixture, said: bytes
) -> None:
    with place.connect() as connection:
        connection.send(said)
        assert await aside(connection.recv, 1000) == b""
    assert "not taken over: what it says is not understood" in caplog.text
    assert place.process.requests == []


@pytest.mark.parametrize("word", [b'{"ready": true, "files": 5}', b'{"ready": true, "announced": [1]}'])
async def test_who_is_ready_in_words_that_are_not_understood_takes_nobodys_place(
    place: Place, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, word: bytes
) -> None:
    def leave(_pid: int, said: dict[str, Any]) -> None:
        assert list(said.get("files", ())) == [tuple(one) for one in said["announced"]]

    monkeypatch.setattr(place.process, "give_way", leave)
    taken = await started(place)
    taken._connection.send(word)
    async with asyncio.timeout(5):
        while place.offer.busy:  # noqa: ASYNC110 - turns of the loop
            await asyncio.sleep(0.001)
    taken.close()
    assert "not taken over: what it says is not understood; going on" in caplog.text


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_descriptors_that_are_no_sockets_are_closed(
    place: Place, listening: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    read, write = os.pipe()
    before = open_descriptors()
    with place.connect() as asks:
        module._send(asks, {"takeover": 1}, [listening.fileno(), read, write])
        async with asyncio.timeout(5):
            while "not taken over" not in caplog.text:  # noqa: ASYNC110 - turns of the loop
                await asyncio.sleep(0.001)
    assert open_descriptors() == before
    os.close(read)
    os.close(write)


async def test_who_says_nothing_is_waited_for_a_while(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "WITHIN", 0.02)
    with place.connect() as connection:
        assert await aside(connection.recv, 1000) == b""
    assert "not taken over: no word from it in time" in caplog.text


async def test_who_is_not_ready_in_time_is_told_that_it_comes_too_late(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READY_WITHIN", 0.02)
    taken = await started(place)
    async with asyncio.timeout(5):
        while place.offer.busy:  # noqa: ASYNC110 - turns of the loop
            await asyncio.sleep(0.001)
    with pytest.raises(StartError, match=r"not taken over: it was not ready within 0\.02 s"):
        await taken.replace()
    assert place.process.left == []


async def test_one_that_has_died_since_it_was_ready_takes_nobodys_place(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    taken = await started(place)
    taken._connection.send(b'{"ready": true}')
    taken.close()
    async with asyncio.timeout(5):
        while place.offer.busy:  # noqa: ASYNC110 - turns of the loop
            await asyncio.sleep(0.001)
    assert place.process.left == []
    assert "has ended before it was ready; going on" in caplog.text


async def test_one_that_has_died_meanwhile_is_replaced(
    place: Place, listening: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    place.process.items = [(["port", 1], listening.dup())]
    taken = await started(place)
    await place.offer.close()
    with caplog.at_level(logging.WARNING):
        await taken.replace()
    taken.close()


async def test_one_that_does_not_answer_is_in_nobodys_way(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "WITHIN", 0.02)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        taken = Taken(ours, [])
        await taken.replace()
        taken.close()
    assert "the process before does not answer; going on without it" in caplog.text


@pytest.mark.parametrize("late", [False, True], ids=["in time", "after the time to get ready"])
async def test_one_that_was_only_stopped_leaves_when_it_goes_on(
    place: Place, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    """Else two would accept, and the one that ends first would remove the sockets' files."""
    monkeypatch.setattr(module, "WITHIN", 0.02)
    if late:
        monkeypatch.setattr(module, "READY_WITHIN", 0.1)
    taken = await started(place)

    taken._connection.send(b'{"ready": true, "files": ["unix:/a"]}')  # what `replace` sends
    taken.settle()
    if late:
        time.sleep(0.15)  # noqa: ASYNC251 - the whole process is stopped
    async with asyncio.timeout(5):
        while not place.process.left:  # noqa: ASYNC110 - turns of the loop
            await asyncio.sleep(0.001)
    assert place.process.left == [{"ready": True, "files": ["unix:/a"]}]
    taken.close()


async def test_without_a_free_descriptor_nobody_is_accepted_for_a_while(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    class Short(socket.socket):
        def accept(self) -> tuple[socket.socket, Any]:
            tries.append(1)
            if len(tries) == 1:
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    monkeypatch.setattr(module, "PAUSE", 0.02)
    admin = f"{place.admin}0"
    with Short(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(name_of(admin))
        listening.listen()
        listening.setblocking(False)
        offer = Offer(place.process, listening)
        taken = await aside(take, admin, 1)
        assert taken is not None
        taken.close()
        assert len(tries) == 2
        await offer.close()


@pytest.mark.parametrize("said", [b'{"sockets": [["port"]]}', b'{"sockets": 1}', b"{}", b"no JSON", b""])
async def test_what_hands_over_something_else_is_not_believed(said: bytes) -> None:
    admin = f"test-{os.getpid()}-{next(_numbers)}:1"
    with listen(name_of(admin)) as other:
        other.setblocking(True)

        def answer() -> None:
            with other.accept()[0] as connection:
                connection.recv(1000)
                if said:
                    connection.send(said)

        telling = asyncio.create_task(aside(answer))
        with pytest.raises(StartError, match="the running sidecar is not taken over: "):
            await aside(take, admin, 1)
        await telling


def test_the_name_is_one_that_the_kernel_takes() -> None:
    assert name_of("127.0.0.1:9901") == "\0sidecar-takeover:127.0.0.1:9901"
    long = name_of("a" * 250 + ":9901")
    assert len(long) <= 107
    assert long != name_of("b" * 250 + ":9901")
