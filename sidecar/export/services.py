"""Which Services of Kubernetes the endpoints of upstreams are: what a mesh's rules are about."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sidecar.config.addresses import is_address
from sidecar.config.settings import STATIC

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sidecar.config.settings import Settings, UpstreamSettings

__all__ = ["Services", "Used", "namespace_of"]

CLUSTER_DOMAIN: Final = (
    "svc.cluster.local"  # https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/
)
# RFC 1123, as Kubernetes has it for namespaces and, from 1.34 on, for Services. No unix socket is one, nor `my_redis`.
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Used:
    """A port of a Service that an upstream uses. port: 0 where only the cluster knows it."""

    name: str
    namespace: str
    domain: str
    port: int
    upstream: UpstreamSettings

    @property
    def host(self) -> str:
        """The Service's whole name."""
        return f"{self.name}.{self.namespace}.{self.domain}"


class Services:
    """of: what is used of each Service, by its host, in file order. others: upstreams, and why they have none."""

    def __init__(self, settings: Settings, namespace: str) -> None:
        self._settings = settings
        self._namespace = namespace
        self.of: dict[str, list[Used]] = {}
        self.others: list[tuple[str, str]] = []
        for upstream in settings.upstreams:
            self._add(upstream)

    def _add(self, upstream: UpstreamSettings) -> None:
        if upstream.routes:
            self.others.append((upstream.name, "is a router, and its routes are of this sidecar alone"))
            return
        found = [*self._from_registries(upstream), *self._from_file(upstream)]
        if not found and not any(name == upstream.name for name, _ in self.others):
            self.others.append((upstream.name, "has no Service of Kubernetes"))
        for used in found:
            there = self.of.setdefault(used.host, [])
            first = next((one for one in there if one.port == used.port), None)
            if first is None:
                there.append(used)
            elif first.upstream.name != upstream.name:
                self.others.append((upstream.name, f"has the Service and the port of {first.upstream.name}"))

    def _from_registries(self, upstream: UpstreamSettings) -> Iterator[Used]:
        source = upstream.source
        for registry in self._settings.registries:
            if registry.name not in source.use or registry.kind != "kubernetes":
                continue
            name, namespace = source.service or upstream.name, source.namespace
            if not namespace:
                name, _, namespace = name.partition(".")
            port = int(source.port) if source.port.isdecimal() else 0
            yield Used(
                name.lower(),
                namespace or registry.namespace or self._namespace,
                CLUSTER_DOMAIN,
                port,
                upstream,
            )

    def _from_file(self, upstream: UpstreamSettings) -> Iterator[Used]:
        if STATIC not in upstream.source.use:
            return
        for endpoint in upstream.endpoints:
            place = _parsed(endpoint.host.lower().rstrip("."), self._namespace)
            if place is None:
                self.others.append((upstream.name, f"{endpoint.host} is no Service of Kubernetes"))
            else:
                yield Used(*place, endpoint.port, upstream)


def namespace_of(settings: Settings) -> str:
    """The namespace that the configuration's domain names: `shop` of `shop.svc.cluster.local`; else `default`."""
    namespace, _, rest = settings.domain.partition(".")
    return namespace if rest == "svc" or rest.startswith("svc.") else "default"


def _parsed(host: str, namespace: str) -> tuple[str, str, str] | None:
    """Name, namespace and domain of a Service's host name; None for other hosts.

    `NAME.NAMESPACE` alone would be one too, and cannot be told from a name of the Internet.
    """
    name, *rest = host.split(".")
    if is_address(host) or host == "localhost" or not _LABEL.fullmatch(name):
        return None
    if not rest:
        return name, namespace, CLUSTER_DOMAIN
    if len(rest) >= 2 and rest[1] == "svc" and _LABEL.fullmatch(rest[0]):
        return name, rest[0], ".".join(rest[1:]) if len(rest) > 2 else CLUSTER_DOMAIN
    return None
