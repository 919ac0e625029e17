"""`sidecar wait`: until the metrics address says that the sidecar takes work, or the time is over."""

import io
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from support.clock import FakeClock

from sidecar.clock import Clock
from sidecar.console.wait import wait_ready

Serve = Callable[..., str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Answers one connection after the other with the given bytes; gives host:port."""
    threads: list[threading.Thread] = []

    def serve(*answers: bytes) -> str:
        listener = socket.create_server(("127.0.0.1", 0))

        def run() -> None:
            with listener:
                for answer in answers:
                    with listener.accept()[0] as connection:
                        connection.settimeout(5)
                        assert connection.recv(4096).startswith(b"GET /ready HTTP/1.1\r\n")
                        connection.sendall(answer)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield serve
    for thread in threads:
        thread.join()


def waited(address: str, within: float = 1.0) -> tuple[int, str, float]:
    """The exit code, what it said, and the seconds by a clock that goes on only in pauses."""
    clock, errors = FakeClock(), io.StringIO()
    began = clock.monotonic()
    code = wait_ready(address, within, errors, clock, clock.advance)  # type: ignore[arg-type]
    return code, errors.getvalue(), clock.monotonic() - began


def answer(status: bytes) -> bytes:
    return b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n"


NO, YES = answer(b"503 Service Unavailable"), answer(b"200 OK")


def test_one_that_is_ready_is_not_waited_for(serve: Serve) -> None:
    assert waited(serve(YES)) == (0, "", 0.0)


def test_it_asks_until_it_is_ready(serve: Serve) -> None:
    code, said, seconds = waited(serve(NO, NO, b"", YES))
    assert (code, said) == (0, "")
    assert seconds == pytest.approx(0.15)


def test_it_gives_up_and_says_what_it_heard(serve: Serve) -> None:
    address = serve(*[NO] * 4)
    assert waited(address, 0.19)[:2] == (
        1,
        f"sidecar: not ready at {address} within 0.19 s: it says that it is not ready yet\n",
    )


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        (answer(b"404 Not Found"), "what answers there is no sidecar's metrics address"),
        (b"", "it closes without an answer"),
        (b"SSH 200 OK\r\n", "what answers there is no sidecar's metrics address"),
    ],
)
def test_it_says_what_else_is_there(serve: Serve, said: bytes, heard: str) -> None:
    assert waited(serve(said), 0.01)[1].endswith(f": {heard}\n")


def test_it_says_that_nobody_is_there() -> None:
    with socket.socket() as bound:  # not listening
        bound.bind(("127.0.0.1", 0))
        code, said, seconds = waited(f"127.0.0.1:{bound.getsockname()[1]}")
    assert code == 1
    assert said.endswith(" within 1 s: nothing listens there\n")
    assert seconds == pytest.approx(1.0, abs=0.06)


def test_one_that_is_silent_takes_no_longer_than_that() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        code, said, _ = waited(f"127.0.0.1:{silent.getsockname()[1]}", 0.05)
    assert (code, said.endswith(": no answer in time\n")) == (1, True)


def test_one_that_says_its_line_byte_by_byte_takes_no_longer_either() -> None:
    over = threading.Event()

    def drip(listener: socket.socket) -> None:
        with listener.accept()[0] as connection, suppress(OSError):
            while not over.wait(0.01):
                connection.sendall(b"H")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        errors = io.StringIO()
        try:
            asked = f"127.0.0.1:{listener.getsockname()[1]}"
            assert wait_ready(asked, 0.05, errors, Clock(), lambda _: None) == 1
        finally:
            over.set()
            thread.join()
    assert errors.getvalue().endswith(": no answer in time\n")


def test_a_line_that_does_not_end_is_not_kept(serve: Serve) -> None:
    assert waited(serve(b"H" * 4096), 0.01)[1].endswith(
        ": what answers there is no sidecar's metrics address\n"
    )


@pytest.mark.parametrize("host", ["a..b", "x" * 64, "x" * 300])
def test_a_host_that_no_resolver_takes_is_one_line(host: str) -> None:
    code, said, _ = waited(f"{host}:9902", 0.01)
    assert (code, said.count("\n")) == (1, 1)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "9902",
        "localhost:",
        "a:x",
        "::1:9902",
        "[::1:9902",
        "a:70000",
        "a:0000080",
        "a b:9902",
        "a\nb:9902",
        "é:1",
    ],
)
def test_what_is_no_address_is_a_usage_error(address: str) -> None:
    code, said, _ = waited(address)
    assert code == 2
    assert said.startswith(f"sidecar: --metrics {address!r} is no address")
