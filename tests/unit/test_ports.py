"""Listening sockets: one for each slot, alone among sidecars, and the same ones after a reload."""

import errno
import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.ports import free_port, has_ipv6

from sidecar.config.doors import ListenerSettings
from sidecar.config.settings import (
    EndpointSettings,
    PolicySettings,
    UpstreamKind,
    UpstreamSettings,
)
from sidecar.errors import StartError
from sidecar.ports import Ports, cannot_listen


def upstream(name: str, port: int | None, skipped: str | None = None) -> UpstreamSettings:
    kind, endpoints = UpstreamKind.SERVICE, (EndpointSettings("127.0.0.1", 1),)
    return UpstreamSettings(
        name, kind, "http", endpoints, "round_robin", "/", port, skipped, PolicySettings()
    )


@pytest.fixture
def opened() -> Iterator[list[Ports]]:
    """Closed in the end."""
    made: list[Ports] = []
    yield made
    for ports in made:
        ports.close()


HERE = ("127.0.0.1",)


def test_all_slots_share_a_port_and_each_gets_some(opened: list[Ports]) -> None:
    ports = Ports(3).open([upstream("api", 0), upstream("none", None), upstream("loop", 0, "itself")], HERE)
    opened.append(ports)
    (place,) = ports.by_upstream["api"]
    assert list(ports.by_upstream) == ["api"]
    assert {made.getsockname()[1] for made in place.sockets} == {place.port}
    clients = [socket.create_connection(("127.0.0.1", place.port)) for _ in range(60)]
    accepted = []
    for made in place.sockets:
        before = len(accepted)
        try:
            while True:
                accepted.append(made.accept()[0])
        except BlockingIOError:
            assert len(accepted) > before, "a slot without connections"
    for each in (*clients, *accepted):
        each.close()
    assert len(accepted) == 60


def test_nobody_else_shares_it(opened: list[Ports]) -> None:
    port = free_port()
    opened.append(Ports(2).open([upstream("api", port)], HERE))
    for slots in (1, 2):
        with pytest.raises(StartError) as caught:
            Ports(slots).open([upstream("web", port)], HERE)
        assert str(caught.value) == (
            f"cannot listen on 127.0.0.1:{port} for web: address already in use; "
            "stop what listens there, or give the upstream another port under sidecar.ports"
        )


def test_what_is_open_stays_open_for_another_configuration(opened: list[Ports]) -> None:
    kept, dropped, new = free_port(), free_port(), free_port()
    before = Ports(2).open([upstream("api", kept), upstream("old", dropped)], HERE)
    after = before.open([upstream("renamed", kept), upstream("new", new)], HERE)
    opened.append(after)
    assert after.by_upstream["renamed"][0] is before.by_upstream["api"][0]
    before.close(but=after)
    assert all(made.fileno() == -1 for made in before.by_upstream["old"][0].sockets)
    assert all(made.fileno() >= 0 for made in after.by_upstream["renamed"][0].sockets)


def test_one_that_cannot_be_opened_changes_nothing(opened: list[Ports]) -> None:
    kept, new = free_port(), free_port()
    before = Ports(2).open([upstream("api", kept)], HERE)
    opened.append(before)
    with socket.create_server(("127.0.0.1", 0)) as server:
        bad = upstream("bad", server.getsockname()[1])
        with pytest.raises(StartError, match="address already in use"):
            before.open([upstream("api", kept), upstream("new", new), bad], HERE)
    assert all(made.fileno() >= 0 for made in before.by_upstream["api"][0].sockets)
    socket.create_server(("127.0.0.1", new)).close()


def test_a_closed_slot_leaves_its_share_to_the_others(opened: list[Ports]) -> None:
    ports = Ports(2).open([upstream("api", 0)], HERE)
    opened.append(ports)
    (place,) = ports.by_upstream["api"]
    ports.close_slot(0)
    with socket.create_connection(("127.0.0.1", place.port)):
        place.sockets[1].setblocking(True)
        place.sockets[1].settimeout(5)
        place.sockets[1].accept()[0].close()


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_the_same_free_port_on_both_loopbacks(opened: list[Ports]) -> None:
    ports = Ports(2).open([upstream("api", 0)], ("127.0.0.1", "::1"))
    opened.append(ports)
    first, second = ports.by_upstream["api"]
    assert (first.host, second.host) == ("127.0.0.1", "::1")
    assert first.port == second.port


