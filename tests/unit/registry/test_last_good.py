"""The last good snapshots on disk: what comes back, what does not, and that nothing of it ever fails anybody."""

# ruff: noqa: ASYNC240 - these files are small, and nobody else is held up
import asyncio
import errno
import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from support.clock import FakeClock

from sidecar.model import Endpoint
from sidecar.registry import last_good as module
from sidecar.registry import threads
from sidecar.registry.last_good import LastGood, Saved

DAY = 86400.0
CLOCK = FakeClock()
NOW = CLOCK.wall()
WEB = Saved((Endpoint("a.example", 8001), Endpoint("::1", 8002, 7, "eu-1a")), NOW - 10.0)
KEPT = {("consul", "web"): WEB, ("consul", "empty"): Saved((), NOW), ("dns", "web"): Saved((), NOW - DAY)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where snapshots are kept."""
    return tmp_path / "state" / "last-good.json"


def last_good(file: Path | str, clock: FakeClock = CLOCK) -> LastGood:
    """With the usual age."""
    return LastGood(str(file), DAY, clock)


def write(file: Path, document: object) -> None:
    """What is there at the start."""
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(document))


def snapshot(**other: object) -> dict[str, object]:
    """One that is fine but for what is given."""
    endpoints = [{"host": "a", "port": 1}]
    return {"source": "consul", "upstream": "web", "saved_at": NOW, "endpoints": endpoints, **other}


def said(caplog: pytest.LogCaptureFixture, file: Path) -> str:
    """The one warning, without its beginning."""
    (text,) = [record.getMessage() for record in caplog.records]
    caplog.clear()
    assert text.startswith(f"{file}: ")
    assert "\n" not in text
    return text.removeprefix(f"{file}: ")


@pytest.mark.every_loop
async def test_what_is_saved_comes_back(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    await last_good(file).save(KEPT)
    assert last_good(file).load() == KEPT
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    await last_good(file).save({("consul", "web"): WEB})
    assert last_good(file).load() == {("consul", "web"): WEB}
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert not caplog.records


async def test_the_file_is_json_with_a_version_and_a_time_each(file: Path) -> None:
    await last_good(file).save({("consul", "web"): WEB})
    assert json.loads(file.read_text()) == {
        "version": 1,
        "snapshots": [
            {
                "source": "consul",
                "upstream": "web",
                "saved_at": NOW - 10.0,
                "endpoints": [
                    {"host": "a.example", "port": 8001},
                    {"host": "::1", "port": 8002, "weight": 7, "zone": "eu-1a"},
                ],
            }
        ],
    }


async def test_without_a_file_nothing_is_kept() -> None:
    nowhere = last_good("")
    await nowhere.save(KEPT)
    assert nowhere.load() == {}


def test_the_first_start_is_no_reason_for_a_warning(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert last_good(file).load() == {}
    assert not caplog.records


# What does not come back


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "it is damaged: no JSON"),
        (b"\xff\x00", "it is damaged: no JSON"),
        (b'{"version": 1, "snapshots": [{"source"', "it is damaged: no JSON"),
        (b"[" * 100_000, "it is damaged: no JSON"),
        (b"[]", "it is damaged, or another program's"),
        (b'{"version": 1}', "it is damaged, or another program's"),
        (b'{"version": 2, "snapshots": []}', "it is of version `2`, and this sidecar reads 1"),
        (b'{"snapshots": []}', "it is of version `None`, and this sidecar reads 1"),
    ],
)
def test_a_file_that_cannot_be_used(
    file: Path, content: bytes, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    file.parent.mkdir()
    file.write_bytes(content)
    assert last_good(file).load() == {}
    text = said(caplog, file)
    assert text.startswith(f"last good snapshots are not used: {problem}")
    assert text.endswith("the file is written anew when registries have answered")


async def test_every_cut_of_a_file(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    await last_good(file).save(KEPT)
    content = file.read_bytes()
    for length in range(len(content) - 1):  # without the line break at its end it is whole
        file.write_bytes(content[:length])
        assert last_good(file).load() == {}
        assert "it is damaged" in said(caplog, file)


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        ({"saved_at": NOW + 61.0}, "from the future (is the clock of this host right?): consul/web"),
        ({"saved_at": NOW - DAY - 1.0}, "older than 86400 s: consul/web"),
        ({"saved_at": "now"}, "damaged: `{'source': 'consul'"),
        ({"saved_at": True}, "damaged: "),
        ({"saved_at": float("nan")}, "damaged: "),
        ({"saved_at": 10**400}, "damaged: "),
        ({"source": 1}, "damaged: "),
        ({"upstream": None}, "damaged: "),
        ({"endpoints": {}}, "damaged: "),
        ({"endpoints": [{"host": "a b", "port": 1}]}, "damaged: "),
    ],
)
def test_a_snapshot_that_cannot_be_used(
    file: Path, other: dict[str, object], problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    write(file, {"version": 1, "snapshots": [snapshot(**other), snapshot(upstream="fine")]})
    assert list(last_good(file).load()) == [("consul", "fine")]
    assert said(caplog, file).startswith(f"last good snapshots are not used: {problem}")


@pytest.mark.parametrize("damaged", [None, 5, [], {}, {"source": "consul"}])
def test_something_that_is_no_snapshot(file: Path, damaged: object, caplog: pytest.LogCaptureFixture) -> None:
    write(file, {"version": 1, "snapshots": [damaged, snapshot()]})
    assert list(last_good(file).load()) == [("consul", "web")]
    assert "not used: damaged: " in said(caplog, file)


@pytest.mark.parametrize(
    "entry",
    [
        "a:1",
        {"host": "a b", "port": 1},
        {"host": "a", "port": 0},
        {"host": "a", "port": 1, "weight": "x"},
        {"host": "a", "port": 1, "zone": "a b"},
        {"host": "a", "port": 1, "more": 2},
    ],
)
def test_an_endpoint_that_cannot_be_used(file: Path, entry: object, caplog: pytest.LogCaptureFixture) -> None:
    write(file, {"version": 1, "snapshots": [snapshot(endpoints=[entry, {"host": "b", "port": 2}])]})
    assert last_good(file).load() == {("consul", "web"): Saved((Endpoint("b", 2),), NOW)}
    assert "damaged in part: consul/web" in said(caplog, file)


def test_all_that_is_wrong_is_one_warning(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    old = [snapshot(upstream=f"old-{number}", saved_at=0) for number in range(9)]
    write(file, {"version": 1, "snapshots": [*old, snapshot(upstream="new", saved_at=NOW + DAY)]})
    assert last_good(file).load() == {}
    text = said(caplog, file)
    assert "older than 86400 s: consul/old-0, consul/old-1, consul/old-2" in text
    assert "consul/old-4 and 4 more; from the future" in text


def test_a_clock_that_is_a_little_behind(file: Path) -> None:
    write(file, {"version": 1, "snapshots": [snapshot(saved_at=NOW + 59.0)]})
    assert last_good(file).load()


def test_what_is_no_file_or_too_large(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file.mkdir(parents=True)
    assert last_good(file).load() == {}
    assert "it cannot be read: is no regular file" in said(caplog, file)
    file.rmdir()
    write(file, {"version": 1, "snapshots": [snapshot()]})
    monkeypatch.setattr(module, "MAX_BYTES", 5)
    assert last_good(file).load() == {}
    assert "it cannot be read: is larger than 5 bytes" in said(caplog, file)


# Writing that is interrupted, or fails


async def test_what_an_interrupted_writing_left_is_removed(file: Path) -> None:
    await last_good(file).save(KEPT)
    left = file.with_name(f".{file.name}.abc.tmp")
    young = file.with_name(f".{file.name}.def.tmp")
    other = file.with_name(".other.abc.tmp")
    for path in (left, young, other):
        path.write_text('{"version": 1, "snapsh')
        os.utime(path, (NOW, NOW - 61.0 if path is not young else NOW))
    assert last_good(file).load() == KEPT
    assert not left.exists()
    assert young.exists()  # another process may be writing it
    assert other.exists()


async def test_a_kill_in_the_middle_changes_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await last_good(file).save(KEPT)
    real = os.fsync

    def killed(descriptor: int) -> None:
        found = [path for path in file.parent.iterdir() if path != file]
        assert len(found) == 1  # what a kill here would leave
        seen.append(last_good(file).load())
        real(descriptor)

    seen: list[Any] = []
    monkeypatch.setattr(os, "fsync", killed)
    monkeypatch.setattr(module, "_sync_directory", lambda directory: None)
    await last_good(file).save({("consul", "web"): WEB})
    assert seen == [KEPT]


class Full:
    """What fails with one error until it is told not to, or with another."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self.number = errno.ENOSPC

    def __call__(self, *arguments: Any) -> Any:
        if self.number:
            raise OSError(self.number, os.strerror(self.number))
        return self.real(*arguments)


async def test_a_full_disk_is_one_warning_until_it_changes(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keeping = last_good(file)
    await keeping.save(KEPT)
    full = Full(os.fsync)
    monkeypatch.setattr(os, "fsync", full)
    for _ in range(3):
        await keeping.save({})
    text = said(caplog, file)
    assert text.startswith("the last good snapshots cannot be kept: no space left on device; a restart")
    assert "choose another place (sidecar.last_good)" in text
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert keeping.load() == KEPT
    full.number = errno.EDQUOT
    await keeping.save({})
    assert "disk quota exceeded" in said(caplog, file)
    full.number = 0
    with caplog.at_level("INFO", "sidecar"):
        for _ in range(2):
            await keeping.save({})
    assert said(caplog, file) == "the last good snapshots are kept again"
    assert keeping.load() == {}


async def test_a_directory_that_cannot_be_written(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file.parent.mkdir()
    refusing = Full(None)
    refusing.number = errno.EROFS
    monkeypatch.setattr(module.tempfile, "mkstemp", refusing)  # root may write wherever it wants
    await last_good(file).save(KEPT)
    assert "cannot be kept: read-only file system" in said(caplog, file)


async def test_a_directory_that_is_not_there_or_none(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    deep = file.parent / "more" / file.name
    await last_good(deep).save(KEPT)
    assert "cannot be kept: no such file or directory" in said(caplog, deep)
    file.parent.write_text("")
    await last_good(file).save(KEPT)
    assert "cannot be kept: file exists" in said(caplog, file)


async def test_no_thread_and_mistakes_of_ours(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "_lines", lambda kept: 1 / 0)
        await last_good(file).save(KEPT)
    assert "cannot be kept: ZeroDivisionError: division by zero" in said(caplog, file)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    await last_good(file).save(KEPT)
    assert "cannot be kept: can't start new thread" in said(caplog, file)


async def test_one_that_was_given_up_does_not_undo_a_later_one(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeping = last_good(file)
    held, waiting = threading.Event(), threading.Event()
    replace = Path.replace

    def slowly(temporary: Path, target: Path) -> Path:
        if not waiting.is_set():
            waiting.set()
            held.wait(10.0)
        return replace(temporary, target)

    monkeypatch.setattr(Path, "replace", slowly)
    first = asyncio.create_task(keeping.save({}))
    async with asyncio.timeout(10.0):
        while not waiting.is_set():  # noqa: ASYNC110 - set in a thread
            await asyncio.sleep(0.01)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    last = asyncio.create_task(keeping.save(KEPT))
    await asyncio.wait({last}, timeout=0.3)  # which is the time that it has to come before the other
    held.set()
    await last
    for thread in threading.enumerate():
        if thread.name.startswith("writing of"):
            thread.join(10.0)
    assert keeping.load() == KEPT


async def test_an_older_one_that_comes_too_late_is_dropped(file: Path) -> None:
    keeping = last_good(file)
    await keeping.save({})
    await keeping.save(KEPT)
    keeping._write(1, {})  # the thread of the first one, had it been held up until now
    assert keeping.load() == KEPT


async def test_it_is_written_in_a_thread(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []
    real = os.fsync

    def look(descriptor: int) -> None:
        threads.append(threading.current_thread())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    await last_good(file).save(KEPT)
    assert threads
    assert threading.main_thread() not in threads


async def test_many_small_snapshots_are_written_with_pauses_too(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused: list[None] = []
    monkeypatch.setattr(threads, "pause", lambda: paused.append(None))
    await last_good(file).save({("consul", f"u{number}"): WEB for number in range(100)})
    assert len(paused) == 2  # of some 400 pieces
