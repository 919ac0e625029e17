"""Asking services whether they are well on a program's behalf, with the probes and breakers of the sidecar itself.

The sidecar's own checks go on by themselves and decide who is picked; these are made when somebody asks, in the
process that asks, and what they show is remembered by that process's registry alone.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

from sidecar.clock import Clock
from sidecar.errors import SidecarError
from sidecar.health.probes import Finding, examine, probe_of
from sidecar.model.outcome import Outcome
from sidecar.registry.look_ups import LookUps
from sidecar.registry.service import ServiceStatus
from sidecar.registry.threads import in_thread
from sidecar.resilience import Breaker, BreakerState

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

    from sidecar.config import EndpointSettings, UpstreamSettings
    from sidecar.health.probes import Probe
    from sidecar.tls.client import ClientTls
    from sidecar.tls.contexts import Made

__all__ = ["EndpointHealth", "ServiceChecks", "ServiceHealth"]

AT_ONCE = 64  # endpoints that are asked at the same moment: each takes a descriptor of the program's


@dataclass(frozen=True)
class EndpointHealth:
    """How one endpoint was found; see `ServiceHealth`. address: host:port."""

    address: str
    status: ServiceStatus
    response_time: float = 0.0
    error: str = ""


@dataclass(frozen=True)
class ServiceHealth:
    """How a service or load balancer was found.

    status: HEALTHY when one endpoint at least is, since that is who requests go to; else UNHEALTHY when one has been
        asked and is not; else UNKNOWN when one could not be asked; CIRCUIT_OPEN when the breakers of all let no
        request through.
    response_time: seconds that the answer took, of several the quickest healthy one's; 0.0 when there was none.
    error: why it is not healthy, one line; empty when it is. check: what was asked, such as `GET /health`.
    endpoints: in the order of the configuration, or as a registry knows them now; UNKNOWN without any.
    """

    status: ServiceStatus
    response_time: float = 0.0
    error: str = ""
    check: str = ""
    endpoints: tuple[EndpointHealth, ...] = ()

    @property
    def response_time_ms(self) -> float:
        """The same in milliseconds."""
        return self.response_time * 1000.0


class ServiceChecks:
    """Asks, and remembers what came of it: breakers by endpoint, the last status by service. Threads may share it.

    environ: where passwords are looked up.
    """

    def __init__(self, environ: Mapping[str, str], clock: Clock | None = None) -> None:
        self._environ = environ
        self._clock = clock or Clock()
        self._lock = Lock()  # around breakers, which know nothing of threads
        self._breakers: dict[str, dict[tuple[str, int], Breaker]] = {}  # by service, then endpoint
        self._moved: dict[str, tuple[tuple[tuple[str, int], Breaker], ...]] = {}  # those that are not closed
        self._last: dict[str, ServiceStatus] = {}
        self._look_ups = LookUps()
        self._made: dict[Hashable, Made] = {}  # of the system's authorities alone, which take long to load

    def last(self, name: str) -> ServiceStatus:
        """What the last check of a service found; UNKNOWN before the first."""
        return self._last.get(name, ServiceStatus.UNKNOWN)

    def refused(self, name: str) -> frozenset[tuple[str, int]]:
        """Endpoints of a service that would not be asked now, as their breakers are open. Waits for no lock."""
        moved = self._moved.get(name)
        if not moved:
            return _NOBODY
        now = self._clock.monotonic()
        return frozenset(key for key, breaker in moved if breaker.probe_at > now)

    async def check(self, upstream: UpstreamSettings) -> ServiceHealth:
        """All of its endpoints at the same time."""
        return (await self.check_all((upstream,)))[upstream.name]

    async def check_all(self, upstreams: Iterable[UpstreamSettings]) -> dict[str, ServiceHealth]:
        """All endpoints of all, `AT_ONCE` of them at the same time; by name, in the order given."""
        gate = asyncio.Semaphore(AT_ONCE)
        upstreams = tuple(upstreams)
        found = await asyncio.gather(*(self._check(upstream, gate) for upstream in upstreams))
        return {upstream.name: health for upstream, health in zip(upstreams, found, strict=True)}

    async def _check(self, upstream: UpstreamSettings, gate: asyncio.Semaphore) -> ServiceHealth:
        policy = upstream.policy
        probe = probe_of(
            upstream.health, policy.host_header, self._environ, proxy_protocol=policy.proxy_protocol
        )
        self._forget_others(upstream)
        try:
            tls = await self._tls(upstream)
        except (SidecarError, OSError) as error:  # nothing that an endpoint could do anything about
            found = [
                EndpointHealth(str(one), ServiceStatus.UNKNOWN, 0.0, str(error)) for one in upstream.endpoints
            ]
        else:
            found = await asyncio.gather(
                *(
                    self._check_endpoint(upstream, endpoint, probe, gate, tls)
                    for endpoint in upstream.endpoints
                )
            )
        health = _together(probe.question, found)
        self._last[upstream.name] = health.status
        return health

    async def _tls(self, upstream: UpstreamSettings) -> ClientTls | None:
        """How its endpoints are spoken to, by the files as they are now. Raises TlsFileError, OSError."""
        if not upstream.secure:
            return None
        from sidecar.tls.client import ClientTls  # noqa: PLC0415 - most upstreams are in the clear

        tls = ClientTls(upstream.name, upstream.policy.tls, upstream.protocol, self._clock.monotonic)
        kept = None if tls.files else self._made.get(tls.alike)
        if kept is None:
            kept = await in_thread("loading of certificates", tls.load)
        tls.take(kept)
        if not tls.files:
            self._made[tls.alike] = kept
        return tls

    async def _check_endpoint(
        self,
        upstream: UpstreamSettings,
        endpoint: EndpointSettings,
        probe: Probe,
        gate: asyncio.Semaphore,
        tls: ClientTls | None,
    ) -> EndpointHealth:
        async with gate:
            breaker, permit = self._permit(upstream, endpoint)
            if permit is None:
                return EndpointHealth(str(endpoint), ServiceStatus.CIRCUIT_OPEN, 0.0, self._refusal(breaker))
            outcome = Outcome.CANCELLED  # unless there is a finding
            try:
                finding = await self._ask(upstream, endpoint, probe, tls)
                outcome = _OUTCOMES[finding.ok]
            finally:
                with self._lock:
                    breaker.record(outcome, self._clock.monotonic(), permit)
                    self._note(upstream.name)
        return EndpointHealth(
            str(endpoint),
            _STATUSES[finding.ok],
            finding.seconds if finding.answered else 0.0,
            finding.error,
        )

    async def _ask(
        self,
        upstream: UpstreamSettings,
        endpoint: EndpointSettings,
        probe: Probe,
        tls: ClientTls | None,
    ) -> Finding:
        try:
            return await examine(
                probe,
                endpoint.host,
                endpoint.port,
                upstream.health.timeout,
                self._look_ups.resolve,
                self._clock.monotonic,
                tls,
            )
        except Exception as error:  # one mistake of ours is not to hide how all others are
            return Finding(
                None, 0.0, f"the check itself failed: {type(error).__name__}: {error}", answered=False
            )

    def _permit(self, upstream: UpstreamSettings, endpoint: EndpointSettings) -> tuple[Breaker, int | None]:
        """The endpoint's breaker, and what to bring back to it; None while it lets nothing through."""
        key = (endpoint.host, endpoint.port)
        with self._lock:
            breakers = self._breakers.setdefault(upstream.name, {})
            breaker = breakers.get(key)
            if breaker is None:
                policy = upstream.policy.breaker
                # Whoever asks now and then never makes a rate, and would hardly meet an opening of a second: it
                # opens after failures in a row for all of `circuit_breaker_timeout`, as the seed says.
                breaker = breakers[key] = Breaker(
                    policy.consecutive_failures,
                    policy.max_open_for,
                    policy.max_open_for,
                    0.0,
                    self._clock.uniform,
                )
            free = breaker.state is BreakerState.CLOSED or breaker.take_probe(self._clock.monotonic())
            return breaker, breaker.permit if free else None

    def _note(self, name: str) -> None:
        breakers = self._breakers.get(name, {})
        self._moved[name] = tuple((key, one) for key, one in breakers.items() if not one.closed)

    def _forget_others(self, upstream: UpstreamSettings) -> None:
        """Endpoints come and go: their breakers go with them."""
        there = {(endpoint.host, endpoint.port) for endpoint in upstream.endpoints}
        with self._lock:
            breakers = self._breakers.get(upstream.name, {})
            if breakers.keys() <= there:
                return
            self._breakers[upstream.name] = {key: one for key, one in breakers.items() if key in there}
            self._note(upstream.name)

    def _refusal(self, breaker: Breaker) -> str:
        if breaker.probing:
            return "its circuit breaker is half open, and another check is on its way"
        left = max(0.0, breaker.open_until - self._clock.monotonic())
        return f"its circuit breaker is open after {breaker.failures} failures in a row, for {left:.1f} s yet"


