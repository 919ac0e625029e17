"""The shape of a configuration as `/v1/config` shows it, made of the file's own schema: a new key is in both."""

from __future__ import annotations

from typing import Any

from sidecar.admin.shapes import Shape, closed, listed
from sidecar.config.check_rules import NoSecret
from sidecar.config.containers import (
    HeaderFields,
    JsonFields,
    Mapped,
    Named,
    Ports,
    Section,
    Several,
    Short,
    Sockets,
)
from sidecar.config.record import fields
from sidecar.config.registry_rules import SourceNames
from sidecar.config.rules import Bytes, Flag, Later, Seconds, Share, Whole
from sidecar.config.schema import HealthCheck, Root
from sidecar.config.schema_tls import Words

__all__ = ["config_shape"]

_PLAIN = {"type": ["string", "number", "boolean"]}
_ABSENT = (NoSecret, Later)  # what no file may say


def config_shape() -> Shape:
    """See `effective.config_view`."""
    text = {"type": "string"}
    needed = {
        "origin": text,
        "mode_reason": text,
        "overrides": listed(text),
        "notes": listed(text),
        "not_listening": {"type": "object", "additionalProperties": text},
        "log_level": text,
        "settings": _section(Root),
    }
    return closed(
        needed,
        about="settings: what holds, every default included, in the keys of a configuration file; secrets are not in "
        "it, only the names of the files and variables that hold them. overrides: environment variables that changed "
        "an upstream. not_listening: why, by upstream.",
    )


def _section(kind: type[Any]) -> Shape:
    rules = {name: annotation.__metadata__[0] for name, annotation in fields(kind).items()}
    shown = {name: _shape(rule) for name, rule in rules.items() if not isinstance(rule, _ABSENT)}
    return closed({}, shown)


def _shape(rule: Any) -> Shape:
    if isinstance(rule, Section):
        return _section(rule.kind)
    if isinstance(rule, Named):
        return {"type": "object", "additionalProperties": _section(rule.kind)}
    if isinstance(rule, Short):
        shape = _section(rule.kind)
        return {"anyOf": [shape, {"const": False}]} if rule.kind is HealthCheck else shape
    if isinstance(rule, SourceNames | Words):
        return listed({"type": "string"})
    if isinstance(rule, Several):
        return listed(_shape(rule.item))
    if isinstance(rule, JsonFields):
        return {"type": "object", "additionalProperties": listed(_PLAIN)}
    if isinstance(rule, HeaderFields):
        value = (
            {"anyOf": [{"type": "string"}, listed({"type": "string"})]}
            if rule.several
            else {"type": "string"}
        )
        return {"type": "object", "additionalProperties": value}
    if isinstance(rule, Mapped):
        return {"type": "object", "additionalProperties": _shape(rule.value)}
    if isinstance(rule, Ports | Sockets):
        return {
            "type": "object",
            "additionalProperties": {"anyOf": [_section(rule.kind), {"type": "string"}]},
        }
    if isinstance(rule, Flag):
        return {"type": "boolean"}
    if isinstance(rule, Whole | Bytes):
        return {"type": "integer"}
    return {"type": "number" if isinstance(rule, Seconds | Share) else "string"}
