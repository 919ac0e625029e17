"""`sidecar health`: ask services whether they are well, without a sidecar that runs, and show what they say."""

from __future__ import annotations

import asyncio
import json as jsonlib
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TextIO

from rich.text import Text

from sidecar.console.look import clean, duration, look_of
from sidecar.console.tables import drawn, make_console
from sidecar.registry.service import ServiceStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.table import Table

    from sidecar.console.look import Look
    from sidecar.registry import ServiceRegistry
    from sidecar.registry.health import EndpointHealth, ServiceHealth

__all__ = ["health_table", "show_health"]


def show_health(
    registry: ServiceRegistry, name: str | None, *, json: bool, output: TextIO | None = None
) -> int:
    """Print how the service `name` is, or all of them are; the exit code: 0 when every one is healthy, else 1.

    Raises `UnknownUpstreamError`.
    """
    output = sys.stdout if output is None else output
    with asyncio.Runner() as runner:
        try:
            return runner.run(_show(registry, name, output, as_json=json))
        finally:
            # Its end is not to wait for look-ups that no name server answers: they are the old executor's.
            runner.get_loop().set_default_executor(ThreadPoolExecutor(1))


async def _show(registry: ServiceRegistry, name: str | None, output: TextIO, *, as_json: bool) -> int:
    if name is None:
        found = await registry.check_all_services_health()
    else:
        found = {name: await registry.check_service_health(name)}
    if as_json:
        text = jsonlib.dumps({name: _plain(health) for name, health in found.items()}, indent=2)
    else:
        console = make_console(output)
        text = drawn(health_table(found, look_of(console)), console)
    print(text, file=output, flush=True)
    return 0 if all(health.status is ServiceStatus.HEALTHY for health in found.values()) else 1


def health_table(found: Mapping[str, ServiceHealth], look: Look) -> Table:
    """One row an endpoint, and one of a service without."""
    table = look.table()
    table.add_column("upstream", overflow="fold")
    table.add_column("endpoint", overflow="fold")
    table.add_column("status", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("asked", overflow="fold")
    table.add_column("error", overflow="fold")
    for name, health in found.items():
        if not health.endpoints:
            status = look.state(health.status.value)
            table.add_row(
                Text(name), Text(""), status, Text(""), Text(health.check), Text(clean(health.error))
            )
        for position, endpoint in enumerate(health.endpoints):
            table.add_row(Text(name if position == 0 else ""), *_cells(endpoint, health.check, look))
    return table


def _cells(endpoint: EndpointHealth, check: str, look: Look) -> list[Text]:
    return [
        Text(clean(endpoint.address)),
        look.state(endpoint.status.value),
        Text(duration(endpoint.response_time) if endpoint.response_time > 0 else ""),
        Text(check),
        Text(clean(endpoint.error)),
    ]


def _plain(health: ServiceHealth) -> dict[str, Any]:
    """As JSON values; times in seconds."""
    return {
        "status": health.status.value,
        "response_time": round(health.response_time, 6),
        "error": health.error,
        "check": health.check,
        "endpoints": [
            {
                "address": endpoint.address,
                "status": endpoint.status.value,
                "response_time": round(endpoint.response_time, 6),
                "error": endpoint.error,
            }
            for endpoint in health.endpoints
        ],
    }
