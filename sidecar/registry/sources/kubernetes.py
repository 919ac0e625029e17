"""Kubernetes: the EndpointSlices of Services, listed once and then watched.

List, then watch from the version of the list; a watch that ends is taken up at the last version heard of, and 410 means
to list again: https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes.

A sign of life may come with bookmarks alone, about one in a minute, which a server need not send; the end of a watch is
one too. So watches are short enough for one to end in each `stale_after`; below some 12 s it may be late.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any

from sidecar.config.findings import escaped, shown
from sidecar.errors import SourceError
from sidecar.model import Snapshot
from sidecar.registry.sources.endpoint_slices import SliceSet, endpoints_of
from sidecar.registry.sources.http import lines, open_session, read_body
from sidecar.registry.sources.kubeconfig import ACCOUNT, find_access
from sidecar.registry.sources.kubernetes_api import GoneError, KubernetesApi
from sidecar.registry.sources.slice_objects import SERVICE_LABEL, read_slice, slice_name
from sidecar.registry.sources.source import Source
from sidecar.registry.threads import Pauses, in_thread, with_pauses

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    from sidecar.config.settings import RegistrySettings
    from sidecar.model import Endpoint
    from sidecar.registry.sources.slice_objects import Slice
    from sidecar.registry.sources.source import Surroundings, Wanted

__all__ = ["KubernetesSource"]

# Services of one stream. Their names are in its URL: 63 characters and an escaped comma each are 3.3 KB of the 8 KB
# that proxies in between let through.
AT_ONCE = 50
LARGE = 128 * 1024  # bytes of a page from which on it is read in a thread: it would take the loop some 4 ms
PAGE = 500  # slices of one answer, as kubectl and client-go ask for
# Slices of one stream: 200 for each of its services, and a slice has a hundred endpoints as its controller makes them.
MAX_SLICES = 10_000
MAX_PAGES = 1000  # of one list: a server may give fewer slices in each than it is asked for, but not for ever
MAX_WARNINGS = 1000  # that are remembered, so as not to be said again
LIST_TIMEOUT = 30.0  # seconds for one page: half of what the server itself allows (--request-timeout)
# Seconds of a watch: at most, as client-go's shortest, and at least. And how much later than asked for it may end.
LONGEST, SHORTEST = 300.0, 10.0
GRACE = 10.0
# A watch that ends within this many seconds and has brought nothing would only be asked for again and again; client-go
# takes it for an error as well.
VERY_SHORT = 1.0
TOO_OFTEN = 3  # times that something is gone in a row: what is listed is gone before it can be watched

# Names of Services and of namespaces: RFC 1035 and RFC 1123 labels.
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)

_log = logging.getLogger("sidecar.registry")


class KubernetesSource(Source):
    """One cluster. `service` is a Service's name, or `name.namespace`; `port` a port of its pods, by name or number."""

    def __init__(
        self, settings: RegistrySettings, surroundings: Surroundings, account: Path = ACCOUNT
    ) -> None:
        """account: the directory of a pod's service account."""
        super().__init__(settings.name)
        self._settings = settings
        self._surroundings = surroundings
        self._account = account
        self._warned: dict[str, None] = {}

    def streams(self, wanted: Sequence[Wanted]) -> list[tuple[Wanted, ...]]:
        """One for each namespace and each `AT_ONCE` of its services; what cannot be asked for has one of its own."""
        streams: list[tuple[Wanted, ...]] = []
        asked: dict[str, dict[str, list[Wanted]]] = {}
        for one in wanted:
            service, namespace = self._names(one)
            if _problem(service, namespace):
                streams.append((one,))
            else:
                asked.setdefault(namespace, {}).setdefault(service, []).append(one)
        for services in asked.values():
            groups = list(services.values())
            streams.extend(
                tuple(one for group in groups[begin : begin + AT_ONCE] for one in group)
                for begin in range(0, len(groups), AT_ONCE)
            )
        return streams

    async def watch(self, wanted: Sequence[Wanted]) -> AsyncIterator[Snapshot | None]:
        """See `Source.watch`. wanted: of one namespace, as `streams` gives them."""
        # In a thread: files may be slow to come, and to load the certificates of all the world takes 20 ms.
        find = partial(find_access, self._settings, self._surroundings.environ, self._account)
        access = await in_thread(f"{self.name}: how to reach it", find)
        names = {one: self._names(one) for one in wanted}
        for one, (service, namespace) in names.items():
            problem = _problem(service, namespace)
            if problem:
                raise SourceError(f"registry {shown(self.name)}: upstream {shown(one.upstream)}: {problem}")
        namespace = next((space for _, space in names.values()), "") or access.namespace or "default"
        if not _LABEL.fullmatch(namespace):
            raise SourceError(f"registry {shown(self.name)}: {_no_namespace(namespace)}")
        async with open_session(self._surroundings.resolve, access.tls) as session:
            api = KubernetesApi(session, access, self._surroundings.environ)
            view = _View(self.name, {one: service for one, (service, _) in names.items()})
            path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
            async with aclosing(self._follow(api, path, view)) as snapshots:
                async for snapshot in snapshots:
                    yield snapshot

    def _names(self, wanted: Wanted) -> tuple[str, str]:
        """Service and namespace, which is empty where it is whichever the pod or the kubeconfig says."""
        service, namespace = wanted.service or wanted.upstream, wanted.namespace
        if not namespace:
            service, _, namespace = service.partition(".")
        return service, namespace or self._settings.namespace

    async def _follow(
        self, api: KubernetesApi, path: str, view: _View
    ) -> AsyncGenerator[Snapshot | None, None]:
        """List and watch, for ever. Whatever is gone is listed again at once, unless it always is."""
        gone = 0
        while True:
            try:
                await self._list(api, path, view)
                for service in view.services:
                    for snapshot in self._changed(view, (service,)):
                        yield snapshot
                    await asyncio.sleep(0)  # a turn for each: fifty services may have ten thousand endpoints
                while True:
                    async with aclosing(self._watch(api, path, view)) as heard:
                        async for services in heard:
                            gone = 0
                            for snapshot in self._changed(view, services):
                                yield snapshot
            except GoneError as error:
                gone += 1
                if gone == TOO_OFTEN:
                    raise SourceError(
                        f"{error}; {TOO_OFTEN} times in a row, although listed anew each time"
                    ) from None

    async def _list(self, api: KubernetesApi, path: str, view: _View) -> None:
        """Take in all slices there are, and the version to watch from."""
        query = {"labelSelector": view.selector, "limit": str(PAGE)}
        slices: list[Slice] = []
        strange = ""
        first = ""
        for _ in range(MAX_PAGES):
            async with api.get(path, query, LIST_TIMEOUT) as response:
                where = f"GET {path} at {response.host}"
                body = await read_body(response)
                read = partial(_read_page, body, where)
                large = len(body) >= LARGE
                found, version, token = await in_thread(f"reading of {path}", read) if large else read()
            first = first or version  # what has come since will be in the watch, too
            for one, problems in found:
                slices.extend(self._used(one, problems, view))
            if found and all(one is None for one, _ in found):
                strange = found[0][1][0]
            if len(slices) > MAX_SLICES:
                break
            if not token:
                if strange and not slices:  # which is no word that there are none
                    raise SourceError(f"{where}: no slice of the list can be used: {strange}")
                view.slices.replace(slices)
                view.version = first
                return
            query["continue"] = token
        raise SourceError(_too_many(path))

    async def _watch(
        self, api: KubernetesApi, path: str, view: _View
    ) -> AsyncGenerator[Collection[str], None]:
        """One watch, from the last version on: after each event the services that it changes. Its end is one, too."""
        clock = self._surroundings.clock
        seconds = _watch_seconds(self._settings.stale_after, clock.uniform())
        query = {
            "labelSelector": view.selector,
            "watch": "true",
            "resourceVersion": view.version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
        }
        before, began = view.version, clock.monotonic()
        try:
            async with api.get(path, query, seconds + GRACE) as response:
                where = f"GET {path} at {response.host}"
                # `lines` is such a generator: one that is not closed would be by a task of the loop's, later.
                async with aclosing(lines(response)) as events:
                    async for line in events:
                        kind, item = _event(line, where)
                        services = self._apply(kind, item, path, view)
                        view.version = _version(item) or view.version
                        yield services
        except TimeoutError as error:
            raise TimeoutError(str(error) or f"GET {path}: a watch of {seconds} s did not end") from None
        if view.version == before and clock.monotonic() - began < VERY_SHORT:
            raise SourceError(f"{where}: the watch ended at once, and has brought nothing")
        yield ()

    def _apply(self, kind: str, item: dict[str, Any], path: str, view: _View) -> set[str]:
        """Take in an event; gives the services that it changes."""
        if kind == "BOOKMARK":
            return set()
        if kind == "DELETED":
            return view.slices.remove(slice_name(item))
        changed: set[str] = set()
        for one in self._used(*read_slice(item), view):
            changed |= view.slices.put(one)
        if len(view.slices) > MAX_SLICES:
            raise SourceError(_too_many(path))
        # What cannot be used as it is now is no more what it was, either.
        return changed or view.slices.remove(slice_name(item))

    def _used(self, one: Slice | None, problems: list[str], view: _View) -> Iterator[Slice]:
        """A slice that has been read, if it can be used and is of a service that is watched."""
        self._warn(problems)
        if one is not None and one.service in view.services:
            yield one

    def _changed(self, view: _View, services: Iterable[str]) -> Iterator[Snapshot | None]:
        """New snapshots of upstreams of `services`; None if there are none."""
        quiet = True
        for snapshot, problems in view.changed(services):
            self._warn(problems)
            if snapshot is not None:
                quiet = False
                yield snapshot
        if quiet:
            yield None

    def _warn(self, problems: Iterable[str]) -> None:
        """Say each problem once."""
        for problem in problems:
            if problem not in self._warned:
                if len(self._warned) >= MAX_WARNINGS:
                    del self._warned[next(iter(self._warned))]
                self._warned[problem] = None
                _log.warning("registry %s: %s", self.name, problem)


