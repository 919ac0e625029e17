"""`sidecar health`: the table, the JSON and the exit code, of canned findings."""

import asyncio
import io
import json
import threading
from typing import Any

import pytest
from support.screens import Terminal

from sidecar.console.health import health_table, show_health
from sidecar.console.look import Look
from sidecar.console.tables import make_console
from sidecar.errors import UnknownUpstreamError
from sidecar.registry.health import EndpointHealth, ServiceHealth
from sidecar.registry.service import ServiceStatus

HEALTHY = ServiceHealth(
    ServiceStatus.HEALTHY,
    0.00123,
    "",
    "PING",
    (EndpointHealth("[::1]:6379", ServiceStatus.HEALTHY, 0.00123),),
)
MIXED = ServiceHealth(
    ServiceStatus.HEALTHY,
    0.0121,
    "",
    "GET /health",
    (
        EndpointHealth("a.example:80", ServiceStatus.HEALTHY, 0.0121),
        EndpointHealth("b.example:80", ServiceStatus.UNHEALTHY, 0.0, "connection refused"),
    ),
)
OPEN = ServiceHealth(
    ServiceStatus.CIRCUIT_OPEN,
    0.0,
    "open",
    "GET /",
    (EndpointHealth("c.example:80", ServiceStatus.CIRCUIT_OPEN, 0.0, "open"),),
)


class Registry:
    """Canned."""

    def __init__(self, **found: ServiceHealth) -> None:
        self.found = found

    async def check_service_health(self, name: str) -> ServiceHealth:
        if name not in self.found:
            raise UnknownUpstreamError(name)
        return self.found[name]

    async def check_all_services_health(self) -> dict[str, ServiceHealth]:
        return self.found


def show(registry: Any, name: str | None = None, *, json: bool = False) -> tuple[int, str]:
    output = io.StringIO()
    return show_health(registry, name, json=json, output=output), output.getvalue()


def test_one_row_an_endpoint() -> None:
    code, text = show(Registry(redis=HEALTHY, api=MIXED, web=OPEN))
    assert code == 1
    assert text.splitlines() == [
        "upstream  endpoint      status           time  asked        error",
        "redis     [::1]:6379    healthy       1.23 ms  PING",
        "api       a.example:80  healthy       12.1 ms  GET /health",
        "          b.example:80  unhealthy              GET /health  connection refused",
        "web       c.example:80  circuit open           GET /        open",
    ]


@pytest.mark.parametrize(
    ("registry", "code"),
    [
        (Registry(redis=HEALTHY, api=MIXED), 0),
        (Registry(redis=HEALTHY, web=OPEN), 1),
        (Registry(redis=ServiceHealth(ServiceStatus.UNKNOWN)), 1),
        (Registry(redis=ServiceHealth(ServiceStatus.UNHEALTHY)), 1),
        (Registry(), 0),
    ],
)
def test_the_exit_code_is_0_when_every_service_is_healthy(registry: Registry, code: int) -> None:
    assert show(registry)[0] == code


def test_only_one_that_is_named() -> None:
    code, text = show(Registry(redis=HEALTHY, web=OPEN), "redis")
    assert code == 0
    assert "web" not in text
    with pytest.raises(UnknownUpstreamError):
        show(Registry(), "redis")


def test_json() -> None:
    code, text = show(Registry(redis=HEALTHY, api=MIXED), json=True)
    assert code == 0
    found = json.loads(text)
    assert list(found) == ["redis", "api"]
    assert found["api"] == {
        "status": "healthy",
        "response_time": 0.0121,
        "error": "",
        "check": "GET /health",
        "endpoints": [
            {"address": "a.example:80", "status": "healthy", "response_time": 0.0121, "error": ""},
            {
                "address": "b.example:80",
                "status": "unhealthy",
                "response_time": 0.0,
                "error": "connection refused",
            },
        ],
    }


def test_a_look_up_that_nobody_answers_keeps_nobody() -> None:
    answer = threading.Event()

    class Waiting(Registry):
        async def check_all_services_health(self) -> dict[str, ServiceHealth]:
            asyncio.get_running_loop().run_in_executor(None, answer.wait, 30.0)
            return self.found

    assert show(Waiting(redis=HEALTHY))[0] == 0
    assert not answer.is_set()
    answer.set()


def test_standard_output_is_where_it_goes(capsys: pytest.CaptureFixture[str]) -> None:
    registry: Any = Registry(redis=HEALTHY)
    assert show_health(registry, None, json=False) == 0
    assert capsys.readouterr().out.startswith("upstream ")


def test_a_terminal_gets_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("NO_COLOR", raising=False)
    output = Terminal()
    make_console(output).print(health_table({"api": MIXED}, Look(plain=False)))
    assert "\x1b[32m● healthy" in output.getvalue()
    assert "\x1b[1;31m\N{MULTIPLICATION SIGN} unhealthy" in output.getvalue()
