"""When a file counts as changed, however its content got there, and that watching it ends without a trace."""

# ruff: noqa: ASYNC240 - these files are small, and nobody else is held up
import asyncio
import errno
import os
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Self

import pytest
from support.volumes import ConfigMapVolume

from sidecar.config import changes as module
from sidecar.config.changes import changes, digest

FALLBACK = "no word of its changes from inotify"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file in a directory of its own."""
    (tmp_path / "conf").mkdir()
    path = tmp_path / "conf" / "endpoints.yml"
    path.write_text("one")
    return path


async def word(watch: AsyncIterator[bool], within: float = 10.0) -> bool:
    """The next thing it says."""
    async with asyncio.timeout(within):
        return await anext(watch)


async def changed(watch: AsyncIterator[bool], within: float = 10.0) -> None:
    """Wait for the next change."""
    while not await word(watch, within):
        pass


def replace(path: Path, content: str) -> None:
    """As careful writers do."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(content)
    temporary.rename(path)


def delete_and_write(path: Path, content: str) -> None:
    """As careless ones do."""
    path.unlink()
    path.write_text(content)


def whole_directory(path: Path, content: str) -> None:
    """As a deployment does that throws away what was there."""
    shutil.rmtree(path.parent)
    path.parent.mkdir()
    path.write_text(content)


def other_directory(path: Path, content: str) -> None:
    """As one does that prepares the next directory beside it."""
    new = path.parent.with_name("conf.new")
    new.mkdir()
    (new / path.name).write_text(content)
    path.parent.rename(path.parent.with_name("conf.old"))
    new.rename(path.parent)


@pytest.mark.every_loop
async def test_the_first_word_comes_at_once_and_then_one_with_each_change(file: Path) -> None:
    async with aclosing(changes(str(file))) as watch:
        assert await word(watch)
        for content in ("two", "three"):
            file.write_text(content)
            await changed(watch)
            assert file.read_text() == content


@pytest.mark.parametrize("write", [replace, delete_and_write, whole_directory, other_directory])
async def test_ways_of_writing(file: Path, write: Callable[[Path, str], None]) -> None:
    async with aclosing(changes(str(file))) as watch:
        await changed(watch)
        write(file, "two")
        await changed(watch, within=3.0)  # sooner than a look that nothing has asked for
        assert file.read_text() == "two"
        file.write_text("three")  # what is watched now is the new one
        await changed(watch, within=3.0)


def touch(path: Path) -> None:
    """Only its times change."""
    os.utime(path)


def write_again(path: Path) -> None:
    """In place, the same bytes."""
    path.write_text(path.read_text())


def replace_again(path: Path) -> None:
    """Another file with the same bytes."""
    replace(path, path.read_text())


@pytest.mark.parametrize("write", [touch, write_again, replace_again])
async def test_the_same_content_is_no_change(file: Path, write: Callable[[Path], None]) -> None:
    async with aclosing(changes(str(file))) as watch:
        await changed(watch)
        write(file)
        assert not await word(watch, within=3.0)
        file.write_text("two")
        await changed(watch, within=3.0)


async def test_another_file_of_the_directory_is_no_change(file: Path) -> None:
    async with aclosing(changes(str(file))) as watch:
        await changed(watch)
        file.with_name("other").write_text("two")
        assert not await word(watch, within=3.0)


async def test_a_config_map_is_swapped(tmp_path: Path) -> None:
    volume = ConfigMapVolume(tmp_path / "volume")
    volume.update(endpoints_yml="0", other_yml="x")
    file = volume.directory / "endpoints.yml"
    async with aclosing(changes(str(file))) as watch:
        await changed(watch)
        for number in range(1, 4):
            volume.update(endpoints_yml=str(number), other_yml="x")
            await changed(watch, within=3.0)
            assert file.read_text() == str(number)
        volume.update(endpoints_yml="3", other_yml="y")
        assert not await word(watch, within=3.0)


async def test_a_link_leads_elsewhere(file: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "real.yml").write_text(name)
    (tmp_path / "current").symlink_to("a")
    file.unlink()
    file.symlink_to("../current/real.yml")
    async with aclosing(changes(str(file))) as watch:
        await changed(watch)
        (tmp_path / "a" / "real.yml").write_text("a again")
        await changed(watch, within=3.0)
        (tmp_path / "next").symlink_to(tmp_path / "b")
        (tmp_path / "next").rename(tmp_path / "current")
        await changed(watch, within=3.0)
        assert file.read_text() == "b"
        replace(tmp_path / "b" / "real.yml", "b again")
        await changed(watch, within=3.0)


async def test_a_relative_path(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    async with aclosing(changes("../conf/endpoints.yml")) as watch:
        await changed(watch)
        file.write_text("two")
        await changed(watch, within=3.0)


async def test_a_burst_is_one_change(file: Path) -> None:
    async with aclosing(changes(str(file), every=0.3)) as watch:
        await changed(watch)
        for number in range(50):  # truncated and written each time
            with file.open("w") as out:
                out.write("half ")
                out.flush()
                out.write(str(number))
        await changed(watch)
        assert file.read_text() == "half 49"
        for _ in range(3):
            assert not await word(watch)


async def test_whoever_truncates_and_writes_a_moment_later_is_waited_for(file: Path) -> None:
    async with aclosing(changes(str(file))) as watch:
        await changed(watch)
        following = asyncio.ensure_future(anext(watch))
        with file.open("w") as out:
            for part in range(20):
                out.write(str(part))
                out.flush()
                await asyncio.sleep(0.02)  # acts a writer that takes its time
                assert not following.done()
        async with asyncio.timeout(3.0):
            assert await following


async def test_a_file_that_is_gone_for_a_moment_has_not_changed(file: Path) -> None:
    async with aclosing(changes(str(file))) as watch:
        await changed(watch)
        following = asyncio.ensure_future(anext(watch))
        file.unlink()
        await asyncio.sleep(0.4)  # acts an editor that takes its time
        assert not following.done()
        file.write_text("one")
        async with asyncio.timeout(3.0):
            assert not await following


async def test_a_file_that_stays_away_is_told_once_and_so_is_its_return(file: Path) -> None:
    async with aclosing(changes(str(file), every=0.2)) as watch:
        await changed(watch)
        file.unlink()
        await changed(watch, within=4.0)
        assert not file.exists()
        following = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0.5)  # two looks: neither finds anything that could be told
        assert not following.done()
        file.write_text("one")  # what it was before, but whoever has been told that it is gone wants to know
        async with asyncio.timeout(3.0):
            assert await following


