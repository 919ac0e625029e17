"""Spans on their way: what a collector gets, and what becomes of them when it does not take them."""

import asyncio
import logging
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from support.authority import Authority
from support.collector import Answer, Collector, rejecting, taken
from support.ports import free_port

from sidecar.clock import Clock
from sidecar.config.settings import TracingSettings
from sidecar.errors import StartError
from sidecar.model import RecordingCounts
from sidecar.observe import collector as collector_module
from sidecar.observe import span_export
from sidecar.observe.span_export import BATCH, SpanExport
from sidecar.observe.spans import Span
from sidecar.observe.tracing import Tracer

ATTRIBUTES = {"url.scheme": "http", "url.path": "/a", "server.address": "api", "server.port": 80}
TRACE = b"0af7651916cd43dd8448eb211c80319c"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for others, and a slow machine may take its time at the end."""
    monkeypatch.setattr(span_export, "DELAY", 0.01)
    monkeypatch.setattr(span_export, "CLOSE_WITHIN", 10.0)


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exporter does not try again: it would have to wait for too long."""
    client = "opentelemetry.exporter.otlp.common.http._OTLPHTTPClient"
    monkeypatch.setattr(f"{client}._compute_backoff", lambda *_: 1000.0)


@pytest.fixture
def ends_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """An export may take long, and the end may not."""
    monkeypatch.setattr(span_export, "EXPORT_WITHIN", 30.0)
    monkeypatch.setattr(span_export, "CLOSE_WITHIN", 0.3)


def span(number: int = 1, **other: Any) -> Span:
    fields: dict[str, Any] = {
        "name": "GET",
        "trace_id": TRACE,
        "span_id": b"%016x" % number,
        "parent_id": b"b7ad6b7169203331",
        "remote": True,
        "flags": 3,
        "state": b"x=1,y=2",
        "start": 10.0,
        "end": 10.5,
        "attributes": ATTRIBUTES,
        "error": "",
        "events": [("sidecar.connected", 10.25)],
    }
    return Span(**(fields | other))


class Running:
    """An export. counts: of it; log: its lines."""

    def __init__(self, export: SpanExport, counts: RecordingCounts) -> None:
        self.export = export
        self.counts = counts

    @property
    def told(self) -> tuple[int, int, int]:
        """Exported, failed, dropped."""
        return self.counts.spans_exported, self.counts.spans_failed, self.counts.spans_dropped

    async def until(self, ready: Callable[["Running"], bool]) -> None:
        """Wait for the thread."""
        async with asyncio.timeout(10):
            while not ready(self):  # noqa: ASYNC110 - plain numbers, which another thread counts
                await asyncio.sleep(0.005)


@asynccontextmanager
async def exporting(
    url: str = "http://127.0.0.1:9", exporter: Any = None, environ: dict[str, str] | None = None, **more: Any
) -> AsyncIterator[Running]:
    counts = RecordingCounts()
    settings = TracingSettings(url, **more)
    export = SpanExport(settings, Clock(), counts, environ or {}, "local", exporter)
    export.start(asyncio.get_running_loop())
    try:
        yield Running(export, counts)
    finally:
        await export.close()


async def test_a_span_as_the_sdk_has_it() -> None:
    exporter = InMemorySpanExporter()
    async with exporting(exporter=exporter, service="shop") as running:
        running.export.put(span(), 1000.0)
        running.export.put(span(2, parent_id=b"", state=b"=bad", error="reset", events=[]), 1000.0)
        await running.until(lambda one: one.told == (2, 0, 0))
    first, second = exporter.get_finished_spans()
    assert first.context is not None
    assert second.context is not None
    assert first.parent is not None
    assert (first.name, first.kind, first.status.status_code) == ("GET", SpanKind.CLIENT, StatusCode.UNSET)
    assert (first.context.trace_id, first.context.span_id) == (int(TRACE, 16), 1)
    assert (first.parent.span_id, first.parent.is_remote) == (0xB7AD6B7169203331, True)
    assert first.context.trace_state.to_header() == "x=1,y=2"
    assert (first.start_time, first.end_time) == (1_010_000_000_000, 1_010_500_000_000)
    assert [(event.name, event.timestamp) for event in first.events] == [
        ("sidecar.connected", 1_010_250_000_000)
    ]
    assert dict(first.attributes or {}) == {**ATTRIBUTES, "url.full": "http://api:80/a"}
    assert first.resource.attributes["service.name"] == "shop"
    assert first.resource.attributes["deployment.environment.name"] == "local"
    assert second.parent is None
    assert not second.context.trace_state
    assert (second.status.status_code, (second.attributes or {})["error.type"]) == (StatusCode.ERROR, "reset")


