"""The shipped rules and the dashboard with a real Prometheus, which scrapes a real sidecar through an outage."""

import json
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import pytest
import yaml
from support.endpoints import Conversation, ScriptedEndpoint
from support.faults import FaultyEndpoint, answering, slowed
from support.grafana import queries, substituted, variables
from support.paced import PacedLoad
from support.ports import free_port
from support.processes import find_program
from support.prometheus import Prometheus, hurried
from support.promql import ALERTS, FOLDER, RECORDING, rules_of
from support.proxy import ROOT, Sidecar
from support.waiting import wait_until

pytestmark = pytest.mark.server("prometheus", "promtool")

CASES = sorted((Path(__file__).parent / "alerts").glob("*.yml"))


def promtool(*arguments: str | Path, directory: Path = ROOT) -> str:
    """What it says; fails unless it is content."""
    program = find_program("promtool")
    assert program is not None
    done = subprocess.run(
        [program, *arguments], cwd=directory, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# promtool


def test_the_rules_and_the_example_are_valid() -> None:
    assert promtool("check", "rules", RECORDING, ALERTS).count("SUCCESS") == 2
    promtool("check", "config", FOLDER / "prometheus.yml")


def kubernetes_job() -> dict[str, Any]:
    """The example's scrape job for Kubernetes, which stands there as a comment."""
    text = (FOLDER / "prometheus.yml").read_text()
    lines = re.findall(r"^#( {2,}\S.*\n)", text[text.index("# In Kubernetes") :], re.MULTILINE)
    (job,) = yaml.safe_load("".join(lines))
    assert isinstance(job, dict)
    return job


@pytest.mark.parametrize(
    ("container", "phase", "kept"),
    [("sidecar", "Running", True), ("app", "Running", False), ("sidecar", "Succeeded", False)],
)
def test_in_kubernetes_each_running_sidecar_is_one_target(
    tmp_path: Path, container: str, phase: str, kept: bool
) -> None:
    job = kubernetes_job()
    assert job.pop("kubernetes_sd_configs") == [{"role": "pod"}]
    # Debian's Prometheus is built without Kubernetes; what it would find there is said instead.
    found = {
        "pod_container_name": container,
        "pod_phase": phase,
        "pod_ip": "10.0.0.1",
        "namespace": "shop",
        "pod_label_app_kubernetes_io_name": "orders",
        "pod_name": "orders-1",
    }
    labels = {f"__meta_kubernetes_{label}": value for label, value in found.items()}
    targets = [{"targets": [address], "labels": labels} for address in ("10.0.0.1:80", "10.0.0.1:9902")]
    configuration = {"scrape_configs": [{**job, "static_configs": targets}]}
    path = tmp_path / "prometheus.yml"
    path.write_text(yaml.safe_dump(configuration))
    promtool("check", "config", path)
    said = json.loads(promtool("check", "service-discovery", "--timeout=500ms", path, "sidecar"))
    names = ("__address__", "job", "namespace", "app", "pod")
    seen = {tuple(one["labels"][name] for name in names) for one in said if one.get("labels")}
    assert seen == ({("10.0.0.1:9902", "sidecar", "shop", "orders", "orders-1")} if kept else set())


def test_each_alert_fires_when_it_should_and_not_when_it_should_not() -> None:
    promtool("test", "rules", *CASES)


def test_each_alert_is_tested_both_ways() -> None:
    firing, quiet = set(), set()
    for path in CASES:
        for case in yaml.safe_load(path.read_text())["tests"]:
            for asked in case.get("alert_rule_test", ()):
                (firing if asked["exp_alerts"] else quiet).add(asked["alertname"])
    assert firing == quiet == {rule["alert"] for rule in rules_of(ALERTS)}


def test_hurried_rules_are_the_same_but_for_their_times() -> None:
    text = ALERTS.read_text() + RECORDING.read_text().partition("groups:")[2]
    fast = hurried(text)
    assert re.sub(r"\d+ms", "", fast) == re.sub(r"(?<=[\[ ])\d+[mh](?=[\]\n])", "", text)
    assert "[2000ms]" in fast


# An outage


class Visits:
    """Somebody who opens a TCP session ten times a second, says a line, hears it again and leaves."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="visits")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(10.0)

    def _run(self) -> None:
        while not self._ending.wait(0.1):
            with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 2.0) as sock:
                sock.sendall(b"line\n")
                sock.recv(100)


def echo(conversation: Conversation) -> None:
    """Each line comes back."""
    while True:
        try:
            line = conversation.read_line()
        except ConnectionError:
            return
        conversation.send(line + b"\n")


CONFIGURATION = """
external_registry: {{type: file, path: endpoints.yml}}
defaults: {{circuit_breaker: {{open_for: 0.5, max_open_for: 0.5}}}}
load_balancers:
  api:
    source: file
    retry_on: [connect, reset, "503"]
    retry_budget: {{ratio: 1%, min: 1}}
    health_check: {{path: /health, interval: 0.5, rise: 1}}
    hedge_after: 2
  slow: {{hosts: ["{slow}"], limits: {{connections: 1, pending: 10, pending_timeout: 9}}}}
services:
  lines: {{host: 127.0.0.1, port: {lines}, scheme: tcp}}
sidecar:
  bind: [127.0.0.1]
  ports: {{{ports[0]}: api, {ports[1]}: slow, {ports[2]}: lines}}
  admin: 127.0.0.1:ADMIN
  metrics: 127.0.0.1:METRICS
  workers: 2
  max_clients: {clients}
  drain_timeout: 1
"""
CLIENTS = 60  # of each worker


class Stage:
    """The sidecar with three upstreams, traffic to each, and Prometheus.

    api: three endpoints of a registry (a file). slow: one. lines: one, of TCP sessions.
    """

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.directory = directory
        self.ports = [free_port() for _ in range(3)]
        self.api = [stack.enter_context(FaultyEndpoint(unseen="/health")) for _ in range(3)]
        self.slow = stack.enter_context(FaultyEndpoint())
        self.lines = stack.enter_context(ScriptedEndpoint(echo))
        self.name_endpoints()
        text = CONFIGURATION.format(
            slow=self.slow.address, lines=self.lines.port, ports=self.ports, clients=CLIENTS
        )
        metrics = free_port()
        # First, as it does not scrape in its first five seconds.
        self.prometheus = stack.enter_context(Prometheus(directory / "prometheus", [metrics]))
        self.sidecar = stack.enter_context(Sidecar(directory, text, metrics=metrics))
        self.configuration = self.sidecar.path.read_text()
        self.traffic = stack.enter_context(ExitStack())
        self.traffic.enter_context(PacedLoad(self.ports[0], 50.0, connections=8))
        self.traffic.enter_context(PacedLoad(self.ports[1], 50.0, connections=50))
        self.traffic.enter_context(Visits(self.ports[2]))
        self.crowd = stack.enter_context(ExitStack())

    def name_endpoints(self) -> None:
        """The registry says who there is."""
        self._register(f"api: [{', '.join(f'{one.address!r}' for one in self.api)}]\n")

    def spoil_registry(self) -> None:
        """It says nothing that can be read."""
        self._register("api: [")

    def _register(self, text: str) -> None:
        new = self.directory / "endpoints.new"
        new.write_text(text)
        new.rename(self.directory / "endpoints.yml")

    def configure(self, text: str) -> None:
        """The sidecar reads this configuration, or refuses it."""
        self.sidecar.path.write_text(text)
        self.sidecar.reload()

    def kill_a_worker(self) -> None:
        """As the kernel does when memory is short."""
        pid = self.sidecar.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)

    def gather_a_crowd(self) -> None:
        """Nearly as many clients as there may be connect, and say nothing."""
        for _ in range(2 * CLIENTS):
            self.crowd.enter_context(socket.create_connection(("127.0.0.1", self.ports[0])))

    def fires(self, *alerts: tuple[str, str]) -> None:
        """Wait until each of these alerts has fired, others as well may."""
        missing = set(alerts)

        def look() -> bool:
            missing.difference_update(self.prometheus.firing())
            return not missing

        _wait_for(look, "alerts that do not fire", missing)

    def is_quiet(self, *but: str) -> None:
        """Wait until no alert fires, but those of these names may."""
        firing: set[tuple[str, str]] = set()

        def look() -> bool:
            firing.clear()
            firing.update(alert for alert in self.prometheus.firing() if alert[0] not in but)
            return not firing

        _wait_for(look, "alerts that fire still", firing)


def _wait_for(look: Callable[[], bool], what: str, alerts: set[tuple[str, str]]) -> None:
    try:
        wait_until(look, what, 20.0)
    except AssertionError:
        raise AssertionError(f"{what}: {sorted(alerts)}") from None


@contextmanager
def staged(directory: Path) -> Iterator[Stage]:
    """A stage on which all is well, as Prometheus has seen for a second."""
    with ExitStack() as stack:
        stage = Stage(directory, stack)
        healthy = "min_over_time(job_upstream:sidecar_requests:rate5m[1s]) > 10"
        wait_until(lambda: len(stage.prometheus.query(healthy)) == 2, "traffic, as Prometheus sees it")
        yield stage


def every_query_finds_something(stage: Stage) -> None:
    """Of the dashboard."""
    for query in queries():
        found = [one["value"][1] for one in stage.prometheus.query(substituted(query.expression))]
        assert set(found) - {"NaN"}, f"{query.title}: {query.expression}"
    wanted = {"job": {"sidecar"}, "upstream": {"api", "slow", "lines"}}
    for variable in variables():
        samples = stage.prometheus.query(substituted(variable.expression))
        values = {one["metric"][variable.label] for one in samples}
        assert values == wanted.get(variable.label, values) != set()


def test_an_outage_fires_the_alerts_shows_in_the_dashboard_and_its_end_ends_them(tmp_path: Path) -> None:
    with staged(tmp_path) as stage:
        stage.is_quiet()
        for endpoint in stage.api:
            endpoint.suffer(answering(503))
        stage.slow.suffer(slowed(0.4))
        stage.lines.refuse()
        stage.spoil_registry()
        stage.configure("services: {api: nonsense}\n")
        stage.fires(
            ("SidecarErrorRatio", "api"),
            ("SidecarErrorBudgetBurn", "api"),
            ("SidecarLatencyBudgetBurn", "slow"),
            ("SidecarSessionErrorRatio", "lines"),
            ("SidecarBreakerOpen", "api"),
            ("SidecarBreakerOpen", "lines"),
            ("SidecarEndpointsOut", "api"),
            ("SidecarEndpointsOut", "lines"),
            ("SidecarPanic", "api"),
            ("SidecarRetryBudgetSpent", "api"),
            ("SidecarQueueNearlyFull", "slow"),
            ("SidecarOverflows", "slow"),
            ("SidecarRegistryStale", "file"),
            ("SidecarReloadFailed", ""),
        )
        every_query_finds_something(stage)
        stage.gather_a_crowd()
        stage.fires(("SidecarClientsNearLimit", ""))
        stage.crowd.close()
        stage.kill_a_worker()
        stage.fires(("SidecarWorkerRestarts", ""))
        for endpoint in [*stage.api, stage.slow]:
            endpoint.recover()
        stage.lines.listen()
        stage.name_endpoints()
        stage.configure(stage.configuration)
        # What looks back further, up to half an hour (12 s here), is over later; `promtool test rules` sees the rest.
        stage.is_quiet("SidecarErrorBudgetBurn", "SidecarLatencyBudgetBurn", "SidecarWorkerRestarts")
        stage.traffic.close()
        stage.sidecar.end()
        stage.fires(("SidecarDown", ""))
        stage.sidecar.start()
        stage.is_quiet("SidecarErrorBudgetBurn", "SidecarLatencyBudgetBurn")
