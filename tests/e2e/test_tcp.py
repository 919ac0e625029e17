"""Sessions that are relayed as they are: Redis, half-close, back-pressure, and the next endpoint when one is away."""

import hashlib
import socket
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from support.endpoints import Conversation, ScriptedEndpoint
from support.ports import free_port
from support.proxy import Sidecar, configuration
from support.servers import Redis
from support.waiting import settled, wait_until

MIB = 1024 * 1024
IN_BUFFERS = 60 * MIB  # what the kernel may hold between two sides at most, see test_bodies
BLOCK = bytes(range(256)) * 256


def connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=10.0)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def read_to_end(sock: socket.socket) -> bytes:
    pieces = []
    while piece := sock.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def tcp(listen: int, *endpoints: int, policy: str = "", sidecar: str = "") -> str:
    return configuration(listen, endpoints, scheme="tcp", policy=policy, sidecar=sidecar)


@pytest.mark.server("redis-server")
def test_a_thousand_pipelined_redis_commands(tmp_path: Path) -> None:
    listen = free_port()
    with Redis(tmp_path / "redis") as redis:
        text = configuration(listen, [redis.port], scheme="redis")
        with Sidecar(tmp_path, text) as sidecar:
            with connect(listen) as sock, sock.makefile("rb") as replies:
                sock.sendall(b"".join(b"SET key:%d value-%d\r\n" % (n, n) for n in range(1000)))
                assert [replies.readline() for _ in range(1000)] == [b"+OK\r\n"] * 1000
                sock.sendall(b"".join(b"GET key:%d\r\n" % n for n in range(1000)))
                for number in range(1000):
                    value = b"value-%d" % number
                    assert replies.readline() == b"$%d\r\n" % len(value)
                    assert replies.readline() == value + b"\r\n"
                sock.sendall(b"INCR counter\r\nQUIT\r\n")
                assert replies.read() == b":1\r\n+OK\r\n"  # and then Redis closes, and so does the sidecar
            metrics = sidecar.metrics()
            assert metrics['sidecar_tcp_sessions_active{upstream="api"}'] == 0
            assert metrics['sidecar_tcp_sessions_total{close_reason="endpoint_closed",upstream="api"}'] == 1
            assert metrics['sidecar_tcp_bytes_total{direction="sent",upstream="api"}'] > 2000 * 10


def test_the_client_half_closes_first(tmp_path: Path) -> None:
    """As `redis-cli --pipe` or `nc -N` do: the end of what it sends must reach the endpoint, the answer still come."""
    listen = free_port()

    def digest(conversation: Conversation) -> None:
        conversation.send(hashlib.sha256(conversation.read_to_end()).digest())

    data = BLOCK * 64
    with (
        ScriptedEndpoint(digest) as endpoint,
        Sidecar(tmp_path, tcp(listen, endpoint.port)),
        connect(listen) as sock,
    ):
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        assert read_to_end(sock) == hashlib.sha256(data).digest()


def test_the_endpoint_half_closes_first(tmp_path: Path) -> None:
    listen = free_port()
    heard: list[bytes] = []

    def greet(conversation: Conversation) -> None:
        conversation.send(b"welcome\n")
        conversation.half_close()
        heard.append(conversation.read_to_end())

    with (
        ScriptedEndpoint(greet) as endpoint,
        Sidecar(tmp_path, tcp(listen, endpoint.port)),
        connect(listen) as sock,
    ):
        assert read_to_end(sock) == b"welcome\n"
        sock.sendall(BLOCK * 16)  # still possible: only the endpoint's direction has ended
        sock.shutdown(socket.SHUT_WR)
        endpoint.wait_for(lambda _: heard, "the end of what the client sent")
        assert heard == [BLOCK * 16]


def test_a_half_close_before_the_endpoint_is_reached(tmp_path: Path) -> None:
    """The client has said everything and half-closed while the sidecar was still looking for an endpoint."""
    listen = free_port()

    def echo(conversation: Conversation) -> None:
        conversation.send(conversation.read_to_end())

    with ScriptedEndpoint(echo) as endpoint:
        text = tcp(listen, free_port(), free_port(), endpoint.port)
        with Sidecar(tmp_path, text):
            for _ in range(3):
                with connect(listen) as sock:
                    sock.sendall(b"all of it")
                    sock.shutdown(socket.SHUT_WR)
                    assert read_to_end(sock) == b"all of it"


def named(name: str) -> ScriptedEndpoint:
    """An endpoint that says its name and then echoes lines."""

    def script(conversation: Conversation) -> None:
        conversation.send(name.encode() + b"\n")
        while line := conversation.read_line():
            conversation.send(line + b"\r\n")

    return ScriptedEndpoint(script)


