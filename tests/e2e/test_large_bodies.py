"""Large bodies, which the compiled build lets the kernel move past the process: every byte, every end, every stall.

What is true of a small body is true of these, in either build.
"""

import hashlib
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Self

import pytest
from support.endpoints import Conversation, Script, ScriptedEndpoint, ok
from support.http import HttpClient
from support.ports import free_port
from support.proxy import Sidecar, configuration
from support.waiting import wait_until

MIB = 1 << 20
SIZE = 50 * MIB
BLOCK = bytes(range(251)) * (MIB // 251 + 1)
PIPELINED = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
NOT_IN_BUFFERS = 200 * MIB  # what no kernel keeps between the two sides


def blocks(seed: int, size: int = SIZE) -> Iterator[bytes]:
    """A body of its own for each seed, a MiB at a time."""
    for number in range(size // MIB):
        yield b"%8d%8d" % (seed, number) + BLOCK[: MIB - 16]


def digest(seed: int, size: int = SIZE) -> str:
    found = hashlib.sha256()
    for block in blocks(seed, size):
        found.update(block)
    return found.hexdigest()


def read_slowly(sock: socket.socket, size: int, seed: int, begun: bytes = b"") -> str:
    """Digest of the next `size` bytes, `begun` first, with stalls at random places."""
    found = hashlib.sha256(begun)
    size -= len(begun)
    chance = random.Random(seed)
    while size:
        if chance.random() < 0.05:
            time.sleep(chance.random() * 0.01)  # a slow reader, which nothing waits for
        piece = sock.recv(min(size, chance.choice((1000, 65536, MIB))))
        if not piece:
            raise ConnectionError(f"{size} bytes are missing")
        found.update(piece)
        size -= len(piece)
    return found.hexdigest()


class Through:
    """A client, the sidecar, and an endpoint that does as it is told."""

    def __init__(self, directory: Path, script: Script, policy: str = "", sidecar: str = "") -> None:
        self.listen = free_port()
        self.endpoint = ScriptedEndpoint(script)
        text = configuration(self.listen, [self.endpoint.port], policy=policy, sidecar=sidecar)
        self.sidecar = Sidecar(directory, text)

    def __enter__(self) -> Self:
        self.endpoint.__enter__()
        try:
            self.sidecar.__enter__()
        except BaseException:
            self.endpoint.stop()
            raise
        self.client = HttpClient(self.listen, timeout=20.0)
        return self

    def __exit__(self, *error: object) -> None:
        self.client.close()
        try:
            self.sidecar.__exit__(*error)  # type: ignore[arg-type]
        finally:
            self.endpoint.stop()
        assert not self.endpoint.errors

    def count(self, reason: str) -> float:
        """Requests that ended for this reason."""
        return sum(
            value
            for name, value in self.sidecar.metrics().items()
            if name.startswith("sidecar_requests_total{") and f'reason="{reason}"' in name
        )


def announce(size: int, extra: str = "") -> bytes:
    return f"HTTP/1.1 200 OK\r\n{extra}Content-Length: {size}\r\n\r\n".encode()


def serve_both_ways(conversation: Conversation) -> None:
    """GET: a body; PUT: its digest, read with stalls; HEAD and DELETE: none."""
    while received := conversation.read_head():
        method = received.line.split()[0]
        if method == "GET" and received.line.startswith("GET /big"):
            conversation.send(announce(SIZE))
            for block in blocks(1):
                conversation.send(block)
        elif method == "HEAD":
            conversation.send(announce(SIZE))
        elif method == "DELETE":
            conversation.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        elif method == "PUT":
            left = int(received.header("Content-Length") or 0)
            found = hashlib.sha256()
            while left:
                piece = conversation.read_exactly(min(left, 65536))
                found.update(piece)
                left -= len(piece)
            conversation.send(ok(found.hexdigest().encode()))
        else:
            conversation.send(ok(b"small"))


def test_every_byte_each_way_with_stalls_and_the_connections_live_on(tmp_path: Path) -> None:
    with Through(tmp_path, serve_both_ways) as way:
        client = way.client
        client.send_head("GET", "/big")
        status, *_ = client.read_head()
        assert status == 200
        assert read_slowly(client.socket, SIZE, 2, client.take()) == digest(1)

        assert client.request("HEAD", "/big").header("Content-Length") == str(SIZE)
        assert client.request("DELETE").status == 204

        client.send_head("PUT", "/", [("Content-Length", str(SIZE))])
        for block in blocks(2):
            client.send(block)
        client.send(PIPELINED)  # is no part of the body
        assert client.read_response("PUT").text == digest(2)
        assert client.read_response().text == "small"
        assert client.request().text == "small"
        assert way.endpoint.connections == 1
        assert way.endpoint.requests[-2].line == "GET /next HTTP/1.1"


def test_a_body_that_ends_early_is_broken_off(tmp_path: Path) -> None:
    """The client must not take it for complete."""

    def script(conversation: Conversation) -> None:
        conversation.read_head()
        conversation.send(announce(NOT_IN_BUFFERS))
        for block in blocks(1, 8 * MIB):
            conversation.send(block)
        if conversation.number:
            conversation.reset()

    with Through(tmp_path, script, policy="retries: 0") as way:
        for _ in range(2):
            with HttpClient(way.listen) as client:
                client.send_head("GET", "/")
                status, _, _, headers = client.read_head()
                assert status == 200
                with pytest.raises(ConnectionResetError):
                    for _ in client.read_body("GET", status, headers):
                        pass
        wait_until(lambda: way.count("reset_after_headers") == 2, "both are counted as broken")
        assert way.endpoint.connections == 2


def sends_until_it_ends(ended: threading.Event) -> Script:
    """An endpoint that sends more than all buffers hold, and says so when its connection has ended."""

    def script(conversation: Conversation) -> None:
        conversation.read_head()
        try:
            conversation.send(announce(NOT_IN_BUFFERS))
            for block in blocks(1, NOT_IN_BUFFERS):
                conversation.send(block)
        except ConnectionError:
            ended.set()

    return script


@pytest.mark.parametrize("how", ["reset", "close"])
def test_a_client_that_goes_in_the_middle_ends_the_endpoints_connection(tmp_path: Path, how: str) -> None:
    ended = threading.Event()

    with Through(tmp_path, sends_until_it_ends(ended)) as way:
        way.client.send_head("GET", "/")
        way.client.read_head()
        sum(len(way.client.socket.recv(MIB)) for _ in range(10))
        if how == "reset":
            way.client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        way.client.close()
        assert ended.wait(10.0)
        wait_until(lambda: way.count("client_gone") == 1, "it is counted")
        assert way.sidecar.upstream("api")["endpoints"][0]["in_flight"] == 0


def test_a_client_that_stalls_runs_into_the_time_out(tmp_path: Path) -> None:
    """Whatever the kernel and the pipe still hold for it."""
    ended = threading.Event()

    with Through(tmp_path, sends_until_it_ends(ended), policy="timeout: 500ms") as way:
        way.client.send_head("GET", "/")
        way.client.read_head()
        assert ended.wait(10.0)
        with pytest.raises(ConnectionResetError):
            read_slowly(way.client.socket, NOT_IN_BUFFERS, 7)


def test_bytes_behind_a_body_answer_nobody(tmp_path: Path) -> None:
    """Response splitting: the connection is not used again."""
    size = 2 * MIB
    smuggled = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled"

    def script(conversation: Conversation) -> None:
        while conversation.read_head():
            conversation.send(announce(size) + b"".join(blocks(1, size)) + smuggled)

    with Through(tmp_path, script) as way:
        for _ in range(5):
            response = way.client.request()
            assert hashlib.sha256(response.body).hexdigest() == digest(1, size)
        assert way.endpoint.connections == 5


def test_an_upload_whose_endpoint_goes_in_the_middle(tmp_path: Path) -> None:
    def script(conversation: Conversation) -> None:
        conversation.read_head()
        conversation.read_exactly(4 * MIB)
        conversation.reset()

    with Through(tmp_path, script) as way:
        way.client.send_head("PUT", "/", [("Content-Length", str(NOT_IN_BUFFERS))])
        with suppress(ConnectionError):
            for block in blocks(1, NOT_IN_BUFFERS):
                way.client.send(block)
        wait_until(lambda: way.count("reset_before_headers") == 1, "it is counted")
        assert way.endpoint.connections == 1


def test_an_upload_whose_client_goes_in_the_middle(tmp_path: Path) -> None:
    """The endpoint must not take it for complete."""
    seen = threading.Event()
    ended = threading.Event()

    def script(conversation: Conversation) -> None:
        received = conversation.read_head()
        assert received is not None
        conversation.read_exactly(4 * MIB)
        seen.set()
        with suppress(ConnectionError):
            conversation.read_exactly(NOT_IN_BUFFERS - 4 * MIB)
            return
        ended.set()

    with Through(tmp_path, script) as way:
        way.client.send_head("PUT", "/", [("Content-Length", str(NOT_IN_BUFFERS))])
        for block in blocks(1, 8 * MIB):
            way.client.send(block)
        assert seen.wait(10.0)
        way.client.close()
        assert ended.wait(10.0)
        wait_until(lambda: way.count("client_gone") == 1, "it is counted")


def test_an_upload_that_is_answered_early(tmp_path: Path) -> None:
    """The answer is passed on at once, and the rest of the upload goes nowhere."""

    def script(conversation: Conversation) -> None:
        conversation.read_head()
        conversation.read_exactly(4 * MIB)
        conversation.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nfull")
        conversation.wait_for_end_of_test()

    with Through(tmp_path, script) as way:
        way.client.send_head("PUT", "/", [("Content-Length", str(NOT_IN_BUFFERS))])
        for block in blocks(1, 5 * MIB):
            way.client.send(block)
        response = way.client.read_response("PUT")
        assert (response.status, response.body) == (413, b"full")
        assert response.header("Connection") == "close"


def test_a_session_both_ways_at_once_with_half_closes(tmp_path: Path) -> None:
    """Each side reads slowly, while it sends; the first to end still hears the other."""
    found: list[str] = []

    def script(conversation: Conversation) -> None:
        def send() -> None:
            for block in blocks(3):
                conversation.send(block)
            conversation.half_close()

        sender = threading.Thread(target=send)
        sender.start()
        found.append(read_slowly(conversation.socket, SIZE, 4))
        assert conversation.socket.recv(1) == b""
        sender.join()

    listen = free_port()
    with (
        ScriptedEndpoint(script) as endpoint,
        Sidecar(tmp_path, configuration(listen, [endpoint.port], scheme="tcp")) as sidecar,
        closing(socket.create_connection(("127.0.0.1", listen), timeout=20.0)) as sock,
    ):

        def send() -> None:
            for block in blocks(5):
                sock.sendall(block)
            sock.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        assert read_slowly(sock, SIZE, 6) == digest(3)
        assert sock.recv(1) == b""
        sender.join()
        wait_until(lambda: found, "the endpoint has read all")
        assert found == [digest(5)]
        totals = {
            direction: f'sidecar_tcp_bytes_total{{direction="{direction}",upstream="api"}}'
            for direction in ("sent", "received")
        }
        wait_until(lambda: sidecar.metrics()[totals["received"]] == SIZE, "all is counted")
        assert sidecar.metrics()[totals["sent"]] == SIZE


def test_a_session_whose_endpoint_resets_in_the_middle_is_reset(tmp_path: Path) -> None:
    """An end would look as if all had been said."""
    listen = free_port()
    go_on = threading.Event()

    def script(conversation: Conversation) -> None:
        for block in blocks(3, 8 * MIB):
            conversation.send(block)
        go_on.wait(10.0)
        conversation.reset()

    with (
        ScriptedEndpoint(script) as endpoint,
        Sidecar(tmp_path, configuration(listen, [endpoint.port], scheme="tcp")) as sidecar,
        closing(socket.create_connection(("127.0.0.1", listen), timeout=20.0)) as sock,
    ):
        got = 0
        while got < 8 * MIB:
            got += len(sock.recv(MIB))
        go_on.set()
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
        name = 'sidecar_tcp_sessions_total{close_reason="endpoint_reset",upstream="api"}'
        wait_until(lambda: sidecar.metrics().get(name) == 1, "it is counted")
