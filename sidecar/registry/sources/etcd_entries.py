"""What is under a key of etcd: an endpoint as a service's instance has written it, and all of one service's.

`<prefix>/<service>/<identity>` holds `{"host": "10.0.0.1", "port": 8080, "weight": 2, "zone": "a"}`. `address` is as
good as `host`; a text that is no JSON may be `host:port`.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sidecar.config.addresses import is_address, parse_authority, parse_host
from sidecar.config.rules import Unusable, ZoneName
from sidecar.errors import SourceError
from sidecar.model import Endpoint, Snapshot
from sidecar.registry.sources.etcd_gateway import from_base64, number, prefix_end, to_base64
from sidecar.registry.sources.http import AT_A_TIME
from sidecar.registry.sources.source import MAX_ENDPOINTS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sidecar.registry.sources.source import Wanted

__all__ = ["Complaints", "Entry", "Service", "entry_key", "entry_value", "parse_entry"]

MAX_VALUE = 8192  # bytes of one entry; those that are known have about a hundred
MAX_WEIGHT = 256
SHOWN = 200  # bytes of a key that a message repeats
# Below this share of MAX_ENDPOINTS a service of which some are left out is listed again, to have them after all.
ROOM_AGAIN = 0.9

_log = logging.getLogger("sidecar.registry")


@dataclass(frozen=True, slots=True)
class Entry:
    """One endpoint as it was written. port: 0 where the entry has none."""

    host: str
    port: int
    weight: int = 1
    zone: str = ""


def entry_key(prefix: str, service: str, identity: str = "") -> str:
    """Where an instance is; without `identity`, what the keys of all of a service's begin with."""
    return f"{prefix}/{service}/{identity}"


def entry_value(entry: Entry) -> str:
    """What `parse_entry` reads."""
    fields: dict[str, Any] = {"host": entry.host, "port": entry.port, "weight": entry.weight}
    return json.dumps(fields | ({"zone": entry.zone} if entry.zone else {}))


def parse_entry(value: bytes) -> Entry:
    """The entry that was written so. Raises ValueError, which says what is wrong with it."""
    if len(value) > MAX_VALUE:
        raise ValueError(f"is longer than {MAX_VALUE} bytes")
    text = value.decode("utf-8", "replace").strip()
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        read = text
    if isinstance(read, dict):
        return _of_fields(read)
    try:
        return Entry(*parse_authority(read if isinstance(read, str) else text))
    except ValueError:
        raise ValueError('is neither {"host": ..., "port": ...} nor host:port') from None


def _of_fields(fields: dict[str, Any]) -> Entry:
    host, port = fields.get("host", fields.get("address")), fields.get("port", 0)
    if not isinstance(host, str) or not host:
        raise ValueError("has no host")
    try:
        if "port" not in fields and ":" in host and not is_address(host):
            host, port = parse_authority(host)
        parse_host(host)
    except ValueError:
        raise ValueError("has a host that is none") from None
    if isinstance(port, str) and port.isascii() and port.isdigit() and len(port) <= 5:
        port = int(port)
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
        raise ValueError("has no port between 1 and 65535")
    if port == 0 and "port" in fields:
        raise ValueError("has no port between 1 and 65535")
    return Entry(host, port, _weight(fields.get("weight", 1)), _zone(fields.get("zone", "")))


def _weight(value: object) -> int:
    """Within its bounds; 1 for what is no number: an endpoint with a wrong share is better than one less."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:  # noqa: PLR0124 - NaN
        return 1
    return int(min(max(value, 1), MAX_WEIGHT))


def _zone(value: object) -> str:
    try:
        return ZoneName().accept(value) if isinstance(value, str) else ""
    except Unusable:
        return ""


class Complaints:
    """Says once what is wrong with a key, and again only when something else is wrong with it, or it was well."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._said: dict[bytes, str] = {}

    def say(self, key: bytes, wrong: str) -> None:
        """`key` cannot be used as it is."""
        if self._said.get(key) != wrong:
            self._said[key] = wrong
            _log.warning("%s: %s %s", self._source, _shown(key), wrong)

    def take_back(self, key: bytes) -> None:
        """`key` is well, or has gone."""
        self._said.pop(key, None)

    def keep_only(self, start: bytes, keys: Iterable[bytes]) -> None:
        """Of those that begin with `start` there are these now."""
        gone = [key for key in self._said if key.startswith(start) and key != start]
        if gone:
            there = set(keys)
            for key in gone:
                if key not in there:
                    del self._said[key]


