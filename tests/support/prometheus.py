"""A real Prometheus, and the shipped rules as a test can wait for them."""

import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support.ports import free_port
from support.processes import find_program
from support.promql import ALERTS, RECORDING
from support.servers import Server
from support.waiting import wait_until

__all__ = ["FASTER", "Prometheus", "RefusedError", "hurried"]

LONGEST = 120  # seconds that it runs at most, should nobody be left to stop it
INTERVAL = "250ms"  # of scrapes and rules, and how long a scrape may take
FASTER = 150  # so that five minutes are 2 s, eight scrapes, which is enough for a rate to be steady

_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}
_RANGE = re.compile(r"\[(\d+)(ms|s|m|h)\]")
_FOR = re.compile(r"^(\s+(?:for|interval): *)(\d+)(ms|s|m|h)$", re.MULTILINE)


class RefusedError(Exception):
    """What Prometheus says is wrong with a query."""


def hurried(text: str) -> str:
    """Rules with every window, `for` and `interval` shortened `FASTER` times; all else stays as it is.

    A window that reaches back behind the first scrape holds less than it asks for. Ratios are not changed by that, as
    both their sides hold as much of it; rates are lower then, which matters to the floor on traffic alone.
    """

    def shorter(match: re.Match[str], number: int) -> str:
        return f"{int(match[number]) * _UNITS[match[number + 1]] // FASTER}ms"

    text = _RANGE.sub(lambda match: f"[{shorter(match, 1)}]", text)
    return _FOR.sub(lambda match: match[1] + shorter(match, 2), text)


class Prometheus(Server):
    """It scrapes `targets`, as the job `sidecar`, and goes by the shipped rules, `hurried`."""

    program = "prometheus"

    def __init__(self, directory: Path, targets: list[int]) -> None:
        super().__init__(directory, [free_port()])
        self.targets = targets

    def command(self) -> list[str | Path]:
        program = find_program(self.program)
        assert program is not None, (
            'prometheus is not installed; mark the test @pytest.mark.server("prometheus")'
        )
        for path in (RECORDING, ALERTS):
            (self.directory / path.name).write_text(hurried(path.read_text()))
        configuration = self.directory / "prometheus.yml"
        configuration.write_text(f"""
global: {{scrape_interval: {INTERVAL}, scrape_timeout: {INTERVAL}, evaluation_interval: {INTERVAL}}}
rule_files: [{RECORDING.name}, {ALERTS.name}]
scrape_configs:
  - job_name: sidecar
    static_configs: [{{targets: {[f"127.0.0.1:{port}" for port in self.targets]}}}]
""")
        return [
            *("timeout", str(LONGEST), program),
            f"--config.file={configuration}",
            f"--storage.tsdb.path={self.directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.ports[0]}",
            "--log.level=warn",
        ]

    def start(self) -> None:
        """Start it, and wait until it has read its own data, of which there are none."""
        super().start()
        wait_until(self._ready, "prometheus to be ready")

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._url}/-/ready", timeout=2) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    @property
    def _url(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"

    def ask(self, path: str, parameters: Mapping[str, str] = {}) -> Any:
        """The `data` of an answer of its HTTP API (https://prometheus.io/docs/prometheus/latest/querying/api/).

        Raises RefusedError with its words.
        """
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self._url}/api/v1/{path}?{query}", timeout=5) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise RefusedError(json.load(error)["error"]) from None

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of it now, each with `metric` and `value`."""
        result = self.ask("query", {"query": expression})["result"]
        assert isinstance(result, list)
        return result

    def series(self, expression: str, seconds: float) -> list[dict[str, Any]]:
        """The series of it over the last `seconds`, each with `metric` and `values`."""
        now = time.time()
        window = {"start": str(now - seconds), "end": str(now), "step": "0.25"}
        result = self.ask("query_range", {"query": expression, **window})["result"]
        assert isinstance(result, list)
        return result

    def firing(self) -> set[tuple[str, str]]:
        """The alerts that fire now: their names, and the upstream, source or nothing that they are about."""
        alerts = self.ask("alerts")["alerts"]
        return {
            (one["labels"]["alertname"], one["labels"].get("upstream") or one["labels"].get("source", ""))
            for one in alerts
            if one["state"] == "firing"
        }
