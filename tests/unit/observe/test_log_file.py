"""The thread that writes lines: nobody waits for it, nothing is lost unseen, and no line is cut in half."""

import asyncio
import logging
import os
import resource
import select
import stat
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sidecar.errors import StartError
from sidecar.model import RecordingCounts
from sidecar.observe.log_file import CLOSE_SECONDS, PIPE_BUF, LogFile

BUFFER = 65536
LINE = b"x" * 99 + b"\n"

MakeFile = Callable[..., LogFile]


async def until(look: Callable[[], object]) -> None:
    """Wait for what a thread is about to do."""
    async with asyncio.timeout(10.0):
        while not look():  # noqa: ASYNC110 - threads have no event
            await asyncio.sleep(0.001)


class Counted(LogFile):
    """One whose counts are at hand."""

    def __init__(self, place: str, buffer: int) -> None:
        self.counts = RecordingCounts()
        super().__init__(place, buffer, self.counts)

    async def settle(self) -> None:
        """Wait until nothing waits."""
        await until(lambda: not self.waiting)


@pytest.fixture
async def make_file(tmp_path: Path) -> AsyncIterator[Callable[..., Counted]]:
    """Makes open files, of `tmp_path / "log"` unless told; they are closed at the end."""
    made: list[LogFile] = []

    def make(place: Path | str = "", buffer: int = BUFFER) -> Counted:
        file = Counted(str(place or tmp_path / "log"), buffer)
        file.start()
        made.append(file)
        return file

    yield make
    for file in made:
        await file.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file's name."""
    return tmp_path / "log"


def content(path: Path) -> bytes:
    """What stands in it."""
    return path.read_bytes()


def move(path: Path, name: str) -> Path:
    """Rename it; its new name."""
    return path.rename(path.with_suffix(name))


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A pipe with a name, and its reading end, from which reading does not wait."""
    name = tmp_path / "pipe"
    os.mkfifo(name)
    reader = os.open(name, os.O_RDONLY | os.O_NONBLOCK)
    yield name, reader
    os.close(reader)


@contextmanager
def file_size(limit: int) -> Iterator[None]:
    """No file grows beyond `limit` bytes, as where a disk is full: what still fits is written (setrlimit(2))."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def numbered(first: int, count: int) -> bytes:
    """Lines of ten bytes."""
    return b"".join(b"%09d\n" % number for number in range(first, first + count))


async def test_lines_are_in_the_file_in_their_order(make_file: MakeFile, path: Path) -> None:
    file = make_file()
    for first in range(0, 1000, 100):
        file.write(numbered(first, 100), 100)
    await file.close()
    assert content(path) == numbered(0, 1000)
    assert (file.counts.lines_written, file.counts.lines_dropped, file.waiting) == (1000, 0, 0)


async def test_a_file_that_is_there_goes_on(make_file: MakeFile, path: Path) -> None:
    for line in (b"before\n", b"after\n"):
        file = make_file()
        file.write(line, 1)
        await file.close()
    assert content(path) == b"before\nafter\n"


async def test_standard_output_is_written_to_and_stays_open(
    make_file: MakeFile, capfd: pytest.CaptureFixture[str]
) -> None:
    file = make_file("stdout")
    file.write(LINE, 1)
    file.reopen()
    file.write(LINE, 1)
    await file.close()
    assert capfd.readouterr().out == 2 * LINE.decode()
    os.fstat(1)


@pytest.mark.parametrize(("umask", "mode"), [(0, 0o640), (0o077, 0o600)])
async def test_others_may_not_read_it(make_file: MakeFile, path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        make_file()
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(path).st_mode) == mode  # noqa: PTH116


# What cannot be opened


def _nothing(path: Path) -> None:
    """It is not there."""


def _unread(path: Path) -> None:
    path.parent.mkdir()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda path: path.mkdir(parents=True), "Is a directory; name a file"),
        (_nothing, "No such file or directory; name a file"),
        (_unread, "start who reads from it first"),
    ],
)
async def test_what_cannot_be_opened_is_an_error_of_the_start(
    tmp_path: Path, prepare: Callable[[Path], None], words: str
) -> None:
    path = tmp_path / "folder" / "log"
    prepare(path)
    file = Counted(str(path), BUFFER)
    with pytest.raises(StartError) as caught:
        file.start()
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    await file.close()  # which is nothing


