"""What systemd is told, over a socket as it has one (sd_notify(3))."""

import asyncio
import logging
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from support.clock import FakeClock

from sidecar.notify import Notifier

UNIT = Path(__file__).resolve().parents[2] / "config" / "systemd" / "sidecar.service"


class Manager:
    """The service manager's end. place: as `NOTIFY_SOCKET` has it."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + place[1:] if place.startswith("@") else place)
        self.socket.setblocking(False)

    def heard(self) -> list[str]:
        """All that has come since the last look."""
        found = []
        while True:
            try:
                found.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return found


@pytest.fixture(params=["a path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    place = str(tmp_path / "notify") if request.param == "a path" else f"@sidecar-test-{os.getpid()}"
    made = Manager(place)
    yield made
    made.socket.close()


def notifier(manager: Manager, **environ: str) -> Notifier:
    clock = FakeClock()
    clock.now = 12.5
    return Notifier({"NOTIFY_SOCKET": manager.place, **environ}, clock)  # type: ignore[arg-type]


async def test_ready_is_said_once_it_is(manager: Manager) -> None:
    told, is_ready = notifier(manager), False
    told.watch(lambda: is_ready, lambda: "2 upstreams")
    told.reloading()
    assert manager.heard() == [], "before it is ready a reload is part of the start"
    is_ready = True
    async with asyncio.timeout(5):
        heard: list[str] = []
        while len(heard) < 1:
            await asyncio.sleep(0.001)
            heard += manager.heard()
    assert heard == ["READY=1\nSTATUS=2 upstreams"]
    told.close()


async def test_a_manager_that_is_busy_is_told_later(manager: Manager) -> None:
    place = manager.socket.getsockname()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                other.sendto(b"WATCHDOG=1", place)
    told = notifier(manager)
    told.watch(lambda: True, lambda: "fine")
    heard = manager.heard()
    assert "READY=1\nSTATUS=fine" not in heard
    async with asyncio.timeout(5):
        while "READY=1\nSTATUS=fine" not in heard:
            await asyncio.sleep(0.001)
            heard += manager.heard()
    told.close()


async def test_who_takes_over_is_the_service_now(manager: Manager) -> None:
    told = notifier(manager)
    told.watch(lambda: True, lambda: "fine", main=True)
    assert manager.heard() == [f"READY=1\nSTATUS=fine\nMAINPID={os.getpid()}"]


async def test_before_that_its_end_is_not_the_services(manager: Manager) -> None:
    told = Notifier({"NOTIFY_SOCKET": manager.place}, FakeClock(), successor=True)  # type: ignore[arg-type]
    told.stopping()
    assert manager.heard() == []
    told.watch(lambda: False, lambda: "", main=True)
    told.stopping()
    assert manager.heard() == ["STOPPING=1\nSTATUS=draining"]
    told.close()


async def test_a_reload_has_a_beginning_and_an_end(manager: Manager) -> None:
    told = notifier(manager)
    told.watch(lambda: True, lambda: "fine")
    manager.heard()
    told.reloading()
    told.reloaded("configuration refused")
    assert manager.heard() == [
        "RELOADING=1\nMONOTONIC_USEC=12500000",
        "READY=1\nSTATUS=configuration refused",
    ]
    told.stopping()
    told.reloaded("too late")
    assert manager.heard() == ["STOPPING=1\nSTATUS=draining"]


async def test_what_has_been_taken_over_says_nothing_more(manager: Manager) -> None:
    told = notifier(manager, WATCHDOG_USEC="20000000")
    told.watch(lambda: True, lambda: "fine")
    manager.heard()
    told.close()
    told.stopping()
    told.reloaded("unheard")
    assert manager.heard() == []


async def test_it_says_that_it_is_alive_at_half_of_the_time(manager: Manager) -> None:
    told = notifier(manager, WATCHDOG_USEC="20000", WATCHDOG_PID=str(os.getpid()))
    told.watch(lambda: False, lambda: "")
    beats = 0
    async with asyncio.timeout(5):
        while beats < 3:
            beats += manager.heard().count("WATCHDOG=1")
            await asyncio.sleep(0.001)
    told.close()


async def test_who_takes_over_has_the_time_of_the_one_before(manager: Manager) -> None:
    before = notifier(manager, WATCHDOG_USEC="20000")
    told = notifier(manager, WATCHDOG_USEC="20000", WATCHDOG_PID="1")
    assert (before.watchdog, told.watchdog) == (0.02, 0.0)
    told.inherit(before.watchdog)
    told.watch(lambda: False, lambda: "")
    assert manager.heard() == ["WATCHDOG=1"]
    told.close()


@pytest.mark.parametrize(
    "environ", [{"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "20000", "WATCHDOG_PID": "1"}, {}]
)
async def test_nobody_asks_whether_it_is_alive(manager: Manager, environ: dict[str, str]) -> None:
    told = notifier(manager, **environ)
    told.watch(lambda: False, lambda: "")
    assert manager.heard() == []
    told.close()


@pytest.mark.parametrize("place", ["", "vsock:2:1234"])
async def test_without_a_manager_nothing_is_told(place: str) -> None:
    told = Notifier({"NOTIFY_SOCKET": place, "WATCHDOG_USEC": "20000"}, FakeClock())  # type: ignore[arg-type]
    assert not told.is_told
    told.watch(lambda: True, lambda: "fine")
    told.stopping()


async def test_a_manager_that_does_not_listen_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")}, FakeClock())  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING, "sidecar"):
        told.watch(lambda: True, lambda: "fine")
        told.stopping()
    expected = "the service manager cannot be told (NOTIFY_SOCKET): no such file or directory"
    assert [record.message for record in caplog.records] == [expected]


# The unit file


def lines() -> list[tuple[str, str]]:
    """key, value of each line that is one."""
    found = [line.partition("=") for line in UNIT.read_text().splitlines() if line[:1].isalpha()]
    return [(key, value) for key, _, value in found]


def test_the_service_has_no_privilege_and_writes_nowhere_but_its_state() -> None:
    found = dict(lines())
    assert found["CapabilityBoundingSet"] == found["AmbientCapabilities"] == ""
    assert found["ProtectSystem"] == "strict"
    assert found["StateDirectory"] == "sidecar"
    for key in ("DynamicUser", "NoNewPrivileges", "MemoryDenyWriteExecute", "PrivateDevices", "ProtectHome"):
        assert found[key] == "yes", key
    assert found["RestrictAddressFamilies"].split() == ["AF_INET", "AF_INET6", "AF_UNIX"]
    assert ("SystemCallFilter", "@system-service") in lines()


def test_the_service_says_when_it_is_ready_and_who_it_is() -> None:
    found = dict(lines())
    assert (found["Type"], found["NotifyAccess"]) == ("notify", "all")
    assert int(found["TimeoutStopSec"]) > 30, "the default of sidecar.drain_timeout"


@pytest.mark.server("systemd-analyze")
def test_systemd_understands_it(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/usr/local/bin/sidecar", "/bin/true"))  # which is to be there
    done = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
