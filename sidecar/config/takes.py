"""What a single value may be, in words: for the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sidecar.config.check_rules import (
    BodyText,
    CollectorUrl,
    FileName,
    HealthShort,
    PlainText,
    Statuses,
    VariableName,
)
from sidecar.config.field_rules import FieldName
from sidecar.config.registry_rules import PortChoice, RegistryHost, ServiceName, SourceNames
from sidecar.config.rules import (
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
from sidecar.config.schema_routes import RouteHost, RoutePath
from sidecar.config.schema_tls import Identities, Protocols, TlsVersion
from sidecar.config.settings import DeploymentMode
from sidecar.config.socket_rules import EndpointHost, FileMode, ProxyVersion

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["plain_size", "takes_value"]


def takes_value(rule: Any) -> str:
    """What `rule` takes, to stand in a table. A kind that is not known here is told by its own docstring."""
    told = _TOLD.get(type(rule))
    if told is None:
        first = (type(rule).__doc__ or "").partition(".")[0]
        return first[:1].lower() + first[1:]
    return told if isinstance(told, str) else told(rule)


def plain_size(count: int) -> str:
    """So many bytes as a file would say it."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count and not count % size:
            return f"{count // size}{unit}"
    return str(count)


def _words(words: tuple[str, ...]) -> str:
    quoted = [f"`{word}`" for word in words]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"


def _choice(rule: Choice) -> str:
    later = f" (not yet: {_words(tuple(rule.later))})" if rule.later else ""
    return _words(rule.choices) + later


_TOLD: Final[dict[type[Any], str | Callable[[Any], str]]] = {
    Authority: lambda rule: "`host:port`" + ("" if rule.lowest_port else ", port 0 for any free one"),
    BodyText: "text, or `/a regular expression/` that is quick",
    Bytes: lambda rule: f"a size from {plain_size(rule.lowest)} to {plain_size(rule.highest)}",
    Choice: _choice,
    CollectorUrl: "an http or https URL",
    DeadlineHeader: "the name of a header, or `off`",
    EndpointHost: "a host name, an IP address, `unix:/PATH` or `unix:@NAME`",
    FailureStatus: "a status from 500 to 599, or `5xx`",
    FieldName: "the name of a header",
    FileName: "the path of a file",
    FileMode: 'permissions in octal and in quotes, such as `"0660"`',
    Flag: "`true` or `false`",
    HashOn: "`path`, `client`, `header:NAME` or `cookie:NAME`",
    HealthShort: "a path, `true` or `false`",
    HostHeader: "`endpoint`, `preserve`, or a host with or without a port",
    HostName: "a host name or an IP address",
    Identities: "one, or a list of up to 16 SPIFFE IDs and DNS names",
    IpAddress: "an IP address",
    Mode: lambda _rule: _words(tuple(mode.value for mode in DeploymentMode)),
    PlainText: "up to 1024 printable characters",
    PortChoice: "the number or the name of a port",
    Protocols: "one, or a list of up to 16 names of ALPN",
    ProxyVersion: "`v1`, `v2` or `off`",
    RegistryHost: "a host, or `host:port`",
    RetryOn: "`connect`, `reset`, `timeout`, or a status from 400 to 599",
    RouteHost: "a host name, or `*.` and one",
    RoutePath: "a URL path without a query",
    Seconds: lambda rule: "a time from 0 to a day" if rule.zero else "a time above 0, up to a day",
    ServiceName: "a name as the registry has it",
    Share: lambda rule: "a share from 0% to " + ("below 100%" if rule.below else "100%"),
    SourceNames: "a name, or a list of up to 16",
    Statuses: "a status, a class such as `2xx`, or a range such as `200-399`",
    TlsVersion: '`"1.2"` or `"1.3"`',
    UpstreamName: "a name",
    UrlPath: "a URL path",
    VariableName: "the name of an environment variable",
    Whole: lambda rule: f"a whole number from {rule.lowest} to {rule.highest}",
    ZoneName: "a name",
}
