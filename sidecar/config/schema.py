"""The shape of a configuration file: every key, the rule for its value, and which keys come later.

This is the one list of keys. A field's annotation carries a rule or a container (`Section`, `Named`,
`Several`, `Ports`), and `UNSET` is what a key has that the file leaves out: defaults belong to the settings,
where the environment and the built-ins have been considered. A feature that gets built changes its `Later`
into a rule.
"""

# Annotations are read at run time by the decoder, so they must not be postponed to strings.
from collections.abc import Mapping
from typing import Annotated, Final

from sidecar.config.check_rules import (
    BodyText,
    CollectorUrl,
    FileName,
    HealthShort,
    NoSecret,
    PlainText,
    Statuses,
    VariableName,
)
from sidecar.config.containers import HeaderFields, JsonFields, Named, Ports, Section, Several, Short, Sockets
from sidecar.config.field_rules import FieldName
from sidecar.config.record import Record
from sidecar.config.registry_rules import PortChoice, RegistryHost, ServiceName, SourceNames
from sidecar.config.rules import (
    PORT,
    Authority,
    Bytes,
    Choice,
    DeadlineHeader,
    FailureStatus,
    Flag,
    HashOn,
    HostHeader,
    HostName,
    IpAddress,
    Mode,
    RetryOn,
    Seconds,
    Share,
    UpstreamName,
    UrlPath,
    Whole,
    ZoneName,
)
from sidecar.config.schema_listeners import PortListener, SocketListener
from sidecar.config.schema_routes import Mirror, Router
from sidecar.config.schema_tls import ClientTls
from sidecar.config.settings import DETAILS, PROTOCOLS, Address, DeploymentMode, JsonField
from sidecar.config.socket_rules import EndpointHost, ProxyVersion
from sidecar.config.unset import UNSET, UnsetType

__all__ = [
    "MAX_HOSTS",
    "MAX_UPSTREAMS",
    "AccessLog",
    "Breaker",
    "Defaults",
    "Deployment",
    "ExternalRegistry",
    "HeaderEdits",
    "HeaderFields",
    "Headers",
    "HealthCheck",
    "Host",
    "JsonFields",
    "Kubernetes",
    "LastGood",
    "Limits",
    "LoadBalancer",
    "MeshBreaker",
    "Named",
    "Policy",
    "Ports",
    "RateLimit",
    "Registration",
    "Root",
    "Section",
    "Service",
    "ServiceMesh",
    "Several",
    "Short",
    "Sidecar",
    "Sockets",
    "SourceChoice",
    "Tls",
    "Tracing",
    "TrafficPolicy",
]

MAX_UPSTREAMS: Final = (
    1000  # each may take two listening sockets: past this the descriptor limit is the bound
)
MAX_HOSTS: Final = 1000  # of one load balancer: metrics keep some dozen series for each


WEIGHT: Final = Whole(1, 256)  # 256 is what HAProxy and nginx users know as plenty
RETRIES: Final = Whole(0, 100)
THRESHOLD: Final = Whole(1, 1_000_000)
SECONDS: Final = Seconds()
OPTIONAL_SECONDS: Final = Seconds(zero=True)
COUNT: Final = Whole(1, 1_000_000)
OPTIONAL_COUNT: Final = Whole(0, 1_000_000)
# A request line and a few headers need 1 KiB; more than 1 MiB of head is an attack or a bug.
HEAD: Final = Bytes(1024, 1024 * 1024)
CHECKS: Final = Whole(1, 100)  # in a row: beyond that, minutes pass at the usual interval
STATUSES: Final = Several(Statuses(), 16, "statuses", numbers=True)
SCHEME: Final = Choice(tuple(PROTOCOLS))
STRATEGY: Final = Choice(("round_robin", "least_request", "random", "peak_ewma", "ring_hash"))
MESH_STRATEGY: Final = Choice(("round_robin", "least_request", "random", "peak_ewma"))