@pytest.mark.parametrize("which", ["spans", ""])
async def test_a_thread_that_does_not_start_is_an_error_of_the_start(
    monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    begin = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if which in thread.name:
            raise RuntimeError("can't start new thread")
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(StartError, match="raise the limit on threads"):
        Tracer(TracingSettings("http://127.0.0.1:9"), Clock(), RecordingCounts(), {}, "local").start()


async def test_what_a_collector_gets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # the application's
    token = tmp_path / "token"
    token.write_text("secret\n")
    with Collector() as collector:
        async with exporting(collector.url, token_file=str(token)) as running:
            running.export.put(span(), time.time())
            await running.until(lambda one: one.told == (1, 0, 0))
            token.write_text("another")
            running.export.put(span(2), time.time())
            await running.until(lambda one: one.told == (2, 0, 0))
    assert collector.tokens == {"Bearer secret", "Bearer another"}
    first, second = collector.spans
    assert (first.span_id, second.span_id) == (f"{1:016x}", f"{2:016x}")
    assert (first.trace_id, first.parent_id, first.remote_parent) == (
        TRACE.decode(),
        "b7ad6b7169203331",
        True,
    )
    assert (first.kind, first.state, first.events) == ("CLIENT", "x=1,y=2", ["sidecar.connected"])
    assert first.resource["service.name"] == "sidecar"


@pytest.mark.server("openssl")
@pytest.mark.usefixtures("once")
async def test_a_collector_behind_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority(tmp_path)
    with Collector(tls=authority.server("collector", "127.0.0.1")) as collector:
        async with exporting(collector.url) as running:
            running.export.put(span(), 0.0)
            await running.until(lambda one: one.told == (0, 1, 0))
        assert "certificate verify failed" in _lines(caplog)[0]
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(authority.ca))
        async with exporting(collector.url) as running:
            running.export.put(span(), 0.0)
            await running.until(lambda one: one.told == (1, 0, 0))


async def test_what_waits_at_the_end_is_sent() -> None:
    with Collector() as collector:
        async with exporting(collector.url) as running:
            for number in range(BATCH + 10):
                running.export.put(span(number + 1), 0.0)
        assert running.told == (BATCH + 10, 0, 0)
        assert len(collector.spans) == BATCH + 10
        running.export.put(span(), 0.0)
        assert running.told == (BATCH + 10, 0, 1), "nobody sends it any more"


@pytest.mark.parametrize(("queue", "full"), [(2048, BATCH), (1000, 500), (64, 32)])
async def test_a_batch_that_is_full_is_sent_at_once(
    monkeypatch: pytest.MonkeyPatch, queue: int, full: int
) -> None:
    monkeypatch.setattr(span_export, "DELAY", 60.0)
    exporter = InMemorySpanExporter()
    async with exporting(exporter=exporter, queue=queue) as running:
        for number in range(full):
            running.export.put(span(number + 1), 0.0)
        await running.until(lambda one: one.told == (full, 0, 0))


