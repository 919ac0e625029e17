"""What one configuration has and another has not: what a reload does is decided here, and nothing is done.

An upstream is the one of its name. Of one that is in both, the parts that differ are named as `Settings` has them, and
what follows from them is read off those names; so that a setting that comes to be is followed as part of the policy
without a word here, unless it is one of those below.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sidecar.config.settings import Settings, UpstreamSettings

__all__ = ["Difference", "UpstreamChange", "as_far_as_possible", "difference"]

# Of `SidecarSettings`: what a running process has for as long as it runs. Its own servers' sockets are bound once, a
# worker less would lose the connections in its queue, and what is kept for the next start is that start's business.
FIXED = ("admin", "metrics", "workers", "last_good", "registry_wait")
# Of `Settings` beside the upstreams and the process; `origin`, `notes` and the like only tell where it comes from.
_OTHERS = ("mode", "log_level", "registry_debug", "registries", "registrations")

_LISTENER = ("listen_port", "skipped")


@dataclass(frozen=True, slots=True)
class UpstreamChange:
    """An upstream that is in both, and not the same. parts: what differs, such as `policy.timeout`, sorted."""

    before: UpstreamSettings
    after: UpstreamSettings
    parts: tuple[str, ...]

    @property
    def scheme(self) -> bool:
        """Whether it is proxied in another way: whoever is connected speaks something else."""
        return "scheme" in self.parts

    @property
    def listener(self) -> bool:
        """Whether it listens elsewhere, or nowhere any more, or at last, or to other clients."""
        return any(part in _LISTENER or part.startswith("listener.") for part in self.parts)

    @property
    def endpoints(self) -> bool:
        """Whether the configuration names other endpoints."""
        return "endpoints" in self.parts

    @property
    def source(self) -> bool:
        """Whether endpoints come from elsewhere."""
        return any(part == "source" or part.startswith("source.") for part in self.parts)

    @property
    def line(self) -> str:
        """For whoever asked for it, such as `api: strategy, timeout`.

        With another scheme nothing is as it was, be it called the same.
        """
        if self.scheme:
            return f"{self.after.name}: scheme"
        return f"{self.after.name}: {', '.join(part.removeprefix('policy.') for part in self.parts)}"


@dataclass(frozen=True, slots=True)
class Difference:
    """From one `Settings` to another.

    added, removed, changed: upstreams, each in the order of the configuration that has them.
    process: what differs beside the upstreams, such as `sidecar.idle_timeout` or `log_level`.
    """

    added: tuple[UpstreamSettings, ...] = ()
    removed: tuple[UpstreamSettings, ...] = ()
    changed: tuple[UpstreamChange, ...] = ()
    process: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.added or self.removed or self.changed or self.process)

    @property
    def listeners(self) -> bool:
        """Whether an upstream comes or goes, or one listens elsewhere or in another way."""
        return bool(
            self.added
            or self.removed
            or "sidecar.bind" in self.process
            or any(change.scheme or change.listener for change in self.changed)
        )

    @property
    def lines(self) -> list[str]:
        """One for each thing that differs: what goes, what comes, what changes."""
        return [
            *(f"{upstream.name}: removed" for upstream in self.removed),
            *(f"{upstream.name}: added" for upstream in self.added),
            *(change.line for change in self.changed),
            *self.process,
        ]


def difference(old: Settings, new: Settings) -> Difference:
    """What has to be done so that who runs by `old` runs by `new`. The order of upstreams is none."""
    before = {upstream.name: upstream for upstream in old.upstreams}
    after = {upstream.name: upstream for upstream in new.upstreams}
    return Difference(
        tuple(upstream for upstream in new.upstreams if upstream.name not in before),
        tuple(upstream for upstream in old.upstreams if upstream.name not in after),
        tuple(
            UpstreamChange(before[name], upstream, tuple(sorted(_parts(before[name], upstream))))
            for name, upstream in after.items()
            if name in before and before[name] != upstream
        ),
        (
            *(f"sidecar.{part}" for part in sorted(_parts(old.sidecar, new.sidecar))),
            *(name for name in _OTHERS if getattr(old, name) != getattr(new, name)),
        ),
    )


def _parts(old: object, new: object) -> Iterator[str]:
    """Where two dataclasses of one kind differ, those inside them included: `policy.breaker.open_for`."""
    assert is_dataclass(old)
    for field in fields(old):
        was, is_now = getattr(old, field.name), getattr(new, field.name)
        if was == is_now:
            continue
        if is_dataclass(was) and type(was) is type(is_now):
            yield from (f"{field.name}.{part}" for part in _parts(was, is_now))
        else:
            yield field.name


def as_far_as_possible(old: Settings, new: Settings) -> tuple[Settings, list[str]]:
    """`new`, but for what cannot change while it runs; and a line about each of that."""
    warnings = []
    kept = {}
    for name in FIXED:
        was, wanted = getattr(old.sidecar, name), getattr(new.sidecar, name)
        kept[name] = was
        if was != wanted:
            warnings.append(f"sidecar.{name} stays {was}; {wanted} needs a restart")
    return replace(new, sidecar=replace(new.sidecar, **kept)), warnings
