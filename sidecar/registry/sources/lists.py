"""A file that lists the endpoints of services, in YAML or JSON.

```yaml
ai-workers:                                         # a service, as registries call it
  - ai-worker-01.autobot.prod:8080
  - {host: ai-worker-02.autobot.prod, port: 8080, weight: 2, zone: a}
redis: []                                           # nobody serves it now
```
YAML is read event by event (https://pyyaml.org/wiki/PyYAMLDocumentation, "Events"), a fifth of the time and a small
part of the memory that its nodes take; all scalars are text here, so that nothing is lost by it. Nesting and aliases
cannot make more of it than it is: what is deeper than a list of mappings is passed over, and an alias is the value that
it stands for, no copy.
"""

from __future__ import annotations

import json
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import yaml

from sidecar.config.findings import escaped, key_text, shown
from sidecar.errors import SourceError
from sidecar.registry.sources.entries import endpoint_from_fields, endpoint_from_text
from sidecar.registry.sources.source import MAX_ENDPOINTS
from sidecar.registry.threads import pause, with_pauses

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sidecar.model import Endpoint

__all__ = ["Node", "Problem", "listed", "read_lists"]

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is ten times faster
_LIST, _FIELDS, _FIELD = 1, 2, 3  # depths in the mapping of services
MAX_PROBLEMS: Final = 100  # of one service that are told apart: a file may hold a million
_NULLS: Final = ("", "~", "null", "Null", "NULL")  # https://yaml.org/type/null.html


class _Pairs(list["tuple[str, Node]"]):
    """A mapping as it is written, doubles included."""


class _Wrong(Enum):
    """What stands for the value of a field that has none."""

    NESTED = "is no single value"
    TWICE = "is there twice"


class Node(NamedTuple):
    """A value. line: where it begins, from 1; 0 in JSON. data: None where it is nested too deep to be anything here.

    Of the fields of an entry there is nothing but text: a hundred thousand nodes more would hold up the whole process
    when garbage is collected, to which texts and mappings of texts are nothing.
    """

    line: int
    data: str | list[Node] | _Pairs | dict[str, str | _Wrong] | None


class Problem(NamedTuple):
    """Something that was left out. about: service and entry, without their place, which other entries may change."""

    about: str
    text: str


def read_lists(file: str, content: bytes) -> tuple[dict[str, Node], list[Problem]]:
    """What is written for each service, and what is wrong with it. file: for messages.

    Raises SourceError for a file that is not valid at all.
    """
    root = _root(file, content)
    if not isinstance(root.data, _Pairs):
        what = "is empty" if root.data == "" else "is no mapping of services"
        raise SourceError(f"{file}: {what}; write `service: [host:port, ...]`, or {{}} where there is none")
    problems = []
    services: dict[str, Node] = {}
    for name, node in root.data:
        if name in services:
            text = _placed(file, node.line, (name,), "is there twice; what is written last counts")
            problems.append(Problem(f"{name} twice", text))
        services[name] = node
    return services, problems


def listed(file: str, name: str, node: Node, default_port: int) -> tuple[tuple[Endpoint, ...], list[Problem]]:
    """The endpoints of one service in their order, each once, and what was left out.

    default_port: of entries without one; 0 if they have to have it. Raises SourceError for what is no list, and for a
    list with entries of which none can be used: that is no word that there are none.
    """
    if not isinstance(node.data, list):
        raise SourceError(
            _placed(file, node.line, (name,), "is no list of endpoints; write [] where there is none")
        )
    found: dict[tuple[str, int], Endpoint] = {}
    problems: list[Problem] = []
    for position, entry in enumerate(with_pauses(node.data, 100)):
        if len(found) >= MAX_ENDPOINTS:
            text = f"has more than {MAX_ENDPOINTS} endpoints; those from here on are left out"
            problems.append(Problem(f"{name} too many", _placed(file, entry.line, (name, position), text)))
            break
        complaints: list[str] = []
        try:
            endpoint = _endpoint(entry, default_port, complaints)
        except ValueError as error:
            complaints.append(f"{error}; it is left out")
        else:
            if endpoint.key in found:
                complaints.append(f"{shown(endpoint.address)} is there twice; what is written first counts")
            else:
                found[endpoint.key] = endpoint
        if len(problems) < MAX_PROBLEMS:
            place = (name, position)
            problems += [
                Problem(f"{name} {text}", _placed(file, entry.line, place, text)) for text in complaints
            ]
    if node.data and not found:
        first = problems[0].text
        raise SourceError(
            f"{first}; and so are all others of {shown(name)}: write [] where there is none"
            if len(node.data) > 1
            else f"{first}, and {shown(name)} has no other: write [] where there is none"
        )
    return tuple(found.values()), problems


def _endpoint(entry: Node, default_port: int, complaints: list[str]) -> Endpoint:
    """One entry's. Raises ValueError."""
    if isinstance(entry.data, str):
        return endpoint_from_text(entry.data, default_port)
    if not isinstance(entry.data, dict):
        raise ValueError("is neither host:port nor {host: ..., port: ...}")  # noqa: TRY004 - no mistake of the program
    fields = {}
    for name, value in entry.data.items():
        if isinstance(value, _Wrong):
            raise ValueError(f"{shown(name)} {value.value}")  # noqa: TRY004 - as above
        fields[name] = value
    return endpoint_from_fields(fields, default_port, complaints.append)