class Breaker(Record):
    """`circuit_breaker`, the long form."""

    consecutive_failures: Annotated[int | UnsetType, THRESHOLD] = UNSET
    open_for: Annotated[float | UnsetType, SECONDS] = UNSET
    max_open_for: Annotated[float | UnsetType, SECONDS] = UNSET
    failure_rate: Annotated[float | UnsetType, Share(below=True)] = UNSET
    window: Annotated[float | UnsetType, SECONDS] = UNSET
    min_requests: Annotated[int | UnsetType, THRESHOLD] = UNSET
    failure_statuses: Annotated[tuple[str, ...] | UnsetType, Several(FailureStatus(), 16, "statuses")] = UNSET
    observe_only: Annotated[bool | UnsetType, Flag()] = UNSET


# Thirty-two: a rule is looked at for every field of every head; who needs more needs a program.
_RULES: Final = 32


class HeaderEdits(Record):
    """`headers.request` and `headers.response`."""

    set: Annotated[tuple[tuple[str, str], ...] | UnsetType, HeaderFields(_RULES)] = UNSET
    add: Annotated[tuple[tuple[str, str], ...] | UnsetType, HeaderFields(_RULES, several=True)] = UNSET
    remove: Annotated[tuple[str, ...] | UnsetType, Several(FieldName(), _RULES, "names")] = UNSET


class Headers(Record):
    """`headers`."""

    request: Annotated[HeaderEdits | UnsetType, Section(HeaderEdits)] = UNSET
    response: Annotated[HeaderEdits | UnsetType, Section(HeaderEdits)] = UNSET


class RateLimit(Record):
    """`rate_limit`."""

    requests: Annotated[int | UnsetType, OPTIONAL_COUNT] = UNSET
    per: Annotated[float | UnsetType, SECONDS] = UNSET
    burst: Annotated[int | UnsetType, COUNT] = UNSET


class Outlier(Record):
    """`outlier`."""

    max_ejected: Annotated[float | UnsetType, Share()] = UNSET
    min_available: Annotated[int | UnsetType, Whole(0, 1_000_000)] = UNSET
    panic: Annotated[str | UnsetType, Choice(("all", "fail"))] = UNSET


class Limits(Record):
    """`limits`."""

    connections: Annotated[int | UnsetType, COUNT] = UNSET
    connections_per_endpoint: Annotated[int | UnsetType, OPTIONAL_COUNT] = UNSET
    pending: Annotated[int | UnsetType, OPTIONAL_COUNT] = UNSET
    pending_timeout: Annotated[float | UnsetType, SECONDS] = UNSET
    in_flight: Annotated[int | UnsetType, OPTIONAL_COUNT] = UNSET
    request_head: Annotated[int | UnsetType, HEAD] = UNSET
    response_head: Annotated[int | UnsetType, HEAD] = UNSET


class RetryBudget(Record):
    """`retry_budget`."""

    ratio: Annotated[float | UnsetType, Share()] = UNSET
    min: Annotated[int | UnsetType, OPTIONAL_COUNT] = UNSET


class RetryBackoff(Record):
    """`retry_backoff`."""

    base: Annotated[float | UnsetType, OPTIONAL_SECONDS] = UNSET
    max: Annotated[float | UnsetType, SECONDS] = UNSET


class HealthCheck(Record):
    """`health_check`."""

    type: Annotated[str | UnsetType, Choice(("http", "tcp", "redis"))] = UNSET
    path: Annotated[str | UnsetType, UrlPath()] = UNSET
    interval: Annotated[float | UnsetType, SECONDS] = UNSET
    timeout: Annotated[float | UnsetType, SECONDS] = UNSET
    rise: Annotated[int | UnsetType, CHECKS] = UNSET
    fall: Annotated[int | UnsetType, CHECKS] = UNSET
    expect_status: Annotated[tuple[tuple[int, int], ...] | UnsetType, STATUSES] = UNSET
    expect_body: Annotated[str | UnsetType, BodyText()] = UNSET
    # Sixteen: a health page is asked whether it is well, not compared with a document.
    expect_json: Annotated[tuple[JsonField, ...] | UnsetType, JsonFields(16)] = UNSET
    username: Annotated[str | UnsetType, PlainText()] = UNSET
    password_env: Annotated[str | UnsetType, VariableName()] = UNSET
    password_file: Annotated[str | UnsetType, FileName()] = UNSET
    password: Annotated[str | UnsetType, NoSecret()] = UNSET
    role: Annotated[str | UnsetType, Choice(("master", "replica"))] = UNSET


