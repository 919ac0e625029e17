"""What open connections have to be told when the configuration is another one; all else they read as they go.

A walk over everything that is open, for a moment that comes seldom: nothing of it is asked while requests pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.proxy.downstream import DownstreamConnection
from sidecar.proxy.session import Session

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sidecar.cluster import Cluster
    from sidecar.proxy.context import ProxyContext

__all__ = ["clients_of", "follow_policy", "follow_times"]

# The application's side of whatever is open.
Client = DownstreamConnection | Session


def clients_of(context: ProxyContext, clusters: Iterable[Cluster]) -> dict[Cluster, list[Client]]:
    """The applications' connections to each of `clusters`; those that have none are not in it.

    One that came by the port of one cluster and has a request going on at another is of both.
    """
    wanted = set(clusters)
    found: dict[Cluster, list[Client]] = {}
    for member in tuple(context.sweep.members):
        if not isinstance(member, DownstreamConnection | Session):
            continue
        if member.cluster in wanted:
            found.setdefault(member.cluster, []).append(member)
        home = member.home if isinstance(member, DownstreamConnection) else member.cluster
        if home is not member.cluster and home in wanted:
            found.setdefault(home, []).append(member)
    return found


def follow_policy(context: ProxyContext, clusters: Iterable[Cluster]) -> None:
    """`clusters` have other policies."""
    for clients in clients_of(context, clusters).values():
        for client in clients:
            client.follow_policy()


def follow_times(context: ProxyContext, *, head: float, idle: float, body_rate: int) -> None:
    """Have other `head_timeout`, `idle_timeout` and `min_body_rate`, see `ProxyContext`."""
    longer = idle - context.idle_timeout
    pace = body_rate != context.min_body_rate
    context.head_timeout = head
    context.idle_timeout = idle
    context.min_body_rate = body_rate
    if not longer and not pace:
        return
    for member in tuple(context.sweep.members):
        if isinstance(member, DownstreamConnection):
            member.follow_times(longer, pace=pace)