async def test_what_comes_while_a_batch_is_sent_waits_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_export, "DELAY", 60.0)
    batches: list[int] = []

    class Busy(InMemorySpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            batches.append(len(spans))
            if len(batches) == 1:
                running.export.put(span(BATCH + 1), 0.0)
            return SpanExportResult.SUCCESS

    async with exporting(exporter=Busy()) as running:
        for number in range(BATCH):
            running.export.put(span(number + 1), 0.0)
        await running.until(lambda one: one.told == (BATCH, 0, 0))
        for number in range(2):
            running.export.put(span(BATCH + 2 + number), 0.0)
    assert batches == [BATCH, 3]


async def test_an_exporter_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    class Raising(InMemorySpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            raise RuntimeError("a bug")

    async with exporting(exporter=Raising()) as running:
        for number in range(2):
            running.export.put(span(number + 1), 0.0)
            await running.until(lambda one, number=number: one.told == (0, number + 1, 0))  # type: ignore[misc]
    assert len(_lines(caplog)) == 1


async def test_the_queue_has_a_bound() -> None:
    sending, go_on = threading.Event(), threading.Event()

    class Slow(InMemorySpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            sending.set()
            go_on.wait(10)
            return super().export(spans)

    async with exporting(exporter=Slow(), queue=100) as running:
        running.export.put(span(1), 0.0)
        await running.until(lambda _: sending.is_set())
        for number in range(150):
            running.export.put(span(number + 2), 0.0)
        assert running.told == (0, 0, 50)
        go_on.set()
        await running.until(lambda one: one.told == (101, 0, 50))


def _lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The sidecar's. pytest also sees what goes no further: see `test_the_libraries_say_nothing`."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("sidecar")]


@pytest.mark.usefixtures("once")
async def test_a_collector_that_is_not_there(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    port = free_port()
    async with exporting(f"http://127.0.0.1:{port}") as running:
        for number in range(2):
            running.export.put(span(number + 1), 0.0)
            await running.until(lambda one, number=number: one.told == (0, number + 1, 0))  # type: ignore[misc]
        with Collector(port=port):
            running.export.put(span(3), 0.0)
            await running.until(lambda one: one.told == (1, 2, 0))
    url = f"http://127.0.0.1:{port}"
    ill, well = _lines(caplog)
    assert ill.startswith(f"spans are not exported: {url}: connection refused; requests go on")
    assert well == f"spans are exported to {url} again; 2 were lost"


@pytest.mark.usefixtures("once")
async def test_the_libraries_say_nothing() -> None:
    """What they log of a failed export, some of it with a traceback, gets to no handler of the process."""
    heard: list[str] = []

    class Hearing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.name)

    handler = Hearing()
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        async with exporting(f"http://127.0.0.1:{free_port()}") as running:
            running.export.put(span(), 0.0)
            await running.until(lambda one: one.told == (0, 1, 0))
    finally:
        root.removeHandler(handler)
    assert set(heard) == {"sidecar.tracing"}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((503, "text/plain", b"busy"), "status 503"),
        ((400, "text/plain", b"no"), "status 400"),
        ((302, "text/plain", b""), "status 302"),
        ((200, "text/html", b"<html>welcome</html>"), "its answer is no OTLP; is that a collector?"),
        ((200, "application/x-protobuf", b"\0" * 70000), "its answer is too long; is that a collector?"),
        (None, "connection reset by peer|the connection was closed before the answer was whole"),
    ],
)
@pytest.mark.usefixtures("once")
async def test_a_collector_that_takes_nothing(
    caplog: pytest.LogCaptureFixture, answer: Answer, said: str
) -> None:
    with Collector(lambda: answer) as collector:
        async with exporting(collector.url) as running:
            running.export.put(span(), 0.0)
            await running.until(lambda one: one.told == (0, 1, 0))
    (line,) = _lines(caplog)
    assert any(f": {one}; " in line for one in said.split("|")), line


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "the connection was closed before the answer was whole"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx",
            "the connection was closed before the answer was whole",
        ),
        (b"SSH-2.0-OpenSSH_9\r\n\r\n", "its answer is no HTTP; is that a collector?"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 13\r\n\r\nit is no gzip",
            "its answer is no HTTP; is that a collector?",
        ),
    ],
)
@pytest.mark.usefixtures("once")
async def test_what_is_no_answer_is_said_in_words(
    caplog: pytest.LogCaptureFixture, answer: bytes, said: str
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        size = re.search(rb"Content-Length: (\d+)", head)
        assert size is not None
        await reader.readexactly(int(size[1]))
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with exporting(f"http://127.0.0.1:{port}") as running:
            running.export.put(span(), 0.0)
            await running.until(lambda one: one.told == (0, 1, 0))
    (line,) = _lines(caplog)
    assert f": {said}; " in line


@pytest.mark.parametrize(("rejected", "told"), [(1, (2, 1, 0)), (99, (0, 3, 0)), (-1, (3, 0, 0))])
async def test_some_are_not_taken(rejected: int, told: tuple[int, int, int]) -> None:
    with Collector(lambda: rejecting(rejected)) as collector:
        async with exporting(collector.url) as running:
            for number in range(3):
                running.export.put(span(number + 1), 0.0)
            await running.until(lambda one: one.told == told)


async def test_an_answer_in_json_is_one() -> None:
    with Collector(lambda: (200, "application/json", b"{}")) as collector:
        async with exporting(collector.url) as running:
            running.export.put(span(), 0.0)
            await running.until(lambda one: one.told == (1, 0, 0))


async def test_a_busy_collector_is_asked_again() -> None:
    answers: list[Answer] = [(503, "text/plain", b""), taken()]
    with Collector(lambda: answers.pop(0)) as collector:
        async with exporting(collector.url) as running:
            running.export.put(span(), 0.0)
            await running.until(lambda one: one.told == (1, 0, 0))
        assert collector.requests == 2


@pytest.mark.usefixtures("ends_soon")
async def test_a_collector_that_never_answers_does_not_hold_up_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    go_on = threading.Event()

    def slow() -> Answer:
        go_on.wait(30)
        return taken()

    with Collector(slow) as collector:
        try:
            async with exporting(collector.url) as running:
                running.export.put(span(), 0.0)
                await running.until(lambda _: collector.requests == 1)
                running.export.put(span(2), 0.0)
                began = time.monotonic()
            assert time.monotonic() - began < 2.0
            assert "spans" not in [thread.name for thread in threading.enumerate()]
            assert running.told == (0, 1, 1)
        finally:
            go_on.set()
    assert _lines(caplog) == [], "it is the end, and nobody's fault"


async def test_one_that_is_ill_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_export, "EXPORT_WITHIN", 30.0)
    monkeypatch.setattr(span_export, "CLOSE_WITHIN", 30.0)
    async with exporting(f"http://127.0.0.1:{free_port()}") as running:
        running.export.put(span(), 0.0)
        await running.until(lambda one: one.export._collector.is_ill)
        began = time.monotonic()
    assert time.monotonic() - began < 1.0
    assert running.told == (0, 1, 0)


