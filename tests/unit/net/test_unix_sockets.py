"""Unix sockets: bound without harm to others, open to nobody before their mode is set, removed while they are ours."""

import errno
import fcntl
import os
import socket
import stat
from pathlib import Path

import pytest

from sidecar.net import unix_sockets
from sidecar.net.unix import address_of, is_unix, spelt
from sidecar.net.unix_sockets import bind, connect, remove


def test_names_and_the_way_back() -> None:
    assert is_unix("unix:/run/a.sock")
    assert not is_unix("a.example")
    for text, address in [("unix:/run/a.sock", "/run/a.sock"), ("unix:@a", b"\0a")]:
        assert address_of(text) == address
        assert spelt(address) == text
    assert spelt("") == spelt(None) == spelt(b"") == ""


def test_a_socket_that_is_bound_is_connected_to_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    sock, file = bind(str(path), 0o640, 8)
    with sock, connect(f"unix:{path}"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert not sock.getblocking()
    remove(str(path), file)
    assert not path.exists()
    remove(str(path), file)


def test_nobody_connects_before_the_mode_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "a.sock")
    refused = []
    chmod = os.chmod

    def look(where: str, mode: int) -> None:
        with pytest.raises(ConnectionRefusedError):
            connect(path)
        refused.append(mode)
        chmod(where, mode)

    monkeypatch.setattr(unix_sockets.os, "chmod", look)
    bind(path, 0o600, 8)[0].close()
    assert refused == [0o600]


def test_what_a_dead_process_has_left_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "a.sock")
    bind(path, 0o600, 8)[0].close()
    sock, file = bind(path, 0o600, 8)
    with sock, connect(path):
        pass
    remove(path, file)
    assert list(tmp_path.iterdir()) == []


def test_what_somebody_listens_at_stays(tmp_path: Path) -> None:
    path = str(tmp_path / "a.sock")
    sock, _ = bind(path, 0o600, 0)
    with sock:
        waiting = []
        for _ in range(3):
            with pytest.raises(OSError, match="in use") as caught:
                bind(path, 0o600, 8)
            assert caught.value.errno == errno.EADDRINUSE
            waiting.append(socket.socket(socket.AF_UNIX))
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(path)  # so that its queue fills up
        with pytest.raises(ConnectionRefusedError):
            connect(path)  # a full queue is as good as nobody
        for one in waiting:
            one.close()
    assert Path(path).is_socket()


@pytest.mark.parametrize("made", [Path.touch, Path.mkdir])
def test_what_is_no_socket_stays(tmp_path: Path, made: object) -> None:
    path = tmp_path / "a.sock"
    made(path)  # type: ignore[operator] # either of the two
    with pytest.raises(FileExistsError, match="no socket"):
        bind(str(path), 0o600, 8)
    assert path.exists()
    assert not path.is_socket()


def test_one_that_comes_to_life_while_it_is_replaced_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bound and not listening yet, another sidecar's looks like a dead one's."""
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        before = path.stat().st_ino
        rename = os.rename

        def begin(old: str, new: str) -> None:
            other.listen(8)
            rename(old, new)

        monkeypatch.setattr(unix_sockets.os, "rename", begin)
        with pytest.raises(OSError, match="in use"):
            bind(str(path), 0o600, 8)
        assert [found.stat().st_ino for found in tmp_path.iterdir()] == [before]
        connect(str(path)).close()


def test_who_binds_is_alone_until_it_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else another could replace what is bound before it is known which file that is: both would think it theirs."""
    chmod = os.chmod
    directory = os.open(tmp_path, os.O_RDONLY)

    def look(where: str, mode: int) -> None:
        with pytest.raises(BlockingIOError):
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        chmod(where, mode)

    monkeypatch.setattr("sidecar.net.unix_sockets.os.chmod", look)
    sock, _ = bind(f"{tmp_path}/a.sock", 0o600, 8)
    sock.close()
    fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(directory)


def test_a_directory_that_somebody_keeps_locked_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.net.unix_sockets.LOCK_WAITS", (0.0, 0.0))
    directory = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    sock, _ = bind(f"{tmp_path}/a.sock", 0o600, 8)
    connect(f"{tmp_path}/a.sock").close()
    sock.close()
    os.close(directory)


def test_one_that_another_replaces_at_the_same_moment_is_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    rename = os.rename

    def come_late(old: str, new: str) -> None:
        path.unlink()
        rename(old, new)

    monkeypatch.setattr("sidecar.net.unix_sockets.os.rename", come_late)
    with pytest.raises(OSError, match="Address already in use"):
        bind(str(path), 0o600, 10)
    assert list(tmp_path.iterdir()) == []


def test_one_whose_file_is_taken_before_it_listens_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.sock"
    chmod = os.chmod

    def take(where: str, mode: int) -> None:
        chmod(where, mode)
        path.rename(tmp_path / "kept")  # so that the number is not used again
        path.touch()

    monkeypatch.setattr(unix_sockets.os, "chmod", take)
    with pytest.raises(OSError, match="in use"):
        bind(str(path), 0o600, 8)
    assert path.is_file(), "it is another's"


def test_a_file_that_another_has_put_there_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    sock, file = bind(str(path), 0o600, 8)
    sock.close()
    path.rename(tmp_path / "kept")
    path.touch()
    remove(str(path), file)
    assert path.exists()


def test_an_abstract_name_has_no_file() -> None:
    name = f"@sidecar-test-{os.getpid()}"
    sock, file = bind(name, 0o600, 8)
    assert file is None
    with sock:
        connect(f"unix:{name}").close()
        with pytest.raises(OSError, match="in use"):
            bind(name, 0o600, 8)
    remove(name, file)
    with pytest.raises(ConnectionRefusedError):
        connect(f"unix:{name}")


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        bind(str(tmp_path / "none" / "a.sock"), 0o600, 8)
    with pytest.raises(FileNotFoundError):
        connect(str(tmp_path / "a.sock"))
