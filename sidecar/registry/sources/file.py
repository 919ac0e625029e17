"""Endpoints from a file: of a deployment that has no registry, or of a program that asks one of its own.

Whoever writes it should write another file and rename it over this one: a half-written file may well be valid.
"""

from __future__ import annotations

import logging
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from sidecar.config.addresses import parse_port
from sidecar.config.changes import changes
from sidecar.config.files import read_bounded, reason
from sidecar.config.findings import escaped
from sidecar.errors import SourceError
from sidecar.model import Snapshot
from sidecar.registry.sources.lists import Problem, listed, read_lists
from sidecar.registry.sources.source import Source
from sidecar.registry.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from sidecar.config.settings import RegistrySettings
    from sidecar.model import Endpoint
    from sidecar.registry.sources.source import Surroundings, Wanted

__all__ = ["MAX_BYTES", "FileSource"]

MAX_BYTES = 16 * 1024 * 1024  # of a file: ten thousand endpoints have about one
SHOWN = 5  # problems of one reading that the log names; the rest is counted

_log = logging.getLogger("sidecar.registry")


class FileSource(Source):
    """A YAML or JSON file with lists of endpoints, see `lists`. A service that it does not name has none."""

    def __init__(self, settings: RegistrySettings, surroundings: Surroundings) -> None:
        super().__init__(settings.name)
        self._path = settings.path
        self._every = settings.stale_after / 2
        self._told: frozenset[str] = frozenset()

    async def watch(self, wanted: Sequence[Wanted]) -> AsyncIterator[Snapshot | None]:
        """See `Source.watch`. A service of which nothing can be used fails the stream, after all others are told."""
        before: dict[str, tuple[Endpoint, ...]] = {}
        async with aclosing(changes(self._path, every=self._every)) as words:
            async for changed in words:
                if not changed:
                    yield None
                    continue
                reading = await in_thread(f"reading of {self._path}", partial(_read, self._path, wanted))
                self._warn(reading.problems)
                fresh = {
                    name: found for name, found in reading.endpoints.items() if before.get(name) != found
                }
                before |= fresh
                for upstream, endpoints in fresh.items():
                    yield Snapshot(upstream, endpoints, self.name)
                if reading.unusable:
                    more = f"; and {len(reading.unusable) - 1} more" if len(reading.unusable) > 1 else ""
                    raise SourceError(f"{reading.unusable[0]}{more}")
                if not fresh:
                    yield None

    def _warn(self, problems: list[Problem]) -> None:
        """Name what was not there at the last reading."""
        texts = {problem.about: problem.text for problem in problems}
        new = [text for about, text in texts.items() if about not in self._told]
        self._told = frozenset(texts)
        for text in new[:SHOWN]:
            _log.warning("%s", text)
        if len(new) > SHOWN:
            _log.warning("%s: and %d more like these", self._path, len(new) - SHOWN)


@dataclass(slots=True)
class _Reading:
    """What a file says of the upstreams that are wanted.

    endpoints: by upstream. unusable: why others are missing there. problems: what was left out of those.
    """

    endpoints: dict[str, tuple[Endpoint, ...]] = field(default_factory=dict)
    unusable: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def _read(path: str, wanted: Sequence[Wanted]) -> _Reading:
    """Read it all; to be called in a thread. Raises SourceError."""
    file = escaped(path)
    try:
        content = read_bounded(path, MAX_BYTES)
    except OSError as error:
        raise SourceError(f"{file}: {reason(error)}") from None
    services, problems = read_lists(file, content)
    reading = _Reading(problems=problems)
    for one in wanted:
        node = services.get(one.service)
        if node is None:
            reading.endpoints[one.upstream] = ()
            continue
        try:
            found, left_out = listed(file, one.service, node, _default_port(one))
        except SourceError as error:
            reading.unusable.append(str(error))
        else:
            reading.endpoints[one.upstream] = found
            reading.problems += left_out
    return reading


def _default_port(one: Wanted) -> int:
    """What an entry without a port has: what is asked for, if that is a number, else the upstream's own."""
    try:
        return parse_port(one.port)
    except ValueError:
        return one.default_port
