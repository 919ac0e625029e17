"""What the machine allows, from files as the kernel has them, and what is said where it is too little."""

import resource
from dataclasses import replace
from pathlib import Path

import pytest

import sidecar.host_limits
from sidecar.cli import run
from sidecar.config.load import load_settings
from sidecar.config.settings import AccessLogSettings, Settings
from sidecar.host_limits import (
    HostLimits,
    descriptors_note,
    descriptors_wanted,
    host_notes,
    read_host_limits,
)
from sidecar.proxy.listener import BACKLOG

MIB = 1024 * 1024


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def limits_of(root: Path, soft: int = 1024, hard: int = 4096) -> HostLimits:
    return read_host_limits(root, lambda _: (soft, hard))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """max_clients 1000, one upstream with 1024 connections."""
    file = tmp_path / "a.yml"
    file.write_text("services: {api: {host: a.example, port: 1}}\nsidecar: {max_clients: 1000}\n")
    return load_settings(file, environ={}, container=False)


# Reading


def test_nothing_is_known_where_there_are_no_files(tmp_path: Path) -> None:
    assert limits_of(tmp_path) == HostLimits(descriptors=4096)
    assert limits_of(tmp_path, hard=resource.RLIM_INFINITY) == HostLimits()


def test_version_2_of_a_container(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/")
    write(tmp_path, "sys/fs/cgroup/memory.max", "268435456")
    write(tmp_path, "sys/fs/cgroup/cpu.max", "50000 100000")
    write(tmp_path, "proc/sys/net/core/somaxconn", "128")
    assert limits_of(tmp_path) == HostLimits(4096, 256 * MIB, 0.5, 128)


def test_version_2_of_a_service_takes_the_lowest_of_the_groups_around_it(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/system.slice/sidecar.service")
    write(tmp_path, "sys/fs/cgroup/system.slice/sidecar.service/memory.max", "max")
    write(tmp_path, "sys/fs/cgroup/system.slice/sidecar.service/cpu.max", "max 100000")
    write(tmp_path, "sys/fs/cgroup/system.slice/memory.max", str(64 * MIB))
    write(tmp_path, "sys/fs/cgroup/system.slice/cpu.max", "300000 100000")
    write(tmp_path, "sys/fs/cgroup/other.slice/memory.max", "1")
    assert limits_of(tmp_path) == HostLimits(4096, 64 * MIB, 3.0)


def test_version_1(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "9:name=systemd:/\n4:memory:/pod/a\n1:cpu,cpuacct:/pod/a\n0::/")
    write(tmp_path, "sys/fs/cgroup/memory/pod/a/memory.limit_in_bytes", str(32 * MIB))
    write(tmp_path, "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712")
    write(tmp_path, "sys/fs/cgroup/cpu/pod/a/cpu.cfs_quota_us", "150000")
    write(tmp_path, "sys/fs/cgroup/cpu/pod/a/cpu.cfs_period_us", "100000")
    write(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1")
    write(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000")
    assert limits_of(tmp_path) == HostLimits(4096, 32 * MIB, 1.5)


def test_version_1_in_a_container_that_sees_the_hosts_names(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "4:memory:/docker/0123\n1:cpu:/docker/0123")
    write(tmp_path, "sys/fs/cgroup/memory/memory.limit_in_bytes", str(16 * MIB))
    write(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "20000")
    write(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000")
    assert limits_of(tmp_path) == HostLimits(4096, 16 * MIB, 0.2)


@pytest.mark.parametrize("text", ["", "max", "-1", "9" * 30, "12 kB", "²", "0"])
def test_what_is_no_limit(tmp_path: Path, text: str) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/\nnonsense")
    for name in ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/cpu.max", "proc/sys/net/core/somaxconn"):
        write(tmp_path, name, text)
    assert limits_of(tmp_path) == HostLimits(4096)


def test_of_this_machine_something_can_be_read() -> None:
    found = read_host_limits()
    assert found.descriptors >= 0
    assert found.backlog > 0


# Judging


def test_a_machine_that_has_enough_is_not_spoken_of(settings: Settings) -> None:
    assert list(host_notes(settings, HostLimits())) == []
    assert list(host_notes(settings, HostLimits(1, 256 * MIB, 0.5, BACKLOG))) == []


def test_memory(settings: Settings) -> None:
    (note,) = host_notes(settings, HostLimits(memory=50 * MIB))
    assert note == (
        "the control group allows 50 MiB of memory, and 1000 idle clients (sidecar.max_clients) alone take some 52 "
        "MiB: raise the limit, or lower sidecar.max_clients"
    )
    own = replace(settings.sidecar, workers=2, access_log=AccessLogSettings("stdout"))
    (note,) = host_notes(replace(settings, sidecar=own), HostLimits(memory=100 * MIB))
    assert "2000 idle clients (sidecar.max_clients of each worker) alone take some 112 MiB" in note


def test_cpus(settings: Settings) -> None:
    workers = replace(settings, sidecar=replace(settings.sidecar, workers=4))
    assert list(host_notes(workers, HostLimits(cpus=4.0))) == []
    (note,) = host_notes(workers, HostLimits(cpus=0.5))
    assert note.startswith("the control group allows 0.5 cores, which 4 workers use up together")
    assert "set sidecar.workers to 1, or raise the limit" in note
    (note,) = host_notes(workers, HostLimits(cpus=2.5))
    assert "set sidecar.workers to 2" in note


def test_backlog(settings: Settings) -> None:
    (note,) = host_notes(settings, HostLimits(backlog=128))
    assert note.startswith(
        f"net.core.somaxconn lets 128 connections wait at a port, of the {BACKLOG} asked for"
    )


def test_descriptors(settings: Settings) -> None:
    assert descriptors_wanted(settings) == 1000 + 1024 + 512
    note = descriptors_note(2536, 1024)
    assert "add up to 2536 open files, and the system allows 1024" in note
    for advice in ("ulimit -Hn", "LimitNOFILE=", "--ulimit nofile="):
        assert advice in note


@pytest.mark.parametrize(
    ("limits", "notes"),
    [
        (HostLimits(), []),
        (HostLimits(descriptors=100_000, backlog=BACKLOG), []),
        (
            HostLimits(descriptors=1024, backlog=128),
            ["note: here the bounds on connections ", "note: here net.core."],
        ),
    ],
)
def test_check_passes_them_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    limits: HostLimits,
    notes: list[str],
) -> None:
    monkeypatch.setattr(sidecar.host_limits, "read_host_limits", lambda: limits)
    (tmp_path / "a.yml").write_text("services: {api: {host: a.example, port: 1}}\n")
    assert run(["check", "--config", str(tmp_path / "a.yml"), "--mode", "distributed"]) == 0
    *found, last = capsys.readouterr().out.splitlines()
    assert len(found) == len(notes)
    assert all(line.startswith(note) for line, note in zip(found, notes, strict=True))
    assert "fine: mode distributed" in last