async def test_a_disk_is_not_written_over(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setattr(stat, "S_ISBLK", lambda mode: True)
    with pytest.raises(StartError, match="is a block device; name a file"):
        Counted(str(path), BUFFER).start()


async def test_standard_output_that_was_closed_is_not_taken_for_another_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.__stdout__", None)
    with pytest.raises(StartError, match="standard output is closed"):
        Counted("stdout", BUFFER).start()


async def test_a_thread_that_does_not_start_is_an_error_of_the_start(
    monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(StartError, match="raise the limit on threads"):
        Counted(str(path), BUFFER).start()


# Who does not keep up


async def test_a_reader_that_does_not_read_costs_lines_and_no_time(
    make_file: MakeFile, fifo: tuple[Path, int], caplog: pytest.LogCaptureFixture
) -> None:
    name, reader = fifo
    file = make_file(name)
    began = time.monotonic()
    for _ in range(4000):  # 400 KB: the pipe takes 64 KiB, and as much waits
        file.write(LINE, 1)
        await asyncio.sleep(0)
    assert time.monotonic() - began < 5.0
    dropped = file.counts.lines_dropped
    assert 2000 < dropped < 4000
    assert file.waiting <= BUFFER
    assert file.counts.log_errors == 0
    assert not caplog.records

    came = bytearray()
    async with asyncio.timeout(10.0):
        while file.waiting or select.select([reader], [], [], 0)[0]:
            came += os.read(reader, 65536) if select.select([reader], [], [], 0)[0] else b""
            await asyncio.sleep(0.001)
    file.write(LINE, 1)
    await file.settle()
    await file.close()
    came += os.read(reader, 65536)
    assert bytes(came) == LINE * (4001 - dropped)
    assert (file.counts.lines_written, file.counts.lines_dropped) == (4001 - dropped, dropped)
    assert [record.message for record in caplog.records] == [
        f"{name} has caught up; lines dropped, as more than `sidecar.access_log.buffer` waited for it: {dropped}"
    ]


async def test_a_reader_that_does_not_read_does_not_hold_up_the_end(
    make_file: MakeFile, fifo: tuple[Path, int], caplog: pytest.LogCaptureFixture
) -> None:
    name, reader = fifo
    file = make_file(name, 4 * BUFFER)
    for _ in range(20):
        file.write(LINE * 100, 100)
    began = time.monotonic()
    await file.close()
    assert CLOSE_SECONDS <= time.monotonic() - began < CLOSE_SECONDS + 1.0
    await until(
        lambda: file.counts.lines_written + file.counts.lines_dropped == 2000
    )  # the thread has noticed
    assert file.counts.lines_written * 100 == len(os.read(reader, 1 << 20))
    assert [record.message for record in caplog.records] == [
        f"{name} takes no lines: those that waited for it are dropped"
    ]


async def test_a_disk_that_has_stopped_does_not_hold_up_the_end(
    make_file: MakeFile, monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    goes_on = threading.Event()
    real = os.write

    def write(descriptor: int, data: bytes) -> int:
        if threading.current_thread().name == "access log":
            goes_on.wait(30.0)
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    file = make_file()
    file.write(LINE, 1)
    file.write(LINE, 1)
    try:
        async with asyncio.timeout(CLOSE_SECONDS + 1.0):
            await file.close()
    finally:
        goes_on.set()
    await until(lambda: file.counts.lines_written)
    assert (file.counts.lines_written, file.counts.lines_dropped) == (1, 1)


async def test_what_does_not_fit_at_once_is_dropped_whole(make_file: MakeFile, path: Path) -> None:
    file = make_file(buffer=1000)
    file.write(LINE * 11, 11)
    file.write(LINE * 10, 10)
    await file.close()
    assert content(path) == LINE * 10
    assert file.counts.lines_dropped == 11


# What fails


async def test_a_full_disk_is_said_once_and_costs_the_lines(
    make_file: MakeFile, caplog: pytest.LogCaptureFixture
) -> None:
    file = make_file("/dev/full")
    for _ in range(5):
        file.write(LINE * 3, 3)
    await file.settle()
    assert (file.counts.lines_written, file.counts.lines_dropped, file.counts.log_errors) == (0, 15, 5)
    assert [record.message for record in caplog.records] == [
        "cannot write to /dev/full: No space left on device; lines are dropped until that works again"
    ]


async def test_a_disk_that_gets_full_within_a_line_keeps_whole_lines(
    make_file: MakeFile, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = make_file()
    with file_size(55):
        file.write(numbered(0, 10), 10)
        await file.settle()
        assert content(path) == numbered(0, 5)
        file.write(numbered(10, 1), 1)
        await file.settle()
        assert content(path) == numbered(0, 5)
    file.write(numbered(20, 2), 2)
    await file.close()
    assert content(path) == numbered(0, 5) + numbered(20, 2)
    assert (file.counts.lines_written, file.counts.lines_dropped, file.counts.log_errors) == (7, 6, 2)
    assert [record.message for record in caplog.records] == [
        f"cannot write to {path}: File too large; lines are dropped until that works again",
        f"{path} can be written to again; lines dropped: 6",
    ]


async def test_another_process_that_wrote_behind_a_half_line_keeps_its_own(
    make_file: MakeFile, monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    real = os.lseek

    def other_writes(*arguments: Any) -> int:
        at = real(*arguments)
        with path.open("ab") as other:
            other.write(b"other\n")
        return at

    monkeypatch.setattr(os, "lseek", other_writes)
    file = make_file()
    written = os.write

    def half(descriptor: int, data: bytes) -> int:
        if threading.current_thread().name != "access log":
            return written(descriptor, data)
        if len(data) < 20:
            raise OSError(28, "No space left on device")
        return written(descriptor, data[:15])

    monkeypatch.setattr(os, "write", half)
    file.write(numbered(0, 2), 2)
    await file.settle()
    assert content(path) == b"000000000\n00000other\n"
    assert (file.counts.lines_written, file.counts.lines_dropped) == (1, 1)


async def test_what_cannot_be_taken_back_is_completed(
    make_file: MakeFile, capfd: pytest.CaptureFixture[str]
) -> None:
    file = make_file("stdout")  # a file here, but not one of this process alone
    with file_size(15):
        file.write(numbered(0, 3), 3)
        await file.settle()
        file.write(numbered(3, 1), 1)
        await file.settle()
    file.write(numbered(4, 1), 1)
    await file.close()
    assert capfd.readouterr().out.encode() == numbered(0, 2) + numbered(4, 1)
    assert (file.counts.lines_written, file.counts.lines_dropped, file.counts.log_errors) == (3, 2, 2)


async def test_a_reader_that_has_gone_may_come_back(
    make_file: MakeFile, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = tmp_path / "pipe"
    os.mkfifo(name)
    reader = os.open(name, os.O_RDONLY | os.O_NONBLOCK)
    file = make_file(name)
    os.close(reader)
    file.write(LINE, 1)
    await file.settle()
    reader = os.open(name, os.O_RDONLY | os.O_NONBLOCK)
    file.write(LINE * 2, 2)
    await file.settle()
    assert os.read(reader, 1000) == LINE * 2
    os.close(reader)
    assert (file.counts.lines_written, file.counts.lines_dropped, file.counts.log_errors) == (2, 1, 1)
    assert [record.message for record in caplog.records] == [
        f"cannot write to {name}: Broken pipe; lines are dropped until that works again",
        f"{name} can be written to again; lines dropped: 1",
    ]


# Pieces


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What the thread asks to be written, piece by piece."""
    found: list[bytes] = []
    real = os.write

    def write(descriptor: int, data: bytes) -> int:
        if threading.current_thread().name == "access log":
            found.append(bytes(data))
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    return found


async def test_a_pipe_gets_whole_lines_of_as_much_as_it_takes_as_one_piece(
    make_file: MakeFile, fifo: tuple[Path, int], sizes: list[bytes]
) -> None:
    name, reader = fifo
    file = make_file(name)
    file.write(LINE * 500, 500)
    await file.settle()
    assert os.read(reader, 1 << 20) == LINE * 500
    assert all(len(piece) <= PIPE_BUF and piece.endswith(b"\n") for piece in sizes)
    assert len(sizes) == 13  # 40 lines each


async def test_a_line_that_is_longer_than_that_is_written_all_the_same(
    make_file: MakeFile, fifo: tuple[Path, int]
) -> None:
    name, reader = fifo
    file = make_file(name)
    long = LINE + b"y" * 10_000 + b"\n" + LINE
    file.write(long, 3)
    await file.settle()
    assert os.read(reader, 1 << 20) == long


async def test_a_file_gets_it_in_one_piece(make_file: MakeFile, sizes: list[bytes]) -> None:
    file = make_file()
    file.write(LINE * 500, 500)
    await file.settle()
    assert sizes == [LINE * 500]


async def test_what_a_write_has_left_is_written_next(
    make_file: MakeFile, monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:7]))
    file = make_file()
    file.write(numbered(0, 20), 20)
    await file.close()
    assert content(path) == numbered(0, 20)
    assert file.counts.lines_written == 20


async def test_a_pipe_that_another_has_filled_first_is_waited_for(
    make_file: MakeFile, monkeypatch: pytest.MonkeyPatch, fifo: tuple[Path, int]
) -> None:
    name, reader = fifo
    real = os.write
    busy = [True]

    def write(descriptor: int, data: bytes) -> int:
        if threading.current_thread().name == "access log" and busy and busy.pop():
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    file = make_file(name)
    file.write(LINE, 1)
    await file.settle()
    assert os.read(reader, 1000) == LINE
    assert (file.counts.lines_written, file.counts.log_errors) == (1, 1)


# Rotation


async def test_no_line_is_lost_or_doubled_while_files_are_renamed(make_file: MakeFile, path: Path) -> None:
    file = make_file(buffer=1 << 20)
    renamed: list[Path] = []
    for first in range(0, 20_000, 100):
        file.write(numbered(first, 100), 100)
        if first % 2000 == 1000:
            await asyncio.sleep(0)
            await until(path.exists)  # the one before has been opened
            renamed.append(move(path, f".{first:05d}"))
            file.reopen()
    await file.close()
    pieces = [content(name) for name in [*renamed, path]]
    assert len(pieces) == 11
    assert all(pieces)
    assert b"".join(pieces) == numbered(0, 20_000)


async def test_signals_that_come_together_are_one(
    make_file: MakeFile, monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    opened: list[str] = []
    goes_on = threading.Event()
    real_open, real_write = os.open, os.write

    def open_(name: str, *arguments: Any) -> int:
        opened.append(str(name))
        return real_open(name, *arguments)

    def write(descriptor: int, data: bytes) -> int:
        if threading.current_thread().name == "access log":
            goes_on.wait(10.0)
        return real_write(descriptor, data)

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "write", write)
    file = make_file()
    file.write(LINE, 1)
    for _ in range(100):
        file.reopen()
    goes_on.set()
    await file.settle()
    file.reopen()
    await file.close()
    assert opened == [str(path)] * 3


async def test_a_file_that_cannot_be_opened_anew_is_said_and_the_old_one_goes_on(
    make_file: MakeFile, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = make_file()
    old = move(path, ".1")
    os.mkdir(path)  # noqa: PTH102
    file.reopen()
    file.write(LINE, 1)
    await file.settle()
    os.rmdir(path)  # noqa: PTH106
    file.reopen()
    file.write(LINE * 2, 2)
    await file.close()
    assert (content(old), content(path)) == (LINE, LINE * 2)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message.endswith("lines go on to the file that was open")
    assert "Is a directory" in record.message