class Tls(Record):
    """`tls` of a registry, the long form."""

    ca: Annotated[str | UnsetType, FileName()] = UNSET
    cert: Annotated[str | UnsetType, FileName()] = UNSET
    key: Annotated[str | UnsetType, FileName()] = UNSET
    server_name: Annotated[str | UnsetType, HostName()] = UNSET
    verify: Annotated[bool | UnsetType, Flag()] = UNSET


class SourceChoice(Record):
    """`source`, the long form."""

    use: Annotated[tuple[str, ...] | UnsetType, SourceNames()] = UNSET
    merge: Annotated[bool | UnsetType, Flag()] = UNSET
    service: Annotated[str | UnsetType, ServiceName()] = UNSET
    port: Annotated[str | UnsetType, PortChoice()] = UNSET
    tags: Annotated[tuple[str, ...] | UnsetType, Several(PlainText(), 16, "tags")] = UNSET
    datacenter: Annotated[str | UnsetType, ZoneName()] = UNSET
    namespace: Annotated[str | UnsetType, ZoneName()] = UNSET


class ExternalRegistry(Record):
    """One of `external_registry`. Which keys a type has: `registries.KEYS`."""

    type: Annotated[str | UnsetType, Choice(("consul", "etcd", "kubernetes", "dns", "file"))] = UNSET
    name: Annotated[str | UnsetType, UpstreamName()] = UNSET
    # Sixteen: the members of a cluster, of which one is asked at a time.
    host: Annotated[tuple[Address, ...] | UnsetType, Several(RegistryHost(), 16, "hosts")] = UNSET
    on_empty: Annotated[str | UnsetType, Choice(("keep", "drop"))] = UNSET
    stale_after: Annotated[float | UnsetType, SECONDS] = UNSET
    tls: Annotated[Tls | bool | UnsetType, Short(Tls, Flag())] = UNSET
    token_env: Annotated[str | UnsetType, VariableName()] = UNSET
    token_file: Annotated[str | UnsetType, FileName()] = UNSET
    token: Annotated[str | UnsetType, NoSecret("token")] = UNSET
    username: Annotated[str | UnsetType, PlainText()] = UNSET
    password_env: Annotated[str | UnsetType, VariableName()] = UNSET
    password_file: Annotated[str | UnsetType, FileName()] = UNSET
    password: Annotated[str | UnsetType, NoSecret()] = UNSET
    datacenter: Annotated[str | UnsetType, ZoneName()] = UNSET
    prefix: Annotated[str | UnsetType, UrlPath()] = UNSET
    namespace: Annotated[str | UnsetType, ZoneName()] = UNSET
    kubeconfig: Annotated[str | UnsetType, FileName()] = UNSET
    context: Annotated[str | UnsetType, PlainText()] = UNSET
    path: Annotated[str | UnsetType, FileName()] = UNSET


