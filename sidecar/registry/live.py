"""The live half of `ServiceRegistry`: services that registries know of, as they were said to be last.

    registries ─► sources ─► SourceSupervisor ─► a Cluster for each service ◄─ pick ─ the program's threads
                  └──────── a thread of its own, with its loop ───────┘ lock

Who asks for an address takes the lock for a pick, and never waits for a registry. Loaded by the first registry that has
such a service.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
from contextlib import suppress
from threading import Event, Lock, Thread, current_thread
from typing import TYPE_CHECKING
from weakref import finalize

from sidecar.balance.keys import key_of
from sidecar.clock import Clock
from sidecar.cluster import Cluster
from sidecar.config.resolved import upstream_policy
from sidecar.errors import NoEndpointsError, SourceError
from sidecar.registry.assembly import source_supervisor
from sidecar.registry.forks import look_after
from sidecar.registry.telling import words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sidecar.config import Settings
    from sidecar.model import Endpoint, Snapshot
    from sidecar.model.registry import FeedStatus
    from sidecar.registry.last_good import Kept
    from sidecar.registry.supervisor import SourceSupervisor

__all__ = ["LiveServices"]

END_WITHIN = (
    2.0  # seconds that an end waits for the thread, which has sockets to close and nobody to wait for
)
POLL = 0.01  # seconds between looks at whether registries have spoken, while somebody waits for that
SHOWN_ENDPOINTS = 20  # of one service, in a line of the log

_log = logging.getLogger("sidecar.registry")


class LiveServices:
    """Follows the registries of those of `settings` that have any, from now until `close`.

    environ: where secrets are looked up. saved: what was said before; None for what the last good file of a running
    sidecar holds.
    Threads may share it. A forked process follows registries by itself from its first use on, and until they speak to
    it knows what its parent knew.

    Raises SourceError when there is no thread to be had.
    """

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        clock: Clock | None = None,
        saved: Kept | None = None,
    ) -> None:
        self._settings = settings
        self._environ = environ
        self._clock = clock or Clock()
        self._lock = Lock()  # around clusters, and what is kept about each of them
        self._upstreams = {one.name: one for one in settings.upstreams if not one.source.is_static}
        self._clusters: dict[str, Cluster] = {}
        for name, upstream in self._upstreams.items():
            policy = upstream_policy(upstream, settings.sidecar.zone)
            self._clusters[name] = Cluster(name, upstream.scheme, policy, self._clock)
        self._applied: dict[str, Snapshot] = {}
        # By service, endpoints that are not picked now, if there are any.
        self._passed_over: dict[str, frozenset[tuple[str, int]]] = {}
        self._ended = Event()
        self._followed = False  # or about to be
        self._thread: _Following | None = None
        self._supervisor = self._begin(saved)
        look_after(self)
        self._followed = True
        self._thread = _start(self._supervisor)
        atexit.register(self.close)

    def ends_with(self, owner: object) -> None:
        """Follow nobody any more when `owner` is collected."""
        finalize(owner, self.abandon).atexit = False

    # Being asked

    def __contains__(self, name: str) -> bool:
        return name in self._clusters

    def pick(self, name: str, path: str, refused: frozenset[tuple[str, int]]) -> Endpoint:
        """The service's next endpoint. refused: not those, as long as there are others.

        path: of what will be asked for, where the service's requests go by it. Raises NoEndpointsError.
        """
        self._follow()
        cluster = self._clusters[name]
        with self._lock:
            if refused or name in self._passed_over:
                self._pass_over(cluster, refused)
            key = _key(cluster, path) if cluster.hashes else 0
            picked = cluster.pick(self._clock.monotonic(), (), key)
        if picked is None:
            raise self.nobody(name)
        return picked.endpoint

    def endpoints(self, name: str) -> tuple[Endpoint, ...]:
        """What the service consists of now; empty as long as nothing is known."""
        self._follow()
        snapshot = self._applied.get(name)
        return () if snapshot is None else snapshot.endpoints

    def nobody(self, name: str) -> NoEndpointsError:
        """Why the service has no endpoints, for whoever needs one."""
        snapshot = self._applied.get(name)
        if snapshot is None:
            errors = "; ".join(f"{feed.source}: {feed.error}" for feed in self._feeds(name) if feed.error)
            problem = f"no endpoints are known yet for {name}{f' ({errors})' if errors else ''}"
            return NoEndpointsError(problem, "wait with registry.wait_until_ready()")
        asked = " and ".join(self._upstreams[name].source.use)
        advice = "register one, or name hosts in the file to fall back on"
        return NoEndpointsError(f"{name} has no endpoints: none is known to {asked}", advice)

    def source(self, name: str) -> str:
        """Who knows of the service's endpoints, such as `consul` or `consul+static`; empty while nobody does."""
        self._follow()
        snapshot = self._applied.get(name)
        return "" if snapshot is None else snapshot.source

    def is_stale(self, name: str) -> bool:
        """Whether a registry that the endpoints depend on errs, is silent, or has not spoken yet."""
        merge = self._upstreams[name].source.merge
        for feed in self._feeds(name):
            if feed.stale:
                return True
            if feed.endpoints and not merge:
                return False  # those after it are not asked for
        return False

    def _feeds(self, name: str) -> list[FeedStatus]:
        self._follow()
        return self._supervisor.feeds(name)

    # Waiting

    def wait(self, timeout: float, name: str | None = None, *, fresh: bool = False) -> bool:
        """Wait for a first word on every service, or on one, at most `timeout` seconds. Whether it is there.

        fresh: what was known before this process was there does not do.
        """
        self._follow()
        deadline = self._clock.monotonic() + timeout
        while not self._is_ready(name, fresh=fresh):
            if self._clock.monotonic() >= deadline or self._ended.wait(POLL):
                return False
        return True

    async def until_ready(
        self,
        timeout: float,  # noqa: ASYNC109 - its end is no error
        name: str | None = None,
        *,
        fresh: bool = False,
    ) -> bool:
        """`wait`, for a coroutine."""
        self._follow()
        deadline = self._clock.monotonic() + timeout
        while not self._is_ready(name, fresh=fresh):
            if self._clock.monotonic() >= deadline or self._ended.is_set():
                return False
            await asyncio.sleep(POLL)
        return True

    def _is_ready(self, name: str | None, *, fresh: bool) -> bool:
        return all(self._is_known(one, fresh=fresh) for one in (self._clusters if name is None else (name,)))

    def _is_known(self, name: str, *, fresh: bool) -> bool:
        """Whether those have spoken whom the service's endpoints depend on, and it has been applied."""
        merge = self._upstreams[name].source.merge
        for feed in self._feeds(name):
            if feed.endpoints is None or (fresh and feed.saved):
                return False
            if feed.endpoints and not merge:
                break
        return self._supervisor.snapshot(name) == self._applied.get(name)

    # What is known

    def _apply(self, snapshot: Snapshot) -> None:
        name = snapshot.upstream
        with self._lock:
            cluster = self._clusters[name]
            cluster.apply(snapshot)
            if name in self._passed_over:  # one that went and came back is another
                self._passed(name, (key for key, one in cluster.endpoints.items() if one.breaker.tripped))
            self._applied[name] = snapshot
        if _log.isEnabledFor(logging.DEBUG):
            shown = ", ".join(endpoint.address for endpoint in snapshot.endpoints[:SHOWN_ENDPOINTS])
            more = len(snapshot.endpoints) - SHOWN_ENDPOINTS
            places = f"{shown} and {more} more" if more > 0 else shown or "nowhere"
            _log.debug("%s is at %s (%s)", name, places, snapshot.source)

    def _pass_over(self, cluster: Cluster, refused: frozenset[tuple[str, int]]) -> None:
        """Have `refused` picked no more, unless they are all, and those before them again.

        By hand, so to say: the cluster's own breakers hear of no requests here.
        """
        endpoints = cluster.endpoints
        wanted = {key for key in refused if key in endpoints}
        if len(wanted) == len(endpoints) or cluster.policy.observe_only:
            wanted = set()
        before = self._passed_over.get(cluster.name, frozenset())
        now = self._clock.monotonic()
        if come := wanted - before:
            cluster.trip([endpoints[key] for key in come], now)
        if gone := before - wanted:
            cluster.reset([endpoints[key] for key in gone], now)
        if come or gone:
            self._passed(cluster.name, wanted)

    def _passed(self, name: str, keys: Iterable[tuple[str, int]]) -> None:
        self._passed_over[name] = frozenset(keys)
        if not self._passed_over[name]:
            del self._passed_over[name]

    # Following

    def _begin(self, saved: Kept | None) -> SourceSupervisor:
        """A supervisor, with what is known without asking anybody applied."""
        supervisor = source_supervisor(self._settings, self._clock, self._apply, self._environ, saved)
        supervisor.begin()
        return supervisor

    def _follow(self) -> None:
        """Follow registries, if it is the first use in a process that has been forked off."""
        if self._followed:
            return
        with self._lock:
            if self._followed or self._ended.is_set():
                return
            self._followed = True  # others go by what is known meanwhile
        try:
            self._supervisor = self._begin(self._supervisor.known())
            self._thread = _start(self._supervisor)
        except Exception as error:  # what its parent knew is better than nothing
            _log.warning("registries are not followed in this process: %s", words(error))

    def before_fork(self) -> None:
        """Let nobody be in the middle of anything."""
        self._lock.acquire()

    def after_fork(self, *, in_child: bool) -> None:
        """Go on; in the child there is no thread any more."""
        if in_child and not self._ended.is_set():
            self._thread = None  # its loop is never closed here: the selector is the parent's too
            self._followed = False
            self._ended = Event()  # another thread may have been about to wait for it
        self._lock.release()

    # Ending

    def close(self) -> None:
        """Follow nobody any more. What is known stays."""
        self.abandon()
        thread = self._thread
        if thread is not None and thread is not current_thread():
            thread.join(END_WITHIN)

    async def aclose(self) -> None:
        """`close`, for a coroutine."""
        self.abandon()
        thread, deadline = self._thread, self._clock.monotonic() + END_WITHIN
        while thread is not None and thread.is_alive() and self._clock.monotonic() < deadline:  # noqa: ASYNC110 - threads end without an event
            await asyncio.sleep(POLL)

    def abandon(self) -> None:
        """`close` without waiting for the thread: also where locks are held, as when garbage is collected."""
        atexit.unregister(self.close)
        self._ended.set()
        thread = self._thread
        if thread is not None:
            thread.end()


