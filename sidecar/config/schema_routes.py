"""The keys of `routers`, which share one listener's requests out among upstreams, and of `mirror`; see `schema`."""

# Annotations are read at run time by the decoder, so they must not be postponed to strings.
from typing import Annotated, Final

from sidecar.config.addresses import parse_host
from sidecar.config.containers import Mapped, Section, Several
from sidecar.config.field_rules import SECRET, FieldValue, field_kind
from sidecar.config.findings import shown
from sidecar.config.record import Record
from sidecar.config.rules import PORT, Bytes, Choice, Share, Text, Unusable, UpstreamName, UrlPath, Whole
from sidecar.config.unset import UNSET, UnsetType

__all__ = ["MAX_ROUTES", "Mirror", "Route", "RouteHost", "Router"]

# All are looked at for a request that fits none: that is half a microsecond compiled, and 25 interpreted, by paths.
MAX_ROUTES: Final = 64
# A release, its canary, and some more at once.
MAX_TARGETS: Final = 16
# One request in a million is the least that anybody wants a canary to have.
ROUTE_WEIGHT: Final = Whole(0, 1_000_000)

# Those that are counted by name (RFC 9110 section 9, RFC 5789); CONNECT has no path.
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH")


class RouteHost(Text):
    """A host that requests are for, without a port, in lower case; `*.example.org` is any below that."""

    def accept(self, text: str) -> str:
        bare = text.removeprefix("*.")
        try:
            found = parse_host(bare)
        except ValueError:
            found = ""
        if not found or ":" in found:
            advice = "write a name without port, such as api.example.org or *.example.org"
            raise Unusable(f"{shown(text)} is no host of a request; {advice}")
        return text.lower().removesuffix(".")


class RoutePath(UrlPath):
    """The beginning of a path."""

    def accept(self, text: str) -> str:
        found = super().accept(text)
        if "?" in found:
            raise Unusable(f"{shown(text)} has a ?, and a route is chosen by the path alone; end it before")
        return found


class FieldName(Text):
    """The name of a header field that a route looks at, in lower case."""

    def accept(self, text: str) -> str:
        from sidecar.http1.fields import CONNECTION, DROPPED, HOST  # noqa: PLC0415 - most files have no routes

        kind = field_kind(text, "x-canary")
        if kind == HOST:
            raise Unusable("the Host field has a key of its own; use `host` beside `headers`")
        if kind in (CONNECTION, DROPPED):
            raise Unusable(f"{shown(text)} is of one connection, which says nothing of a request; remove it")
        if text.lower() in SECRET:
            raise Unusable("is a secret, which does not belong into a file; route by another header")
        return text.lower()


class Mirror(Record):
    """`mirror`."""

    to: Annotated[str | UnsetType, UpstreamName()] = UNSET
    share: Annotated[float | UnsetType, Share()] = UNSET
    max_in_flight: Annotated[int | UnsetType, Whole(1, 1_000_000)] = UNSET


class Route(Record):
    """One of a router's `routes`."""

    host: Annotated[str | UnsetType, RouteHost()] = UNSET
    path: Annotated[str | UnsetType, RoutePath()] = UNSET
    methods: Annotated[tuple[str, ...] | UnsetType, Several(Choice(_METHODS), len(_METHODS), "methods")] = (
        UNSET
    )
    # As many as a person can keep apart.
    headers: Annotated[
        tuple[tuple[str, str], ...] | UnsetType, Mapped(FieldName(), FieldValue(), 8, "headers")
    ] = UNSET
    to: Annotated[
        tuple[tuple[str, int], ...] | UnsetType,
        Mapped(UpstreamName(), ROUTE_WEIGHT, MAX_TARGETS, "upstreams", alone=1),
    ] = UNSET


class RouterLimits(Record):
    """`limits` of a router."""

    request_head: Annotated[int | UnsetType, Bytes(1024, 1024 * 1024)] = UNSET


class Router(Record):
    """An entry of `routers`."""

    port: Annotated[int | UnsetType, PORT] = UNSET
    routes: Annotated[
        tuple[Route, ...] | UnsetType, Several(Section(Route), MAX_ROUTES, "routes", required=("to",))
    ] = UNSET
    limits: Annotated[RouterLimits | UnsetType, Section(RouterLimits)] = UNSET
