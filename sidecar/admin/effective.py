"""The configuration as it is followed: what `/config` answers.

It has the keys of the file, with every default in its place, so that as a file it says the same. No secret is in it,
since none is in any setting: files and variables that hold them are named.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sidecar.admin.written import Entries
from sidecar.config.record import fields
from sidecar.config.registries import KEYS
from sidecar.config.schema import MeshBreaker, Sidecar
from sidecar.config.settings import Address, UpstreamKind

if TYPE_CHECKING:
    from sidecar.config.doors import HeaderEdits, HeaderSettings, MeshSettings, RateSettings
    from sidecar.config.settings import (
        BreakerSettings,
        EndpointSettings,
        HealthSettings,
        PolicySettings,
        RegistrationSettings,
        RegistrySettings,
        Settings,
        SourceSettings,
        UpstreamSettings,
    )

__all__ = ["config_view"]

# Of ExternalRegistry: what all types have, under the names of the settings.
_ALL = ("name", "stale_after")
_TIMES_OF_HTTP = ("continue_timeout", "tunnel_idle_timeout", "per_try_timeout", "hedge_after")


def config_view(settings: Settings) -> dict[str, Any]:
    """`{origin, mode_reason, overrides, notes, not_listening, log_level, settings}`.

    origin: the file. mode_reason: what decided the mode. overrides: environment variables that changed an upstream.
    not_listening: why, by upstream. settings: see above; its upstreams are looked at when they are written.
    """
    services = [one for one in settings.upstreams if one.kind is UpstreamKind.SERVICE]
    balancers = [one for one in settings.upstreams if one.kind is UpstreamKind.LOAD_BALANCER]
    document: dict[str, Any] = {
        "deployment": _given({"mode": settings.mode.value, "domain": settings.domain})
    }
    if services:
        document["services"] = Entries((one.name, _service(one)) for one in services)
    if balancers:
        document["load_balancers"] = Entries((one.name, _balancer(one)) for one in balancers)
    routers = [one for one in settings.upstreams if one.kind is UpstreamKind.ROUTER]
    if routers:
        document["routers"] = Entries((one.name, _router(one)) for one in routers)
    document["sidecar"] = _sidecar(settings)
    if settings.registries:
        document["external_registry"] = [_registry(one) for one in settings.registries]
    if settings.registrations:
        document["register"] = [_registration(one) for one in settings.registrations]
    if settings.mesh.kind:
        document["kubernetes"] = {"service_mesh": _mesh(settings.mesh)}
    return {
        "origin": settings.origin,
        "mode_reason": settings.mode_reason,
        "overrides": list(settings.overrides),
        "notes": list(settings.notes),
        "not_listening": {one.name: one.skipped for one in settings.upstreams if one.skipped},
        "log_level": settings.log_level,
        "settings": document,
    }


def _service(upstream: UpstreamSettings) -> dict[str, Any]:
    place: dict[str, Any] = {}
    if upstream.endpoints:
        place = _place(upstream.endpoints[0])
    path = {"health_endpoint": upstream.health_endpoint}
    return {**_given(place), "scheme": upstream.scheme, **path, **_shared(upstream)}


def _place(endpoint: EndpointSettings) -> dict[str, Any]:
    """A unix socket has no port."""
    return {"host": endpoint.host, "port": endpoint.port or ""}


def _balancer(upstream: UpstreamSettings) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if upstream.endpoints:
        found["hosts"] = [_given({**asdict(one), **_place(one)}) for one in upstream.endpoints]
    found["scheme"] = upstream.scheme
    found["strategy"] = upstream.strategy
    if upstream.hash_on:
        found["hash_on"] = upstream.hash_on
    return {**found, **_shared(upstream)}


def _router(upstream: UpstreamSettings) -> dict[str, Any]:
    """Its port is under `sidecar.ports`, as all are."""
    return {
        "routes": [
            _given({**asdict(route), "headers": dict(route.headers) or (), "to": dict(route.to)})
            for route in upstream.routes
        ],
        "limits": {"request_head": upstream.policy.limits.request_head},
    }


def _shared(upstream: UpstreamSettings) -> dict[str, Any]:
    """What services and load balancers both have."""
    health = _health(upstream.health) if upstream.health.active else False
    tls = {"tls": _given(asdict(upstream.policy.tls))} if upstream.secure else {}
    return {
        **_policy(upstream.policy, http=upstream.per_request),
        **tls,
        "health_check": health,
        "source": _source(upstream.source),
    }


def _policy(policy: PolicySettings, *, http: bool) -> dict[str, Any]:
    retry = policy.retry
    found: dict[str, Any] = {
        "timeout": policy.timeout,
        "connect_timeout": policy.connect_timeout,
        "idle_timeout": policy.idle_timeout,
        "retries": policy.retries,
        "retry_backoff": {"base": retry.base, "max": retry.longest},
        "slow_start": policy.slow_start,
        "close_on_unhealthy": policy.close_on_unhealthy,
        "proxy_protocol": ("off", "v1", "v2")[policy.proxy_protocol],
        **_breaker(policy.breaker, http=http),
        "outlier": asdict(policy.outlier),
        "rate_limit": _rate_limit(policy.rate_limit),
        "limits": asdict(policy.limits),
    }
    if http:
        found |= {name: getattr(policy, name) for name in _TIMES_OF_HTTP}
        found["retry_on"] = list(retry.on)
        found["retry_budget"] = {"ratio": retry.ratio, "min": retry.least}
        found["host_header"] = policy.host_header
        if policy.mirror.to:
            found["mirror"] = asdict(policy.mirror)
        if policy.deadline_header:
            found["deadline_header"] = policy.deadline_header
        found |= _headers(policy.headers)
    return found


def _rate_limit(rate: RateSettings) -> dict[str, Any]:
    return _given(asdict(rate)) if rate.requests else {"requests": 0}


def _headers(headers: HeaderSettings) -> dict[str, Any]:
    token = {"bearer_token_env": headers.bearer_env, "bearer_token_file": headers.bearer_file}
    edits = {
        way: found
        for way, found in (("request", _edits(headers.request)), ("response", _edits(headers.response)))
        if found
    }
    return _given({**token, "headers": edits})


def _edits(edits: HeaderEdits) -> dict[str, Any]:
    added: dict[str, list[str]] = {}
    for name, value in edits.add:
        added.setdefault(name, []).append(value)
    return _given({"set": dict(edits.set), "add": added, "remove": edits.remove})


def _breaker(breaker: BreakerSettings, *, http: bool) -> dict[str, Any]:
    long = asdict(breaker)
    statuses = list(long.pop("failure_statuses"))
    if http:
        long["failure_statuses"] = statuses
    if not long.pop("jitter"):  # that is what the fixed time means, which has no long form
        fixed = long.pop("open_for")
        del long["max_open_for"]
        return {"circuit_breaker": long, "circuit_breaker_timeout": fixed}
    return {"circuit_breaker": long}


def _health(check: HealthSettings) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": check.kind,
        "interval": check.interval,
        "timeout": check.timeout,
        "rise": check.rise,
        "fall": check.fall,
    }
    if check.kind == "http":
        found["path"] = check.path
        found["expect_status"] = [f"{lowest}-{highest}" for lowest, highest in check.expect_status]
        if check.expect_body:
            found["expect_body"] = check.expect_body
        if check.expect_json:
            found["expect_json"] = {
                one.name: [json.loads(text) for text in one.accepted] for one in check.expect_json
            }
    for name in ("username", "password_env", "password_file", "role"):
        if getattr(check, name):
            found[name] = getattr(check, name)
    return found


def _source(source: SourceSettings) -> dict[str, Any]:
    found = _given(asdict(source))
    found.pop("override_port", None)  # the environment's, which no key says
    return found


def _sidecar(settings: Settings) -> dict[str, Any]:
    own = settings.sidecar
    found: dict[str, Any] = {}
    for key in fields(Sidecar):
        if key == "ports":
            found[key] = {
                str(one.listen_port): _listener(one, socket=False)
                for one in settings.upstreams
                if one.listen_port is not None
            }
        elif key == "sockets":
            sockets = {
                one.listener.socket: _listener(one, socket=True)
                for one in settings.upstreams
                if one.listener.socket
            }
            if sockets:
                found[key] = sockets
        elif hasattr(own, key):
            found[key] = _plain(getattr(own, key))
    for key, where in (("access_log", "file"), ("tracing", "endpoint")):
        if where not in found[key]:  # it goes nowhere, however
            del found[key]
    return {key: value for key, value in found.items() if value != ""}


def _listener(upstream: UpstreamSettings, *, socket: bool) -> Any:
    """The upstream's name, or a mapping where there is more to say."""
    listener = upstream.listener
    found: dict[str, Any] = {}
    if socket and not listener.socket.startswith("@"):
        found["mode"] = f"{listener.mode:04o}"
    if listener.socket_accept_proxy if socket else listener.accept_proxy:
        found["accept_proxy"] = True
    if listener.socket_tls if socket else listener.port_tls:
        found["tls"] = _given(asdict(listener.tls))
    return {"to": upstream.name, **found} if found else upstream.name


