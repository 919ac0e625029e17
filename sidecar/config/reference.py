"""`python -m sidecar.config.reference` prints the configuration reference, which is `config/README.md`.

It is made of the schema (which keys, and what each takes), of the settings (defaults) and of `descriptions`.
"""

from __future__ import annotations

import re
import sys
from dataclasses import MISSING
from dataclasses import fields as settings_fields
from typing import TYPE_CHECKING, Any, Final

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
from sidecar.config.descriptions import SECTIONS
from sidecar.config.doors import ClientTlsSettings, MirrorSettings, RateSettings
from sidecar.config.record import fields
from sidecar.config.rules import Bytes, Later, Seconds, Share
from sidecar.config.schema import Defaults, LoadBalancer, Policy, Root, Service
from sidecar.config.settings import (
    AccessLogSettings,
    BreakerSettings,
    EndpointSettings,
    HealthSettings,
    LastGoodSettings,
    LimitSettings,
    OutlierSettings,
    PolicySettings,
    RegistrationSettings,
    RegistrySettings,
    RetrySettings,
    SidecarSettings,
    SourceSettings,
    TlsSettings,
    TracingSettings,
)
from sidecar.config.takes import plain_size, takes_value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sidecar.config.descriptions.about import About

__all__ = ["keys_of", "missing", "reference", "sections"]

# Whose defaults a section's are.
_SETTINGS: Final[dict[str, type[Any]]] = {
    "AccessLog": AccessLogSettings,
    "Breaker": BreakerSettings,
    "ClientTls": ClientTlsSettings,
    "ExternalRegistry": RegistrySettings,
    "HealthCheck": HealthSettings,
    "Host": EndpointSettings,
    "LastGood": LastGoodSettings,
    "Limits": LimitSettings,
    "Mirror": MirrorSettings,
    "Outlier": OutlierSettings,
    "Policy": PolicySettings,
    "RateLimit": RateSettings,
    "Registration": RegistrationSettings,
    "RetryBackoff": RetrySettings,
    "RetryBudget": RetrySettings,
    "Sidecar": SidecarSettings,
    "SourceChoice": SourceSettings,
    "Tls": TlsSettings,
    "Tracing": TracingSettings,
}
# What the settings call a key otherwise.
_CALLED: Final = {
    ("Policy", "retry_on"): (RetrySettings, "on"),
    ("RetryBackoff", "max"): (RetrySettings, "longest"),
    ("RetryBudget", "min"): (RetrySettings, "least"),
}
# An upstream's own keys are told apart from those that all upstreams have.
_UPSTREAMS: Final = (Service, LoadBalancer, Defaults)
_INTRODUCTION: Final = """\
# Configuration reference

Made from the schema by `python -m sidecar.config.reference`; `sidecar check --config FILE` holds a file against it, and
names every line that is wrong. [GUIDE.md](GUIDE.md) tells what the parts do. Precedence: the mode's built-in values,
then the file, then the environment, then flags. Times are seconds, or `250ms`, `30s`, `5m`, `1h`; sizes are bytes, or
`64KiB`, `1MiB`; shares are `50%` or `0.5`. Names of files are relative to the configuration. A secret is in no file:
variables and files that hold one are named.
"""


def sections() -> dict[str, type[Any]]:
    """The sections of a file by the name of their class, in the order in which they are met."""
    found: dict[str, type[Any]] = {}
    _collect(Root, found)
    return found


def keys_of(kind: type[Any]) -> dict[str, Any]:
    """The keys that are a section's own, and the rule of each. Those that must not be there are left out."""
    shared = () if kind is Policy or not issubclass(kind, Policy) else fields(Policy)
    rules = {
        name: annotation.__metadata__[0] for name, annotation in fields(kind).items() if name not in shared
    }
    return {name: rule for name, rule in rules.items() if not isinstance(rule, NoSecret)}


def missing() -> list[str]:
    """What has no sentence in `descriptions`, and sentences that are about nothing: `Section.key` of each.

    A key whose feature comes later may do without.
    """
    there = {
        f"{name}.{key}": rule for name, kind in sections().items() for key, rule in keys_of(kind).items()
    }
    told = {f"{name}.{key}" for name, about in SECTIONS.items() for key in about.keys}
    return sorted(name for name in there.keys() ^ told if not isinstance(there.get(name), Later))


def reference() -> str:
    """The whole text, in Markdown."""
    found = {name: kind for name, kind in sections().items() if name in SECTIONS}
    contents = "\n".join(f"- {_link(SECTIONS[name])}" for name in found)
    parts = [f"{_INTRODUCTION}\n{contents}\n"]
    parts += [_section(SECTIONS[name], name, kind) for name, kind in found.items()]
    return "\n".join(parts)


