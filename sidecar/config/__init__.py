"""From a YAML file, an environment and flags to one frozen `Settings`, or to every reason why not.

Reading order: `load` (the whole way), `document` and `marks` (YAML with lines), `schema` (every key), `rules`,
`check_rules`, `expressions`, `quantities` and `addresses` (what single values may be), `decode` (document to schema),
`modes` (the built-in services), `environment`, `policies`, `health` and `upstreams` (the layers merged), `listeners`
(ports, clashes, loops), `settings` (the result), `resolved` (its policies as the data path takes them), `difference`
(from one result to another), `findings` (what is wrong, and how it is said), `record` (what most classes here are).
`registries` and `registry_rules` are about `external_registry`, `source` and `register`. `files`, `changes` and
`secrets` stand apart: what a file holds, when it is to be read again, and what is in no setting.
"""

from __future__ import annotations

from sidecar.config.load import load_settings
from sidecar.config.settings import (
    Address,
    BreakerSettings,
    DeploymentMode,
    EndpointSettings,
    HealthSettings,
    JsonField,
    LimitSettings,
    PolicySettings,
    Settings,
    SidecarSettings,
    UpstreamKind,
    UpstreamSettings,
)

__all__ = [
    "Address",
    "BreakerSettings",
    "DeploymentMode",
    "EndpointSettings",
    "HealthSettings",
    "JsonField",
    "LimitSettings",
    "PolicySettings",
    "Settings",
    "SidecarSettings",
    "UpstreamKind",
    "UpstreamSettings",
    "load_settings",
]
