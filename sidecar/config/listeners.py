"""Which localhost port each upstream gets, and what stands in the way: clashes and loops."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from sidecar.config.addresses import WILDCARDS, is_address, is_loopback, overlap
from sidecar.config.doors import ListenerSettings
from sidecar.config.findings import Findings, KeyPath, meant
from sidecar.config.record import Record
from sidecar.config.schema_listeners import PortListener, SocketListener
from sidecar.config.schema_tls import server_tls
from sidecar.config.settings import SidecarSettings, UpstreamKind, UpstreamSettings
from sidecar.config.socket_rules import plain_path
from sidecar.config.unset import UNSET, UnsetType, or_else
from sidecar.net.unix import UNIX, is_unix

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sidecar.config.marks import Document
    from sidecar.config.schema import Sidecar
    from sidecar.config.upstreams import Draft

__all__ = ["ListenerPlan", "check_exposure", "check_own_servers"]


_SECTIONS = ("services", "load_balancers", "routers")

W = TypeVar("W", int, str)
L = TypeVar("L", bound=PortListener)


class ListenerPlan(Record):
    """Gives drafts their ports. settings: the addresses they are bound to, and the sidecar's own servers."""

    spec: Sidecar
    settings: SidecarSettings
    document: Document
    findings: Findings

    def place(self, drafts: Sequence[Draft]) -> tuple[UpstreamSettings, ...]:
        """The upstreams with their `listen_port`, `skipped` and `listener`.

        A socket takes nobody's port away: `sidecar.ports` alone says who has one.

        Clashes are judged by the file alone, so that a file that passes the check passes it on every machine;
        loops are judged with the environment's endpoints, since those are what is dialled.
        """
        sockets = self._named(drafts, or_else(self.spec.sockets, {}), "sockets", "the socket")
        ports: dict[str, tuple[int, PortListener, KeyPath]] = {}
        if isinstance(self.spec.ports, UnsetType):
            chosen = {
                draft.upstream.name: self._own_port(draft, needed=draft.upstream.name not in sockets)
                for draft in drafts
            }
        else:
            ports = self._named(drafts, self.spec.ports, "ports", "port")
            chosen = {name: (port, path) for name, (port, _, path) in ports.items()}
            for draft in drafts:  # a router's port is a listener's and nothing else
                name = draft.upstream.name
                if draft.upstream.kind is UpstreamKind.ROUTER and name not in chosen:
                    chosen[name] = self._own_port(draft, needed=name not in sockets)
        owners: dict[int, str] = {}
        placed: list[UpstreamSettings] = []
        for draft in drafts:
            upstream = draft.upstream
            port, path = chosen.get(upstream.name, (None, draft.path))
            if port is not None:
                self._check_clash(upstream.name, port, path, owners)
                upstream = replace(
                    upstream, listen_port=port, skipped=_loop(upstream, port, self.settings.bind)
                )
            settings = self._listener(upstream, ports.get(upstream.name), sockets.get(upstream.name))
            placed.append(replace(upstream, listener=settings))
        return tuple(placed)

    def _own_port(self, draft: Draft, *, needed: bool) -> tuple[int | None, KeyPath]:
        """The port of an upstream's endpoints, when they have one in common. needed: it listens nowhere else."""
        several = draft.upstream.kind is UpstreamKind.LOAD_BALANCER
        path: KeyPath = (*draft.path, "hosts" if several else "port")
        if len(draft.ports) == 1:
            return draft.ports[0], path
        if not needed or draft.upstream.kind is UpstreamKind.ROUTER:  # that it has none is told already
            return None, path
        if not draft.ports:
            example = f"`8080: {draft.upstream.name}`"
            problem = (
                f"has no port that localhost could have too; name one in sidecar.ports, such as {example}"
            )
            self.document.report(self.findings, draft.path, problem)
            return None, draft.path
        ports = ", ".join(map(str, draft.ports))
        example = f"`{draft.ports[0]}: {draft.upstream.name}`"
        advice = f"name the localhost port in sidecar.ports, such as {example}"
        problem = f"the hosts have several ports ({ports}); {advice}"
        self.document.report(self.findings, path, problem)
        return None, path

    def _named(
        self, drafts: Sequence[Draft], listeners: Mapping[W, L], key: str, noun: str
    ) -> dict[str, tuple[W, L, KeyPath]]:
        """What `sidecar.ports` or `sidecar.sockets` (key) says, by upstream. noun: for one of them."""
        names = [draft.upstream.name for draft in drafts]
        chosen: dict[str, tuple[W, L, KeyPath]] = {}
        for where, listener in listeners.items():
            path: KeyPath = ("sidecar", key, str(where))
            name = or_else(listener.to, "")
            before = chosen.get(name)
            if before is not None:
                problem = f"{name} has {noun} {before[0]} already; give an upstream one {noun.rsplit(maxsplit=1)[-1]}"
                self.document.report(self.findings, path, problem)
            elif name in names:
                chosen[name] = (where, listener, path)
            elif not any(self.document.has((section, name)) for section in _SECTIONS):
                hint = meant(name, names) or f"; known are: {', '.join(names)}"
                problem = f"no service or load balancer is called `{name}`{hint}"
                self.document.report(self.findings, path, problem)
        return chosen

    def _listener(
        self,
        upstream: UpstreamSettings,
        port: tuple[int, PortListener, KeyPath] | None,
        named: tuple[str, SocketListener, KeyPath] | None,
    ) -> ListenerSettings:
        """What is true of an upstream's port and of its socket."""
        tls = [
            (server_tls(one[1].tls, (*one[2], "tls"), self.document, self.findings), one[2])
            for one in (port, named)
            if one is not None and not isinstance(one[1].tls, UnsetType)
        ]
        if len(tls) > 1 and tls[0][0] != tls[1][0]:
            problem = (
                f"differs from the tls of the port of {upstream.name}; give both the same, or one of them"
            )
            self.document.report(self.findings, (*tls[1][1], "tls"), problem)
        found = ListenerSettings(tls=tls[0][0]) if tls else ListenerSettings()
        if port is not None:
            of_port = port[1]
            found = replace(
                found, accept_proxy=or_else(of_port.accept_proxy, False), port_tls=of_port.tls is not UNSET
            )
        if named is None:
            return found
        path, listener, place = named
        hosts = [endpoint.host for endpoint in upstream.endpoints if is_unix(endpoint.host)]
        if any(plain_path(host.removeprefix(UNIX)) == path for host in hosts):
            problem = f"is an endpoint of {upstream.name}, which would proxy to itself; give it another path"
            self.document.report(self.findings, place, problem)
        if path.startswith("@") and listener.mode is not UNSET:
            problem = "means nothing for an abstract name, which has no file; remove it, or use a path"
            self.document.report(self.findings, (*place, "mode"), problem)
        return replace(
            found,
            socket=path,
            mode=or_else(listener.mode, found.mode),
            socket_accept_proxy=or_else(listener.accept_proxy, False),
            socket_tls=listener.tls is not UNSET,
        )

    def _check_clash(self, name: str, port: int, path: KeyPath, owners: dict[int, str]) -> None:
        owner = owners.setdefault(port, name)
        if owner != name:
            advice = "give one another port, or say in sidecar.ports which of them has it"
            problem = f"{name} would listen on port {port} as {owner} does; {advice}"
            self.document.report(self.findings, path, problem)
        for own, address in (("admin", self.settings.admin), ("metrics", self.settings.metrics)):
            if port == address.port and overlap(self.settings.bind, [address.host]):
                place = f"where sidecar.{own} ({address}) is"
                problem = f"{name} would listen on port {port}, {place}; move one of them"
                self.document.report(self.findings, path, problem)


