"""`sidecar export`: from the command line's options to text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sidecar.config.document import MAX_BYTES
from sidecar.config.files import read_bounded, reason
from sidecar.errors import ExportError
from sidecar.export.documents import written
from sidecar.export.services import namespace_of
from sidecar.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sidecar.config.settings import Settings
    from sidecar.export.documents import Document

__all__ = ["KINDS", "Wishes", "export", "surroundings"]

KINDS: Final = ("kubernetes", "compose", "istio", "linkerd", "prometheus-rules")
# Which options mean something for which kind; --config and --mode do for all but the last.
_TAKES: Final = {
    "kubernetes": {"name", "namespace", "image", "application_image", "pod_monitor"},
    "compose": {"image", "service"},
    "istio": {"namespace"},
    "linkerd": {"namespace"},
    "prometheus-rules": {"name", "namespace", "label", "plain"},
}
# RFC 1123 labels, as Kubernetes has them for namespaces; for names with room for `-sidecar` behind.
# https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-label-names
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,53}[a-z0-9])?", re.ASCII)
# https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
_PAIR: Final = re.compile(
    r"(?:[a-z0-9.-]{1,253}/)?[A-Za-z0-9](?:[\w.-]{0,61}[A-Za-z0-9])?=(?:[A-Za-z0-9](?:[\w.-]{0,61}[A-Za-z0-9])?)?",
    re.ASCII,
)
_IMAGE: Final = re.compile(r"[a-zA-Z0-9][\w.:/@-]{0,254}", re.ASCII)
_SERVICE: Final = re.compile(r"[a-zA-Z0-9._-]{1,64}", re.ASCII)  # of compose: its specification's pattern
_MANGLED: Final = {"application_image": "application-image", "pod_monitor": "pod-monitor"}


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the options say; None or empty where they say nothing."""

    config: str | None = None
    mode: str | None = None
    name: str | None = None
    namespace: str | None = None
    image: str | None = None
    application_image: str | None = None
    service: str | None = None
    label: tuple[str, ...] = ()
    plain: bool = False
    pod_monitor: bool = False


def surroundings(kind: str, environ: Mapping[str, str]) -> tuple[dict[str, str], bool]:
    """The environment that the mode is detected in, and whether it is a container: those of where it will run."""
    found = dict(environ)
    found.pop("KUBERNETES_SERVICE_HOST", None)
    if kind != "compose":
        found["KUBERNETES_SERVICE_HOST"] = "kubernetes.default.svc"
    return found, True


def export(kind: str, wishes: Wishes, load: Callable[[str | None], Settings]) -> str:
    """The text of `kind`. load: reads the configuration, or with None the one of the mode.

    Raises ExportError, ConfigurationError.
    """
    _check(kind, wishes)
    if kind == "prometheus-rules":
        from sidecar.export.prometheus import rules_documents

        labels = dict(pair.split("=", 1) for pair in wishes.label)
        return written(
            rules_documents(wishes.name or "sidecar", wishes.namespace or "", labels, plain=wishes.plain)
        )
    settings = load(wishes.config)
    return written(_documents(kind, wishes, settings))


def _documents(kind: str, wishes: Wishes, settings: Settings) -> Iterable[Document]:
    image = wishes.image or f"sidecar:{__version__}"
    namespace = wishes.namespace or ""
    if kind in ("istio", "linkerd"):
        mesh = settings.mesh
        if mesh.enabled and mesh.kind != kind:
            raise ExportError(
                f"{settings.origin}: kubernetes.service_mesh is of type {mesh.kind}; "
                f"export {mesh.kind}, or change the type"
            )
        if kind == "istio":
            from sidecar.export.istio import istio_documents

            return istio_documents(settings, namespace or namespace_of(settings))
        from sidecar.export.linkerd import linkerd_documents

        return linkerd_documents(settings, namespace or namespace_of(settings))
    file = _file(settings)
    if kind == "compose":
        from sidecar.export.compose import compose_documents

        return compose_documents(settings, file, wishes.service or "application", image)
    from sidecar.export.kubernetes import Workload, kubernetes_documents

    workload = Workload(
        name=wishes.name or "application",
        namespace=namespace,
        image=image,
        application=wishes.application_image or "registry.example/application:1",
        pod_monitor=wishes.pod_monitor,
    )
    return kubernetes_documents(settings, _text(file, settings), workload)


def _file(settings: Settings) -> str:
    """The file that the settings come from; empty for the built-in services."""
    return "" if settings.origin.startswith("built-in defaults (") else settings.origin


def _text(file: str, settings: Settings) -> str:
    """What is to be in the ConfigMap: the file as it is, or for the built-in services the mode that has them."""
    if not file:
        domain = f"  domain: {settings.domain}\n" if settings.domain else ""
        return f"deployment:\n  mode: {settings.mode.value}\n{domain}"
    try:
        return read_bounded(file, MAX_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise ExportError(
            f"{file}: cannot be put into a ConfigMap: {reason(error)}; name a regular file"
        ) from None


def _check(kind: str, wishes: Wishes) -> None:
    """Find what means nothing for this kind, and names that nobody takes."""
    takes = _TAKES[kind] | (set() if kind == "prometheus-rules" else {"config", "mode"})
    for option in Wishes.__dataclass_fields__:
        if getattr(wishes, option) and option not in takes:
            raise ExportError(f"--{_MANGLED.get(option, option)} means nothing for {kind}; leave it out")
    for option, pattern, form in (
        ("name", _LABEL, "lower-case letters, digits and `-`, 55 at most"),
        ("namespace", _LABEL, "lower-case letters, digits and `-`, 55 at most"),
        ("image", _IMAGE, "for example registry.example/sidecar:1.0"),
        ("application_image", _IMAGE, "for example registry.example/application:1.0"),
        ("service", _SERVICE, "letters, digits, `.`, `_` and `-`"),
    ):
        value = getattr(wishes, option)
        if value is not None and not pattern.fullmatch(value):
            raise ExportError(f"--{_MANGLED.get(option, option)} {value!r} is no such name; write {form}")
    for pair in wishes.label:
        if not _PAIR.fullmatch(pair):
            raise ExportError(f"--label {pair!r} is no label; write KEY=VALUE, such as release=prometheus")
