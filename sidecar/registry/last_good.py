"""The last good snapshots on disk: what a restart serves while a registry is out of reach.

```json
{"version": 1, "snapshots": [
{"source": "consul", "upstream": "api", "saved_at": 1700000000.0, "endpoints": [
{"host": "10.0.0.7", "port": 8001},
{"host": "10.0.0.8", "port": 8001, "weight": 2, "zone": "a"}]}]}
```
The file is replaced as a whole, by a rename: whenever the process or the machine stops, it is that of before or the new
one. Nothing here is worth failing for: what cannot be read is as if it were not there, and what cannot be written is a
warning.
"""

from __future__ import annotations

import glob
import json
import logging
import os
import tempfile
from contextlib import suppress
from functools import partial
from math import isfinite
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sidecar.config.files import read_bounded, reason
from sidecar.config.findings import escaped, shown
from sidecar.registry.sources.entries import endpoint_from_fields
from sidecar.registry.sources.source import MAX_ENDPOINTS
from sidecar.registry.threads import in_thread, with_pauses

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sidecar.clock import Clock
    from sidecar.model import Endpoint

__all__ = ["Kept", "LastGood", "Saved"]

VERSION: Final = 1
MAX_BYTES: Final = 64 * 1024 * 1024  # half a million endpoints
SKEW: Final = 60.0  # seconds that a moment may be in the future: clocks are set
LEFT_OVER: Final = 60.0  # seconds after which a temporary file is no other process's that writes now
SHOWN: Final = 5  # snapshots that a warning names; the rest is counted

_log = logging.getLogger("sidecar.registry")


class Saved(NamedTuple):
    """One upstream's endpoints as one source has given them. at: when it last said so, seconds since the epoch, UTC."""

    endpoints: tuple[Endpoint, ...]
    at: float


Kept = dict[tuple[str, str], Saved]  # by source and upstream


class LastGood:
    """One file. file: empty for nowhere, then there is never anything. max_age: seconds."""

    def __init__(self, file: str, max_age: float, clock: Clock) -> None:
        self._file = file
        self._max_age = max_age
        self._clock = clock
        self._trouble = ""
        self._lock = Lock()  # around writing, of which cancelled ones may go on
        self._given = 0
        self._written = 0

    def load(self) -> Kept:
        """What was saved and is young enough; also takes away what an interrupted writing has left.

        To be called before there is anything else to do: ten thousand endpoints take a tenth of a second.
        """
        if not self._file:
            return {}
        self._tidy()
        try:
            content = read_bounded(self._file, MAX_BYTES)
        except FileNotFoundError:
            return {}
        except OSError as error:
            self._ignore(f"it cannot be read: {reason(error)}")
            return {}
        try:
            document = json.loads(content)
        except (ValueError, RecursionError):
            self._ignore("it is damaged: no JSON")
            return {}
        if not isinstance(document, dict) or not isinstance(document.get("snapshots"), list):
            self._ignore("it is damaged, or another program's: it holds no snapshots")
            return {}
        if document.get("version") != VERSION:
            self._ignore(
                f"it is of version {shown(document.get('version'))}, and this sidecar reads {VERSION}"
            )
            return {}
        return self._usable(document["snapshots"])

    async def save(self, kept: Mapping[tuple[str, str], Saved]) -> None:
        """Replace what the file holds by `kept`, by source and upstream, in a thread.

        Never raises: why it cannot be written is logged once, and again when that changes.
        """
        if not self._file:
            return
        self._given += 1
        try:
            await in_thread(f"writing of {self._file}", partial(self._write, self._given, dict(kept)))
        except OSError as error:
            self._complain(reason(error))
        except Exception as error:  # what is kept for a worse day is not to spoil this one
            self._complain(f"{type(error).__name__}: {error}")
        else:
            if self._trouble:
                self._trouble = ""
                _log.info("%s: the last good snapshots are kept again", escaped(self._file))

    # Reading

    def _usable(self, snapshots: list[Any]) -> Kept:
        kept: Kept = {}
        refused: dict[str, list[str]] = {}
        now = self._clock.wall()
        for snapshot in snapshots:
            try:
                key, saved, left_out = _read_snapshot(snapshot)
            except (ValueError, TypeError, KeyError, OverflowError):
                refused.setdefault("damaged", []).append(shown(snapshot))
                continue
            name = f"{escaped(key[0])}/{escaped(key[1])}"
            if saved.at > now + SKEW:
                refused.setdefault("from the future (is the clock of this host right?)", []).append(name)
            elif now - saved.at > self._max_age:
                refused.setdefault(f"older than {self._max_age:g} s", []).append(name)
            else:
                kept[key] = saved
                if left_out:
                    refused.setdefault("damaged in part", []).append(name)
        if refused:
            self._ignore("; ".join(f"{why}: {_some(names)}" for why, names in refused.items()))
        return kept

    def _ignore(self, why: str) -> None:
        _log.warning(
            "%s: last good snapshots are not used: %s; nothing has to be done, the file is written anew when"
            " registries have answered",
            escaped(self._file),
            why,
        )

    # Writing

    def _complain(self, why: str) -> None:
        if why == self._trouble:
            return
        self._trouble = why
        _log.warning(
            "%s: the last good snapshots cannot be kept: %s; a restart while a registry is out of reach will have"
            " those of before, if any: let this process write there, or choose another place (sidecar.last_good)",
            escaped(self._file),
            escaped(why),
        )

    def _write(self, number: int, kept: Kept) -> None:
        """Write it and put it in place; in a thread. number: of this writing; an older one comes too late."""
        with self._lock:
            if number < self._written:
                return
            target = Path(self._file)
            target.parent.mkdir(mode=0o700, exist_ok=True)
            descriptor, name = tempfile.mkstemp(".tmp", f".{target.name}.", target.parent)  # of mode 0600
            temporary = Path(name)
            try:
                with os.fdopen(descriptor, "wb") as out:
                    for line in with_pauses(_lines(kept), 200):
                        out.write(line)
                    out.flush()
                    os.fsync(descriptor)
                temporary.replace(target)
            except BaseException:
                with suppress(OSError):
                    temporary.unlink()
                raise
            self._written = number
            _sync_directory(target.parent)

    def _tidy(self) -> None:
        """Remove temporary files that nobody is going to rename."""
        target = Path(self._file)
        with suppress(OSError):
            for temporary in target.parent.glob(f".{glob.escape(target.name)}.*.tmp"):
                if self._clock.wall() - temporary.stat().st_mtime > LEFT_OVER:
                    temporary.unlink()


