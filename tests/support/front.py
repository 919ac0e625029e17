"""A door before a registry that a test can shut, or behind which somebody else answers: garbage, errors, nothing.

What stands behind it goes on and knows nothing of it. A change of mode cuts every open connection, as a registry's own
end would.
"""

import socket
import threading
from contextlib import suppress
from typing import Self

from support.ports import free_port

__all__ = ["Front"]

_PIECE = 65536


def _answer(status: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


_GARBAGE = _answer("200 OK", b'{"result": [{"ID": 4711,')
_ERROR = _answer("500 Internal Server Error", b"something went wrong\n")
_NOT_HTTP = b"\x00\xff\x13 no HTTP at all \r\n\r\n"


class Front:
    """Listens on `port` before whatever listens on `behind`, on loopback. Used as a context manager.

    mode: `pass`, `garbage` (a 200 with half a JSON document), `noise` (no HTTP), `errors` (500), `silent` (takes
    connections and says nothing), `shut` (refuses them). taken: connections so far.
    """

    def __init__(self, behind: int) -> None:
        self.behind = behind
        self.port = free_port()
        self.mode = "pass"
        self.taken = 0
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.turn("shut")
        for thread in self._threads:
            thread.join(5.0)

    @property
    def address(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self.port}"

    def turn(self, mode: str) -> None:
        """Be so from now on, also to whoever is connected."""
        self.mode = mode
        if mode == "shut":
            self._shut()
        elif self._listener is None:
            self._listen()
        with self._lock:
            for sock in self._open:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def _listen(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(128)
        self._listener = listener
        self._run(self._accept, listener)

    def _shut(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            listener.close()

    def _run(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name="front", daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                taken, _ = listener.accept()
            except OSError:
                return
            self.taken += 1
            with self._lock:
                self._open.add(taken)
            self._run(self._serve, taken)

    def _serve(self, taken: socket.socket) -> None:
        mode = self.mode
        try:
            if mode == "pass":
                self._pass(taken)
            else:
                self._answer(taken, mode)
        except OSError:
            pass
        finally:
            with self._lock:
                self._open.discard(taken)
            taken.close()

    def _answer(self, taken: socket.socket, mode: str) -> None:
        answers = {"garbage": _GARBAGE, "errors": _ERROR, "noise": _NOT_HTTP}
        while taken.recv(_PIECE):
            if mode in answers:
                taken.sendall(answers[mode])

    def _pass(self, taken: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self.behind), 5.0) as behind:
            behind.settimeout(None)
            with self._lock:
                self._open.add(behind)
            back = threading.Thread(target=_copy, args=(behind, taken), name="front, back", daemon=True)
            back.start()
            try:
                _copy(taken, behind)
            finally:
                back.join(5.0)
                with self._lock:
                    self._open.discard(behind)


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Until either ends; then both do."""
    with suppress(OSError):
        while piece := source.recv(_PIECE):
            target.sendall(piece)
    for sock in (source, target):
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
