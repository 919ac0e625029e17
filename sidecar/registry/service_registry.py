"""`ServiceRegistry`: where services are, for applications that ask in Python instead of calling localhost."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from functools import cache
from itertools import cycle
from threading import Lock
from typing import TYPE_CHECKING, Any

from sidecar.balance.round_robin import lay_out
from sidecar.config import EndpointSettings, load_settings
from sidecar.config.settings import STATIC, UpstreamKind
from sidecar.net.unix import UNIX, is_unix
from sidecar.registry.service import ServiceConfig, ServiceStatus

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Self

    from sidecar.config import DeploymentMode, Settings, UpstreamSettings
    from sidecar.model import Endpoint
    from sidecar.registry.health import ServiceChecks, ServiceHealth
    from sidecar.registry.live import LiveServices

__all__ = ["ServiceRegistry", "get_service_registry", "get_service_url", "reset_service_registry"]


class ServiceRegistry:
    """The services of this process, and how they were when they were last asked. Threads may share it.

    config_file: a YAML file; None looks for the deployment mode's, then takes the built-in services.
    external_registry: a registry to ask, such as `{"type": "consul", "host": "consul.example:8500"}`, or several, in
    place of the file's; in the file's shape, with relative file names at the working directory.
    environ: the variables to go by; None is the process's environment.
    quiet: in a program that has set up no logging, warnings about registries go nowhere instead of to stderr.

    Where services come from registries a thread follows those, from now until `close`, or until this object is
    collected or the program ends, which waits 2 s for it at most. Only methods that say so wait for a registry: the
    others go by what it said last, before its first word by what the file names, if the service's `source` has that.

    Raises `ConfigurationError` with every finding.
    """

    def __init__(
        self,
        config_file: str | os.PathLike[str] | None = None,
        external_registry: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        quiet: bool = False,
    ) -> None:
        self._environ = os.environ if environ is None else environ
        settings = load_settings(config_file, environ=self._environ, external_registry=external_registry)
        # A router is a port of the sidecar's, and nothing that anybody else serves.
        services = tuple(one for one in settings.upstreams if one.kind is not UpstreamKind.ROUTER)
        self._settings = replace(settings, upstreams=services)
        self._checks: ServiceChecks | None = None
        self._checks_lock = Lock()
        # next() on a cycle is one step of the interpreter, so threads share a rotation without a lock.
        self._rotations = {
            upstream.name: _rotation(upstream)
            for upstream in self._settings.upstreams
            if upstream.source.is_static
        }
        if self._settings.registry_debug:
            _show_debugging()
        _explain(self._settings)
        self._live: LiveServices | None = None
        if len(self._rotations) < len(self._settings.upstreams):
            from sidecar.registry.live import LiveServices  # noqa: PLC0415 - what is not needed is not loaded

            if quiet:  # before anybody is asked
                _hush()
            self._live = LiveServices(self._settings, self._environ)
            self._live.ends_with(self)

    def close(self) -> None:
        """Follow registries no more. What is known stays, so that all methods still answer."""
        if self._live is not None:
            self._live.close()

    async def aclose(self) -> None:
        """`close`, for a coroutine."""
        if self._live is not None:
            await self._live.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def wait_until_ready(
        self, timeout: float | None = None, *, name: str | None = None, fresh: bool = False
    ) -> bool:
        """Wait until registries have said for the first time what services consist of. Whether they have.

        timeout: seconds, at most; None is `sidecar.registry_wait`. name: only this service. fresh: what was known
        before this process was there does not do. At once where no registry is asked.

        Raises `UnknownUpstreamError`.
        """
        live = self._asking(name)
        return live is None or live.wait(self._patience(timeout), name, fresh=fresh)

    async def until_ready(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 - its end is no error
        *,
        name: str | None = None,
        fresh: bool = False,
    ) -> bool:
        """`wait_until_ready`, for a coroutine."""
        live = self._asking(name)
        return live is None or await live.until_ready(self._patience(timeout), name, fresh=fresh)

    def _asking(self, name: str | None) -> LiveServices | None:
        """Who asks registries for a service, or for any of them."""
        if name is not None and self._settings.upstream(name).source.is_static:
            return None
        return self._live

    def _patience(self, timeout: float | None) -> float:
        return self._settings.sidecar.registry_wait if timeout is None else timeout

    @property
    def deployment_mode(self) -> DeploymentMode:
        """The deployment mode, given or detected."""
        return self._settings.mode

    def list_services(self) -> list[str]:
        """Names of services, then load balancers, in file order."""
        return [upstream.name for upstream in self._settings.upstreams]

    def get_service_config(self, name: str) -> ServiceConfig:
        """What is known of a service. Raises `UnknownUpstreamError`, and `NoEndpointsError` as `get_service_url`."""
        upstream = self._as_it_is(self._settings.upstream(name))
        if not upstream.endpoints:
            assert self._live is not None
            raise self._live.nobody(name)
        return _config(upstream)

    def get_service_url(self, name: str, path: str = "") -> str:
        """`scheme://host:port`, then `path` after exactly one slash.

        Of a unix socket it is `http+unix://%2Frun%2Fapp.sock`, then the path; for redis and tcp `unix:///run/app.sock`.

        A load balancer's endpoints take turns, by weight. What a registry knows is balanced as the sidecar does, by the
        strategy and zones of the configuration, and one whose breaker checks have opened (`check_service_health`) is
        passed over while there are others.

        Raises `UnknownUpstreamError`, and `NoEndpointsError` where a registry has not named any endpoint yet, or has
        none.
        """
        upstream = self._settings.upstream(name)
        if self._live is None or name not in self._live:
            url = _url(upstream, str(next(self._rotations[name])), path)
            _debug("%s is %s", name, url)
            return url
        refused = frozenset() if self._checks is None else self._checks.refused(name)
        url = _url(upstream, self._live.pick(name, path, refused).address, path)
        if _debugging():
            _debug("%s is %s%s", name, url, " (stale)" if self._live.is_stale(name) else "")
        return url

    async def check_service_health(self, name: str) -> ServiceHealth:
        """Ask a service now whether it is well, as its `health_check` says, or else at its `health_endpoint`.

        The fifth failure in a row (`circuit_breaker_threshold`) opens this registry's breaker of the endpoint: until
        its time is over (`circuit_breaker_timeout`) the answer is CIRCUIT_OPEN, and nobody is asked; then one check
        decides. Raises `UnknownUpstreamError`.
        """
        upstream = self._as_it_is(self._settings.upstream(name))
        health = self._with_reason(name, await self._health_checks().check(upstream))
        _debug("%s is %s%s", name, health.status.value, f": {health.error}" if health.error else "")
        return health

    async def check_all_services_health(self) -> dict[str, ServiceHealth]:
        """`check_service_health` of all services and load balancers at the same time, by name in file order."""
        found = await self._health_checks().check_all(map(self._as_it_is, self._settings.upstreams))
        return {name: self._with_reason(name, health) for name, health in found.items()}

    def _with_reason(self, name: str, health: ServiceHealth) -> ServiceHealth:
        """Why a service without endpoints has none."""
        if health.endpoints or self._live is None:
            return health
        return replace(health, error=self._live.nobody(name).problem)

    def get_deployment_info(self) -> dict[str, Any]:
        """An overview as plain data: deployment_mode, domain, services_count, and services by name.

        A service has url, host, port, scheme, health, health_endpoint, timeout, circuit_breaker_threshold,
        circuit_breaker_timeout, retries, endpoints as host:port, source (`static`, or the names of registries), and
        stale, which says whether a registry that it depends on errs or is silent. Health is what the last check in this
        process found, `unknown` before the first. While no endpoint is known, url and host are empty and port is 0.
        """
        services: dict[str, dict[str, Any]] = {}
        for settings in self._settings.upstreams:
            upstream = self._as_it_is(settings)
            live = None if settings.source.is_static else self._live
            config = _config(upstream)
            services[upstream.name] = {
                "url": _url(upstream, str(upstream.endpoints[0])) if upstream.endpoints else "",
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
                "source": STATIC if live is None else live.source(upstream.name),
                "stale": live is not None and live.is_stale(upstream.name),
            }
        return {
            "deployment_mode": self._settings.mode.value,
            "domain": self._settings.domain,
            "services_count": len(services),
            "services": services,
        }

    def _as_it_is(self, upstream: UpstreamSettings) -> UpstreamSettings:
        """The service with the endpoints that it has now."""
        if self._live is None or upstream.name not in self._live:
            return upstream
        return replace(upstream, endpoints=tuple(map(_settings_of, self._live.endpoints(upstream.name))))

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
    """Close and forget the registry of this process, so that the next use makes it anew; for tests."""
    with _process.lock:
        registry, _process.registry = _process.registry, None
    if registry is not None:
        registry.close()


def get_service_url(name: str, path: str = "") -> str:
    """`ServiceRegistry.get_service_url` of this process's registry."""
    return get_service_registry().get_service_url(name, path)


