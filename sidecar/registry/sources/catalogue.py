"""From a kind of registry to its source. Each is loaded when the configuration names it: most have one at most."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from types import ModuleType

    from sidecar.config.settings import RegistrySettings
    from sidecar.registry.sources.source import Source, Surroundings

__all__ = ["load_source", "make_source"]

_CLASSES = {
    "consul": "ConsulSource",
    "dns": "DnsSource",
    "etcd": "EtcdSource",
    "file": "FileSource",
    "kubernetes": "KubernetesSource",
}


def make_source(settings: RegistrySettings, surroundings: Surroundings) -> Source:
    """The source that `settings` describe; it opens nothing yet."""
    return cast(
        "Source", getattr(load_source(settings.kind), _CLASSES[settings.kind])(settings, surroundings)
    )


def load_source(kind: str) -> ModuleType:
    """The module of its source, which takes up to a tenth of a second the first time."""
    return import_module(f"sidecar.registry.sources.{kind}")
