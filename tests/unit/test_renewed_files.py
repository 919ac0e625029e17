"""Files that are renewed while it runs: looked at, loaded anew, and kept as they were where that fails."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from support.volumes import ConfigMapVolume

from sidecar.errors import SidecarError
from sidecar.rotation import Rotation


class Words:
    """Made of one file or two, which have to begin alike; a file that says `bad` cannot be used."""

    def __init__(self, *files: Path) -> None:
        self.files = tuple(str(file) for file in files)
        self.name = "words"
        self.loads = self.failures = 0
        self.said = ""
        self.taken = asyncio.Event()

    def load(self) -> str:
        try:
            said = [Path(file).read_text() for file in self.files]
        except OSError:
            raise SidecarError("not there") from None
        if "bad" in said or len({one[:1] for one in said}) > 1:
            raise SidecarError("no good")
        return " ".join(said)

    def take(self, made: Any) -> None:
        self.said = made
        self.taken.set()


def _write(file: Path, text: str) -> None:
    file.write_text(text)


def _remove(file: Path) -> None:
    file.unlink()


@pytest_asyncio.fixture
async def rotation() -> AsyncIterator[Rotation]:
    made = Rotation(interval=0.01)
    yield made
    made.close()
    await asyncio.sleep(0)  # for its task to end


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("a")
    return path


async def test_a_change_is_loaded_by_itself(
    rotation: Rotation, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    words = Words(file)
    rotation.follow([words])
    _write(file, "ab")
    async with asyncio.timeout(10):
        await words.taken.wait()
    assert (words.said, words.loads, words.failures) == ("ab", 1, 0)
    assert caplog.messages == ["words is renewed"]


async def test_what_has_not_changed_is_left_alone(file: Path) -> None:
    rotation, words = Rotation(interval=60.0), Words(file)
    rotation.follow([words])
    await rotation.look()
    assert words.loads == 0
    rotation.close()


async def test_what_changes_between_its_loading_and_the_first_look_is_a_change(file: Path) -> None:
    rotation, words = Rotation(interval=60.0), Words(file)
    rotation.note(words)
    _write(file, "abc")
    rotation.follow([words])
    await rotation.look()
    assert words.said == "abc"
    rotation.close()


async def test_a_bad_file_is_told_and_counted_once_and_tried_again(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rotation, words = Rotation(interval=60.0), Words(file)
    rotation.follow([words])
    _write(file, "bad")
    for _ in range(3):
        await rotation.look()
    assert (words.said, words.loads, words.failures) == ("", 0, 1)
    assert caplog.messages == ["words is not renewed, what was before stays: no good"]
    _remove(file)
    await rotation.look()
    assert (words.failures, caplog.messages[1:]) == (
        2,
        ["words is not renewed, what was before stays: not there"],
    )
    _write(file, "good")
    await rotation.look()
    await rotation.look()
    assert (words.said, words.loads) == ("good", 1)
    rotation.close()


async def test_a_failed_pair_is_taken_as_soon_as_it_fits_though_no_stamp_changes(tmp_path: Path) -> None:
    """What fails may be no fault of the files: the same ones are tried again."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("a1")
    other.write_text("a2")
    rotation, words = Rotation(interval=60.0), Words(one, other)
    rotation.follow([words])
    one.write_text("b10")
    await rotation.look()
    assert (words.loads, words.failures) == (0, 1)
    other.write_text("b20")
    await rotation.look()
    assert (words.said, words.loads, words.failures) == ("b10 b20", 1, 1)
    rotation.close()


async def test_a_volume_of_kubernetes_is_followed(tmp_path: Path) -> None:
    """Links stay as they are: what is behind them is another file."""
    volume = ConfigMapVolume(tmp_path / "mounted")
    volume.update(tls_crt="a1", tls_key="a2")
    words = Words(volume.directory / "tls.crt", volume.directory / "tls.key")
    rotation = Rotation(interval=60.0)
    rotation.follow([words])
    volume.update(tls_crt="b1", tls_key="b2")
    await rotation.look()
    assert (words.said, words.failures) == ("b1 b2", 0)
    rotation.close()


async def test_what_is_followed_no_more_is_loaded_no_more(file: Path) -> None:
    rotation, words, other = Rotation(interval=60.0), Words(file), Words(file)
    rotation.follow([words, other])
    rotation.follow([other])
    _write(file, "abc")
    await rotation.look()
    assert (words.loads, other.loads) == (0, 1)
    rotation.follow([])
    _write(file, "abcd")
    await rotation.look()
    assert other.loads == 1


async def test_a_reload_while_it_is_loaded_leaves_it_to_whoever_came(file: Path) -> None:
    rotation = Rotation(interval=60.0)

    class Slow(Words):
        def load(self) -> str:
            loop.call_soon_threadsafe(rotation.follow, [])
            return super().load()

    loop = asyncio.get_running_loop()
    words = Slow(file)
    rotation.follow([words])
    _write(file, "abc")
    await rotation.look()
    assert words.loads == 0
