"""`sidecar status --ready`: what the metrics address says, as an exit code."""

import io
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from sidecar.console.ready import show_ready

Serve = Callable[[bytes], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Answers one connection with the given bytes and closes; gives host:port."""
    threads: list[threading.Thread] = []

    def serve(answer: bytes) -> str:
        listener = socket.create_server(("127.0.0.1", 0))

        def run() -> None:
            with listener, listener.accept()[0] as connection:
                connection.settimeout(5)
                asked = b""
                while b"\r\n\r\n" not in asked:
                    asked += connection.recv(4096)
                assert asked.startswith(b"GET /ready HTTP/1.1\r\n")
                connection.sendall(answer)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield serve
    for thread in threads:
        thread.join()


def asked(address: str, timeout: float | None = None) -> tuple[int, str, str]:
    output, errors = io.StringIO(), io.StringIO()
    return show_ready(address, output, errors, timeout), output.getvalue(), errors.getvalue()


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [(b"200 OK", 0, "ready\n"), (b"503 Service Unavailable", 1, "not ready\n")],
)
def test_ready_or_not(serve: Serve, status: bytes, code: int, said: str) -> None:
    address = serve(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")
    assert asked(address) == (code, said, "")


def test_another_server_is_not_ready(serve: Serve) -> None:
    address = serve(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    wrong = f"sidecar: what answers at {address} is no sidecar's metrics address (status 404)"
    assert asked(address) == (1, "", f"{wrong}; give --metrics HOST:PORT\n")


def test_who_does_not_answer_is_not_ready(serve: Serve) -> None:
    code, output, errors = asked(serve(b""))
    assert (code, output) == (1, "")
    assert "no answer at 127.0.0.1:" in errors
    with socket.socket() as bound:  # not listening
        bound.bind(("127.0.0.1", 0))
        code, output, errors = asked(f"127.0.0.1:{bound.getsockname()[1]}")
    assert (code, output, "(connection refused)" in errors) == (1, "", True)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        code, output, errors = asked(f"127.0.0.1:{silent.getsockname()[1]}", 0.05)
    assert (code, output, "(timed out)" in errors) == (1, "", True)


@pytest.mark.parametrize("address", ["", "9902", "localhost:", "a:x", "::1:9902"])
def test_what_is_no_address_is_a_usage_error(address: str) -> None:
    code, output, errors = asked(address)
    assert (code, output) == (2, "")
    assert errors.startswith(f"sidecar: --metrics {address!r} ")
