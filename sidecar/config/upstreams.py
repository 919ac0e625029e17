"""The upstreams: what the file says, filled up from the built-ins, moved by the environment."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sidecar.config.health import HealthMerge, usual_path
from sidecar.config.policies import Layer, check_layer, merge_policy
from sidecar.config.record import Record
from sidecar.config.schema import MAX_UPSTREAMS, Defaults, LoadBalancer, Root, Service
from sidecar.config.settings import (
    PROTOCOLS,
    EndpointSettings,
    HealthSettings,
    PolicySettings,
    SourceSettings,
    UpstreamKind,
    UpstreamSettings,
)
from sidecar.config.tls import client_tls
from sidecar.config.unset import UNSET, UnsetType, or_else
from sidecar.net.unix import is_unix

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.config.environment import Environment
    from sidecar.config.findings import Findings, KeyPath
    from sidecar.config.marks import Document
    from sidecar.config.modes import BuiltIn
    from sidecar.config.registries import Registries

__all__ = ["Draft", "UpstreamResolver"]


class Draft(Record):
    """An upstream whose listener is not decided yet.

    ports: the distinct ports that the file or the built-ins give its endpoints. The environment's are not
    among them: the localhost port is the address that the application knows, and the environment only says
    where the endpoint really is.
    """

    upstream: UpstreamSettings
    path: KeyPath
    ports: tuple[int, ...]


class UpstreamResolver:
    """Makes drafts of a file's upstreams. One use: `resolve`."""

    __slots__ = (
        "_built_ins",
        "_defaults",
        "_document",
        "_environment",
        "_findings",
        "_registries",
        "_root",
    )

    def __init__(
        self,
        root: Root,
        document: Document,
        built_ins: Mapping[str, BuiltIn],
        environment: Environment,
        registries: Registries,
        findings: Findings,
    ) -> None:
        self._root = root
        self._document = document
        self._built_ins = built_ins
        self._environment = environment
        self._registries = registries
        self._findings = findings
        self._defaults = Layer(or_else(root.defaults, Defaults()), ("defaults",))

    def resolve(self) -> list[Draft]:
        """Services, then load balancers, in file order; what lacks something is reported and left out."""
        services, balancers = self._named()
        self._environment.check_names((*services, *balancers))
        check_layer(self._defaults, self._document, self._findings)
        drafts = [self._service(name, service) for name, service in services.items()]
        drafts += [
            self._balancer(name, balancer) for name, balancer in balancers.items() if name not in services
        ]
        return [draft for draft in drafts if draft is not None]

    def _named(self) -> tuple[Mapping[str, Service], Mapping[str, LoadBalancer]]:
        """What the file names; the built-ins when it names nothing."""
        document = self._document
        if not document.has(("services",)) and not document.has(("load_balancers",)):
            return dict.fromkeys(self._built_ins, Service()), {}
        services = or_else(self._root.services, {})
        balancers = or_else(self._root.load_balancers, {})
        given = [section for section in ("services", "load_balancers") if document.has((section,))]
        if all(isinstance(document.data, dict) and document.data[section] == {} for section in given):
            self._say(
                (given[0],), "is empty; name an upstream under it, or remove it for the built-in services"
            )
        for name in services:
            if name in balancers:
                first = document.line(("services", name))
                self._say(
                    ("load_balancers", name), f"is the name of a service on line {first} too; rename one"
                )
        count = len(services) + len(balancers)
        if count > MAX_UPSTREAMS:
            where = "services" if services else "load_balancers"
            self._say(
                (where,),
                f"the file names {count} upstreams; {MAX_UPSTREAMS} is the most, use several sidecars",
            )
        return services, balancers

    def _service(self, name: str, service: Service) -> Draft | None:
        path: KeyPath = ("services", name)
        known = self._built_ins.get(name)
        host = or_else(service.host, known.host if known else None)
        layers = (self._defaults, Layer(service, path))
        source = self._registries.source(layers, static=host is not None)
        port = or_else(service.port, known.port if known else None)
        if source.is_static:
            self._needed(host, (*path, "host"))
        unix = host is not None and is_unix(host)  # which has no port: `port` is the localhost port alone
        if (source.is_static or host is not None) and not unix:
            self._needed(port, (*path, "port"))
        scheme = or_else(service.scheme, known.scheme if known else "http")
        health = known.health_endpoint if known else usual_path(name, scheme)
        moved, moved_port = self._environment.host(name), self._environment.port(name)
        real_host, real_port = or_else(moved, host), or_else(moved_port, port)
        policy = self._policy(name, Layer(service, path), scheme, real_host)
        checked = self._health(name, Layer(service, path), scheme, service.health_endpoint, health)
        if real_host is not None and is_unix(real_host):
            real_port = 0
        if source.is_static and (host is None or (port is None and not unix)):
            return None
        if not isinstance(moved, UnsetType):
            source = SourceSettings()
        elif not isinstance(moved_port, UnsetType):
            source = replace(source, override_port=moved_port)
        here: tuple[EndpointSettings, ...] = ()
        if real_host is not None and real_port is not None:
            here = (EndpointSettings(real_host, real_port),)
        if source.is_static and not here:
            self._environment.lacks_port(name)
        self._registries.check_names(source, path, static=real_host is not None)
        upstream = UpstreamSettings(
            name=name,
            kind=UpstreamKind.SERVICE,
            scheme=scheme,
            endpoints=here,
            strategy="round_robin",
            health_endpoint=checked.path
            if checked.kind == "http"
            else or_else(service.health_endpoint, health),
            listen_port=None,
            skipped=None,
            policy=policy,
            health=checked,
            source=source,
        )
        return Draft(upstream, path, (port,) if port else ())

    def _balancer(self, name: str, balancer: LoadBalancer) -> Draft | None:
        path: KeyPath = ("load_balancers", name)
        scheme = or_else(balancer.scheme, "http")
        policy = self._policy(name, Layer(balancer, path), scheme, None)
        checked = self._health(name, Layer(balancer, path), scheme, UNSET, usual_path(name, scheme))
        layers = (self._defaults, Layer(balancer, path))
        source = self._registries.source(layers, static=balancer.hosts is not UNSET)
        in_file = self._hosts(balancer, path, needed=source.is_static)
        moved = self._environment.hosts(name)
        if not in_file and source.is_static:
            return None
        if isinstance(moved, UnsetType):
            endpoints = in_file
        else:
            endpoints = tuple(EndpointSettings(address.host, address.port) for address in moved)
            source = SourceSettings()
        self._registries.check_names(source, path, static=bool(in_file))
        strategy = or_else(balancer.strategy, "round_robin")
        upstream = UpstreamSettings(
            name=name,
            kind=UpstreamKind.LOAD_BALANCER,
            scheme=scheme,
            endpoints=endpoints,
            strategy=strategy,
            hash_on=self._hash_on(balancer, strategy, scheme, path),
            health_endpoint=checked.path if checked.kind == "http" else usual_path(name, scheme),
            listen_port=None,
            skipped=None,
            policy=policy,
            health=checked,
            source=source,
        )
        return Draft(
            upstream, path, tuple(dict.fromkeys(endpoint.port for endpoint in in_file if endpoint.port))
        )

    def _hash_on(self, balancer: LoadBalancer, strategy: str, scheme: str, path: KeyPath) -> str:
        given = or_else(balancer.hash_on, "")
        if strategy != "ring_hash":
            if given and not (balancer.strategy is UNSET and self._document.has((*path, "strategy"))):
                self._say(
                    (*path, "hash_on"), f"means nothing for {strategy}; use strategy: ring_hash, or remove it"
                )
        elif PROTOCOLS[scheme] != "http":
            if given not in ("", "client"):
                self._say((*path, "hash_on"), f"{scheme} is not read as HTTP; only `client` can be hashed")
            return "client"
        elif not given and not self._document.has((*path, "hash_on")):
            problem = "needs to know what to hash; add hash_on: path, client, header:NAME or cookie:NAME"
            self._say((*path, "strategy"), problem)
        return given

    def _hosts(self, balancer: LoadBalancer, path: KeyPath, *, needed: bool) -> tuple[EndpointSettings, ...]:
        place = (*path, "hosts")
        if isinstance(balancer.hosts, UnsetType):
            if needed and not self._document.has(place):
                self._say(path, "has no hosts; list them as host:port under `hosts`")
            return ()
        endpoints: dict[tuple[str, int], EndpointSettings] = {}
        for index, host in enumerate(balancer.hosts):
            if isinstance(host.host, UnsetType):
                continue
            unix, port = is_unix(host.host), or_else(host.port, 0)
            if unix and port:
                self._say((*place, index, "port"), "means nothing for a unix socket; remove it")
            if not unix and not port:
                continue
            endpoint = EndpointSettings(host.host, port, or_else(host.weight, 1), or_else(host.zone, ""))
            key = (endpoint.host if unix else endpoint.host.lower(), port)
            if key in endpoints:
                advice = "name it once, with a weight if it should get more"
                self._say((*place, index), f"{endpoint} is in the list already; {advice}")
            endpoints[key] = endpoint
        return tuple(endpoints.values())

    def _policy(self, name: str, layer: Layer, scheme: str, host: str | None) -> PolicySettings:
        """host: the one that all its endpoints go by, for TLS."""
        check_layer(layer, self._document, self._findings)
        layers = (self._defaults, layer, Layer(self._environment.policy(name), ()))
        policy = merge_policy(layers, scheme, self._document, self._findings)
        tls = client_tls(layers, scheme, host, self._document, self._findings)
        return replace(policy, tls=tls)

    def _health(
        self, name: str, layer: Layer, scheme: str, endpoint: str | UnsetType, known: str
    ) -> HealthSettings:
        merge = HealthMerge(scheme, endpoint, known, self._document, self._findings)
        return merge.settings(name, (self._defaults, layer))

    def _needed(self, value: object, path: KeyPath) -> None:
        """A key that must come from somewhere."""
        if value is None and not self._document.has(path):
            key = path[-1]
            self._say(path[:-1], f"has no {key}; give one (only well-known services have a built-in {key})")

    def _say(self, path: KeyPath, problem: str) -> None:
        self._document.report(self._findings, path, problem)
