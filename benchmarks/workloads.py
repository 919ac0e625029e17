"""What is counted: the functions that every request passes through, and whole exchanges in memory."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from in_memory import NOW, DataPath

from sidecar.http1 import ChunkedReader, LengthReader, scan_request, scan_response
from sidecar.model import Outcome
from sidecar.proxy.downstream import DownstreamConnection
from sidecar.proxy.tcp import TcpSession

__all__ = ["WORKLOADS", "Workload"]

GET = 0  # index into sidecar.model.stats.METHODS
OK = 200
NO_REASON = 0

SMALL_GET = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n"
CLOSING_GET = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nConnection: close\r\n\r\n"
# As a browser asks: what it costs to have many lines.
LARGE_GET = (
    b"GET /api/items?page=2&order=name HTTP/1.1\r\nHost: localhost:8080\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n"
    b"Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\n"
    b"Referer: http://localhost:8080/api/items?page=1&order=name\r\n"
    b"Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n"
    b"Cache-Control: no-cache\r\nConnection: keep-alive\r\nX-Request-Id: 00000000-0000-4000-8000-000000000000\r\n\r\n"
)
POST = (
    b"POST /api/items HTTP/1.1\r\nHost: localhost:8080\r\nContent-Type: application/json\r\n"
    b"Content-Length: 1024\r\n\r\n" + b"x" * 1024
)
# As nginx answers.
ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Tue, 01 Jan 2030 00:00:00 GMT\r\n"
    b"Content-Type: text/plain\r\nContent-Length: 130\r\nConnection: keep-alive\r\n\r\n" + b"x" * 130
)
CHUNKED_ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Tue, 01 Jan 2030 00:00:00 GMT\r\n"
    b"Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
)
CHUNKS = b"".join(b"%x\r\n%b\r\n" % (1024, b"x" * 1024) for _ in range(8)) + b"0\r\n\r\n"
PIECE = b"x" * 16384
COMMAND = b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n"
REPLY = b"$3\r\nxxx\r\n"

Run = Callable[[int], None]  # does it so many times


@dataclass(frozen=True, slots=True)
class Workload:
    """name: in tables and baselines; text: what once is. prepare: sets everything up, and gives what is counted."""

    name: str
    text: str
    prepare: Callable[[], Run]


def _scan_small() -> Run:
    def run(times: int) -> None:
        for _ in range(times):
            scan_request(SMALL_GET)

    return run


def _scan_large() -> Run:
    def run(times: int) -> None:
        for _ in range(times):
            scan_request(LARGE_GET)

    return run


def _scan_response() -> Run:
    def run(times: int) -> None:
        for _ in range(times):
            scan_response(ANSWER, 0, GET)

    return run


def _render_request() -> Run:
    head = scan_request(LARGE_GET)
    assert head is not None

    def run(times: int) -> None:
        for _ in range(times):
            head.render(b"10.0.0.1:80")

    return run


def _render_response() -> Run:
    head = scan_response(ANSWER, 0, GET)
    assert head is not None
    body = ANSWER[-130:]

    def run(times: int) -> None:
        for _ in range(times):
            head.render(b"", body)

    return run


def _pick() -> Run:
    picker = DataPath(endpoints=100).cluster.picker

    def run(times: int) -> None:
        for _ in range(times):
            picker.pick(0, 0.0)

    return run


def _pick_and_report() -> Run:
    cluster = DataPath(endpoints=100).cluster
    success = Outcome.SUCCESS

    def run(times: int) -> None:
        for _ in range(times):
            state = cluster.pick(NOW)
            assert state is not None
            cluster.report(state, success, NOW, state.breaker.permit)

    return run


def _breaker() -> Run:
    (state,) = DataPath(endpoints=1).cluster.endpoints.values()
    breaker = state.breaker
    failure, success = Outcome.RESET, Outcome.SUCCESS

    def run(times: int) -> None:
        for _ in range(times):
            breaker.record(failure, NOW, breaker.permit)
            breaker.record(success, NOW, breaker.permit)

    return run


def _count_request() -> Run:
    stats = DataPath().cluster.stats

    def run(times: int) -> None:
        for _ in range(times):
            stats.count_request(GET, OK, NO_REASON, 0.003)

    return run


def _chunked() -> Run:
    def run(times: int) -> None:
        for _ in range(times):
            ChunkedReader().feed(CHUNKS)

    return run


def _length() -> Run:
    def run(times: int) -> None:
        for _ in range(times):
            LengthReader(len(PIECE)).feed(PIECE)

    return run


def _exchange(request: bytes, *answer: bytes, recorder: Any = None) -> Run:
    """Requests of one client, each answered by the connection that it went to. recorder: who is told of them."""
    path = DataPath()
    if recorder is not None:  # of a package from before there was such a thing it is not even None
        path.context.recorder = recorder
    client = path.connect(DownstreamConnection)
    ask = client.protocol.data_received
    for _ in range(len(path.cluster.endpoints)):  # connections to all of them are open from now on
        ask(request)
        for piece in answer:
            path.opened[-1].protocol.data_received(piece)
    replying = cycle(
        [transport.protocol.data_received for transport in path.opened]
    )  # as the picker goes round

    def run(times: int) -> None:
        for _ in range(times):
            ask(request)
            reply = next(replying)
            for piece in answer:
                reply(piece)

    return _answering(run, lambda: client.written)


class _Loop(asyncio.SelectorEventLoop):
    """One that is closed, and of which nothing is called later."""

    def call_later(self, *_: Any) -> Any:
        return self


def _logged(request: bytes) -> Run:
    """Requests as above with an access log, up to the thread that writes it: a process that is forked has none."""
    from sidecar.config.settings import AccessLogSettings  # noqa: PLC0415 - packages before have none
    from sidecar.observe.access_log import AccessLog  # noqa: PLC0415
    from sidecar.observe.recorder import ExchangeRecorder  # noqa: PLC0415

    context = DataPath().context
    log = AccessLog(AccessLogSettings(os.devnull), context.clock, context.recording)

    async def open_and_close() -> None:
        log.start()
        await log.close()

    loop = _Loop()
    loop.run_until_complete(open_and_close())
    loop.close()
    return _exchange(request, ANSWER, recorder=ExchangeRecorder(log, None, None))


def _new_client() -> Run:
    """A connection for each request, to one endpoint whose own is kept."""
    path = DataPath(endpoints=1)
    written = 0

    def run(times: int) -> None:
        nonlocal written
        for _ in range(times):
            client = path.connect(DownstreamConnection)
            client.protocol.data_received(CLOSING_GET)
            path.opened[-1].protocol.data_received(ANSWER)
            client.lose()
            written += client.written

    return _answering(run, lambda: written)


def _session() -> Run:
    """A command and its reply through an open TCP session."""
    path = DataPath("redis", endpoints=1)
    client = path.connect(TcpSession)
    (endpoint,) = path.opened
    ask, reply = client.protocol.data_received, endpoint.protocol.data_received

    def run(times: int) -> None:
        for _ in range(times):
            ask(COMMAND)
            reply(REPLY)

    return _answering(run, lambda: client.written)


def _answering(run: Run, written: Callable[[], int]) -> Run:
    """The same, once it is seen that every time brings an answer: else nothing worth counting would be counted."""
    before = written()
    run(1)
    once = written() - before
    run(6)
    assert once > 0, "no answer"
    assert written() - before == 7 * once, "not every request was answered"
    return run


WORKLOADS = (
    Workload("scan_request", "the head of a small GET", _scan_small),
    Workload("scan_request-large", "the head of a browser's GET", _scan_large),
    Workload("scan_response", "the head that nginx answers with", _scan_response),
    Workload("request-render", "a browser's GET for an endpoint", _render_request),
    Workload("response-render", "an answer for the client", _render_response),
    Workload("pick", "one of 100 endpoints", _pick),
    Workload("pick-report", "the same, and that it went well", _pick_and_report),
    Workload("breaker", "a failure and a success", _breaker),
    Workload("count_request", "the end of an exchange", _count_request),
    Workload("chunked", "eight chunks of 1 KiB in one read", _chunked),
    Workload("length", "a body of 16 KiB in one read", _length),
    Workload("exchange", "GET and its answer, both connections kept", lambda: _exchange(SMALL_GET, ANSWER)),
    Workload("exchange-large", "a browser's GET", lambda: _exchange(LARGE_GET, ANSWER)),
    Workload("exchange-post", "POST of 1 KiB", lambda: _exchange(POST, ANSWER)),
    Workload("exchange-logged", "the first one, with an access log", lambda: _logged(SMALL_GET)),
    Workload("exchange-logged-large", "a browser's GET, with an access log", lambda: _logged(LARGE_GET)),
    Workload(
        "exchange-chunked",
        "a chunked answer in two reads",
        lambda: _exchange(SMALL_GET, CHUNKED_ANSWER, CHUNKS),
    ),
    Workload("exchange-connect", "a client connection for one GET", _new_client),
    Workload("session", "a Redis command and its reply", _session),
)