def _read_snapshot(snapshot: Any) -> tuple[tuple[str, str], Saved, int]:
    """Source and upstream, what was saved, and how many endpoints of it are damaged.

    Raises ValueError, TypeError, KeyError or OverflowError for what cannot be used.
    """
    source, upstream, at = snapshot["source"], snapshot["upstream"], snapshot["saved_at"]
    entries = snapshot["endpoints"]
    if not (isinstance(source, str) and isinstance(upstream, str) and isinstance(entries, list)):
        raise TypeError
    if isinstance(at, bool) or not isfinite(at):
        raise ValueError
    found: dict[tuple[str, int], Endpoint] = {}
    for entry in entries[:MAX_ENDPOINTS]:
        with suppress(ValueError, TypeError, AttributeError):
            fields = {name: str(value) for name, value in entry.items()}
            endpoint = endpoint_from_fields(fields, 0, _refuse)
            found[endpoint.key] = endpoint
    if entries and not found:
        raise ValueError
    return (source, upstream), Saved(tuple(found.values()), float(at)), len(entries) - len(found)


def _refuse(problem: str) -> None:
    """What a person may get wrong in a file, this program does not write."""
    raise ValueError(problem)


def _lines(kept: Kept) -> Iterator[bytes]:
    """The file, an endpoint a line."""
    yield b'{"version": %d, "snapshots": [' % VERSION
    between = "\n"
    for (source, upstream), saved in kept.items():
        head = {"source": source, "upstream": upstream, "saved_at": saved.at, "endpoints": []}
        yield f"{between}{json.dumps(head)[:-2]}".encode()
        inner = "\n"
        for endpoint in saved.endpoints:
            yield f"{inner}{json.dumps(_fields(endpoint))}".encode()
            inner = ",\n"
        yield b"]}"
        between = ",\n"
    yield b"]}\n"


def _fields(endpoint: Endpoint) -> dict[str, str | int]:
    fields: dict[str, str | int] = {"host": endpoint.host, "port": endpoint.port}
    if endpoint.weight != 1:
        fields["weight"] = endpoint.weight
    if endpoint.zone:
        fields["zone"] = endpoint.zone
    return fields


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"


def _sync_directory(directory: Path) -> None:
    """Let the rename outlive a loss of power (fsync(2)). Some file systems know no such thing: it is no fault then."""
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