def test_a_socket_that_comes_too_late_is_shut_too() -> None:
    sockets = collector_module._Sockets()
    one, other = socket.socketpair()
    with one, other:
        sockets.add(None)
        sockets.add(one)
        sockets.shut()
        assert other.recv(1) == b""
    one, other = socket.socketpair()
    with one, other:
        other.settimeout(5.0)
        sockets.add(one)
        assert other.recv(1) == b""


@pytest.mark.usefixtures("ends_soon")
async def test_a_collector_that_nobody_can_connect_to_does_not_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(collector_module, "CONNECT_WITHIN", 0.2)
    with socket.socket() as full, socket.socket() as first:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        first.connect(full.getsockname())
        async with exporting(f"http://127.0.0.1:{full.getsockname()[1]}") as running:
            running.export.put(span(), 0.0)
            await running.until(lambda one: not one.export._queue)
            began = time.monotonic()
        assert time.monotonic() - began < 2.0


@pytest.mark.usefixtures("once")
async def test_a_token_that_is_gone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    with Collector() as collector:
        async with exporting(collector.url, token_file=str(token)) as running:
            token.unlink()
            running.export.put(span(), 0.0)
            await running.until(lambda one: one.told == (0, 1, 0))
        assert collector.requests == 0
    (line,) = _lines(caplog)
    assert f"{token} (token_file): no such file or directory" in line


def test_an_export_that_never_began() -> None:
    settings = TracingSettings("http://127.0.0.1:9")
    export = SpanExport(settings, Clock(), RecordingCounts(), {}, "local")
    asyncio.run(export.close())
