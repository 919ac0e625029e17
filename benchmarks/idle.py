"""Connections that have had one answer each and stay open, doing nothing: what a proxy keeps for them."""

import resource
import socket
import time
from contextlib import ExitStack

from load import LoadError
from measure import memory

__all__ = ["allow_descriptors", "bytes_per_connection"]

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
FIRST = 8  # what the first of all set up, connections to each origin among it, is not counted
SETTLE = 0.5  # seconds in which a proxy gives back what it needed for the last answers
SPARE = 200  # descriptors beside the connections
WAIT = 10.0  # seconds for one answer


def allow_descriptors() -> None:
    """Let this process, and what it starts, open as many as it may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def bytes_per_connection(pid: int, port: int, connections: int) -> float:
    """Resident bytes that the proxy `pid` takes for each. Raises `LoadError`.

    The proxy must be a fresh one: memory that it freed after another crowd would be used again unseen.
    """
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if connections + SPARE > allowed:
        raise LoadError(f"{connections} connections need more descriptors than the {allowed} allowed here")
    with ExitStack() as opened:
        try:
            for _ in range(FIRST):
                _ask(port, opened)
            time.sleep(SETTLE)
            before = memory(pid).resident
            for _ in range(connections):
                _ask(port, opened)
        except OSError as error:
            raise LoadError(f"an idle connection failed: {error}") from error
        time.sleep(SETTLE)
        return (memory(pid).resident - before) / connections


def _ask(port: int, opened: ExitStack) -> None:
    """Open a connection, ask once, read the whole answer, and leave it open."""
    client = opened.enter_context(socket.create_connection(("127.0.0.1", port), WAIT))
    client.sendall(REQUEST)
    answer = b""
    while True:
        head, found, body = answer.partition(b"\r\n\r\n")
        if found and len(body) >= _length(head):
            return
        piece = client.recv(65536)
        if not piece:
            raise LoadError(f"the connection was closed after {answer[:100]!r}")
        answer += piece


def _length(head: bytes) -> int:
    status, *fields = head.lower().split(b"\r\n")
    for line in fields:
        name, _, value = line.partition(b":")
        if name == b"content-length" and b" 200 " in status:
            return int(value)
    raise LoadError(f"not the origin's answer: {head[:100]!r}")
