"""`ServiceRegistry`: where services are, for applications that ask in Python instead of calling localhost."""

from __future__ import annotations

import os
import sys
from functools import cache
from itertools import cycle
from threading import Lock
from typing import TYPE_CHECKING, Any

from sidecar.balance.round_robin import lay_out
from sidecar.config import load_settings
from sidecar.errors import ConfigurationError
from sidecar.registry.service import ServiceConfig, ServiceStatus

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterator, Mapping

    from sidecar.config import DeploymentMode, EndpointSettings, Settings, UpstreamSettings
    from sidecar.registry.health import ServiceChecks, ServiceHealth

__all__ = ["ServiceRegistry", "get_service_registry", "get_service_url", "reset_service_registry"]


class ServiceRegistry:
    """The resolved services of this process, and how they were when they were last asked. Threads may share it.

    config_file: a YAML file; None looks for the deployment mode's, then takes the built-in services.
    external_registry: a registry to ask, such as `{"type": "consul", "host": "consul.example:8500"}`;
    not supported yet.
    environ: the variables to go by; None is the process's environment.

    Raises `ConfigurationError` with every finding.
    """

    def __init__(
        self,
        config_file: str | os.PathLike[str] | None = None,
        external_registry: Mapping[str, Any] | None = None,
        *,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        if external_registry is not None:
            what = "external_registry is not supported yet"
            raise ConfigurationError([f"ServiceRegistry: {what}; remove it (planned: external registries)"])
        self._environ = os.environ if environ is None else environ
        self._settings = load_settings(config_file, environ=self._environ)
        self._checks: ServiceChecks | None = None
        self._checks_lock = Lock()
        # next() on a cycle is one step of the interpreter, so threads share a rotation without a lock.
        self._rotations = {upstream.name: _rotation(upstream) for upstream in self._settings.upstreams}
        if self._settings.registry_debug:
            _show_debugging()
        _explain(self._settings)

    @property
    def deployment_mode(self) -> DeploymentMode:
        """The deployment mode, given or detected."""
        return self._settings.mode

    def list_services(self) -> list[str]:
        """Names of services, then load balancers, in file order."""
        return [upstream.name for upstream in self._settings.upstreams]

    def get_service_config(self, name: str) -> ServiceConfig:
        """What is known of a service. Raises `UnknownUpstreamError`."""
        upstream = self._settings.upstream(name)
        policy = upstream.policy
        return ServiceConfig(
            name=upstream.name,
            host=upstream.endpoints[0].host,
            port=upstream.endpoints[0].port,
            scheme=upstream.scheme,
            health_endpoint=upstream.health_endpoint,
            timeout=_plain(policy.timeout),
            circuit_breaker_threshold=policy.breaker.consecutive_failures,
            circuit_breaker_timeout=_plain(policy.breaker.max_open_for),
            retries=policy.retries,
        )

    def get_service_url(self, name: str, path: str = "") -> str:
        """`scheme://host:port`, then `path` after exactly one slash. Raises `UnknownUpstreamError`.

        A load balancer's endpoints take turns, by weight.
        """
        upstream = self._settings.upstream(name)
        url = _url(upstream, next(self._rotations[name]), path)
        _debug("%s is %s", name, url)
        return url

    async def check_service_health(self, name: str) -> ServiceHealth:
        """Ask a service now whether it is well, as its `health_check` says, or else at its `health_endpoint`.

        The fifth failure in a row (`circuit_breaker_threshold`) opens this registry's breaker of the endpoint: until
        its time is over (`circuit_breaker_timeout`) the answer is CIRCUIT_OPEN, and nobody is asked; then one check
        decides. Raises `UnknownUpstreamError`.
        """
        health = await self._health_checks().check(self._settings.upstream(name))
        _debug("%s is %s%s", name, health.status.value, f": {health.error}" if health.error else "")
        return health

    async def check_all_services_health(self) -> dict[str, ServiceHealth]:
        """`check_service_health` of all services and load balancers at the same time, by name in file order."""
        return await self._health_checks().check_all(self._settings.upstreams)

    def get_deployment_info(self) -> dict[str, Any]:
        """An overview as plain data: deployment_mode, domain, services_count, and services by name.

        A service has url, host, port, scheme, health, health_endpoint, timeout, circuit_breaker_threshold,
        circuit_breaker_timeout, retries, and endpoints as host:port. Health is what the last check in this process
        found, `unknown` before the first.
        """
        services: dict[str, dict[str, Any]] = {}
        for upstream in self._settings.upstreams:
            config = self.get_service_config(upstream.name)
            services[upstream.name] = {
                "url": _url(upstream, upstream.endpoints[0]),
                "host": config.host,
                "port": config.port,
                "scheme": config.scheme,
                "health": self._last_status(upstream.name).value,
                "health_endpoint": config.health_endpoint,
                "timeout": config.timeout,
                "circuit_breaker_threshold": config.circuit_breaker_threshold,
                "circuit_breaker_timeout": config.circuit_breaker_timeout,
                "retries": config.retries,
                "endpoints": [str(endpoint) for endpoint in upstream.endpoints],
            }
        return {
            "deployment_mode": self._settings.mode.value,
            "domain": self._settings.domain,
            "services_count": len(services),
            "services": services,
        }

    def _last_status(self, name: str) -> ServiceStatus:
        return ServiceStatus.UNKNOWN if self._checks is None else self._checks.last(name)

    def _health_checks(self) -> ServiceChecks:
        """What asks, made at first use: it needs an event loop and more, which an address does not."""
        from sidecar.registry.health import ServiceChecks  # noqa: PLC0415 - see above

        with self._checks_lock:
            if self._checks is None:
                self._checks = ServiceChecks(self._environ)
            return self._checks


class _Process:
    """Holds the one registry of this process, which the seed's module functions ask for."""

    __slots__ = ("lock", "registry")

    def __init__(self) -> None:
        self.lock = Lock()
        self.registry: ServiceRegistry | None = None


_process = _Process()


def get_service_registry() -> ServiceRegistry:
    """The registry of this process, made at first use from its environment and working directory."""
    with _process.lock:
        if _process.registry is None:
            _process.registry = ServiceRegistry()
        return _process.registry


def reset_service_registry() -> None:
    """Forget the registry of this process, so that the next use makes it anew; for tests."""
    with _process.lock:
        _process.registry = None


def get_service_url(name: str, path: str = "") -> str:
    """`ServiceRegistry.get_service_url` of this process's registry."""
    return get_service_registry().get_service_url(name, path)


def _rotation(upstream: UpstreamSettings) -> Iterator[EndpointSettings]:
    order = lay_out([endpoint.weight for endpoint in upstream.endpoints])
    return cycle([upstream.endpoints[index] for index in order])


def _url(upstream: UpstreamSettings, endpoint: EndpointSettings, path: str = "") -> str:
    base = f"{upstream.scheme}://{endpoint}"
    return f"{base}/{path.lstrip('/')}" if path else base


def _plain(seconds: float) -> float:
    """Whole seconds as the seed's integers, so that they print as 30 and not 30.0."""
    return int(seconds) if seconds == int(seconds) else seconds


@cache
def _log() -> logging.Logger:
    import logging  # noqa: PLC0415 - see `_debug`

    return logging.getLogger("sidecar.registry")


def _debug(message: str, *values: object) -> None:
    # Where nobody has loaded logging nobody listens; loading it would be a tenth of what `sidecar url` takes.
    if "logging" in sys.modules:
        _log().debug(message, *values, stacklevel=2)


def _show_debugging() -> None:
    from logging import DEBUG, StreamHandler  # noqa: PLC0415 - see `_debug`

    log = _log()
    log.setLevel(DEBUG)
    if not log.hasHandlers():  # an application that has set up no logging asked to see this all the same
        log.addHandler(StreamHandler())


def _explain(settings: Settings) -> None:
    _debug("deployment mode %s (%s)", settings.mode.value, settings.mode_reason)
    _debug("services from %s, domain %s", settings.origin, settings.domain or "none")
    _debug("environment overrides: %s", ", ".join(settings.overrides) or "none")
    for note in settings.notes:
        _debug("note: %s", note)
    for upstream in settings.upstreams:
        _debug("%s is at %s", upstream.name, ", ".join(map(str, upstream.endpoints)))
