"""All of the demo together, from the first port to the last line."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, TextIO

from sidecar.clock import Clock
from sidecar.demo.events import EventFeed
from sidecar.demo.plan import API, ECHO, plan
from sidecar.demo.screen import Row, Screen, make_screen
from sidecar.demo.script import ALWAYS_WELL, Script
from sidecar.demo.traffic import HttpCaller, LineCaller, Tally
from sidecar.demo.upstreams import ApiEndpoint, EchoConnection, Service

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sidecar.cluster import Cluster
    from sidecar.config.settings import Settings

__all__ = ["DemoApp", "run_demo"]

TICK = 0.25  # seconds between looks at what has happened: an event is news for a person that long

# The second endpoint falls ill when the demo has been well for long enough to be understood, and is ill for
# long enough to fail some probes. The others stay well.
ILLNESS = Script(period=20.0, ill_from=5.0, well_from=12.0)
SCRIPTS = {"api-1": ALWAYS_WELL, "api-2": ILLNESS, "api-3": ALWAYS_WELL}


class DemoApp(Protocol):
    """What the demo needs of `app.App`. Addresses are `host:port`, IPv6 in brackets."""

    clusters: dict[str, Cluster]
    listening: list[tuple[str, str]]
    admin_address: str | None
    metrics_address: str | None

    async def start(self) -> None:
        """Listen. Raises `StartError`."""

    async def close(self) -> None:
        """Stop at once."""


async def run_demo(
    app_factory: Callable[[Settings, Clock], DemoApp],
    *,
    seconds: float | None,
    output: TextIO,
    clock: Clock | None = None,
) -> int:
    """Run the demo for `seconds`, or until SIGINT or SIGTERM when None; returns the exit code 0.

    app_factory: makes the sidecar that is shown from the demo's settings. Raises `StartError` when it cannot
    listen. Everything that was opened is closed again, however it ends.
    """
    clock = clock or Clock()
    begun = clock.monotonic()

    def elapsed() -> float:
        return clock.monotonic() - begun

    services = [Service(ApiEndpoint(name, script, elapsed).accept) for name, script in SCRIPTS.items()]
    echo = Service(EchoConnection)
    app: DemoApp | None = None
    try:
        for service in (*services, echo):
            await service.start()
        app = app_factory(plan([service.port for service in services], echo.port), clock)
        await app.start()
        names = {service.port: name for service, name in zip(services, SCRIPTS, strict=True)}
        tally = Tally()
        feed = EventFeed(app.clusters[API], names, begun)
        screen = make_screen(output, _intro(app), tally, _rows(app.clusters[API], names))
        screen.open()
        try:
            await _show(screen, feed, _callers(app, tally), elapsed, seconds)
        finally:
            screen.close()
        for line in _summary(tally, feed, elapsed()):
            print(line, file=output, flush=True)
    finally:
        if app is not None:
            await app.close()
        for service in (*services, echo):
            await service.close()
    return 0


async def _show(
    screen: Screen,
    feed: EventFeed,
    callers: Sequence[HttpCaller | LineCaller],
    elapsed: Callable[[], float],
    seconds: float | None,
) -> None:
    """Let the traffic flow and the screen follow it, until the time is over or a signal comes."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    for number in signals:
        loop.add_signal_handler(number, stop.set)
    tasks = [asyncio.create_task(caller.run()) for caller in callers]
    try:
        while not stop.is_set():
            left = TICK if seconds is None else min(TICK, seconds - elapsed())
            if left <= 0:
                break
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), left)
            for event in feed.fresh():
                screen.event(event)
            screen.refresh(elapsed())
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception):  # a caller counts what fails; this one failed itself
            raise end


def _callers(app: DemoApp, tally: Tally) -> list[HttpCaller | LineCaller]:
    addresses = dict(reversed(app.listening))  # of an upstream's several listeners the first
    host, _, port = addresses[API].rpartition(":")
    line_host, _, line_port = addresses[ECHO].rpartition(":")
    return [
        HttpCaller(host.strip("[]"), int(port), tally),
        LineCaller(line_host.strip("[]"), int(line_port), tally),
    ]


def _intro(app: DemoApp) -> list[str]:
    ports = {name: address.rpartition(":")[2] for name, address in app.listening}
    return [
        "sidecar demo: an application calls localhost, the sidecar picks who answers.",
        f"api-2 falls ill at {ILLNESS.ill_from:g} s, is well at {ILLNESS.well_from:g} s, every {ILLNESS.period:g} s.",
        f"  three HTTP endpoints   curl http://localhost:{ports[API]}/",
        f"  one TCP echo           nc localhost {ports[ECHO]}",
        f"  dashboard              http://{app.admin_address}/",
        f"  metrics                http://{app.metrics_address}/metrics",
    ]


def _rows(cluster: Cluster, names: dict[int, str]) -> Callable[[], list[Row]]:
    def rows() -> list[Row]:
        return [
            Row(names[state.endpoint.port], state.endpoint.address, state.breaker.state.label)
            for state in cluster.endpoints.values()
        ]

    return rows


def _summary(tally: Tally, feed: EventFeed, elapsed: float) -> list[str]:
    shares = ", ".join(
        f"{name} {count} ({tally.share(name):.0%})" for name, count in sorted(tally.answers.items())
    )
    failures = ", ".join(f"{count} x {name}" for name, count in sorted(tally.failures.items()))
    moves = ", ".join(f"{count} to {state.replace('_', ' ')}" for state, count in sorted(feed.counts.items()))
    return [
        f"{elapsed:.1f} s: {tally.requests} requests, {tally.failed} failed{f' ({failures})' if failures else ''}",
        f"answered by {shares or 'nobody'}",
        f"{tally.lines} lines echoed over TCP, {tally.lines_failed} failed",
        f"breaker moves: {moves or 'none'}",
    ]
