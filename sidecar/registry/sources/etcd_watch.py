"""Listing services at one member of etcd, and watching them there from where their listings end.

The gateway takes several requests in one body of /v3/watch, so that one connection watches many services. But over
HTTP/1.1 it cannot be sent any later: Go's server answers when it has the whole body, and throws away what the gateway
has not read of it when the first answer goes out. Measured with etcd 3.4.23 and bodies of 500 requests: in 9 of 12
some were lost, of 8 requests in 1 of 12. So:

- A body begins with white space, which makes the gateway's JSON decoder provide a large buffer; the requests are then
  read at once. None was lost in 92 bodies so.
- Each watch has to be confirmed by its own answer. What is not is asked for again in another stream. Nothing is lost by
  that, since a watch begins at a revision, and nothing harmed, as what is known already changes nothing.
- Requests for progress cannot be sent, and by itself etcd tells of it every ten minutes only. So a question beside the
  watch finds out whether the member answers: how many keys one of the services has, of each in turn. It is
  linearizable, hence fails where there is no quorum, and its answer shows whether the watch tells all that happens.
  A connection that leads nowhere is found by the kernel's own probes.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from itertools import cycle
from typing import TYPE_CHECKING, Any

from sidecar.errors import SourceError
from sidecar.registry.sources.etcd_gateway import GatewayError, number, plain_answer
from sidecar.registry.sources.http import lines
from sidecar.registry.sources.source import MAX_ENDPOINTS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine, Iterable, Sequence

    from sidecar.clock import Clock
    from sidecar.model import Snapshot
    from sidecar.registry.sources.etcd_entries import Service
    from sidecar.registry.sources.etcd_gateway import Gateway

__all__ = ["ListAgainError", "list_services", "watch_services"]

AT_ONCE = 16  # listings; 500 services took 0.09 s so
# The decoder's buffer doubles: 65,024 bytes are followed by 130,560, of which this white space leaves half.
PADDING = b" " * 65536
MAX_REQUESTS = 61440  # bytes of them in a body; some 400
# Seconds without a confirmation until what lacks it is asked for again. The gateway has read what it ever will before
# its first answer; the rest is a member's time to set watches up.
CONFIRMED_WITHIN = 0.5
MAX_FRUITLESS = 10  # rounds of asking in a row without any: 5 s, as for every other answer
# Seconds between two snapshots of what changes all the time: one of a service with thousands of entries takes
# milliseconds to make, whatever has changed of it.
COALESCE = 0.05
UNREAD = 64  # items that wait for whoever iterates; then no more are made
LOOK_EVERY, JITTER = 10.0, 0.2  # seconds between two looks, ±20 %: a silent member is noticed within 17 s


# None for a look; an error is the last one.
_Item = tuple["Snapshot", ...] | None | Exception


class ListAgainError(Exception):
    """The watch cannot go on from where it is: the store's history has been compacted, or there is room again."""


async def list_services(gateway: Gateway, member: str, services: Iterable[Service]) -> None:
    """Take over what `member` has, `AT_ONCE` of them at the same time. Raises SourceError.

    Reads are linearizable, which is etcd's default: a member that has lost its cluster fails instead of telling the
    past (https://etcd.io/docs/v3.5/learning/api_guarantees/).
    """
    left = iter(services)

    async def work() -> None:
        for service in left:
            question = {"key": service.start, "range_end": service.end, "limit": str(MAX_ENDPOINTS)}
            await service.take_listing(await gateway.call(member, "/v3/kv/range", question))

    await _all(work() for _ in range(AT_ONCE))


async def watch_services(
    gateway: Gateway, member: str, services: Sequence[Service], clock: Clock, every: float
) -> AsyncGenerator[tuple[Snapshot, ...] | None, None]:
    """What changes from each service's revision on; None for each look at the member, `every` seconds at most apart.

    Raises ListAgainError; SourceError when the member fails, or the watch.
    """
    items: asyncio.Queue[_Item] = asyncio.Queue(UNREAD)
    running = asyncio.create_task(_Watch(gateway, member, services, clock, every, items).run())
    try:
        while True:
            item = await items.get()
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        running.cancel()
        await asyncio.wait((running,))