class Policy(Record):
    """The keys that `defaults`, services and load balancers share."""

    timeout: Annotated[float | UnsetType, SECONDS] = UNSET
    connect_timeout: Annotated[float | UnsetType, SECONDS] = UNSET
    idle_timeout: Annotated[float | UnsetType, OPTIONAL_SECONDS] = UNSET
    continue_timeout: Annotated[float | UnsetType, OPTIONAL_SECONDS] = UNSET
    tunnel_idle_timeout: Annotated[float | UnsetType, OPTIONAL_SECONDS] = UNSET
    retries: Annotated[int | UnsetType, RETRIES] = UNSET
    circuit_breaker: Annotated[Breaker | UnsetType, Section(Breaker)] = UNSET
    circuit_breaker_threshold: Annotated[int | UnsetType, THRESHOLD] = UNSET
    circuit_breaker_timeout: Annotated[float | UnsetType, SECONDS] = UNSET
    limits: Annotated[Limits | UnsetType, Section(Limits)] = UNSET
    host_header: Annotated[str | UnsetType, HostHeader()] = UNSET
    deadline_header: Annotated[str | UnsetType, DeadlineHeader()] = UNSET
    per_try_timeout: Annotated[float | UnsetType, OPTIONAL_SECONDS] = UNSET
    retry_on: Annotated[tuple[str, ...] | UnsetType, Several(RetryOn(), 16, "conditions")] = UNSET
    hedge_after: Annotated[float | UnsetType, OPTIONAL_SECONDS] = UNSET
    retry_backoff: Annotated[RetryBackoff | UnsetType, Section(RetryBackoff)] = UNSET
    retry_budget: Annotated[RetryBudget | UnsetType, Section(RetryBudget)] = UNSET
    outlier: Annotated[Outlier | UnsetType, Section(Outlier)] = UNSET
    health_check: Annotated[HealthCheck | str | bool | UnsetType, Short(HealthCheck, HealthShort())] = UNSET
    close_on_unhealthy: Annotated[bool | UnsetType, Flag()] = UNSET
    slow_start: Annotated[float | UnsetType, OPTIONAL_SECONDS] = UNSET
    headers: Annotated[Headers | UnsetType, Section(Headers)] = UNSET
    bearer_token: Annotated[UnsetType, NoSecret("bearer_token")] = UNSET
    bearer_token_env: Annotated[str | UnsetType, VariableName()] = UNSET
    bearer_token_file: Annotated[str | UnsetType, FileName()] = UNSET
    rate_limit: Annotated[RateLimit | UnsetType, Section(RateLimit)] = UNSET
    mirror: Annotated[Mirror | UnsetType, Section(Mirror)] = UNSET
    tls: Annotated[ClientTls | UnsetType, Section(ClientTls)] = UNSET
    proxy_protocol: Annotated[int | UnsetType, ProxyVersion()] = UNSET
    source: Annotated[SourceChoice | tuple[str, ...] | UnsetType, Short(SourceChoice, SourceNames())] = UNSET


class Service(Policy):
    """An entry of `services`. Its `host` is an address, so the Host policy is spelt `host_header` here."""

    host: Annotated[str | UnsetType, EndpointHost()] = UNSET
    port: Annotated[int | UnsetType, PORT] = UNSET
    scheme: Annotated[str | UnsetType, SCHEME] = UNSET
    health_endpoint: Annotated[str | UnsetType, UrlPath()] = UNSET


class Defaults(Policy):
    """`defaults`. `host` is the contract's name of the Host policy, `host_header` the same thing."""

    host: Annotated[str | UnsetType, HostHeader()] = UNSET


class Host(Record):
    """One of a load balancer's `hosts`."""

    host: Annotated[str | UnsetType, EndpointHost()] = UNSET
    port: Annotated[int | UnsetType, PORT] = UNSET
    weight: Annotated[int | UnsetType, WEIGHT] = UNSET
    zone: Annotated[str | UnsetType, ZoneName()] = UNSET


_HOSTS: Final = Several(Section(Host), MAX_HOSTS, "hosts", required=("host", "port"))


class LoadBalancer(Defaults):
    """An entry of `load_balancers`."""

    hosts: Annotated[tuple[Host, ...] | UnsetType, _HOSTS] = UNSET
    scheme: Annotated[str | UnsetType, SCHEME] = UNSET
    strategy: Annotated[str | UnsetType, STRATEGY] = UNSET
    hash_on: Annotated[str | UnsetType, HashOn()] = UNSET


