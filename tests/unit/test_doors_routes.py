"""Routers and mirrors as the configuration has them: made at the start, kept at a reload that does not touch them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.clock import FakeClock
from unit.proxy.manual_loop import ManualLoop

from sidecar.cluster import Cluster
from sidecar.config.load import load_settings
from sidecar.config.resolved import upstream_policy
from sidecar.config.settings import Settings
from sidecar.doors import Doors
from sidecar.proxy import ProxyContext
from sidecar.proxy.mirror import Copies
from sidecar.proxy.router import Routes

FILE = """
services:
  api: {host: 10.0.0.1, port: 8001, mirror: {to: web, share: 50%, max_in_flight: 3}}
  web: {host: 10.0.0.1, port: 8002}
  other: {host: 10.0.0.1, port: 8003}
routers:
  front:
    port: 8000
    routes:
      - {host: "*.Example", path: /v1/, methods: [GET], headers: {X-A: b}, to: {api: 3, web: 1}}
      - {to: web}
"""


class Process:
    """Clusters and doors of one."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock: Any = FakeClock()
        loop: Any = ManualLoop()
        self.doors = Doors(ProxyContext(loop, self.clock), self.clock)
        self.clusters: dict[str, Cluster] = {}

    def settings(self, text: str) -> Settings:
        path = self.directory / "sidecar.yml"
        path.write_text(text)
        return load_settings(path, environ={}, container=False)

    def follow(self, text: str = FILE) -> None:
        settings = self.settings(text)
        for upstream in settings.upstreams:
            if upstream.name not in self.clusters:
                made = Cluster(upstream.name, upstream.scheme, upstream_policy(upstream, ""), self.clock)
                self.clusters[upstream.name] = made
        self.doors.follow(settings, self.clusters)

    def mirror(self, name: str) -> Any:
        front = self.clusters[name].front
        return None if front is None else front.mirror


@pytest.fixture
def process(tmp_path: Path) -> Process:
    made = Process(tmp_path)
    made.follow()
    return made


def test_routes_are_those_of_the_file(process: Process) -> None:
    front = process.clusters["front"].router
    assert isinstance(front, Routes)
    first, second = front.routes
    assert (first.host, first.path, first.methods) == (b"*.example", b"/v1/", frozenset([0]))
    assert first.fields == ((b"x-a", b"b"),)
    assert first.targets == ((process.clusters["api"], 3), (process.clusters["web"], 1))
    assert (second.position, second.host, second.path, second.methods) == (1, b"", b"/", frozenset())
    assert process.clusters["api"].router is None


def test_a_mirror_is_that_of_the_file(process: Process) -> None:
    copies = process.mirror("api")
    assert isinstance(copies, Copies)
    assert (copies.cluster, copies.share, copies.max_in_flight) == (process.clusters["web"], 0.5, 3)
    assert process.clusters["web"].front is None


def test_what_has_not_changed_is_the_same_object(process: Process) -> None:
    router, mirror, front = (
        process.clusters["front"].router,
        process.mirror("api"),
        process.clusters["api"].front,
    )
    process.follow(FILE.replace("8003", "8004"))
    assert process.clusters["front"].router is router
    assert process.mirror("api") is mirror
    assert process.clusters["api"].front is front


def test_other_routes_go_on_counting(process: Process) -> None:
    router = process.clusters["front"].router
    process.clusters["front"].stats.routed[0, "api"] = 5
    process.follow(FILE.replace("api: 3", "api: 9"))
    assert process.clusters["front"].router is not router
    assert process.clusters["front"].stats.routed == {(0, "api"): 5, (0, "web"): 0, (1, "web"): 0}


def test_an_upstream_whose_cluster_is_another_one_is_routed_to_anew(process: Process) -> None:
    del process.clusters["web"]
    process.follow()
    front = process.clusters["front"].router
    assert front is not None
    assert front.routes[1].targets == ((process.clusters["web"], 1),)
    assert process.mirror("api").cluster is process.clusters["web"]


def test_a_mirror_comes_changes_and_goes(process: Process) -> None:
    before = process.mirror("api")
    process.follow(FILE.replace("share: 50%, max_in_flight: 3", "share: 60%, max_in_flight: 4"))
    assert process.mirror("api") is before, "it knows how many are under way"
    assert (before.share, before.max_in_flight) == (0.6, 4)
    process.follow(FILE.replace(", mirror: {to: web, share: 50%, max_in_flight: 3}", ""))
    assert process.clusters["api"].front is None


def test_a_mirror_for_all_leaves_itself_out(process: Process) -> None:
    process.follow(FILE + "defaults: {mirror: {to: other}}\n")
    assert process.mirror("web").cluster is process.clusters["other"]
    assert process.mirror("other") is None
    assert process.mirror("front") is None


def test_a_router_that_becomes_an_upstream_routes_no_more(process: Process) -> None:
    settings = process.settings(FILE)
    *others, front = settings.upstreams
    process.doors.follow(replace(settings, upstreams=(*others, replace(front, routes=()))), process.clusters)
    assert process.clusters["front"].router is None