def _rotation(upstream: UpstreamSettings) -> Iterator[EndpointSettings]:
    order = lay_out([endpoint.weight for endpoint in upstream.endpoints])
    return cycle([upstream.endpoints[index] for index in order])


def _settings_of(endpoint: Endpoint) -> EndpointSettings:
    return EndpointSettings(endpoint.host, endpoint.port, endpoint.weight, endpoint.zone)


def _config(upstream: UpstreamSettings) -> ServiceConfig:
    """What is known of a service; of one without endpoints neither host nor port."""
    policy = upstream.policy
    first = upstream.endpoints[0] if upstream.endpoints else None
    return ServiceConfig(
        name=upstream.name,
        host=first.host if first else "",
        port=first.port if first else 0,
        scheme=upstream.scheme,
        health_endpoint=upstream.health_endpoint,
        timeout=_plain(policy.timeout),
        circuit_breaker_threshold=policy.breaker.consecutive_failures,
        circuit_breaker_timeout=_plain(policy.breaker.max_open_for),
        retries=policy.retries,
    )


def _url(upstream: UpstreamSettings, address: str, path: str = "") -> str:
    if is_unix(address):
        return _unix_url(upstream, address.removeprefix(UNIX), path)
    base = f"{upstream.scheme}://{address}"
    return f"{base}/{path.lstrip('/')}" if path else base


