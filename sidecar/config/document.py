"""A YAML file as plain data, with the line of every key: what messages point at.

PyYAML's composed nodes carry marks where its constructed data does not, so the data is built here from the
nodes. Only what a configuration needs comes out: str, int, float, bool, None, list and dict with str keys.
Everything is bounded: the file's size, the nesting, and the number of values after aliases are followed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import yaml

from sidecar.config.findings import Findings, KeyPath, key_text, shown
from sidecar.config.marks import Document, Mark

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MAX_BYTES", "MAX_DEPTH", "MAX_VALUES", "read_document"]

MAX_BYTES: Final = 4 * 1024 * 1024  # a thousand upstreams of a thousand bytes, four times over
MAX_DEPTH: Final = 32  # the deepest key of the schema is at 7
MAX_VALUES: Final = 200_000  # after aliases: nine lines of "billion laughs" would otherwise be 10^9 values

# libyaml's parser is C and ten times faster; PyYAML without it reads the same.
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SCALARS: Final = yaml.constructor.SafeConstructor()
_MERGE: Final = "tag:yaml.org,2002:merge"
_MAP: Final = "tag:yaml.org,2002:map"
_SEQUENCE: Final = "tag:yaml.org,2002:seq"
_NULL: Final = "tag:yaml.org,2002:null"
_BOOL: Final = "tag:yaml.org,2002:bool"
_INT: Final = "tag:yaml.org,2002:int"
_FLOAT: Final = "tag:yaml.org,2002:float"
# Dates and the lone `=` have no use here: what was written is what was meant.
_TEXT: Final = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("str", "timestamp", "value", "merge"))


_TOO_DEEP: Final = f"nests deeper than {MAX_DEPTH} levels; nothing in a configuration does, flatten it"
_PLAIN_INT: Final = re.compile(r"0|[1-9][0-9]{0,19}")  # no sign, octal, hexadecimal or sexagesimal


class _Unreadable(Exception):  # noqa: N818 - it ends the reading, it is no error of the program
    """The file cannot be taken further; carries the one finding about it."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line
        self.problem = problem


def read_document(file: str, content: bytes, findings: Findings) -> Document | None:
    """Parse a file's bytes. What is wrong goes to `findings`; None when nothing can be made of it."""
    try:
        text = _decoded(content)
        _check_shape(text)
        root = yaml.compose(text, Loader=_LOADER)
        builder = _Builder(file, findings)
        data = None if root is None else builder.value(root, (), 0)
    except _Unreadable as end:
        findings.add(file, end.line, "", end.problem)
        return None
    except yaml.YAMLError as error:
        findings.add(file, *_explained(error, text))
        return None
    return Document(file, data, builder.marks)


def _decoded(content: bytes) -> str:
    if len(content) > MAX_BYTES:
        raise _Unreadable(0, "is larger than 4 MiB; a configuration is not, check the file name")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _Unreadable(line, "is not UTF-8 text; save the file as UTF-8") from None


def _check_shape(text: str) -> None:
    """Refuse deep nesting before composing: libyaml's composer recurses in C and would overrun the stack."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise _too_deep(_line(event))
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _too_deep(line: int) -> _Unreadable:
    return _Unreadable(line, _TOO_DEEP)


def _explained(error: yaml.YAMLError, text: str) -> tuple[int, str, str]:
    """Line, key and problem of a syntax error."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 0
        detail = " ".join(part for part in (error.context, error.problem) if part)
        if "maximum nesting depth" in detail:  # newer libyaml looks ahead and stops by itself, at a thousand
            return line, "", _TOO_DEEP
        return (
            line,
            "",
            f"is not valid YAML: {detail}; check indentation, quotes and brackets here and just above",
        )
    position = getattr(error, "position", 0)
    # libyaml counts bytes, PyYAML's own reader characters; before the fault both are nearly always the same.
    line = text.encode().count(b"\n", 0, position) + 1
    reason = getattr(error, "reason", "unreadable characters")
    return line, "", f"is not valid YAML: {reason}; remove the character"


