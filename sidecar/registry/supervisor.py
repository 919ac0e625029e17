"""Who keeps the sources going: opens their streams, opens them again when they fail, and never forgets what they said.

A stream's snapshots become what its source says of each upstream (`Feed`), all that is said of an upstream becomes one
snapshot (`combine`), and that is applied, unless it is the one that is applied already. What errs or falls silent
changes nothing: its last word stands, shown as stale, until it speaks again.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from sidecar.config.settings import STATIC
from sidecar.errors import SourceError
from sidecar.model.registry import RESULTS, FeedStatus, SourceStatus
from sidecar.registry.combine import combined, wanted_of
from sidecar.registry.feeds import Feed, Registry, Stream
from sidecar.registry.last_good import Saved
from sidecar.registry.sources.catalogue import make_source
from sidecar.registry.telling import about, tell, words
from sidecar.resilience.backoff import full_jitter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence

    from sidecar.config.settings import RegistrySettings, UpstreamSettings
    from sidecar.model import Snapshot
    from sidecar.registry.last_good import Kept
    from sidecar.registry.sources.source import Source, Surroundings, Wanted

    Make = Callable[[RegistrySettings, Surroundings], Source]

__all__ = ["SourceSupervisor"]

# Seconds before a stream that has failed is opened again: up to the first, doubled each time, never above the longest.
FIRST_BACKOFF = 0.5
LONGEST_BACKOFF = 30.0  # Envoy's longest between tries to reach its management server
LEAST_BACKOFF = 0.1  # chance may say nothing at all, and a registry that is down is not to be hammered
STEADY = 10.0  # seconds of life after which a failure is the first again: one that fails after each list is not well
# Seconds beyond `stale_after` in which a stream has to show that it lives. Each source notices by itself when its
# registry is gone; this is for the one that does not.
PATIENCE = 30.0
# Seconds for which an upstream that has changed is left alone: a roll-out changes it many times.
COALESCE = 0.05
SAVE_AFTER = 1.0  # seconds after a change at which it is written down, with all others until then
# And without a change: what is written tells how old it is, and it is confirmed all the time.
SAVE_EVERY = 60.0
SAVE_WITHIN = 2.0  # seconds that the end waits for what is being written: a disk may take for ever

_CHANGED, _UNCHANGED, _EMPTY, _ERROR = range(len(RESULTS))
_log = logging.getLogger("sidecar.registry")


class SourceSupervisor:
    """Follows the registries of `registries` for those of `upstreams` that use them.

    apply: takes each snapshot that changes an upstream, called on the loop. wait: seconds after which `settled` is true
    whatever is missing. saved: what was said before this process was there. save: takes all that is known, some time
    after it has changed; what it raises is a mistake of this program.
    """

    def __init__(
        self,
        upstreams: Sequence[UpstreamSettings],
        registries: Sequence[RegistrySettings],
        surroundings: Surroundings,
        apply: Callable[[Snapshot], None],
        *,
        wait: float = 0.0,
        saved: Kept | None = None,
        save: Callable[[Kept], Coroutine[Any, Any, None]] | None = None,
        make: Make = make_source,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._surroundings = surroundings
        self._clock = surroundings.clock
        self._apply = apply
        self._wait = wait
        self._save = save
        self._make = make
        self._sleep = sleep
        self._saved = dict(saved or {})
        self._upstreams: dict[str, UpstreamSettings] = {}
        self._registries: dict[str, Registry] = {}
        self._feeds: dict[tuple[str, str], Feed] = {}
        self._applied: dict[str, Snapshot] = {}
        self._changed: dict[str, None] = {}  # upstreams to be looked at, in the order in which they changed
        self._look: asyncio.Handle | None = None
        self._saving: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._settle_by = self._clock.monotonic() + wait
        self._started = False
        self._take(upstreams, registries)

    # Its life

    def begin(self) -> None:
        """Apply what is known without asking anybody: what the configuration names, and what was said before."""
        for name in self._upstreams:
            self._bring_up_to_date(name)

    def start(self) -> None:
        """Ask, from now until `close`."""
        self._started = True
        self._settle_by = self._clock.monotonic() + self._wait
        self._save_in(SAVE_EVERY)
        for registry in self._registries.values():
            for stream in registry.streams:
                self._open(stream)

    def follow(self, upstreams: Sequence[UpstreamSettings], registries: Sequence[RegistrySettings]) -> None:
        """Go by another configuration. What it leaves as it is goes on, and so does its stream."""
        self._take(upstreams, registries)
        self.begin()
        if self._started:
            for registry in self._registries.values():
                for stream in registry.streams:
                    if stream.task is None:
                        self._open(stream)

    def forget(self, upstream: str) -> None:
        """Forget what has been applied to `upstream`, whose cluster is another one: it is applied anew."""
        self._applied.pop(upstream, None)

    async def close(self) -> None:
        """Ask nobody any more, and write down what is known, if that can be done within `SAVE_WITHIN`."""
        self._started = False
        for handle in (self._look, self._saving):
            if handle is not None:
                handle.cancel()
        for registry in self._registries.values():
            self._end(registry.streams)
        if self._save is not None and self._saving is not None:
            await self._write_last(self._save(self.known()))
        self._saving = None
        if self._tasks:
            await asyncio.wait(tuple(self._tasks))
        for registry in self._registries.values():
            await registry.source.close()

    def _take(self, upstreams: Sequence[UpstreamSettings], registries: Sequence[RegistrySettings]) -> None:
        """The feeds and streams of a configuration, those of before where it wants the same."""
        self._upstreams = {one.name: one for one in upstreams if not one.source.is_static}
        before, feeds_before = self._registries, self._feeds
        self._registries, self._feeds = {}, {}
        for settings in registries:
            old = before.get(settings.name)
            if old is not None and old.settings == settings:
                registry = old
            else:
                registry = Registry(settings, self._make(settings, self._surroundings))
                if old is not None:
                    registry.counts = old.counts
            self._registries[settings.name] = registry
            wanted = [
                wanted_of(one, settings.kind)
                for one in self._upstreams.values()
                if settings.name in one.source.use
            ]
            for one in wanted:
                self._feeds[settings.name, one.upstream] = self._feed(settings.name, one, feeds_before)
            there = {stream.wanted: stream for stream in registry.streams}
            groups = registry.source.streams(wanted)
            registry.streams = [
                there.pop(group) if group in there else Stream(registry, group) for group in groups
            ]
            self._end(there.values())
            for stream in registry.streams:
                for one in stream.wanted:
                    self._feeds[settings.name, one.upstream].stream = stream
        for name, registry in before.items():
            if self._registries.get(name) is not registry:
                self._end(registry.streams)
                self._run(self._dismiss(registry))
        self._applied = {name: found for name, found in self._applied.items() if name in self._upstreams}

    def _feed(self, source: str, wanted: Wanted, before: dict[tuple[str, str], Feed]) -> Feed:
        """The feed of before, if it was about the same; else one that has what was written down."""
        key = (source, wanted.upstream)
        feed = before.get(key)
        if feed is not None and feed.wanted == wanted:
            return feed
        new = Feed(wanted)
        if feed is not None and feed.wanted.endpoints == wanted.endpoints:
            new.before = feed.before if feed.endpoints is None else feed.endpoints
        if key in self._saved and feed is None:
            new.endpoints, new.saved_at = self._saved.pop(key)
            new.saved = True
        return new

    def _end(self, streams: Iterable[Stream]) -> None:
        for stream in streams:
            if stream.task is not None:
                stream.task.cancel()
                stream.task = None

    # Streams

    def _open(self, stream: Stream) -> None:
        stream.task = self._run(self._keep_open(stream))

    def _run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that `close` waits for."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _dismiss(self, registry: Registry) -> None:
        """Close a source that is in the configuration no more. Its streams have been told to end."""
        await asyncio.sleep(0)
        await registry.source.close()

    async def _keep_open(self, stream: Stream) -> None:
        """Read the stream; when it fails, wait and open it again, for ever."""
        clock = self._clock
        while True:
            stream.began = clock.monotonic()
            try:
                await self._read(stream)
            except Exception as error:
                self._fail(stream, error)
            if clock.monotonic() - stream.began >= STEADY:
                stream.failures = 0
            wait = full_jitter(stream.failures, FIRST_BACKOFF, LONGEST_BACKOFF, clock.uniform())
            stream.failures += 1
            await self._sleep(max(LEAST_BACKOFF, wait))

    async def _read(self, stream: Stream) -> None:
        snapshots = stream.registry.source.watch(stream.wanted)
        patience = stream.registry.settings.stale_after + PATIENCE
        try:
            while True:
                try:
                    async with asyncio.timeout(patience) as waiting:
                        snapshot = await anext(snapshots)
                except TimeoutError:
                    if waiting.expired():
                        raise SourceError(f"nothing has been heard for {patience:g} s") from None
                    raise
                except StopAsyncIteration:
                    raise SourceError("it has ended what it had to say") from None
                self._hear(stream, snapshot)
        finally:
            await _closed(snapshots)

    def _hear(self, stream: Stream, snapshot: Snapshot | None) -> None:
        """A snapshot, or a sign of life."""
        registry = stream.registry
        now = stream.heard_at = self._clock.monotonic()
        if stream.error:
            _log.info("%s%s is back", registry.settings.name, about(stream))
            stream.error = ""
        for wanted in stream.wanted:
            feed = self._feeds[registry.settings.name, wanted.upstream]
            if feed.endpoints is not None and not feed.saved:
                feed.heard_at = now
        if snapshot is None:
            registry.counts[_UNCHANGED] += 1
            return
        feed = self._feeds[registry.settings.name, snapshot.upstream]
        known, said = feed.endpoints, snapshot.endpoints
        feed.heard_at, feed.saved = now, False
        if not said:
            registry.counts[_EMPTY] += 1
            if known and registry.settings.keep_empty:
                _log.warning(
                    "%s: %s knows no endpoints any more; the last %d are kept (on_empty: keep)",
                    snapshot.upstream,
                    registry.settings.name,
                    len(known),
                )
                return
        if known == said:
            registry.counts[_UNCHANGED] += bool(said)
            return
        if said:
            registry.counts[_CHANGED] += 1
        feed.endpoints = said
        self._note(snapshot.upstream)

    def _fail(self, stream: Stream, error: Exception) -> None:
        """Count and tell it, once while it stays the same; what was said stands."""
        registry = stream.registry
        registry.counts[_ERROR] += 1
        said = words(error)
        if said != stream.error:
            _log.warning("%s%s: %s", registry.settings.name, about(stream), said)
        stream.error = said

    # What follows from it

    def _note(self, upstream: str) -> None:
        """Look at `upstream` soon; one after the other, since the loop has requests to serve between them."""
        self._changed[upstream] = None
        if self._look is None:
            self._look = asyncio.get_running_loop().call_soon(self._look_at_next)

    def _look_at_next(self) -> None:
        name = next(iter(self._changed))
        del self._changed[name]
        try:
            self._bring_up_to_date(name)
        except Exception as error:
            # A mistake of this program, which is not to keep all others as they are for ever.
            _log.error("%s: not brought up to date: %s", name, words(error))
        loop = asyncio.get_running_loop()
        if self._changed:
            self._look = loop.call_soon(self._look_at_next)
        else:
            self._look = loop.call_later(COALESCE, self._rest)

    def _rest(self) -> None:
        """A while has passed since the last look; what has changed meanwhile is looked at now."""
        self._look = None
        if self._changed:
            self._look = asyncio.get_running_loop().call_soon(self._look_at_next)

    def _bring_up_to_date(self, name: str) -> None:
        snapshot = self.snapshot(name)
        if snapshot is None or snapshot == self._applied.get(name):
            return
        before = self._applied.get(name)
        self._applied[name] = snapshot
        self._apply(snapshot)
        tell(before, snapshot)
        if self._started:
            self._save_in(SAVE_AFTER)

    def _save_in(self, seconds: float) -> None:
        """Write down what is known then, if not before."""
        if self._save is None:
            return
        loop = asyncio.get_running_loop()
        if self._saving is not None:
            if self._saving.when() <= loop.time() + seconds:
                return
            self._saving.cancel()
        self._saving = loop.call_later(seconds, self._write_down)

    def _write_down(self) -> None:
        self._saving = None
        assert self._save is not None
        if self._writing is not None and not self._writing.done():
            # Each is a thread, and no two get on faster.
            self._save_in(SAVE_AFTER)
            return
        self._writing = self._run(self._save(self.known()))
        self._save_in(SAVE_EVERY)

    async def _write_last(self, save: Coroutine[Any, Any, None]) -> None:
        """With what is being written already, in time."""
        writing = {self._run(save)} if self._writing is None else {self._run(save), self._writing}
        _, late = await asyncio.wait(writing, timeout=SAVE_WITHIN)
        if late:
            _log.warning("what registries said last may not be kept: writing it takes over %g s", SAVE_WITHIN)
        for task in late:
            task.cancel()

    # Being asked

    @property
    def settled(self) -> bool:
        """Whether a first word on every upstream is in, from its first registry or from the file; or time is over."""
        if self._clock.monotonic() >= self._settle_by:
            return True
        return all(self._is_known(upstream) for upstream in self._upstreams.values())

    def _is_known(self, upstream: UpstreamSettings) -> bool:
        if upstream.name in self._changed:  # nobody goes by it yet
            return False
        first = next(name for name in upstream.source.use if name != STATIC)
        return self._feeds[first, upstream.name].endpoints is not None

    def known(self) -> Kept:
        """What each registry has said of each upstream, where it named any endpoint."""
        now, wall = self._clock.monotonic(), self._clock.wall()
        return {
            key: Saved(feed.endpoints, feed.saved_at if feed.saved else wall - (now - (feed.heard_at or now)))
            for key, feed in self._feeds.items()
            if feed.endpoints
        }

    def snapshot(self, name: str) -> Snapshot | None:
        """What follows from all that has been said of an upstream, applied or about to be; None from nothing."""
        upstream = self._upstreams.get(name)
        if upstream is None:
            return None
        feeds = {source: self._feeds.get((source, name)) for source in upstream.source.use}
        said = {source: feed.word for source, feed in feeds.items() if feed is not None}
        return combined(upstream, {source: word for source, word in said.items() if word is not None})

    def sources(self) -> list[SourceStatus]:
        """How each registry is."""
        now = self._clock.monotonic()
        found = []
        for name, registry in self._registries.items():
            heard = [stream.heard_at for stream in registry.streams]
            known = [at for at in heard if at is not None]
            last = min(known) if known and len(known) == len(heard) else None
            stale = any(stream.is_stale(now) for stream in registry.streams)
            found.append(SourceStatus(name, list(registry.counts), last, stale))
        return found

    def feeds(self, upstream: str) -> list[FeedStatus]:
        """What each registry that `upstream` uses says of it, in their order."""
        settings = self._upstreams.get(upstream)
        if settings is None:
            return []
        now = self._clock.monotonic()
        found = []
        for name in settings.source.use:
            feed = self._feeds.get((name, upstream))
            if feed is None:
                continue
            stream = feed.stream
            assert stream is not None
            count = None if feed.endpoints is None else len(feed.endpoints)
            stale = feed.saved or stream.is_stale(now)
            found.append(FeedStatus(name, count, feed.heard_at, stale, feed.saved, stream.error))
        return found


async def _closed(stream: AsyncIterator[Snapshot | None]) -> None:
    close = getattr(stream, "aclose", None)
    if close is not None:
        await close()
