"""`sidecar run --register`: a local service is in a real etcd while it is well, and gone before the sidecar is."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.etcd import Etcd, cluster
from support.http import get
from support.ports import free_port
from support.proxy import Sidecar
from support.registrations import announcing, registrations, shown
from support.servers import Nginx, answers
from support.waiting import wait_until

pytestmark = pytest.mark.server("etcd", "nginx")


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    with Etcd(tmp_path / "etcd") as server:
        yield server


def configured(*members: Etcd, listen: int = 0, register: str = "", workers: int = 1) -> str:
    hosts = ", ".join(f'"{member.address}"' for member in members)
    return announcing(f"host: [{hosts}]", "etcd", listen, register=register, workers=workers)


def checked(port: int, ttl: float = 15) -> str:
    """A registration that follows its service at once."""
    check = "{type: tcp, interval: 0.1, rise: 1, fall: 2}"
    return f"{{name: web, port: {port}, ttl: {ttl:g}, weight: 7, health_check: {check}}}"


def key(port: int) -> str:
    return f"/services/web/web-127.0.0.1-{port}"


def count(running: Sidecar, result: str) -> float:
    return registrations(running, "etcd", result)


@pytest.mark.parametrize("workers", [1, 2])
def test_who_announces_is_found_by_others_until_it_drains(
    etcd: Etcd, web: Nginx, tmp_path: Path, workers: int
) -> None:
    own, others = free_port(), free_port()
    (tmp_path / "own").mkdir()
    (tmp_path / "others").mkdir()
    flag = ("--register", f"web={web.port}")
    with (
        Sidecar(tmp_path / "others", configured(etcd, listen=others)) as other,
        Sidecar(tmp_path / "own", configured(etcd, listen=own, workers=workers), arguments=flag) as one,
    ):
        wait_until(lambda: etcd.get(key(web.port)), "the service is announced")
        value = json.loads(etcd.get(key(web.port)) or "")
        assert (value["host"], value["port"]) == ("127.0.0.1", web.port)
        wait_until(lambda: other.upstream("web")["endpoints"], "the other sidecar has heard of it")
        assert get(others, "/").text == "a\n"
        assert shown(one)["state"] == "announced"
        assert len(etcd.leases()) == 1, "workers announce nothing"

        one.send(signal.SIGTERM)
        wait_until(lambda: etcd.get(key(web.port)) is None, "the service is withdrawn")
        assert answers(own), "the listener is there yet"
        wait_until(lambda: not other.upstream("web")["endpoints"], "the other sidecar has heard of that")
        assert one.process.wait() == 0
        assert etcd.leases() == []


def test_it_follows_its_service(etcd: Etcd, web: Nginx, tmp_path: Path) -> None:
    with Sidecar(tmp_path, configured(etcd, register=checked(web.port))) as one:
        wait_until(lambda: etcd.get(key(web.port)), "the service is announced")
        web.stop()
        wait_until(lambda: etcd.get(key(web.port)) is None, "the service is withdrawn")
        found = wait_until(lambda: shown(one) if not shown(one)["registered"] else None, "it is shown")
        assert (found["state"], found["error"]) == ("unwell", "connection refused")
        web.start()
        wait_until(lambda: etcd.get(key(web.port)), "the service is announced again")
        assert json.loads(etcd.get(key(web.port)) or "")["weight"] == 7


def test_it_is_renewed_and_forgotten_when_nobody_does(etcd: Etcd, web: Nginx, tmp_path: Path) -> None:
    with Sidecar(tmp_path, configured(etcd, register=checked(web.port, ttl=3))) as one:
        wait_until(lambda: etcd.get(key(web.port)), "the service is announced")
        before = etcd.leases()
        wait_until(lambda: count(one, "renewed") >= 5, "longer than its ttl has passed")
        assert etcd.leases() == before
        assert (count(one, "announced"), count(one, "error")) == (1, 0)
        one.process.kill()
        wait_until(lambda: etcd.get(key(web.port)) is None, "its lease has ended")
        one.start()
        wait_until(lambda: etcd.get(key(web.port)), "another announces it again")


def test_what_etcd_has_forgotten_is_announced_again(etcd: Etcd, web: Nginx, tmp_path: Path) -> None:
    with Sidecar(tmp_path, configured(etcd, register=checked(web.port, ttl=3))):
        wait_until(lambda: etcd.get(key(web.port)), "the service is announced")
        (lease,) = etcd.leases()
        etcd.revoke(lease)
        assert etcd.get(key(web.port)) is None
        wait_until(lambda: etcd.get(key(web.port)), "it is announced again")


def test_an_etcd_that_is_down_holds_up_neither_start_nor_end(etcd: Etcd, web: Nginx, tmp_path: Path) -> None:
    etcd.stop()
    (tmp_path / "own").mkdir()
    with Sidecar(tmp_path / "own", configured(etcd, register=checked(web.port, ttl=3))) as one:
        found = wait_until(lambda: shown(one) if shown(one)["state"] == "failing" else None, "it is told")
        assert not found["registered"]
        assert str(etcd.address) in found["error"]
        etcd.start()
        wait_until(lambda: etcd.get(key(web.port)), "it is announced once etcd is there")
        wait_until(lambda: shown(one)["state"] == "announced", "that is shown")
        assert one.process.stderr.count("cannot be announced") == 1
        etcd.stop()
        one.send(signal.SIGTERM)
        assert one.process.wait(8.0) == 0


def test_an_etcd_that_is_silent_holds_up_the_end_for_two_seconds(
    etcd: Etcd, web: Nginx, tmp_path: Path
) -> None:
    with Sidecar(tmp_path, configured(etcd, register=checked(web.port))) as one:
        wait_until(lambda: etcd.get(key(web.port)), "the service is announced")
        etcd.signal(signal.SIGSTOP)
        try:
            one.send(signal.SIGTERM)
            assert one.process.wait(4.0) == 0
        finally:
            etcd.signal(signal.SIGCONT)
        said = "web: etcd has not answered its withdrawal within 2 s; it is forgotten when its ttl of 15 s is over"
        assert said in one.process.stderr


def test_a_member_that_is_frozen_neither_lets_it_be_forgotten_nor_keeps_it(
    web: Nginx, tmp_path: Path
) -> None:
    with cluster(tmp_path / "etcd", 3) as members:
        members.sort(key=Etcd.leads)  # a follower comes first: there is no election to wait for
        first, other, _ = members
        (tmp_path / "own").mkdir()
        text = configured(*members, register=checked(web.port, ttl=3))
        with Sidecar(tmp_path / "own", text) as one:
            wait_until(lambda: other.get(key(web.port)), "the service is announced")
            leases = other.leases()
            before = count(one, "renewed")
            first.signal(signal.SIGSTOP)
            try:
                wait_until(lambda: count(one, "renewed") >= before + 4, "longer than its ttl has passed")
                assert other.leases() == leases, "the same one, which has not ended meanwhile"
                assert count(one, "error") == 0
            finally:
                first.signal(signal.SIGCONT)
            first.wait_until_well()

        with Sidecar(tmp_path / "own", configured(*members, register=checked(web.port, ttl=60))) as one:
            wait_until(lambda: other.get(key(web.port)), "the service is announced")
            first.signal(signal.SIGSTOP)
            try:
                one.send(signal.SIGTERM)
                assert one.process.wait() == 0
                assert other.get(key(web.port)) is None, "it is withdrawn at another member"
            finally:
                first.signal(signal.SIGCONT)