def test_who_is_on_this_host_is_sent_to_without_a_pace(opened: list[Ports]) -> None:
    """What a host has for the network, BBR say, may hold back what never leaves its memory."""
    size = 16  # TCP_CA_NAME_MAX
    usual = socket.socket()
    with usual:
        default = usual.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, size)
    hosts = ["127.0.0.1", *(["::1"] if has_ipv6() else [])]
    opened.append(Ports(1).open([upstream("api", 0)], hosts))
    near, *six = (place.sockets[0] for place in opened[0].by_upstream["api"])
    opened.append(Ports(1).open([upstream("api", 0)], ["0.0.0.0"]))
    (anywhere,) = opened[1].by_upstream["api"][0].sockets
    with socket.create_connection(near.getsockname()):
        accepted, _ = near.accept()
    with accepted:
        for made in (near, accepted, *six):
            assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, size).rstrip(b"\0") == b"reno"
    assert anywhere.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, size) == default


def test_a_host_without_ipv6_does_with_ipv4(opened: list[Ports], monkeypatch: pytest.MonkeyPatch) -> None:
    from sidecar import ports as module

    real = module._bind

    def bind(host: str, port: int, **options: Any) -> socket.socket:
        if ":" in host:
            raise OSError(errno.EADDRNOTAVAIL, "no such address")
        return real(host, port, **options)

    monkeypatch.setattr(module, "_bind", bind)
    ports = Ports(2).open([upstream("api", 0)], ("127.0.0.1", "::1"))
    opened.append(ports)
    assert [place.host for place in ports.by_upstream["api"]] == ["127.0.0.1"]
    with pytest.raises(StartError, match="this host has no such address"):
        Ports(2).open([upstream("api", 0)], ("::1",))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(errno.EADDRINUSE, "in use"),
            "address already in use; stop what listens there, or give the upstream another port",
        ),
        (OSError(errno.EACCES, "denied"), "permission denied; ports below 1024 need a privilege"),
        (OSError(errno.EADDRNOTAVAIL, "Cannot assign"), "cannot assign requested address; this host has no"),
        (OSError(errno.EMFILE, "Too many open files"), "too many open files; see sidecar.bind"),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known; see sidecar.bind"),
    ],
)
def test_errors_say_where_for_whom_why_and_what_to_do(error: OSError, said: str) -> None:
    told = str(cannot_listen("api", "127.0.0.1", 80, error))
    assert told.startswith(f"cannot listen on 127.0.0.1:80 for api: {said}")
    assert "\n" not in told


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_a_port_that_is_taken_on_ipv6_alone_is_an_error(opened: list[Ports]) -> None:
    port = free_port()
    with (
        socket.create_server(("::1", port), family=socket.AF_INET6),
        pytest.raises(StartError, match=rf"cannot listen on \[::1\]:{port} for api: address already in use"),
    ):
        Ports(1).open([upstream("api", port)], ("127.0.0.1", "::1"))
    socket.create_server(("127.0.0.1", port)).close()


def test_one_slot_shares_its_port_with_nobody(opened: list[Ports]) -> None:
    ports = Ports(1).open([upstream("api", 0)], HERE)
    opened.append(ports)
    (place,) = ports.by_upstream["api"]
    assert not place.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
    assert ports.listening == [("api", place.address)] == [("api", f"127.0.0.1:{place.port}")]


# Unix sockets


