"""A real etcd that is killed under load, and a sidecar that starts while nobody can be asked."""

import json
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.endpoints import ScriptedEndpoint
from support.etcd import Etcd, cluster
from support.http import get
from support.paced import PacedLoad, failures, tally
from support.ports import free_port
from support.proxy import Sidecar
from support.waiting import wait_until

pytestmark = pytest.mark.server("etcd")


def text(port: int, etcd: str, *, sidecar: str = "", upstream: str = "source: etcd") -> str:
    return f"""
external_registry: {{type: etcd, host: [{etcd}]}}
load_balancers:
  api: {{{upstream}}}
sidecar: {{bind: [127.0.0.1], ports: {{{port}: api}}, admin: "127.0.0.1:ADMIN", metrics: "127.0.0.1:METRICS",
  registry_wait: 1, {sidecar}}}
"""


def known(sidecar: Sidecar) -> set[int]:
    return {one["port"] for one in sidecar.upstream("api")["endpoints"]}


def put(member: Etcd, *ports: int) -> None:
    for port in ports:
        member.put(f"/services/api/{port}", {"host": "127.0.0.1", "port": port})


def is_stale(sidecar: Sidecar) -> bool:
    return sidecar.metrics()['sidecar_registry_stale{source="etcd"}'] == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_etcd_is_killed_and_comes_back_under_load(tmp_path: Path, workers: int) -> None:
    listen = free_port()
    with ExitStack() as stack:
        ports = [stack.enter_context(ScriptedEndpoint()).port for _ in range(3)]
        etcd = stack.enter_context(Etcd(tmp_path / "etcd"))
        put(etcd, *ports[:2])
        sidecar = stack.enter_context(
            Sidecar(tmp_path, text(listen, f'"{etcd.address}"', sidecar=f"workers: {workers}"))
        )
        wait_until(lambda: known(sidecar) == set(ports[:2]), "the first snapshot")
        load = stack.enter_context(PacedLoad(listen))
        etcd.kill()
        wait_until(lambda: is_stale(sidecar), "that it is missed")
        etcd.start()
        put(etcd, ports[2])
        etcd.delete(f"/services/api/{ports[0]}")
        wait_until(lambda: known(sidecar) == set(ports[1:]), "what has changed meanwhile", 40.0)
        wait_until(lambda: not is_stale(sidecar), "that it is well")
        lease = etcd.grant(2)
        etcd.put("/services/api/leased", {"host": "127.0.0.1", "port": ports[0]}, lease)
        wait_until(lambda: known(sidecar) == set(ports), "the leased endpoint")
        wait_until(lambda: known(sidecar) == set(ports[1:]), "the end of its lease", 15.0)
        load.end()
        assert not failures(load.results), tally(load.results)


def test_one_of_several_members_is_killed_under_load(tmp_path: Path) -> None:
    listen = free_port()
    with ExitStack() as stack:
        ports = [stack.enter_context(ScriptedEndpoint()).port for _ in range(3)]
        members = stack.enter_context(cluster(tmp_path / "etcd", 3))
        put(members[0], *ports[:2])
        hosts = ", ".join(f'"{member.address}"' for member in members)
        sidecar = stack.enter_context(Sidecar(tmp_path, text(listen, hosts)))
        wait_until(lambda: known(sidecar) == set(ports[:2]), "the first snapshot")
        load = stack.enter_context(PacedLoad(listen))
        members[0].kill()  # the one that is asked first
        members[1].wait_until_well()
        put(members[1], ports[2])
        wait_until(lambda: known(sidecar) == set(ports), "what another member knows", 30.0)
        assert not is_stale(sidecar)
        load.end()
        assert not failures(load.results), tally(load.results)


def test_a_sidecar_that_starts_in_an_outage_serves_what_was_known_last(tmp_path: Path) -> None:
    listen, kept = free_port(), tmp_path / "last-good.json"
    with ExitStack() as stack:
        ports = [stack.enter_context(ScriptedEndpoint()).port for _ in range(2)]
        etcd = stack.enter_context(Etcd(tmp_path / "etcd"))
        put(etcd, *ports)
        configured = text(listen, f'"{etcd.address}"', sidecar=f'last_good: "{kept}"')
        with Sidecar(tmp_path, configured) as sidecar:
            wait_until(lambda: known(sidecar) == set(ports), "the first snapshot")
            wait_until(lambda: kept.exists() and len(ports) == kept.read_text().count("port"), "the file")
        etcd.kill()
        with Sidecar(tmp_path, configured) as sidecar:
            assert known(sidecar) == set(ports)
            (feed,) = sidecar.upstream("api")["registries"]
            assert (feed["saved"], feed["stale"]) == (True, True)
            assert get(listen).status == 200
            sidecar.process.send(signal.SIGKILL)
            sidecar.process.popen.wait()
            sidecar.start()  # a kill loses nothing either
            assert known(sidecar) == set(ports)
            etcd.start()
            etcd.delete(f"/services/api/{ports[0]}")
            wait_until(lambda: known(sidecar) == {ports[1]}, "what is true now", 40.0)
        content = json.loads(kept.read_text())
        content["snapshots"][0]["saved_at"] -= 90_000  # more than a day ago
        kept.write_text(json.dumps(content))
        etcd.kill()
        with Sidecar(tmp_path, configured) as sidecar:
            assert known(sidecar) == set()
            assert "older than 86400 s" in sidecar.process.stderr
            assert get(listen).status == 503


def test_what_the_file_names_serves_until_the_registry_knows_somebody(tmp_path: Path) -> None:
    listen = free_port()
    with ExitStack() as stack:
        ports = [stack.enter_context(ScriptedEndpoint()).port for _ in range(2)]
        etcd = Etcd(tmp_path / "etcd")
        stack.callback(etcd.stop)
        upstream = f'hosts: ["127.0.0.1:{ports[0]}"]'
        sidecar = stack.enter_context(Sidecar(tmp_path, text(listen, f'"{etcd.address}"', upstream=upstream)))
        assert get(listen).status == 200
        assert sidecar.upstream("api")["source"] == "static"
        etcd.start()
        put(etcd, ports[1])
        wait_until(lambda: known(sidecar) == {ports[1]}, "etcd's word", 40.0)
        assert sidecar.upstream("api")["source"] == "etcd"
        etcd.delete(f"/services/api/{ports[1]}")
        wait_until(lambda: known(sidecar) == {ports[0]}, "the fall-back")
        assert get(listen).status == 200