class _View:
    """What one stream knows: its slices, and the endpoints that were given of each upstream last.

    version: the last that was heard of. services: with the upstreams that each has. selector: what is asked for.
    """

    def __init__(self, source: str, wanted: dict[Wanted, str]) -> None:
        self._source = source
        self.slices = SliceSet()
        self.version = ""
        self.services: dict[str, list[Wanted]] = {}
        for one, service in wanted.items():
            self.services.setdefault(service, []).append(one)
        self._given: dict[str, tuple[Endpoint, ...]] = {}
        self.selector = f"{SERVICE_LABEL} in ({','.join(sorted(self.services))})"

    def changed(self, services: Iterable[str]) -> Iterator[tuple[Snapshot | None, list[str]]]:
        """A snapshot of each upstream whose endpoints are others than before, and what is left out of any."""
        for service in services:
            slices = self.slices.of(service)
            for one in self.services.get(service, ()):
                endpoints, problems = endpoints_of(slices, one)
                if self._given.get(one.upstream) == endpoints:
                    yield None, problems
                else:
                    self._given[one.upstream] = endpoints
                    yield Snapshot(one.upstream, endpoints, self._source), problems


def _problem(service: str, namespace: str) -> str:
    """Why a service cannot be asked for; empty if it can."""
    if not _LABEL.fullmatch(service):
        return (
            f"{shown(service)} is no name of a Service: lower-case letters, digits and `-`, 63 at most;"
            " write NAME or NAME.NAMESPACE"
        )
    return _no_namespace(namespace) if namespace and not _LABEL.fullmatch(namespace) else ""


