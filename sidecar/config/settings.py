"""What the rest of the program works with: the resolved configuration, decided once and frozen.

Nothing here is optional in the sense of "look it up elsewhere": defaults, the file, the environment and the
flags have been merged, durations are seconds and sizes are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from sidecar.config.doors import (
    ClientTlsSettings,
    HeaderSettings,
    ListenerSettings,
    MeshSettings,
    MirrorSettings,
    RateSettings,
    RouteSettings,
)
from sidecar.config.findings import meant
from sidecar.errors import UnknownUpstreamError
from sidecar.net.unix import is_unix

__all__ = [
    "DETAILS",
    "PROTOCOLS",
    "STATIC",
    "STDOUT",
    "AccessLogSettings",
    "Address",
    "BreakerSettings",
    "DeploymentMode",
    "EndpointSettings",
    "HealthSettings",
    "JsonField",
    "LastGoodSettings",
    "LimitSettings",
    "PolicySettings",
    "RegistrationSettings",
    "RegistrySettings",
    "Settings",
    "SidecarSettings",
    "SourceSettings",
    "TlsSettings",
    "TracingSettings",
    "UpstreamKind",
    "UpstreamSettings",
]


# What each scheme is with TLS taken off.
PROTOCOLS = {"http": "http", "https": "http", "redis": "redis", "rediss": "redis", "tcp": "tcp", "tls": "tcp"}


class DeploymentMode(Enum):
    """Where the services run. It decides which built-in addresses the well-known services have."""

    LOCAL = "local"
    DOCKER_LOCAL = "docker_local"
    DISTRIBUTED = "distributed"
    KUBERNETES = "kubernetes"


class UpstreamKind(Enum):
    """Which section of the file an upstream comes from: one address, several to balance over, or other upstreams."""

    SERVICE = "service"
    LOAD_BALANCER = "load_balancer"
    ROUTER = "router"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is. Of the sidecar's own ones port 0 takes any free port; a unix socket (`unix:PATH`) has none."""

    host: str
    port: int

    def __str__(self) -> str:
        """`host:port`, an IPv6 host in brackets (RFC 3986 section 3.2.2); or `unix:PATH`."""
        if is_unix(self.host):
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """One host and port that serves an upstream, or `unix:PATH` and 0. weight: 1 to 256, its share."""

    host: str
    port: int
    weight: int = 1
    zone: str = ""

    def __str__(self) -> str:
        """`host:port`, an IPv6 host in brackets; or `unix:PATH`."""
        return str(Address(self.host, self.port))


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """When an endpoint is left alone, and for how long.

    open_for: seconds of the first opening; it doubles with each opening in a row up to max_open_for.
    jitter: the spread of an opening, as a share of it; 0 for the seed's fixed `circuit_breaker_timeout`.
    failure_rate: the share of failures, 0 to 1, above which it opens; 0 is off. min_requests, window: of how many
        attempts at least, in how many seconds.
    failure_statuses: what counts as the endpoint's failure: `500` to `599`, and `5xx` for all of them.
    observe_only: it moves and is counted, and keeps nobody away.
    """

    consecutive_failures: int = 5
    open_for: float = 1.0
    max_open_for: float = 60.0
    jitter: float = 0.5
    failure_rate: float = 0.5
    min_requests: int = 20
    window: float = 10.0
    failure_statuses: tuple[str, ...] = ("502", "503", "504")
    observe_only: bool = False


