"""The one way to a configuration: `load_settings`, from a path, an environment and flags to `Settings`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from sidecar.config.decode import decode
from sidecar.config.environment import Environment
from sidecar.config.files import read_bounded
from sidecar.config.findings import Findings
from sidecar.config.front import token_notes
from sidecar.config.listeners import ListenerPlan, check_exposure, check_own_servers
from sidecar.config.marks import Document, Mark
from sidecar.config.mesh import mesh_settings
from sidecar.config.modes import built_in_services, default_domain, detect_mode, in_container, mode_file
from sidecar.config.observing import access_log_settings, check_token, secret_file, tracing_settings
from sidecar.config.registries import Registrations, Registries
from sidecar.config.routers import RouterResolver, check_mirrors
from sidecar.config.rules import IpAddress, Unusable
from sidecar.config.schema import Deployment, LastGood, Registration, Root, Sidecar
from sidecar.config.settings import DeploymentMode, LastGoodSettings, Settings, SidecarSettings
from sidecar.config.tls import client_tls_notes, tls_place
from sidecar.config.unset import UNSET, UnsetType, or_else
from sidecar.config.upstreams import UpstreamResolver
from sidecar.errors import ConfigurationError, UnreadableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.config.findings import KeyPath
    from sidecar.config.settings import RegistrationSettings, RegistrySettings, UpstreamSettings

__all__ = ["FileCheck", "load_settings"]


_MESH_NOTE: Final = (
    "kubernetes.service_mesh is what `sidecar export {kind}` says; upstreams here go by their own policies"
)
# Of upstreams, what is wrong with files: (upstream, `endpoint` or `listener`, key of its `tls`, the problem).
FileCheck = Callable[["Iterable[UpstreamSettings]"], "Iterable[tuple[UpstreamSettings, str, str, str]]"]


def load_settings(
    path: str | os.PathLike[str] | None = None,
    *,
    environ: Mapping[str, str],
    mode: DeploymentMode | None = None,
    bind: Sequence[str] = (),
    container: bool | None = None,
    directory: str | os.PathLike[str] | None = None,
    external_registry: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    register: Sequence[tuple[str, int]] = (),
    again: bool = False,
    expose: bool = False,
    files: FileCheck | None = None,
) -> Settings:
    """Read and resolve the configuration.

    path: the file; None looks for `config/deployment/<mode>.yml` and goes on with built-ins if there is none.
    environ: usually `os.environ`.
    mode, bind: what flags say; they win over all else.
    container: whether this is a container; None finds out.
    directory: where `config/deployment` is looked for; None is the working directory.
    external_registry: what a program says in place of the file's, in its shape.
    register: (service, port) that flags say, beside what the file says.
    expose: a flag says that addresses beyond loopback are meant.
    again: a running sidecar goes by it already. A file that is empty, or no regular one, is a finding then: somebody
    is about to write it, or could not, and the built-ins in its place would end all that it has named.
    files: finds files that the settings name and that cannot be used; see `FileCheck`. None looks at none of them.

    Precedence: the mode's built-in defaults < the file < the environment < flags.
    Raises `ConfigurationError` with every finding, in the order of the file, then the environment's.
    """
    findings = Findings()
    environment = Environment(environ, findings)
    known_mode, reason = _outer_mode(mode, environment)
    distributed = environment.flag("AUTOBOT_DISTRIBUTED")
    container = in_container(environ) if container is None else container
    detected = detect_mode(environ, distributed, container)

    file = os.fspath(path) if path is not None else _file_of(known_mode or detected[0], directory)
    notes: list[str] = []
    document = None if file is None else _read(file, findings, again=again)
    if document is not None and document.data is None and again:
        findings.add(
            document.file, 0, "", "is empty; write it whole, or start anew for the built-in services"
        )
        document = None
    if document is None and file is not None:  # what the environment overrides is not known without it
        raise ConfigurationError(findings.lines())
    root = Root() if document is None else decode(document, findings)

    deployment = or_else(root.deployment, Deployment())
    if known_mode is None:
        known_mode, reason = detected
        if not isinstance(deployment.mode, UnsetType):
            known_mode, reason = deployment.mode, "deployment.mode of the file"
    origin = file if file is not None else f"built-in defaults ({known_mode.value})"
    if document is not None and document.data is None:
        notes.append(f"{file} is empty: the built-in services of mode {known_mode.value} are used")
    if document is None:
        document = Document(origin, None, {})

    domain = or_else(environment.domain(), or_else(deployment.domain, default_domain(known_mode)))
    spec = or_else(root.sidecar, Sidecar())
    near = os.path.dirname(file) if file is not None else ""
    state = environ.get("STATE_DIRECTORY", "")
    sidecar = _sidecar(spec, environment, bind, near, state, document, findings)
    sidecar = replace(sidecar, expose=expose or sidecar.expose)
    check_exposure(sidecar, flags=bool(bind), document=document, findings=findings)
    registries = _registries(root, document, external_registry, near, findings)
    built_ins = built_in_services(known_mode, domain)
    drafts = UpstreamResolver(root, document, built_ins, environment, registries, findings).resolve()
    drafts += RouterResolver(root, document, drafts, findings).resolve()
    check_mirrors([draft.upstream for draft in drafts], root, document, findings)
    check_own_servers(sidecar, document, findings)
    upstreams = ListenerPlan(spec, sidecar, document, findings).place(drafts)
    mesh = mesh_settings(root.kubernetes, document, findings)
    if mesh.enabled:
        notes.append(_MESH_NOTE.format(kind=mesh.kind))
    settings = Settings(
        mode=known_mode,
        domain=domain,
        origin=origin,
        upstreams=upstreams,
        sidecar=sidecar,
        log_level=environment.log_level(),
        registry_debug=environment.flag("AUTOBOT_SERVICE_REGISTRY_DEBUG"),
        notes=(*notes, *environment.notes, *token_notes(upstreams), *client_tls_notes(upstreams)),
        mode_reason=reason,
        overrides=tuple(environment.used),
        registries=tuple(registries.settings),
        registrations=_registrations(root, document, registries.settings, register, sidecar.zone, findings),
        mesh=mesh,
    )
    if files is not None:
        for upstream, side, key, problem in files(upstreams):
            document.report(findings, tls_place(document, upstream, side, key), problem)
    if findings:
        raise ConfigurationError(findings.lines())
    return settings


def _outer_mode(flag: DeploymentMode | None, environment: Environment) -> tuple[DeploymentMode | None, str]:
    """The mode as said outside the file. The variable is read even beside the flag: it may be wrong."""
    variable = environment.mode()
    if flag is not None:
        return flag, "the mode flag"
    if not isinstance(variable, UnsetType):
        return variable, "AUTOBOT_DEPLOYMENT_MODE"
    return None, ""


def _file_of(mode: DeploymentMode, directory: str | os.PathLike[str] | None) -> str | None:
    file = mode_file(mode) if directory is None else os.path.join(directory, mode_file(mode))
    # lexists: a dangling link is a mistake to be told about, not an absence.
    return file if os.path.lexists(file) else None


def _read(file: str, findings: Findings, *, again: bool) -> Document | None:
    # PyYAML is a quarter of the time that it takes to tell a URL, and the built-ins need none of it.
    from sidecar.config.document import MAX_BYTES, read_document  # noqa: PLC0415

    try:
        if again:
            content = read_bounded(file, MAX_BYTES)
        else:  # also from a pipe, which a shell makes of `<(...)`
            with open(file, "rb") as stream:
                content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise _unreadable(file, str(error.strerror)) from None
    except ValueError:
        raise _unreadable(file, "the name contains a zero byte") from None
    return read_document(file, content, findings)


def _unreadable(file: str, why: str) -> UnreadableError:
    findings = Findings()
    findings.add(
        file or "the configuration", 0, "", f"cannot be read: {why}; name a file that is there and readable"
    )
    return UnreadableError(findings.lines())


def _registries(
    root: Root,
    document: Document,
    given: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None,
    directory: str,
    findings: Findings,
) -> Registries:
    """What the file names, unless a program names others."""
    if given is not None:
        data = {"external_registry": given if isinstance(given, Mapping) else list(given)}
        marks: dict[KeyPath, Mark] = {}
        _mark(data, (), marks)
        document, directory = Document("ServiceRegistry", data, marks), ""
        root = decode(document, findings)
    alone = isinstance(document.data, dict) and isinstance(document.data.get("external_registry"), Mapping)
    return Registries(or_else(root.external_registry, ()), document, directory, findings, alone=alone)


def _mark(value: object, path: KeyPath, marks: dict[KeyPath, Mark]) -> None:
    """Marks for values that no file holds: without a line, and written as Python has them."""
    marks[path] = Mark(0, str(value))
    if isinstance(value, Mapping):
        for key, item in value.items():
            _mark(item, (*path, key), marks)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _mark(item, (*path, index), marks)


def _registrations(
    root: Root,
    document: Document,
    registries: Sequence[RegistrySettings],
    flags: Sequence[tuple[str, int]],
    zone: str,
    findings: Findings,
) -> tuple[RegistrationSettings, ...]:
    """What the file says, then what flags do."""
    reader = Registrations(registries, document, findings, zone)
    alone = isinstance(document.data, dict) and isinstance(document.data.get("register"), Mapping)
    found = reader.read(or_else(root.register, ()), ("register",), alone=alone)
    flagged = Registrations(registries, Document("flags", None, {}), findings, zone)
    named = tuple(Registration(name=name, port=port) for name, port in flags)
    # The same in both is no contradiction: the file says more of it.
    there = {(one.name, one.registry, one.port) for one in found}
    for one in flagged.read(named, ("--register",), alone=False):
        if (one.name, one.registry, one.port) not in there:
            found.append(one)
    return tuple(found)


def _sidecar(
    spec: Sidecar,
    environment: Environment,
    bind: Sequence[str],
    directory: str,
    state: str,
    document: Document,
    findings: Findings,
) -> SidecarSettings:
    """state: where systemd lets a service keep files (its STATE_DIRECTORY), several with colons between them."""
    defaults = SidecarSettings()
    last_good = spec.last_good
    file = last_good if isinstance(last_good, str) else UNSET
    if isinstance(last_good, LastGood):
        file = last_good.file
    kept = os.path.join(state.partition(":")[0], "last-good.json") if state else ""
    ages = last_good.max_age if isinstance(last_good, LastGood) else UNSET
    token = ("sidecar", "admin_token_file")
    check_token(spec.admin_token_env, spec.admin_token_file, token, document, findings)
    for address in bind:
        try:
            IpAddress().accept(address)
        except Unusable as problem:
            findings.add("flags", 0, "bind", str(problem))
    return SidecarSettings(
        bind=tuple(dict.fromkeys(bind or or_else(spec.bind, ()) or defaults.bind)),
        admin=or_else(spec.admin, defaults.admin),
        metrics=or_else(spec.metrics, defaults.metrics),
        head_timeout=or_else(spec.head_timeout, defaults.head_timeout),
        idle_timeout=or_else(spec.idle_timeout, defaults.idle_timeout),
        drain_timeout=or_else(spec.drain_timeout, defaults.drain_timeout),
        max_clients=or_else(spec.max_clients, defaults.max_clients),
        min_body_rate=or_else(spec.min_body_rate, defaults.min_body_rate),
        workers=or_else(spec.workers, defaults.workers),
        zone=or_else(environment.zone(), or_else(spec.zone, defaults.zone)),
        last_good=LastGoodSettings(
            kept if isinstance(file, UnsetType) else os.path.join(directory, file),
            or_else(ages, defaults.last_good.max_age),
        ),
        registry_wait=or_else(spec.registry_wait, defaults.registry_wait),
        watch=or_else(spec.watch, defaults.watch),
        admin_token_env=or_else(spec.admin_token_env, ""),
        admin_token_file=secret_file(spec.admin_token_file, directory),
        admin_read_only=or_else(spec.admin_read_only, defaults.admin_read_only),
        metrics_detail=or_else(spec.metrics_detail, defaults.metrics_detail),
        access_log=access_log_settings(spec.access_log, directory, document, findings),
        tracing=tracing_settings(spec.tracing, directory, document, findings),
        request_id=or_else(spec.request_id, defaults.request_id),
        expose=or_else(spec.expose, defaults.expose),
    )
