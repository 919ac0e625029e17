"""A Kubernetes API server as far as EndpointSlices go, on a free loopback port, in the loop of the test.

What it does is what https://kubernetes.io/docs/reference/using-api/api-concepts/ says of lists (resourceVersion, limit
and continue), of watches (efficient detection of changes, bookmarks, 410 Gone) and of errors (Status objects); the
objects are https://kubernetes.io/docs/reference/kubernetes-api/service-resources/endpoint-slice-v1/. Selectors:
https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#api. What goes wrong is scripted: `faults`.
"""

import asyncio
import base64
import copy
import json
import re
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web

from support.ports import free_port

__all__ = [
    "Asked",
    "FakeKubernetes",
    "Fault",
    "answer",
    "drop",
    "gone",
    "hang",
    "refuse",
    "silent",
    "slice_object",
    "stream",
]

PATH = "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
SERVICE = "kubernetes.io/service-name"
WAIT = 10.0  # seconds in which a test's thing has to happen

# Answers a request in place of the server.
Fault = Callable[["FakeKubernetes", web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request. verb: `list` or `watch`, as RBAC has it."""

    verb: str
    namespace: str
    query: dict[str, str]
    token: str
    agent: str


@dataclass(frozen=True, slots=True)
class _Change:
    """What happened to one slice at one version. before, after: None where there was or is none."""

    version: int
    before: dict[str, Any] | None
    after: dict[str, Any] | None


@dataclass(eq=False)
class _Watcher:
    """A watch that is open. lines: what is to be sent; None ends it as its time does."""

    matches: Callable[[dict[str, Any] | None], bool]
    bookmarks: bool
    request: web.Request
    lines: asyncio.Queue[dict[str, Any] | None] = field(default_factory=asyncio.Queue)


def slice_object(
    service: str = "api",
    *addresses: str,
    name: str = "",
    namespace: str = "default",
    port: int = 8080,
    port_name: str = "http",
    **more: Any,
) -> dict[str, Any]:
    """A slice whose endpoints are all ready. more: keys in place of its usual ones."""
    return {
        "kind": "EndpointSlice",
        "apiVersion": "discovery.k8s.io/v1",
        "metadata": {"name": name or f"{service}-1", "namespace": namespace, "labels": {SERVICE: service}},
        "addressType": "IPv4",
        "ports": [{"name": port_name, "port": port, "protocol": "TCP"}],
        "endpoints": [
            {"addresses": [address], "conditions": {"ready": True, "serving": True, "terminating": False}}
            for address in addresses
        ],
        **more,
    }


class FakeKubernetes:
    """Used as an async context manager.

    asked: every request, in order. faults: by verb, each of which answers one request instead of the server.
    tokens: those that are taken; None asks for none. forbidden: verbs that its users may not use.
    gone_by_status: a watch from a version that is not kept is answered 410; else 200, and 410 in the stream, as a
        server does it that has begun before it finds out. Both are seen.
    page: slices of one answer at most, however many are asked for.
    """

    def __init__(self, tls: ssl.SSLContext | None = None, *, first_version: int = 100) -> None:
        self.port = free_port()
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self.asked: list[Asked] = []
        self.faults: dict[str, deque[Fault]] = {"list": deque(), "watch": deque()}
        self.tokens: set[str] | None = None
        self.forbidden: set[str] = set()
        self.gone_by_status = False
        self.page = 500
        self.version = first_version
        self._tls = tls
        self._kept_from = first_version  # changes after this version are kept
        self._slices: dict[tuple[str, str], dict[str, Any]] = {}
        self._changes: list[_Change] = []
        self._watchers: list[_Watcher] = []
        self._lists: dict[str, list[dict[str, Any]]] = {}  # rest of a list by its continue token
        self._news = asyncio.Event()  # another one after each news
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen."""
        app = web.Application()
        app.router.add_get(PATH, self._answer)
        app.router.add_get("/{prefix:.+}" + PATH, self._answer)  # a server behind a path, as Rancher has them
        # A handler ends with its client's connection: what a test counts as open is open.
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self._tls).start()

    async def stop(self) -> None:
        """Close everything; what is known stays known."""
        if self._runner is not None:
            self.drop()
            await self._runner.cleanup()
            self._runner = None

    # What changes

    def put(self, item: dict[str, Any]) -> int:
        """Create a slice, or replace the one of that name; gives the version."""
        item = copy.deepcopy(item)
        key = (item["metadata"].setdefault("namespace", "default"), item["metadata"]["name"])
        self.version += 1
        item["metadata"]["resourceVersion"] = str(self.version)
        before = self._slices.get(key)
        self._slices[key] = item
        return self._tell(_Change(self.version, before, item))

    def delete(self, name: str, namespace: str = "default") -> int:
        """Take a slice away; gives the version."""
        self.version += 1
        before = self._slices.pop((namespace, name))
        return self._tell(_Change(self.version, before, None))

    def pass_versions(self, count: int) -> int:
        """Something else in the cluster has changed."""
        self.version += count
        return self.version

    def bookmark(self) -> None:
        """Send one to each watch that takes them, as a server does about once in a minute."""
        for watcher in self._watchers:
            if watcher.bookmarks:
                watcher.lines.put_nowait(self._bookmark())
        self._notify()

    def send(self, event: dict[str, Any]) -> None:
        """Send this to each watch."""
        for watcher in self._watchers:
            watcher.lines.put_nowait(event)
        self._notify()

    def compact(self) -> None:
        """Keep no change of before now: a watch from an earlier version is 410."""
        self._kept_from = self.version
        self._changes.clear()

    def expire_lists(self) -> None:
        """Lists that are half told are told no further: their continue tokens are 410."""
        self._lists.clear()

    def end_watches(self) -> None:
        """As if their timeoutSeconds were over."""
        for watcher in self._watchers:
            watcher.lines.put_nowait(None)

    def drop(self) -> None:
        """Cut the connections of all watches."""
        for watcher in list(self._watchers):
            _cut(watcher.request)

    # What a test waits for

    @property
    def watching(self) -> int:
        """Watches that are open."""
        return len(self._watchers)

    async def until(self, what: Callable[["FakeKubernetes"], object]) -> None:
        """Wait until something is true of this server."""
        async with asyncio.timeout(WAIT):
            while not what(self):
                await self._news.wait()

    async def until_asked(self, verb: str, count: int) -> None:
        """Wait for so many requests of a kind."""
        await self.until(lambda server: len(server.of(verb)) >= count)

    def of(self, verb: str) -> list[Asked]:
        """The requests of a kind."""
        return [one for one in self.asked if one.verb == verb]

    # Answers

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        query = dict(request.query)
        verb = "watch" if query.get("watch") in ("1", "true") else "list"
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        namespace = request.match_info["namespace"]
        self.asked.append(Asked(verb, namespace, query, token, request.headers.get("User-Agent", "")))
        self._notify()
        if self.faults[verb]:
            return await self.faults[verb].popleft()(self, request)
        if self.tokens is not None and token not in self.tokens:
            return status(401, "Unauthorized", "Unauthorized")
        if verb in self.forbidden:
            said = (
                f'endpointslices.discovery.k8s.io is forbidden: User "system:serviceaccount:default:app" cannot'
                f' {verb} resource "endpointslices" in API group "discovery.k8s.io" in the namespace "{namespace}"'
            )
            return status(403, "Forbidden", said)
        try:
            matches = _matcher(namespace, query.get("labelSelector", ""))
        except ValueError as error:
            return status(400, "BadRequest", f"unable to parse requirement: {error}")
        if verb == "watch":
            return await self._watch(request, query, matches)
        return self._list(query, matches)

    def _list(
        self, query: dict[str, str], matches: Callable[[dict[str, Any] | None], bool]
    ) -> web.StreamResponse:
        token = query.get("continue", "")
        if token:
            if token not in self._lists:
                said = "The provided continue parameter is too old to display a consistent list result."
                return status(410, "Expired", said)
            items, version = self._lists[token], base64.b64decode(token).decode().partition(":")[0]
        else:
            items, version = [item for item in self._sorted() if matches(item)], str(self.version)
        limit = min(int(query.get("limit", "0")) or self.page, self.page)
        metadata: dict[str, Any] = {"resourceVersion": version}
        if len(items) > limit:
            rest = base64.b64encode(f"{version}:{items[limit]['metadata']['name']}".encode()).decode()
            self._lists[rest] = items[limit:]
            metadata |= {"continue": rest, "remainingItemCount": len(items) - limit}
        return web.json_response(
            {
                "kind": "EndpointSliceList",
                "apiVersion": "discovery.k8s.io/v1",
                "metadata": metadata,
                "items": items[:limit],
            }
        )

    async def _watch(
        self, request: web.Request, query: dict[str, str], matches: Callable[[dict[str, Any] | None], bool]
    ) -> web.StreamResponse:
        since = int(query["resourceVersion"])
        if since < self._kept_from:
            said = f"too old resource version: {since} ({self._kept_from})"
            return (
                status(410, "Expired", said)
                if self.gone_by_status
                else await stream(gone(said))(self, request)
            )
        response = await _open(request)
        watcher = _Watcher(matches, query.get("allowWatchBookmarks") == "true", request)
        for change in self._changes:
            if change.version > since and (event := _event(change, matches)):
                watcher.lines.put_nowait(event)
        self._watchers.append(watcher)
        try:
            self._notify()
            with suppress(TimeoutError):
                async with asyncio.timeout(float(query.get("timeoutSeconds", "1800"))):
                    while (line := await watcher.lines.get()) is not None:
                        await response.write(json.dumps(line).encode() + b"\n")
            await response.write_eof()
        finally:
            self._watchers.remove(watcher)
            self._notify()
        return response

    def _sorted(self) -> Iterator[dict[str, Any]]:
        for key in sorted(self._slices):
            yield self._slices[key]

    def _bookmark(self) -> dict[str, Any]:
        return {
            "type": "BOOKMARK",
            "object": {
                "kind": "EndpointSlice",
                "apiVersion": "discovery.k8s.io/v1",
                "metadata": {"resourceVersion": str(self.version), "creationTimestamp": None},
                "addressType": "",
                "endpoints": None,
                "ports": None,
            },
        }

    def _tell(self, change: _Change) -> int:
        self._changes.append(change)
        for watcher in self._watchers:
            event = _event(change, watcher.matches)
            if event:
                watcher.lines.put_nowait(event)
        self._notify()
        return change.version

    def _notify(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


def _event(change: _Change, matches: Callable[[dict[str, Any] | None], bool]) -> dict[str, Any] | None:
    """As one watch sees a change: what leaves its selector is deleted to it, with the version of the change."""
    before, after = matches(change.before), matches(change.after)
    if after:
        return {"type": "MODIFIED" if before else "ADDED", "object": change.after}
    if not before:
        return None
    assert change.before is not None
    item = copy.deepcopy(change.before)
    item["metadata"]["resourceVersion"] = str(change.version)
    return {"type": "DELETED", "object": item}


_IN = re.compile(r"([A-Za-z0-9./-]+) in \(([a-z0-9-]+(?:,[a-z0-9-]+)*)\)")
_IS = re.compile(r"([A-Za-z0-9./-]+)==?([a-z0-9-]+)")


def _matcher(namespace: str, selector: str) -> Callable[[dict[str, Any] | None], bool]:
    """Of one requirement, set-based or by equality. Raises ValueError."""
    key, accepted = "", set[str]()
    if selector:
        found = _IN.fullmatch(selector) or _IS.fullmatch(selector)
        if found is None:
            raise ValueError(selector)
        key, accepted = found[1], set(found[2].split(","))
        long = [value for value in accepted if len(value) > 63]
        if long:
            raise ValueError(f"{long[0]}: must be no more than 63 characters")

    def matches(item: dict[str, Any] | None) -> bool:
        if item is None or item["metadata"]["namespace"] != namespace:
            return False
        return not key or item["metadata"].get("labels", {}).get(key) in accepted

    return matches


# Answers in place of the server's


def status(code: int, reason: str, message: str, **headers: str) -> web.Response:
    """A refusal."""
    return web.json_response(_status(code, reason, message), status=code, headers=headers)


def gone(message: str = "too old resource version: 1 (100)") -> dict[str, Any]:
    """410 as an event."""
    return {"type": "ERROR", "object": _status(410, "Expired", message)}


def refuse(code: int, reason: str = "", message: str = "", **headers: str) -> Fault:
    """Answer with a status."""

    async def fault(server: FakeKubernetes, request: web.Request) -> web.StreamResponse:
        return status(
            code, reason, message, **{name.replace("_", "-"): value for name, value in headers.items()}
        )

    return fault


def answer(body: bytes, code: int = 200) -> Fault:
    """Answer with this."""

    async def fault(server: FakeKubernetes, request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, status=code, content_type="application/json")

    return fault


def stream(*parts: bytes | dict[str, Any], code: int = 200, cut: bool = False) -> Fault:
    """Answer with these bytes or events, each by itself, and end. cut: by closing the connection in the middle."""

    async def fault(server: FakeKubernetes, request: web.Request) -> web.StreamResponse:
        response = await _open(request, code)
        for part in parts:
            await response.write(part if isinstance(part, bytes) else json.dumps(part).encode() + b"\n")
            await asyncio.sleep(0)
        if cut:
            _cut(request)
        else:
            await response.write_eof()
        return response

    return fault


async def drop(server: FakeKubernetes, request: web.Request) -> web.StreamResponse:
    """Close the connection without an answer."""
    _cut(request)
    return web.Response()


async def hang(server: FakeKubernetes, request: web.Request) -> web.StreamResponse:
    """Answer nothing until the client leaves."""
    await asyncio.Event().wait()
    raise AssertionError


def silent(*parts: bytes | dict[str, Any], code: int = 200) -> Fault:
    """Answer with these, and then nothing until the client leaves."""

    async def fault(server: FakeKubernetes, request: web.Request) -> web.StreamResponse:
        response = await _open(request, code)
        for part in parts:
            await response.write(part if isinstance(part, bytes) else json.dumps(part).encode() + b"\n")
        await asyncio.Event().wait()
        raise AssertionError

    return fault


def _status(code: int, reason: str, message: str) -> dict[str, Any]:
    """https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/"""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }


async def _open(request: web.Request, code: int = 200) -> web.StreamResponse:
    """The head of a watch's answer."""
    response = web.StreamResponse(
        status=code, headers={"Content-Type": "application/json", "Cache-Control": "no-cache, private"}
    )
    response.enable_chunked_encoding()
    await response.prepare(request)
    return response


def _cut(request: web.Request) -> None:
    """Close its connection at once."""
    if request.transport is not None:
        request.transport.abort()