class Registration(Record):
    """One of `register`."""

    name: Annotated[str | UnsetType, UpstreamName()] = UNSET
    port: Annotated[int | UnsetType, PORT] = UNSET
    registry: Annotated[str | UnsetType, UpstreamName()] = UNSET
    host: Annotated[str | UnsetType, HostName()] = UNSET
    id: Annotated[str | UnsetType, UpstreamName()] = UNSET
    health_check: Annotated[HealthCheck | str | bool | UnsetType, Short(HealthCheck, HealthShort())] = UNSET
    check_host: Annotated[str | UnsetType, HostName()] = UNSET
    weight: Annotated[int | UnsetType, WEIGHT] = UNSET
    zone: Annotated[str | UnsetType, ZoneName()] = UNSET
    tags: Annotated[tuple[str, ...] | UnsetType, Several(PlainText(), 16, "tags")] = UNSET
    ttl: Annotated[float | UnsetType, SECONDS] = UNSET


class LastGood(Record):
    """`sidecar.last_good`, the long form."""

    file: Annotated[str | UnsetType, FileName()] = UNSET
    max_age: Annotated[float | UnsetType, SECONDS] = UNSET


class AccessLog(Record):
    """`sidecar.access_log`, the long form."""

    file: Annotated[str | UnsetType, FileName()] = UNSET
    sample: Annotated[float | UnsetType, Share()] = UNSET
    errors_only: Annotated[bool | UnsetType, Flag()] = UNSET
    query: Annotated[bool | UnsetType, Flag()] = UNSET
    # From a few hundred lines to a second of a disk that has stopped under full load.
    buffer: Annotated[int | UnsetType, Bytes(64 * 1024, 256 * 1024 * 1024)] = UNSET


class Tracing(Record):
    """`sidecar.tracing`, the long form."""

    endpoint: Annotated[str | UnsetType, CollectorUrl()] = UNSET
    sample: Annotated[float | UnsetType, Share()] = UNSET
    service: Annotated[str | UnsetType, PlainText()] = UNSET
    queue: Annotated[int | UnsetType, Whole(64, 1_000_000)] = UNSET
    token: Annotated[UnsetType, NoSecret("token")] = UNSET
    token_env: Annotated[str | UnsetType, VariableName()] = UNSET
    token_file: Annotated[str | UnsetType, FileName()] = UNSET


class Deployment(Record):
    """`deployment`."""

    mode: Annotated[DeploymentMode | UnsetType, Mode()] = UNSET
    domain: Annotated[str | UnsetType, HostName()] = UNSET


class Sidecar(Record):
    """`sidecar`, the process itself."""

    # Sixteen addresses: a machine's loopbacks and a few of its own; each costs a socket per upstream.
    bind: Annotated[tuple[str, ...] | UnsetType, Several(IpAddress(), 16, "addresses")] = UNSET
    expose: Annotated[bool | UnsetType, Flag()] = UNSET
    ports: Annotated[Mapping[int, PortListener] | UnsetType, Ports(PortListener)] = UNSET
    sockets: Annotated[Mapping[str, SocketListener] | UnsetType, Sockets(SocketListener)] = UNSET
    admin: Annotated[Address | UnsetType, Authority(lowest_port=0)] = UNSET
    metrics: Annotated[Address | UnsetType, Authority(lowest_port=0)] = UNSET
    head_timeout: Annotated[float | UnsetType, SECONDS] = UNSET
    idle_timeout: Annotated[float | UnsetType, SECONDS] = UNSET
    drain_timeout: Annotated[float | UnsetType, SECONDS] = UNSET
    # Bytes per second. A gibibyte is more than any network brings, and nothing is served by asking for it.
    min_body_rate: Annotated[int | UnsetType, Bytes(0, 1024 * 1024 * 1024)] = UNSET
    # A million: what a process with raised descriptor limits can hold; each costs a descriptor.
    max_clients: Annotated[int | UnsetType, Whole(1, 1_000_000)] = UNSET
    # As many as the cores of a large machine; each is a whole process, and a socket for every address and port.
    workers: Annotated[int | UnsetType, Whole(1, 64)] = UNSET
    zone: Annotated[str | UnsetType, ZoneName()] = UNSET
    last_good: Annotated[LastGood | str | UnsetType, Short(LastGood, FileName())] = UNSET
    registry_wait: Annotated[float | UnsetType, OPTIONAL_SECONDS] = UNSET
    watch: Annotated[bool | UnsetType, Flag()] = UNSET
    admin_token: Annotated[UnsetType, NoSecret("admin_token")] = UNSET
    admin_token_env: Annotated[str | UnsetType, VariableName()] = UNSET
    admin_token_file: Annotated[str | UnsetType, FileName()] = UNSET
    admin_read_only: Annotated[bool | UnsetType, Flag()] = UNSET
    metrics_detail: Annotated[str | UnsetType, Choice(DETAILS)] = UNSET
    access_log: Annotated[AccessLog | str | UnsetType, Short(AccessLog, FileName())] = UNSET
    tracing: Annotated[Tracing | str | UnsetType, Short(Tracing, CollectorUrl())] = UNSET
    request_id: Annotated[bool | UnsetType, Flag()] = UNSET


