"""A scrape in which everything occurs that rules and dashboards may ask for: names, labels and values of labels."""

from types import SimpleNamespace

from prometheus_client.parser import text_string_to_metric_families

from sidecar.cluster import Cluster
from sidecar.errors import Reason
from sidecar.model import (
    CheckCounts,
    Endpoint,
    Outcome,
    ReloadCounts,
    Snapshot,
    UpstreamPolicy,
    WorkerCounts,
)
from sidecar.model.recording import RecordingCounts
from sidecar.model.registry import Registered, RegistrationStatus, SourceStatus
from sidecar.model.stats import METHODS
from sidecar.observe.metrics import Metrics
from support.clock import FakeClock

__all__ = ["Exposed", "exposed"]

# Metric to label to the values that it may have.
Exposed = dict[str, dict[str, set[str]]]

# Of the contract, and not exported by every build yet: each goes from here once it is.
ADDED: Exposed = {
    "sidecar_access_log_lines_total": {"result": {"written", "dropped"}},
    "sidecar_endpoints_drained": {"upstream": set()},
    "sidecar_spans_total": {"result": {"exported", "dropped", "failed"}},
}


def exposed() -> Exposed:
    """Every metric of the sidecar, as its exposition has it."""
    clock = FakeClock()
    policy = UpstreamPolicy(
        breaker_threshold=1, max_connections_per_endpoint=6, max_in_flight=30, hedge_after=0.1, checked=True
    )
    api, redis = Cluster("api", "http", policy, clock), Cluster("redis", "redis", policy, clock)
    for cluster in (api, redis):
        cluster.apply(Snapshot(cluster.name, (Endpoint("10.0.0.1", 1),), "static"))
        state = cluster.endpoints["10.0.0.1", 1]
        cluster.report(state, Outcome.RESET, 1000.0, state.breaker.permit)
    for reason in Reason:
        for status in (200, 404, 503):
            api.stats.count_request(METHODS.index("GET"), status, reason, 0.001)
    context = SimpleNamespace(
        draining=False,
        clients=1,
        max_clients=2,
        refused=0,
        pipes=(0, 0),
        checks=CheckCounts(),
        recording=RecordingCounts(),
    )
    registration = RegistrationStatus("api", "consul", "10.0.0.1:1", "announced", "", 0.0, True)
    metrics = Metrics(
        {"api": api, "redis": redis},
        context,  # type: ignore[arg-type] # what is read of one
        compiled=False,
        workers=WorkerCounts(2),
        sources=lambda: [SourceStatus("consul")],
        registered=lambda: Registered((registration,), {"consul": [0, 0, 0, 0]}),
        clock=clock,
        reload_counts=ReloadCounts(),
    )
    found: Exposed = {name: dict(labels) for name, labels in ADDED.items()}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return found