@dataclass(frozen=True, slots=True)
class OutlierSettings:
    """How many endpoints may be out of rotation at once.

    max_ejected: a share of them. min_available: how many must be left. panic: when it should be more, `all` are used,
    or requests `fail` when none is left.
    """

    max_ejected: float = 0.5
    min_available: int = 1
    panic: str = "all"


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """What is tried again, see `UpstreamPolicy`.

    on: `connect`, `reset`, `timeout`, and statuses. ratio, least: of the budget. base, longest: seconds to wait before
    an endpoint is tried again, doubling up to the longest; a base of 0 is not at all.
    """

    on: tuple[str, ...] = ("connect", "reset")
    ratio: float = 0.2
    least: int = 3
    base: float = 0.025
    longest: float = 0.25


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """Bounds of one upstream: connections and requests that wait for one, bytes of a head.

    connections_per_endpoint: 0 is no other bound than connections. pending_timeout: seconds; as long as connecting
        may take by default, which is what it stands for, and what HAProxy's `timeout queue` falls back to.
    in_flight: requests and sessions at once, those that wait included; 0 is off.
    """

    connections: int = 1024
    connections_per_endpoint: int = 0
    pending: int = 1024
    pending_timeout: float = 1.0
    in_flight: int = 0
    request_head: int = 65536
    response_head: int = 65536


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """How requests or sessions of one upstream are treated. All times in seconds.

    idle_timeout: of a pooled connection (http; 3 s, since uvicorn closes at 5 and others later, and the side
    that closes should be this one) or of a whole session (redis, tcp; 0 means never).
    continue_timeout: how long a client that sent Expect: 100-continue waits for the endpoint's word.
    tunnel_idle_timeout: of a connection that has switched protocols; 0 means never.
    host_header: `endpoint`, `preserve`, or the very value to send.
    hedge_after: how long without an answer until another endpoint is asked too; 0 is never.
    per_try_timeout: how long one attempt may take until its response begins; 0 is as long as `timeout` lets it.
    close_on_unhealthy: sessions and tunnels end when their endpoint leaves the rotation.
    slow_start: how long a new or recovered endpoint takes to get its whole share; 0 is at once.
    deadline_header: where a request says how many milliseconds it may take; empty is nowhere.
    proxy_protocol: version of the PROXY header that endpoints are sent; 0 is none.
    """

    timeout: float = 30.0
    connect_timeout: float = 1.0
    idle_timeout: float = 3.0
    continue_timeout: float = 1.0
    tunnel_idle_timeout: float = 0.0
    retries: int = 1
    host_header: str = "endpoint"
    close_on_unhealthy: bool = False
    slow_start: float = 0.0
    per_try_timeout: float = 0.0
    hedge_after: float = 0.0
    deadline_header: str = ""
    retry: RetrySettings = field(default_factory=RetrySettings)
    proxy_protocol: int = 0
    tls: ClientTlsSettings = field(default_factory=ClientTlsSettings)
    headers: HeaderSettings = field(default_factory=HeaderSettings)
    rate_limit: RateSettings = field(default_factory=RateSettings)
    mirror: MirrorSettings = field(default_factory=MirrorSettings)
    breaker: BreakerSettings = field(default_factory=BreakerSettings)
    outlier: OutlierSettings = field(default_factory=OutlierSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)


@dataclass(frozen=True, slots=True)
class JsonField:
    """What one field of a JSON answer may hold.

    name: the way to it, with dots between objects (or positions in a list). accepted: values as JSON texts.
    """

    name: str
    accepted: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HealthSettings:
    """How an upstream's endpoints are asked whether they are well. Times in seconds; defaults as in behaviour.md.

    kind: `http`, `tcp` or `redis`. path: what an http check asks for.
    active: the running sidecar checks by itself; else only who asks for a check gets one.
    interval: between two checks of one endpoint. rise, fall: see `resilience.Breaker`.
    expect_status: (lowest, highest) of each range that is fine. expect_body: text that the body has to hold, or a
        regular expression between slashes; empty for any. expect_json: every one of them has to fit.
    username, password_env, password_file: of a redis check; the secret itself is in no setting.
    role: `master` or `replica`, which a redis endpoint has to be; empty for any.
    """

    kind: str = "http"
    path: str = "/health"
    active: bool = False
    interval: float = 5.0
    timeout: float = 2.0
    rise: int = 2
    fall: int = 3
    expect_status: tuple[tuple[int, int], ...] = ((200, 299),)
    expect_body: str = ""
    expect_json: tuple[JsonField, ...] = ()
    username: str = ""
    password_env: str = ""
    password_file: str = ""
    role: str = ""


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """How a registry is spoken to.

    enabled: over TLS at all. ca: a file of certificates to trust; empty for the system's. cert, key: files to show to
    a server that asks; empty for none. server_name: in place of the host's, in SNI and in verification. verify: False
    takes any certificate.
    """

    enabled: bool = False
    ca: str = ""
    cert: str = ""
    key: str = ""
    server_name: str = ""
    verify: bool = True


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """One entry of `external_registry`: where snapshots come from.

    name: what `source:` calls it, by default its kind. kind: `consul`, `etcd`, `kubernetes`, `dns` or `file`.
    hosts: where it is, in the order of preference; port 0 is the kind's usual one. None where the kind finds it.
    keep_empty: an explicit empty answer changes nothing (`on_empty: keep`).
    stale_after: seconds without a word from it, after which it counts as stale.
    tls, token_env, token_file, username, password_env, password_file: how it is spoken to; secrets are in no setting.
    datacenter: consul's; empty for the agent's own. prefix: etcd's, under which services are, without a slash at its
    end. namespace, kubeconfig, context: kubernetes's; empty for what the pod or the file says. path: the file's.
    """

    name: str
    kind: str
    hosts: tuple[Address, ...] = ()
    keep_empty: bool = False
    stale_after: float = 60.0
    tls: TlsSettings = field(default_factory=TlsSettings)
    token_env: str = ""
    token_file: str = ""
    username: str = ""
    password_env: str = ""
    password_file: str = ""
    datacenter: str = ""
    prefix: str = "/services"
    namespace: str = ""
    kubeconfig: str = ""
    context: str = ""
    path: str = ""


