"""Who is told of exchanges and sessions one by one, put together as the configuration says.

`Recording` is the process's: it makes the access log, the tracer and what names requests, follows other settings, and
ends them. `ExchangeRecorder` is what the data path is handed, `ProxyContext.recorder`; where nothing is to be told it
is handed None.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from sidecar.registry.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping
    from typing import Any

    from sidecar.clock import Clock
    from sidecar.config.settings import SidecarSettings
    from sidecar.errors import ProtocolError, Reason
    from sidecar.http1.message import RequestHead
    from sidecar.model import CloseReason, Outcome, RecordingCounts
    from sidecar.model.endpoint import EndpointState
    from sidecar.observe.access_log import AccessLog
    from sidecar.observe.request_ids import RequestIds
    from sidecar.observe.tracing import Tracer
    from sidecar.proxy.downstream import DownstreamConnection
    from sidecar.proxy.recording import RecordedExchange
    from sidecar.proxy.session import Session
    from sidecar.proxy.upstream import UpstreamConnection

__all__ = ["ExchangeRecorder", "Recording"]


class _Ending(Protocol):
    async def close(self) -> None:
        """Write or send what waits, in bounded time."""


class ExchangeRecorder:
    """See `proxy.recording.Recorder`. Each part that is None is not told."""

    __slots__ = ("exchange_over", "identifies", "ids", "log", "tracer")

    def __init__(self, log: AccessLog | None, tracer: Tracer | None, ids: RequestIds | None) -> None:
        self.log = log
        self.tracer = tracer
        self.ids = ids
        self.identifies = tracer is not None or ids is not None
        # For every request: where only one of them is told, nobody stands between.
        if tracer is None and log is not None:
            self.exchange_over = log.exchange_over
        else:
            self.exchange_over = self._exchange_over

    def identify(self, exchange: RecordedExchange, head: RequestHead) -> RequestHead:
        """See `Recorder.identify`."""
        if self.ids is not None:
            head = self.ids.identify(exchange, head)
        if self.tracer is not None:
            head = self.tracer.identify(exchange, head)
        return head

    def sending(self, exchange: RecordedExchange, connection: UpstreamConnection) -> None:
        """See `Recorder.sending`."""
        if self.tracer is not None:
            self.tracer.sending(exchange, connection)

    def attempt_over(
        self, exchange: RecordedExchange, endpoint: EndpointState, outcome: Outcome, began: float, now: float
    ) -> None:
        """See `Recorder.attempt_over`."""
        if self.tracer is not None:
            self.tracer.attempt_over(exchange, endpoint, outcome, began, now)

    def _exchange_over(self, exchange: RecordedExchange, status: int, reason: Reason, now: float) -> None:
        if self.log is not None:
            self.log.exchange_over(exchange, status, reason, now)
        if self.tracer is not None:
            self.tracer.exchange_over(exchange, status, reason, now)

    def refused(self, client: DownstreamConnection, method: int, error: ProtocolError, now: float) -> None:
        """See `Recorder.refused`."""
        if self.log is not None:
            self.log.refused(client, method, error, now)

    def session_over(self, session: Session, reason: CloseReason, now: float) -> None:
        """See `Recorder.session_over`."""
        if self.log is not None:
            self.log.session_over(session, reason, now)


class _Parts:
    """What there is for some settings."""

    __slots__ = ("ids", "log", "settings", "tracer")

    def __init__(self, settings: SidecarSettings | None = None) -> None:
        self.settings = settings
        self.log: AccessLog | None = None
        self.tracer: Tracer | None = None
        self.ids: RequestIds | None = None


class Recording:
    """The access log, tracer and request ids of one process, from the start to the end.

    counts: what becomes of lines and spans. environ: where secrets are looked up. mode: of the deployment.
    recorder: what the data path is to be handed now.
    """

    def __init__(self, clock: Clock, counts: RecordingCounts, environ: Mapping[str, str], mode: str) -> None:
        self.recorder: ExchangeRecorder | None = None
        self._clock = clock
        self._counts = counts
        self._environ = environ
        self._mode = mode
        self._now = _Parts()
        self._next: _Parts | None = None
        self._endings: set[asyncio.Task[None]] = set()

    def has_to_load(self, settings: SidecarSettings) -> bool:
        """Whether `prepare` would need what takes its time to be loaded, see `load`."""
        return bool(settings.tracing.endpoint) and self._now.tracer is None

    async def load(self, settings: SidecarSettings) -> None:
        """Load aside what `prepare` will need, while requests are served."""
        if self.has_to_load(settings):
            from sidecar.observe.tracing import load_tracing  # noqa: PLC0415 - nobody loads what is off

            with suppress(OSError):  # no thread is to be had: it is loaded when it is needed
                await in_thread("loading of tracing", load_tracing)

    def prepare(self, settings: SidecarSettings) -> None:
        """Open what other settings ask for; nothing is told to it before `switch`.

        Raises StartError when a file cannot be opened or a package is not there; all is as before then.
        """
        self.discard()
        before, after = self._now, _Parts(settings)
        try:
            if before.settings is not None and settings.access_log == before.settings.access_log:
                after.log = before.log
            elif settings.access_log.file:
                after.log = self._open_log(settings)
            if before.settings is not None and settings.tracing == before.settings.tracing:
                after.tracer = before.tracer
            elif settings.tracing.endpoint:
                after.tracer = self._open_tracer(settings)
        except BaseException:
            self._end_what_is_not_in(before, after)
            raise
        if settings.request_id:
            from sidecar.observe.request_ids import RequestIds  # noqa: PLC0415 - nobody loads what is off

            after.ids = before.ids or RequestIds(self._clock)
        self._next = after

    def _open_log(self, settings: SidecarSettings) -> AccessLog:
        from sidecar.observe.access_log import AccessLog  # noqa: PLC0415 - nobody loads what is off

        log = AccessLog(settings.access_log, self._clock, self._counts)
        log.start()
        return log

    def _open_tracer(self, settings: SidecarSettings) -> Tracer:
        from sidecar.observe.tracing import Tracer  # noqa: PLC0415 - it takes 0.1 s, and most have none

        tracer = Tracer(settings.tracing, self._clock, self._counts, self._environ, self._mode)
        tracer.start()
        return tracer

    def assume(self, settings: SidecarSettings) -> None:
        """Others do what `settings` ask for: `prepare` is to open only what differs from them."""
        self._now = _Parts(settings)

    def switch(self) -> None:
        """Tell those that were prepared, from now on, instead of those before, which end."""
        after, self._next = self._next, None
        if after is None:
            return
        before, self._now = self._now, after
        told = after.log is not None or after.tracer is not None or after.ids is not None
        self.recorder = ExchangeRecorder(after.log, after.tracer, after.ids) if told else None
        self._end_what_is_not_in(after, before)

    def discard(self) -> None:
        """What was prepared is not wanted after all."""
        after, self._next = self._next, None
        if after is not None:
            self._end_what_is_not_in(self._now, after)

    def _end_what_is_not_in(self, kept: _Parts, parts: _Parts) -> None:
        if parts.log is not None and parts.log is not kept.log:
            self._end(parts.log)
        if parts.tracer is not None and parts.tracer is not kept.tracer:
            self._end(parts.tracer)

    def _end(self, part: _Ending) -> None:
        coroutine: Coroutine[Any, Any, None] = part.close()
        task = asyncio.get_running_loop().create_task(coroutine)
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

    def reopen(self) -> None:
        """The access log's file has been moved away: go on with a new one of its name."""
        # One that is prepared may have been opened by its name before that.
        for log in {parts.log for parts in (self._now, self._next) if parts is not None}:
            if log is not None:
                log.reopen()

    async def close(self) -> None:
        """End everything; what waits is written and sent, in bounded time."""
        self.discard()
        self.recorder = None
        before, self._now = self._now, _Parts()
        self._end_what_is_not_in(self._now, before)
        if self._endings:
            await asyncio.wait(set(self._endings))