class Service:
    """What is known of one service, and for whom.

    start, end: of the range of its keys, in base64. revision: of the store, up to which this is what there is.
    count: of its keys, also of those that are left out. named: as messages call it.
    """

    __slots__ = (
        "_complaints",
        "_entries",
        "_key",
        "_source",
        "_told",
        "_wanted",
        "count",
        "end",
        "named",
        "revision",
        "start",
    )

    def __init__(
        self, source: str, prefix: str, name: str, wanted: Iterable[Wanted], complaints: Complaints
    ) -> None:
        key = entry_key(prefix, name)
        self.named = key
        self.start, self.end = to_base64(key), to_base64(prefix_end(key))
        self.revision = 0
        self.count = 0
        self._key = from_base64(self.start)
        self._source = source
        self._wanted = tuple(wanted)
        self._complaints = complaints
        # An endpoint unless the port is up to whom it is for; None for one that cannot be used. Those that stay are the
        # same objects in each snapshot: the next is compared with the last in no time.
        self._entries: dict[bytes, Endpoint | Entry | None] = {}
        self._told: dict[str, tuple[Endpoint, ...]] = {}  # by upstream

    @property
    def has_room_again(self) -> bool:
        """Whether some are left out for want of room that is there now: those have to be listed."""
        return len(self._entries) < min(self.count, MAX_ENDPOINTS * ROOM_AGAIN)

    async def take_listing(self, answer: dict[str, Any]) -> None:
        """Take over what a range of its keys has, whatever was known before. Raises SourceError.

        The loop has its turns meanwhile.
        """
        found = answer.get("kvs") or []
        if not isinstance(found, list):
            raise SourceError(f"etcd: the listing of {self.named} is none")
        self._entries.clear()
        for first in range(0, min(len(found), MAX_ENDPOINTS), AT_A_TIME):
            for one in found[first : min(first + AT_A_TIME, MAX_ENDPOINTS)]:
                self._put(_key_of(one), one)
            await asyncio.sleep(0)
        self.count = max(number(answer, "count"), len(self._entries))
        self.revision = number(answer.get("header"), "revision")
        self._complaints.keep_only(self._key, self._entries)
        self._say_when_full()

    def apply(self, events: list[Any]) -> None:
        """Take over what one response of a watch says; what is known already changes nothing. Raises SourceError.

        Events of one revision come in one response (https://etcd.io/docs/v3.5/learning/api_guarantees/, atomic).
        """
        until = self.revision
        for event in events:
            one = event["kv"] if isinstance(event, dict) and isinstance(event.get("kv"), dict) else {}
            at = number(one, "mod_revision")
            if at <= self.revision:
                continue
            until = max(until, at)
            key = _key_of(one)
            if event.get("type") == "DELETE":
                self.count -= 1
                self._entries.pop(key, None)
                self._complaints.take_back(key)
                continue
            if number(one, "create_revision") == at:
                self.count += 1
            if key in self._entries or len(self._entries) < MAX_ENDPOINTS:
                self._put(key, one)
        self.revision = until
        self._say_when_full()

    def snapshots(self) -> tuple[Snapshot, ...]:
        """One of each upstream for which something has changed since the last time."""
        changed = []
        for wanted in self._wanted:
            endpoints = self._endpoints(wanted)
            if self._told.get(wanted.upstream) != endpoints:
                self._told[wanted.upstream] = endpoints
                changed.append(Snapshot(wanted.upstream, endpoints, self._source))
        return tuple(changed)

    def _endpoints(self, wanted: Wanted) -> tuple[Endpoint, ...]:
        """In the order of their keys; of several keys with one host and port the first tells."""
        default = int(wanted.port) if wanted.port.isascii() and wanted.port.isdigit() else wanted.default_port
        found: dict[tuple[str, int], Endpoint] = {}
        for key, entry in sorted(self._entries.items()):
            if entry is None:
                continue
            if isinstance(entry, Endpoint):
                found.setdefault((entry.host, entry.port), entry)
            elif default:
                found.setdefault((entry.host, default), _endpoint(entry, default))
            else:
                self._complaints.say(key, f"is left out: it has no port, nor has {wanted.upstream}")
        return tuple(found.values())

    def _put(self, key: bytes, one: dict[str, Any]) -> None:
        try:
            entry = parse_entry(from_base64(one.get("value")))
        except ValueError as error:
            self._entries[key] = None
            self._complaints.say(key, f"is left out: it {error}")
        else:
            self._entries[key] = _endpoint(entry, entry.port) if entry.port else entry
            if entry.port:  # without one it is up to whom it is for
                self._complaints.take_back(key)

    def _say_when_full(self) -> None:
        if self.count > MAX_ENDPOINTS:
            self._complaints.say(self._key, f"has more than {MAX_ENDPOINTS} entries: the rest is left out")
        elif self.count < MAX_ENDPOINTS * ROOM_AGAIN:
            self._complaints.take_back(self._key)


def _endpoint(entry: Entry, port: int) -> Endpoint:
    return Endpoint(entry.host, port, entry.weight, entry.zone)


def _shown(key: bytes) -> str:
    """Printable: whoever may write keys is not to write lines of the log."""
    return key[:SHOWN].decode("utf-8", "replace").encode("unicode_escape").decode("ascii")


def _key_of(one: Any) -> bytes:
    """Raises SourceError."""
    key = from_base64(one.get("key")) if isinstance(one, dict) else b""
    if not key:
        raise SourceError("etcd: an entry of an answer has no key")
    return key
