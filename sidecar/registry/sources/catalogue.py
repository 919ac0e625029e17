"""From a kind of registry to its source. Each is loaded when the configuration names it: most have one at most."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from sidecar.config.settings import RegistrySettings
    from sidecar.registry.sources.source import Source, Surroundings

__all__ = ["make_source"]

_CLASSES = {
    "consul": "ConsulSource",
    "dns": "DnsSource",
    "etcd": "EtcdSource",
    "file": "FileSource",
    "kubernetes": "KubernetesSource",
}


def make_source(settings: RegistrySettings, surroundings: Surroundings) -> Source:
    """The source that `settings` describe; it opens nothing yet."""
    module = import_module(f"sidecar.registry.sources.{settings.kind}")
    return cast("Source", getattr(module, _CLASSES[settings.kind])(settings, surroundings))