class _Watch:
    """One watch of all services, of as many streams as it takes. missing: whose watch is not confirmed, by its id."""

    def __init__(
        self,
        gateway: Gateway,
        member: str,
        services: Sequence[Service],
        clock: Clock,
        every: float,
        items: asyncio.Queue[_Item],
    ) -> None:
        self._gateway = gateway
        self._member = member
        self._services = dict(enumerate(services, 1))  # 0 lets etcd choose an id
        self._clock = clock
        self._every = every
        self._items = items
        self._missing = dict(self._services)
        self._confirmed = asyncio.Event()  # one more
        self._changed: dict[Service, None] = {}  # since the last snapshot of each
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Until something fails, which is the last item."""
        try:
            await _all((self._keep_watching(), self._look(), self._tell()))
        except Exception as error:  # whoever iterates raises it, a mistake of this program too
            await self._tell_changed()
            await self._items.put(error)

    async def _tell(self) -> None:
        """What has changed, at once, and then what has changed while that was digested."""
        while True:
            await self._news.wait()
            self._news.clear()
            await self._tell_changed()
            await asyncio.sleep(COALESCE)

    async def _tell_changed(self) -> None:
        while self._changed:
            if self._items.full():  # a snapshot that is made is told: nobody makes it again
                await asyncio.sleep(COALESCE)
                continue
            service = next(iter(self._changed))
            del self._changed[service]
            snapshots = service.snapshots()
            if snapshots:
                self._items.put_nowait(snapshots)
            await asyncio.sleep(0)

    async def _keep_watching(self) -> None:
        async with asyncio.TaskGroup() as streams:
            fruitless = 0
            while self._missing:
                before = len(self._missing)
                for body in _bodies(self._missing):
                    streams.create_task(self._read(body))
                await self._settle()
                fruitless = fruitless + 1 if len(self._missing) == before else 0
                if fruitless == MAX_FRUITLESS:
                    where = next(iter(self._missing.values())).named
                    raise SourceError(f"{self._member}/v3/watch: a watch of {where} is not set up")

    async def _settle(self) -> None:
        """Until all is confirmed, or nothing more will be."""
        while self._missing:
            self._confirmed.clear()
            try:
                async with asyncio.timeout(CONFIRMED_WITHIN):
                    await self._confirmed.wait()
            except TimeoutError:
                return

    async def _read(self, body: bytes) -> None:
        async with (
            self._gateway.stream(self._member, "/v3/watch", body) as response,
            aclosing(lines(response)) as told,
        ):
            async for line in told:
                self._take(line)
        raise GatewayError(f"{self._member}/v3/watch: the stream has ended")

    def _take(self, line: bytes) -> None:
        """Note what one line changes. Raises ListAgainError, SourceError."""
        try:
            answer = plain_answer(json.loads(line), self._member, "/v3/watch")
        except (ValueError, RecursionError):
            raise SourceError(f"{self._member}/v3/watch: a line of the stream is no JSON") from None
        result = answer.get("result")
        if not isinstance(result, dict):
            raise SourceError(f"{self._member}/v3/watch: a line of the stream has no result")
        if result.get("canceled"):
            if number(result, "compact_revision"):
                raise ListAgainError
            reason = result.get("cancel_reason")
            words = " ".join(reason.split())[:160] if isinstance(reason, str) else "no reason given"
            raise GatewayError(f"{self._member}/v3/watch: cancelled: {words}")
        identity = number(result, "watch_id")
        service = self._services.get(identity)
        if result.get("created") and self._missing.pop(identity, None) is not None:
            self._confirmed.set()
        events = result.get("events")
        if service is None or not isinstance(events, list):
            return
        service.apply(events)
        if service.has_room_again:
            raise ListAgainError
        self._changed[service] = None
        self._news.set()

    async def _look(self) -> None:
        """Ask how many keys there are, of one service after the other; of the same again where the watch says else."""
        turns = cycle(self._services.values())
        service, doubted = next(turns), -1
        while True:
            await asyncio.sleep(self._every * (1.0 + JITTER * (2.0 * self._clock.uniform() - 1.0)))
            question = {"key": service.start, "range_end": service.end, "count_only": True}
            answer = await self._gateway.call(self._member, "/v3/kv/range", question)
            if number(answer, "count") == service.count:
                service, doubted = next(turns), -1
            elif doubted == service.revision:  # it has said nothing since the last look, which found the same
                raise GatewayError(
                    f"{self._member}/v3/watch: it does not tell what becomes of {service.named}"
                )
            else:
                doubted = service.revision
            await self._items.put(None)


def _bodies(missing: dict[int, Service]) -> Iterable[bytes]:
    """Requests for all, as few bodies as they fit in."""
    held: list[bytes] = []
    size = 0
    for identity, service in missing.items():
        request = {
            "key": service.start,
            "range_end": service.end,
            "start_revision": str(service.revision + 1),
            "watch_id": str(identity),
        }
        line = json.dumps({"create_request": request}, separators=(",", ":")).encode() + b"\n"
        if held and size + len(line) > MAX_REQUESTS:
            yield PADDING + b"".join(held)
            held, size = [], 0
        held.append(line)
        size += len(line)
    if held:
        yield PADDING + b"".join(held)


async def _all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """All at the same time; the first that fails ends the others, and its error is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for one in work:
                group.create_task(one)
    except BaseExceptionGroup as failed:
        first: BaseException = failed
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None
