"""Traces: whose request it is, what goes on to the endpoint, and the spans of what came of it.

A valid traceparent makes its caller the parent, and its sampled flag decides; anything else begins a new trace, of
which `sample` decides. A request that is not sampled costs its headers and nothing else.

`spans` has what is told, `span_export` how it gets to a collector. Here is no opentelemetry: it is loaded where
tracing is on, and nowhere else.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from sidecar.config.secrets import SecretError
from sidecar.errors import StartError
from sidecar.http1.trace_context import (
    RANDOM,
    SAMPLED,
    TRACEPARENT,
    TRACESTATE,
    read_traceparent,
    render_traceparent,
)
from sidecar.model import Outcome
from sidecar.observe.identifiers import new_span_id, new_trace_id
from sidecar.observe.spans import MAX_ATTEMPTS, Attempt, Trace, attempt_span, request_span

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.clock import Clock
    from sidecar.config.settings import TracingSettings
    from sidecar.errors import Reason
    from sidecar.http1.message import RequestHead
    from sidecar.model.endpoint import EndpointState
    from sidecar.model.recording import RecordingCounts
    from sidecar.observe.span_export import SpanExport
    from sidecar.proxy.recording import RecordedExchange
    from sidecar.proxy.upstream import UpstreamConnection

__all__ = ["Tracer", "load_tracing"]

# Characters of a tracestate that are exported with a span: what everybody is to pass on at least (W3C, 3.3.1.5).
MAX_STATE: Final = 512


class Tracer:
    """Traces the requests of one process. Called by the recorder, on the event loop."""

    def __init__(
        self,
        settings: TracingSettings,
        clock: Clock,
        counts: RecordingCounts,
        environ: Mapping[str, str],
        mode: str,
    ) -> None:
        """mode: of the deployment, as spans tell it. Raises StartError: the packages or the token are missing."""
        self._sample = settings.sample
        self._clock = clock
        self._uniform = clock.uniform
        self._counts = counts
        self._export = _span_export(settings, clock, counts, environ, mode)

    def start(self) -> None:
        """Export from now on. Called on the loop. Raises StartError."""
        self._export.start(asyncio.get_running_loop())

    def identify(self, exchange: RecordedExchange, head: RequestHead) -> RequestHead:
        """The head with one traceparent; `exchange.trace` is set where the request is sampled."""
        head = head.unpacked()
        places = head.places(TRACEPARENT)
        caller = read_traceparent(head.values(places)[0]) if len(places) == 1 else None
        span_id = new_span_id(self._uniform)
        if caller is not None:
            trace_id, parent_id, flags = caller.trace_id, caller.parent_id, caller.flags
        else:
            trace_id, parent_id = new_trace_id(self._uniform), b""
            flags = RANDOM | (SAMPLED if self._uniform() < self._sample else 0)
        context = render_traceparent(trace_id, span_id, flags)
        if places:
            head.put(places[0], context)
            head.drop(places[1:])
        else:
            head.add(TRACEPARENT, context)
        if caller is None:  # a tracestate is of another trace then, or of none (W3C, 3.4)
            head.drop(head.places(TRACESTATE))
        if flags & SAMPLED:
            state = b",".join(head.values(head.places(TRACESTATE)))
            exchange.trace = Trace(
                trace_id, parent_id, span_id, flags, state if len(state) <= MAX_STATE else b""
            )
        return head

    def sending(self, exchange: RecordedExchange, connection: UpstreamConnection) -> None:
        """The attempt that begins is the endpoint's parent."""
        trace: Trace = exchange.trace
        span_id = new_span_id(self._uniform)
        connected = 0.0 if connection.served else exchange.connected
        attempt = Attempt(connection.endpoint, span_id, trace.made, connected, _peer(connection))
        trace.made += 1
        trace.under_way.append(attempt)
        head = exchange.head
        for place in head.places(TRACEPARENT)[:1]:  # header rules may have taken it out
            head.put(place, render_traceparent(trace.trace_id, span_id, trace.flags))

    def attempt_over(
        self, exchange: RecordedExchange, endpoint: EndpointState, outcome: Outcome, began: float, now: float
    ) -> None:
        """An attempt has ended, perhaps before anything was sent."""
        trace: Trace = exchange.trace
        attempt = trace.take(endpoint)
        status = exchange.answer
        if attempt is None:
            attempt = Attempt(endpoint, new_span_id(self._uniform), trace.made, 0.0, "")
            trace.made += 1
            status = 0
        elif outcome is Outcome.OUTRUN:  # the answer is the other one's
            status = 0
        if len(trace.ended) == MAX_ATTEMPTS:
            self._counts.spans_dropped += 1
            return
        times = (began, exchange.first_byte if status else 0.0, now)
        span = attempt_span(trace, attempt, exchange.head, exchange.cluster.name, outcome, status, times)
        span.attributes["url.scheme"] = exchange.cluster.scheme  # the application's own side is its request's
        trace.ended.append(span)

    def exchange_over(self, exchange: RecordedExchange, status: int, reason: Reason, now: float) -> None:
        """The spans of a request go on their way, its own first."""
        trace: Trace | None = exchange.trace
        if trace is None:
            return
        exchange.trace = None
        local = exchange.client.transport.get_extra_info("sockname")
        port = local[1] if isinstance(local, tuple) else 0
        offset = self._clock.wall() - now  # one for all of them, so that children stay within their parent
        span = request_span(
            trace, exchange.head, exchange.cluster.name, port, status, reason, exchange.started, now
        )
        self._export.put(span, offset)
        for span in trace.ended:
            self._export.put(span, offset)

    async def close(self) -> None:
        """Export what waits, for as long as `span_export.CLOSE_WITHIN`."""
        await self._export.close()


def load_tracing() -> None:
    """Load what a `Tracer` needs, if it is there: some 0.1 s, in a thread where requests are served meanwhile."""
    with suppress(ImportError):
        import sidecar.observe.span_export  # noqa: F401 - loading is all


def _span_export(
    settings: TracingSettings,
    clock: Clock,
    counts: RecordingCounts,
    environ: Mapping[str, str],
    mode: str,
) -> SpanExport:
    try:
        from sidecar.observe.span_export import SpanExport
    except ImportError as error:
        raise StartError(
            f"sidecar.tracing needs packages that are not installed ({error.name or error}):"
            " pip install 'sidecar-proxy[otel]'"
        ) from None
    try:
        return SpanExport(settings, clock, counts, environ, mode)
    except SecretError as error:
        raise StartError(f"sidecar.tracing: {error}") from None
    except RuntimeError as error:  # OpenTelemetry looks around in threads
        raise StartError(f"sidecar.tracing: {error}; raise the limit on threads") from None


def _peer(connection: UpstreamConnection) -> str:
    """The address that an endpoint was found at; its host where that is an address."""
    host = connection.endpoint.endpoint.host
    if ":" in host or host[-1:].isdigit():  # no top-level domain ends in a digit
        return host
    peer = connection.transport.get_extra_info("peername")
    return str(peer[0]) if isinstance(peer, tuple) else ""
