"""What environment variables change: the general ones, and those that each upstream's name gives.

Empty variables count as unset, since that is what `${REDIS_HOST:-}` in a compose file makes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypeVar

from sidecar.config.findings import SHOWN, Findings, shown
from sidecar.config.rules import PORT, Authority, HostName, Mode, Rule, Unusable, ZoneName
from sidecar.config.schema import MAX_HOSTS, RETRIES, SECONDS, THRESHOLD, Policy
from sidecar.config.settings import Address
from sidecar.config.socket_rules import EndpointHost
from sidecar.config.unset import UNSET, UnsetType
from sidecar.net.unix import is_unix

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sidecar.config.settings import DeploymentMode

__all__ = ["SOURCE", "Environment", "prefix"]

SOURCE: Final = "environment"

T = TypeVar("T")

_TRUE: Final = frozenset(("1", "true", "yes", "on"))
_FALSE: Final = frozenset(("0", "false", "no", "off"))
_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_SUFFIXES: Final = (
    "HOST",
    "PORT",
    "HOSTS",
    "TIMEOUT",
    "RETRIES",
    "CIRCUIT_BREAKER_THRESHOLD",
    "CIRCUIT_BREAKER_TIMEOUT",
)
_SECRET_NAMES: Final = ("PASSWORD", "TOKEN", "SECRET")


def prefix(name: str) -> str:
    """What the variables of an upstream begin with: `ai-stack` gives `AI_STACK`."""
    return re.sub(r"[^A-Z0-9]", "_", name.upper())


class Environment:
    """Reads variables by rule. `used` lists those that changed an upstream, `notes` what was passed over."""

    __slots__ = ("_environ", "_findings", "notes", "used")

    def __init__(self, environ: Mapping[str, str], findings: Findings) -> None:
        self._environ = environ
        self._findings = findings
        self.notes: list[str] = []
        self.used: list[str] = []

    def mode(self) -> DeploymentMode | UnsetType:
        """AUTOBOT_DEPLOYMENT_MODE."""
        return self._read("AUTOBOT_DEPLOYMENT_MODE", Mode())

    def zone(self) -> str | UnsetType:
        """AUTOBOT_ZONE."""
        return self._read("AUTOBOT_ZONE", ZoneName())

    def domain(self) -> str | UnsetType:
        """AUTOBOT_DOMAIN."""
        return self._read("AUTOBOT_DOMAIN", HostName())

    def log_level(self) -> str:
        """AUTOBOT_LOG_LEVEL in capitals; INFO when unset."""
        text = self._text("AUTOBOT_LOG_LEVEL").upper()
        if not text:
            return "INFO"
        if text not in _LEVELS:
            self._unusable("AUTOBOT_LOG_LEVEL", f"is no log level; use one of: {' '.join(_LEVELS)}")
        return text

    def flag(self, name: str) -> bool:
        """A boolean variable; False when unset."""
        text = self._text(name).lower()
        if text and text not in _TRUE | _FALSE:
            self._unusable(name, "is neither true nor false; use one of: 1 true yes on 0 false no off")
        return text in _TRUE

    def policy(self, upstream: str) -> Policy:
        """The policy keys that the environment gives an upstream, in the file's shape."""
        start = prefix(upstream)
        return Policy(
            timeout=self._override(f"{start}_TIMEOUT", SECONDS),
            retries=self._override(f"{start}_RETRIES", RETRIES),
            circuit_breaker_threshold=self._override(f"{start}_CIRCUIT_BREAKER_THRESHOLD", THRESHOLD),
            circuit_breaker_timeout=self._override(f"{start}_CIRCUIT_BREAKER_TIMEOUT", SECONDS),
        )

    def host(self, service: str) -> str | UnsetType:
        """Where a service really is."""
        self._other_kind(f"{prefix(service)}_HOSTS", f"{service} is a service", f"{prefix(service)}_HOST")
        return self._override(f"{prefix(service)}_HOST", EndpointHost())

    def port(self, service: str) -> int | UnsetType:
        """The port a service really has.

        Kubernetes gives every pod a variable `REDIS_PORT=tcp://10.0.0.1:6379` for a Service called redis
        (its "Docker links compatible" variables): not meant for the sidecar, passed over with a note.
        """
        name = f"{prefix(service)}_PORT"
        if self._text(name).startswith(("tcp://", "udp://", "sctp://")):
            self.notes.append(f"{name} is a Kubernetes service link, not a port number, and was ignored")
            return UNSET
        return self._override(name, PORT)

    def lacks_port(self, service: str) -> None:
        """Find that `host` says where a service is, and nobody says on which port."""
        start = prefix(service)
        problem = f"says where {service} is, but neither the file nor {start}_PORT says on which port"
        self._findings.add(SOURCE, 0, f"{start}_HOST", problem)

    def hosts(self, balancer: str) -> tuple[Address, ...] | UnsetType:
        """Where a load balancer's endpoints really are: comma-separated host:port, or `unix:PATH` (port 0)."""
        name = f"{prefix(balancer)}_HOSTS"
        self._other_kind(f"{prefix(balancer)}_HOST", f"{balancer} is a load balancer", name)
        text = self._text(name)
        if not text:
            return UNSET
        parts = text.split(",")
        if len(parts) > MAX_HOSTS:
            self._findings.add(SOURCE, 0, name, f"names {len(parts)} hosts; {MAX_HOSTS} is the most")
            return UNSET
        addresses: list[Address] = []
        for part in parts:
            try:
                address = _address(part.strip())
            except Unusable:
                self._unusable(
                    name, "is no list of host:port; separate them by commas, IPv6 hosts in brackets"
                )
                return UNSET
            if address in addresses:
                self._findings.add(SOURCE, 0, name, f"names {address} twice; name each endpoint once")
                return UNSET
            addresses.append(address)
        self.used.append(name)
        return tuple(addresses)

    def check_names(self, upstreams: Iterable[str]) -> None:
        """Find upstreams whose variables cannot be told apart, such as those of a-b and a_b."""
        owners: dict[str, str] = {}
        for upstream in upstreams:
            for suffix in _SUFFIXES:
                variable = f"{prefix(upstream)}_{suffix}"
                owner = owners.setdefault(variable, upstream)
                if owner != upstream:
                    problem = f"would belong to both {owner} and {upstream}; rename one of them in the file"
                    self._findings.add(SOURCE, 0, variable, problem)
                    break

    def _override(self, name: str, rule: Rule[T]) -> T | UnsetType:
        value = self._read(name, rule)
        if value is not UNSET:
            self.used.append(name)
        return value

    def _read(self, name: str, rule: Rule[T]) -> T | UnsetType:
        text = self._text(name)
        if not text:
            return UNSET
        try:
            return rule.from_text(text)
        except Unusable as problem:
            told = str(problem)
            # Rules quote through `shown` alone, so this takes out every trace of the value.
            told = told.replace(shown(text), "its value") if _secret(name, text) else told
            self._findings.add(SOURCE, 0, name, told)
            return UNSET

    def _text(self, name: str) -> str:
        return self._environ.get(name, "").strip()

    def _other_kind(self, name: str, what: str, instead: str) -> None:
        if self._text(name):
            self.notes.append(f"{name} was ignored: {what}, its variable is {instead}")

    def _unusable(self, name: str, problem: str) -> None:
        text = self._text(name)
        value = "its value" if _secret(name, text) else shown(text)
        self._findings.add(SOURCE, 0, name, f"{value} {problem}")


def _address(text: str) -> Address:
    """Raises Unusable."""
    return Address(EndpointHost().from_text(text), 0) if is_unix(text) else Authority().from_text(text)


def _secret(name: str, text: str) -> bool:
    """True for what a message must not repeat: long values, telling names, and `user:password@host`."""
    return len(text) > SHOWN or "@" in text or any(word in name for word in _SECRET_NAMES)