def at(name: str, path: Path | str, port: int | None = None, mode: int = 0o600) -> UpstreamSettings:
    return replace(upstream(name, port), listener=ListenerSettings(socket=str(path), mode=mode))


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_socket_is_one_queue_for_all_slots(opened: list[Ports], tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    ports = Ports(3).open([at("api", path, 0)], HERE)
    opened.append(ports)
    port, place = ports.by_upstream["api"]
    assert (port.host, place.address, len(place.sockets)) == ("127.0.0.1", f"unix:{path}", 3)
    assert ports.listening[1] == ("api", f"unix:{path}")
    ports.close_slot(0)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        accepted, _ = place.sockets[1].accept()
        accepted.close()
    with pytest.raises(BlockingIOError):
        place.sockets[2].accept()
    ports.close()
    assert not path.exists()


def test_it_stays_for_another_configuration_with_another_mode(opened: list[Ports], tmp_path: Path) -> None:
    kept, gone = tmp_path / "kept.sock", tmp_path / "gone.sock"
    before = Ports(1).open([at("api", kept), at("old", gone)], HERE)
    after = before.open([at("renamed", kept, mode=0o666)], HERE)
    opened.append(after)
    before.close(but=after)
    assert after.by_upstream["renamed"] == before.by_upstream["api"]
    assert mode_of(kept) == 0o600, "the configuration may be given up yet"
    after.set_modes()
    assert mode_of(kept) == 0o666
    assert not gone.exists()


def test_one_whose_file_somebody_has_removed_is_made_again(opened: list[Ports], tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    before = Ports(1).open([at("api", path)], HERE)
    path.unlink()
    after = before.open([at("api", path)], HERE)
    opened.append(after)
    before.close(but=after)
    assert all(made.fileno() == -1 for made in before.by_upstream["api"][0].sockets)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_what_somebody_has_put_in_its_place_is_not_touched(opened: list[Ports], tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    before = Ports(1).open([at("api", path)], HERE)
    opened.append(before)
    path.unlink()
    path.write_text("precious")
    path.chmod(0o640)
    with pytest.raises(StartError, match="a file that is no socket is there; remove it"):
        before.open([at("api", path, mode=0o666)], HERE)
    before.set_modes()
    assert mode_of(path) == 0o640


def test_a_file_whose_mode_cannot_be_set_keeps_it(
    opened: list[Ports], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.sock"
    ports = Ports(1).open([at("api", path)], HERE)
    opened.append(ports)

    def refuse(_path: Path, _mode: int) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "chmod", refuse)
    ports.set_modes()
    assert [record.message for record in caplog.records] == [
        f"unix:{path} keeps its mode: Read-only file system"
    ]


def test_what_cannot_be_opened_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "none" / "b.sock"
    with pytest.raises(StartError) as caught:
        Ports(2).open([at("api", tmp_path / "a.sock"), at("web", path)], HERE)
    assert str(caught.value) == (
        f"cannot listen on unix:{path} for web: no such file or directory; create its directory first"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_shortage_while_a_socket_is_shared_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Short(socket.socket):
        def dup(self) -> socket.socket:
            raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("sidecar.net.unix_sockets.socket.socket", Short)
    with pytest.raises(StartError, match="too many open files; see sidecar"):
        Ports(2).open([at("api", tmp_path / "a.sock")], HERE)
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_is_skipped_has_its_socket_all_the_same(opened: list[Ports]) -> None:
    name = f"@sidecar-ports-{os.getpid()}"
    ports = Ports(1).open([replace(at("api", name, 80), skipped="itself")], HERE)
    opened.append(ports)
    assert ports.listening == [("api", f"unix:{name}")]
    assert ports.open([at("api", name)], HERE).by_upstream == ports.by_upstream, (
        "its mode is nobody's business"
    )


# Handing over


def test_places_go_to_another_process_with_their_sockets() -> None:
    before = Ports(2).open([upstream("api", 0), upstream("other", 0)], HERE)
    copies = [(what, one.dup()) for what, one in before.all_sockets()]
    after = Ports(2)
    after.adopt(reversed(copies))
    places = after.open([upstream("api", 0)], HERE)
    assert places.listening == [("api", before.by_upstream["api"][0].address)]
    (place,) = places.by_upstream["api"]
    assert list(place.sockets) == [one for what, one in copies if what[1] == "api"]
    after.close(but=places)
    assert [one.fileno() >= 0 for what, one in copies] == [what[1] == "api" for what, _ in copies]
    places.close()
    before.close()


def handed_over(before: Ports) -> Ports:
    """Those of a process that is handed the sockets of `before`."""
    after = Ports(before.slots)
    after.adopt((what, one.dup()) for what, one in before.all_sockets())
    return after


def test_a_file_is_the_old_ones_until_it_has_left_it(tmp_path: Path) -> None:
    """Its mode too: the new one may fail yet."""
    path = tmp_path / "a.sock"
    before = Ports(2).open([at("api", path)], HERE)
    for fails in (True, False):
        offered = handed_over(before)
        after = offered.open([at("api", path, mode=0o666)], HERE)
        offered.close(but=after)
        assert mode_of(path) == 0o600
        if fails:
            after.close()
            assert path.is_socket()
    before.leave_files(after.unix)
    after.take_files()
    before.close()
    assert mode_of(path) == 0o666
    after.close()
    assert not path.exists()


def test_a_file_that_is_gone_is_made_again_by_who_takes_over(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    before = Ports(1).open([at("api", path)], HERE)
    path.unlink()
    offered = handed_over(before)
    after = offered.open([at("api", path)], HERE)
    offered.close(but=after)
    before.leave_files(after.unix)
    after.take_files()
    before.close()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    after.close()
    assert not path.exists()