def _placed(file: str, line: int, path: tuple[str | int, ...], problem: str) -> str:
    place = f"{escaped(file)}:{line}" if line else escaped(file)
    return f"{place}: {key_text(path)}: {problem}"


# JSON and YAML


def _root(file: str, content: bytes) -> Node:
    """The whole file. Raises SourceError.

    JSON is read as such where the name says so, or where it begins like it: that is twenty times faster. What then
    turns out to be none may still be YAML, which has braces too.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SourceError(f"{file}:{line}: is not UTF-8 text; save the file as UTF-8") from None
    named_json = file.endswith(".json")
    if named_json or text.lstrip()[:1] == "{":
        try:
            return _from_json(json.loads(text, object_pairs_hook=_Objects()), 0)
        except (ValueError, RecursionError) as error:
            if named_json:
                place = f"{file}:{error.lineno}" if isinstance(error, json.JSONDecodeError) else file
                said = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
                raise SourceError(f"{place}: is not valid JSON: {said}") from None
    try:
        return _YamlReader(text).root()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 0
        said = " ".join(part for part in (error.context, error.problem) if part)
        raise SourceError(f"{file}:{line}: is not valid YAML: {escaped(said)}") from None
    except yaml.YAMLError as error:  # a character that YAML does not have
        said = " ".join(str(error).split())
        raise SourceError(f"{file}: is not valid YAML: {escaped(said)}") from None


class _Objects:
    """Builds the objects of JSON: as a dict, or as pairs where a name is there twice."""

    __slots__ = ("_built",)

    def __init__(self) -> None:
        self._built = 0

    def __call__(self, pairs: list[tuple[str, Any]]) -> dict[str, Any] | _JsonPairs:
        self._built += 1
        if not self._built % 100:
            pause()
        found = dict(pairs)
        return found if len(found) == len(pairs) else _JsonPairs(pairs)


class _JsonPairs(list[tuple[str, Any]]):
    """An object, to be told from an array."""


def _from_json(value: object, depth: int) -> Node:
    if isinstance(value, str):
        return Node(0, value)
    if value is None:
        return Node(0, "")
    if isinstance(value, (dict, _JsonPairs)):
        pairs = value.items() if isinstance(value, dict) else value
        if not depth:
            return Node(0, _Pairs([(name, _from_json(item, _LIST)) for name, item in pairs]))
        if depth == _FIELDS:
            return Node(0, _fields((name, _from_json(item, _FIELD)) for name, item in pairs))
        return Node(0, None)
    if isinstance(value, list):
        listing = depth <= _LIST
        return Node(0, [_from_json(item, depth + 1) for item in with_pauses(value, 100)] if listing else None)
    return Node(0, json.dumps(value))


def _fields(pairs: Iterable[tuple[str, Node]]) -> dict[str, str | _Wrong]:
    fields: dict[str, str | _Wrong] = {}
    for name, value in pairs:
        data = value.data if isinstance(value.data, str) else _Wrong.NESTED
        fields[name] = _Wrong.TWICE if name in fields else data
    return fields


class _YamlReader:
    """Builds nodes from the events of one document."""

    __slots__ = ("_anchors", "_events")

    def __init__(self, text: str) -> None:
        self._events: Iterator[Any] = with_pauses(yaml.parse(text, Loader=_LOADER), 1000)
        self._anchors: dict[str, Node] = {}

    def root(self) -> Node:
        """The one document; an empty text where there is none. Raises yaml.YAMLError."""
        node = Node(0, "")
        documents = 0
        event: Any  # PyYAML's own types know neither marks nor anchors
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _invalid("a second document begins", event)
            elif isinstance(event, yaml.NodeEvent):
                node = self._node(event, 0)
        return node

    def _node(self, event: Any, depth: int) -> Node:
        anchor: Any = event.anchor
        if isinstance(event, yaml.AliasEvent):
            known = self._anchors.get(anchor)
            if known is None:
                raise _invalid(f"the alias {shown(anchor)} stands for nothing before it", event)
            return known
        line = event.start_mark.line + 1
        if isinstance(event, yaml.ScalarEvent):
            null = event.implicit[0] and event.value in _NULLS
            node = Node(line, "" if null else event.value)
        elif isinstance(event, yaml.SequenceStartEvent) and depth <= _LIST:
            node = Node(line, [self._node(item, depth + 1) for item in self._items()])
        elif isinstance(event, yaml.MappingStartEvent) and not depth:
            node = Node(line, _Pairs(self._pairs(_LIST)))
        elif isinstance(event, yaml.MappingStartEvent) and depth == _FIELDS:
            node = Node(line, _fields(self._pairs(_FIELD)))
        else:
            self._pass_over()
            node = Node(line, None)
        if anchor is not None:
            self._anchors[anchor] = node
        return node

    def _pairs(self, depth: int) -> Iterator[tuple[str, Node]]:
        for event in self._items():
            key = self._node(event, _FIELD)
            if not isinstance(key.data, str):
                raise _invalid("a list or a mapping stands where a name should", event)
            yield key.data, Node(key.line, self._node(next(self._events), depth).data)

    def _items(self) -> Iterator[Any]:
        """Events until the collection that has just begun ends; who takes one takes all that belongs to it."""
        for event in self._events:
            if isinstance(event, yaml.CollectionEndEvent):
                return
            yield event

    def _pass_over(self) -> None:
        depth = 1
        for event in self._events:
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
                if not depth:
                    return


def _invalid(problem: str, event: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
