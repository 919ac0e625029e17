"""What the proxies are told to do, and which sidecar is measured."""

import json
import os
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
from origins import Front, Origins
from peer_envoy import settings
from peer_relay import Relay
from peer_sidecar import EVERY_POLICY, HEDGED, ROOT, differs, pure_copy
from programs import Programs
from scenarios import SCENARIOS

from sidecar.config.load import load_settings

ORIGINS = Origins(("127.0.0.1:1", "127.0.0.1:2"), ("127.0.0.1:3",), ("127.0.0.1:4", "127.0.0.1:5"), None)


def test_a_front_is_one_port_over_all_or_a_port_for_each() -> None:
    assert ORIGINS.front("balanced") == Front("http", (ORIGINS.balanced,))
    assert ORIGINS.front("endpoints") == Front("http", (ORIGINS.endpoints,))
    assert ORIGINS.front("upstreams") == Front("http", (("127.0.0.1:4",), ("127.0.0.1:5",)))
    assert ORIGINS.front("redis") is None


def test_envoy_has_a_listener_and_a_cluster_for_each_port() -> None:
    front = ORIGINS.front("upstreams")
    assert front is not None
    resources = json.loads(json.dumps(settings(front, [8001, 8002])))["static_resources"]
    ports = [listener["address"]["socket_address"]["port_value"] for listener in resources["listeners"]]
    assert ports == [8001, 8002]
    assert [cluster["name"] for cluster in resources["clusters"]] == ["u0", "u1"]
    assert all("outlier_detection" in cluster for cluster in resources["clusters"])


def test_the_floor_takes_what_comes_in_one_read() -> None:
    taken = {scenario.name for scenario in SCENARIOS if Relay().takes(scenario)}
    assert taken == {"single", "small", "many", "endpoints"}


@pytest.mark.server("gcc")
def test_the_floor_passes_requests_to_its_backends_in_turn(tmp_path: Path) -> None:
    with ExitStack() as opened, Programs(tmp_path) as programs:
        backends = [opened.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        front = Front("http", (tuple(f"127.0.0.1:{one.getsockname()[1]}" for one in backends),))
        proxy = Relay().start(programs, front, os.sched_getaffinity(0))
        client = opened.enter_context(socket.create_connection(("127.0.0.1", proxy.ports[0])))
        reached: list[socket.socket] = []
        for number, request in enumerate((b"one", b"two", b"three", b"four")):
            client.send(request)
            if len(reached) < len(backends):
                reached.append(opened.enter_context(backends[len(reached)].accept()[0]))
            turn = reached[number % 2]
            assert turn.recv(100) == request
            turn.send(b"answer to " + request)
            assert client.recv(100) == b"answer to " + request


def test_the_pure_copy_is_the_package_without_what_is_compiled(tmp_path: Path) -> None:
    package = tmp_path / "built" / "sidecar"
    package.mkdir(parents=True)
    for name in ("pool.py", "pool.cpython-312-x86_64-linux-gnu.so", "pool.pxd"):
        (package / name).touch()
    copy = pure_copy(package.parent, tmp_path)
    assert sorted(path.name for path in (copy / "sidecar").iterdir()) == ["pool.pxd", "pool.py"]
    assert differs(copy)


def test_this_checkout_is_of_its_own_sources() -> None:
    assert not differs(ROOT)


@pytest.mark.parametrize("policy", [EVERY_POLICY, HEDGED])
def test_the_policies_are_ones_that_there_are(policy: str, tmp_path: Path) -> None:
    config = tmp_path / "sidecar.yml"
    config.write_text(f'load_balancers:\n  u0: {{hosts: ["127.0.0.1:80"], {policy}}}\n')
    upstream = load_settings(str(config), environ={}).upstream("u0")
    assert upstream.health.active
    assert (upstream.policy.hedge_after > 0) is (policy == HEDGED)
