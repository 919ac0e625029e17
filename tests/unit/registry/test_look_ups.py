"""Look-ups for a program's checks: in threads of their own, bounded, and nothing that an end waits for."""

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.endpoints import ScriptedEndpoint, ok, respond
from support.proxy import clean_environment

from sidecar.errors import OWN_SHORTAGES
from sidecar.registry.look_ups import LookUps

ADDRESS = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 0))
LONG = 10.0  # seconds that no test needs


class NameServer:
    """In the place of getaddrinfo: silent for names that end in `.slow`, until the test's end."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers = threading.Event()
        self.says: Any = [ADDRESS]

    def getaddrinfo(self, host: str, port: None, *, type: int) -> Any:  # noqa: A002 - the socket module's word
        assert (port, type) == (None, socket.SOCK_STREAM)
        self.asked.append(host)
        if host.endswith(".slow"):
            self.answers.wait(LONG)
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    made = NameServer()
    monkeypatch.setattr(socket, "getaddrinfo", made.getaddrinfo)
    yield made
    made.answers.set()


async def until_asked(server: NameServer, count: int) -> None:
    async with asyncio.timeout(LONG):
        while len(server.asked) < count:  # noqa: ASYNC110 - a thread appends to a list
            await asyncio.sleep(0.001)


async def test_a_name_has_its_addresses_with_the_port(server: NameServer) -> None:
    assert await LookUps().resolve("db.example", 80) == [(*ADDRESS[:4], ("10.0.0.1", 80))]
    assert server.asked == ["db.example"]


async def test_localhost_is_known_without_a_look_up(server: NameServer) -> None:
    found = await LookUps().resolve("localhost", 80)
    assert [address for *_, address in found] == [("127.0.0.1", 80), ("::1", 80, 0, 0)]
    assert server.asked == []


@pytest.mark.parametrize(
    "error", [socket.gaierror(socket.EAI_NONAME, "Name or service not known"), OSError("no resolver")]
)
async def test_what_getaddrinfo_raises_is_raised(server: NameServer, error: OSError) -> None:
    server.says = error
    with pytest.raises(OSError, match=r"not known|no resolver") as caught:
        await LookUps().resolve("db.example", 80)
    assert caught.value.errno == error.errno


async def test_a_name_that_cannot_be_encoded_has_no_address() -> None:
    with pytest.raises(OSError, match="label empty or too long"):
        await LookUps().resolve("x" * 70 + ".example", 80)


async def test_hanging_names_hold_up_nobody_while_there_are_threads(server: NameServer) -> None:
    look_ups = LookUps(at_once=3)
    asking = [asyncio.create_task(look_ups.resolve(name, 1)) for name in ("a.slow", "b.slow", "a.slow")]
    await until_asked(server, 2)
    assert await look_ups.resolve("db.example", 80)
    assert sorted(server.asked) == ["a.slow", "b.slow", "db.example"], "each name once"
    server.answers.set()
    assert [address for task in asking for *_, (address, _) in await task] == ["10.0.0.1"] * 3


async def test_no_more_than_so_many_at_once_and_none_for_who_has_gone(server: NameServer) -> None:
    look_ups = LookUps(at_once=1)
    slow = asyncio.create_task(look_ups.resolve("a.slow", 1))
    await until_asked(server, 1)
    gone = asyncio.create_task(look_ups.resolve("gone.example", 1))
    next_one = asyncio.create_task(look_ups.resolve("db.example", 1))
    again = asyncio.create_task(look_ups.resolve("a.slow", 1))
    await asyncio.sleep(0)
    for task in (gone, again):
        task.cancel()
    await asyncio.wait([gone, again])
    assert server.asked == ["a.slow"]
    server.answers.set()
    await asyncio.gather(slow, next_one)
    assert server.asked == ["a.slow", "db.example"]
    assert await look_ups.resolve("gone.example", 1), "and may be asked for later"


async def test_a_thread_that_cannot_be_had_is_a_shortage_of_our_own(
    server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_ups = LookUps()

    def none_left(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", none_left)
        with pytest.raises(OSError, match="can't start new thread") as caught:
            await look_ups.resolve("db.example", 80)
        assert caught.value.errno in OWN_SHORTAGES
        patched.undo()
        slow = asyncio.create_task(look_ups.resolve("a.slow", 1))
        await until_asked(server, 1)
        patched.setattr(threading.Thread, "start", none_left)
        other = asyncio.create_task(look_ups.resolve("db.example", 80))
        await asyncio.sleep(0)
    server.answers.set()
    assert await slow
    assert await other, "by the thread that there is"


def test_a_loop_that_has_ended_is_not_told(server: NameServer) -> None:
    look_ups = LookUps()

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(look_ups.resolve("a.slow", 1), 0.01)

    asyncio.run(give_up())
    server.answers.set()
    assert asyncio.run(look_ups.resolve("a.slow", 1))


PROGRAM = """
import asyncio, socket, sys, threading
real = socket.getaddrinfo
def slow(host, *rest, **more):
    if str(host).endswith(".slow"):
        threading.Event().wait()  # for ever
    return real(host, *rest, **more)
socket.getaddrinfo = slow
from sidecar import ServiceRegistry
found = asyncio.run(ServiceRegistry(sys.argv[1], environ={}).check_all_services_health())
for name, health in found.items():
    print(name, health.status.value, health.error)
"""


def test_hanging_names_make_nobody_unhealthy_and_delay_no_end(tmp_path: Path) -> None:
    """More of them than a loop has threads for look-ups."""
    with ScriptedEndpoint(respond(ok())) as endpoint:
        text = "defaults: {health_check: {timeout: 0.5}}\nservices:\n" + "".join(
            f"  slow{number}: {{host: a{number}.slow, port: {9000 + number}}}\n" for number in range(16)
        )
        file = tmp_path / "services.yml"
        file.write_text(text + f"  well: {{host: localhost, port: {endpoint.port}}}\n")
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, file],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
            env=clean_environment(),
            timeout=LONG,
        )
    *slow, well = done.stdout.splitlines()
    assert well.strip() == "well healthy"
    assert slow == [
        f"slow{number} unknown the name a{number}.slow has not been looked up within 0.5 s"
        for number in range(16)
    ]
