"""A router of several workers: requests are routed alike, counted together, and follow a reload together."""

from contextlib import ExitStack
from pathlib import Path

from support.endpoints import ScriptedEndpoint, ok, respond
from support.load import Load
from support.ports import free_port
from support.proxy import Sidecar
from support.waiting import wait_until

from e2e.test_routing import counted, mirrored, one, rewritten, routed

TWO = "watch: false, workers: 2"


def test_weights_change_under_load_with_two_workers(tmp_path: Path) -> None:
    front = free_port()
    with ExitStack() as stack:
        old, new, copy = (
            stack.enter_context(ScriptedEndpoint(respond(ok(body)))) for body in (b"old", b"new", b"copy")
        )
        upstreams = (one("web", old, "mirror: {to: copy}"), one("canary", new), one("copy", copy))
        running = stack.enter_context(
            Sidecar(tmp_path, routed(front, "{to: {web: 1, canary: 0}}", *upstreams, more=TWO))
        )
        with Load(front, 8) as load:
            load.wait_for_more(200)
            assert set(load.bodies) == {"old"}
            rewritten(running, routed(front, "{to: {web: 1, canary: 1}}", *upstreams, more=TWO))
            load.wait_for(lambda load: load.bodies["new"] > 200, "answers of the canary")
            rewritten(running, routed(front, "{to: {web: 0, canary: 1}}", *upstreams, more=TWO))
            load.wait_for_more(200)
        assert load.errors == []
        assert set(load.statuses) == {200}
        assert set(load.bodies) == {"old", "new"}
        wait_until(lambda: counted(running, 0, "web") == load.bodies["old"], "the count of both workers")
        assert counted(running, 0, "canary") == load.bodies["new"]
        assert (
            sum(mirrored(running, "web", result) for result in ("sent", "dropped", "skipped"))
            == load.bodies["old"]
        )
        assert running.upstream("front")["routes"][0]["to"][1]["requests"] == load.bodies["new"]
