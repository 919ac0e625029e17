"""How long a regular expression may take, from what it is made of.

Python's `re` goes back and tries again, and holds the interpreter while it does: `(a+)+$` takes longer than anybody
lives on forty letters. So the ways are counted in which a match that begins at one place may be tried, each repeat in
as many as there are characters. A repeat is tried in one way only where a character follows that it does not match
itself: `"status"\\s*:\\s*"ok"` is quick, `.*up.*` is not.

What is counted is a bound and no measure: some that would be quick are refused too, and can be written another way.
"""

from __future__ import annotations

import re
import warnings
from importlib import import_module
from typing import Any, Final

__all__ = ["SEARCHED", "check_expression"]

SEARCHED: Final = 4096  # bytes of a body in which an expression is looked for
# Ways from each of `SEARCHED` places: one repeat without end and four alternatives, which take 0.1 s at most.
MOST_WAYS: Final = 4 * SEARCHED
_ADVICE: Final = (
    "use one `*`, `+` or `{m,n}`, several only where a character stands behind each that it does not match, "
    "and none or `|` within another; or look for plain text"
)
_CATEGORIES: Final = {
    "SPACE": r"\s",
    "DIGIT": r"\d",
    "WORD": r"\w",
}  # by the end of their names in `re`'s trees


def check_expression(pattern: str) -> None:
    """Raises ValueError, whose text goes on after the pattern: no regular expression, or one that may take too long."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # `[[a]` and the like, which will mean something else one day
        try:
            tree: Any = import_module("re._parser").parse(pattern)
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError, Warning) as error:
            said = str(error)[:1].lower() + str(error)[1:]
            raise ValueError(f"is no regular expression: {said}; correct it") from None
    if _Ways(tree.state).of(tree) > MOST_WAYS:
        raise ValueError(f"may take very long to be looked for; {_ADVICE}")


class _Ways:
    """Counts the ways in which parts of a parsed pattern may match. Numbers above `MOST_WAYS` are all the same.

    state: the parser's, which knows how wide groups are.
    """

    def __init__(self, state: Any) -> None:
        self._state = state

    def of(self, parts: Any) -> int:
        """The ways of a sequence: those of its parts one with another."""
        ways = most = 1
        repeat: Any = None  # the one before, and its ways
        for name, value in _flat(parts):
            if repeat is not None and _stops(repeat[0], name, value):
                ways //= repeat[1]
            here = self._of_one(name, value)
            repeat = (value[2], here) if name.endswith("_REPEAT") and here > 1 else None
            ways = min(ways * here, MOST_WAYS * SEARCHED)
            most = max(most, ways)
        return most

    def _of_one(self, name: str, value: Any) -> int:
        if name.endswith("_REPEAT"):
            fewest, most, inner = int(value[0]), min(int(value[1]), SEARCHED), value[2]
            within = self.of(inner)
            # One that has a choice in it has it each time.
            return max(most - fewest, 0) + 1 if within == 1 else int(within ** min(most, 64))
        if name == "BRANCH":
            return sum(self.of(choice) for choice in value[1])
        if name == "GROUPREF":  # what stood there is compared
            return SEARCHED if self._state.groupwidths[value][1] > SEARCHED else 1
        if name == "GROUPREF_EXISTS":
            return self.of(value[1]) + (self.of(value[2]) if value[2] else 1)
        if name in ("ASSERT", "ASSERT_NOT"):
            return self.of(value[1])
        if name == "ATOMIC_GROUP":
            return self.of(value)
        return 1


def _flat(parts: Any) -> list[tuple[str, Any]]:
    """The names and values of a sequence, with its groups opened."""
    found: list[tuple[str, Any]] = []
    for name, value in parts:
        if str(name) == "SUBPATTERN":
            found += _flat(value[3])
        else:
            found.append((str(name), value))
    return found


def _stops(repeated: Any, name: str, value: Any) -> bool:
    """Whether a repeat of `repeated` ends where the next part begins, and nowhere else."""
    if name == "LITERAL":
        following = [value]
    elif name == "IN" and all(str(kind) == "LITERAL" for kind, _ in value):
        following = [character for _, character in value]
    else:
        return False
    return not any(_takes(part, chr(character)) for part in _flat(repeated) for character in following)


def _takes(part: tuple[str, Any], character: str) -> bool:
    """Whether `part` may match `character`, in any case of it."""
    name, value = part
    if name not in ("LITERAL", "NOT_LITERAL", "IN") or not character.isascii():
        return True  # or nobody knows
    cases = {ord(character.lower()), ord(character.upper())}
    if name == "LITERAL":
        return value in cases
    if name == "NOT_LITERAL":
        return cases != {value}
    inside = any(_holds(str(kind), item, cases) for kind, item in value if str(kind) != "NEGATE")
    if str(value[0][0]) == "NEGATE":
        return not all(any(_holds(str(kind), item, {one}) for kind, item in value[1:]) for one in cases)
    return inside


def _holds(kind: str, item: Any, characters: set[int]) -> bool:
    """Whether one item of a class has one of the characters."""
    if kind == "LITERAL":
        return item in characters
    if kind == "RANGE":
        return any(item[0] <= one <= item[1] for one in characters)
    negated, what = "_NOT_" in str(item), _CATEGORIES[str(item).rpartition("_")[2]]
    return any((re.match(what, chr(one)) is None) is negated for one in characters)