def check_own_servers(settings: SidecarSettings, document: Document, findings: Findings) -> None:
    """The admin and metrics addresses: not both at one place, and the admin API for this machine alone."""
    admin, metrics = settings.admin, settings.metrics
    if admin.port and admin.port == metrics.port and overlap([admin.host], [metrics.host]):
        own = "metrics" if document.has(("sidecar", "metrics")) else "admin"
        problem = (
            f"sidecar.admin ({admin}) and sidecar.metrics ({metrics}) are one place; give one another port"
        )
        document.report(findings, ("sidecar", own), problem)
    if not is_loopback(admin.host) and not (settings.admin_token_env or settings.admin_token_file):
        problem = f"{admin} can be reached from other machines, and the admin API asks for no token"
        advice = "use a loopback address such as 127.0.0.1:9901, or set admin_token_file or admin_token_env"
        document.report(findings, ("sidecar", "admin"), f"{problem}; {advice}")


def check_exposure(settings: SidecarSettings, *, flags: bool, document: Document, findings: Findings) -> None:
    """Nothing is asked of who calls an upstream: other machines are let in only where that is said by name.

    flags: the addresses are those of `--bind`.
    """
    if settings.expose:
        return
    for address in settings.bind:
        if is_loopback(address) or not is_address(address):  # what is no address has been reported
            continue
        problem = f"`{address}` lets in whoever reaches this machine, and nobody is asked who they are"
        if flags:
            findings.add(
                "flags", 0, "bind", f"{problem}; use a loopback address, or add --expose if that is meant"
            )
        else:
            advice = "use loopback addresses, or add `expose: true` beside it if that is meant"
            document.report(findings, ("sidecar", "bind"), f"{problem}; {advice}")


def _loop(upstream: UpstreamSettings, port: int, bind: Iterable[str]) -> str | None:
    """Why the listener would be its own endpoint; None when it would not. One such endpoint is enough."""
    for endpoint in upstream.endpoints:
        # A wildcard takes in this machine's other addresses too, but which those are is not known here.
        known = is_loopback(endpoint.host) or endpoint.host in WILDCARDS
        places = bind if known else [address for address in bind if address not in WILDCARDS]
        if endpoint.port == port and overlap(places, [endpoint.host]):
            what = f"its endpoint {endpoint} is the address it would listen on"
            return f"it would proxy to itself: {what}, so applications reach it without the sidecar"
    return None
