"""Large bodies pass through without being kept: memory stays flat, and a slow side slows the other one."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.endpoints import Conversation, ScriptedEndpoint, ok
from support.http import HttpClient
from support.ports import free_port
from support.proxy import Sidecar, configuration
from support.servers import Nginx
from support.waiting import settled

MIB = 1024 * 1024
SIZE = 200 * MIB
GROWTH = 20 * MIB  # what the issue allows; buffers of one exchange are a few hundred KiB
# What kernel buffers of four sockets may hold at most when they tune themselves (tcp_rmem and tcp_wmem end at
# 6 MiB and 4 MiB by default, some hosts allow more), far below a body that would be read into memory.
IN_BUFFERS = 60 * MIB
# Differs from block to block, so that a lost, doubled or swapped block changes the digest.
BLOCK = bytes(range(251)) * (MIB // 251 + 1)


def blocks(size: int = SIZE) -> Iterator[bytes]:
    """The body, a MiB at a time."""
    for number in range(size // MIB):
        yield number.to_bytes(8, "big") + BLOCK[: MIB - 8]


def digest(pieces: Iterator[bytes]) -> str:
    """SHA-256 of the pieces joined."""
    sha = hashlib.sha256()
    for piece in pieces:
        sha.update(piece)
    return sha.hexdigest()


DIGEST = digest(blocks())


class Memory:
    """How far the proxy's memory grows from now on, its short peaks included."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar
        sidecar.forget_peak()
        self._before = sidecar.memory("VmRSS")

    @property
    def growth(self) -> int:
        """Bytes."""
        return self._sidecar.memory("VmHWM") - self._before


def download(client: HttpClient) -> tuple[int, str]:
    """Status and digest of GET /big."""
    client.send_head("GET", "/big")
    status, _, _, headers = client.read_head()
    return status, digest(client.read_body("GET", status, headers))


def upload(client: HttpClient, target: str, *, chunked: bool) -> int:
    """Status of PUTting the body."""
    framing = ("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(SIZE))
    client.send_head("PUT", target, [framing])
    for block in blocks():
        if chunked:
            client.send_chunk(block)
        else:
            client.send(block)
    if chunked:
        client.send_chunk(b"")
    return client.read_response("PUT").status


@pytest.mark.server("nginx")
def test_two_hundred_megabytes_each_way_with_a_length(tmp_path: Path) -> None:
    listen = free_port()
    with (
        Nginx(tmp_path / "nginx", "a") as nginx,
        Sidecar(tmp_path, configuration(listen, [nginx.port])) as sidecar,
        HttpClient(listen, timeout=30.0) as client,
    ):
        with (nginx.directory / "big").open("wb") as file:
            file.writelines(blocks())
        assert client.request().text == "a\n"  # warm: the code has run, the connections are open
        assert client.request("PUT", "/upload/small", body=b"x" * 1000).status == 201

        memory = Memory(sidecar)
        assert download(client) == (200, DIGEST)
        assert memory.growth <= GROWTH

        memory = Memory(sidecar)
        assert upload(client, "/upload/large", chunked=False) == 201
        assert memory.growth <= GROWTH
        with nginx.uploaded("large").open("rb") as stored:
            assert hashlib.file_digest(stored, "sha256").hexdigest() == DIGEST


def chunked_both_ways(conversation: Conversation) -> None:
    """GET /big: the body in chunks; PUT: 201 when the chunks' digest is right."""
    while received := conversation.read_head():
        if received.line.startswith("GET /big"):
            conversation.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for block in blocks():
                conversation.send(b"%x\r\n%b\r\n" % (len(block), block))
            conversation.send(b"0\r\n\r\n")
        elif received.line.startswith("PUT"):
            assert received.header("Transfer-Encoding") == "chunked"
            right = digest(conversation.chunks()) == DIGEST
            conversation.send(ok() if right else b"HTTP/1.1 400 Wrong\r\nContent-Length: 0\r\n\r\n")
        else:
            conversation.send(ok())


def test_two_hundred_megabytes_each_way_in_chunks(tmp_path: Path) -> None:
    listen = free_port()
    with (
        ScriptedEndpoint(chunked_both_ways) as endpoint,
        Sidecar(tmp_path, configuration(listen, [endpoint.port])) as sidecar,
        HttpClient(listen, timeout=30.0) as client,
    ):
        assert client.request().status == 200

        memory = Memory(sidecar)
        assert download(client) == (200, DIGEST)
        assert memory.growth <= GROWTH

        memory = Memory(sidecar)
        assert upload(client, "/", chunked=True) == 200
        assert memory.growth <= GROWTH


def send_the_body(conversation: Conversation) -> None:
    """Answer with the whole body, as fast as the other side takes it."""
    conversation.read_head()
    conversation.send(f"HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n".encode())
    for block in blocks():
        conversation.send(block)


def test_a_client_that_does_not_read_stops_the_endpoint(tmp_path: Path) -> None:
    listen = free_port()
    with (
        ScriptedEndpoint(send_the_body) as endpoint,
        Sidecar(tmp_path, configuration(listen, [endpoint.port])) as sidecar,
        HttpClient(listen, timeout=30.0, receive_buffer=65536) as client,
    ):
        memory = Memory(sidecar)
        client.send_head("GET", "/big")
        sent = settled(lambda: endpoint.sent, "what the endpoint could send")
        assert 0 < sent < IN_BUFFERS
        assert memory.growth <= GROWTH
        # Standing still costs nothing: no loop goes round asking whether the client reads now.
        busy = sidecar.cpu_seconds()
        settled(lambda: endpoint.sent, "a transfer that stands still")
        assert sidecar.cpu_seconds() - busy < 0.1
        # And once it reads, everything arrives.
        status, _, _, headers = client.read_head()
        assert (status, digest(client.read_body("GET", status, headers))) == (200, DIGEST)
        assert memory.growth <= GROWTH


def test_an_endpoint_that_does_not_read_stops_the_client(tmp_path: Path) -> None:
    listen = free_port()
    with (
        ScriptedEndpoint(lambda conversation: conversation.wait_for_end_of_test(), buffers=65536) as endpoint,
        # A proxy that does not read does not see the client leave either: the request stays in flight to the end.
        Sidecar(tmp_path, configuration(listen, [endpoint.port], sidecar="drain_timeout: 500ms")) as sidecar,
        HttpClient(listen) as client,
    ):
        memory = Memory(sidecar)
        client.send_head("PUT", "/", [("Content-Length", str(SIZE))])
        taken = 0
        client.socket.setblocking(False)

        def push() -> int:
            nonlocal taken
            try:
                while taken < SIZE:
                    taken += client.socket.send(BLOCK)
            except BlockingIOError:
                pass
            return taken

        assert 0 < settled(push, "what the proxy took from the client") < IN_BUFFERS
        assert memory.growth <= GROWTH
