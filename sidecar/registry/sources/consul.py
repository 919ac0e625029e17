"""Consul: what its agents say of services' healthy instances, by blocking queries, and what is registered with them.

https://developer.hashicorp.com/consul/api-docs/health
https://developer.hashicorp.com/consul/api-docs/features/blocking
https://developer.hashicorp.com/consul/api-docs/agent/service
https://developer.hashicorp.com/consul/api-docs/agent/check

`consul_agent` asks, `consul_answers` reads what comes back.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sidecar.errors import SourceError
from sidecar.model import Snapshot
from sidecar.registry.sources.consul_agent import (
    ANSWER_TIMEOUT,
    Agents,
    Conversation,
    Health,
    RefusedError,
    UnknownIdError,
)
from sidecar.registry.sources.source import (
    ANNOUNCE_WITHIN,
    MAX_ENDPOINTS,
    WITHDRAW_WITHIN,
    Registrar,
    Source,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from sidecar.clock import Clock
    from sidecar.config.settings import RegistrationSettings, RegistrySettings
    from sidecar.model import Endpoint
    from sidecar.registry.sources.source import Surroundings, Wanted

__all__ = ["MAX_STREAMS", "ConsulSource"]

# Each stream holds a connection while its query blocks, and an agent takes 200 of one client's address
# (`limits.http_max_conns_per_client`): a quarter is left to registrations and to others of this host.
MAX_STREAMS = 150
# Seconds that one query of a stream of several blocks: with 300 upstreams a change is seen 2 s late at worst, with 1000
# 12 s, and the agent is asked 75 times a second at most while nothing changes.
TURN = 2.0
WAIT = 55.0  # seconds that a query blocks: a sign of life a minute; Consul's own default is 5 minutes
SHARE = 0.8  # of `stale_after`, at most: with Consul's sixteenth on top (`JITTER`) it is 0.85
JITTER = 1 / 16  # of the wait, which Consul adds to it at most ("Blocking Queries")

# What changes all the time is asked for twice a second: Consul asks clients to limit their rate by a token bucket with
# a burst of 2 ("Blocking Queries"), consul-template asks ten times a second at most.
PACE, BURST = 0.5, 2

SHORTEST_DEREGISTER = 60.0  # seconds: Consul's minimum for DeregisterCriticalServiceAfter
SHOWN = 5  # instances left out that the log names at once

_log = logging.getLogger("sidecar.registry")


class ConsulSource(Source, Registrar):
    """A Consul datacenter, by way of the agents at `settings.hosts`.

    Up to `MAX_STREAMS` upstreams have a blocking query of their own, on a connection of its own. More than that share
    them: the upstreams of one stream are asked in turn, each for at most `TURN` seconds, so that all keep within the
    200 connections that an agent takes of one address by default (`http_max_conns_per_client`), and none waits long.

    An agent that cannot answer is followed by the next host at once, which is kept while it answers; only when all have
    failed does a stream raise. One that has gone without a word is noticed when its answer is late: after a minute.
    Reads are of the default consistency: answers of `stale` ones may be older than those before.
    """

    def __init__(self, settings: RegistrySettings, surroundings: Surroundings) -> None:
        super().__init__(settings.name)
        self._settings = settings
        self._clock = surroundings.clock
        self._agents = Agents(settings, surroundings)
        self._wait = min(WAIT, SHARE * settings.stale_after)
        self._complaints: dict[str, frozenset[str]] = {}  # by upstream, those that have been logged
        # By identity: what is registered at which host (its position), the one announced to last at the end.
        self._announced: dict[str, dict[int, dict[str, Any]]] = {}

    def streams(self, wanted: Sequence[Wanted]) -> list[tuple[Wanted, ...]]:
        """One upstream each; beyond `MAX_STREAMS` several share one."""
        count = min(len(wanted), MAX_STREAMS)
        return [tuple(wanted[first::count]) for first in range(count)]

    async def watch(self, wanted: Sequence[Wanted]) -> AsyncIterator[Snapshot | None]:
        """See `Source.watch`. What goes wrong with one upstream alone is raised after the others' turn."""
        queries = [_Query(one, one.datacenter or self._settings.datacenter) for one in wanted]
        wait = self._wait if len(queries) == 1 else min(self._wait, TURN)
        pace = _Pace(self._clock)
        first = True
        async with self._agents.conversation() as conversation:
            while queries:
                unusable: RefusedError | None = None
                for query in queries:
                    if not first:
                        await asyncio.sleep(pace.pause())
                    try:
                        health = await conversation.first(partial(query.ask, conversation, wait))
                        news = self._news(query, health)
                    except RefusedError as error:
                        unusable = unusable or error
                    else:
                        yield news
                if unusable is not None:
                    raise unusable
                first = False

    def _news(self, query: _Query, health: Health) -> Snapshot | None:
        """What an answer changes; None for nothing. Raises RefusedError for one that says nothing of endpoints."""
        wanted = query.wanted
        if health.filtered and not health.instances.count:
            # Consul's answer is the same list without what the token may not see, and may be empty for that alone.
            raise RefusedError(
                f"service {query.service}: all its instances are hidden from the token; give `token_env` or"
                " `token_file` one with service:read and node:read"
            )
        endpoints, left_out = health.instances.endpoints(), health.instances.left_out
        complaints = [f"instance {name} is left out: {why}" for name, why in left_out.items()]
        if health.filtered:
            complaints.append(
                "some instances are hidden from the token, which lacks service:read or node:read"
            )
        if len(endpoints) > MAX_ENDPOINTS:
            complaints.append(f"of more than {MAX_ENDPOINTS} endpoints the rest is left out")
            endpoints = endpoints[:MAX_ENDPOINTS]
        self._complain(wanted.upstream, complaints)
        if left_out and not endpoints:
            # The registry has not said that there are none.
            raise RefusedError(
                f"service {query.service}: none of its {len(left_out)} instances can be used; {complaints[0]}"
            )
        if endpoints == query.told:
            return None
        query.told = endpoints
        return Snapshot(wanted.upstream, endpoints, self.name)

    def _complain(self, upstream: str, complaints: list[str]) -> None:
        """Log those that the last answer gave no reason for."""
        before = self._complaints.get(upstream, frozenset())
        new = [complaint for complaint in complaints if complaint not in before]
        for complaint in new[:SHOWN]:
            _log.warning("%s: %s: %s", self.name, upstream, complaint)
        if len(new) > SHOWN:
            _log.warning("%s: %s: and %d more like these", self.name, upstream, len(new) - SHOWN)
        if complaints:
            self._complaints[upstream] = frozenset(complaints)
        else:
            self._complaints.pop(upstream, None)

    # Registrations, which are an agent's own: another agent of the same Consul knows nothing of them

    async def announce(self, service: RegistrationSettings) -> None:
        """See `Registrar.announce`. Goes to the agent of the time before while that answers."""
        body = _registration(service)
        places = self._announced.setdefault(service.identity, {})
        hosts = len(self._agents.urls)
        asked = 0
        async with self._agents.conversation() as conversation:
            conversation.at = next(reversed(places), conversation.at)

            async def at_host(at: int) -> int:
                nonlocal asked
                asked += 1
                within = ANNOUNCE_WITHIN if asked < hosts else ANSWER_TIMEOUT
                if places.get(at) == body:
                    try:
                        await conversation.put(at, f"/v1/agent/check/pass/{_part(_check(service))}", within)
                    except UnknownIdError:
                        pass  # it has forgotten, or deregistered what was critical for too long
                    else:
                        return at
                # Checks of an earlier registration, under other names, would count for ever.
                target = "/v1/agent/service/register?replace-existing-checks=true"
                await conversation.put(at, target, within, body)
                return at

            at = await conversation.first(at_host)
        places.pop(at, None)
        places[at] = body

    async def withdraw(self, service: RegistrationSettings) -> None:
        """See `Registrar.withdraw`. At every agent it was announced to; at all of them if that is not known."""
        places = self._announced.get(service.identity, {})
        refusals = []
        async with self._agents.conversation() as conversation:
            left = list(places) or list(range(len(self._agents.urls)))
            while left:
                at = left.pop(0)
                try:
                    target = f"/v1/agent/service/deregister/{_part(service.identity)}"
                    await conversation.put(at, target, WITHDRAW_WITHIN if left else ANSWER_TIMEOUT)
                except UnknownIdError:
                    pass  # what was wanted
                except SourceError as error:
                    refusals.append(str(error))
                    continue
                places.pop(at, None)
        if refusals:
            raise SourceError("; ".join(dict.fromkeys(refusals)))
        self._announced.pop(service.identity, None)


