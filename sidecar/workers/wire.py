"""Settings, moves of breakers and snapshots as JSON values, and back."""

from __future__ import annotations

import types
import typing
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from sidecar.config.settings import Settings
from sidecar.model import Endpoint, Snapshot
from sidecar.resilience import BreakerState  # noqa: TC001 - `from_plain` reads the annotations

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

__all__ = [
    "Move",
    "Order",
    "from_plain",
    "is_followed",
    "order_of",
    "plain_order",
    "plain_snapshot",
    "reload_message",
    "reloaded_settings",
    "snapshot_of",
    "to_plain",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Move:
    """What a breaker did, as `Breaker.adopt` takes it. Times are monotonic: that clock is the machine's."""

    upstream: str
    host: str
    port: int
    to: BreakerState
    at: float
    open_until: float
    opened_in_a_row: int
    failing: bool


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done to endpoints, see `admin.control.ACTIONS`. at: when somebody asked for it, monotonic.

    endpoints: (host, port) of each. One order for all of them, since each means a new picker.
    """

    action: str
    at: float
    upstream: str
    endpoints: tuple[tuple[str, int], ...]


def to_plain(value: object) -> Any:
    """A frozen dataclass of plain values, enums, tuples and the like as JSON values."""
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [to_plain(item) for item in value]
    return value


def from_plain(kind: type[T], value: Any) -> T:
    """The `kind` that `to_plain` made `value` of. What is wrong is a `TypeError`, `KeyError` or `ValueError`."""
    found: T = _read(kind, value)
    return found


def plain_order(order: Order) -> list[Any]:
    """An order as JSON values. It may be about thousands of endpoints."""
    return [order.action, order.at, order.upstream, order.endpoints]


def order_of(value: list[Any]) -> Order:
    """What `plain_order` made `value` of. What is wrong is a `TypeError` or `ValueError`, where it is noticed."""
    action, at, upstream, endpoints = value
    return Order(action, at, upstream, tuple((host, port) for host, port in endpoints))


def plain_snapshot(snapshot: Snapshot) -> list[Any]:
    """A snapshot as JSON values. It may have thousands of endpoints, and come twenty times a second."""
    endpoints = [(one.host, one.port, one.weight, one.zone) for one in snapshot.endpoints]
    return [snapshot.upstream, snapshot.source, endpoints]


def snapshot_of(value: list[Any]) -> Snapshot:
    """What `plain_snapshot` made `value` of. What is wrong is a `TypeError` or `ValueError`, where it is noticed."""
    upstream, source, endpoints = value
    return Snapshot(upstream, tuple(Endpoint(*one) for one in endpoints), source)


def _read(kind: Any, value: Any) -> Any:
    if isinstance(kind, type) and is_dataclass(kind):
        return kind(**{name: _read(hint, value[name]) for name, hint in _hints(kind)})
    origin = typing.get_origin(kind)
    if origin is tuple:
        inner = typing.get_args(kind)
        if inner[-1] is Ellipsis:
            return tuple(_read(inner[0], item) for item in value)
        return tuple(_read(one, item) for one, item in zip(inner, value, strict=True))
    if origin is types.UnionType:
        if value is None:
            return None
        (kind,) = (choice for choice in typing.get_args(kind) if choice is not types.NoneType)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise TypeError(f"{value!r} is no {kind}")
    return value


@cache
def _hints(kind: type) -> tuple[tuple[str, Any], ...]:
    """The fields of a dataclass with their types. Kept, since reading the annotations takes longer than all the rest.

    There are as many as classes in `Settings`.
    """
    hints = typing.get_type_hints(kind)
    return tuple((field.name, hints[field.name]) for field in fields(kind))


def reload_message(settings: Settings, changed: Container[str]) -> dict[str, Any]:
    """What has a worker go by `settings`. changed: names of the upstreams that it does not have as they are now.

    It has all others: a thousand upstreams take a tenth of a second to read, in which a worker serves nobody.
    """
    other = tuple(upstream for upstream in settings.upstreams if upstream.name in changed)
    return {
        "kind": "reload",
        "settings": to_plain(replace(settings, upstreams=other)),
        "upstreams": [upstream.name for upstream in settings.upstreams],
    }


def reloaded_settings(message: Mapping[str, Any], known: Settings) -> Settings:
    """The settings of a `reload_message`. known: those of the worker. Raises as `from_plain` does."""
    found = from_plain(Settings, message["settings"])
    by_name = {upstream.name: upstream for upstream in (*known.upstreams, *found.upstreams)}
    return replace(found, upstreams=tuple(by_name[name] for name in message["upstreams"]))


def is_followed(settings: Settings, name: str) -> bool:
    """Whether the endpoints of the upstream `name` come from registries."""
    return any(upstream.name == name and not upstream.source.is_static for upstream in settings.upstreams)
