"""No connection holds up the end beyond `drain_timeout`, however it is left (behaviour 4)."""

import signal
import socket
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from support.endpoints import Conversation, ScriptedEndpoint
from support.http import HttpClient
from support.ports import free_port
from support.proxy import Sidecar
from support.waiting import wait_until

DRAIN = 1.0
LARGE = 32 * 1024 * 1024
# What closing takes beside: servers of the admin address have a second for who reads nothing.
BESIDE = 2.0


def endless(conversation: Conversation) -> None:
    """Answers with more than anybody reads."""
    if conversation.read_head() is not None:
        conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE)
        try:
            conversation.send(bytes(LARGE))
        except OSError:
            return


def silent(conversation: Conversation) -> None:
    """Reads until the end, and says nothing."""
    with suppress(OSError):
        while conversation.socket.recv(65536):
            pass


def half_closed(conversation: Conversation) -> None:
    """Has said all, and waits."""
    conversation.socket.shutdown(socket.SHUT_WR)
    silent(conversation)


def test_connections_that_are_half_closed_or_not_read_from_end_at_the_deadline(tmp_path: Path) -> None:
    over = threading.Event()

    def deaf(_conversation: Conversation) -> None:
        """Reads nothing, and says nothing."""
        over.wait(30.0)

    ports = {name: free_port() for name in ("large", "slow", "quiet", "said")}
    with (
        ScriptedEndpoint(endless) as large,
        ScriptedEndpoint(silent) as slow,
        ScriptedEndpoint(deaf) as quiet,
        ScriptedEndpoint(half_closed) as said,
    ):
        services = "".join(
            f"  {name}: {{host: 127.0.0.1, port: {endpoint.port}, scheme: {scheme}}}\n"
            for name, endpoint, scheme in (
                ("large", large, "http"),
                ("slow", slow, "http"),
                ("quiet", quiet, "tcp"),
                ("said", said, "tcp"),
            )
        )
        listening = ", ".join(f"{port}: {name}" for name, port in ports.items())
        text = (
            f"services:\n{services}"
            f'sidecar: {{bind: [127.0.0.1], ports: {{{listening}}}, admin: "127.0.0.1:ADMIN", '
            f'metrics: "127.0.0.1:METRICS", drain_timeout: {DRAIN:g}}}\n'
        )
        with Sidecar(tmp_path, text) as running, ExitStack() as stack:

            def connect(name: str, receive_buffer: int = 0) -> HttpClient:
                return stack.enter_context(HttpClient(ports[name], receive_buffer=receive_buffer))

            unread = connect("large", 4096)  # never reads its response
            unread.send_head("GET", "/")
            sending = connect("slow")  # has said half of a body, and closed its side
            sending.send_head("POST", "/", [("Content-Length", "1000")])
            sending.send(b"x" * 10)
            waiting = connect("slow")  # waits for an answer that never comes
            waiting.send_head("GET", "/")
            ended = connect("quiet")  # a session whose client has said all
            ended.send(b"all")
            ended.socket.shutdown(socket.SHUT_WR)
            full = connect("quiet")  # one whose client says more than anybody takes
            full.socket.setblocking(False)
            with suppress(BlockingIOError):
                while True:
                    full.socket.send(bytes(65536))
            heard = connect("said")  # one whose endpoint has said all
            heard.send(b"x")
            begun = connect("slow")  # a head that has begun
            begun.send(b"GET / HT")
            # One that does not read what it is told of events.
            asked = stack.enter_context(HttpClient(running.admin, receive_buffer=4096))
            asked.send_head("GET", "/v1/events")
            kept = stack.enter_context(HttpClient(running.metrics_port))
            kept.send_head("GET", "/live")

            def under_way() -> float:
                wanted = ("sidecar_tcp_sessions_active{", "sidecar_requests_in_flight{")
                return sum(value for name, value in running.metrics().items() if name.startswith(wanted))

            wait_until(lambda: under_way() == 6, "three sessions and three requests")
            sending.socket.shutdown(socket.SHUT_WR)
            began = time.monotonic()
            running.send(signal.SIGTERM)
            assert running.process.wait(DRAIN + BESIDE + 5.0) == 0
            over.set()
            assert DRAIN - 0.2 < time.monotonic() - began < DRAIN + BESIDE
            assert "drain time is over with" in running.process.stderr
