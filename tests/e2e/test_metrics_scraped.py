"""What real programs make of /metrics: promtool finds nothing to say, and Prometheus reads both formats alike."""

import gzip
import json
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from support.http import get
from support.metrics import everything
from support.ports import free_port
from support.processes import Process, find_program
from support.proxy import Sidecar, configuration
from support.servers import Nginx
from support.waiting import wait_until

REQUESTS = 7


class Prometheus:
    """A real one that scrapes a sidecar every 100 ms. Used as a context manager."""

    def __init__(self, directory: Path, target: int) -> None:
        directory.mkdir()
        self.port = free_port()
        self._directory = directory
        program = find_program("prometheus")
        assert program is not None
        file = directory / "prometheus.yml"
        file.write_text(
            "global: {scrape_interval: 100ms, scrape_timeout: 100ms}\n"
            f"scrape_configs: [{{job_name: s, static_configs: [{{targets: ['127.0.0.1:{target}']}}]}}]\n"
        )
        self._command = [program, f"--config.file={file}", f"--storage.tsdb.path={directory / 'data'}"]
        self._command += [f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=warn"]

    def __enter__(self) -> Self:
        self._process = Process(self._command, self._directory, name="prometheus")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stop()

    def ask(self, path: str, **query: str) -> Any:
        """`data` of an answer of its API; None while it has none."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=5.0) as answer:
                return json.load(answer)["data"]
        except OSError:  # it starts
            return None

    def value(self, query: str) -> float | None:
        """Of a query with one answer; None while it has none."""
        found = self.ask("query", query=query)
        return float(found["result"][0]["value"][1]) if found and found["result"] else None


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[Sidecar]:
    """One that has answered some requests, and tells all of its endpoints."""
    listen = free_port()
    with Nginx(tmp_path / "nginx", "a") as nginx:
        text = configuration(listen, nginx.ports, sidecar="metrics_detail: endpoint")
        with Sidecar(tmp_path, text) as sidecar:
            for _ in range(REQUESTS):
                assert get(listen, "/").status == 200
            yield sidecar


@pytest.mark.server("promtool")
@pytest.mark.parametrize("detail", ["low", "normal", "endpoint"])
def test_promtool_finds_nothing_to_say(detail: str) -> None:
    program = find_program("promtool")
    assert program is not None
    text = everything(detail).render()
    found = subprocess.run(
        [program, "check", "metrics"], input=text, capture_output=True, timeout=30, check=False
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, b"", b"")


@pytest.mark.server("prometheus", "nginx")
def test_prometheus_reads_it(tmp_path: Path, sidecar: Sidecar) -> None:
    with Prometheus(tmp_path / "prometheus", sidecar.metrics_port) as prometheus:
        wait_until(lambda: prometheus.value("up") == 1, "a scrape that went well", 20.0)
        assert prometheus.value("sum(sidecar_requests_total)") == REQUESTS
        assert prometheus.value('sidecar_request_duration_seconds_bucket{le="10.0"}') == REQUESTS
        assert (
            prometheus.value("histogram_quantile(0.5, sidecar_request_duration_seconds_bucket)") is not None
        )
        assert prometheus.value("sidecar_attempt_duration_seconds_count") == REQUESTS
        assert prometheus.value("sidecar_attempt_duration_seconds_sum") > 0  # type: ignore[operator]
        # It was OpenMetrics, in which a counter is named without `_total`.
        kinds = prometheus.ask("targets/metadata")
        told = {one["metric"]: one["type"] for one in kinds}
        assert told["sidecar_requests"] == "counter"
        assert told["sidecar_request_duration_seconds"] == "histogram"
        assert told["sidecar_attempt_duration_seconds"] == "summary"
        target = prometheus.ask("targets")["activeTargets"][0]
        assert (target["health"], target["lastError"]) == ("up", "")


@pytest.mark.server("nginx")
def test_a_reload_changes_the_level(sidecar: Sidecar) -> None:
    def scrape() -> str:
        fields = {"Accept": "application/openmetrics-text", "Accept-Encoding": "gzip"}
        url = f"http://127.0.0.1:{sidecar.metrics_port}/metrics"
        with urllib.request.urlopen(urllib.request.Request(url, headers=fields), timeout=5.0) as answer:
            assert answer.headers["Content-Encoding"] == "gzip"
            assert answer.headers["Content-Type"] == (
                "application/openmetrics-text; version=1.0.0; charset=utf-8"
            )
            return gzip.decompress(answer.read()).decode()

    assert "sidecar_endpoint_weight{" in scrape()
    text = sidecar.path.read_text()
    sidecar.path.write_text(text.replace("metrics_detail: endpoint", "metrics_detail: low"))
    wait_until(lambda: "endpoint=" not in scrape(), "the file to be followed")
    assert f'sidecar_attempts_total{{outcome="success",upstream="api"}} {REQUESTS}.0' in scrape()
