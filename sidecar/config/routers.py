"""The routers of a file: listeners whose requests are shared out among upstreams."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.config.doors import RouteSettings
from sidecar.config.findings import meant
from sidecar.config.schema import MAX_UPSTREAMS, Root
from sidecar.config.settings import LimitSettings, PolicySettings, UpstreamKind, UpstreamSettings
from sidecar.config.unset import UnsetType, or_else
from sidecar.config.upstreams import Draft

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sidecar.config.findings import Findings, KeyPath
    from sidecar.config.marks import Document
    from sidecar.config.schema import Defaults
    from sidecar.config.schema_routes import Route, Router

__all__ = ["RouterResolver", "check_mirrors"]


_SECTIONS = ("services", "load_balancers")


class RouterResolver:
    """Makes drafts of a file's routers. drafts: of its upstreams. One use: `resolve`."""

    def __init__(self, root: Root, document: Document, drafts: Sequence[Draft], findings: Findings) -> None:
        self._root = root
        self._document = document
        self._findings = findings
        self._upstreams = {draft.upstream.name: draft.upstream for draft in drafts}
        self._routers: Mapping[str, Router] = or_else(root.routers, {})

    def resolve(self) -> list[Draft]:
        """In file order; what is wrong is reported."""
        if self._document.has(("routers",)) and not self._routers and self._is_empty():
            self._say(("routers",), "is empty; name a router under it, or remove it")
        count = len(self._upstreams) + len(self._routers)
        if self._routers and count > MAX_UPSTREAMS:
            problem = f"makes {count} upstreams with those above; {MAX_UPSTREAMS} is the most"
            self._say(("routers",), f"{problem}, use several sidecars")
        return [self._router(name, router) for name, router in self._routers.items()]

    def _is_empty(self) -> bool:
        data = self._document.data
        return isinstance(data, dict) and data.get("routers") == {}

    def _router(self, name: str, router: Router) -> Draft:
        path: KeyPath = ("routers", name)
        other = next(((one, name) for one in _SECTIONS if self._document.has((one, name))), None)
        if other is not None:
            problem = f"is the name of an upstream on line {self._document.line(other)} too; rename one"
            self._say(path, problem)
        else:
            self._check_port(name, router)
        if isinstance(router.routes, UnsetType) and not self._document.has((*path, "routes")):
            self._say(path, "has no routes; list them under `routes`, such as `- {path: /, to: api}`")
        routes = self._routes(or_else(router.routes, ()), (*path, "routes"))
        head = PolicySettings().limits.request_head
        defaults: Defaults | UnsetType = self._root.defaults
        for limits in ((defaults.limits,) if not isinstance(defaults, UnsetType) else ()) + (router.limits,):
            if not isinstance(limits, UnsetType):
                head = or_else(limits.request_head, head)
        upstream = UpstreamSettings(
            name=name,
            kind=UpstreamKind.ROUTER,
            scheme="http",
            endpoints=(),
            strategy="round_robin",
            health_endpoint="",
            listen_port=None,
            skipped=None,
            policy=PolicySettings(limits=LimitSettings(request_head=head)),
            routes=routes,
        )
        return Draft(upstream, path, () if isinstance(router.port, UnsetType) else (router.port,))

    def _check_port(self, name: str, router: Router) -> None:
        """It listens, or is nothing: there is nobody else to reach it by."""
        sidecar = self._root.sidecar
        ports = {} if isinstance(sidecar, UnsetType) else or_else(sidecar.ports, {})
        sockets = {} if isinstance(sidecar, UnsetType) else or_else(sidecar.sockets, {})
        own = ("routers", name, "port")
        if any(listener.to == name for listener in ports.values()):
            if self._document.has(own):
                self._say(own, "says the same as sidecar.ports, which names it; keep one of the two")
        elif not self._document.has(own) and not any(one.to == name for one in sockets.values()):
            advice = f"give it one, or name it in sidecar.ports, such as `8000: {name}`"
            self._say(("routers", name), f"has no port; {advice}")

    def _routes(self, routes: Iterable[Route], path: KeyPath) -> tuple[RouteSettings, ...]:
        found: list[RouteSettings] = []
        for index, route in enumerate(routes):
            place = (*path, index)
            to = or_else(route.to, ())
            made = RouteSettings(
                to=to,
                host=or_else(route.host, ""),
                path=or_else(route.path, "/"),
                methods=or_else(route.methods, ()),
                headers=or_else(route.headers, ()),
            )
            for name, _ in to:
                self._check_target(name, (*place, "to"))
            if to and not any(weight for _, weight in to):
                self._say((*place, "to"), "has no weight above 0; give one upstream of it a share")
            first = next((number for number, one in enumerate(found) if _takes_all(one, made)), None)
            if first is not None:
                line = self._document.line((*path, first))
                problem = f"is never reached: the route on line {line} takes all that it would"
                self._say(place, f"{problem}; put it before that one, or remove it")
            found.append(made)
        return tuple(found)

    def _check_target(self, name: str, path: KeyPath) -> None:
        place = (*path, name) if self._document.has((*path, name)) else path
        upstream = self._upstreams.get(name)
        if upstream is not None:
            if not upstream.per_request:
                problem = f"{name} is {upstream.scheme}, which is not read as HTTP; route to an http upstream"
                self._say(place, problem)
        elif name in self._routers:
            self._say(place, f"{name} is a router too; name the upstreams that it routes to")
        elif not _is_named(name, self._document):  # else what is wrong with it is told already
            hint = meant(name, list(self._upstreams)) or f"; known are: {', '.join(self._upstreams)}"
            self._say(place, f"no service or load balancer is called `{name}`{hint}")

    def _say(self, path: KeyPath, problem: str) -> None:
        self._document.report(self._findings, path, problem)


