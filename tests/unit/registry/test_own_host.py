"""Which address of this machine is announced when none is configured."""

import socket
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from support.clock import FakeClock
from support.ports import has_ipv6
from support.sources import registry

from sidecar.config.settings import Address
from sidecar.errors import SourceError
from sidecar.registry.own_host import own_host, source_address
from sidecar.registry.sources.source import Surroundings

# The local address of the route to each.
ROUTES = {
    "127.0.0.1": "127.0.0.1",
    "::1": "::1",
    "10.0.0.1": "10.0.0.7",
    "fd00::1": "fd00::7",
    "fe80::1": "fe80::7%eth0",
    "0.0.0.0": "0.0.0.0",
}
NAMES = {"near": ["127.0.0.1"], "both": ["fe80::1", "fd00::1", "10.0.0.1"], "cut": ["10.9.9.9"]}


async def _resolve(host: str, port: int) -> list[Any]:
    addresses = [host] if host in ROUTES else NAMES.get(host)
    if addresses is None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return [
        (socket.AF_INET6 if ":" in one else socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port))
        for one in addresses
    ]


def _route(_family: int, address: Any) -> str:
    if address[0] not in ROUTES:
        raise OSError(101, "Network is unreachable")
    return ROUTES[address[0]]


async def _own(hosts: Sequence[str], kind: str = "etcd", environ: Mapping[str, str] | None = None) -> str:
    settings = registry("places", kind, hosts=tuple(Address(host, 0) for host in hosts))
    return await own_host(settings, Surroundings(FakeClock(), environ or {}, _resolve), _route)


@pytest.mark.parametrize(
    ("hosts", "found"),
    [
        (["10.0.0.1"], "10.0.0.7"),
        (["both"], "fd00::7"),
        (["absent", "10.0.0.1"], "10.0.0.7"),
        (["cut", "10.0.0.1"], "10.0.0.7"),
        (["near"], "127.0.0.1"),
        (["::1"], "::1"),
        (["near", "10.0.0.1"], "10.0.0.7"),
    ],
)
async def test_it_is_the_address_that_leads_to_the_registry(hosts: list[str], found: str) -> None:
    assert await _own(hosts) == found


async def test_a_consul_agent_of_this_machine_knows_its_address_itself() -> None:
    assert await _own(["127.0.0.1"], "consul") == ""
    assert await _own(["127.0.0.1", "10.0.0.1"], "consul") == "10.0.0.7"


async def test_a_pod_is_told() -> None:
    assert await _own(["10.0.0.1"], environ={"POD_IP": "10.1.2.3"}) == "10.1.2.3"
    assert await _own(["near"], "consul", environ={"POD_IP": "fd00::3"}) == "fd00::3"


@pytest.mark.parametrize("told", ["127.0.0.1", "0.0.0.0", "::", "fe80::1", "pod.example", "224.0.0.1"])
async def test_a_pod_that_is_told_wrong(told: str) -> None:
    with pytest.raises(SourceError, match="POD_IP is no address that others reach; correct it, or say host"):
        await _own(["10.0.0.1"], environ={"POD_IP": told})


@pytest.mark.parametrize("hosts", [["cut"], ["0.0.0.0"], ["fe80::1"], []])
async def test_no_address_that_others_reach(hosts: list[str]) -> None:
    with pytest.raises(
        SourceError, match="no address of this machine leads to places; say host under register"
    ):
        await _own(hosts)


async def test_a_registry_that_is_not_found() -> None:
    with pytest.raises(OSError, match="Name or service not known"):
        await _own(["absent"])


def test_the_kernel_is_asked() -> None:
    assert source_address(socket.AF_INET, ("127.0.0.1", 9)) == "127.0.0.1"
    if has_ipv6():
        assert source_address(socket.AF_INET6, ("::1", 9, 0, 0)) == "::1"