def _collect(kind: type[Any], found: dict[str, type[Any]]) -> None:
    if kind.__name__ in found:
        return
    found[kind.__name__] = kind
    for rule in keys_of(kind).values():
        for inner in _inner(rule):
            _collect(inner, found)
    if kind in _UPSTREAMS:
        _collect(Policy, found)


def _inner(rule: Any) -> Iterator[type[Any]]:
    """Sections that may stand at a key."""
    item = rule.item if isinstance(rule, Several) else rule
    if isinstance(item, Section | Named | Ports | Short | Sockets):
        yield item.kind


def _section(about: About, name: str, kind: type[Any]) -> str:
    rows = [
        f"| `{key}` | {_takes(rule)} | {_default(name, key, rule, about)} | {_sentence(about, key)} |"
        for key, rule in keys_of(kind).items()
    ]
    text = f"{about.text}\n\n" if about.text else ""
    table = "\n".join(["| key | takes | default | |", "|---|---|---|---|", *rows])
    example = f"\n```yaml\n{about.example}```\n" if about.example else ""
    return f"## {about.title}\n{text}{table}\n{example}"


def _sentence(about: About, key: str) -> str:
    return about.keys.get(key, "").partition(" | ")[0]


def _takes(rule: Any) -> str:
    if isinstance(rule, Later):
        return f"nothing yet (planned: {rule.planned})"
    if isinstance(rule, Section):
        return f"a mapping, see {_see(rule.kind)}"
    if isinstance(rule, Named):
        return f"names of upstreams, each with a mapping, see {_see(rule.kind)}"
    if isinstance(rule, Short):
        return f"{takes_value(rule.rule)}, or a mapping, see {_see(rule.kind)}"
    if isinstance(rule, Several):
        return _takes_several(rule)
    if isinstance(rule, JsonFields):
        return f"up to {rule.most} names of fields, each with a value or a list of them"
    if isinstance(rule, HeaderFields):
        values = "a value or a list of them" if rule.several else "a value"
        return f"up to {rule.most} names of headers, each with {values}"
    if isinstance(rule, Ports):
        return f"port numbers, each with the name of an upstream, or a mapping, see {_see(rule.kind)}"
    if isinstance(rule, Sockets):
        return f"paths, each with the name of an upstream, or a mapping, see {_see(rule.kind)}"
    if isinstance(rule, Mapped):
        alone = "" if rule.alone is None else "one of them, or "
        return f"{alone}up to {rule.most} {rule.noun}, each with a value: {takes_value(rule.value)}"
    return takes_value(rule)


def _takes_several(rule: Several) -> str:
    if isinstance(rule.item, Section):
        one = "one, or a list" if rule.sections else "a list"
        return f"{one} of up to {rule.most} {rule.noun}, see {_see(rule.item.kind)}"
    return f"one, or a list of up to {rule.most}: {takes_value(rule.item)}"


def _see(kind: type[Any]) -> str:
    about = SECTIONS.get(kind.__name__)
    return "below" if about is None else _link(about)


def _link(about: About) -> str:
    """As GitHub names the anchors of headings."""
    anchor = re.sub(r"[^a-z0-9 _-]", "", about.title.lower()).replace(" ", "-")
    return f"[{about.title}](#{anchor})"


def _default(name: str, key: str, rule: Any, about: About) -> str:
    told = about.keys.get(key, "").partition(" | ")[2]
    if told:
        return told
    kind, attribute = _CALLED.get((name, key), (_SETTINGS.get(name), key))
    if kind is None:
        return ""
    found = [field for field in settings_fields(kind) if field.name == attribute]
    value = found[0].default if found else MISSING
    # What has a factory is a section, whose keys have their defaults below.
    return "" if value in (MISSING, "", ()) else _written(value, rule)


def _written(value: Any, rule: Any) -> str:
    """A default as a file would say it."""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(rule, Seconds):
        return f"`{_seconds(value)}`" if value else "`0` (off)"
    if isinstance(rule, Bytes):
        return f"`{plain_size(value)}`" if value else "`0` (off)"
    if isinstance(rule, Share):
        return f"`{value:.0%}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(_item(one) for one in value)}]`"
    return f"`{value}`"


def _item(value: Any) -> str:
    return f"{value[0]}-{value[1]}" if isinstance(value, tuple) else str(value)


def _seconds(value: float) -> str:
    if value >= 3600 and not value % 3600:
        return f"{value / 3600:g}h"
    return f"{value * 1000:g}ms" if value < 1 else f"{value:g}"


if __name__ == "__main__":
    sys.stdout.write(reference())
