"""What holds values in a configuration file: sections, lists and mappings. The schema names them beside its keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sidecar.config.record import Record

if TYPE_CHECKING:
    from sidecar.config.rules import Rule

__all__ = ["HeaderFields", "JsonFields", "Mapped", "Named", "Ports", "Section", "Several", "Short", "Sockets"]


class Section(Record):
    """A mapping with the fixed keys of `kind`."""

    kind: type[Any]


class Named(Record):
    """A mapping from upstream names to sections of `kind`."""

    kind: type[Any]


class Several(Record):
    """A list of up to `most` items, called `noun`. An item that is a section may be `host:port` text instead.

    required: keys that each section must have. numbers: one number needs no list either. sections: nor one section.
    """

    item: Rule[object] | Section
    most: int
    noun: str
    required: tuple[str, ...] = ()
    numbers: bool = False
    sections: bool = False


class Short(Record):
    """A section of `kind`, or one value of `rule` that stands for it."""

    kind: type[Any]
    rule: Rule[object]


class JsonFields(Record):
    """A mapping from the ways to fields of a JSON document to the value, or a list of values, that each may have."""

    most: int


class HeaderFields(Record):
    """A mapping from names of header fields to what they hold, up to `most` values. several: of one name as a list."""

    most: int
    several: bool = False


class Mapped(Record):
    """A mapping of up to `most` entries, called `noun`, from texts of `key` to values of `value`: pairs, in order.

    alone: the value that one text has, which needs no mapping then; None where a mapping is needed.
    """

    key: Rule[str]
    value: Rule[object]
    most: int
    noun: str
    alone: object = None


class Ports(Record):
    """A mapping from port numbers to upstream names, or to sections of `kind` whose `to` is one."""

    kind: type[Any]


class Sockets(Record):
    """A mapping from the paths of unix sockets to the same."""

    kind: type[Any]