_NOBODY: frozenset[tuple[str, int]] = frozenset()
# By `Finding.ok`. What could not be asked is nothing that a breaker counts.
_OUTCOMES = {True: Outcome.SUCCESS, False: Outcome.FAILURE_STATUS, None: Outcome.LOCAL_SHORTAGE}
_STATUSES = {True: ServiceStatus.HEALTHY, False: ServiceStatus.UNHEALTHY, None: ServiceStatus.UNKNOWN}
# The first that any endpoint has is the service's.
_TELLING = (
    ServiceStatus.HEALTHY,
    ServiceStatus.UNHEALTHY,
    ServiceStatus.UNKNOWN,
    ServiceStatus.CIRCUIT_OPEN,
)


def _together(question: str, found: Iterable[EndpointHealth]) -> ServiceHealth:
    """One service's health from its endpoints'."""
    endpoints = tuple(found)
    if not endpoints:
        return ServiceHealth(ServiceStatus.UNKNOWN, 0.0, "no endpoints are known", question)
    status = next(status for status in _TELLING if any(one.status is status for one in endpoints))
    telling = [one for one in endpoints if one.status is status]
    times = [one.response_time for one in telling if one.response_time > 0]
    errors = [
        one.error if len(endpoints) == 1 else f"{one.address}: {one.error}" for one in telling if one.error
    ]
    more = f"; and {len(errors) - 3} more" if len(errors) > 3 else ""
    return ServiceHealth(status, min(times, default=0.0), "; ".join(errors[:3]) + more, question, endpoints)