def _unix_url(upstream: UpstreamSettings, socket: str, path: str) -> str:
    """No scheme is registered for these: as requests-unixsocket and Docker's clients spell it, and as redis-py does."""
    if not upstream.per_request:
        return f"unix://{socket}"
    base = f"http+unix://{socket.replace('%', '%25').replace('/', '%2F').replace(':', '%3A').replace('@', '%40')}"
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


def _debugging() -> bool:
    return "logging" in sys.modules and _log().isEnabledFor(10)  # DEBUG


def _show_debugging() -> None:
    from logging import DEBUG, StreamHandler  # noqa: PLC0415 - see `_debug`

    log = _log()
    log.setLevel(DEBUG)
    if not log.hasHandlers():  # an application that has set up no logging asked to see this all the same
        log.addHandler(StreamHandler())


def _hush() -> None:
    from logging import NullHandler  # noqa: PLC0415 - see `_debug`

    log = _log()
    if not log.hasHandlers():  # Python writes warnings to stderr then
        log.addHandler(NullHandler())


def _explain(settings: Settings) -> None:
    _debug("deployment mode %s (%s)", settings.mode.value, settings.mode_reason)
    _debug("services from %s, domain %s", settings.origin, settings.domain or "none")
    _debug("environment overrides: %s", ", ".join(settings.overrides) or "none")
    for note in settings.notes:
        _debug("note: %s", note)
    for upstream in settings.upstreams:
        source, places = upstream.source, ", ".join(map(str, upstream.endpoints))
        if source.is_static:
            _debug("%s is at %s", upstream.name, places)
            continue
        port = f", every endpoint at port {source.override_port}" if source.override_port else ""
        _debug("%s is looked for in %s%s", upstream.name, ", ".join(source.use), port)
