"""gunicorn loads an application, with a registry that it follows, and forks its workers afterwards."""

import asyncio
import signal
import sys
from pathlib import Path

from support.consul import ConsulAgent
from support.ports import free_port
from support.processes import Process
from support.proxy import PACKAGES, ROOT, clean_environment

WORKERS = 2


async def ask(port: int) -> tuple[int, str]:
    """Which process answered, and with which URL."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        pid, url = (await reader.read()).decode().rpartition("\r\n")[2].split()
    finally:
        writer.close()
        await writer.wait_closed()
    return int(pid), url


async def until_all_say(port: int, url: str) -> set[int]:
    """Ask until each worker has answered with `url` last; their ids."""
    last: dict[int, str] = {}
    async with asyncio.timeout(20):
        while list(last.values()) != [url] * WORKERS:
            try:
                pid, said = await ask(port)
            except (OSError, ValueError):  # gunicorn is about to start
                await asyncio.sleep(0.05)
                continue
            last[pid] = said
            await asyncio.sleep(0.001)
    return set(last)


async def test_workers_of_a_preloaded_application_follow_registries(tmp_path: Path) -> None:
    async with ConsulAgent() as agent:
        agent.add("web", "web-1", "10.0.0.1", 80)
        (tmp_path / "services.yml").write_text(
            f"external_registry: {{type: consul, host: '127.0.0.1:{agent.port}'}}\n"
            "services: {web: {host: file.example, port: 80}}\n"
        )
        port = free_port()
        options = [
            "--preload",
            "--workers",
            str(WORKERS),
            "--bind",
            f"127.0.0.1:{port}",
            "--no-control-socket",
        ]
        places = f"{PACKAGES}:{ROOT / 'tests' / 'support' / 'programs'}"
        process = Process(
            [sys.executable, "-m", "gunicorn", *options, "registry_app:application"],
            tmp_path,
            clean_environment() | {"PYTHONPATH": places},
            "gunicorn",
        )
        try:
            before = await until_all_say(port, "http://10.0.0.1:80")
            assert process.pid not in before
            agent.add("web", "web-2", "10.0.0.2", 80)
            agent.remove("web-1")
            assert await until_all_say(port, "http://10.0.0.2:80") == before, "nobody has been restarted"
            assert agent.blocked == 1 + WORKERS
            process.send(signal.SIGTERM)
            async with asyncio.timeout(20):
                while process.running:  # noqa: ASYNC110 - the agent has to go on answering
                    await asyncio.sleep(0.01)
            assert process.wait() == 0
        finally:
            process.kill()
        assert "Traceback" not in process.stderr
        assert "WARNING" not in process.stderr
