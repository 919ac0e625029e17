"""The collector, as a session of requests that the OTLP exporter sends by.

It adds the token, reads no more of an answer than one may have, remembers what went wrong in words of ours, and can be
ended from another thread while it waits.
"""

from __future__ import annotations

import http.client
import io
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

import requests
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import DecodeError as ContentError
from urllib3.exceptions import HTTPError

from sidecar.config.secrets import SecretError, read_secret
from sidecar.errors import SidecarError

if TYPE_CHECKING:
    import logging
    from collections.abc import Mapping

    from sidecar.config.settings import TracingSettings

__all__ = ["Collector"]

CONNECT_WITHIN: Final = 2.0  # seconds; a collector is near
MAX_ANSWER: Final = 65536  # bytes of an answer, which says how many spans were refused and why, or nothing


class CollectorError(requests.ConnectionError, SidecarError):
    """What the collector did, in a few words."""


class Collector(requests.Session):
    """The HTTP side of the export. All but `abort` is the exporting thread's.

    is_ill: what was sent last was not taken. refused: the exporter takes the last answer for a success, and it is none.
    rejected: spans that the collector has not taken of a batch that it has (OTLP's partial success).
    """

    def __init__(self, settings: TracingSettings, environ: Mapping[str, str], log: logging.Logger) -> None:
        """Raises SecretError: there is a token, and it cannot be read."""
        super().__init__()
        self.trust_env = False  # the application's proxies and .netrc are not for this
        self._settings = settings
        self._environ = environ
        self._log = log
        self._sockets = _Sockets()
        self._problem = ""
        self.is_ill = False
        self._lost = 0
        self.refused = False
        self.rejected = 0
        self.authorization()
        self.mount("http://", _Adapter(self._sockets))
        self.mount("https://", _Adapter(self._sockets))

    def authorization(self) -> bytes:
        """What goes into Authorization, read anew each time; empty without a token. Raises SecretError."""
        settings = self._settings
        token = read_secret("token", settings.token_env, settings.token_file, self._environ).strip()
        if token and not (token.isascii() and token.decode("ascii").isprintable()):
            where = settings.token_env or settings.token_file
            raise SecretError(f"{where} holds what no header can carry; a token is visible ASCII")
        return b"Bearer " + token if token else b""

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """See `requests.Session.send`. Raises CollectorError."""
        self.refused = False
        self.rejected = 0
        try:
            authorization = self.authorization()
            if authorization:
                request.headers["Authorization"] = authorization.decode("ascii")
            within = float(options["timeout"])
            options.update(timeout=(min(within, CONNECT_WITHIN), within), stream=True)
            answer = super().send(request, **options)
            with answer:
                self._read(answer)
        except SecretError as error:
            problem = str(error)
        except (requests.RequestException, HTTPError, OSError) as error:  # HTTPError: of its body
            problem = _said(error)
        else:
            self._problem = self._judge(answer)
            if self._problem:
                self._say()
            return answer
        self._problem = problem
        self._say()
        raise CollectorError(problem)

    def begin(self) -> None:
        """Another batch."""
        self._problem = ""

    def well(self) -> None:
        """A batch was taken."""
        if self.is_ill:
            self._log.info(
                "spans are exported to %s again; %d were lost", self._settings.endpoint, self._lost
            )
        self.is_ill = False
        self._lost = 0

    def ill(self, spans: int) -> None:
        """A batch of so many was not taken."""
        self._lost += spans
        self._problem = self._problem or "the batch could not be sent"
        self._say()

    def abort(self) -> None:
        """End what is going on, from another thread: nothing is sent any more."""
        self._sockets.shut()

    def _read(self, answer: requests.Response) -> None:
        """As much of its body as it may have, in place of all of it."""
        body = answer.raw.read(MAX_ANSWER + 1, decode_content=True)
        if len(body) > MAX_ANSWER:
            raise CollectorError("its answer is too long; is that a collector?")
        answer.raw.close()
        answer.raw = io.BytesIO(body)
        assert answer.content == body

    def _judge(self, answer: requests.Response) -> str:
        """What is wrong with an answer; empty for a good one."""
        if answer.status_code != 200:
            self.refused = True
            return f"status {answer.status_code}"
        if "json" in answer.headers.get("Content-Type", ""):  # some answer so, whatever was sent
            return ""
        try:
            told = ExportTraceServiceResponse.FromString(answer.content).partial_success
        except DecodeError:
            self.refused = True
            return "its answer is no OTLP; is that a collector?"
        self.rejected = max(0, told.rejected_spans)
        return f"{self.rejected} spans of a batch were refused" if self.rejected else ""

    def _say(self) -> None:
        """Once, until it is well again."""
        if not self.is_ill and not self._sockets.closed:
            self._log.warning(
                "spans are not exported: %s: %s; requests go on, and spans are counted as failed or dropped"
                " until that is over",
                self._settings.endpoint,
                self._problem,
            )
        self.is_ill = True


class _Sockets:
    """Those that are open, so that they can be shut while another thread waits for them."""

    def __init__(self) -> None:
        self._open: WeakSet[socket.socket] = WeakSet()
        self._lock = threading.Lock()
        self.closed = False

    def add(self, sock: socket.socket | None) -> None:
        if sock is None:
            return
        with self._lock:
            self._open.add(sock)
        if self.closed:
            self.shut()

    def shut(self) -> None:
        with self._lock:
            self.closed = True
            for sock in tuple(self._open):
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)


class _Adapter(HTTPAdapter):
    """The connections of a session, each of which tells `sockets`."""

    def __init__(self, sockets: _Sockets) -> None:
        super().__init__(pool_connections=1, pool_maxsize=1)
        self._sockets = sockets

        class Plain(HTTPConnection):
            def connect(self) -> None:
                super().connect()
                sockets.add(self.sock)

        class Secure(HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                sockets.add(self.sock)

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class SecurePool(HTTPSConnectionPool):
            ConnectionCls = Secure

        self.poolmanager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}

    def send(self, *arguments: Any, **options: Any) -> requests.Response:
        if self._sockets.closed:
            raise CollectorError("the sidecar ends")
        return super().send(*arguments, **options)


def _said(error: BaseException) -> str:
    """The cause, without the names of classes and objects around it."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, SidecarError):
            return str(seen)
        if isinstance(seen, OSError) and seen.errno is not None and seen.strerror:
            return seen.strerror.lower()
        if isinstance(seen, (TimeoutError, requests.Timeout)):
            return "no answer in time"
        if isinstance(seen, (http.client.RemoteDisconnected, http.client.IncompleteRead)):
            return "the connection was closed before the answer was whole"
        if isinstance(seen, (http.client.HTTPException, ContentError)):
            return "its answer is no HTTP; is that a collector?"
        seen = seen.__cause__ or seen.__context__
    return type(error).__name__