class MeshBreaker(Record):
    """`circuit_breaker` of a mesh's `traffic_policy`, in the seed's words."""

    consecutive_errors: Annotated[int | UnsetType, THRESHOLD] = UNSET
    interval: Annotated[float | UnsetType, SECONDS] = UNSET
    base_ejection_time: Annotated[float | UnsetType, SECONDS] = UNSET
    max_ejection_percent: Annotated[int | UnsetType, Whole(1, 100)] = UNSET


class TrafficPolicy(Record):
    """`traffic_policy` of a mesh. No ring_hash, which has to know what to hash: that is each upstream's own."""

    load_balancer: Annotated[str | UnsetType, MESH_STRATEGY] = UNSET
    circuit_breaker: Annotated[MeshBreaker | UnsetType, Section(MeshBreaker)] = UNSET


class ServiceMesh(Record):
    """`kubernetes.service_mesh`."""

    enabled: Annotated[bool | UnsetType, Flag()] = UNSET
    type: Annotated[str | UnsetType, Choice(("istio", "linkerd"))] = UNSET
    traffic_policy: Annotated[TrafficPolicy | UnsetType, Section(TrafficPolicy)] = UNSET


class Kubernetes(Record):
    """`kubernetes`."""

    service_mesh: Annotated[ServiceMesh | UnsetType, Section(ServiceMesh)] = UNSET


# Sixteen registries are a company's; a sidecar stands beside one process, which serves some services at most.
REGISTRIES: Final = Several(Section(ExternalRegistry), 16, "registries", required=("type",), sections=True)
REGISTRATIONS: Final = Several(
    Section(Registration), 16, "services", required=("name", "port"), sections=True
)


class Root(Record):
    """The whole file."""

    deployment: Annotated[Deployment | UnsetType, Section(Deployment)] = UNSET
    services: Annotated[Mapping[str, Service] | UnsetType, Named(Service)] = UNSET
    load_balancers: Annotated[Mapping[str, LoadBalancer] | UnsetType, Named(LoadBalancer)] = UNSET
    routers: Annotated[Mapping[str, Router] | UnsetType, Named(Router)] = UNSET
    defaults: Annotated[Defaults | UnsetType, Section(Defaults)] = UNSET
    sidecar: Annotated[Sidecar | UnsetType, Section(Sidecar)] = UNSET
    external_registry: Annotated[tuple[ExternalRegistry, ...] | UnsetType, REGISTRIES] = UNSET
    register: Annotated[tuple[Registration, ...] | UnsetType, REGISTRATIONS] = UNSET
    kubernetes: Annotated[Kubernetes | UnsetType, Section(Kubernetes)] = UNSET