def _no_namespace(text: str) -> str:
    return f"{shown(text)} is no name of a namespace: lower-case letters, digits and `-`, 63 at most"


def _too_many(path: str) -> str:
    return f"GET {path}: there are more than {MAX_SLICES} EndpointSlices of these services"


def _watch_seconds(stale_after: float, chance: float) -> int:
    """How long a watch is to last: within `stale_after`, and up to a fifth less, so that not all end together."""
    longest = min(LONGEST, max(SHORTEST, 0.8 * stale_after))
    return int(longest * (1.0 - 0.2 * chance))


def _read_page(body: bytes, where: str) -> tuple[list[tuple[Slice | None, list[str]]], str, str]:
    """Slices as `read_slice` gives them, version and continue token of one page of a list. Raises SourceError.

    One that is large is read with pauses, as it is to be in a thread.
    """
    large = len(body) >= LARGE
    try:
        answer = json.loads(body, object_hook=Pauses(100) if large else None)
    except (ValueError, RecursionError):  # the latter for what is nested thousands of levels deep
        raise SourceError(f"{where}: the answer is no JSON") from None
    items, version, token = _page(answer, where)
    return [read_slice(item) for item in (with_pauses(items, 1) if large else items)], version, token


def _page(answer: Any, where: str) -> tuple[list[Any], str, str]:
    """Items, version and continue token of one page of a list. Raises SourceError."""
    metadata = answer.get("metadata") if isinstance(answer, dict) else None
    version = _version(answer)
    if not isinstance(metadata, dict) or not version:
        raise SourceError(f"{where}: the answer is no list of EndpointSlices")
    items = answer.get("items") or []
    token = metadata.get("continue") or ""
    if not isinstance(items, list) or not isinstance(token, str):
        raise SourceError(f"{where}: the answer is no list of EndpointSlices")
    return items, version, token


def _version(item: Any) -> str:
    """An object's `resourceVersion`, which says nothing but which one it is; empty without one."""
    metadata = item.get("metadata") if isinstance(item, dict) else None
    version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
    return version if isinstance(version, str) else ""


def _event(line: bytes, where: str) -> tuple[str, dict[str, Any]]:
    """Kind and object of a line of a watch. Raises GoneError for an error of 410, SourceError for any other."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):  # the latter for what is nested thousands of levels deep
        raise SourceError(f"{where}: a line of the watch is no JSON") from None
    kind = event.get("type") if isinstance(event, dict) else None
    item = event.get("object") if isinstance(event, dict) else None
    if not isinstance(item, dict) or kind not in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"):
        raise SourceError(f"{where}: a line of the watch is no event")
    if kind != "ERROR":
        return kind, item
    code = item.get("code")
    text = f"{code}: {item.get('message') or item.get('reason') or 'no reason given'}"
    said = escaped(" ".join(text.split())[:200])
    raise (GoneError if code == 410 else SourceError)(f"{where}: the watch failed with {said}")
