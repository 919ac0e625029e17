"""Walks a document against the schema and collects every finding on the way.

Decoders off the shelf (msgspec was tried) stop at the first problem and know no lines. Here every problem
becomes a finding at its line, and what is usable becomes the schema's frozen dataclasses.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

from sidecar.config.check_rules import JsonValue, NoSecret
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
from sidecar.config.field_rules import FieldName, FieldValue
from sidecar.config.findings import Findings, KeyPath, meant, shown
from sidecar.config.record import fields
from sidecar.config.rules import PORT, Authority, Later, Rule, Unusable, UpstreamName, later
from sidecar.config.schema import Host, Root
from sidecar.config.settings import Address, JsonField
from sidecar.config.socket_rules import EndpointHost, SocketPath
from sidecar.config.unset import UNSET, UnsetType
from sidecar.net.unix import is_unix

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.config.marks import Document

__all__ = ["decode"]

S = TypeVar("S")
Kind = (
    Rule[object]
    | Section
    | Named
    | Several
    | Ports
    | Sockets
    | Short
    | JsonFields
    | HeaderFields
    | Mapped
    | Later
)


def decode(document: Document, findings: Findings) -> Root:
    """The document in the schema's shape. What cannot be used is left out and told to `findings`."""
    if document.data is None:
        return Root()
    root = _Decoder(document, findings).section(Root, document.data, ())
    return Root() if isinstance(root, UnsetType) else root


