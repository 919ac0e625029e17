"""Checks of endpoints behind unix sockets, and of those that have to be told that nobody's request follows."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sidecar.config.settings import HealthSettings
from sidecar.health.probes import Finding, examine, probe_of
from sidecar.net.proxy_header import LOCAL
from sidecar.net.unix_sockets import bind, remove

ANSWERS = {"http": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "redis": b"+PONG\r\n", "tcp": b""}


@asynccontextmanager
async def serving(path: Path, answer: bytes, heard: list[bytes]) -> AsyncIterator[None]:
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(65536))
        writer.write(answer)
        await reader.read()
        writer.close()
        ended.set()

    sock, file = bind(str(path), 0o600, 8)
    server = await asyncio.start_unix_server(serve, sock=sock)
    try:
        yield
        await ended.wait()
    finally:
        server.close()
        remove(str(path), file)


async def ask(kind: str, host: str, version: int = 0) -> Finding:
    resolve: Any = None
    probe = probe_of(HealthSettings(kind=kind), "endpoint", {}, proxy_protocol=version)
    return await examine(probe, host, 0, 5.0, resolve, time.monotonic)


@pytest.mark.parametrize("kind", ["http", "redis", "tcp"])
@pytest.mark.parametrize("version", [0, 1, 2])
async def test_each_kind_of_check(tmp_path: Path, kind: str, version: int) -> None:
    heard: list[bytes] = []
    path = tmp_path / "a.sock"
    async with asyncio.timeout(5.0), serving(path, ANSWERS[kind], heard):
        found = await ask(kind, f"unix:{path}", version)
    assert (found.ok, found.error) == (True, "")
    assert heard[0].startswith(LOCAL[version])
    if kind == "http":
        assert b"\r\nHost: localhost\r\n" in heard[0]


async def test_nobody_there(tmp_path: Path) -> None:
    found = await ask("tcp", f"unix:{tmp_path}/a.sock")
    assert (found.ok, found.error, found.answered) == (False, "no such file or directory", False)
    sock, file = bind(f"{tmp_path}/a.sock", 0o600, 8)
    sock.close()
    found = await ask("http", f"unix:{tmp_path}/a.sock", 1)
    assert (found.ok, found.error) == (False, "connection refused")
    remove(f"{tmp_path}/a.sock", file)


async def test_a_greeting_that_cannot_be_sent_closes_the_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other side has gone in the moment it accepted."""

    class Gone:
        closed = False

        def send(self, _data: bytes) -> None:
            raise BrokenPipeError

        def close(self) -> None:
            self.closed = True

    sock = Gone()
    monkeypatch.setattr("sidecar.health.connection.connect_unix", lambda _host: sock)
    found = await ask("tcp", "unix:/a", 2)
    assert found.ok is False
    assert sock.closed
