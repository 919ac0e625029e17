"""The registries of `external_registry`, which of them an upstream's `source` uses, and what `register` announces."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from sidecar.config.findings import meant
from sidecar.config.health import HealthMerge, usual_path
from sidecar.config.policies import Layer
from sidecar.config.schema import ExternalRegistry, Policy, Registration, SourceChoice, Tls
from sidecar.config.settings import (
    STATIC,
    RegistrationSettings,
    RegistrySettings,
    SourceSettings,
    TlsSettings,
)
from sidecar.config.unset import UNSET, UnsetType, or_else

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sidecar.config.findings import Findings, KeyPath
    from sidecar.config.marks import Document

__all__ = ["Registrations", "Registries"]


_ALL: Final = ("type", "name", "on_empty", "stale_after")
_TOKEN: Final = ("token", "token_env", "token_file")
_PASSWORD: Final = ("username", "password", "password_env", "password_file")
# The keys that each type has, beside those that all have.
KEYS: Final = {
    "consul": ("host", "tls", *_TOKEN, "datacenter"),
    "etcd": ("host", "tls", *_PASSWORD, "prefix"),
    "kubernetes": ("host", "tls", *_TOKEN, "namespace", "kubeconfig", "context"),
    "dns": ("host",),
    "file": ("path",),
}
_NEEDED: Final = {"consul": "host", "etcd": "host", "file": "path"}
_ANNOUNCES: Final = ("consul", "etcd")  # types that services can be announced in
_LEAST_TTL: Final = 3.0  # seconds: three signs of life in it are one a second


class Registries:
    """Reads `external_registry`, then judges the `source` of each upstream by it.

    directory: what relative file names start at. settings: in file order.
    """

    def __init__(
        self,
        given: Sequence[ExternalRegistry],
        document: Document,
        directory: str,
        findings: Findings,
        *,
        alone: bool,
    ) -> None:
        self._document = document
        self._directory = directory
        self._findings = findings
        self.settings: list[RegistrySettings] = []
        for index, one in enumerate(given):
            path: KeyPath = ("external_registry",) if alone else ("external_registry", index)
            self._add(one, path)

    def _add(self, one: ExternalRegistry, path: KeyPath) -> None:
        if isinstance(one.type, UnsetType):
            return
        kind = one.type
        needed = _NEEDED.get(kind, "type")
        if getattr(one, needed) is UNSET and not self._document.has((*path, needed)):
            self._say(path, f"a registry of type {kind} needs {needed}; say where it is")
        for key, value in vars(one).items():
            if value is not UNSET and key not in (*_ALL, *KEYS[kind]):
                self._say((*path, key), f"means nothing for a registry of type {kind}; remove it")
        for what in ("token", "password"):
            if getattr(one, f"{what}_env") is not UNSET and getattr(one, f"{what}_file") is not UNSET:
                self._say(
                    (*path, f"{what}_file"), f"says the same as {what}_env beside it; keep one of the two"
                )
        if isinstance(one.username, str) and one.password_env is UNSET and one.password_file is UNSET:
            self._say((*path, "username"), "needs its password; add password_env or password_file")
        name = or_else(one.name, kind)
        if name == STATIC:
            self._say((*path, "name"), "`static` is what the file itself is called; choose another name")
        if name in self.names:
            place = (*path, "name") if one.name is not UNSET else path
            self._say(place, f"another registry is called `{name}` too; give each a name of its own")
        on_empty = or_else(one.on_empty, "keep" if kind == "dns" else "drop")
        self.settings.append(
            RegistrySettings(
                name=name,
                kind=kind,
                hosts=or_else(one.host, ()),
                keep_empty=on_empty == "keep",
                stale_after=or_else(one.stale_after, 60.0),
                tls=self._tls(one.tls, (*path, "tls")),
                token_env=or_else(one.token_env, ""),
                token_file=self._file(one.token_file),
                username=or_else(one.username, ""),
                password_env=or_else(one.password_env, ""),
                password_file=self._file(one.password_file),
                datacenter=or_else(one.datacenter, ""),
                prefix=or_else(one.prefix, "/services").rstrip("/"),
                namespace=or_else(one.namespace, ""),
                kubeconfig=self._file(one.kubeconfig),
                context=or_else(one.context, ""),
                path=self._file(one.path),
            )
        )

    @property
    def names(self) -> list[str]:
        return [registry.name for registry in self.settings]

    def _tls(self, given: Tls | bool | UnsetType, path: KeyPath) -> TlsSettings:
        if isinstance(given, UnsetType | bool):
            return TlsSettings(enabled=given is True)
        if given.key is not UNSET and given.cert is UNSET:
            self._say((*path, "key"), "needs the certificate that it belongs to; add cert")
        if given.verify is False and given.ca is not UNSET:
            self._say(
                (*path, "verify"),
                "false takes any certificate, so that ca means nothing; keep one of the two",
            )
        return TlsSettings(
            enabled=True,
            ca=self._file(given.ca),
            cert=self._file(given.cert),
            key=self._file(given.key),
            server_name=or_else(given.server_name, ""),
            verify=or_else(given.verify, True),
        )

    def _file(self, name: str | UnsetType) -> str:
        return "" if isinstance(name, UnsetType) else os.path.join(self._directory, name)

    # What upstreams make of them

    def source(self, layers: Iterable[Layer], *, static: bool) -> SourceSettings:
        """Where the endpoints of an upstream come from; the last layer that says so wins.

        static: the configuration names endpoints of it. Without a word in the file every registry is asked, in order,
        and what the file names serves while none of them knows any.
        """
        given: SourceChoice | tuple[str, ...] | UnsetType = UNSET
        path: KeyPath = ()
        for layer in layers:
            if not isinstance(layer.keys.source, UnsetType):
                given, path = layer.keys.source, (*layer.path, "source")
        if isinstance(given, UnsetType):
            given = SourceChoice()
        elif isinstance(given, tuple):
            given = SourceChoice(use=given)
        usual = (*self.names, *((STATIC,) if static or not self.settings else ()))
        use = or_else(given.use, usual)
        self._check(given, use, path, static=static)
        return SourceSettings(
            use=use,
            merge=or_else(given.merge, False),
            service=or_else(given.service, ""),
            port=or_else(given.port, ""),
            tags=or_else(given.tags, ()),
            datacenter=or_else(given.datacenter, ""),
            namespace=or_else(given.namespace, ""),
        )

    def check_names(self, source: SourceSettings, path: KeyPath, *, static: bool) -> None:
        """dns alone is asked for hosts, or for a service, and knows of no upstream by its name."""
        kinds = {registry.kind for registry in self.settings if registry.name in source.use}
        if kinds == {"dns"} and not source.service and not static:
            self._say(
                path, "has no name that dns could be asked for; give its hosts, or a `service` under source"
            )

    def _check(self, given: SourceChoice, use: tuple[str, ...], path: KeyPath, *, static: bool) -> None:
        place = (*path, "use") if self._document.has((*path, "use")) else path
        known = (*self.names, STATIC)
        for name in use:
            if name not in known:
                hint = meant(name, known) or f"; known are: {', '.join(known)}"
                self._say(place, f"no registry of external_registry is called `{name}`{hint}")
            elif name == STATIC and not static and path and path[0] != "defaults":
                self._say(
                    place, "names static, but there is no host in the file; add it, or leave static out"
                )
        if given.merge is True and len(use) < 2:
            self._say((*path, "merge"), "means nothing for a single source; name several under use")
        kinds = {registry.kind for registry in self.settings if registry.name in use}
        for key, kind in (("tags", "consul"), ("datacenter", "consul"), ("namespace", "kubernetes")):
            if getattr(given, key) is not UNSET and kind not in kinds and set(use) <= set(known):
                self._say((*path, key), f"means nothing without a registry of type {kind}; remove it")

    def _say(self, path: KeyPath, problem: str) -> None:
        self._document.report(self._findings, path, problem)


class Registrations:
    """Reads `register`. zone: the sidecar's own, which what it announces is in too."""

    def __init__(
        self, registries: Sequence[RegistrySettings], document: Document, findings: Findings, zone: str
    ) -> None:
        self._registries = {one.name: one for one in registries if one.kind in _ANNOUNCES}
        self._document = document
        self._findings = findings
        self._zone = zone

    def read(
        self, given: Sequence[Registration], path: KeyPath, *, alone: bool
    ) -> list[RegistrationSettings]:
        """The services to announce, in file order."""
        found: dict[tuple[str, str, int], RegistrationSettings] = {}
        for index, one in enumerate(given):
            place = path if alone else (*path, index)
            settings = self._one(one, place)
            if settings is None:
                continue
            key = (settings.name, settings.registry, settings.port)
            if key in found:
                self._say(place, f"announces {settings.name} on port {settings.port} already; name it once")
            found[key] = settings
        return list(found.values())

    def _one(self, one: Registration, path: KeyPath) -> RegistrationSettings | None:
        if isinstance(one.name, UnsetType) or isinstance(one.port, UnsetType):
            return None
        registry = self._registry(one, path)
        ttl = or_else(one.ttl, 15.0)
        if ttl < _LEAST_TTL:
            self._say(
                (*path, "ttl"), f"{ttl:g} s is too short to be renewed in time; use {_LEAST_TTL:g} s or more"
            )
        if one.health_check is False:
            self._say(
                (*path, "health_check"),
                "false would announce what may not be there; remove it for a tcp check",
            )
        # Without a word about how to ask, only what listens is announced: many services have no health path.
        scheme = "tcp" if isinstance(one.health_check, UnsetType | bool) else _scheme(one.health_check)
        layer = Layer(Policy(health_check=one.health_check), path)
        merge = HealthMerge(scheme, UNSET, usual_path(one.name, "http"), self._document, self._findings)
        return RegistrationSettings(
            name=one.name,
            registry=registry,
            host=or_else(one.host, ""),
            port=one.port,
            identity=or_else(one.id, ""),
            check=merge.settings(one.name, (layer,)),
            check_host=or_else(one.check_host, "127.0.0.1"),
            weight=or_else(one.weight, 1),
            zone=or_else(one.zone, self._zone),
            tags=or_else(one.tags, ()),
            ttl=ttl,
        )

    def _registry(self, one: Registration, path: KeyPath) -> str:
        names = list(self._registries)
        if isinstance(one.registry, str):
            if one.registry not in names:
                known = f"known are: {', '.join(names)}" if names else "external_registry names none"
                problem = f"no registry of type consul or etcd is called `{one.registry}`; {known}"
                self._say((*path, "registry"), problem)
            return one.registry
        if not names:
            self._say(path, "there is nowhere to announce it; add a consul or etcd under external_registry")
        elif len(names) > 1:
            self._say(path, f"could be announced in several ({', '.join(names)}); say which as registry")
        return names[0] if names else ""

    def _say(self, path: KeyPath, problem: str) -> None:
        self._document.report(self._findings, path, problem)


def _scheme(check: object) -> str:
    """The scheme whose usual check it is: that of its type, or http for one that has a path."""
    kind = getattr(check, "type", UNSET)
    return kind if isinstance(kind, str) else "http"
