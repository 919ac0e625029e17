"""What the layers share: plain values and plain counters, no behaviour beyond their own arithmetic.

Reading order: `endpoint` (who serves), `snapshot` (who serves now, says a source), `outcome` (how an
attempt or a session ended), `limit` (why it did not begin), `policy` (what it may cost), `stats` (the integers
that the data path increments), `workers` (how many processes there are), `check` (what health checks have found),
`reloads` (how often the configuration was read again), `recording` (what became of log lines and spans), `asked`
(what the admin server was asked).
"""

from __future__ import annotations

from sidecar.model.asked import AdminCounts
from sidecar.model.check import CheckCounts, CheckResult
from sidecar.model.endpoint import Endpoint, EndpointState
from sidecar.model.limit import Limit
from sidecar.model.outcome import CloseReason, Outcome, outcomes_by_status
from sidecar.model.policy import UpstreamPolicy
from sidecar.model.recording import RecordingCounts
from sidecar.model.reloads import ReloadCounts
from sidecar.model.snapshot import Snapshot
from sidecar.model.stats import UpstreamStats
from sidecar.model.workers import WorkerCounts

__all__ = [
    "AdminCounts",
    "CheckCounts",
    "CheckResult",
    "CloseReason",
    "Endpoint",
    "EndpointState",
    "Limit",
    "Outcome",
    "RecordingCounts",
    "ReloadCounts",
    "Snapshot",
    "UpstreamPolicy",
    "UpstreamStats",
    "WorkerCounts",
    "outcomes_by_status",
]