class _Following(Thread):
    """Keeps a supervisor going, on a loop of its own, until `end`. No program waits for it."""

    def __init__(self, supervisor: SourceSupervisor) -> None:
        super().__init__(name="sidecar registries", daemon=True)
        self._supervisor = supervisor
        self._ending = asyncio.Event()
        self.loop = asyncio.new_event_loop()

    def run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
                runner.run(self._follow())
        except Exception as error:
            _log.error("registries are followed no more, by a mistake of this program: %s", words(error))

    async def _follow(self) -> None:
        self._supervisor.start()
        try:
            await self._ending.wait()
        finally:
            await self._supervisor.close()

    def end(self) -> None:
        """Have it end soon."""
        with suppress(RuntimeError):  # it has ended
            self.loop.call_soon_threadsafe(self._ending.set)


def _start(supervisor: SourceSupervisor) -> _Following:
    """The thread. Raises SourceError."""
    try:
        thread = _Following(supervisor)
    except OSError as error:
        raise SourceError(f"registries cannot be followed: {words(error)}") from None
    try:
        thread.start()
    except RuntimeError as error:
        thread.loop.close()
        raise SourceError(f"registries cannot be followed: {words(error)}") from None
    return thread


def _key(cluster: Cluster, path: str) -> int:
    """What the sidecar would go by for a request of `path`; by chance where it is not the path that it goes by."""
    if cluster.policy.hash_on != "path" or not path:
        return cluster.any_key()
    return key_of(f"/{path.lstrip('/').partition('?')[0]}".encode("utf-8", "surrogateescape"))
