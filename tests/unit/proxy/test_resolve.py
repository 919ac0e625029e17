"""Names of endpoints: one question at a time for each, answers remembered, the last good one kept."""

import asyncio
import socket
from collections.abc import Coroutine
from typing import Any

import pytest
from support.clock import FakeClock

from sidecar.proxy.resolve import FAILED_FOR, FRESH_FOR, Resolver

V4 = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 0))
V4_MOVED = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.2", 0))
V6 = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1", 0, 7, 3))
NOT_FOUND = socket.gaierror(socket.EAI_NONAME, "Name or service not known")


class Names:
    """A loop, as far as a resolver looks at it: whatever is asked waits for the test's answer.

    questions: (host, the answer to be) of every look-up, in order.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.questions: list[tuple[str, asyncio.Future[Any]]] = []

    def create_task(self, coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        return self._loop.create_task(coroutine)

    async def getaddrinfo(self, host: str, port: int | None, *, type: int) -> Any:  # noqa: A002 - asyncio's word
        assert (port, type) == (None, socket.SOCK_STREAM), "one answer serves every port"
        answer = self._loop.create_future()
        self.questions.append((host, answer))
        return await answer

    @property
    def asked(self) -> list[str]:
        return [host for host, _ in self.questions]

    async def say(self, answer: list[Any] | Exception) -> None:
        """Answer what was asked last, and let everybody hear it."""
        future = self.questions[-1][1]
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
        await turns()


async def turns() -> None:
    """Let the loop bring everything to where it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