class _Query:
    """The blocking query of one upstream. told: the endpoints of its last snapshot."""

    __slots__ = ("_at", "_index", "_parameters", "service", "told", "wanted")

    def __init__(self, wanted: Wanted, datacenter: str) -> None:
        self.wanted = wanted
        self.service = wanted.service or wanted.upstream
        self.told: tuple[Endpoint, ...] | None = None
        self._index = 0
        self._at = -1  # the host that the index is of
        parameters = ["passing=true"]
        if datacenter:
            parameters.append(f"dc={_part(datacenter)}")
        parameters += [f"tag={_part(tag)}" for tag in wanted.tags]  # an instance has to have all of them
        self._parameters = "&".join(parameters)

    async def ask(self, conversation: Conversation, wait: float, at: int) -> Health:
        """Ask a host for what has changed since its last answer; another one for what there is. wait: seconds."""
        target = f"/v1/health/service/{_part(self.service)}?{self._parameters}"
        within = ANSWER_TIMEOUT
        index = self._index if at == self._at else 0
        if index:
            target = f"{target}&index={index}&wait={_duration(wait)}"
            within += wait * (1 + JITTER)
        health = await conversation.health(at, target, within, self.wanted)
        self._at = at
        # An index that goes backwards is asked for anew; one of 0 would never block ("Blocking Queries").
        self._index = 0 if health.index < index else max(health.index, 1)
        return health


