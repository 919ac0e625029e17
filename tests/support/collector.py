"""A collector of spans: OTLP over HTTP, decoded by OpenTelemetry's own messages."""

import gzip
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from support.ports import free_port
from support.waiting import wait_until

__all__ = ["Answer", "CollectedSpan", "Collector", "rejecting", "taken"]

# Status, content type and body; or None: the connection is closed.
Answer = tuple[int, str, bytes] | None

_PROTOBUF = "application/x-protobuf"


def taken() -> Answer:
    """All is well."""
    return 200, _PROTOBUF, ExportTraceServiceResponse().SerializeToString()


def rejecting(spans: int) -> Answer:
    """So many of them were not taken."""
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = spans
    return 200, _PROTOBUF, answer.SerializeToString()


class CollectedSpan:
    """One span as it came. Ids are hexadecimal digits; resource: attributes of whose it is."""

    def __init__(self, span: Span, resource: dict[str, Any]) -> None:
        self.name = span.name
        self.kind = Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_")
        self.trace_id = span.trace_id.hex()
        self.span_id = span.span_id.hex()
        self.parent_id = span.parent_span_id.hex()
        self.remote_parent = bool(span.flags & 0x200)
        self.state = span.trace_state
        self.start = span.start_time_unix_nano / 1e9
        self.end = span.end_time_unix_nano / 1e9
        self.attributes = _plain(span.attributes)
        self.events = [event.name for event in span.events]
        self.failed = span.status.code == 2
        self.resource = resource


class Collector:
    """Takes spans on a port of its own. Used as a context manager.

    answer: called for each request, in that request's thread. spans: those of requests that it answered with 200.
    requests: how many there were; tokens: what they had as Authorization.
    """

    def __init__(
        self, answer: Callable[[], Answer] = taken, port: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        self.answer = answer
        self.port = port or free_port()
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._tls = tls
        self.spans: list[CollectedSpan] = []
        self.requests = 0
        self.tokens: set[str | None] = set()
        self._connections: set[socket.socket] = set()
        self._server: ThreadingHTTPServer
        self._thread: threading.Thread

    def __enter__(self) -> Self:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                collector._connections.add(self.connection)

            def finish(self) -> None:
                collector._connections.discard(self.connection)
                super().finish()

            def do_POST(self) -> None:
                collector.take(self)

            def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - its name there
                """Nothing is logged."""

        self._server = _Server(("127.0.0.1", self.port), Handler)
        if self._tls is not None:
            listening = self._server.socket
            self._server.socket = self._tls.wrap_socket(listening, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), name="collector")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        for connection in tuple(self._connections):  # each has a thread, which waits for its next request
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._server.server_close()
        self._thread.join()

    def take(self, handler: BaseHTTPRequestHandler) -> None:
        """One request of the exporter."""
        assert handler.path == "/v1/traces"
        assert handler.headers["Content-Type"] == _PROTOBUF
        assert handler.headers["Content-Encoding"] == "gzip"
        body = gzip.decompress(handler.rfile.read(int(handler.headers["Content-Length"])))
        self.tokens.add(handler.headers["Authorization"])
        self.requests += 1
        answer = self.answer()
        if answer is None:
            handler.close_connection = True
            return
        status, kind, said = answer
        if status == 200:
            self.spans += _spans(ExportTraceServiceRequest.FromString(body))
        with suppress(ConnectionError):  # the exporter may have gone meanwhile
            handler.send_response(status)
            handler.send_header("Content-Type", kind)
            handler.send_header("Content-Length", str(len(said)))
            handler.end_headers()
            handler.wfile.write(said)

    def wait_for(self, spans: int) -> list[CollectedSpan]:
        """All that have come, once they are so many."""
        return wait_until(lambda: len(self.spans) >= spans and list(self.spans), f"{spans} spans")


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # they are waited for


def _spans(request: ExportTraceServiceRequest) -> list[CollectedSpan]:
    return [
        CollectedSpan(span, _plain(of_one.resource.attributes))
        for of_one in request.resource_spans
        for scope in of_one.scope_spans
        for span in scope.spans
    ]


def _plain(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