STATIC = "static"  # the source that the file itself is


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """Where one upstream's endpoints come from.

    use: names of registries, and `static` for what the file says. merge: all of them together; else the first of them
    that has any.
    service: what the registries call it; empty for the upstream's own name (dns: for its host names).
    port: a number or a name, of endpoints for which a registry knows several or none; empty for the only one, or the
    upstream's own. tags, datacenter: consul's. namespace: kubernetes's, empty for the registry's.
    override_port: what the environment says, whatever a registry does; 0 for nothing.
    """

    use: tuple[str, ...] = (STATIC,)
    merge: bool = False
    service: str = ""
    port: str = ""
    tags: tuple[str, ...] = ()
    datacenter: str = ""
    namespace: str = ""
    override_port: int = 0

    @property
    def is_static(self) -> bool:
        """Whether nobody has to be asked."""
        return self.use == (STATIC,)


@dataclass(frozen=True, slots=True)
class RegistrationSettings:
    """One entry of `register`: a local service to announce while it is well.

    name: as which service. registry: the name of a consul or etcd registry. host, port: where others reach it; an empty
    host is found (`registry/own_host.py`). identity: which one of the service's it is; empty for name, host and port.
    check: how it is asked whether it is well, at check_host.
    ttl: seconds after which it is forgotten when this sidecar says nothing more.
    """

    name: str
    registry: str
    host: str
    port: int
    identity: str
    check: HealthSettings
    check_host: str = "127.0.0.1"
    weight: int = 1
    zone: str = ""
    tags: tuple[str, ...] = ()
    ttl: float = 15.0


@dataclass(frozen=True, slots=True)
class LastGoodSettings:
    """Where the last good snapshots are kept. file: empty for nowhere. max_age: seconds until they are too old."""

    file: str = ""
    max_age: float = 86400.0

    def __str__(self) -> str:
        """For messages."""
        return f"{self.file or 'nowhere'} ({self.max_age:g} s)"


STDOUT = "stdout"  # the access log's name of where the process writes by itself

# How much of it the metrics tell: of upstreams alone; of endpoints what is a contract; of endpoints everything.
DETAILS = ("low", "normal", "endpoint")


@dataclass(frozen=True, slots=True)
class AccessLogSettings:
    """Where each request and each session is written down, one JSON line at its end.

    file: `stdout`, or a path; empty for nowhere. sample: the share of those that went well that is written, 0 to 1;
    what went wrong always is. errors_only: nothing else is. query: of a target also what follows the `?`, where secrets
    tend to be. buffer: bytes that may wait to be written; beyond it lines are dropped, and counted.
    """

    file: str = ""
    sample: float = 1.0
    errors_only: bool = False
    query: bool = False
    buffer: int = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class TracingSettings:
    """Where spans go.

    endpoint: the collector's base URL (OTLP over HTTP, such as `http://127.0.0.1:4318`); empty for nowhere.
    sample: the share of requests traced of those whose caller does not say, 0 to 1. service: `service.name`.
    queue: spans that may wait to be exported; beyond it they are dropped, and counted.
    token_env, token_file: of a bearer token for the collector; the secret itself is in no setting.
    """

    endpoint: str = ""
    sample: float = 0.01
    service: str = "sidecar"
    queue: int = 2048
    token_env: str = ""
    token_file: str = ""


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """One logical service.

    endpoints: what the configuration itself names, in file order; none where only a registry knows them.
    source: where they come from.
    listen_port: its port on localhost; None when `sidecar.ports` leaves it out.
    hash_on: what ring_hash goes by; empty for other strategies.
    health: how its endpoints are checked. health_endpoint: as the seed has it, also where nothing is asked for by path.
    skipped: why nothing listens on that port although it has one, as one sentence; None otherwise.
    listener: what is true of whoever comes in there. routes: of a router, which has no endpoints of its own.
    """

    name: str
    kind: UpstreamKind
    scheme: str
    endpoints: tuple[EndpointSettings, ...]
    strategy: str
    health_endpoint: str
    listen_port: int | None
    skipped: str | None
    policy: PolicySettings
    hash_on: str = ""
    health: HealthSettings = field(default_factory=HealthSettings)
    source: SourceSettings = field(default_factory=SourceSettings)
    listener: ListenerSettings = field(default_factory=ListenerSettings)
    routes: tuple[RouteSettings, ...] = ()

    @property
    def protocol(self) -> str:
        """What the scheme is with TLS taken off: `http`, `redis` or `tcp`."""
        return PROTOCOLS[self.scheme]

    @property
    def secure(self) -> bool:
        """Whether its endpoints are spoken to over TLS."""
        return self.scheme != self.protocol

    @property
    def per_request(self) -> bool:
        """True when it is proxied request by request (http), False connection by connection (redis, tcp)."""
        return self.protocol == "http"