def check_mirrors(
    upstreams: Iterable[UpstreamSettings], root: Root, document: Document, findings: Findings
) -> None:
    """Find mirrors of whom there is nobody to send to."""
    known = {one.name: one for one in upstreams if one.kind is not UpstreamKind.ROUTER}
    routers = or_else(root.routers, {})
    for one in known.values():
        name = one.policy.mirror.to
        if not name:
            continue
        path = _mirror_path(one, document)
        other = known.get(name)
        problem = ""
        if name == one.name and path[0] != "defaults":
            problem = f"{name} would get its own requests twice; mirror to another upstream"
        elif other is None and name in routers:
            problem = f"{name} is a router; mirror to one of the upstreams that it routes to"
        elif other is None and not _is_named(name, document):
            hint = meant(name, list(known)) or f"; known are: {', '.join(known)}"
            problem = f"no service or load balancer is called `{name}`{hint}"
        elif other is not None and not other.per_request:
            problem = f"{name} is {other.scheme}, which is not read as HTTP; mirror to an http upstream"
        if problem:
            document.report(findings, (*path, "to"), problem)
        if path[0] == "defaults" and problem:
            return  # once for all


def _mirror_path(upstream: UpstreamSettings, document: Document) -> KeyPath:
    section = "services" if upstream.kind is UpstreamKind.SERVICE else "load_balancers"
    own = (section, upstream.name, "mirror")
    return own if document.has(own) else ("defaults", "mirror")


def _is_named(name: str, document: Document) -> bool:
    return any(document.has((section, name)) for section in _SECTIONS)


def _takes_all(one: RouteSettings, other: RouteSettings) -> bool:
    """Whether every request that fits `other` fits `one`."""
    return (
        _host_takes(one.host, other.host)
        and f"{other.path.rstrip('/')}/".startswith(f"{one.path.rstrip('/')}/")
        and (not one.methods or (bool(other.methods) and set(other.methods) <= set(one.methods)))
        and set(one.headers) <= set(other.headers)
    )


def _host_takes(one: str, other: str) -> bool:
    if not one or one == other:
        return True
    return one.startswith("*.") and other.removeprefix("*").endswith(one[1:])
