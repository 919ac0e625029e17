"""Somebody watches a sidecar: what happens to its upstreams is told within two seconds, with workers too."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.endpoints import ScriptedEndpoint, ok, respond
from support.http import get
from support.ports import free_port
from support.proxy import Sidecar, configuration
from support.streams import Event, EventStream

SOON = 2.0  # seconds from what happens to the event that tells of it


class Watched:
    """A sidecar before one endpoint, and whoever watches it."""

    def __init__(self, sidecar: Sidecar, stream: EventStream, port: int) -> None:
        self.sidecar = sidecar
        self.stream = stream
        self.port = port

    async def told(self, seconds: float = SOON) -> dict[str, Any]:
        """The upstream, when it is told of next."""
        while True:
            event: Event = await self.stream.next(seconds)
            if event.name == "state" and event.data["upstreams"]:
                found = event.data["upstreams"][0]
                assert isinstance(found, dict)
                return found

    async def until(self, wanted: Any) -> dict[str, Any]:
        """The upstream, as soon as it is told to be so."""
        while not wanted(found := await self.told()):
            pass
        return found


@pytest.fixture(params=[1, 2], ids=["one process", "two workers"])
async def watched(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Watched]:
    port = free_port()
    with ExitStack() as stack:
        endpoint = stack.enter_context(ScriptedEndpoint(respond(ok(b"a"))))
        policy = "retries: 0, circuit_breaker: {consecutive_failures: 1000}"
        text = configuration(port, [endpoint.port], policy=policy, sidecar=f"workers: {request.param}")
        sidecar = stack.enter_context(Sidecar(tmp_path, text))
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{sidecar.admin}/v1/events") as response,
        ):
            yield Watched(sidecar, EventStream(response), port)


async def test_traffic_shows_and_with_the_end_of_the_process_the_stream_ends(watched: Watched) -> None:
    hello = await watched.stream.next()
    assert hello.data["actions"] == ["drain", "enable", "reset", "trip"]
    assert (hello.data["control"], hello.data["interval"]) == (True, 1)
    assert list((await watched.stream.next()).data["upstreams"]) == ["api"]
    await watched.told()
    for _ in range(10):
        assert get(watched.port, "/").status == 200
    found = await watched.until(lambda one: one["recent"] and one["recent"]["requests"])
    assert found["recent"]["errors"] == 0.0
    assert 0.0 < found["recent"]["p50"] <= found["recent"]["p99"]
    assert found["requests"]["total"] == 10
    assert watched.sidecar.upstream("api")["recent"]["requests"] > 0
    assert watched.sidecar.end() == 0
    with pytest.raises((EOFError, aiohttp.ClientError)):
        await watched.until(lambda _: False)


def first_worker(supervisor: int) -> int:
    """Its process."""
    return int(Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()[0])


@pytest.mark.parametrize("watched", [2], ids=["two workers"], indirect=True)
async def test_a_silent_worker_keeps_nobody_from_being_told_each_second(watched: Watched) -> None:
    await watched.told()
    worker = first_worker(watched.sidecar.process.pid)
    loop = asyncio.get_running_loop()

    async def silent() -> int:
        """How many workers were, when it was told next."""
        number = (await watched.stream.next()).data["workers"]["silent"]
        assert isinstance(number, int)
        return number

    os.kill(worker, signal.SIGSTOP)
    try:
        while not await silent():
            pass
        begun = loop.time()
        assert [await silent(), await silent()] == [1, 1]
        assert loop.time() - begun < 3.0  # 4 where it is waited for twice
    finally:
        os.kill(worker, signal.SIGCONT)


async def test_an_endpoint_that_is_taken_out_shows_at_once(watched: Watched) -> None:
    await watched.told()
    view = get(watched.sidecar.admin, "/upstreams").json
    address = view["upstreams"][0]["endpoints"][0]["address"]
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"http://127.0.0.1:{watched.sidecar.admin}/upstreams/api/drain",
            params={"endpoint": address},
            headers={"X-Sidecar-Control": "1"},
        ) as response,
    ):
        assert response.status == 200
    await watched.until(lambda one: one["endpoints"][0]["drained"])
