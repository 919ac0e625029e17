"""Frozen records that cost nothing to declare.

`dataclasses` writes and compiles six methods for each class, a millisecond of every start; the schema and its
rules are some thirty classes, and `sidecar url` would spend a fifth of its time on them. To a type checker a
`Record` is a frozen dataclass (PEP 681).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, dataclass_transform

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Record", "fields"]


@dataclass_transform(frozen_default=True)
class Record:
    """Values in the order of a class's annotations, bases first; what is assigned to one is its default.

    A default is one object for all instances, so that it must not be one that changes. Raises `TypeError` for
    a name that is not the class's, is given twice, or is missing.
    """

    _fields: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls) -> None:
        cls._fields = cls._fields | cls.__annotations__

    def __init__(self, *values: object, **named: object) -> None:
        kind = type(self)
        given = dict(zip(kind._fields, values, strict=False))
        for name in named:
            if name not in kind._fields or name in given:
                raise TypeError(f"{kind.__name__} does not take {name}, or not twice")
        if len(values) > len(given):
            raise TypeError(f"{kind.__name__} takes {len(given)} values, not {len(values)}")
        given |= named
        for name in kind._fields:
            if name not in given and not hasattr(kind, name):
                raise TypeError(f"{kind.__name__} needs {name}")
        self.__dict__.update(given)

    def __setattr__(self, name: str, _value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is frozen, {name} stays as it is")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is frozen, {name} stays as it is")

    def __eq__(self, other: object) -> bool:
        return _values(self) == _values(other) if type(self) is type(other) else NotImplemented

    def __hash__(self) -> int:
        return hash(_values(self))

    def __repr__(self) -> str:
        told = (f"{name}={getattr(self, name)!r}" for name in self._fields)
        return f"{type(self).__name__}({', '.join(told)})"


def fields(kind: type[Record]) -> Mapping[str, Any]:
    """The names of a record's values, and what each is annotated with."""
    return kind._fields


def _values(record: Any) -> tuple[object, ...]:
    return tuple(getattr(record, name) for name in record._fields)
