"""Spans on their way to a collector: a bounded queue, and a thread that empties it (OTLP over HTTP, protobuf).

    event loop ── put ──► queue ──► thread: ReadableSpan ─► OTLPSpanExporter ─► Collector (a session of requests)

The SDK's own BatchSpanProcessor drops without counting what does not fit in, takes 30 s to end, and logs for itself;
so the queue is this module's, and what is sent and tried again is the exporter's
(https://opentelemetry.io/docs/specs/otlp/#otlphttp). A collector that is slow, ill or gone costs spans, which are
counted, and one line of the log.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from sidecar.errors import StartError
from sidecar.http1.trace_context import read_tracestate
from sidecar.observe.collector import Collector
from sidecar.observe.identifiers import new_span_id
from sidecar.observe.spans import url_of
from sidecar.registry.threads import with_pauses
from sidecar.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sidecar.clock import Clock
    from sidecar.config.settings import TracingSettings
    from sidecar.model.recording import RecordingCounts
    from sidecar.observe.spans import Span

__all__ = ["SpanExport"]

BATCH: Final = 512  # spans in one request (the specification's maxExportBatchSize)
TOGETHER: Final = 8  # of these without a pause: less than 1 ms of Python
DELAY: Final = (
    1.0  # seconds that a span may wait for others; the specification's 5 s are long for who looks on
)
EXPORT_WITHIN: Final = 10.0  # seconds for one batch, all tries together (the specification's default)
CLOSE_WITHIN: Final = 2.0  # seconds for what waits at the end
ABORT_WITHIN: Final = 0.5  # and for a thread to notice that its sockets were shut

_NANOSECONDS: Final = 1_000_000_000
_NO_STATE: Final = TraceState()
_UNSET: Final = Status(StatusCode.UNSET)
_ERROR: Final = Status(StatusCode.ERROR)

_log = logging.getLogger("sidecar.tracing")


class SpanExport:
    """Where spans wait, and the thread that sends them.

    `spans_dropped` is counted by the loop, `spans_exported` and `spans_failed` by the thread alone.
    """

    def __init__(
        self,
        settings: TracingSettings,
        clock: Clock,
        counts: RecordingCounts,
        environ: Mapping[str, str],
        mode: str,
        exporter: SpanExporter | None = None,
    ) -> None:
        """exporter: in the place of the one for OTLP. Raises SecretError."""
        self._limit = settings.queue
        self._full = min(BATCH, settings.queue // 2)  # a small queue has to have room while a batch is sent
        self._counts = counts
        self._collector = Collector(settings, environ, _log)
        self._exporter = exporter or OTLPSpanExporter(
            f"{settings.endpoint}/v1/traces",
            timeout=EXPORT_WITHIN,
            compression=Compression.Gzip,
            session=self._collector,
        )
        self._resource = Resource.create(
            {
                "service.name": settings.service,
                "service.version": __version__,
                # Several workers, or several hosts, are one service.
                "service.instance.id": f"{os.getpid()}-{new_span_id(clock.uniform).decode()}",
                "deployment.environment.name": mode,
                "process.pid": os.getpid(),
            }
        )
        self._scope = InstrumentationScope("sidecar", __version__)
        self._queue: deque[tuple[Span, float]] = deque()
        self._wake = threading.Event()
        self._ending = False
        self._aborted = False
        self._thread: threading.Thread | None = None
        self._over = asyncio.Event()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to send. loop: whoever closes it is on that one. Raises StartError."""
        _mute()
        thread = threading.Thread(target=self._work, args=(loop,), name="spans", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise StartError(f"sidecar.tracing: {error}; raise the limit on threads") from None
        self._thread = thread

    def put(self, span: Span, offset: float) -> None:
        """Have a span sent. offset: wall seconds at monotonic 0."""
        if len(self._queue) >= self._limit or self._ending:
            self._counts.spans_dropped += 1
            return
        self._queue.append((span, offset))
        if len(self._queue) == self._full:
            self._wake.set()

    async def close(self) -> None:
        """Send what waits, or give it up; the thread has ended then, unless it looks a name up."""
        self._ending = True
        if self._thread is not None:
            self._wake.set()
            # One that is ill would have to be waited for, and may be for as long as it likes.
            if self._collector.is_ill or not await self._ends_within(CLOSE_WITHIN):
                self._aborted = True
                self._collector.abort()
                self._exporter.shutdown()
                await self._ends_within(ABORT_WITHIN)
            if self._over.is_set():  # it has nothing left to do
                self._thread.join(ABORT_WITHIN)
            self._thread = None
        self._counts.spans_dropped += len(self._queue)
        self._queue.clear()

    async def _ends_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._over.wait()
        return self._over.is_set()

    # In the thread

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while not self._ending:
                self._wake.wait(DELAY)
                self._wake.clear()
                if self._queue:
                    self._send()
                # What has come meanwhile waits for others, as what has come before: a batch has its price.
                while len(self._queue) >= self._full and not self._aborted:
                    self._send()
            while self._queue and not self._aborted:
                self._send()
            if not self._aborted:
                self._exporter.shutdown()
        finally:
            self._collector.close()
            with suppress(RuntimeError):  # nobody waits any more: the loop is closed
                loop.call_soon_threadsafe(self._over.set)

    def _send(self) -> None:
        """One batch, or what there is."""
        waiting = self._queue
        batch = _Batch(self._readable, [waiting.popleft() for _ in range(min(len(waiting), BATCH))])
        self._collector.begin()
        try:
            result = self._exporter.export(batch)
        except Exception:  # some versions of it let what `Collector` raises pass
            result = SpanExportResult.FAILURE
        if result is SpanExportResult.SUCCESS and not self._collector.refused:
            lost = min(self._collector.rejected, len(batch))
            self._counts.spans_failed += lost
            self._counts.spans_exported += len(batch) - lost
            self._collector.well()
        else:
            self._counts.spans_failed += len(batch)
            self._collector.ill(len(batch))

    def _readable(self, span: Span, offset: float) -> ReadableSpan:
        """As the exporter takes it."""
        trace_id = int(span.trace_id, 16)
        flags = TraceFlags(span.flags)
        state = _state(span.state)
        parent = None
        if span.parent_id:
            parent = SpanContext(trace_id, int(span.parent_id, 16), span.remote, flags, state)
        attributes = dict(span.attributes)
        attributes["url.full"] = url_of(attributes)
        status = _UNSET
        if span.error:
            attributes["error.type"] = span.error
            status = _ERROR
        return ReadableSpan(
            span.name,
            SpanContext(trace_id, int(span.span_id, 16), False, flags, state),
            parent,
            self._resource,
            attributes,
            [Event(name, timestamp=_wall(at, offset)) for name, at in span.events],
            kind=SpanKind.CLIENT,
            status=status,
            start_time=_wall(span.start, offset),
            end_time=_wall(span.end, offset),
            instrumentation_scope=self._scope,
        )


class _Batch(Sequence[ReadableSpan]):
    """Spans that are made readable, and then encoded, one by one, so that the event loop gets its turns in between."""

    def __init__(
        self, readable: Callable[[Span, float], ReadableSpan], spans: list[tuple[Span, float]]
    ) -> None:
        self._readable = readable
        self._spans = spans

    def __len__(self) -> int:
        return len(self._spans)

    def __getitem__(self, at: Any) -> Any:
        found = self._spans[at]
        return [self._readable(*one) for one in found] if isinstance(found, list) else self._readable(*found)

    def __iter__(self) -> Iterator[ReadableSpan]:
        return (self._readable(*one) for one in with_pauses(self._spans, TOGETHER))


def _wall(at: float, offset: float) -> int:
    """Nanoseconds since the Unix epoch; a float of today's seconds is good to some 0.2 µs."""
    return int((at + offset) * _NANOSECONDS)


def _state(text: bytes) -> TraceState:
    members = read_tracestate([text]) if text else None
    if not members:
        return _NO_STATE
    return TraceState([(key.decode("ascii"), value.decode("ascii")) for key, value in members])


def _mute() -> None:
    """What the libraries log of failed exports, some with a traceback, is not what the log says."""
    logger = logging.getLogger("opentelemetry")
    logger.propagate = False
    if not logger.handlers:  # else the one of last resort writes to stderr
        logger.addHandler(logging.NullHandler())
