"""How endpoints are checked: the layers of `health_check`, and what the seed expects of its services."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from sidecar.config.schema import Defaults, HealthCheck, LoadBalancer, Service
from sidecar.config.settings import PROTOCOLS, HealthSettings, JsonField
from sidecar.config.unset import UNSET, UnsetType

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sidecar.config.findings import Findings, KeyPath
    from sidecar.config.marks import Document
    from sidecar.config.policies import Layer

__all__ = ["HealthMerge", "usual_path"]

T = TypeVar("T")

# A pass over what is due takes place ten times a second (`proxy.sweep`).
SHORTEST: Final = 0.1  # seconds of an interval

# What may be behind a scheme beside its own kind and tcp: an opaque one may carry anything.
_OPAQUE: Final = ("tcp", "tls")
_OF_HTTP: Final = ("path", "expect_status", "expect_body", "expect_json")
_OF_REDIS: Final = ("username", "password_env", "password_file", "role")
_DOES: Final = {
    "http": "an http check, which asks for a path",
    "tcp": "a tcp check, which only connects",
    "redis": "a redis check, which sends PING",
}
_EXPECTING: Final = ("expect_status", "expect_body", "expect_json")

# The seed's "Health Check Endpoints": path, then what the body has to be. Redis answers PONG, which is its protocol.
_WELL_KNOWN: Final = {
    "backend": ("/api/system/health", "", (JsonField("status", ('"healthy"',)),)),
    "ai-stack": ("/health", "", (JsonField("status", ('"ok"',)),)),
    "npu-worker": ("/health", "", (JsonField("status", ('"ready"',)),)),
    "frontend": ("/", r"/(?i)<(!doctype\s+html|html)\b/", ()),
}


def usual_path(name: str, scheme: str) -> str:
    """What is asked for where nobody says: the seed's path of a well-known name, else `/health`; `/` without HTTP."""
    if PROTOCOLS[scheme] != "http":
        return "/"
    return _WELL_KNOWN[name][0] if name in _WELL_KNOWN else "/health"


class HealthMerge:
    """Merges one upstream's layers. One use: `settings`.

    endpoint: its own `health_endpoint`, UNSET where it has none; known: what its name or scheme has built in.
    """

    __slots__ = ("_document", "_findings", "_keys", "_path", "_paths", "_scheme")

    def __init__(
        self,
        scheme: str,
        endpoint: str | UnsetType,
        known: str,
        document: Document,
        findings: Findings,
    ) -> None:
        self._scheme = scheme
        self._document = document
        self._findings = findings
        self._keys: dict[str, object] = {}
        self._path: KeyPath = ()
        self._paths = (known, endpoint)

    def settings(self, name: str, layers: Iterable[Layer]) -> HealthSettings:
        """The check of the upstream `name`. Later layers win, key by key."""
        active = False
        known, endpoint = self._paths
        for layer in layers:
            shared = isinstance(layer.keys, Defaults) and not isinstance(layer.keys, LoadBalancer)
            given = layer.keys.health_check
            if not isinstance(endpoint, UnsetType):
                self._keys["path"] = endpoint
            if isinstance(given, UnsetType):
                continue
            active = given is not False
            if not isinstance(given, bool):
                self._path = (*layer.path, "health_check")
                self._add(layer, given, shared=shared)
        kind = self._kind()
        others = [*(_OF_HTTP if kind != "http" else ()), *(_OF_REDIS if kind != "redis" else ())]
        keys = {key: value for key, value in self._keys.items() if key not in others}
        if "username" in keys and not {"password_env", "password_file"} & keys.keys():
            self._say("username", "needs its password; add password_env or password_file")
        path = str(keys.pop("path", known))
        expected, body, fields = _WELL_KNOWN.get(name, ("", "", ()))
        if kind == "http" and path == expected and not any(key in keys for key in _EXPECTING):
            keys |= {"expect_body": body, "expect_json": fields}
        keys.pop("type", None)
        return HealthSettings(kind=kind, path=path, active=active, **keys)  # type: ignore[arg-type] # the schema has read each as what it is

    def _add(self, layer: Layer, given: HealthCheck | str, *, shared: bool) -> None:
        """One layer's keys over those before."""
        check = HealthCheck(path=given) if isinstance(given, str) else given
        mine = {key: value for key, value in vars(check).items() if value is not UNSET}
        if isinstance(check.type, str) and not self._fits(check.type):
            if not shared:
                advice = f"its checks are {self._usual} or tcp"
                self._say("type", f"{check.type} means nothing for the scheme {self._scheme}; {advice}")
            del mine["type"]
        self._keys |= mine
        kind = self._kind()
        for key in (*_OF_HTTP, *_OF_REDIS):
            if key in mine and kind != ("http" if key in _OF_HTTP else "redis"):
                if not shared or "type" in mine:
                    self._refuse(key, kind, short=isinstance(given, str))
                del self._keys[key]
        self._check_pairs(layer, mine)

    def _refuse(self, key: str, kind: str, *, short: bool) -> None:
        what = _DOES[kind]
        if short:
            self._say("", f"a path means nothing for {what}; write true instead")
        else:
            self._say(key, f"means nothing for {what}; remove it")

    def _check_pairs(self, layer: Layer, mine: dict[str, object]) -> None:
        """Keys that contradict each other."""
        if "password_env" in mine and "password_file" in mine:
            self._say("password_file", "says the same as password_env beside it; keep one of the two")
        elif "password_env" in mine or "password_file" in mine:
            self._keys.pop("password_file" if "password_env" in mine else "password_env", None)
        interval = mine.get("interval")
        if isinstance(interval, float) and interval < SHORTEST:
            self._say("interval", f"{interval:g} s is too often; use {SHORTEST:g} s or more")
        endpoint = layer.keys.health_endpoint if isinstance(layer.keys, Service) else UNSET
        if "path" in mine and endpoint not in (UNSET, mine["path"]):
            self._say("path", "says another path than health_endpoint beside it; keep one of the two")

    def _kind(self) -> str:
        return str(self._keys.get("type", self._usual))

    @property
    def _usual(self) -> str:
        """The kind of check that the scheme has by itself."""
        return PROTOCOLS[self._scheme]

    def _fits(self, kind: str) -> bool:
        return kind in ("tcp", self._usual) or self._scheme in _OPAQUE

    def _say(self, key: str, problem: str) -> None:
        path = self._path
        if key and self._document.has((*path, key)):
            path = (*path, key)
        self._document.report(self._findings, path, problem)