class _Decoder:
    __slots__ = ("_document", "_findings")

    def __init__(self, document: Document, findings: Findings) -> None:
        self._document = document
        self._findings = findings

    def section(self, kind: type[S], value: object, path: KeyPath) -> S | UnsetType:
        """A mapping with fixed keys. What is wrong in it leaves a key out, not the whole."""
        entries = self._entries(value, path)
        if entries is None:
            return UNSET
        known = _kinds(cast("Any", kind))
        decoded: dict[str, object] = {}
        for key, item in entries.items():
            place = (*path, key)
            if key not in known:
                wanted = [name for name, rule in known.items() if not isinstance(rule, NoSecret)]
                hint = meant(key, wanted) or f"; known here are: {', '.join(wanted)}"
                self._say(place, f"unknown key{hint}")
                continue
            decoded[key] = self._value(known[key], item, place)
        return kind(**decoded)

    def _value(self, kind: Kind, value: object, path: KeyPath) -> object:
        if isinstance(kind, Later):
            # Before anything about the value: what it may be is not decided yet.
            self._say(path, later("", kind.planned))
            return UNSET
        if value is None:
            self._say(path, "has no value; give one or remove the key")
            return UNSET
        if isinstance(kind, Section):
            return self.section(kind.kind, value, path)
        if isinstance(kind, Named):
            return self._named(kind, value, path)
        if isinstance(kind, Several):
            return self._several(kind, value, path)
        if isinstance(kind, Ports):
            return self._listeners(kind.kind, value, path, _port_of)
        if isinstance(kind, Sockets):
            return self._listeners(kind.kind, value, path, SocketPath().from_text)
        if isinstance(kind, Short):
            if isinstance(value, dict):
                return self.section(kind.kind, value, path)
            return self._read(kind.rule, value, path)
        if isinstance(kind, JsonFields):
            return self._json_fields(kind, value, path)
        if isinstance(kind, HeaderFields):
            return self._header_fields(kind, value, path)
        if isinstance(kind, Mapped):
            return self._mapped(kind, value, path)
        return self._read(kind, value, path)

    def _read(self, rule: Rule[object], value: object, path: KeyPath) -> object:
        try:
            return rule.read(value, self._document.written(path))
        except Unusable as problem:
            self._say(path, str(problem))
            return UNSET

    def _named(self, kind: Named, value: object, path: KeyPath) -> object:
        entries = self._entries(value, path)
        if entries is None:
            return UNSET
        decoded: dict[str, object] = {}
        for name, item in entries.items():
            place = (*path, name)
            try:
                UpstreamName().accept(name)
            except Unusable as problem:
                self._say(place, str(problem))
                continue
            # `redis:` with nothing under it is a well-known service with all its built-ins.
            section = kind.kind() if item is None else self.section(kind.kind, item, place)
            if section is not UNSET:
                decoded[name] = section
        return decoded

    def _several(self, kind: Several, value: object, path: KeyPath) -> object:
        alone = isinstance(value, str) or (kind.numbers and isinstance(value, int | float))
        if alone and not isinstance(kind.item, Section):
            # One address needs no list. Its place is the key's own.
            item = self._read(kind.item, value, path)
            return UNSET if item is UNSET else (item,)
        if kind.sections and isinstance(value, dict) and isinstance(kind.item, Section):
            return (self._item(kind, kind.item.kind, value, path),)
        if not isinstance(value, list):
            self._say(path, f"must be a list of {kind.noun}; put each on a line of its own after `- `")
            return UNSET
        if not value:
            self._say(path, f"is an empty list; name {kind.noun} or remove the key")
            return UNSET
        if len(value) > kind.most:
            self._say(path, f"has {len(value)} {kind.noun}; {kind.most} is the most")
            return UNSET
        if isinstance(kind.item, Section):
            section = kind.item.kind
            return tuple(self._item(kind, section, item, (*path, index)) for index, item in enumerate(value))
        items = [self._value(kind.item, item, (*path, index)) for index, item in enumerate(value)]
        return tuple(item for item in items if item is not UNSET)

    def _item(self, kind: Several, section: type[Any], value: object, path: KeyPath) -> Any:
        """An item of a list; what cannot be used becomes an empty section, so that positions stay true."""
        if not isinstance(value, dict):
            if section is not Host:
                what = "a list" if isinstance(value, list) else shown(value)
                self._say(path, f"must be a mapping of keys to values, not {what}; write `key: value` lines")
                return section()
            if isinstance(value, str) and is_unix(value):
                host = self._value(EndpointHost(), value, path)
                return Host(host=host) if isinstance(host, str) else section()
            address = self._value(Authority(), value, path)
            return Host(host=address.host, port=address.port) if isinstance(address, Address) else section()
        placed = section is Host and is_unix(str(value.get("host")))  # a unix socket has no port
        for key in kind.required:
            if key not in value and not (placed and key == "port"):
                self._say(path, f"has no {key}; give one")
        item = self.section(section, value, path)
        return section() if isinstance(item, UnsetType) else item

    def _listeners(
        self, kind: type[Any], value: object, path: KeyPath, place_of: Callable[[str], object]
    ) -> object:
        """A mapping from what is listened on to whom it leads to. place_of: reads a key. Raises `Unusable`."""
        entries = self._entries(value, path)
        if entries is None:
            return UNSET
        decoded: dict[object, object] = {}
        for key, item in entries.items():
            place = (*path, key)
            try:
                where = place_of(key)
            except Unusable as problem:
                self._say(place, str(problem))
                continue
            if isinstance(item, dict):
                section: Any = self.section(kind, item, place)
                if "to" not in item:
                    self._say(place, "has no to; name the upstream, `to: NAME`")
            else:
                section = kind(to=self._value(UpstreamName(), item, place))
            if not isinstance(section.to, UnsetType):
                decoded[where] = section
        return decoded

    def _mapped(self, kind: Mapped, value: object, path: KeyPath) -> object:
        if kind.alone is not None and not isinstance(value, dict | list):
            key = self._read(kind.key, value, path)
            return UNSET if key is UNSET else ((key, kind.alone),)
        entries = self._entries(value, path)
        if entries is None:
            return UNSET
        if not 0 < len(entries) <= kind.most:
            self._say(path, f"names {len(entries)} {kind.noun}; use 1 to {kind.most}")
            return UNSET
        decoded: list[tuple[object, object]] = []
        for name, item in entries.items():
            place = (*path, name)
            try:
                key = kind.key.from_text(name)
            except Unusable as problem:
                self._say(place, str(problem))
                continue
            found = self._value(kind.value, item, place)
            if found is not UNSET:
                decoded.append((key, found))
        return tuple(decoded)

    def _json_fields(self, kind: JsonFields, value: object, path: KeyPath) -> object:
        entries = self._entries(value, path)
        if entries is None:
            return UNSET
        if not 0 < len(entries) <= kind.most:
            self._say(path, f"names {len(entries)} fields; use 1 to {kind.most}")
            return UNSET
        return tuple(self._json_field(name, item, (*path, name)) for name, item in entries.items())

    def _json_field(self, name: str, value: object, path: KeyPath) -> JsonField:
        if not all(name.split(".")):
            self._say(
                path, f"{shown(name)} is no way to a field; put one dot between names, `database.status`"
            )
        values = value if isinstance(value, list) else [value]
        if not values:
            self._say(path, "is an empty list; name a value that is accepted")
        places = [(*path, index) for index in range(len(values))] if isinstance(value, list) else [path]
        read = [self._value(JsonValue(), item, place) for item, place in zip(values, places, strict=True)]
        return JsonField(name, tuple(text for text in read if isinstance(text, str)))

    def _header_fields(self, kind: HeaderFields, value: object, path: KeyPath) -> object:
        entries = self._entries(value, path)
        if entries is None:
            return UNSET
        found: list[tuple[str, str]] = []
        spelt: dict[str, str] = {}
        for name, item in entries.items():
            place = (*path, name)
            try:
                read = FieldName(valued=True).from_text(name)
            except Unusable as problem:
                self._say(place, str(problem))
                continue
            before = spelt.setdefault(name.lower(), name)
            if before != name:
                self._say(place, f"is the same header as {shown(before)} before it; write it once")
            found += [(read, text) for text in self._header_values(kind, item, place)]
        if len(found) > kind.most:
            self._say(path, f"has {len(found)} values; {kind.most} is the most")
        return tuple(found)

    def _header_values(self, kind: HeaderFields, value: object, path: KeyPath) -> list[str]:
        if not isinstance(value, list):
            read = self._value(FieldValue(), value, path)
            return [read] if isinstance(read, str) else []
        if not kind.several:
            self._say(path, "is a list; give one value, or put them under `add`")
            return []
        texts = [self._value(FieldValue(), item, (*path, index)) for index, item in enumerate(value)]
        return [text for text in texts if isinstance(text, str)]

    def _entries(self, value: object, path: KeyPath) -> dict[str, object] | None:
        if isinstance(value, dict):
            return cast("dict[str, object]", value)
        what = "a list" if isinstance(value, list) else shown(value)
        problem = f"must be a mapping of keys to values, not {what}; write `key: value` lines"
        self._say(path, problem if path else f"the file {problem}")
        return None

    def _say(self, path: KeyPath, problem: str) -> None:
        self._document.report(self._findings, path, problem)


def _port_of(text: str) -> int:
    try:
        return PORT.from_text(text)
    except Unusable as problem:
        raise Unusable(f"the port {problem}") from None


@cache
def _kinds(kind: Any) -> dict[str, Kind]:
    """The keys of a section (a dataclass of the schema) and what each holds."""
    return {name: annotation.__metadata__[0] for name, annotation in fields(kind).items()}