@pytest.mark.parametrize("write", [Path.mkdir, os.mkfifo], ids=["directory", "pipe"])
async def test_what_cannot_be_read_is_told(file: Path, write: Callable[[Path], None]) -> None:
    async with aclosing(changes(str(file))) as watch:
        await changed(watch)
        file.unlink()
        write(file)
        await changed(watch, within=4.0)
        with pytest.raises(OSError, match="regular file"):
            digest(str(file))


async def test_a_file_and_its_directories_that_come_later(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b" / "endpoints.yml"
    async with aclosing(changes(str(file))) as watch:
        await changed(watch)
        file.parent.mkdir(parents=True)
        file.write_text("one")
        await changed(watch, within=3.0)


async def test_what_is_known_already_is_no_change(file: Path) -> None:
    async with aclosing(changes(str(file), digest(str(file)))) as watch:
        assert not await word(watch)
    known = digest(str(file))
    file.write_text("two")
    async with aclosing(changes(str(file), known)) as watch:
        assert await word(watch)


async def test_a_word_comes_at_least_every_so_often(file: Path) -> None:
    async with aclosing(changes(str(file), every=0.05)) as watch:
        assert await word(watch)
        for _ in range(3):
            assert not await word(watch, within=1.0)


async def test_changes_while_nobody_listens_are_one(file: Path) -> None:
    async with aclosing(changes(str(file), every=0.05)) as watch:
        await changed(watch)
        file.write_text("two")
        await asyncio.sleep(0.5)  # acts a consumer that is busy
        await changed(watch)
        assert not await word(watch)


async def test_same_size_and_time(file: Path) -> None:
    async with aclosing(changes(str(file), every=0.1)) as watch:
        await changed(watch)
        assert not await word(watch)
        before = file.stat()
        file.write_text("two")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        await changed(watch, within=3.0)


async def test_two_writes_in_one_tick_of_the_kernels_clock(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_signed", lambda found: (1, 2, 3, 4, 5))
    async with aclosing(changes(str(file))) as watch:
        await changed(watch)
        file.write_text("two")
        await changed(watch, within=3.0)


async def test_the_first_word_waits_for_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SETTLED", 30.0)
    async with aclosing(changes(str(file))) as watch:
        await changed(watch, within=3.0)


async def test_beyond_what_is_digested_size_and_time_speak(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_DIGESTED", 4)
    file.write_text("long and one")
    first = digest(str(file))
    assert digest(str(file)) == first
    file.write_text("long and two")
    assert digest(str(file)) != first


@pytest.mark.every_loop
async def test_closing_is_quick_and_leaves_no_thread(file: Path) -> None:
    watch = changes(str(file))
    await changed(watch)
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("watch of")]
    begin = time.monotonic()
    await watch.aclose()
    assert time.monotonic() - begin < 0.4  # 0.1 s; the rest is for a machine that is busy
    for thread in threading.enumerate():
        if thread.name.startswith("watch of"):
            thread.join(0.1)
            assert not thread.is_alive()


@pytest.mark.every_loop
async def test_cancelling_whoever_waits_ends_it_too(file: Path) -> None:
    async def consume() -> None:
        async with aclosing(changes(str(file))) as watch:
            async for _ in watch:
                heard.set()

    heard = asyncio.Event()
    task = asyncio.create_task(consume())
    await heard.wait()
    task.cancel()
    async with asyncio.timeout(1.0):
        with pytest.raises(asyncio.CancelledError):
            await task


class Refusing:
    """What watchfiles does at the limit of watches: inotify_add_watch(2) gives ENOSPC."""

    def __init__(self, *_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Failing:
    """A watch that breaks later."""

    def __init__(self, *_: object) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def watch(self, *_: object) -> None:
        """Raises what watchfiles does."""
        raise RuntimeError("error in the watcher")


@pytest.mark.parametrize("notify", [Refusing, Failing])
async def test_without_inotify_it_is_looked_at_again_and_again(
    notify: type, file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("watchfiles._rust_notify.RustNotify", notify)
    monkeypatch.setattr(module, "POLL", 0.02)
    async with aclosing(changes(str(file))) as watch:
        await changed(watch)
        for content in ("two", "three"):
            replace(file, content)
            await changed(watch, within=3.0)
        file.unlink()
        await changed(watch, within=4.0)
    assert [FALLBACK in record.getMessage() for record in caplog.records] == [True]


async def test_a_mistake_in_the_thread_reaches_who_waits(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with aclosing(changes(str(file), every=0.05)) as watch:
        await changed(watch)
        monkeypatch.setattr(module, "_read", lambda path: 1 / 0)
        file.write_text("two")
        with pytest.raises(ZeroDivisionError):
            await changed(watch)


async def test_no_thread_to_be_had(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(OSError, match="can't start new thread"):
        await anext(changes(str(file)))
