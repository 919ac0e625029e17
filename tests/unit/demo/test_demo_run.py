"""The demo put together, before a stand-in for the sidecar that only passes bytes on.

Time stands still or jumps as a test says: what is waited for is an answer or a line of output, never a second.
"""

import asyncio
import io
import os
import signal
from collections.abc import Callable

import pytest
from support.clock import FakeClock

from sidecar.cluster import Cluster
from sidecar.config.settings import Settings
from sidecar.demo import run as module
from sidecar.demo.run import run_demo
from sidecar.demo.traffic import HttpCaller
from sidecar.errors import StartError
from sidecar.model import Endpoint, Outcome, Snapshot, UpstreamPolicy


class StandIn:
    """Knows the clusters, and lets the demo's callers talk to the first endpoint of each directly."""

    admin_address = "127.0.0.1:9901"
    metrics_address = "127.0.0.1:9902"

    def __init__(self, settings: Settings, clock: FakeClock) -> None:
        self.settings = settings
        self.clusters: dict[str, Cluster] = {}
        self.listening: list[tuple[str, str]] = []
        self.closed = 0
        for upstream in settings.upstreams:
            policy = UpstreamPolicy(breaker_threshold=1, breaker_open_for=2.0, breaker_jitter=0.0)
            cluster = self.clusters[upstream.name] = Cluster(upstream.name, upstream.scheme, policy, clock)
            endpoints = tuple(Endpoint(endpoint.host, endpoint.port) for endpoint in upstream.endpoints)
            cluster.apply(Snapshot(upstream.name, endpoints, "static"))
            self.listening.append((upstream.name, str(upstream.endpoints[0])))
            self.listening.append((upstream.name, "[::1]:1"))

    async def start(self) -> None:
        """Nothing to bind."""

    async def close(self) -> None:
        """Counted."""
        self.closed += 1


class Output(io.StringIO):
    """Calls back with everything that was printed so far."""

    def __init__(self, on_write: Callable[[str], None] = lambda _: None) -> None:
        super().__init__()
        self._on_write = on_write

    def write(self, text: str) -> int:
        written = super().write(text)
        self._on_write(self.getvalue())
        return written


class Factory:
    """Makes the stand-in and keeps it."""

    made: StandIn

    def __call__(self, settings: Settings, clock: FakeClock) -> StandIn:
        self.made = StandIn(settings, clock)
        return self.made


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks that need no patience."""
    monkeypatch.setattr(module, "TICK", 0.001)


async def test_it_shows_traffic_and_events_until_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    factory = Factory()
    calls = 0
    call = HttpCaller.call

    async def counted_call(caller: HttpCaller) -> None:
        nonlocal calls
        await call(caller)
        calls += 1
        clock.advance(1.0)
        if calls == 2:
            cluster = factory.made.clusters["api"]
            second = list(cluster.endpoints.values())[1]
            cluster.report(second, Outcome.RESET, clock.monotonic(), second.breaker.permit)

    monkeypatch.setattr(HttpCaller, "call", counted_call)
    output = io.StringIO()
    async with asyncio.timeout(10):
        assert await run_demo(factory, seconds=3.0, output=output, clock=clock) == 0
    lines = output.getvalue().splitlines()
    assert any("curl http://localhost:" in line for line in lines)
    assert any("nc localhost " in line for line in lines)
    assert "  dashboard              http://127.0.0.1:9901/" in lines
    assert "  metrics                http://127.0.0.1:9902/metrics" in lines
    assert any("api-2: breaker opens after 1 failures in a row" in line for line in lines)
    assert lines[-4:-2] == ["3.0 s: 3 requests, 0 failed", "answered by api-1 3 (100%)"]
    assert lines[-2].endswith(" lines echoed over TCP, 0 failed")
    assert lines[-1] == "breaker moves: 1 to open"
    assert factory.made.closed == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_cleanly(number: signal.Signals) -> None:
    clock = FakeClock()
    factory = Factory()
    signalled = False

    def on_write(text: str) -> None:
        nonlocal signalled
        if "metrics" in text and not signalled:
            signalled = True
            # Not yet: the handlers are set right after the intro is out.
            asyncio.get_running_loop().call_soon(os.kill, os.getpid(), number)

    output = Output(on_write)
    async with asyncio.timeout(10):
        assert await run_demo(factory, seconds=None, output=output, clock=clock) == 0
    assert "breaker moves: none" in output.getvalue()
    assert factory.made.closed == 1


async def test_failures_are_named_in_the_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()

    async def failing_call(caller: HttpCaller) -> None:
        caller.tally.failures["503"] += 1
        clock.advance(1.0)

    monkeypatch.setattr(HttpCaller, "call", failing_call)
    output = io.StringIO()
    async with asyncio.timeout(10):
        assert await run_demo(Factory(), seconds=1.0, output=output, clock=clock) == 0
    lines = output.getvalue().splitlines()
    assert "1.0 s: 1 requests, 1 failed (1 x 503)" in lines
    assert "answered by nobody" in lines


async def test_without_a_clock_it_reads_the_real_one() -> None:
    factory = Factory()
    output = io.StringIO()
    async with asyncio.timeout(10):
        assert (
            await run_demo(lambda settings, _: factory(settings, FakeClock()), seconds=0.001, output=output)
            == 0
        )
    assert " requests, 0 failed" in output.getvalue()


async def test_a_port_that_cannot_be_bound_is_passed_on_and_nothing_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail(_app: StandIn) -> None:
        raise StartError("127.0.0.1:8080 (api): address already in use")

    monkeypatch.setattr(StandIn, "start", fail)
    factory = Factory()
    output = io.StringIO()
    with pytest.raises(StartError, match="already in use"):
        await run_demo(factory, seconds=1.0, output=output)
    assert factory.made.closed == 1
    assert output.getvalue() == ""


async def test_a_factory_that_fails_leaves_nothing_either() -> None:
    def fail(_settings: Settings, _clock: object) -> StandIn:
        raise StartError("no")

    with pytest.raises(StartError):
        await run_demo(fail, seconds=1.0, output=io.StringIO())


async def test_a_caller_that_fails_itself_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()

    async def broken_call(_caller: HttpCaller) -> None:
        clock.advance(1.0)
        raise ZeroDivisionError

    monkeypatch.setattr(HttpCaller, "call", broken_call)
    with pytest.raises(ZeroDivisionError):
        await run_demo(Factory(), seconds=1.0, output=io.StringIO(), clock=clock)