def greeting(port: int) -> str:
    with connect(port) as sock, sock.makefile("rb") as lines:
        return str(lines.readline(), "ascii").strip()


def test_connections_go_round(tmp_path: Path) -> None:
    listen = free_port()
    with (
        named("a") as a,
        named("b") as b,
        named("c") as c,
        Sidecar(tmp_path, tcp(listen, a.port, b.port, c.port)),
    ):
        assert Counter(greeting(listen) for _ in range(9)) == {"a": 3, "b": 3, "c": 3}


def test_an_endpoint_that_is_away_is_passed_over_unnoticed(tmp_path: Path) -> None:
    listen, away = free_port(), free_port()
    with named("here") as here, Sidecar(tmp_path, tcp(listen, away, here.port)) as sidecar:
        # More sessions than the five failures that open a breaker: before and after, nobody notices.
        assert [greeting(listen) for _ in range(20)] == ["here"] * 20
        wait_until(lambda: sidecar.breaker("api", f"127.0.0.1:{away}") == "open", "the breaker to open", 2.0)
        opened = 'sidecar_connections_opened_total{result="refused",upstream="api"}'
        assert sidecar.metrics()[opened] >= 5


def test_with_no_endpoint_at_all_the_session_ends(tmp_path: Path) -> None:
    listen = free_port()
    with Sidecar(tmp_path, tcp(listen, free_port(), free_port())) as sidecar:
        # A reset is as good an end, and may come so soon that connecting is what hears of it.
        with suppress(ConnectionResetError), connect(listen) as sock:
            assert read_to_end(sock) == b""
        ended = 'sidecar_tcp_sessions_total{close_reason="connect_failed",upstream="api"}'
        assert sidecar.metrics()[ended] == 1


def test_a_client_that_does_not_read_stops_the_endpoint(tmp_path: Path) -> None:
    listen, total = free_port(), 200 * MIB

    def flood(conversation: Conversation) -> None:
        for _ in range(total // len(BLOCK)):
            conversation.send(BLOCK)

    with (
        ScriptedEndpoint(flood) as endpoint,
        Sidecar(tmp_path, tcp(listen, endpoint.port)) as sidecar,
        socket.socket() as sock,
    ):
        sock.settimeout(30.0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sidecar.forget_peak()
        before = sidecar.memory("VmRSS")
        sock.connect(("127.0.0.1", listen))
        assert 0 < settled(lambda: endpoint.sent, "what the endpoint could send") < IN_BUFFERS
        assert sidecar.memory("VmHWM") - before < 20 * MIB
        received = 0
        while piece := sock.recv(1 << 20):
            received += len(piece)
        assert received == total
        assert sidecar.memory("VmHWM") - before < 20 * MIB


def test_an_endpoint_that_does_not_read_stops_the_client(tmp_path: Path) -> None:
    listen, total = free_port(), 200 * MIB
    taken = 0

    def push() -> int:
        nonlocal taken
        try:
            while taken < total:
                taken += sock.send(BLOCK)
        except BlockingIOError:
            pass
        return taken

    with (
        ScriptedEndpoint(Conversation.wait_for_end_of_test, buffers=65536) as endpoint,
        # A relay that does not read does not see the client leave either: the drain time ends the session.
        Sidecar(tmp_path, tcp(listen, endpoint.port, sidecar="drain_timeout: 500ms")) as sidecar,
        connect(listen) as sock,
    ):
        sidecar.forget_peak()
        before = sidecar.memory("VmRSS")
        sock.setblocking(False)
        assert 0 < settled(push, "what the proxy took from the client") < IN_BUFFERS
        assert sidecar.memory("VmHWM") - before < 20 * MIB


def test_a_session_that_is_reset_ends_on_both_sides(tmp_path: Path) -> None:
    listen = free_port()

    def reset(conversation: Conversation) -> None:
        conversation.read_line()
        conversation.reset()

    with ScriptedEndpoint(reset) as endpoint, Sidecar(tmp_path, tcp(listen, endpoint.port)) as sidecar:
        with connect(listen) as sock:
            sock.sendall(b"something\r\n")
            with suppress(ConnectionResetError):  # how it arrives is the relay's choice
                assert read_to_end(sock) == b""
        ended = 'sidecar_tcp_sessions_total{close_reason="endpoint_reset",upstream="api"}'
        wait_until(lambda: sidecar.metrics().get(ended) == 1, "the session to be counted")