class _Builder:
    """Turns nodes into data and marks, following aliases and merge keys."""

    __slots__ = ("_file", "_findings", "_open", "_values", "marks")

    def __init__(self, file: str, findings: Findings) -> None:
        self._file = file
        self._findings = findings
        self._open: set[int] = set()  # ids of the collections being built: one met again contains itself
        self._values = 0
        self.marks: dict[KeyPath, Mark] = {}

    def value(self, node: yaml.Node, path: KeyPath, depth: int) -> object:
        """The data of `node`, which stands at `path`."""
        self._count(node)
        line = self.marks[path].line if path else _line(node)
        if isinstance(node, yaml.ScalarNode):
            self.marks[path] = Mark(line, node.value)
            return self._scalar(node, path)
        self.marks[path] = Mark(line)
        if depth >= MAX_DEPTH:
            raise _too_deep(_line(node))
        self._enter(node)
        built = self._collection(node, path, depth + 1)
        self._open.discard(id(node))
        return built

    def _collection(self, node: yaml.Node, path: KeyPath, depth: int) -> object:
        if isinstance(node, yaml.SequenceNode):
            if node.tag != _SEQUENCE:
                self._unused_tag(node, path)
            items: list[object] = []
            for index, item in enumerate(node.value):
                place = (*path, index)
                self.marks[place] = Mark(_line(item))
                items.append(self.value(item, place, depth))
            return items
        if node.tag != _MAP:
            self._unused_tag(node, path)
        return self._mapping(node, path, depth)

    def _mapping(self, node: yaml.Node, path: KeyPath, depth: int) -> dict[str, object]:
        result: dict[str, object] = {}
        for key_node, value_node, own in self._pairs(node):
            key = self._key(key_node, path)
            place = (*path, key)
            if key in result:
                if own:
                    problem = f"is there twice, first on line {self.marks[place].line}; keep one of the two"
                    self._findings.add(self._file, _line(key_node), key_text(place), problem)
                continue  # a mapping's own keys win over merged ones, and the first merged one over the next
            self.marks[place] = Mark(_line(key_node))
            result[key] = self.value(value_node, place, depth)
        return result

    def _pairs(self, node: yaml.Node) -> Iterator[tuple[yaml.Node, yaml.Node, bool]]:
        """Keys and values of a mapping, its own first, then those that `<<` brings in."""
        bases: list[yaml.Node] = []
        for key_node, value_node in node.value:
            if key_node.tag != _MERGE:
                yield key_node, value_node, True
            elif isinstance(value_node, yaml.SequenceNode):
                bases.extend(value_node.value)
            else:
                bases.append(value_node)
        for base in bases:
            if not isinstance(base, yaml.MappingNode):
                raise _Unreadable(
                    _line(base), "merges something that is no mapping; give `<<` an alias of a mapping"
                )
            self._enter(base)
            for key_node, value_node, _ in self._pairs(base):
                self._count(key_node)
                yield key_node, value_node, False
            self._open.discard(id(base))

    def _key(self, node: yaml.Node, path: KeyPath) -> str:
        """A key as text. Whole numbers are fine (ports); whatever else YAML does not read as text is not."""
        if not isinstance(node, yaml.ScalarNode):
            problem = "has a list or a mapping where a key should be; write plain text before the colon"
            raise _Unreadable(_line(node), problem)
        key = str(node.value)
        if node.tag not in _TEXT and not (node.tag == _INT and _PLAIN_INT.fullmatch(key)):
            value = str(self._scalar(node, path)).lower()
            problem = f"the key {shown(key)} is read by YAML as {shown(value)}; quote it, or write it plainly"
            self._findings.add(self._file, _line(node), key_text(path), problem)
        return key

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> object:
        tag, written = node.tag, node.value
        if tag in _TEXT:
            return written
        if tag == _NULL:
            return None
        try:
            if tag == _BOOL:
                return bool(_SCALARS.construct_yaml_bool(node))
            if tag == _INT:
                return int(_SCALARS.construct_yaml_int(node))
            if tag == _FLOAT:
                return float(_SCALARS.construct_yaml_float(node))
        except (ValueError, KeyError, IndexError, OverflowError):
            # Such as a number of five thousand digits, or `!!int` before a word: for the schema to judge.
            return written
        self._unused_tag(node, path)
        return written

    def _unused_tag(self, node: yaml.Node, path: KeyPath) -> None:
        problem = f"the YAML tag {shown(node.tag)} has no meaning here; remove it"
        self._findings.add(self._file, _line(node), key_text(path), problem)

    def _enter(self, node: yaml.Node) -> None:
        if id(node) in self._open:
            raise _Unreadable(_line(node), "contains itself through an alias; write the value out")
        self._open.add(id(node))

    def _count(self, node: yaml.Node) -> None:
        self._values += 1
        if self._values > MAX_VALUES:
            problem = f"holds more than {MAX_VALUES} values once aliases are followed; use fewer aliases"
            raise _Unreadable(_line(node), problem)


def _line(at: yaml.Node | yaml.Event) -> int:
    return int(at.start_mark.line) + 1 if at.start_mark is not None else 0