class _Pace:
    """A token bucket: `BURST` answers at once, then one in `PACE` seconds."""

    __slots__ = ("_clock", "_due")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due = clock.monotonic()  # when the bucket is full again

    def pause(self) -> float:
        """Take one; gives how many seconds to wait for it."""
        now = self._clock.monotonic()
        self._due = max(self._due, now) + PACE
        return max(0.0, self._due - now - BURST * PACE)


def _registration(service: RegistrationSettings) -> dict[str, Any]:
    """The body of /v1/agent/service/register."""
    meta = {"weight": str(service.weight)}
    if service.zone:
        meta["zone"] = service.zone
    return {
        "ID": service.identity,
        "Name": service.name,
        "Address": service.host,
        "Port": service.port,
        "Tags": list(service.tags),
        "Meta": meta,
        "Weights": {"Passing": service.weight, "Warning": 1},
        "Check": {
            "CheckID": _check(service),
            "Name": f"sidecar: {service.name}",
            "TTL": _duration(service.ttl),
            "Status": "passing",
            # A sidecar that died without a word; while it is critical nobody is sent there.
            "DeregisterCriticalServiceAfter": _duration(max(service.ttl, SHORTEST_DEREGISTER)),
        },
    }


def _check(service: RegistrationSettings) -> str:
    """The id of its check, as Consul itself would call it."""
    return f"service:{service.identity}"


def _part(text: str) -> str:
    """One segment of a path, or one value of a query (RFC 3986 section 2.1)."""
    return quote(text, safe="")


def _duration(seconds: float) -> str:
    """As Go's time.ParseDuration reads it."""
    return f"{seconds:.0f}s" if seconds == int(seconds) else f"{max(1, round(seconds * 1000))}ms"
