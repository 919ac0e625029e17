"""Who is asked for names: what resolv.conf says, what the configuration says, and what has changed since."""

import asyncio
import errno
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from support.clock import FakeClock

from sidecar.config.settings import Address
from sidecar.errors import SourceError
from sidecar.registry.dns import directions
from sidecar.registry.dns.directions import NameServers, read_resolv_conf
from sidecar.registry.sources.source import Surroundings


def read(text: str) -> directions.Directions:
    return read_resolv_conf(text)


def test_what_a_pod_has() -> None:
    found = read(
        "search default.svc.cluster.local svc.cluster.local cluster.local\n"
        "nameserver 10.96.0.10\noptions ndots:5\n"
    )
    assert [str(server) for server in found.servers] == ["10.96.0.10:53"]
    assert found.search == ("default.svc.cluster.local", "svc.cluster.local", "cluster.local")
    assert (found.ndots, found.timeout, found.tries) == (5, 2.0, 2)


def test_nothing_is_this_machine() -> None:
    found = read("")
    assert [str(server) for server in found.servers] == ["127.0.0.1:53"]
    assert (found.search, found.ndots) == ((), 1)


def test_what_cannot_be_read_says_nothing() -> None:
    found = read(
        "# nameserver 10.0.0.1\n; nameserver 10.0.0.2\nnameserver\nnameserver resolver.example\n"
        " nameserver ::1 # the trailing words\nnameserver fe80::1%nowhere0\nnameserver 10.0.0.4\nnameserver 10.0.0.5\n"
        "nameserver 10.0.0.6\noptions ndots:x timeout: attempts:-1 ndots:99999999999 rotate\n"
        "search a_b!.example ok.example.\n"
    )
    assert [str(server) for server in found.servers] == ["[::1]:53", "10.0.0.4:53", "10.0.0.5:53"]
    assert found.search == ("ok.example",)
    assert (found.ndots, found.timeout, found.tries) == (1, 2.0, 2)


def test_the_last_line_holds_and_numbers_are_bounded() -> None:
    found = read("search a.example\ndomain b.example\noptions ndots:99 timeout:99 attempts:99\n")
    assert found.search == ("b.example",)
    assert (found.ndots, found.timeout, found.tries) == (15, 10.0, 5)
    found = read("domain b.example\nsearch a.example\noptions ndots:0 timeout:0\noptions attempts:0\n")
    assert found.search == ("a.example",)
    assert (found.ndots, found.timeout, found.tries) == (0, 1.0, 1)


class Names:
    """In the place of the system's resolver. asked: hosts, in order."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.says: Any = "10.0.0.7"
        self.waits = False

    async def resolve(self, host: str, port: int) -> list[Any]:
        self.asked.append(host)
        await (asyncio.Event().wait() if self.waits else asyncio.sleep(0))
        if isinstance(self.says, Exception):
            raise self.says
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (self.says, port))]


def name_servers(
    names: Names, *hosts: Address, clock: FakeClock | None = None, file: Path = Path("/nowhere")
) -> NameServers:
    surroundings = Surroundings(clock or FakeClock(), {}, names.resolve)  # type: ignore[arg-type]
    return NameServers(hosts, 2.0, surroundings, file)


async def servers(of: NameServers) -> list[str]:
    return [str(server) for server in (await of.now()).servers]


async def test_port_0_is_53_and_the_order_stays() -> None:
    of = name_servers(Names(), Address("10.0.0.2", 8600), Address("::1", 0), Address("10.0.0.1", 0))
    assert await servers(of) == ["10.0.0.2:8600", "[::1]:53", "10.0.0.1:53"]


async def test_a_name_servers_own_name_is_resolved_once_in_a_while() -> None:
    names, clock = Names(), FakeClock()
    of = name_servers(names, Address("consul.example", 8600), clock=clock)
    assert await asyncio.gather(servers(of), servers(of)) == [["10.0.0.7:8600"]] * 2
    names.says = "10.0.0.8"
    assert await servers(of) == ["10.0.0.7:8600"]
    clock.advance(31)
    assert await servers(of) == ["10.0.0.8:8600"]
    assert names.asked == ["consul.example"] * 2
    names.says = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    clock.advance(31)
    assert await servers(of) == ["10.0.0.8:8600"]


async def test_no_name_server_at_all_says_which_and_why() -> None:
    names = Names()
    names.says = OSError(errno.ECONNREFUSED, "Connection refused")
    of = name_servers(names, Address("consul.example", 8600))
    with pytest.raises(
        SourceError, match=r"^no name server can be asked: consul\.example: connection refused$"
    ):
        await of.now()


async def test_a_name_servers_own_name_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directions, "LONGEST_TIMEOUT", 0.05)
    names = Names()
    of = name_servers(names, Address("slow.example", 0), Address("10.0.0.1", 0))
    names.waits = True
    assert await servers(of) == ["10.0.0.1:53"]


async def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text("nameserver 10.0.0.1\n")
    of = name_servers(Names(), file=file)
    assert await servers(of) == ["10.0.0.1:53"]
    assert await of.now() is await of.now()  # and no other is read again
    new = tmp_path / "new"
    new.write_text("nameserver 10.0.0.2\n")
    os.replace(new, file)  # noqa: PTH105 - as resolvconf does
    assert await servers(of) == ["10.0.0.2:53"]
    file.unlink()
    assert await servers(of) == ["10.0.0.2:53"]  # somebody is just writing it
    file.write_text("nameserver 10.0.0.3\n")
    assert await servers(of) == ["10.0.0.3:53"]
