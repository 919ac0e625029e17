"""The families of TLS, of each side of an upstream that has it: towards its endpoints, and before its listener."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.config.settings import PROTOCOLS
from sidecar.model import Outcome
from sidecar.observe.exposition import Family, counter, gauge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sidecar.cluster import Cluster

__all__ = ["tls"]

SIDES = ("endpoint", "listener")  # the order of `UpstreamStats.tls_failures` and the like
# The order in which each side has them.
REASONS = (Outcome.TLS_EXPIRED, Outcome.TLS_WRONG_HOST, Outcome.TLS_UNKNOWN_CA, Outcome.TLS_FAILED)
RESULTS = ("success", "failure")


def tls(clusters: list[Cluster]) -> Iterator[Family]:
    """Nothing where all is in the clear."""
    secured = [(cluster, side) for cluster in clusters for side in _sides(cluster)]
    if not secured:
        return
    yield counter(
        "tls_failures_total",
        "Handshakes that came to nothing, with endpoints or with clients of the listener.",
        ("upstream", "side", "reason"),
        (
            ((cluster.name, SIDES[side], reason.label), count)
            for cluster, side in secured
            for reason, count in zip(REASONS, cluster.stats.tls_failures[side], strict=True)
        ),
    )
    yield counter(
        "tls_reloads_total",
        "Changes of certificates, keys and authorities on disk, by whether they could be used.",
        ("upstream", "side", "result"),
        (
            ((cluster.name, SIDES[side], result), count)
            for cluster, side in secured
            for result, count in zip(RESULTS, cluster.stats.tls_reloads[side], strict=True)
        ),
    )
    yield gauge(
        "tls_certificate_expiry_timestamp_seconds",
        "When the sidecar's own certificate expires: the one it shows to endpoints, or to clients.",
        ("upstream", "side"),
        (
            ((cluster.name, SIDES[side]), cluster.stats.tls_expiry[side])
            for cluster, side in secured
            if cluster.stats.tls_expiry[side]
        ),
    )


def _sides(cluster: Cluster) -> Iterator[int]:
    if PROTOCOLS[cluster.scheme] != cluster.scheme:
        yield 0
    if cluster.stats.tls_expiry[1]:  # a listener that speaks TLS has a certificate
        yield 1
