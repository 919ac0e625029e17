"""Under 200 requests a second a registry is stopped, answers errors, garbage and that there is nobody, and is mended.

Whatever it does, no request fails, and what it does is seen: in the metrics, in /upstreams, and in the log once.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.endpoints import ScriptedEndpoint
from support.paced import PacedLoad, failures, tally
from support.ports import free_port
from support.proxy import Sidecar
from support.stages import STAGES, TROUBLES, Stage
from support.waiting import wait_until

RATE = 200.0


class Play:
    """A stage with three endpoints, a sidecar that follows it, and a load."""

    def __init__(self, stage: Stage, sidecar: Sidecar, ports: list[int], load: PacedLoad) -> None:
        self.stage = stage
        self.sidecar = sidecar
        self.ports = ports
        self.load = load

    def let_pass(self, seconds: float) -> None:
        goal = len(self.load.results) + int(seconds * RATE)
        wait_until(lambda: len(self.load.results) >= goal, f"{seconds:g} s of answers", seconds + 10.0)

    def metric(self, name: str, **labels: str) -> float:
        text = ",".join(
            f'{key}="{value}"' for key, value in sorted({**labels, "source": self.stage.kind}.items())
        )
        return self.sidecar.metrics()[f"sidecar_{name}{{{text}}}"]

    def known(self) -> set[int]:
        return {one["port"] for one in self.sidecar.upstream("api")["endpoints"]}

    def feed(self) -> dict[str, object]:
        (found,) = self.sidecar.upstream("api")["registries"]
        return found  # type: ignore[no-any-return]

    def follow(self, *ports: int) -> None:
        self.stage.name(*ports)
        wait_until(lambda: self.known() == set(ports), f"the sidecar to know {ports}", 20.0)


@pytest.fixture(params=STAGES, ids=lambda stage: stage.kind)
def play(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Play]:
    workers = getattr(request, "workers", 1)
    port = free_port()
    with ExitStack() as stack:
        ports = [stack.enter_context(ScriptedEndpoint()).port for _ in range(3)]
        stage = stack.enter_context(request.param(tmp_path))
        stage.name(*ports[:2])
        text = f"""
external_registry: {{type: {stage.kind}, {stage.where}, on_empty: keep}}
load_balancers:
  api: {{source: {{use: {stage.kind}{stage.source}}}}}
sidecar: {{bind: [127.0.0.1], ports: {{{port}: api}}, admin: "127.0.0.1:ADMIN", metrics: "127.0.0.1:METRICS",
  workers: {workers}}}
"""
        sidecar = stack.enter_context(Sidecar(tmp_path, text))
        wait_until(lambda: len(sidecar.upstream("api")["endpoints"]) == 2, "the first snapshot")
        load = stack.enter_context(PacedLoad(port, RATE))
        yield Play(stage, sidecar, ports, load)
        load.end()


@pytest.mark.server("etcd")
def test_no_request_fails_whatever_the_registry_does(play: Play) -> None:
    one, two, three = play.ports
    play.let_pass(0.5)
    for trouble in TROUBLES:
        before = play.metric("registry_updates_total", result="empty")
        play.stage.suffer(trouble)
        if trouble == "empty":
            wait_until(
                lambda before=before: play.metric("registry_updates_total", result="empty") > before,
                "the empty answer",
                20.0,
            )
        else:
            wait_until(lambda: play.metric("registry_stale") == 1, f"{trouble} to show as stale", 20.0)
            wait_until(lambda: play.feed()["error"], "the error in /upstreams")
            assert play.feed()["stale"] is True
        # Kubernetes cannot take two slices away at once: what is left of them last is kept.
        assert play.known() <= {one, two}
        assert play.known() == {one, two} or (trouble, play.stage.kind) == ("empty", "kubernetes")
        play.let_pass(0.5)
        play.stage.mend()
        wait_until(lambda: play.metric("registry_stale") == 0, f"the end of {trouble}", 25.0)
        assert play.feed()["error"] is None
    # What it says afterwards is heard: an endpoint comes, another goes.
    play.follow(one, two, three)
    play.let_pass(0.3)
    play.follow(two, three)
    play.let_pass(0.3)
    play.load.end()
    assert not failures(play.load.results), tally(play.load.results)
    assert play.metric("registry_last_success_timestamp_seconds") > 1_600_000_000
    said = [
        line
        for line in play.sidecar.process.stderr.splitlines()
        if "sidecar.registry" in line or "WARN" in line
    ]
    assert len(said) < 40, "\n".join(said)