@dataclass(frozen=True, slots=True)
class SidecarSettings:
    """The process itself: where it listens, and its times in seconds.

    bind: addresses of the upstreams' listeners. Both loopbacks, because `localhost` means both to callers.
    expose: others than loopbacks may be among them.
    head_timeout: a request head must be complete this long after it could begin.
    idle_timeout: how long an application's idle connection is kept.
    drain_timeout: how long exchanges may take to finish when the process is asked to stop.
    min_body_rate: bytes per second that a request body must bring; 0 asks for none.
    max_clients: connections from applications at once, over all listeners; beyond it they are closed at once.
    zone: where this sidecar runs; endpoints of the same zone are preferred. Empty prefers none.
    workers: processes that share the ports; bounds are those of each. 1 is this very process, without a supervisor.
    last_good: where snapshots of registries outlive the process. registry_wait: seconds that readiness waits for their
    first ones. watch: the configuration is read again when its file changes.
    admin_token_env, admin_token_file: of the token that the admin API asks for; both empty for none, and then it is for
    this machine alone. admin_read_only: it shows, and does nothing.
    metrics_detail: one of `DETAILS`. access_log, tracing: of requests and sessions. request_id: a request without
    `x-request-id` gets one.
    """

    bind: tuple[str, ...] = ("127.0.0.1", "::1")
    admin: Address = Address("127.0.0.1", 9901)
    metrics: Address = Address("127.0.0.1", 9902)
    head_timeout: float = 10.0
    idle_timeout: float = 60.0
    drain_timeout: float = 30.0
    max_clients: int = 16384
    min_body_rate: int = 0
    workers: int = 1
    zone: str = ""
    last_good: LastGoodSettings = field(default_factory=LastGoodSettings)
    registry_wait: float = 5.0
    watch: bool = True
    admin_token_env: str = ""
    admin_token_file: str = ""
    admin_read_only: bool = False
    metrics_detail: str = "normal"
    access_log: AccessLogSettings = field(default_factory=AccessLogSettings)
    tracing: TracingSettings = field(default_factory=TracingSettings)
    request_id: bool = False
    expose: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole configuration.

    domain: what the built-in host names end in; empty in docker_local.
    origin: the file as it was given, or `built-in defaults (local)`.
    upstreams: services, then load balancers, then routers, in file order.
    log_level: a standard level name in capitals.
    notes: sentences worth saying at start that are no errors.
    mode_reason: what decided the mode, such as `AUTOBOT_DEPLOYMENT_MODE`.
    overrides: names of the environment variables that changed an upstream, in upstream order.
    registries: of `external_registry`, in file order. registrations: of `register`. mesh: of `kubernetes.service_mesh`.
    """

    mode: DeploymentMode
    domain: str
    origin: str
    upstreams: tuple[UpstreamSettings, ...]
    sidecar: SidecarSettings
    log_level: str
    registry_debug: bool
    notes: tuple[str, ...]
    mode_reason: str = ""
    overrides: tuple[str, ...] = ()
    registries: tuple[RegistrySettings, ...] = ()
    registrations: tuple[RegistrationSettings, ...] = ()
    mesh: MeshSettings = field(default_factory=MeshSettings)

    def upstream(self, name: str) -> UpstreamSettings:
        """The upstream called `name`. Raises `UnknownUpstreamError`, which names the known ones."""
        for upstream in self.upstreams:
            if upstream.name == name:
                return upstream
        known = [upstream.name for upstream in self.upstreams]
        names = ", ".join(known) if known else "none"
        raise UnknownUpstreamError(
            f"no service or load balancer is called `{name}`{meant(name, known)}; known are: {names}"
        )
