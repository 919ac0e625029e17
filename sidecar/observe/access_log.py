"""The access log: one line of JSON for each request and each session, at its end.

    Exchange._end ─► Recorder ─► AccessLog: a line of text ─► 64 KiB of lines, or 0.1 s ─► LogFile: thread ─► file

A line's text is all that is made between a response and the next request: from plain numbers, and from pieces that
stay the same for a while. README.md beside this has the table of the fields.
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from sidecar.errors import ProtocolError, Reason
from sidecar.http1.trace_context import TRACEPARENT, read_trace_id
from sidecar.model import CloseReason
from sidecar.model.stats import METHODS
from sidecar.observe.log_file import CHUNK, LogFile
from sidecar.observe.request_ids import REQUEST_ID, is_usable

if TYPE_CHECKING:
    from sidecar.clock import Clock
    from sidecar.cluster import Cluster
    from sidecar.config.settings import AccessLogSettings
    from sidecar.http1.message import RequestHead
    from sidecar.model.endpoint import EndpointState
    from sidecar.model.recording import RecordingCounts
    from sidecar.proxy.downstream import DownstreamConnection
    from sidecar.proxy.recording import RecordedExchange
    from sidecar.proxy.session import Session

__all__ = ["PATH_SIZE", "AccessLog"]

# Characters of a path as it is written; beyond them it ends in `...`. So a line, of which nothing else is long, goes
# into a pipe in one piece (`log_file.PIPE_BUF`).
PATH_SIZE: Final = 2048
_ESCAPED: Final = 3  # characters at most that one byte becomes: %FF
_CUT: Final = "..."

WAIT: Final = (
    0.1  # seconds that a line is kept for others to come: half of what tools that follow a file poll at
)

# By number, as an Enum's own properties cost a tenth of a whole line.
_REASONS: Final = [reason.label for reason in Reason]
_CLOSE_REASONS: Final = [reason.label for reason in CloseReason]
_METHODS: Final = list(METHODS)
_FULL: Final = CHUNK
_NONE: Final = int(Reason.NONE)
_CLIENT_GONE: Final = int(Reason.CLIENT_GONE)


class AccessLog:
    """What is written, and how it reads. `RecordingCounts` has what has become of the lines."""

    def __init__(self, settings: AccessLogSettings, clock: Clock, counts: RecordingCounts) -> None:
        self._file = LogFile(settings.file, settings.buffer, counts)
        self._chance = clock.uniform
        self._monotonic = clock.monotonic
        self._wall = clock.wall
        self._share = 0.0 if settings.errors_only else settings.sample
        self._query = settings.query
        self._lines: list[str] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None
        self._offset = 0.0  # from the monotonic clock to the wall clock
        self._second = -1  # the one that `_stamp` is of
        self._stamp = ""
        # What lines of one endpoint, or of an upstream where there was none, say of it; for as long as `WAIT`.
        self._places: dict[EndpointState | Cluster, str] = {}

    def start(self) -> None:
        """Open the file. Raises `StartError`."""
        self._file.start()
        self._loop = asyncio.get_running_loop()

    def reopen(self) -> None:
        """The file has been renamed: another one is opened by its name, once what came before is in the old one."""
        self._flush()
        self._file.reopen()

    async def close(self) -> None:
        """Write what waits, and end; within a second also where nothing can be written."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._flush()
        await self._file.close()

    # What is written

    def exchange_over(self, exchange: RecordedExchange, status: int, reason: Reason, now: float) -> None:
        """See `Recorder.exchange_over`."""
        number = int(reason)
        if status < 500 and number in (_NONE, _CLIENT_GONE) and self._is_left_out():
            return
        started = exchange.started
        head = exchange.head
        place = exchange.where
        self._write(
            f"{self._begin(started)}request"
            f"{self._of_endpoint(exchange.cluster, place)}"
            f',"method":"{_METHODS[head.method]}"'
            f',"path":"{self._path(head.target)}"'
            f',"status":{status}'
            f',"reason":"{_REASONS[number]}"'
            f',"attempts":{exchange.tries}'
            f',"duration":{_seconds(now - started)}'
            f',"connect":{_seconds(exchange.connect_time)}'
            f',"first_byte":{_seconds(exchange.first_byte - started)}'
            f',"request_bytes":{exchange.request_bytes}'
            f',"response_bytes":{exchange.response_bytes}'
            f',"trace_id":{_trace_id(exchange, head)}'
            f',"request_id":{_request_id(exchange, head)}}}\n'
        )

    def refused(self, client: DownstreamConnection, method: int, error: ProtocolError, now: float) -> None:
        """See `Recorder.refused`."""
        self._write(
            f"{self._begin(now)}request"
            f"{self._of_endpoint(client.cluster, None)}"
            f',"method":"{_METHODS[method]}","path":null'
            f',"status":{error.status},"reason":"{error.reason.label}","attempts":0'
            ',"duration":0.000000,"connect":null,"first_byte":null'
            ',"request_bytes":0,"response_bytes":0,"trace_id":null,"request_id":null}\n'
        )

    def session_over(self, session: Session, reason: CloseReason, now: float) -> None:
        """See `Recorder.session_over`."""
        if not reason.is_failure and self._is_left_out():
            return
        self._write(
            f"{self._begin(session.started)}session"
            f"{self._of_endpoint(session.cluster, session.where)}"
            f',"close_reason":"{_CLOSE_REASONS[reason]}"'
            f',"duration":{_seconds(now - session.started)}'
            f',"sent":{session.sent},"received":{session.received}}}\n'
        )

    def _is_left_out(self) -> bool:
        """Of what went well, whether this one is not among those written."""
        share = self._share
        return share < 1.0 and (not share or self._chance() >= share)

    # The line's parts

    def _begin(self, at: float) -> str:
        """The time, and the way to the kind. at: monotonic seconds."""
        if self._timer is None:
            self._wake()
        wall = at + self._offset
        second = int(wall)
        if second != self._second:
            self._second = second
            self._stamp = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        micros = int((wall - second) * 1e6)
        return f'{{"time":"{self._stamp}.{micros:06d}Z","kind":"'

    def _of_endpoint(self, cluster: Cluster, endpoint: EndpointState | None) -> str:
        key = cluster if endpoint is None else endpoint
        text = self._places.get(key)
        if text is None:
            address = None if endpoint is None else endpoint.endpoint.address
            text = f'","upstream":{json.dumps(cluster.name)},"endpoint":{json.dumps(address)}'
            self._places[key] = text
        return text

    def _path(self, target: bytes) -> str:
        """Without its query, unless that is wanted; as it stands in JSON."""
        if not self._query and b"?" in target:
            target = target.partition(b"?")[0]
        text = target.decode("latin-1")
        if text.isascii() and len(text) <= PATH_SIZE and '"' not in text and "\\" not in text:
            return text
        text = _escape(text)
        if len(text) > PATH_SIZE:
            text = _escape(target[: PATH_SIZE // _ESCAPED].decode("latin-1")) + _CUT
        return text

    # On their way

    def _write(self, line: str) -> None:
        size = len(line)
        if self._size + size > _FULL:
            self._flush()
        self._lines.append(line)
        self._size += size

    def _flush(self) -> None:
        lines = self._lines
        if lines:
            self._file.write("".join(lines).encode("ascii"), len(lines))
            self._lines = []
            self._size = 0

    def _wake(self) -> None:
        """The first line for a while."""
        self._offset = self._wall() - self._monotonic()
        self._timer = self._loop.call_later(WAIT, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._flush()
        self._places.clear()  # endpoints may leave, and are not to be kept


def _seconds(seconds: float) -> str:
    """With six decimals; below 0 is what did not happen."""
    if seconds < 0.0:
        return "null"
    micros = int(seconds * 1e6 + 0.5)
    return f"{micros // 1000000}.{micros % 1000000:06d}"


def _escape(text: str) -> str:
    """Bytes, a character each, as they stand in JSON. Those above 127 are written as a URL has them (RFC 3986 2.1)."""
    if not text.isascii():
        text = "".join(char if char < "\x80" else f"%{ord(char):02X}" for char in text)
    return json.dumps(text)[1:-1]


def _trace_id(exchange: RecordedExchange, head: RequestHead) -> str:
    if exchange.trace is not None:
        return f'"{exchange.trace.trace_id.decode("ascii")}"'
    value = head.field(TRACEPARENT)
    found = None if value is None else read_trace_id(value)
    return "null" if found is None else f'"{found.decode("ascii")}"'


def _request_id(exchange: RecordedExchange, head: RequestHead) -> str:
    value = exchange.request_id or head.field(REQUEST_ID)
    if value is None or not is_usable(value):
        return "null"
    text = value.decode("ascii")
    return f'"{text}"' if '"' not in text and "\\" not in text else json.dumps(text)