def _plain(value: Any) -> Any:
    if isinstance(value, Address):
        return str(value)
    if isinstance(value, tuple):
        return list(value)
    return _given(asdict(value)) if hasattr(value, "__dataclass_fields__") else value


def _registry(registry: RegistrySettings) -> dict[str, Any]:
    kind = registry.kind
    found: dict[str, Any] = {"type": kind, "on_empty": "keep" if registry.keep_empty else "drop"}
    for key in (*_ALL, *KEYS[kind]):
        if key == "host":
            found[key] = [str(one) if one.port else one.host for one in registry.hosts]
        elif key == "tls":
            tls = _given(asdict(registry.tls))
            if tls.pop("enabled"):
                found[key] = tls
        elif hasattr(registry, key):
            found[key] = getattr(registry, key)
    return _given(found)


def _registration(one: RegistrationSettings) -> dict[str, Any]:
    found = {
        "name": one.name,
        "registry": one.registry,
        "host": one.host,
        "port": one.port,
        "id": one.identity,
        "check_host": one.check_host,
        "weight": one.weight,
        "zone": one.zone,
        "tags": list(one.tags),
        "ttl": one.ttl,
    }
    if one.check.active:
        found["health_check"] = _health(one.check)
    return _given(found)


def _mesh(mesh: MeshSettings) -> dict[str, Any]:
    said = {key: value for key, value in asdict(mesh).items() if value}  # 0 is not said
    policy = {key: said[key] for key in ("load_balancer",) if key in said}
    breaker = {key: said[key] for key in fields(MeshBreaker) if key in said}
    if breaker:
        policy["circuit_breaker"] = breaker
    found = {"enabled": mesh.enabled, "type": mesh.kind}
    return {**found, "traffic_policy": policy} if policy else found


def _given(found: dict[str, Any]) -> dict[str, Any]:
    """Without what is empty, and so is not said."""
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in found.items()
        if value not in ("", (), [], {})
    }