class World:
    """A resolver, its time and its name server."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.names = Names()
        self.resolver = Resolver(self.names, self.clock)  # type: ignore[arg-type] # ducks

    async def ask(self, host: str = "db.example", port: int = 80) -> "asyncio.Task[list[Any]]":
        """Somebody wants to dial; gives the task once it waits, or has its answer."""
        task = asyncio.ensure_future(self.resolver.resolve(host, port))
        await turns()
        return task

    async def remember(self, *entries: Any) -> None:
        """`db.example` was looked up well just now."""
        task = await self.ask()
        await self.names.say(list(entries))
        await task


def addresses(entries: list[Any]) -> list[Any]:
    return [entry[4] for entry in entries]


@pytest.fixture
async def world() -> World:
    return World()


@pytest.mark.parametrize("name", ["localhost", "LocalHost", "localhost."])
async def test_localhost_is_the_loopback_and_nobody_is_asked(world: World, name: str) -> None:
    """RFC 6761 6.3."""
    found = await world.resolver.resolve(name, 8080)
    assert [(entry[0], entry[4]) for entry in found] == [
        (socket.AF_INET, ("127.0.0.1", 8080)),
        (socket.AF_INET6, ("::1", 8080, 0, 0)),
    ]
    assert world.names.asked == []


async def test_the_port_is_filled_in_and_the_rest_is_left_as_it_was(world: World) -> None:
    """An IPv6 entry has a flow label and a scope too; a link-local address is nothing without its scope."""
    task = await world.ask(port=8080)
    await world.names.say([V4, V6])
    assert await task == [
        (*V4[:4], ("10.0.0.1", 8080)),
        (*V6[:4], ("fe80::1", 8080, 7, 3)),
    ]
    assert addresses(await world.resolver.resolve("db.example", 81)) == [
        ("10.0.0.1", 81),
        ("fe80::1", 81, 7, 3),
    ]


async def test_one_look_up_however_many_ask(world: World) -> None:
    tasks = [await world.ask(port=port) for port in (1, 2, 3)]
    other = await world.ask("other.example")
    assert world.names.asked == ["db.example", "other.example"]
    world.names.questions[0][1].set_result([V4])
    assert [addresses(await task) for task in tasks] == [[("10.0.0.1", port)] for port in (1, 2, 3)]
    assert not other.done(), "each name waits for itself alone"
    await world.names.say([V4_MOVED])
    assert addresses(await other) == [("10.0.0.2", 80)]


async def test_an_answer_is_remembered_for_a_while(world: World) -> None:
    await world.remember(V4)
    world.clock.advance(FRESH_FOR - 0.01)
    task = await world.ask()
    assert addresses(task.result()) == [("10.0.0.1", 80)]
    assert world.names.asked == ["db.example"]


@pytest.mark.parametrize("number", [socket.EAI_NONAME, socket.EAI_AGAIN])
async def test_no_such_name_is_told_from_no_name_server(world: World, number: int) -> None:
    task = await world.ask()
    await world.names.say(socket.gaierror(number, "what it says"))
    for asking in (task, await world.ask()):
        with pytest.raises(socket.gaierror) as caught:
            await asking
        assert (caught.value.errno, caught.value.strerror) == (number, "db.example: what it says")


async def test_the_last_answer_serves_while_it_is_asked_for_again(world: World) -> None:
    await world.remember(V4)
    world.clock.advance(FRESH_FOR)
    for _ in range(2):
        assert addresses((await world.ask()).result()) == [("10.0.0.1", 80)], "at once"
    assert world.names.asked == ["db.example"] * 2, "asked again, once"
    await world.names.say([V4_MOVED])
    assert addresses((await world.ask()).result()) == [("10.0.0.2", 80)]

    world.clock.advance(FRESH_FOR - 0.01)
    await world.ask()
    assert world.names.asked == ["db.example"] * 2, "fresh from when the answer came"


async def test_a_later_failure_keeps_the_last_good_answer(world: World) -> None:
    await world.remember(V4)
    world.clock.advance(FRESH_FOR)
    await world.ask()
    await world.names.say(NOT_FOUND)
    assert addresses((await world.ask()).result()) == [("10.0.0.1", 80)]
    assert world.names.asked == ["db.example"] * 2, "not again at once"
    world.clock.advance(FAILED_FOR)
    assert addresses((await world.ask()).result()) == [("10.0.0.1", 80)]
    assert world.names.asked == ["db.example"] * 3, "but soon"
    await world.names.say([V4_MOVED])
    assert addresses((await world.ask()).result()) == [("10.0.0.2", 80)]


async def test_a_name_that_has_no_address_is_an_error_that_names_it(world: World) -> None:
    tasks = [await world.ask() for _ in range(2)]
    await world.names.say(NOT_FOUND)
    for task in tasks:
        with pytest.raises(OSError, match=r"db\.example: Name or service not known$"):
            await task


async def test_a_failure_is_remembered_for_a_moment(world: World) -> None:
    first = await world.ask()
    await world.names.say(NOT_FOUND)
    await asyncio.wait([first])
    world.clock.advance(FAILED_FOR - 0.01)
    again = await world.ask()
    assert isinstance(again.exception(), OSError), "at once"
    assert isinstance(first.exception(), OSError)
    assert world.names.asked == ["db.example"]

    world.clock.advance(0.01)
    late = await world.ask()
    assert world.names.asked == ["db.example"] * 2
    await world.names.say([V4])
    assert addresses(await late) == [("10.0.0.1", 80)]


async def test_a_name_that_cannot_be_encoded_has_no_address(world: World) -> None:
    """IDNA wants labels of 1 to 63 bytes; getaddrinfo raises UnicodeError, which is no OSError."""
    task = await world.ask("x" * 70 + ".example")
    await world.names.say(UnicodeError("label empty or too long"))
    with pytest.raises(OSError, match=r"^x+\.example: label empty or too long$"):
        await task


async def test_one_that_waits_no_longer_does_not_end_the_look_up_for_others(world: World) -> None:
    gone, stays = await world.ask(), await world.ask()
    gone.cancel()
    await turns()
    assert gone.cancelled()
    assert not world.names.questions[0][1].cancelled()
    await world.names.say([V4])
    assert addresses(await stays) == [("10.0.0.1", 80)]


async def test_the_answer_is_kept_when_nobody_waits_any_more(world: World) -> None:
    gone = await world.ask()
    gone.cancel()
    await turns()
    await world.names.say([V4])
    assert addresses((await world.ask()).result()) == [("10.0.0.1", 80)]
    assert world.names.asked == ["db.example"]


async def test_closing_waits_for_no_answer(world: World) -> None:
    await world.remember(V4)
    asked = [await world.ask("a.example"), await world.ask("b.example")]
    world.resolver.close()
    await turns()
    assert [answer.cancelled() for _, answer in world.names.questions] == [False, True, True]
    assert all(task.cancelled() for task in asked)
